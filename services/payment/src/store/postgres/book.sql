-- Lines of settlements, each once, with their entries. $1: {"lines", "entries", "postings"}. Answers how many were new.
WITH
kept AS (
    INSERT INTO settlement_lines (id, provider, kind, provider_id, reference, payout, currency, amount_minor,
        arrival_day, booked_at_us, recorded_at_us)
    SELECT id, provider, kind, provider_id, reference, payout, currency, amount_minor, arrival_day, booked_at_us,
        recorded_at_us
    FROM jsonb_populate_recordset(NULL::settlement_lines, $1 -> 'lines')
    ON CONFLICT DO NOTHING
    RETURNING id),
entered AS (
    INSERT INTO ledger_transactions (id, kind, payment_id, source_id, recorded_at_us)
    SELECT e.id, e.kind, e.payment_id, e.source_id, e.recorded_at_us
    FROM kept JOIN jsonb_populate_recordset(NULL::ledger_transactions, $1 -> 'entries') e ON e.source_id = kept.id
    RETURNING id),
posting AS (
    SELECT p.*
    FROM entered JOIN jsonb_to_recordset($1 -> 'postings') AS p (transaction_id uuid, line integer, account text,
        currency text, amount_minor bigint, stripe smallint) ON p.transaction_id = entered.id),
posted AS (
    INSERT INTO ledger_postings (transaction_id, line, account, currency, amount_minor)
    SELECT transaction_id, line, account, currency, amount_minor FROM posting),
balanced AS (
    INSERT INTO ledger_balances AS old (account, currency, stripe, balance_minor)
    SELECT account, currency, stripe, sum(amount_minor)
    FROM posting
    GROUP BY account, currency, stripe
    ORDER BY account, currency, stripe -- Two that write the same rows lock them in the same order.
    ON CONFLICT (account, currency, stripe) DO UPDATE SET balance_minor = old.balance_minor + excluded.balance_minor)
SELECT count(*) FROM kept
