-- New payments, each with all that it leaves behind. $1: rows by table, and under "references" the ids of the payments
-- as callers know them. The end of a lease is given as how long it lasts.
-- Answers which payments were inserted: not those whose key was claimed before, and nothing else of them is written.
-- A taken order_ref breaks payments_order_ref, a limit without room spending_within_limit, and then nothing is written.
WITH
claimed AS (
    INSERT INTO mesh_idempotency (principal, method, request_id, fingerprint, reference, claimed_at_us, answer,
        completed_at_us)
    SELECT principal, method, request_id, fingerprint, reference, claimed_at_us, answer, completed_at_us
    FROM jsonb_populate_recordset(NULL::mesh_idempotency, $1 -> 'claims')
    ORDER BY principal, method, request_id -- Two that claim the same keys wait for each other in the same order.
    ON CONFLICT DO NOTHING
    RETURNING reference)
, known AS (
    SELECT claim ->> 'reference' AS reference FROM jsonb_array_elements($1 -> 'claims') claim
    EXCEPT SELECT reference FROM claimed)
, created AS (
    INSERT INTO payments (id, principal, order_ref, customer_ref, currency, amount_minor, captured_minor,
        refunded_minor, items, charges, state, capture_method, payment_method, provider, last_error, redirect_url, closing,
        late_success, ordered_at_us, expires_at_us, created_at_us, updated_at_us, version, writes, due_at_us,
        lease_owner, lease_until_us)
    SELECT id, principal, order_ref, customer_ref, currency, amount_minor, captured_minor,
        refunded_minor, items, charges, state, capture_method, payment_method, provider, last_error, redirect_url, closing,
        late_success, ordered_at_us, expires_at_us, created_at_us, updated_at_us, version, 1, due_at_us,
        lease_owner, mesh_now_us() + lease_until_us
    FROM jsonb_populate_recordset(NULL::payments, $1 -> 'payments')
    WHERE $1 -> 'references' ->> id::text NOT IN (SELECT reference FROM known)
    ORDER BY principal, order_ref
    RETURNING id)
--? attempts
, tried AS (
    INSERT INTO attempts (id, payment_id, number, payment_method, amount_minor, state, sent_at_us, tries, due_at_us,
        reversal_sent_at_us, reversal_tries, reversal_due_at_us, taken, look_up, authorization_expires_at_us, hold,
        reservation_id, hold_expires_at_us, stock_tries, stock_due_at_us, failure, created_at_us)
    SELECT id, payment_id, number, payment_method, amount_minor, state, sent_at_us, tries, due_at_us,
        reversal_sent_at_us, reversal_tries, reversal_due_at_us, taken, look_up, authorization_expires_at_us, hold,
        reservation_id, hold_expires_at_us, stock_tries, stock_due_at_us, failure, created_at_us
    FROM jsonb_populate_recordset(NULL::attempts, $1 -> 'attempts')
    WHERE payment_id IN (SELECT id FROM created))
--? moves
, moved AS (
    INSERT INTO payment_history (payment_id, version, from_state, to_state, at_us)
    SELECT payment_id, version, from_state, to_state, at_us
    FROM jsonb_populate_recordset(NULL::payment_history, $1 -> 'moves')
    WHERE payment_id IN (SELECT id FROM created))
--? changes
, logged AS (
    INSERT INTO payment_changes (revision, payment_id, principal, body, at_us)
    SELECT pg_current_xact_id()::text::bigint * 1024 + place - 1, payment_id, principal, body, at_us
    FROM ROWS FROM (jsonb_populate_recordset(NULL::payment_changes, $1 -> 'changes')) WITH ORDINALITY
        AS change (revision, payment_id, principal, body, at_us, place)
    WHERE payment_id IN (SELECT id FROM created))
--? events
, told AS (
    INSERT INTO mesh_outbox (message_id, kind, aggregate_id, aggregate_version, occurred_at_us, traceparent, mandatory,
        body, appended_at_us)
    SELECT message_id, kind, aggregate_id, aggregate_version, occurred_at_us, traceparent, mandatory,
        body, appended_at_us
    FROM jsonb_populate_recordset(NULL::mesh_outbox, $1 -> 'events')
    WHERE aggregate_id IN (SELECT $1 -> 'references' ->> id::text FROM created))
--? audit
, recorded AS (
    INSERT INTO audit_pending (id, at_us, principal, method, object, outcome)
    SELECT id, at_us, principal, method, object, outcome
    FROM jsonb_to_recordset($1 -> 'audit')
        AS r (payment_id uuid, id uuid, at_us bigint, principal text, method text, object text, outcome text)
    WHERE payment_id IN (SELECT id FROM created))
--? spending
, spent AS (
    INSERT INTO spending AS old (principal, currency, window_us, start_us, amount_minor, charges, amount_minor_max,
        charges_max)
    SELECT principal, currency, window_us, start_us, sum(amount_minor), count(*), min(amount_minor_max),
        min(charges_max)
    FROM jsonb_to_recordset($1 -> 'spending')
        AS s (payment_id uuid, principal text, currency text, window_us bigint, start_us bigint, amount_minor bigint,
            amount_minor_max bigint, charges_max bigint)
    WHERE payment_id IN (SELECT id FROM created)
    GROUP BY principal, currency, window_us, start_us
    ORDER BY principal, currency, window_us, start_us -- Two that write the same rows lock them in the same order.
    ON CONFLICT (principal, currency, window_us, start_us) DO UPDATE
    SET (amount_minor, charges, amount_minor_max, charges_max) = (old.amount_minor + excluded.amount_minor,
        old.charges + excluded.charges, excluded.amount_minor_max, excluded.charges_max))
--? always
SELECT id FROM created
