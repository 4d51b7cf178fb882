-- What providers call what we call by our own reference; written before or right after the provider is asked.
CREATE TABLE provider_references (
    provider     TEXT NOT NULL,
    reference    TEXT NOT NULL,                 -- an attempt, a capture or a refund
    provider_ref TEXT NOT NULL,
    PRIMARY KEY (provider, reference)
) STRICT, WITHOUT ROWID;
