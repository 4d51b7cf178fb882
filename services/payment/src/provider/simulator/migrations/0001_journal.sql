-- Everything that ever happened to money here, in order. Rows are only ever added: the newest row of
-- an operation and reference says where it stands.
CREATE TABLE journal (
    sequence         INTEGER PRIMARY KEY AUTOINCREMENT,
    recorded_at_us   INTEGER NOT NULL,
    operation        TEXT    NOT NULL CHECK (operation IN ('authorize', 'capture', 'void', 'refund')),
    reference        TEXT    NOT NULL, -- The caller's; of a void the charge's.
    charge_reference TEXT    NOT NULL, -- The attempt that was authorised or charged.
    order_ref        TEXT    NOT NULL,
    payment_method   TEXT    NOT NULL,
    currency_code    TEXT    NOT NULL,
    amount_minor     INTEGER NOT NULL CHECK (amount_minor >= 0),
    at_once          INTEGER NOT NULL CHECK (at_once IN (0, 1)), -- A charge in one step.
    last             INTEGER NOT NULL CHECK (last IN (0, 1)),    -- A capture that gives up the rest.
    outcome          TEXT    NOT NULL CHECK (outcome IN (
        'authorized', 'captured', 'action_required', 'pending', 'declined', 'voided', 'refunded')),
    code             TEXT,             -- Why it was declined.
    expires_at_us    INTEGER,          -- Until when it is authorised.
    due_at_us        INTEGER,          -- When what is pending is decided.
    UNIQUE (operation, reference, outcome)
) STRICT;

CREATE INDEX journal_by_charge ON journal (charge_reference, sequence);
CREATE INDEX journal_by_reference ON journal (reference, sequence);
CREATE INDEX journal_pending ON journal (due_at_us) WHERE outcome = 'pending';

CREATE TRIGGER journal_rows_stay BEFORE DELETE ON journal
BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;

CREATE TRIGGER journal_rows_stay_as_they_are BEFORE UPDATE ON journal
BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;

-- Requests that were lost on their way in, once each.
CREATE TABLE interruptions (
    reference TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- Webhooks that still have to be delivered.
CREATE TABLE webhooks (
    sequence    INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id    TEXT    NOT NULL,
    body        BLOB    NOT NULL,
    due_at_us   INTEGER NOT NULL,
    failures    INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX webhooks_due ON webhooks (due_at_us, sequence);
