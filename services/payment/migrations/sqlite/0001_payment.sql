-- Payments, what was tried, taken and given back; the books; the sales; the log of changes.
-- Amounts are whole minor units, times are microseconds since the Unix epoch (UTC). Documents that are
-- only read as a whole (items, lines, failures) are JSON.

CREATE TABLE payments (
    id              TEXT    PRIMARY KEY,
    principal       TEXT    NOT NULL,
    order_ref       TEXT    NOT NULL,
    customer_ref    TEXT    NOT NULL,
    currency        TEXT    NOT NULL,
    amount_minor    INTEGER NOT NULL CHECK (amount_minor >= 0),
    captured_minor  INTEGER NOT NULL CHECK (captured_minor BETWEEN 0 AND amount_minor),
    refunded_minor  INTEGER NOT NULL CHECK (refunded_minor BETWEEN 0 AND captured_minor),
    items           TEXT    NOT NULL,           -- [{sku, quantity, product_id, title, category, unit_price_minor}]
    state           TEXT    NOT NULL CHECK (state IN ('REQUIRES_CONFIRMATION', 'PROCESSING', 'REQUIRES_ACTION',
                        'REQUIRES_CAPTURE', 'PARTIALLY_CAPTURED', 'SUCCEEDED', 'CANCELED')),
    capture_method  TEXT    NOT NULL CHECK (capture_method IN ('automatic', 'manual')),
    payment_method  TEXT    NOT NULL,
    provider        TEXT    NOT NULL,
    last_error      TEXT,                       -- {code, message, sku}
    redirect_url    TEXT,
    closing         TEXT,                       -- why it is to be given up, or was
    late_success    INTEGER NOT NULL,
    ordered_at_us   INTEGER,
    expires_at_us   INTEGER,
    created_at_us   INTEGER NOT NULL,
    updated_at_us   INTEGER NOT NULL,
    version         INTEGER NOT NULL,           -- every write compares it and sets it
    due_at_us       INTEGER,                    -- when a worker has something to do; NULL: never
    lease_owner     TEXT,                       -- who carries it out; only the owner's steps are taken
    lease_until_us  INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX payments_order_ref ON payments (principal, order_ref) WHERE state <> 'CANCELED';
CREATE INDEX payments_due ON payments (due_at_us) WHERE due_at_us IS NOT NULL;
CREATE INDEX payments_by_time ON payments (created_at_us, id);
CREATE INDEX payments_of_principal ON payments (principal, created_at_us, id);

CREATE TABLE attempts (
    id                          TEXT    PRIMARY KEY,    -- the provider's key for the charge
    payment_id                  TEXT    NOT NULL REFERENCES payments (id),
    number                      INTEGER NOT NULL,
    payment_method              TEXT    NOT NULL,
    amount_minor                INTEGER NOT NULL,
    state                       TEXT    NOT NULL,
    sent_at_us                  INTEGER,                -- since when the provider may have acted
    tries                       INTEGER NOT NULL,
    due_at_us                   INTEGER NOT NULL,
    reversal_sent_at_us         INTEGER,
    reversal_tries              INTEGER NOT NULL,
    reversal_due_at_us          INTEGER NOT NULL,
    taken                       INTEGER NOT NULL,
    look_up                     INTEGER NOT NULL,
    authorization_expires_at_us INTEGER,
    hold                        TEXT    NOT NULL,
    reservation_id              TEXT,
    hold_expires_at_us          INTEGER,
    stock_tries                 INTEGER NOT NULL,
    stock_due_at_us             INTEGER NOT NULL,
    failure                     TEXT,
    created_at_us               INTEGER NOT NULL,
    UNIQUE (payment_id, number)
) STRICT;

CREATE TABLE captures (
    id              TEXT    PRIMARY KEY,                -- the provider's key for the capture
    payment_id      TEXT    NOT NULL REFERENCES payments (id),
    number          INTEGER NOT NULL,
    attempt_id      TEXT    NOT NULL REFERENCES attempts (id),
    state           TEXT    NOT NULL CHECK (state IN ('pending', 'succeeded', 'failed')),
    amount_minor    INTEGER NOT NULL CHECK (amount_minor > 0),
    lines           TEXT    NOT NULL,                   -- [{sku, quantity, amount_minor}]
    is_final        INTEGER NOT NULL,
    sent_at_us      INTEGER,
    tries           INTEGER NOT NULL,
    due_at_us       INTEGER NOT NULL,
    stock           TEXT    NOT NULL,                   -- nothing, pending, done (committed), refused
    stock_tries     INTEGER NOT NULL,
    stock_due_at_us INTEGER NOT NULL,
    failure         TEXT,
    created_at_us   INTEGER NOT NULL,
    captured_at_us  INTEGER,
    UNIQUE (payment_id, number)
) STRICT;

CREATE TABLE refunds (
    id              TEXT    PRIMARY KEY,                -- the provider's key for the refund
    payment_id      TEXT    NOT NULL REFERENCES payments (id),
    number          INTEGER NOT NULL,
    attempt_id      TEXT    NOT NULL REFERENCES attempts (id),
    state           TEXT    NOT NULL CHECK (state IN ('pending', 'succeeded', 'failed', 'canceled')),
    amount_minor    INTEGER NOT NULL CHECK (amount_minor > 0),
    lines           TEXT    NOT NULL,                   -- [{sku, quantity, amount_minor}]
    restock         INTEGER NOT NULL,
    reason          TEXT    NOT NULL,
    sent_at_us      INTEGER,
    tries           INTEGER NOT NULL,
    due_at_us       INTEGER NOT NULL,
    stock           TEXT    NOT NULL,                   -- nothing, pending, done (restocked), refused
    stock_tries     INTEGER NOT NULL,
    stock_due_at_us INTEGER NOT NULL,
    failure         TEXT,
    created_at_us   INTEGER NOT NULL,
    updated_at_us   INTEGER NOT NULL,
    UNIQUE (payment_id, number)
) STRICT;

-- Each move of a payment's state, the creation included (from_state NULL).
CREATE TABLE payment_history (
    payment_id TEXT    NOT NULL REFERENCES payments (id),
    version    INTEGER NOT NULL,
    from_state TEXT,
    to_state   TEXT    NOT NULL,
    at_us      INTEGER NOT NULL,
    PRIMARY KEY (payment_id, version)
) STRICT, WITHOUT ROWID;

-- The ledger. Entries are never changed: what was wrong is corrected by another entry.
CREATE TABLE ledger_transactions (
    id             TEXT    PRIMARY KEY,
    kind           TEXT    NOT NULL CHECK (kind IN ('capture', 'refund')),
    payment_id     TEXT    NOT NULL REFERENCES payments (id),
    source_id      TEXT    NOT NULL UNIQUE,     -- the capture or refund: exactly one entry each
    recorded_at_us INTEGER NOT NULL
) STRICT;
CREATE INDEX ledger_transactions_by_time ON ledger_transactions (recorded_at_us, id);
CREATE INDEX ledger_transactions_of_payment ON ledger_transactions (payment_id, recorded_at_us, id);

CREATE TABLE ledger_postings (
    transaction_id TEXT    NOT NULL REFERENCES ledger_transactions (id),
    line           INTEGER NOT NULL,
    account        TEXT    NOT NULL,
    currency       TEXT    NOT NULL,
    amount_minor   INTEGER NOT NULL CHECK (amount_minor <> 0),  -- debits positive, credits negative
    PRIMARY KEY (transaction_id, line)
) STRICT, WITHOUT ROWID;

-- The sum of an account's postings, spread over stripes so that no row is hot.
CREATE TABLE ledger_balances (
    account       TEXT    NOT NULL,
    currency      TEXT    NOT NULL,
    stripe        INTEGER NOT NULL,
    balance_minor INTEGER NOT NULL,
    PRIMARY KEY (account, currency, stripe)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER ledger_postings_are_not_updated BEFORE UPDATE ON ledger_postings
    BEGIN SELECT RAISE(ABORT, 'ledger postings are append-only'); END;
CREATE TRIGGER ledger_postings_are_not_deleted BEFORE DELETE ON ledger_postings
    BEGIN SELECT RAISE(ABORT, 'ledger postings are append-only'); END;
CREATE TRIGGER ledger_transactions_are_not_updated BEFORE UPDATE ON ledger_transactions
    BEGIN SELECT RAISE(ABORT, 'ledger transactions are append-only'); END;
CREATE TRIGGER ledger_transactions_are_not_deleted BEFORE DELETE ON ledger_transactions
    BEGIN SELECT RAISE(ABORT, 'ledger transactions are append-only'); END;

-- What was sold and given back, as it was when it was bought; refunds negative.
CREATE TABLE sales_lines (
    source_id    TEXT    NOT NULL,              -- the capture or refund
    sku          TEXT    NOT NULL,
    kind         TEXT    NOT NULL CHECK (kind IN ('capture', 'refund')),
    payment_id   TEXT    NOT NULL REFERENCES payments (id),
    day          TEXT    NOT NULL,              -- UTC, YYYY-MM-DD
    category     TEXT    NOT NULL,
    product_id   TEXT    NOT NULL,
    currency     TEXT    NOT NULL,
    quantity     INTEGER NOT NULL,
    amount_minor INTEGER NOT NULL,
    PRIMARY KEY (source_id, sku)
) STRICT, WITHOUT ROWID;
CREATE INDEX sales_lines_by_day
    ON sales_lines (day, category, product_id, currency, kind, payment_id, quantity, amount_minor);

-- Changes as clients see them, in commit order: one writer assigns the revision.
CREATE TABLE payment_changes (
    revision   INTEGER PRIMARY KEY AUTOINCREMENT,
    payment_id TEXT    NOT NULL,
    principal  TEXT    NOT NULL,
    body       BLOB    NOT NULL,                -- commerce.payment.v1.Payment after the change
    at_us      INTEGER NOT NULL
) STRICT;
CREATE INDEX payment_changes_by_time ON payment_changes (at_us);

-- Each webhook event of a provider, once.
CREATE TABLE webhook_events (
    provider       TEXT    NOT NULL,
    event_id       TEXT    NOT NULL,
    reference      TEXT    NOT NULL,
    received_at_us INTEGER NOT NULL,
    PRIMARY KEY (provider, event_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX webhook_events_by_time ON webhook_events (received_at_us);
