-- Entries beyond captures and refunds: what is reversed, disputed, kept by a provider or paid out by it. A fee or a payout
-- need not belong to one payment.
ALTER TABLE ledger_transactions
    DROP CONSTRAINT ledger_transactions_kind_check,
    ADD CONSTRAINT ledger_transactions_kind_check CHECK (kind IN ('capture', 'refund', 'refund_reversal', 'dispute', 'dispute_reversal', 'fee', 'payout')),
    DROP CONSTRAINT ledger_transactions_source_id_key,
    ADD CONSTRAINT ledger_transactions_source_id_kind_key UNIQUE (source_id, kind),
    ALTER COLUMN payment_id DROP NOT NULL,
    ADD CONSTRAINT ledger_transactions_of_a_payment CHECK (payment_id IS NOT NULL OR kind IN ('fee', 'payout'));
