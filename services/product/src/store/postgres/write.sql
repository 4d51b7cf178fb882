-- What was decided about stock and reservations. $1: rows by list; a list without rows is left out.
-- Fails, and writes nothing, where a reservation or counted stock is not as it was. Tables of mesh_store are written
-- as its own functions do, but along with the rest.
WITH
changed_wanted AS (
    SELECT * FROM jsonb_to_recordset($1 -> 'changed') AS w(id text, before bigint, state text, expires_at_us bigint,
        updated_at_us bigint, version bigint))
--? changed
, changed_locked AS (
    SELECT r.id FROM reservation r WHERE r.id = ANY(ARRAY(SELECT id FROM changed_wanted))
    ORDER BY r.id FOR UPDATE)
, changed AS (
    UPDATE reservation r
    SET state = w.state, expires_at_us = w.expires_at_us, updated_at_us = w.updated_at_us, version = w.version
    FROM changed_wanted w JOIN changed_locked USING (id)
    WHERE r.id = w.id AND r.version = w.before
    RETURNING r.id)
--? stock
, stock_wanted AS (
    SELECT * FROM jsonb_to_recordset($1 -> 'stock') AS w(sku text, on_hand integer, reserved integer, version bigint))
, stock_locked AS (
    SELECT s.sku FROM stock s
    WHERE s.sku = ANY(ARRAY(SELECT sku FROM stock_wanted))
--? changed and stock
        AND (SELECT count(*) FROM changed) >= 0 -- Reservations first.
--? stock
    ORDER BY s.sku FOR UPDATE)
, stock_changed AS (
    UPDATE stock s
    SET on_hand = s.on_hand + w.on_hand, reserved = s.reserved + w.reserved, version = s.version + 1
    FROM stock_wanted w JOIN stock_locked USING (sku)
    WHERE s.sku = w.sku AND s.version = coalesce(w.version, s.version)
    RETURNING s.sku)
--? inserted
, inserted AS (
    INSERT INTO reservation (id, reference, state, expires_at_us, created_at_us, updated_at_us, version)
    SELECT * FROM jsonb_to_recordset($1 -> 'inserted') AS w(id text, reference text, state text, expires_at_us bigint,
        created_at_us bigint, updated_at_us bigint, version bigint))
--? lines_inserted
, lines_inserted AS (
    INSERT INTO reservation_line (reservation_id, position, sku, quantity, product_id, title, category, currency_code,
        unit_price_minor, committed_quantity, restocked_quantity, held_until_us)
    SELECT * FROM jsonb_to_recordset($1 -> 'lines_inserted') AS w(reservation_id text, position integer, sku text,
        quantity integer, product_id text, title text, category text, currency_code text, unit_price_minor bigint,
        committed_quantity integer, restocked_quantity integer, held_until_us bigint))
--? lines_changed
, lines_changed AS (
    UPDATE reservation_line l
    SET committed_quantity = w.committed_quantity, restocked_quantity = w.restocked_quantity,
        held_until_us = w.held_until_us
    FROM jsonb_to_recordset($1 -> 'lines_changed') AS w(reservation_id text, sku text, committed_quantity integer,
        restocked_quantity integer, held_until_us bigint)
    WHERE l.reservation_id = w.reservation_id AND l.sku = w.sku)
--? transitions
, transitions AS (
    INSERT INTO reservation_transition (reservation_id, version, from_state, to_state, at_us)
    SELECT * FROM jsonb_to_recordset($1 -> 'transitions') AS w(reservation_id text, version bigint, from_state text,
        to_state text, at_us bigint))
--? events
, events AS (
    INSERT INTO mesh_outbox (message_id, kind, aggregate_id, aggregate_version, occurred_at_us, traceparent, mandatory,
        body, appended_at_us)
    SELECT *, occurred_at_us FROM jsonb_to_recordset($1 -> 'events') AS w(message_id uuid, kind text,
        aggregate_id text, aggregate_version bigint, occurred_at_us bigint, traceparent text, mandatory boolean,
        body bytea))
--? answers
, answers AS (
    INSERT INTO mesh_idempotency (principal, method, request_id, fingerprint, reference, claimed_at_us, answer,
        completed_at_us)
    SELECT principal, method, request_id, fingerprint, '', at_us, body, at_us
    FROM jsonb_to_recordset($1 -> 'answers') AS w(principal text, method text, request_id text, fingerprint bytea,
        body bytea, at_us bigint))
--? always
SELECT true
--? changed
    AND product_unchanged((SELECT count(*) FROM changed), (SELECT count(*) FROM changed_wanted))
--? stock
    AND product_unchanged((SELECT count(*) FROM stock_changed), (SELECT count(*) FROM stock_wanted))
