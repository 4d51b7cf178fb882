-- The tables that every service has beside its own. Prefixed, so that they never meet a service's table.
-- Times are microseconds since the Unix epoch (UTC), as everywhere in this house.

-- The answers of mutations that carry a request id, and the claims of those still under way.
CREATE TABLE mesh_idempotency (
    principal       text   NOT NULL,
    method          text   NOT NULL,
    request_id      text   NOT NULL,
    fingerprint     bytea  NOT NULL CHECK (length(fingerprint) = 32),
    reference       text   NOT NULL,            -- what the request works on, for recovery: pay_…
    claimed_at_us   bigint NOT NULL,
    answer          bytea,                      -- NULL: in flight
    completed_at_us bigint,
    PRIMARY KEY (principal, method, request_id),
    CHECK ((answer IS NULL) = (completed_at_us IS NULL))
);
CREATE INDEX mesh_idempotency_completed ON mesh_idempotency (completed_at_us) WHERE answer IS NOT NULL;
CREATE INDEX mesh_idempotency_in_flight ON mesh_idempotency (reference, claimed_at_us) WHERE answer IS NULL;

-- Events that are committed and not yet confirmed by the bus. Confirmed ones are deleted. Leasing updates a
-- column that no index has, in room that every page keeps for it, so that it stays within the page (HOT).
CREATE TABLE mesh_outbox (
    message_id        uuid    PRIMARY KEY,
    kind              text    NOT NULL,
    aggregate_id      text    NOT NULL,
    aggregate_version bigint  NOT NULL,
    occurred_at_us    bigint  NOT NULL,
    traceparent       text,
    mandatory         boolean NOT NULL,
    body              bytea   NOT NULL,
    appended_at_us    bigint  NOT NULL,
    due_at_us         bigint  NOT NULL DEFAULT 0, -- later than 0 only after publishing failed
    leased_until_us   bigint  NOT NULL DEFAULT 0  -- by the clock of the database
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 5000);
CREATE INDEX mesh_outbox_due ON mesh_outbox (due_at_us, appended_at_us);

-- The events that a consumer has applied.
CREATE TABLE mesh_inbox (
    consumer       text   NOT NULL,
    message_id     uuid   NOT NULL,
    received_at_us bigint NOT NULL,
    PRIMARY KEY (consumer, message_id)
);
CREATE INDEX mesh_inbox_received ON mesh_inbox (received_at_us);

-- The events that a consumer gave up on, kept until somebody replays or drops them.
CREATE TABLE mesh_dead_letters (
    id                bigint  PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    consumer          text    NOT NULL,
    message_id        uuid    NOT NULL,
    kind              text    NOT NULL,
    aggregate_id      text    NOT NULL,
    aggregate_version bigint  NOT NULL,
    occurred_at_us    bigint  NOT NULL,
    traceparent       text,
    mandatory         boolean NOT NULL,
    body              bytea   NOT NULL,
    reason            text    NOT NULL,
    attempts          bigint  NOT NULL,
    dead_at_us        bigint  NOT NULL,
    UNIQUE (consumer, message_id)
);

-- Now, by the clock that every replica shares.
CREATE FUNCTION mesh_now_us() RETURNS bigint LANGUAGE sql VOLATILE PARALLEL SAFE
    RETURN (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
