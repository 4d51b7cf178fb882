//! Promises that were to be kept by now.

use super::{Stores, Violations};

/// Each event of a sale was applied once by the consumer that adds up sales: the inbox has one row for each capture and for
/// each end of a refund, two for one that succeeded and failed later; none is undelivered, and none was given up.
pub async fn every_event_has_one_effect(stores: &mut Stores) -> sqlx::Result<Violations> {
    stores
        .texts(
            "WITH made AS (SELECT (SELECT count(*) FROM captures WHERE state = 'succeeded')
                                + (SELECT count(*) FROM refunds WHERE state IN ('succeeded', 'failed'))
                                + (SELECT count(*) FROM refunds WHERE reversed_at_us IS NOT NULL) AS events),
                  applied AS (SELECT count(*) AS events FROM product.mesh_inbox)
             SELECT made.events || ' captures and refunds, ' || applied.events || ' applied'
             FROM made, applied WHERE made.events <> applied.events
             UNION ALL
             SELECT 'undelivered: ' || kind || ' of ' || aggregate_id FROM main.mesh_outbox
             UNION ALL
             SELECT 'undelivered: ' || kind || ' of ' || aggregate_id FROM product.mesh_outbox
             UNION ALL
             SELECT 'given up by ' || consumer || ': ' || kind || ': ' || reason FROM main.mesh_dead_letters
             UNION ALL
             SELECT 'given up by ' || consumer || ': ' || kind || ': ' || reason FROM product.mesh_dead_letters",
        )
        .await
}

/// Nothing is unknown, held or in progress past its time; no key waits for its answer.
pub async fn nothing_is_left_undone(stores: &mut Stores) -> sqlx::Result<Violations> {
    stores
        .texts_now(
            "SELECT id || ' is still ' || state FROM payments WHERE state = 'PROCESSING'
             UNION ALL
             SELECT id || ' is still ' || state || ' past its time' FROM payments
             WHERE state NOT IN ('SUCCEEDED', 'CANCELED') AND expires_at_us < ?1
             UNION ALL
             SELECT 'capture ' || id || ' is still pending' FROM captures WHERE state = 'pending' OR stock = 'pending'
             UNION ALL
             SELECT 'refund ' || id || ' is still pending' FROM refunds WHERE state = 'pending' OR stock = 'pending'
             UNION ALL
             SELECT 'the response to dispute ' || id || ' is still ' || response FROM disputes
             WHERE response IN ('submitting', 'accepting')
             UNION ALL
             SELECT 'attempt ' || a.id || ' is still ' || a.state || ' and ' || a.hold
             FROM attempts a JOIN payments p ON p.id = a.payment_id
             WHERE a.state = 'reversing' OR a.hold IN ('committing', 'releasing', 'undoing', 'restocking')
             UNION ALL
             SELECT 'reservation ' || id || ' is held past its time' FROM product.reservation
             WHERE state = 'HELD' AND expires_at_us < ?1
             UNION ALL
             SELECT 'key ' || request_id || ' of ' || method || ' has no answer' FROM main.mesh_idempotency
             WHERE answer IS NULL
             UNION ALL
             SELECT 'key ' || request_id || ' of ' || method || ' has no answer' FROM product.mesh_idempotency
             WHERE answer IS NULL",
        )
        .await
}
