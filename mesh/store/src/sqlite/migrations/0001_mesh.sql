-- The tables that every service has beside its own. Prefixed, so that they never meet a service's table.

-- The answers of mutations that carry a request id, and the claims of those still under way.
CREATE TABLE mesh_idempotency (
    principal       TEXT    NOT NULL,
    method          TEXT    NOT NULL,
    request_id      TEXT    NOT NULL,
    fingerprint     BLOB    NOT NULL,
    reference       TEXT    NOT NULL,           -- what the request works on, for recovery: pay_…
    claimed_at_us   INTEGER NOT NULL,
    answer          BLOB,                       -- NULL: in flight
    completed_at_us INTEGER,
    PRIMARY KEY (principal, method, request_id),
    CHECK (length(fingerprint) = 32),
    CHECK ((answer IS NULL) = (completed_at_us IS NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX mesh_idempotency_completed ON mesh_idempotency (completed_at_us)
    WHERE answer IS NOT NULL;
CREATE INDEX mesh_idempotency_in_flight ON mesh_idempotency (reference, claimed_at_us)
    WHERE answer IS NULL;

-- Events that are committed and not yet confirmed by the bus. Confirmed ones are deleted.
CREATE TABLE mesh_outbox (
    message_id        BLOB    PRIMARY KEY,
    kind              TEXT    NOT NULL,
    aggregate_id      TEXT    NOT NULL,
    aggregate_version INTEGER NOT NULL,
    occurred_at_us    INTEGER NOT NULL,
    traceparent       TEXT,
    mandatory         INTEGER NOT NULL,
    body              BLOB    NOT NULL,
    appended_at_us    INTEGER NOT NULL,
    due_at_us         INTEGER NOT NULL DEFAULT 0, -- later than 0 only after publishing failed
    CHECK (length(message_id) = 16)
) STRICT, WITHOUT ROWID;
CREATE INDEX mesh_outbox_due ON mesh_outbox (due_at_us, appended_at_us);

-- The events that a consumer has applied.
CREATE TABLE mesh_inbox (
    consumer       TEXT    NOT NULL,
    message_id     BLOB    NOT NULL,
    received_at_us INTEGER NOT NULL,
    PRIMARY KEY (consumer, message_id),
    CHECK (length(message_id) = 16)
) STRICT, WITHOUT ROWID;
CREATE INDEX mesh_inbox_received ON mesh_inbox (received_at_us);

-- The events that a consumer gave up on, kept until somebody replays or drops them.
CREATE TABLE mesh_dead_letters (
    id                INTEGER PRIMARY KEY,
    consumer          TEXT    NOT NULL,
    message_id        BLOB    NOT NULL,
    kind              TEXT    NOT NULL,
    aggregate_id      TEXT    NOT NULL,
    aggregate_version INTEGER NOT NULL,
    occurred_at_us    INTEGER NOT NULL,
    traceparent       TEXT,
    mandatory         INTEGER NOT NULL,
    body              BLOB    NOT NULL,
    reason            TEXT    NOT NULL,
    attempts          INTEGER NOT NULL,
    dead_at_us        INTEGER NOT NULL,
    UNIQUE (consumer, message_id),
    CHECK (length(message_id) = 16)
) STRICT;
