-- Payments :first to :last, captured and booked in the course of a year, their answers and changes still kept.
\set ON_ERROR_STOP on
SET session_replication_role = replica; -- What is written here refers to what is written here.
SET maintenance_work_mem = '1GB';

CREATE FUNCTION pg_temp.uuid_at(ms bigint, salt text) RETURNS uuid LANGUAGE sql IMMUTABLE RETURN
    (lpad(to_hex(ms), 12, '0') || '7' || substr(md5(salt), 1, 3) || 'a' || substr(md5(salt), 4, 15))::uuid;

CREATE TEMP TABLE indexes AS
    SELECT indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid) AS definition FROM pg_index
    WHERE indrelid IN ('payments'::regclass, 'ledger_transactions'::regclass, 'sales_lines'::regclass,
            'payment_changes'::regclass, 'mesh_idempotency'::regclass)
        AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid);
SELECT format('DROP INDEX %s', name) FROM indexes \gexec

CREATE TEMP TABLE wanted AS
    SELECT n, made_us, now_us, pg_temp.uuid_at(made_us / 1000, 'payment' || n) AS id,
        pg_temp.uuid_at(made_us / 1000, 'attempt' || n) AS attempt, pg_temp.uuid_at(made_us / 1000, 'capture' || n) AS capture,
        pg_temp.uuid_at(made_us / 1000, 'entry' || n) AS entry, 'prd_' || substr(md5('product' || n), 1, 26) AS product_id
    FROM (SELECT n::bigint, now_us, now_us - (2000000 - n) * 15000000::bigint AS made_us
        FROM generate_series(:first, :last) AS n, (SELECT (extract(epoch FROM now()) * 1000000)::bigint AS now_us) AS moment) AS numbers;

INSERT INTO payments (id, principal, order_ref, customer_ref, currency, amount_minor, captured_minor, refunded_minor, items,
        state, capture_method, payment_method, provider, late_success, created_at_us, updated_at_us, version, writes, lease_until_us)
    SELECT id, 'anonymous', 'seed-' || n, 'customer-' || n % 1000, 'USD', 1190, 1190, 0,
        jsonb_build_array(jsonb_build_object('sku', 'SKU-' || n, 'quantity', 1, 'product_id', product_id,
            'title', 'Earl Grey with Jeju Tangerine Peel ' || n || ' g', 'category', 'Tea', 'unit_price_minor', 1190)),
        'SUCCEEDED', 'automatic', 'pm_card_visa', 'simulator', false, made_us, made_us, 6, 6, 0
    FROM wanted ORDER BY n;
INSERT INTO attempts (id, payment_id, number, payment_method, amount_minor, state, sent_at_us, tries, due_at_us, reversal_tries,
        reversal_due_at_us, taken, look_up, authorization_expires_at_us, hold, reservation_id, hold_expires_at_us, stock_tries,
        stock_due_at_us, created_at_us)
    SELECT attempt, id, 0, 'pm_card_visa', 1190, 'captured', made_us, 0, made_us, 0, 0, true, false, made_us + 604800000000,
        'committed', 'rsv_' || substr(md5('reservation' || n), 1, 26), made_us + 900000000, 0, made_us, made_us
    FROM wanted ORDER BY n;
INSERT INTO captures (id, payment_id, number, attempt_id, state, amount_minor, lines, is_final, sent_at_us, tries, due_at_us,
        stock, stock_tries, stock_due_at_us, created_at_us, captured_at_us)
    SELECT capture, id, 0, attempt, 'succeeded', 1190,
        jsonb_build_array(jsonb_build_object('sku', 'SKU-' || n, 'quantity', 1, 'amount_minor', 1190)), true, made_us, 0, made_us,
        'nothing', 0, 0, made_us, made_us
    FROM wanted ORDER BY n;
INSERT INTO payment_history (payment_id, version, from_state, to_state, at_us)
    SELECT id, version, from_state, to_state, made_us
    FROM wanted, (VALUES (1, NULL, 'REQUIRES_CONFIRMATION'), (2, 'REQUIRES_CONFIRMATION', 'PROCESSING'),
        (6, 'PROCESSING', 'SUCCEEDED')) AS move(version, from_state, to_state)
    ORDER BY n, version;
INSERT INTO ledger_transactions (id, kind, payment_id, source_id, recorded_at_us)
    SELECT entry, 'capture', id, capture, made_us FROM wanted ORDER BY n;
INSERT INTO ledger_postings (transaction_id, line, account, currency, amount_minor)
    SELECT entry, line, account, 'USD', amount_minor
    FROM wanted, (VALUES (0, 'assets:provider:simulator', 1190), (1, 'income:sales', -1190)) AS side(line, account, amount_minor)
    ORDER BY n, line;
INSERT INTO ledger_balances AS old (account, currency, stripe, balance_minor)
    SELECT account, 'USD', get_byte(uuid_send(id), 15) % 64, sum(amount_minor)
    FROM wanted, (VALUES ('assets:provider:simulator', 1190), ('income:sales', -1190)) AS side(account, amount_minor)
    GROUP BY 1, 2, 3
    ON CONFLICT (account, currency, stripe) DO UPDATE SET balance_minor = old.balance_minor + excluded.balance_minor;
INSERT INTO sales_lines (source_id, sku, kind, payment_id, day, category, product_id, currency, quantity, amount_minor)
    SELECT capture, 'SKU-' || n, 'capture', id, to_timestamp(made_us / 1000000)::date, 'Tea', product_id, 'USD', 1, 1190
    FROM wanted ORDER BY n;
-- Before every revision that the server will give.
INSERT INTO payment_changes (revision, payment_id, principal, body, at_us)
    SELECT n - 10000000, id, 'anonymous', decode(repeat(md5(n::text), 20), 'hex'), now_us FROM wanted ORDER BY n;
INSERT INTO mesh_idempotency (principal, method, request_id, fingerprint, reference, claimed_at_us, answer, completed_at_us)
    SELECT 'anonymous', '/commerce.payment.v1.PaymentService/CreatePayment', md5('key' || n), sha256(n::text::bytea),
        'pay_' || substr(md5('payment' || n), 1, 26), now_us, decode(repeat(md5(n::text), 20), 'hex'), now_us
    FROM wanted ORDER BY n;

SELECT definition FROM indexes \gexec
VACUUM ANALYZE;
CHECKPOINT; -- What is measured next does not pay for what was seeded.
