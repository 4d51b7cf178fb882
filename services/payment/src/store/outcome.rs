//! What a decision leaves to be written, whatever the database.

use super::{Decide, Decision, LeaseWish, Opened, Work};
use crate::fact::Effects;
use crate::payment::Payment;
use crate::rejection::Rejection;
use crate::step::Next;
use crate::wire;
use mesh_events::Event;
use mesh_store::idempotency::Claim;
use prost::Message as _;

/// Decides on a payment. The change itself raises the version; each further move of the state within
/// it once more. What nothing changed is returned as it was.
pub(super) fn decided(
    before: &Payment,
    lease: &LeaseWish,
    holds_lease: bool,
    decide: Decide<'_>,
) -> Result<(Payment, Decision), Rejection> {
    let mut after = before.clone();
    after.version += 1;
    let untouched = after.clone();
    let decision = decide(&mut after, holds_lease)?;
    if after == untouched {
        return Ok((before.clone(), decision));
    }
    after.updated_at_us = lease.now_us;
    Ok((after, decision))
}

/// What is to be done after a decision that holds the lease.
pub(super) fn work(decision: &Decision) -> Work {
    match &decision.next {
        Next::Call(call) => Work::Call(call.clone()),
        Next::Later(due_us) if decision.pause => Work::Pause(*due_us),
        Next::Later(_) | Next::Nothing => Work::Done,
    }
}

/// What a known key means for a command; nothing where it is new.
pub(super) fn opened(claim: Claim) -> Option<Opened> {
    match claim {
        Claim::New => None,
        Claim::InFlight { .. } => Some(Opened::InFlight),
        Claim::Replay(answer) => Some(Opened::Replay(answer)),
        Claim::Reused => Some(Opened::Reused),
    }
}

/// The events that tell of a change, in the trace of the current call.
pub(super) fn events(after: &Payment, effects: &Effects, now_us: i64) -> Vec<Event> {
    let traceparent = mesh::CallContext::current().traceparent();
    let event = |(version, fact): &(i64, _)| {
        let (kind, mandatory, body) = wire::event(after, fact);
        let event = Event::new(kind, after.id.to_string(), *version, now_us, body)
            .with_traceparent(traceparent.as_str());
        if mandatory { event } else { event.optional() }
    };
    effects.facts.iter().map(event).collect()
}

/// The payment for the log of changes; nothing for a step of the saga that clients do not see.
pub(super) fn change(before: Option<&Payment>, after: &Payment) -> Option<Vec<u8>> {
    let seen = wire::payment(after);
    let same = before.is_some_and(|before| {
        let mut seen_before = wire::payment(before);
        seen_before.version = seen.version;
        seen_before.update_time = seen.update_time;
        seen_before == seen
    });
    (!same).then(|| seen.encode_to_vec())
}
