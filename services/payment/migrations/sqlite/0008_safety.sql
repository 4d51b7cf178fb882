-- What each caller has asked for in the windows that are limited.
CREATE TABLE spending (
    principal    TEXT    NOT NULL,
    currency     TEXT    NOT NULL,
    window_us    INTEGER NOT NULL CHECK (window_us > 0),
    start_us     INTEGER NOT NULL,
    amount_minor INTEGER NOT NULL,
    charges      INTEGER NOT NULL,
    PRIMARY KEY (principal, currency, window_us, start_us)
) STRICT;
CREATE INDEX spending_by_end ON spending (start_us + window_us);

-- Who did what, in the transaction of what was done; waits for its place in the chain.
CREATE TABLE audit_pending (
    id        TEXT    PRIMARY KEY,
    at_us     INTEGER NOT NULL,
    principal TEXT    NOT NULL,
    method    TEXT    NOT NULL,
    object    TEXT    NOT NULL,
    outcome   TEXT    NOT NULL
) STRICT;
CREATE TRIGGER audit_pending_is_not_updated BEFORE UPDATE ON audit_pending
    BEGIN SELECT RAISE(ABORT, 'audit_pending is append-only but for what gets its place'); END;

-- The chain: each hash is over the one before and the record. Append-only.
CREATE TABLE audit_log (
    number    INTEGER PRIMARY KEY CHECK (number > 0),
    id        TEXT    NOT NULL UNIQUE,
    at_us     INTEGER NOT NULL,
    principal TEXT    NOT NULL,
    method    TEXT    NOT NULL,
    object    TEXT    NOT NULL,
    outcome   TEXT    NOT NULL,
    hash      BLOB    NOT NULL CHECK (length(hash) = 32)
) STRICT;
CREATE INDEX audit_log_of_object ON audit_log (object, number);
CREATE INDEX audit_log_of_principal ON audit_log (principal, number);
CREATE TRIGGER audit_log_is_not_updated BEFORE UPDATE ON audit_log
    BEGIN SELECT RAISE(ABORT, 'audit_log is append-only'); END;
CREATE TRIGGER audit_log_is_not_deleted BEFORE DELETE ON audit_log
    BEGIN SELECT RAISE(ABORT, 'audit_log is append-only'); END;
