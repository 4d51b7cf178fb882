-- Every fault that was brought about, in order: with the journal it tells what callers could not know.
CREATE TABLE faults (
    sequence       INTEGER PRIMARY KEY AUTOINCREMENT,
    recorded_at_us INTEGER NOT NULL,
    operation      TEXT    NOT NULL CHECK (operation IN ('authorize', 'capture', 'void', 'refund')),
    reference      TEXT    NOT NULL,
    fault          TEXT    NOT NULL CHECK (fault IN (
        'unavailable', 'unknown_before', 'unknown_after', 'late', 'slow', 'declined'))
) STRICT;

-- Requests that are still under way: nobody waits for their answers any more, and they are carried out when
-- they arrive.
CREATE TABLE arrivals (
    sequence         INTEGER PRIMARY KEY AUTOINCREMENT,
    due_at_us        INTEGER NOT NULL,
    operation        TEXT    NOT NULL CHECK (operation IN ('authorize', 'capture', 'void', 'refund')),
    reference        TEXT    NOT NULL,
    charge_reference TEXT    NOT NULL,
    order_ref        TEXT    NOT NULL, -- Of a charge; like the next two that only some operations have.
    payment_method   TEXT    NOT NULL,
    currency_code    TEXT    NOT NULL,
    amount_minor     INTEGER NOT NULL,
    at_once          INTEGER NOT NULL CHECK (at_once IN (0, 1)),
    last             INTEGER NOT NULL CHECK (last IN (0, 1))
) STRICT;

CREATE INDEX arrivals_due ON arrivals (due_at_us, sequence);

-- Webhooks stay after they were sent, with what was done to them on purpose and what became of them.
ALTER TABLE webhooks ADD COLUMN fault TEXT NOT NULL DEFAULT 'none' CHECK (fault IN (
    'none', 'late', 'duplicated', 'reordered', 'forged', 'lost'));
ALTER TABLE webhooks ADD COLUMN outcome TEXT NOT NULL DEFAULT 'waiting' CHECK (outcome IN (
    'waiting', 'accepted', 'refused', 'lost'));

CREATE INDEX webhooks_waiting ON webhooks (due_at_us, sequence) WHERE outcome = 'waiting';
DROP INDEX webhooks_due;
