//! Goods: what is on hand, what is held, and what has left the house.

use super::{Stores, Violations};

/// Nothing is held that is not there, and what is held is what the reservations hold.
pub async fn stock_covers_its_holds(stores: &mut Stores) -> sqlx::Result<Violations> {
    stores
        .texts(
            "WITH held AS (SELECT l.sku, sum(l.quantity - l.committed_quantity) AS quantity
                           FROM product.reservation r JOIN product.reservation_line l ON l.reservation_id = r.id
                           WHERE r.state = 'HELD' GROUP BY l.sku)
             SELECT s.sku || ': ' || on_hand || ' on hand, ' || reserved || ' reserved, '
                    || ifnull(held.quantity, 0) || ' held'
             FROM product.stock s LEFT JOIN held ON held.sku = s.sku
             WHERE reserved < 0 OR reserved > on_hand OR reserved <> ifnull(held.quantity, 0)
             UNION ALL
             SELECT sku || ' is held and has no stock' FROM held WHERE sku NOT IN (SELECT sku FROM product.stock)",
        )
        .await
}

/// For each item of each payment: the units that left the stock and stayed away are those captured, less
/// those that a refund put back, also one that failed later.
pub async fn committed_equals_captured(stores: &mut Stores) -> sqlx::Result<Violations> {
    stores
        .texts(
            "WITH gone AS (
                 SELECT a.payment_id, l.sku, sum(l.committed_quantity - l.restocked_quantity) AS quantity
                 FROM (SELECT DISTINCT payment_id, reservation_id FROM attempts) a
                 JOIN product.reservation_line l ON l.reservation_id = a.reservation_id GROUP BY 1, 2),
                  sold AS (
                 SELECT payment_id, sku, sum(quantity) AS quantity FROM (
                     SELECT c.payment_id, l.value ->> 'sku' AS sku, l.value ->> 'quantity' AS quantity
                     FROM captures c, json_each(c.lines) l WHERE c.state = 'succeeded'
                     UNION ALL
                     SELECT r.payment_id, l.value ->> 'sku', -(l.value ->> 'quantity')
                     FROM refunds r, json_each(r.lines) l WHERE r.stock = 'done')
                 GROUP BY 1, 2),
                  item AS (SELECT payment_id, sku FROM gone UNION SELECT payment_id, sku FROM sold)
             SELECT item.payment_id || ' ' || item.sku || ': ' || ifnull(gone.quantity, 0)
                    || ' left the stock, ' || ifnull(sold.quantity, 0) || ' were sold'
             FROM item LEFT JOIN gone USING (payment_id, sku) LEFT JOIN sold USING (payment_id, sku)
             WHERE ifnull(gone.quantity, 0) <> ifnull(sold.quantity, 0)",
        )
        .await
}

/// A hold that has not run out belongs to a payment that still wants it.
pub async fn every_hold_has_a_payment_that_waits(stores: &mut Stores) -> sqlx::Result<Violations> {
    stores
        .texts_now(
            "SELECT r.id || ' for ' || r.reference || ' is held, its payment is ' || ifnull(p.state, 'not there')
             FROM product.reservation r LEFT JOIN attempts a ON a.reservation_id = r.id
             LEFT JOIN payments p ON p.id = a.payment_id
             WHERE r.state = 'HELD' AND r.expires_at_us > ?
               AND ifnull(p.state, '') NOT IN ('PROCESSING', 'REQUIRES_ACTION', 'REQUIRES_CAPTURE', 'PARTIALLY_CAPTURED')",
        )
        .await
}
