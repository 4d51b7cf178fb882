//! What was promised to people outside: what they were told is there, and nothing waits for them at the broker.

use serde_json::Value;

use super::{Stores, Violations};

/// Whatever was answered is there, as far as it was answered: `journal` has a JSON object a line with the
/// `path` that was asked and the `answer`.
pub async fn acknowledged_is_there(stores: &mut Stores, journal: &str) -> sqlx::Result<Violations> {
    let mut violations = Vec::new();
    for line in journal.lines() {
        let Ok(entry) = serde_json::from_str::<Value>(line) else {
            violations.push(format!("no entry of a journal: {line}"));
            continue;
        };
        let answer = &entry["answer"];
        let (id, state) = (text(answer, "id"), text(answer, "state"));
        let now = match id.split_once('_') {
            Some(("pay", _)) => stores.state_of("payments", id).await?,
            Some(("re", _)) => stores.state_of("refunds", id).await?,
            Some(("dsp", _)) => stores.state_of("disputes", id).await?,
            _ => None,
        };
        let kept = match now.as_deref() {
            // The customer's bank may have returned it, which every later answer says.
            Some("failed") if state == "SUCCEEDED" => stores.was_reversed(id).await?,
            now => now.is_some_and(|now| may_have_become(state, now)),
        };
        if !kept {
            let now = now.unwrap_or_else(|| "not there".to_owned());
            violations.push(format!("{id} was answered as {state} and is {now}"));
        }
    }
    Ok(violations)
}

/// Whether something that was acknowledged in one state can be in another one later.
fn may_have_become(acknowledged: &str, now: &str) -> bool {
    let now = now.to_uppercase();
    match acknowledged {
        "SUCCEEDED" | "CANCELED" | "FAILED" | "WON" | "CLOSED" => now == acknowledged,
        "LOST" => matches!(now.as_str(), "LOST" | "WON"),
        "PARTIALLY_CAPTURED" => matches!(now.as_str(), "PARTIALLY_CAPTURED" | "SUCCEEDED"),
        _ => true,
    }
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap_or_default()
}

/// Nothing waits at the broker: not for a consumer, not for another attempt, and nothing was given up.
pub fn queues_are_empty(queues: &[(String, u64)]) -> Violations {
    let waiting = queues.iter().filter(|(_, messages)| *messages > 0);
    waiting
        .map(|(name, messages)| format!("{messages} messages wait in {name}"))
        .collect()
}
