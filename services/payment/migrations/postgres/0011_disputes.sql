-- Refunds that failed after they had succeeded, and disputes of charges.

-- A refund that has succeeded is looked up when a webhook names it.
ALTER TABLE refunds
    ADD COLUMN look_up boolean NOT NULL DEFAULT false,
    ADD COLUMN reversed_at_us bigint,
    ADD CONSTRAINT refunds_reversed CHECK (reversed_at_us IS NULL OR state = 'failed');

-- What a refund took away is added again by lines of its own.
ALTER TABLE sales_lines
    DROP CONSTRAINT sales_lines_pkey,
    ADD CONSTRAINT sales_lines_pkey PRIMARY KEY (source_id, kind, sku),
    DROP CONSTRAINT sales_lines_kind_check,
    ADD CONSTRAINT sales_lines_kind_check CHECK (kind IN ('capture', 'refund', 'refund_reversal')),
    DROP CONSTRAINT sales_lines_check,
    ADD CONSTRAINT sales_lines_check CHECK (CASE kind WHEN 'refund' THEN quantity <= 0 AND amount_minor <= 0
                                                      ELSE quantity >= 0 AND amount_minor >= 0 END);

-- When the disputes of an attempt's charge are looked up next; NULL: there is no reason to.
ALTER TABLE attempts
    ADD COLUMN disputes_due_at_us bigint,
    ADD COLUMN disputes_tries bigint NOT NULL DEFAULT 0;

CREATE TABLE disputes (
    id                 uuid   PRIMARY KEY,
    payment_id         uuid   NOT NULL REFERENCES payments (id),
    number             bigint NOT NULL CHECK (number >= 0),
    attempt_id         uuid   NOT NULL REFERENCES attempts (id),
    provider_ref       text   NOT NULL,             -- the provider's name of it
    state              text   NOT NULL COLLATE "C" CHECK (state IN ('INQUIRY', 'NEEDS_RESPONSE', 'UNDER_REVIEW', 'WON',
                           'LOST', 'CLOSED')),
    currency           text   NOT NULL COLLATE "C" CHECK (currency ~ '^[A-Z]{3}$'),
    amount_minor       bigint NOT NULL CHECK (amount_minor > 0),
    reason             text   NOT NULL,
    evidence_due_at_us bigint,
    withdrawn_at_us    bigint,                      -- when its money was booked as taken
    reinstated_at_us   bigint,                      -- when its money was booked as given back
    response           text   NOT NULL CHECK (response IN ('none', 'submitting', 'submitted', 'accepting', 'accepted')),
    responses          bigint NOT NULL,             -- how many were begun
    responded_at_us    bigint,
    sent_at_us         bigint,
    tries              bigint NOT NULL,
    due_at_us          bigint NOT NULL,
    evidence           jsonb  NOT NULL CHECK (jsonb_typeof(evidence) = 'array'),    -- what stays known of it
    failure            jsonb,
    created_at_us      bigint NOT NULL,
    updated_at_us      bigint NOT NULL,
    UNIQUE (payment_id, number),
    UNIQUE (attempt_id, provider_ref),
    CHECK (reinstated_at_us IS NULL OR withdrawn_at_us IS NOT NULL)
);
CREATE INDEX disputes_by_time ON disputes (created_at_us, id);

-- Evidence until the provider has it: texts and files, a row each.
CREATE TABLE dispute_evidence (
    dispute_id   uuid  NOT NULL REFERENCES disputes (id),
    kind         text  NOT NULL,
    content_type text  NOT NULL,
    body         bytea NOT NULL,
    PRIMARY KEY (dispute_id, kind)
);

-- By which of our references a provider's name is known.
CREATE INDEX provider_references_by_name ON provider_references (provider, provider_ref);
