-- Widgets, and what is kept here of products. SQLite and PostgreSQL both take it as it is; migrations only add.

CREATE TABLE "widget" (
    id text PRIMARY KEY,
    name text NOT NULL,
    product_id text NOT NULL,
    created_at_us bigint NOT NULL
);

-- The copy that events keep up to date, with the version of the product that it is of.
CREATE TABLE product_copy (
    product_id text PRIMARY KEY,
    title text NOT NULL,
    version bigint NOT NULL
);
