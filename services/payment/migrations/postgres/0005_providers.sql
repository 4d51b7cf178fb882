-- What providers call what we call by our own reference; written before or right after the provider is asked.
CREATE TABLE provider_references (
    provider     text NOT NULL,
    reference    text NOT NULL COLLATE "C",     -- an attempt, a capture or a refund
    provider_ref text NOT NULL,
    PRIMARY KEY (provider, reference)
);
