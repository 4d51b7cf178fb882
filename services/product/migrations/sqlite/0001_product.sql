-- The catalogue, its stock and reservations, its search index, its change log, and what is known of its sales.

-- Products. `seq` is the order of creation and the row of the search index.
CREATE TABLE product (
    seq              INTEGER PRIMARY KEY AUTOINCREMENT,
    id               TEXT    NOT NULL UNIQUE,          -- prd_…
    handle           TEXT    NOT NULL UNIQUE,
    title            TEXT    NOT NULL,
    description_html TEXT    NOT NULL,
    vendor           TEXT    NOT NULL,
    category         TEXT    NOT NULL,
    tags             TEXT    NOT NULL,                 -- JSON array of texts
    status           TEXT    NOT NULL CHECK (status IN ('ACTIVE', 'DRAFT', 'ARCHIVED')),
    extra_rows       TEXT    NOT NULL,                 -- JSON array of [after, {column: value}], from imports
    version          INTEGER NOT NULL CHECK (version >= 1),
    created_at_us    INTEGER NOT NULL,
    updated_at_us    INTEGER NOT NULL,
    deleted_at_us    INTEGER
) STRICT;
CREATE INDEX product_created  ON product (created_at_us, seq);
CREATE INDEX product_updated  ON product (updated_at_us, seq);
CREATE INDEX product_title    ON product (title, seq);
CREATE INDEX product_category ON product (category, seq);

-- The forms in which products are sold.
CREATE TABLE variant (
    sku          TEXT    NOT NULL PRIMARY KEY,
    product_id   TEXT    NOT NULL REFERENCES product (id),
    position     INTEGER NOT NULL,
    options      TEXT    NOT NULL,                     -- JSON array of [name, value]
    barcode      TEXT    NOT NULL,
    weight_grams INTEGER NOT NULL,
    columns      TEXT    NOT NULL                      -- JSON object of columns kept from imports
) STRICT, WITHOUT ROWID;
CREATE INDEX variant_product ON variant (product_id, position);

-- One price a variant and currency.
CREATE TABLE price (
    sku           TEXT    NOT NULL REFERENCES variant (sku),
    currency_code TEXT    NOT NULL,
    amount_minor  INTEGER NOT NULL CHECK (amount_minor >= 0),
    PRIMARY KEY (sku, currency_code)
) STRICT, WITHOUT ROWID;

-- Units of each SKU. A row outlives its variant: committed units may come back later.
-- At every commit `reserved` is the sum of quantity - committed_quantity over the lines of reservations
-- in state HELD, whether or not their time has run out.
CREATE TABLE stock (
    sku      TEXT    NOT NULL PRIMARY KEY,
    on_hand  INTEGER NOT NULL CHECK (on_hand BETWEEN 0 AND 2147483647),
    reserved INTEGER NOT NULL,
    version  INTEGER NOT NULL,
    CHECK (reserved BETWEEN 0 AND on_hand)
) STRICT, WITHOUT ROWID;

-- Stock held for somebody.
CREATE TABLE reservation (
    id            TEXT    NOT NULL PRIMARY KEY,        -- rsv_…
    reference     TEXT    NOT NULL,
    state         TEXT    NOT NULL CHECK (state IN ('HELD', 'COMMITTED', 'RELEASED', 'EXPIRED')),
    expires_at_us INTEGER NOT NULL,
    created_at_us INTEGER NOT NULL,
    updated_at_us INTEGER NOT NULL,
    version       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX reservation_held    ON reservation (expires_at_us) WHERE state = 'HELD';
CREATE INDEX reservation_settled ON reservation (updated_at_us) WHERE state <> 'HELD';
CREATE INDEX reservation_reference ON reservation (reference);

-- Its lines, with what each variant was at that moment.
CREATE TABLE reservation_line (
    reservation_id     TEXT    NOT NULL REFERENCES reservation (id) ON DELETE CASCADE,
    position           INTEGER NOT NULL,
    sku                TEXT    NOT NULL,
    quantity           INTEGER NOT NULL CHECK (quantity > 0),
    product_id         TEXT    NOT NULL,
    title              TEXT    NOT NULL,
    category           TEXT    NOT NULL,
    currency_code      TEXT    NOT NULL,
    unit_price_minor   INTEGER NOT NULL,
    committed_quantity INTEGER NOT NULL DEFAULT 0,
    restocked_quantity INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (reservation_id, position),
    UNIQUE (reservation_id, sku),
    CHECK (0 <= restocked_quantity AND restocked_quantity <= committed_quantity
           AND committed_quantity <= quantity)
) STRICT, WITHOUT ROWID;

-- Every change of state that a reservation went through, the first with no state before it.
CREATE TABLE reservation_transition (
    reservation_id TEXT    NOT NULL REFERENCES reservation (id) ON DELETE CASCADE,
    version        INTEGER NOT NULL,
    from_state     TEXT,
    to_state       TEXT    NOT NULL,
    at_us          INTEGER NOT NULL,
    PRIMARY KEY (reservation_id, version)
) STRICT, WITHOUT ROWID;

-- Units sold and money taken, less what was refunded: added up from payment events, each once. Products
-- that are not known here are kept as well.
CREATE TABLE product_sales (
    product_id    TEXT    NOT NULL,
    currency_code TEXT    NOT NULL,
    quantity      INTEGER NOT NULL,
    amount_minor  INTEGER NOT NULL,
    PRIMARY KEY (product_id, currency_code)
) STRICT, WITHOUT ROWID;

-- The words of products that are not deleted; `rowid` is `product.seq`.
CREATE VIRTUAL TABLE product_search USING fts5 (
    title, skus, labels, description,
    content = '', contentless_delete = 1, tokenize = 'unicode61 remove_diacritics 2', prefix = '2 3'
);

-- Changes of products in the order in which they were committed.
CREATE TABLE watch_log (
    revision INTEGER NOT NULL PRIMARY KEY,
    change   TEXT    NOT NULL CHECK (change IN ('CREATED', 'UPDATED', 'DELETED', 'UNDELETED')),
    at_us    INTEGER NOT NULL,
    product  BLOB    NOT NULL                          -- commerce.product.v1.Product after the change
) STRICT;
CREATE INDEX watch_log_at ON watch_log (at_us);

-- One row: the last revision given, and the last one that is no longer kept.
CREATE TABLE watch_state (
    only            INTEGER NOT NULL PRIMARY KEY CHECK (only = 1),
    last_revision   INTEGER NOT NULL,
    trimmed_through INTEGER NOT NULL
) STRICT;
INSERT INTO watch_state (only, last_revision, trimmed_through) VALUES (1, 0, 0);

-- The columns of imported files, in the order in which they were first seen.
CREATE TABLE csv_column (
    name     TEXT    NOT NULL PRIMARY KEY,
    position INTEGER NOT NULL UNIQUE
) STRICT, WITHOUT ROWID;
