-- What each caller has asked for in the windows that are limited. A row that breaks its limit cannot be written: who
-- comes at the same time waits for the row, adds to what is then there, and is refused by it.
CREATE TABLE spending (
    principal        text   NOT NULL COLLATE "C",
    currency         text   NOT NULL COLLATE "C",
    window_us        bigint NOT NULL CHECK (window_us > 0),
    start_us         bigint NOT NULL,
    amount_minor     bigint NOT NULL,
    charges          bigint NOT NULL,
    amount_minor_max bigint NOT NULL,           -- the limits at the last charge
    charges_max      bigint NOT NULL,
    PRIMARY KEY (principal, currency, window_us, start_us),
    CONSTRAINT spending_within_limit CHECK (amount_minor <= amount_minor_max AND charges <= charges_max)
) WITH (fillfactor = 20);
CREATE INDEX spending_by_end ON spending ((start_us + window_us));

-- Who did what, in the transaction of what was done; waits for its place in the chain.
CREATE TABLE audit_pending (
    id        uuid   PRIMARY KEY,
    at_us     bigint NOT NULL,
    principal text   NOT NULL,
    method    text   NOT NULL,
    object    text   NOT NULL,
    outcome   text   NOT NULL
);
CREATE TRIGGER never_changed BEFORE UPDATE OR TRUNCATE ON audit_pending EXECUTE FUNCTION refuse_change();

-- The chain: each hash is over the one before and the record. Append-only.
CREATE TABLE audit_log (
    number    bigint PRIMARY KEY CHECK (number > 0),
    id        uuid   NOT NULL UNIQUE,
    at_us     bigint NOT NULL,
    principal text   NOT NULL COLLATE "C",
    method    text   NOT NULL,
    object    text   NOT NULL COLLATE "C",
    outcome   text   NOT NULL,
    hash      bytea  NOT NULL CHECK (octet_length(hash) = 32)
);
CREATE INDEX audit_log_of_object ON audit_log (object, number);
CREATE INDEX audit_log_of_principal ON audit_log (principal, number);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log EXECUTE FUNCTION refuse_change();
