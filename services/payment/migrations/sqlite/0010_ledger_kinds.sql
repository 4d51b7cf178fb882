-- Entries beyond captures and refunds: what is reversed, disputed, kept by a provider or paid out by it. A fee or a payout
-- need not belong to one payment. SQLite cannot change a table's constraints: both tables are made anew.

CREATE TABLE ledger_transactions_new (
    id             TEXT    PRIMARY KEY,
    kind           TEXT    NOT NULL CHECK (kind IN ('capture', 'refund', 'refund_reversal', 'dispute', 'dispute_reversal', 'fee', 'payout')),
    payment_id     TEXT    REFERENCES payments (id) CHECK (payment_id IS NOT NULL OR kind IN ('fee', 'payout')),
    source_id      TEXT    NOT NULL,            -- what is recorded: exactly one entry of a kind each
    recorded_at_us INTEGER NOT NULL,
    UNIQUE (source_id, kind)
) STRICT;
INSERT INTO ledger_transactions_new SELECT id, kind, payment_id, source_id, recorded_at_us FROM ledger_transactions;

CREATE TABLE ledger_postings_new (
    transaction_id TEXT    NOT NULL REFERENCES ledger_transactions_new (id),
    line           INTEGER NOT NULL,
    account        TEXT    NOT NULL,
    currency       TEXT    NOT NULL,
    amount_minor   INTEGER NOT NULL CHECK (amount_minor <> 0),  -- debits positive, credits negative
    PRIMARY KEY (transaction_id, line)
) STRICT, WITHOUT ROWID;
INSERT INTO ledger_postings_new SELECT transaction_id, line, account, currency, amount_minor FROM ledger_postings;

DROP TABLE ledger_postings;
DROP TABLE ledger_transactions;
ALTER TABLE ledger_transactions_new RENAME TO ledger_transactions;
ALTER TABLE ledger_postings_new RENAME TO ledger_postings;

CREATE INDEX ledger_transactions_by_time ON ledger_transactions (recorded_at_us, id);
CREATE INDEX ledger_transactions_of_payment ON ledger_transactions (payment_id, recorded_at_us, id);
CREATE TRIGGER ledger_postings_are_not_updated BEFORE UPDATE ON ledger_postings
    BEGIN SELECT RAISE(ABORT, 'ledger postings are append-only'); END;
CREATE TRIGGER ledger_postings_are_not_deleted BEFORE DELETE ON ledger_postings
    BEGIN SELECT RAISE(ABORT, 'ledger postings are append-only'); END;
CREATE TRIGGER ledger_transactions_are_not_updated BEFORE UPDATE ON ledger_transactions
    BEGIN SELECT RAISE(ABORT, 'ledger transactions are append-only'); END;
CREATE TRIGGER ledger_transactions_are_not_deleted BEFORE DELETE ON ledger_transactions
    BEGIN SELECT RAISE(ABORT, 'ledger transactions are append-only'); END;
