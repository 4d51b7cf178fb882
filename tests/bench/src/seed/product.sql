-- Products :first to :last, as imports and a year of sales have left them: every fourth has three variants, each a
-- price in two currencies; each product was sold once. Secondary indexes are made anew afterwards: that is faster.
\set ON_ERROR_STOP on
SET session_replication_role = replica; -- What is written here refers to what is written here.
SET maintenance_work_mem = '1GB';

CREATE FUNCTION pg_temp.uuid_at(ms bigint, salt text) RETURNS uuid LANGUAGE sql IMMUTABLE RETURN
    (lpad(to_hex(ms), 12, '0') || '7' || substr(md5(salt), 1, 3) || 'a' || substr(md5(salt), 4, 15))::uuid;
-- Crockford's base32 of a UUID, as ids have it.
CREATE FUNCTION pg_temp.text_of(prefix text, id uuid) RETURNS text LANGUAGE sql IMMUTABLE RETURN (
    SELECT prefix || string_agg(substr('0123456789abcdefghjkmnpqrstvwxyz', substring(bits FROM 5 * place + 1 FOR 5)::int + 1, 1), '' ORDER BY place)
    FROM (SELECT (B'00' || ('x' || replace(id::text, '-', ''))::bit(128))::varbit AS bits) AS b, generate_series(0, 25) AS place);

CREATE TEMP TABLE indexes AS
    SELECT indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid) AS definition FROM pg_index
    WHERE indrelid IN ('product'::regclass, 'variant'::regclass, 'product_search'::regclass, 'reservation'::regclass,
            'reservation_line'::regclass, 'mesh_inbox'::regclass)
        AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid);
SELECT format('DROP INDEX %s', name) FROM indexes \gexec

CREATE TEMP TABLE wanted AS
    SELECT n, pg_temp.text_of('prd_', pg_temp.uuid_at(made_us / 1000, 'product' || n)) AS id, made_us,
        (ARRAY['Earl Grey with Jeju Tangerine Peel', '보성 세작 녹차', 'Roasted Barley Tea', 'Morning Harbor Espresso Blend',
            '제주 황차 티백', 'Stoneware Teapot with Bamboo Handle', 'Buckwheat Tea Tin', '핸드드립 주전자'])[n % 8 + 1]
            || ' ' || n || ' g' AS title,
        (ARRAY['Tea', 'Coffee', 'Pots', 'Cups', 'Gifts'])[n % 5 + 1] AS category,
        (ARRAY['Lantern Tea', '다온다원', 'Pier 9 Roasters', 'Kiln & Co'])[n % 4 + 1] AS vendor,
        ARRAY['loose leaf', (ARRAY['gift', 'citrus', 'caffeine free', '녹차'])[n % 4 + 1], 'lot ' || n % 1000] AS tags,
        'Black tea scented with bergamot and sun-dried Jeju tangerine peel, lot ' || n || '. 구수하고 끝이 달다.' AS description
    FROM (SELECT n::bigint, (extract(epoch FROM now()) * 1000000)::bigint - (2000000 - n) * 15000000::bigint AS made_us
        FROM generate_series(:first, :last) AS n) AS numbers;

INSERT INTO product (id, handle, title, description_html, vendor, category, tags, status, extra_rows, version,
        created_at_us, updated_at_us)
    SELECT id, 'product-' || n, title, '<p>' || description || '</p>', vendor, category, tags, 'ACTIVE', '[]', 1, made_us, made_us
    FROM wanted ORDER BY n;
CREATE TEMP TABLE forms AS
    SELECT n, id, form, 'SKU-' || n || CASE form WHEN 0 THEN '' ELSE '-' || form END AS sku
    FROM wanted, generate_series(0, CASE n % 4 WHEN 0 THEN 2 ELSE 0 END) AS form;
INSERT INTO variant (sku, product_id, position, options, barcode, weight_grams, columns)
    SELECT sku, id, form, jsonb_build_array(jsonb_build_array('Size', (ARRAY['50 g', '100 g', '200 g'])[form + 1])), '', 130, '{}'
    FROM forms ORDER BY n, form;
INSERT INTO price (sku, currency_code, amount_minor)
    SELECT sku, code, amount_minor FROM forms, (VALUES ('KRW', 16000), ('USD', 1190)) AS price(code, amount_minor) ORDER BY n, form;
INSERT INTO stock (sku, on_hand, reserved, version) SELECT sku, 1000000, 0, 1 FROM forms ORDER BY n, form;
INSERT INTO product_search (seq, words)
    SELECT seq, setweight(to_tsvector('simple', w.title), 'A') || setweight(to_tsvector('simple', 'sku ' || n), 'B')
        || setweight(to_tsvector('simple', concat_ws(' ', w.vendor, w.category, array_to_string(w.tags, ' '))), 'C')
        || setweight(to_tsvector('simple', w.description), 'D')
    FROM wanted w JOIN product p USING (id) ORDER BY n;
INSERT INTO product_sales (product_id, currency_code, quantity, amount_minor)
    SELECT id, 'USD', 1, 1190 FROM wanted ORDER BY n;

CREATE TEMP TABLE sold AS
    SELECT n, id, title, category, 'rsv_01' || lpad(to_hex(made_us), 14, '0') || substr(md5('reservation' || n), 1, 10) AS reservation,
        pg_temp.uuid_at(made_us / 1000, 'event' || n) AS event, made_us FROM wanted;
INSERT INTO reservation (id, reference, state, expires_at_us, created_at_us, updated_at_us, version)
    SELECT reservation, 'pay_' || md5('payment' || n), 'COMMITTED', made_us + 900000000, made_us, made_us, 2 FROM sold ORDER BY n;
INSERT INTO reservation_line (reservation_id, position, sku, quantity, product_id, title, category, currency_code,
        unit_price_minor, committed_quantity, restocked_quantity)
    SELECT reservation, 0, 'SKU-' || n, 1, id, title, category, 'USD', 1190, 1, 0 FROM sold ORDER BY n;
INSERT INTO reservation_transition (reservation_id, version, from_state, to_state, at_us)
    SELECT reservation, version, from_state, to_state, made_us
    FROM sold, (VALUES (1, NULL, 'HELD'), (2, 'HELD', 'COMMITTED')) AS move(version, from_state, to_state) ORDER BY n, version;
-- As of now: what is older than `service.sweep.inbox_hours` would be swept while something else is measured.
INSERT INTO mesh_inbox (consumer, message_id, received_at_us) SELECT 'product', event, (extract(epoch FROM now()) * 1000000)::bigint
    FROM sold ORDER BY n;
INSERT INTO mesh_idempotency (principal, method, request_id, fingerprint, reference, claimed_at_us, answer, completed_at_us)
    SELECT 'payment', '/commerce.product.v1.ProductService/ReserveStock', md5('key' || n), sha256(n::text::bytea), '', now_us,
        decode(repeat(md5(n::text), 8), 'hex'), now_us
    FROM sold, (SELECT (extract(epoch FROM now()) * 1000000)::bigint AS now_us) AS moment ORDER BY n;

SELECT definition FROM indexes \gexec
VACUUM ANALYZE;
CHECKPOINT; -- What is measured next does not pay for what was seeded.
