-- Refunds that failed after they had succeeded, and disputes of charges.

-- A refund that has succeeded is looked up when a webhook names it.
ALTER TABLE refunds ADD COLUMN look_up INTEGER NOT NULL DEFAULT 0;
ALTER TABLE refunds ADD COLUMN reversed_at_us INTEGER CHECK (reversed_at_us IS NULL OR state = 'failed');

-- What a refund took away is added again by lines of its own. SQLite cannot change a table's constraints: it is made anew.
CREATE TABLE sales_lines_new (
    source_id    TEXT    NOT NULL,              -- the capture or refund
    sku          TEXT    NOT NULL,
    kind         TEXT    NOT NULL CHECK (kind IN ('capture', 'refund', 'refund_reversal')),
    payment_id   TEXT    NOT NULL REFERENCES payments (id),
    day          TEXT    NOT NULL,              -- UTC, YYYY-MM-DD
    category     TEXT    NOT NULL,
    product_id   TEXT    NOT NULL,
    currency     TEXT    NOT NULL,
    quantity     INTEGER NOT NULL,
    amount_minor INTEGER NOT NULL,
    PRIMARY KEY (source_id, kind, sku)
) STRICT, WITHOUT ROWID;
INSERT INTO sales_lines_new SELECT source_id, sku, kind, payment_id, day, category, product_id, currency, quantity, amount_minor
    FROM sales_lines;
DROP TABLE sales_lines;
ALTER TABLE sales_lines_new RENAME TO sales_lines;
CREATE INDEX sales_lines_by_day
    ON sales_lines (day, category, product_id, currency, kind, payment_id, quantity, amount_minor);

-- When the disputes of an attempt's charge are looked up next; NULL: there is no reason to.
ALTER TABLE attempts ADD COLUMN disputes_due_at_us INTEGER;
ALTER TABLE attempts ADD COLUMN disputes_tries INTEGER NOT NULL DEFAULT 0;

CREATE TABLE disputes (
    id                 TEXT    PRIMARY KEY,
    payment_id         TEXT    NOT NULL REFERENCES payments (id),
    number             INTEGER NOT NULL,
    attempt_id         TEXT    NOT NULL REFERENCES attempts (id),
    provider_ref       TEXT    NOT NULL,            -- the provider's name of it
    state              TEXT    NOT NULL CHECK (state IN ('INQUIRY', 'NEEDS_RESPONSE', 'UNDER_REVIEW', 'WON', 'LOST',
                           'CLOSED')),
    currency           TEXT    NOT NULL,
    amount_minor       INTEGER NOT NULL CHECK (amount_minor > 0),
    reason             TEXT    NOT NULL,
    evidence_due_at_us INTEGER,
    withdrawn_at_us    INTEGER,                     -- when its money was booked as taken
    reinstated_at_us   INTEGER,                     -- when its money was booked as given back
    response           TEXT    NOT NULL CHECK (response IN ('none', 'submitting', 'submitted', 'accepting', 'accepted')),
    responses          INTEGER NOT NULL,            -- how many were begun
    responded_at_us    INTEGER,
    sent_at_us         INTEGER,
    tries              INTEGER NOT NULL,
    due_at_us          INTEGER NOT NULL,
    evidence           TEXT    NOT NULL,            -- what stays known of it: [{kind, content_type, bytes, sha256}]
    failure            TEXT,
    created_at_us      INTEGER NOT NULL,
    updated_at_us      INTEGER NOT NULL,
    UNIQUE (payment_id, number),
    UNIQUE (attempt_id, provider_ref),
    CHECK (reinstated_at_us IS NULL OR withdrawn_at_us IS NOT NULL)
) STRICT;
CREATE INDEX disputes_by_time ON disputes (created_at_us, id);

-- Evidence until the provider has it: texts and files, a row each.
CREATE TABLE dispute_evidence (
    dispute_id   TEXT NOT NULL REFERENCES disputes (id),
    kind         TEXT NOT NULL,
    content_type TEXT NOT NULL,
    body         BLOB NOT NULL,
    PRIMARY KEY (dispute_id, kind)
) STRICT, WITHOUT ROWID;

-- By which of our references a provider's name is known.
CREATE INDEX provider_references_by_name ON provider_references (provider, provider_ref);
