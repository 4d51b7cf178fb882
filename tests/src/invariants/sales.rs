//! Sums that are kept against sums over what happened.

use super::{Stores, Violations};

/// What was captured, refunded and returned by banks, line by line, recomputed from the captures, refunds and snapshots.
macro_rules! happened {
    () => {
        "happened AS (
            SELECT source.id AS source_id, source.kind, p.id AS payment_id, p.currency,
                   i.value ->> 'sku' AS sku, i.value ->> 'product_id' AS product_id,
                   i.value ->> 'category' AS category,
                   source.sign * (l.value ->> 'quantity') AS quantity,
                   source.sign * (l.value ->> 'amount_minor' - ifnull(l.value ->> 'tax_minor', 0)) AS amount_minor,
                   strftime('%Y-%m-%d', at_us / 1000000, 'unixepoch') AS day
            FROM (SELECT c.id, 'capture' AS kind, c.payment_id, c.lines, 1 AS sign,
                         ifnull(p.ordered_at_us, c.captured_at_us) AS at_us
                  FROM captures c JOIN payments p ON p.id = c.payment_id WHERE c.state = 'succeeded'
                  UNION ALL
                  SELECT id, 'refund', payment_id, lines, -1, created_at_us FROM refunds
                  WHERE state = 'succeeded' OR reversed_at_us IS NOT NULL
                  UNION ALL
                  SELECT id, 'refund_reversal', payment_id, lines, 1, reversed_at_us FROM refunds
                  WHERE reversed_at_us IS NOT NULL) source
            JOIN payments p ON p.id = source.payment_id, json_each(source.lines) l, json_each(p.items) i
            WHERE l.value ->> 'sku' = i.value ->> 'sku')"
    };
}

/// The sold counts and revenue that the product service shows are those of the payments.
pub async fn product_figures_equal_recomputation(stores: &mut Stores) -> sqlx::Result<Violations> {
    stores
        .texts(concat!(
            "WITH ",
            happened!(),
            "SELECT product_id || ' ' || currency || ': shown ' || sum(shown) || ' for ' || sum(shown_minor)
                    || ', sold ' || sum(sold) || ' for ' || sum(sold_minor)
             FROM (SELECT product_id, currency_code AS currency, quantity AS shown, amount_minor AS shown_minor,
                          0 AS sold, 0 AS sold_minor
                   FROM product.product_sales
                   UNION ALL
                   SELECT product_id, currency, 0, 0, quantity, amount_minor FROM happened)
             GROUP BY product_id, currency
             HAVING sum(shown) <> sum(sold) OR sum(shown_minor) <> sum(sold_minor)"
        ))
        .await
}

/// The lines that sales are summed from are those of the captures and refunds, on the right day.
pub async fn sales_equal_recomputation(stores: &mut Stores) -> sqlx::Result<Violations> {
    stores
        .texts(concat!(
            "WITH ",
            happened!(),
            ", kept AS (SELECT source_id, kind, payment_id, currency, sku, product_id, category, quantity,
                               amount_minor, day FROM sales_lines),
               made AS (SELECT source_id, kind, payment_id, currency, sku, product_id, category, quantity,
                               amount_minor, day FROM happened)
             SELECT 'kept, but did not happen: ' || concat_ws(' ', kind, source_id, sku, product_id, category,
                                                              day, quantity, amount_minor, currency)
             FROM (SELECT * FROM kept EXCEPT SELECT * FROM made)
             UNION ALL
             SELECT 'happened, but is not kept: ' || concat_ws(' ', kind, source_id, sku, product_id, category,
                                                               day, quantity, amount_minor, currency)
             FROM (SELECT * FROM made EXCEPT SELECT * FROM kept)"
        ))
        .await
}
