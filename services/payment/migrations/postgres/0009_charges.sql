-- What a purchase costs beside its items: {discounts, shipping, taxes}.
ALTER TABLE payments ADD COLUMN charges jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(charges) = 'object');
-- How much of an amount is tax, and how much shipping (before tax); each line says its own tax. The rest is for goods.
ALTER TABLE captures ADD COLUMN tax_minor bigint NOT NULL DEFAULT 0 CHECK (tax_minor >= 0);
ALTER TABLE captures ADD COLUMN shipping_minor bigint NOT NULL DEFAULT 0 CHECK (shipping_minor >= 0);
ALTER TABLE refunds ADD COLUMN tax_minor bigint NOT NULL DEFAULT 0 CHECK (tax_minor >= 0);
ALTER TABLE refunds ADD COLUMN shipping_minor bigint NOT NULL DEFAULT 0 CHECK (shipping_minor >= 0);
