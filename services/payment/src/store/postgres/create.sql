-- A new payment. $1: rows by table, $2: how long the lease lasts in microseconds, 0 for none.
-- Answers how many payments were inserted: none where the key was claimed before, and then nothing is written.
-- A taken order_ref breaks payments_order_ref, and then nothing is written either.
WITH
claimed AS (
    INSERT INTO mesh_idempotency (principal, method, request_id, fingerprint, reference, claimed_at_us, answer,
        completed_at_us)
    SELECT principal, method, request_id, fingerprint, reference, claimed_at_us, answer, completed_at_us
    FROM jsonb_populate_recordset(NULL::mesh_idempotency, $1 -> 'claims')
    ON CONFLICT DO NOTHING
    RETURNING 1)
, created AS (
    INSERT INTO payments (id, principal, order_ref, customer_ref, currency, amount_minor, captured_minor,
        refunded_minor, items, state, capture_method, payment_method, provider, last_error, redirect_url, closing,
        late_success, ordered_at_us, expires_at_us, created_at_us, updated_at_us, version, writes, due_at_us,
        lease_owner, lease_until_us)
    SELECT id, principal, order_ref, customer_ref, currency, amount_minor, captured_minor,
        refunded_minor, items, state, capture_method, payment_method, provider, last_error, redirect_url, closing,
        late_success, ordered_at_us, expires_at_us, created_at_us, updated_at_us, version, 1, due_at_us,
        lease_owner, mesh_now_us() + $2
    FROM jsonb_populate_record(NULL::payments, $1 -> 'payment')
    WHERE (SELECT count(*) FROM claimed) = jsonb_array_length($1 -> 'claims')
    RETURNING id)
--? attempts
, tried AS (
    INSERT INTO attempts (id, payment_id, number, payment_method, amount_minor, state, sent_at_us, tries, due_at_us,
        reversal_sent_at_us, reversal_tries, reversal_due_at_us, taken, look_up, authorization_expires_at_us, hold,
        reservation_id, hold_expires_at_us, stock_tries, stock_due_at_us, failure, created_at_us)
    SELECT a.id, payment_id, number, payment_method, amount_minor, state, sent_at_us, tries, due_at_us,
        reversal_sent_at_us, reversal_tries, reversal_due_at_us, taken, look_up, authorization_expires_at_us, hold,
        reservation_id, hold_expires_at_us, stock_tries, stock_due_at_us, failure, created_at_us
    FROM created, jsonb_populate_recordset(NULL::attempts, $1 -> 'attempts') a)
--? moves
, moved AS (
    INSERT INTO payment_history (payment_id, version, from_state, to_state, at_us)
    SELECT payment_id, version, from_state, to_state, at_us
    FROM created, jsonb_populate_recordset(NULL::payment_history, $1 -> 'moves'))
--? changes
, logged AS (
    INSERT INTO payment_changes (payment_id, principal, body, at_us)
    SELECT payment_id, principal, body, at_us
    FROM created, jsonb_populate_recordset(NULL::payment_changes, $1 -> 'changes'))
--? events
, told AS (
    INSERT INTO mesh_outbox (message_id, kind, aggregate_id, aggregate_version, occurred_at_us, traceparent, mandatory,
        body, appended_at_us)
    SELECT message_id, kind, aggregate_id, aggregate_version, occurred_at_us, traceparent, mandatory,
        body, appended_at_us
    FROM created, jsonb_populate_recordset(NULL::mesh_outbox, $1 -> 'events'))
--? always
SELECT count(*) FROM created
