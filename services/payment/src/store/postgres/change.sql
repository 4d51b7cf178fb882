-- A change of a payment with all that it leaves behind. $1: rows by table, $2: the number of writes when the payment
-- was loaded, $3: how long the lease lasts in microseconds, 0 to end it, NULL to leave it as it is.
-- Answers how many payments were written: none where somebody else wrote since it was loaded, and then nothing is.
-- A key that was claimed since breaks the table's own key, a limit without room spending_within_limit, and then nothing
-- is written either.
WITH
written AS (
    UPDATE payments p
    SET amount_minor = n.amount_minor, captured_minor = n.captured_minor, refunded_minor = n.refunded_minor,
        items = n.items, charges = n.charges, state = n.state, payment_method = n.payment_method, provider = n.provider, last_error = n.last_error,
        redirect_url = n.redirect_url, closing = n.closing, late_success = n.late_success,
        expires_at_us = n.expires_at_us, updated_at_us = n.updated_at_us, version = n.version, writes = p.writes + 1,
        due_at_us = n.due_at_us, lease_owner = n.lease_owner,
        lease_until_us = coalesce(mesh_now_us() + $3, p.lease_until_us)
    FROM jsonb_populate_record(NULL::payments, $1 -> 'payment') n
    WHERE p.id = n.id AND p.writes = $2
    RETURNING p.id)
--? claims
, claimed AS (
    INSERT INTO mesh_idempotency (principal, method, request_id, fingerprint, reference, claimed_at_us, answer,
        completed_at_us)
    SELECT principal, method, request_id, fingerprint, reference, claimed_at_us, answer, completed_at_us
    FROM written, jsonb_populate_recordset(NULL::mesh_idempotency, $1 -> 'claims'))
--? answers
, answered AS (
    UPDATE mesh_idempotency open
    SET answer = a.answer, completed_at_us = a.completed_at_us
    FROM written, jsonb_populate_recordset(NULL::mesh_idempotency, $1 -> 'answers') a
    WHERE open.reference = a.reference AND open.method = a.method AND open.answer IS NULL)
--? attempts
, tried AS (
    INSERT INTO attempts AS old (id, payment_id, number, payment_method, amount_minor, state, sent_at_us, tries,
        due_at_us, reversal_sent_at_us, reversal_tries, reversal_due_at_us, taken, look_up,
        authorization_expires_at_us, hold, reservation_id, hold_expires_at_us, stock_tries, stock_due_at_us, failure,
        created_at_us, disputes_due_at_us, disputes_tries)
    SELECT a.id, payment_id, number, payment_method, amount_minor, state, sent_at_us, tries,
        due_at_us, reversal_sent_at_us, reversal_tries, reversal_due_at_us, taken, look_up,
        authorization_expires_at_us, hold, reservation_id, hold_expires_at_us, stock_tries, stock_due_at_us, failure,
        created_at_us, disputes_due_at_us, disputes_tries
    FROM written, jsonb_populate_recordset(NULL::attempts, $1 -> 'attempts') a
    ON CONFLICT (id) DO UPDATE
    SET (state, sent_at_us, tries, due_at_us, reversal_sent_at_us, reversal_tries, reversal_due_at_us, taken, look_up,
        authorization_expires_at_us, hold, reservation_id, hold_expires_at_us, stock_tries, stock_due_at_us, failure,
        disputes_due_at_us, disputes_tries)
      = (excluded.state, excluded.sent_at_us, excluded.tries, excluded.due_at_us, excluded.reversal_sent_at_us,
        excluded.reversal_tries, excluded.reversal_due_at_us, excluded.taken, excluded.look_up,
        excluded.authorization_expires_at_us, excluded.hold, excluded.reservation_id, excluded.hold_expires_at_us,
        excluded.stock_tries, excluded.stock_due_at_us, excluded.failure, excluded.disputes_due_at_us,
        excluded.disputes_tries))
--? captures
, captured AS (
    INSERT INTO captures AS old (id, payment_id, number, attempt_id, state, amount_minor, tax_minor, shipping_minor, lines,
        is_final, sent_at_us, tries, due_at_us, stock, stock_tries, stock_due_at_us, failure, created_at_us, captured_at_us)
    SELECT c.id, payment_id, number, attempt_id, state, amount_minor, tax_minor, shipping_minor, lines, is_final, sent_at_us,
        tries, due_at_us, stock, stock_tries, stock_due_at_us, failure, created_at_us, captured_at_us
    FROM written, jsonb_populate_recordset(NULL::captures, $1 -> 'captures') c
    ON CONFLICT (id) DO UPDATE
    SET (state, sent_at_us, tries, due_at_us, stock, stock_tries, stock_due_at_us, failure, captured_at_us)
      = (excluded.state, excluded.sent_at_us, excluded.tries, excluded.due_at_us, excluded.stock,
        excluded.stock_tries, excluded.stock_due_at_us, excluded.failure, excluded.captured_at_us))
--? refunds
, refunded AS (
    INSERT INTO refunds AS old (id, payment_id, number, attempt_id, state, amount_minor, tax_minor, shipping_minor, lines,
        restock, reason,
        sent_at_us, tries, due_at_us, stock, stock_tries, stock_due_at_us, failure, created_at_us, updated_at_us, look_up,
        reversed_at_us)
    SELECT r.id, payment_id, number, attempt_id, state, amount_minor, tax_minor, shipping_minor, lines, restock, reason,
        sent_at_us, tries, due_at_us, stock, stock_tries, stock_due_at_us, failure, created_at_us, updated_at_us, look_up,
        reversed_at_us
    FROM written, jsonb_populate_recordset(NULL::refunds, $1 -> 'refunds') r
    ON CONFLICT (id) DO UPDATE
    SET (state, sent_at_us, tries, due_at_us, stock, stock_tries, stock_due_at_us, failure, updated_at_us, look_up,
        reversed_at_us)
      = (excluded.state, excluded.sent_at_us, excluded.tries, excluded.due_at_us, excluded.stock,
        excluded.stock_tries, excluded.stock_due_at_us, excluded.failure, excluded.updated_at_us, excluded.look_up,
        excluded.reversed_at_us))
--? disputes
, disputed AS (
    INSERT INTO disputes AS old (id, payment_id, number, attempt_id, provider_ref, state, currency, amount_minor, reason,
        evidence_due_at_us, withdrawn_at_us, reinstated_at_us, response, responses, responded_at_us, sent_at_us, tries,
        due_at_us, evidence, failure, created_at_us, updated_at_us)
    SELECT d.id, payment_id, number, attempt_id, provider_ref, state, currency, amount_minor, reason,
        evidence_due_at_us, withdrawn_at_us, reinstated_at_us, response, responses, responded_at_us, sent_at_us, tries,
        due_at_us, evidence, failure, created_at_us, updated_at_us
    FROM written, jsonb_populate_recordset(NULL::disputes, $1 -> 'disputes') d
    ON CONFLICT (id) DO UPDATE
    SET (state, currency, amount_minor, evidence_due_at_us, withdrawn_at_us, reinstated_at_us, response, responses,
        responded_at_us, sent_at_us, tries, due_at_us, evidence, failure, updated_at_us)
      = (excluded.state, excluded.currency, excluded.amount_minor, excluded.evidence_due_at_us, excluded.withdrawn_at_us,
        excluded.reinstated_at_us, excluded.response, excluded.responses, excluded.responded_at_us, excluded.sent_at_us,
        excluded.tries, excluded.due_at_us, excluded.evidence, excluded.failure, excluded.updated_at_us))
--? evidence
, evident AS (
    INSERT INTO dispute_evidence (dispute_id, kind, content_type, body)
    SELECT dispute_id, kind, content_type, body
    FROM written, jsonb_populate_recordset(NULL::dispute_evidence, $1 -> 'evidence'))
--? evidence_dropped
, forgotten AS (
    DELETE FROM dispute_evidence WHERE EXISTS (SELECT FROM written)
        AND dispute_id IN (SELECT value::uuid FROM jsonb_array_elements_text($1 -> 'evidence_dropped')))
--? moves
, moved AS (
    INSERT INTO payment_history (payment_id, version, from_state, to_state, at_us)
    SELECT payment_id, version, from_state, to_state, at_us
    FROM written, jsonb_populate_recordset(NULL::payment_history, $1 -> 'moves'))
--? entries
, entered AS (
    INSERT INTO ledger_transactions (id, kind, payment_id, source_id, recorded_at_us)
    SELECT e.id, kind, payment_id, source_id, recorded_at_us
    FROM written, jsonb_populate_recordset(NULL::ledger_transactions, $1 -> 'entries') e)
--? postings
, posted AS (
    INSERT INTO ledger_postings (transaction_id, line, account, currency, amount_minor)
    SELECT transaction_id, line, account, currency, amount_minor
    FROM written, jsonb_populate_recordset(NULL::ledger_postings, $1 -> 'postings'))
--? balances
, balanced AS (
    INSERT INTO ledger_balances AS old (account, currency, stripe, balance_minor)
    SELECT account, currency, stripe, sum(balance_minor)
    FROM written, jsonb_populate_recordset(NULL::ledger_balances, $1 -> 'balances')
    GROUP BY account, currency, stripe
    ORDER BY account, currency, stripe -- Two that write the same rows lock them in the same order.
    ON CONFLICT (account, currency, stripe) DO UPDATE SET balance_minor = old.balance_minor + excluded.balance_minor)
--? sales
, sold AS (
    INSERT INTO sales_lines (source_id, sku, kind, payment_id, day, category, product_id, currency, quantity,
        amount_minor)
    SELECT source_id, sku, kind, payment_id, day, category, product_id, currency, quantity, amount_minor
    FROM written, jsonb_populate_recordset(NULL::sales_lines, $1 -> 'sales'))
--? changes
, logged AS (
    INSERT INTO payment_changes (payment_id, principal, body, at_us)
    SELECT payment_id, principal, body, at_us
    FROM written, jsonb_populate_recordset(NULL::payment_changes, $1 -> 'changes'))
--? events
, told AS (
    INSERT INTO mesh_outbox (message_id, kind, aggregate_id, aggregate_version, occurred_at_us, traceparent, mandatory,
        body, appended_at_us)
    SELECT message_id, kind, aggregate_id, aggregate_version, occurred_at_us, traceparent, mandatory,
        body, appended_at_us
    FROM written, jsonb_populate_recordset(NULL::mesh_outbox, $1 -> 'events'))
--? audit
, recorded AS (
    INSERT INTO audit_pending (id, at_us, principal, method, object, outcome)
    SELECT r.id, at_us, principal, method, object, outcome
    FROM written, jsonb_populate_recordset(NULL::audit_pending, $1 -> 'audit') r)
--? spending
, spent AS (
    INSERT INTO spending AS old (principal, currency, window_us, start_us, amount_minor, charges, amount_minor_max,
        charges_max)
    SELECT principal, currency, window_us, start_us, amount_minor, 1, amount_minor_max, charges_max
    FROM written, jsonb_populate_recordset(NULL::spending, $1 -> 'spending')
    ORDER BY principal, currency, window_us, start_us -- Two that write the same rows lock them in the same order.
    ON CONFLICT (principal, currency, window_us, start_us) DO UPDATE
    SET (amount_minor, charges, amount_minor_max, charges_max) = (old.amount_minor + excluded.amount_minor,
        old.charges + excluded.charges, excluded.amount_minor_max, excluded.charges_max))
--? always
SELECT count(*) FROM written
