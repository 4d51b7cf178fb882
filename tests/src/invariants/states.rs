//! The moves that payments and reservations made, against the tables of the design.

use super::{Stores, Violations};

/// Each history begins at the beginning, goes on where it was, makes only moves of the design, and ends
/// where the payment or reservation stands.
pub async fn only_legal_moves(stores: &mut Stores) -> sqlx::Result<Violations> {
    let mut violations = stores.texts(PAYMENT_MOVES).await?;
    violations.extend(stores.texts(RESERVATION_MOVES).await?);
    Ok(violations)
}

const PAYMENT_MOVES: &str = "
    WITH legal (from_state, to_state) AS (VALUES
        ('', 'REQUIRES_CONFIRMATION'),
        ('REQUIRES_CONFIRMATION', 'PROCESSING'), ('REQUIRES_CONFIRMATION', 'CANCELED'),
        ('PROCESSING', 'REQUIRES_ACTION'), ('PROCESSING', 'REQUIRES_CAPTURE'), ('PROCESSING', 'SUCCEEDED'),
        ('PROCESSING', 'REQUIRES_CONFIRMATION'), ('PROCESSING', 'CANCELED'),
        ('REQUIRES_ACTION', 'PROCESSING'), ('REQUIRES_ACTION', 'REQUIRES_CONFIRMATION'),
        ('REQUIRES_ACTION', 'CANCELED'),
        ('REQUIRES_CAPTURE', 'SUCCEEDED'), ('REQUIRES_CAPTURE', 'PARTIALLY_CAPTURED'),
        ('REQUIRES_CAPTURE', 'CANCELED'),
        ('PARTIALLY_CAPTURED', 'PARTIALLY_CAPTURED'), ('PARTIALLY_CAPTURED', 'SUCCEEDED')),
    moves AS (
        SELECT payment_id, version, ifnull(from_state, '') AS from_state, to_state,
               lag(to_state, 1, '') OVER history AS before, lead(version) OVER history AS next
        FROM payment_history WINDOW history AS (PARTITION BY payment_id ORDER BY version))
    SELECT payment_id || ' moved from \"' || from_state || '\" to ' || to_state || ' when it was \"' || before || '\"'
    FROM moves WHERE from_state <> before OR (from_state, to_state) NOT IN (SELECT * FROM legal)
    UNION ALL
    SELECT p.id || ' is ' || p.state || ', its history ends elsewhere' FROM payments p
    LEFT JOIN (SELECT payment_id, to_state FROM moves WHERE next IS NULL) last ON last.payment_id = p.id
    WHERE p.state IS NOT last.to_state";

const RESERVATION_MOVES: &str = "
    WITH legal (from_state, to_state) AS (VALUES
        ('', 'HELD'), ('HELD', 'COMMITTED'), ('HELD', 'RELEASED'), ('HELD', 'EXPIRED'),
        ('EXPIRED', 'COMMITTED')),
    moves AS (
        SELECT reservation_id, version, ifnull(from_state, '') AS from_state, to_state,
               lag(to_state, 1, '') OVER history AS before, lead(version) OVER history AS next
        FROM product.reservation_transition WINDOW history AS (PARTITION BY reservation_id ORDER BY version))
    SELECT reservation_id || ' moved from \"' || from_state || '\" to ' || to_state || ' when it was \"' || before || '\"'
    FROM moves WHERE from_state <> before OR (from_state, to_state) NOT IN (SELECT * FROM legal)
    UNION ALL
    SELECT r.id || ' is ' || r.state || ', its history ends elsewhere' FROM product.reservation r
    LEFT JOIN (SELECT reservation_id, to_state FROM moves WHERE next IS NULL) last ON last.reservation_id = r.id
    WHERE r.state IS NOT last.to_state";
