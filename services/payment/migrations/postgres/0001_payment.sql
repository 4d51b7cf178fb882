-- Payments, what was tried, taken and given back; the books; the sales; the log of changes.
-- Amounts are whole minor units, times are microseconds since the Unix epoch (UTC). Documents that are
-- only read as a whole (items, lines, failures) are JSONB. Ids are the UUIDs inside the ids that clients see.
--
-- Rows that every step of a payment updates keep room on their page, and no step touches an indexed column
-- unless the payment's place in the index changes: so that updates stay within the page (HOT).

CREATE TABLE payments (
    id              uuid    PRIMARY KEY,
    principal       text    NOT NULL COLLATE "C",
    order_ref       text    NOT NULL COLLATE "C",
    customer_ref    text    NOT NULL COLLATE "C",
    currency        text    NOT NULL COLLATE "C" CHECK (currency ~ '^[A-Z]{3}$'),
    amount_minor    bigint  NOT NULL CHECK (amount_minor >= 0),
    captured_minor  bigint  NOT NULL CHECK (captured_minor BETWEEN 0 AND amount_minor),
    refunded_minor  bigint  NOT NULL CHECK (refunded_minor BETWEEN 0 AND captured_minor),
    items           jsonb   NOT NULL CHECK (jsonb_typeof(items) = 'array'),
                                -- [{sku, quantity, product_id, title, category, unit_price_minor}]
    state           text    NOT NULL COLLATE "C" CHECK (state IN ('REQUIRES_CONFIRMATION', 'PROCESSING',
                        'REQUIRES_ACTION', 'REQUIRES_CAPTURE', 'PARTIALLY_CAPTURED', 'SUCCEEDED', 'CANCELED')),
    is_canceled     boolean NOT NULL GENERATED ALWAYS AS (state = 'CANCELED') STORED,
    capture_method  text    NOT NULL CHECK (capture_method IN ('automatic', 'manual')),
    payment_method  text    NOT NULL,
    provider        text    NOT NULL,
    last_error      jsonb,      -- {code, message, sku}
    redirect_url    text,
    closing         text CHECK (closing IN ('requested', 'expired', 'out_of_stock', 'capture_failed')),
    late_success    boolean NOT NULL,
    ordered_at_us   bigint,
    expires_at_us   bigint,
    created_at_us   bigint  NOT NULL,
    updated_at_us   bigint  NOT NULL,
    version         bigint  NOT NULL CHECK (version > 0),   -- what clients see: moves with every change
    writes          bigint  NOT NULL,       -- every write compares it and sets it, leases included
    due_at_us       bigint,                 -- when a worker has something to do; NULL: never
    lease_owner     text,                   -- who carries it out; only the owner's steps are taken
    lease_until_us  bigint  NOT NULL,       -- by mesh_now_us(), the clock that all replicas share
    CHECK (state NOT IN ('REQUIRES_CONFIRMATION', 'REQUIRES_ACTION', 'REQUIRES_CAPTURE', 'CANCELED')
        OR captured_minor = 0),
    CHECK (state <> 'CANCELED' OR closing IS NOT NULL)
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX payments_order_ref ON payments (principal, order_ref) WHERE NOT is_canceled;
CREATE INDEX payments_due ON payments (due_at_us) WHERE due_at_us IS NOT NULL;
CREATE INDEX payments_by_time ON payments (created_at_us, id);
CREATE INDEX payments_of_principal ON payments (principal, created_at_us, id);

CREATE TABLE attempts (
    id                          uuid    PRIMARY KEY,    -- the provider's key for the charge
    payment_id                  uuid    NOT NULL REFERENCES payments (id),
    number                      bigint  NOT NULL CHECK (number >= 0),
    payment_method              text    NOT NULL,
    amount_minor                bigint  NOT NULL CHECK (amount_minor > 0),
    state                       text    NOT NULL,
    sent_at_us                  bigint,                 -- since when the provider may have acted
    tries                       bigint  NOT NULL,
    due_at_us                   bigint  NOT NULL,
    reversal_sent_at_us         bigint,
    reversal_tries              bigint  NOT NULL,
    reversal_due_at_us          bigint  NOT NULL,
    taken                       boolean NOT NULL,
    look_up                     boolean NOT NULL,
    authorization_expires_at_us bigint,
    hold                        text    NOT NULL,
    reservation_id              text,
    hold_expires_at_us          bigint,
    stock_tries                 bigint  NOT NULL,
    stock_due_at_us             bigint  NOT NULL,
    failure                     jsonb,
    created_at_us               bigint  NOT NULL,
    UNIQUE (payment_id, number)
) WITH (fillfactor = 70);

CREATE TABLE captures (
    id              uuid    PRIMARY KEY,                -- the provider's key for the capture
    payment_id      uuid    NOT NULL REFERENCES payments (id),
    number          bigint  NOT NULL CHECK (number >= 0),
    attempt_id      uuid    NOT NULL REFERENCES attempts (id),
    state           text    NOT NULL CHECK (state IN ('pending', 'succeeded', 'failed')),
    amount_minor    bigint  NOT NULL CHECK (amount_minor > 0),
    lines           jsonb   NOT NULL CHECK (jsonb_typeof(lines) = 'array'),     -- [{sku, quantity, amount_minor}]
    is_final        boolean NOT NULL,
    sent_at_us      bigint,
    tries           bigint  NOT NULL,
    due_at_us       bigint  NOT NULL,
    stock           text    NOT NULL CHECK (stock IN ('nothing', 'pending', 'done', 'refused')),
    stock_tries     bigint  NOT NULL,
    stock_due_at_us bigint  NOT NULL,
    failure         jsonb,
    created_at_us   bigint  NOT NULL,
    captured_at_us  bigint,
    UNIQUE (payment_id, number),
    CHECK ((state = 'succeeded') = (captured_at_us IS NOT NULL))
) WITH (fillfactor = 70);

CREATE TABLE refunds (
    id              uuid    PRIMARY KEY,                -- the provider's key for the refund
    payment_id      uuid    NOT NULL REFERENCES payments (id),
    number          bigint  NOT NULL CHECK (number >= 0),
    attempt_id      uuid    NOT NULL REFERENCES attempts (id),
    state           text    NOT NULL CHECK (state IN ('pending', 'succeeded', 'failed', 'canceled')),
    amount_minor    bigint  NOT NULL CHECK (amount_minor > 0),
    lines           jsonb   NOT NULL CHECK (jsonb_typeof(lines) = 'array'),     -- [{sku, quantity, amount_minor}]
    restock         boolean NOT NULL,
    reason          text    NOT NULL,
    sent_at_us      bigint,
    tries           bigint  NOT NULL,
    due_at_us       bigint  NOT NULL,
    stock           text    NOT NULL CHECK (stock IN ('nothing', 'pending', 'done', 'refused')),
    stock_tries     bigint  NOT NULL,
    stock_due_at_us bigint  NOT NULL,
    failure         jsonb,
    created_at_us   bigint  NOT NULL,
    updated_at_us   bigint  NOT NULL,
    UNIQUE (payment_id, number)
) WITH (fillfactor = 70);

-- Each move of a payment's state, the creation included (from_state NULL). Append-only.
CREATE TABLE payment_history (
    payment_id uuid   NOT NULL REFERENCES payments (id),
    version    bigint NOT NULL,
    from_state text,
    to_state   text   NOT NULL,
    at_us      bigint NOT NULL,
    PRIMARY KEY (payment_id, version),
    CHECK ((from_state IS NULL) = (version = 1))
);

-- The ledger. Entries are never changed: what was wrong is corrected by another entry.
CREATE TABLE ledger_transactions (
    id             uuid   PRIMARY KEY,
    kind           text   NOT NULL CHECK (kind IN ('capture', 'refund')),
    payment_id     uuid   NOT NULL REFERENCES payments (id),
    source_id      uuid   NOT NULL UNIQUE,      -- the capture or refund: exactly one entry each
    recorded_at_us bigint NOT NULL
);
CREATE INDEX ledger_transactions_by_time ON ledger_transactions (recorded_at_us, id);
CREATE INDEX ledger_transactions_of_payment ON ledger_transactions (payment_id, recorded_at_us, id);

CREATE TABLE ledger_postings (
    transaction_id uuid    NOT NULL REFERENCES ledger_transactions (id),
    line           integer NOT NULL,
    account        text    NOT NULL COLLATE "C",
    currency       text    NOT NULL COLLATE "C",
    amount_minor   bigint  NOT NULL CHECK (amount_minor <> 0),  -- debits positive, credits negative
    PRIMARY KEY (transaction_id, line)
);

-- The sum of an account's postings, spread over stripes so that no row is hot.
CREATE TABLE ledger_balances (
    account       text     NOT NULL COLLATE "C",
    currency      text     NOT NULL COLLATE "C",
    stripe        smallint NOT NULL,
    balance_minor bigint   NOT NULL,
    PRIMARY KEY (account, currency, stripe)
) WITH (fillfactor = 20);

-- The service's role may not change them either; this holds for whoever owns them too.
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_transactions EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_postings EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON payment_history EXECUTE FUNCTION refuse_change();

-- An entry is written whole, by one statement, and sums to zero in each currency.
CREATE FUNCTION refuse_unbalanced() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM added GROUP BY transaction_id, currency HAVING sum(amount_minor) <> 0) THEN
        RAISE EXCEPTION 'postings of a transaction do not sum to zero' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER balanced AFTER INSERT ON ledger_postings REFERENCING NEW TABLE AS added EXECUTE FUNCTION refuse_unbalanced();

-- What was sold and given back, as it was when it was bought; refunds negative.
CREATE TABLE sales_lines (
    source_id    uuid   NOT NULL,               -- the capture or refund
    sku          text   NOT NULL COLLATE "C",
    kind         text   NOT NULL CHECK (kind IN ('capture', 'refund')),
    payment_id   uuid   NOT NULL REFERENCES payments (id),
    day          date   NOT NULL,               -- UTC
    category     text   NOT NULL COLLATE "C",
    product_id   text   NOT NULL COLLATE "C",
    currency     text   NOT NULL COLLATE "C",
    quantity     bigint NOT NULL,
    amount_minor bigint NOT NULL,
    PRIMARY KEY (source_id, sku),
    CHECK (CASE kind WHEN 'capture' THEN quantity >= 0 AND amount_minor >= 0
                     ELSE quantity <= 0 AND amount_minor <= 0 END)
);
CREATE INDEX sales_lines_by_day ON sales_lines (day, category, product_id, currency)
    INCLUDE (kind, payment_id, quantity, amount_minor);

-- Changes as clients see them. The revision is the number of the transaction that wrote it, drawn by the server;
-- readers stop below the oldest transaction that is still running, so that nothing appears behind them.
CREATE TABLE payment_changes (
    revision   bigint PRIMARY KEY DEFAULT pg_current_xact_id()::text::bigint,
    payment_id uuid   NOT NULL,
    principal  text   NOT NULL,
    body       bytea  NOT NULL,                 -- commerce.payment.v1.Payment after the change
    at_us      bigint NOT NULL
);
CREATE INDEX payment_changes_by_time ON payment_changes (at_us);
CREATE FUNCTION payment_changes_settled() RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE
    RETURN pg_snapshot_xmin(pg_current_snapshot())::text::bigint - 1;

-- How far the log was swept: up to here it may have holes.
CREATE TABLE payment_changes_swept (
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    revision bigint  NOT NULL
);
INSERT INTO payment_changes_swept (revision) VALUES (0);

-- Each webhook event of a provider, once.
CREATE TABLE webhook_events (
    provider       text   NOT NULL,
    event_id       text   NOT NULL,
    reference      text   NOT NULL,
    received_at_us bigint NOT NULL,
    PRIMARY KEY (provider, event_id)
);
CREATE INDEX webhook_events_by_time ON webhook_events (received_at_us);
