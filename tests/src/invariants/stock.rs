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
            "WITH tried AS MATERIALIZED (SELECT DISTINCT payment_id, reservation_id FROM attempts),
                  moved AS (
                 SELECT tried.payment_id, l.sku, l.committed_quantity - l.restocked_quantity AS gone, 0 AS sold
                 FROM product.reservation_line l CROSS JOIN tried ON tried.reservation_id = l.reservation_id
                 UNION ALL
                 SELECT c.payment_id, l.value ->> 'sku', 0, l.value ->> 'quantity'
                 FROM captures c, json_each(c.lines) l WHERE c.state = 'succeeded'
                 UNION ALL
                 SELECT r.payment_id, l.value ->> 'sku', 0, -(l.value ->> 'quantity')
                 FROM refunds r, json_each(r.lines) l WHERE r.stock = 'done')
             SELECT payment_id || ' ' || sku || ': ' || sum(gone) || ' left the stock, ' || sum(sold) || ' were sold'
             FROM moved GROUP BY payment_id, sku HAVING sum(gone) <> sum(sold)",
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
