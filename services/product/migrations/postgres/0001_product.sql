-- The catalogue, its stock and reservations, its search index, its change log, and what is known of its sales.
-- Texts that are compared or sorted are so byte by byte ("C"), whatever the database's own collation: pages and
-- locks have one order everywhere. Times are microseconds since the Unix epoch (UTC), as everywhere in this house.

-- For `title : …` in filters. A trusted extension: whoever owns the database may create it.
CREATE EXTENSION IF NOT EXISTS pg_trgm;

-- Products. `seq` is the order of creation.
CREATE TABLE product (
    seq              bigint  PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    id               text    COLLATE "C" NOT NULL UNIQUE,      -- prd_…
    handle           text    COLLATE "C" NOT NULL UNIQUE,
    title            text    COLLATE "C" NOT NULL,
    description_html text    NOT NULL,
    vendor           text    COLLATE "C" NOT NULL,
    category         text    COLLATE "C" NOT NULL,
    tags             text[]  COLLATE "C" NOT NULL,
    status           text    COLLATE "C" NOT NULL CHECK (status IN ('ACTIVE', 'DRAFT', 'ARCHIVED')),
    extra_rows       jsonb   NOT NULL,                         -- [after, {column: value}], from imports
    version          bigint  NOT NULL CHECK (version >= 1),
    created_at_us    bigint  NOT NULL,
    updated_at_us    bigint  NOT NULL,
    deleted_at_us    bigint
);
CREATE INDEX product_created  ON product (created_at_us, seq) WHERE deleted_at_us IS NULL;
CREATE INDEX product_updated  ON product (updated_at_us, seq) WHERE deleted_at_us IS NULL;
CREATE INDEX product_titled   ON product (title, seq) WHERE deleted_at_us IS NULL;
CREATE INDEX product_category ON product (category, seq) WHERE deleted_at_us IS NULL;
CREATE INDEX product_seq      ON product (seq) WHERE deleted_at_us IS NULL;
CREATE INDEX product_tags     ON product USING gin (tags);
CREATE INDEX product_title    ON product USING gin (title gin_trgm_ops);

-- The forms in which products are sold.
CREATE TABLE variant (
    sku          text    COLLATE "C" PRIMARY KEY,
    product_id   text    COLLATE "C" NOT NULL REFERENCES product (id),
    position     integer NOT NULL CHECK (position >= 0),
    options      jsonb   NOT NULL,                             -- [[name, value], …]
    barcode      text    NOT NULL,
    weight_grams integer NOT NULL,
    columns      jsonb   NOT NULL                              -- {column: value}, from imports
);
CREATE UNIQUE INDEX variant_product ON variant (product_id, position);

-- One price a variant and currency. The index covers what a reservation and a page read.
CREATE TABLE price (
    sku           text   COLLATE "C" NOT NULL REFERENCES variant (sku),
    currency_code text   COLLATE "C" NOT NULL,
    amount_minor  bigint NOT NULL CHECK (amount_minor >= 0),
    PRIMARY KEY (sku, currency_code) INCLUDE (amount_minor)
);

-- Units of each SKU. A row outlives its variant: committed units may come back later.
-- At every commit `reserved` is the sum of quantity - committed_quantity over the lines of reservations
-- in state HELD, whether or not their time has run out. No index has a column that changes, and every page
-- keeps room, so that a change stays within its page (HOT).
CREATE TABLE stock (
    sku      text    COLLATE "C" PRIMARY KEY,
    on_hand  integer NOT NULL,
    reserved integer NOT NULL,
    version  bigint  NOT NULL,
    CONSTRAINT stock_covers CHECK (0 <= reserved AND reserved <= on_hand)
) WITH (fillfactor = 50);

-- Stock held for somebody.
CREATE TABLE reservation (
    id            text   COLLATE "C" PRIMARY KEY,              -- rsv_…
    reference     text   NOT NULL,
    state         text   NOT NULL CHECK (state IN ('HELD', 'COMMITTED', 'RELEASED', 'EXPIRED')),
    expires_at_us bigint NOT NULL,
    created_at_us bigint NOT NULL,
    updated_at_us bigint NOT NULL,
    version       bigint NOT NULL CHECK (version >= 1)
);
CREATE INDEX reservation_held      ON reservation (expires_at_us) WHERE state = 'HELD';
CREATE INDEX reservation_settled   ON reservation (updated_at_us) WHERE state <> 'HELD';
CREATE INDEX reservation_reference ON reservation (reference);

-- Its lines, with what each variant was at that moment. `held_until_us` is the reservation's expiry while it is
-- HELD and NULL afterwards: so the units of a SKU whose time has run out are one range of one small index.
CREATE TABLE reservation_line (
    reservation_id     text    COLLATE "C" NOT NULL REFERENCES reservation (id) ON DELETE CASCADE,
    position           integer NOT NULL,
    sku                text    COLLATE "C" NOT NULL,
    quantity           integer NOT NULL CHECK (quantity > 0),
    product_id         text    COLLATE "C" NOT NULL,
    title              text    NOT NULL,
    category           text    NOT NULL,
    currency_code      text    NOT NULL,
    unit_price_minor   bigint  NOT NULL CHECK (unit_price_minor >= 0),
    committed_quantity integer NOT NULL,
    restocked_quantity integer NOT NULL,
    held_until_us      bigint,
    PRIMARY KEY (reservation_id, sku),
    CHECK (0 <= restocked_quantity AND restocked_quantity <= committed_quantity
           AND committed_quantity <= quantity)
);
CREATE INDEX reservation_line_held ON reservation_line (sku, held_until_us)
    INCLUDE (reservation_id, quantity, committed_quantity) WHERE held_until_us IS NOT NULL;

-- Every change of state that a reservation went through, the first with no state before it.
CREATE TABLE reservation_transition (
    reservation_id text   COLLATE "C" NOT NULL REFERENCES reservation (id) ON DELETE CASCADE,
    version        bigint NOT NULL,
    from_state     text,
    to_state       text   NOT NULL,
    at_us          bigint NOT NULL,
    PRIMARY KEY (reservation_id, version)
);

-- Units sold and money taken, less what was refunded: added up from payment events, each once. Products
-- that are not known here are kept as well.
CREATE TABLE product_sales (
    product_id    text   COLLATE "C" NOT NULL,
    currency_code text   COLLATE "C" NOT NULL,
    quantity      bigint NOT NULL,
    amount_minor  bigint NOT NULL,
    PRIMARY KEY (product_id, currency_code)
) WITH (fillfactor = 50);

-- The words of products that are not deleted: title A, SKUs B, labels (vendor, category, tags) C, description D.
CREATE TABLE product_search (
    seq   bigint   PRIMARY KEY REFERENCES product (seq),
    words tsvector NOT NULL
);
CREATE INDEX product_search_words ON product_search USING gin (words);

-- Changes of products in the order in which they were committed.
CREATE TABLE watch_log (
    revision bigint PRIMARY KEY,
    change   text   NOT NULL CHECK (change IN ('CREATED', 'UPDATED', 'DELETED', 'UNDELETED')),
    at_us    bigint NOT NULL,
    product  bytea  NOT NULL                                   -- commerce.product.v1.Product after the change
);
CREATE INDEX watch_log_at ON watch_log (at_us);

-- One row: the last revision given, and the last one that is no longer kept. A transaction locks it with its last
-- statement, so that revisions are given in the order of commits, and nobody waits for longer than a commit.
CREATE TABLE watch_state (
    the_one         boolean PRIMARY KEY CHECK (the_one),
    last_revision   bigint  NOT NULL,
    trimmed_through bigint  NOT NULL CHECK (trimmed_through <= last_revision)
) WITH (fillfactor = 10);
INSERT INTO watch_state (the_one, last_revision, trimmed_through) VALUES (true, 0, 0);

-- The columns of imported files, in the order in which they were first seen.
CREATE TABLE csv_column (
    name     text    COLLATE "C" PRIMARY KEY,
    position integer NOT NULL UNIQUE
);

-- Takes the whole statement back unless it found everything as it was when the decision was made.
CREATE FUNCTION product_unchanged(seen bigint, wanted bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF seen <> wanted THEN
        RAISE EXCEPTION 'changed meanwhile: % of % rows', seen, wanted USING ERRCODE = 'serialization_failure';
    END IF;
    RETURN true;
END
$$;
