-- What providers list of captures and refunds, as it was read, each line once.
CREATE TABLE statement_lines (
    provider         TEXT    NOT NULL,
    provider_id      TEXT    NOT NULL,
    kind             TEXT    NOT NULL,
    reference        TEXT    NOT NULL,          -- ours, as the provider has it
    charge_reference TEXT    NOT NULL,
    order_ref        TEXT    NOT NULL,
    currency         TEXT    NOT NULL,
    amount_minor     INTEGER NOT NULL CHECK (amount_minor >= 0),
    booked_at_us     INTEGER NOT NULL,
    payment_id       TEXT,                      -- NULL: no payment of ours was found for it
    PRIMARY KEY (provider, provider_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX statement_lines_by_time ON statement_lines (provider, booked_at_us, provider_id);
CREATE INDEX statement_lines_of_payment ON statement_lines (payment_id) WHERE payment_id IS NOT NULL;

-- What providers kept and paid out, each line once; its entry in the books has its id as the source.
CREATE TABLE settlement_lines (
    id             TEXT    PRIMARY KEY,
    provider       TEXT    NOT NULL,
    kind           TEXT    NOT NULL CHECK (kind IN ('fee', 'payout')),
    provider_id    TEXT    NOT NULL,
    reference      TEXT    NOT NULL,
    payout         TEXT    NOT NULL,
    currency       TEXT    NOT NULL,
    amount_minor   INTEGER NOT NULL CHECK (amount_minor <> 0),
    arrival_day    TEXT    NOT NULL,
    booked_at_us   INTEGER NOT NULL,
    recorded_at_us INTEGER NOT NULL,
    UNIQUE (provider, kind, provider_id)
) STRICT;
CREATE TRIGGER settlement_lines_are_not_updated BEFORE UPDATE ON settlement_lines
    BEGIN SELECT RAISE(ABORT, 'settlement_lines is append-only'); END;
CREATE TRIGGER settlement_lines_are_not_deleted BEFORE DELETE ON settlement_lines
    BEGIN SELECT RAISE(ABORT, 'settlement_lines is append-only'); END;

-- Comparisons with a provider; one at a time each, by whoever holds the lease.
CREATE TABLE reconciliations (
    id              TEXT    PRIMARY KEY,
    provider        TEXT    NOT NULL,
    state           TEXT    NOT NULL CHECK (state IN ('requested', 'running', 'succeeded', 'failed')),
    phase           TEXT    NOT NULL,
    place           TEXT    NOT NULL,           -- where the next page begins
    since_us        INTEGER NOT NULL,
    until_us        INTEGER NOT NULL,
    requested_by    TEXT    NOT NULL,
    requested_at_us INTEGER NOT NULL,
    started_at_us   INTEGER,
    finished_at_us  INTEGER,
    lines           INTEGER NOT NULL,
    found           INTEGER NOT NULL,
    resolved        INTEGER NOT NULL,
    booked          INTEGER NOT NULL,
    tries           INTEGER NOT NULL,
    error           TEXT    NOT NULL,
    lease_owner     TEXT,
    lease_until_us  INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX reconciliations_open ON reconciliations (provider) WHERE state IN ('requested', 'running');
CREATE INDEX reconciliations_by_time ON reconciliations (requested_at_us, id);
CREATE INDEX reconciliations_of_provider ON reconciliations (provider, requested_at_us);

-- What was found to differ; the same thing once, however often it is found.
CREATE TABLE discrepancies (
    id                TEXT    PRIMARY KEY,
    provider          TEXT    NOT NULL,
    kind              TEXT    NOT NULL CHECK (kind IN ('missing_here', 'missing_there', 'amount', 'currency', 'state',
                          'duplicate')),
    subject           TEXT    NOT NULL,         -- the provider's id, else our reference
    payment_id        TEXT,
    our_reference     TEXT    NOT NULL,
    provider_id       TEXT    NOT NULL,
    our_currency      TEXT,
    our_minor         INTEGER,
    their_currency    TEXT,
    their_minor       INTEGER,
    booked_at_us      INTEGER NOT NULL,
    safe              INTEGER NOT NULL CHECK (safe IN (0, 1)),
    reconciliation_id TEXT    NOT NULL REFERENCES reconciliations (id),
    found_at_us       INTEGER NOT NULL,
    status            TEXT    NOT NULL CHECK (status IN ('open', 'resolved_itself', 'resolved')),
    resolved_at_us    INTEGER,
    resolved_by       TEXT    NOT NULL,
    note              TEXT    NOT NULL,
    UNIQUE (provider, kind, subject)
) STRICT;
CREATE INDEX discrepancies_by_time ON discrepancies (found_at_us, id);
CREATE INDEX discrepancies_open ON discrepancies (provider, id) WHERE status = 'open';

-- Up to when the books are closed, each step of it; the latest one counts, and none is taken back.
CREATE TABLE ledger_periods (
    closed_until_us INTEGER PRIMARY KEY,        -- what was recorded before it stays as it is
    closed_at_us    INTEGER NOT NULL,
    closed_by       TEXT    NOT NULL
) STRICT;
CREATE TRIGGER ledger_periods_are_not_updated BEFORE UPDATE ON ledger_periods
    BEGIN SELECT RAISE(ABORT, 'ledger_periods is append-only'); END;
CREATE TRIGGER ledger_periods_are_not_deleted BEFORE DELETE ON ledger_periods
    BEGIN SELECT RAISE(ABORT, 'ledger_periods is append-only'); END;
CREATE TRIGGER ledger_transactions_in_open_periods BEFORE INSERT ON ledger_transactions
    WHEN NEW.recorded_at_us < (SELECT MAX(closed_until_us) FROM ledger_periods)
    BEGIN SELECT RAISE(ABORT, 'the period is closed'); END;
CREATE TRIGGER ledger_postings_in_open_periods BEFORE INSERT ON ledger_postings
    WHEN (SELECT recorded_at_us FROM ledger_transactions WHERE id = NEW.transaction_id)
        < (SELECT MAX(closed_until_us) FROM ledger_periods)
    BEGIN SELECT RAISE(ABORT, 'the period is closed'); END;
