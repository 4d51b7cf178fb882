-- What providers list of captures and refunds, as it was read, each line once. Ids that are only shown or compared here
-- are the texts that clients see.
CREATE TABLE statement_lines (
    provider         text   NOT NULL COLLATE "C",
    provider_id      text   NOT NULL COLLATE "C",
    kind             text   NOT NULL,
    reference        text   NOT NULL COLLATE "C",   -- ours, as the provider has it
    charge_reference text   NOT NULL COLLATE "C",
    order_ref        text   NOT NULL,
    currency         text   NOT NULL,
    amount_minor     bigint NOT NULL CHECK (amount_minor >= 0),
    booked_at_us     bigint NOT NULL,
    payment_id       text COLLATE "C",              -- NULL: no payment of ours was found for it
    PRIMARY KEY (provider, provider_id)
);
CREATE INDEX statement_lines_by_time ON statement_lines (provider, booked_at_us, provider_id);
CREATE INDEX statement_lines_of_payment ON statement_lines (payment_id) WHERE payment_id IS NOT NULL;

-- What providers kept and paid out, each line once; its entry in the books has its id as the source. Append-only.
CREATE TABLE settlement_lines (
    id             uuid   PRIMARY KEY,
    provider       text   NOT NULL COLLATE "C",
    kind           text   NOT NULL CHECK (kind IN ('fee', 'payout')),
    provider_id    text   NOT NULL COLLATE "C",
    reference      text   NOT NULL,
    payout         text   NOT NULL,
    currency       text   NOT NULL,
    amount_minor   bigint NOT NULL CHECK (amount_minor <> 0),
    arrival_day    text   NOT NULL,
    booked_at_us   bigint NOT NULL,
    recorded_at_us bigint NOT NULL,
    UNIQUE (provider, kind, provider_id)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON settlement_lines EXECUTE FUNCTION refuse_change();

-- Comparisons with a provider; one at a time each, by whoever holds the lease.
CREATE TABLE reconciliations (
    id              text   PRIMARY KEY COLLATE "C",
    provider        text   NOT NULL COLLATE "C",
    state           text   NOT NULL CHECK (state IN ('requested', 'running', 'succeeded', 'failed')),
    phase           text   NOT NULL,
    place           text   NOT NULL,                -- where the next page begins
    since_us        bigint NOT NULL,
    until_us        bigint NOT NULL,
    requested_by    text   NOT NULL,
    requested_at_us bigint NOT NULL,
    started_at_us   bigint,
    finished_at_us  bigint,
    lines           bigint NOT NULL,
    found           bigint NOT NULL,
    resolved        bigint NOT NULL,
    booked          bigint NOT NULL,
    tries           bigint NOT NULL,
    error           text   NOT NULL,
    lease_owner     text,
    lease_until_us  bigint NOT NULL DEFAULT 0       -- by mesh_now_us(), the clock that all replicas share
) WITH (fillfactor = 50);
CREATE UNIQUE INDEX reconciliations_open ON reconciliations (provider) WHERE state IN ('requested', 'running');
CREATE INDEX reconciliations_by_time ON reconciliations (requested_at_us, id);
CREATE INDEX reconciliations_of_provider ON reconciliations (provider, requested_at_us);

-- What was found to differ; the same thing once, however often it is found.
CREATE TABLE discrepancies (
    id                text    PRIMARY KEY COLLATE "C",
    provider          text    NOT NULL COLLATE "C",
    kind              text    NOT NULL CHECK (kind IN ('missing_here', 'missing_there', 'amount', 'currency', 'state',
                          'duplicate')),
    subject           text    NOT NULL COLLATE "C", -- the provider's id, else our reference
    payment_id        text COLLATE "C",
    our_reference     text    NOT NULL,
    provider_id       text    NOT NULL,
    our_currency      text,
    our_minor         bigint,
    their_currency    text,
    their_minor       bigint,
    booked_at_us      bigint  NOT NULL,
    safe              boolean NOT NULL,
    reconciliation_id text    NOT NULL COLLATE "C" REFERENCES reconciliations (id),
    found_at_us       bigint  NOT NULL,
    status            text    NOT NULL CHECK (status IN ('open', 'resolved_itself', 'resolved')),
    resolved_at_us    bigint,
    resolved_by       text    NOT NULL,
    note              text    NOT NULL,
    UNIQUE (provider, kind, subject)
);
CREATE INDEX discrepancies_by_time ON discrepancies (found_at_us, id);
CREATE INDEX discrepancies_open ON discrepancies (provider, id) WHERE status = 'open';

-- Up to when the books are closed, each step of it; the latest one counts, and none is taken back.
CREATE TABLE ledger_periods (
    closed_until_us bigint PRIMARY KEY,             -- what was recorded before it stays as it is
    closed_at_us    bigint NOT NULL,
    closed_by       text   NOT NULL
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_periods EXECUTE FUNCTION refuse_change();

-- Whoever adds to the books shares this lock to the end of its transaction, whoever closes a period has it alone: so
-- nothing is under way that was recorded before, and what begins later sees the period closed.
CREATE FUNCTION ledger_closing() RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN 427021005669; -- "close"; any number that nobody else of this database uses.

CREATE FUNCTION refuse_closed_period() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(ledger_closing());
    IF EXISTS (SELECT FROM added
        WHERE recorded_at_us < (SELECT max(closed_until_us) FROM ledger_periods)) THEN
        RAISE EXCEPTION 'the period is closed' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER in_open_period AFTER INSERT ON ledger_transactions REFERENCING NEW TABLE AS added
    EXECUTE FUNCTION refuse_closed_period();

CREATE FUNCTION refuse_closed_postings() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(ledger_closing());
    IF EXISTS (SELECT FROM added JOIN ledger_transactions t ON t.id = added.transaction_id
        WHERE t.recorded_at_us < (SELECT max(closed_until_us) FROM ledger_periods)) THEN
        RAISE EXCEPTION 'the period is closed' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER in_open_period AFTER INSERT ON ledger_postings REFERENCING NEW TABLE AS added
    EXECUTE FUNCTION refuse_closed_postings();
