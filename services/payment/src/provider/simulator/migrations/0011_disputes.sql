-- Disputes, evidence and refunds that fail later are entries like all others. SQLite cannot change a table's constraints:
-- the journal is made anew.
CREATE TABLE journal_new (
    sequence         INTEGER PRIMARY KEY AUTOINCREMENT,
    recorded_at_us   INTEGER NOT NULL,
    operation        TEXT    NOT NULL CHECK (operation IN ('authorize', 'capture', 'void', 'refund', 'dispute', 'evidence')),
    reference        TEXT    NOT NULL, -- The caller's; of a void the charge's, of a dispute the bank's.
    charge_reference TEXT    NOT NULL, -- The attempt that was authorised or charged.
    order_ref        TEXT    NOT NULL,
    payment_method   TEXT    NOT NULL,
    currency_code    TEXT    NOT NULL,
    amount_minor     INTEGER NOT NULL CHECK (amount_minor >= 0),
    at_once          INTEGER NOT NULL CHECK (at_once IN (0, 1)), -- A charge in one step.
    last             INTEGER NOT NULL CHECK (last IN (0, 1)),    -- A capture that gives up the rest.
    outcome          TEXT    NOT NULL CHECK (outcome IN (
        'authorized', 'captured', 'action_required', 'pending', 'declined', 'voided', 'refunded', 'refund_failed',
        'scheduled', 'inquiry', 'needs_response', 'under_review', 'won', 'lost', 'closed', 'submitted')),
    code             TEXT,             -- Why it was declined; of evidence, against which dispute.
    expires_at_us    INTEGER,          -- Until when it is authorised.
    due_at_us        INTEGER,          -- When what is pending is decided; until when evidence is waited for.
    UNIQUE (operation, reference, outcome)
) STRICT;
INSERT INTO journal_new SELECT sequence, recorded_at_us, operation, reference, charge_reference, order_ref, payment_method,
        currency_code, amount_minor, at_once, last, outcome, code, expires_at_us, due_at_us
    FROM journal ORDER BY sequence;
DROP TABLE journal;
ALTER TABLE journal_new RENAME TO journal;

CREATE INDEX journal_by_charge ON journal (charge_reference, sequence);
CREATE INDEX journal_by_reference ON journal (reference, sequence);
CREATE INDEX journal_pending ON journal (due_at_us) WHERE outcome = 'pending';
CREATE INDEX journal_of_banks ON journal (due_at_us)
    WHERE outcome IN ('scheduled', 'inquiry', 'needs_response', 'under_review');

CREATE TRIGGER journal_rows_stay BEFORE DELETE ON journal
BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;

CREATE TRIGGER journal_rows_stay_as_they_are BEFORE UPDATE ON journal
BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
