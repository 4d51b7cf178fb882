//! Stripe without Stripe: what its own client sends and accepts, and the shop against a stand-in for its server.
//!
//! The golden files in `tests/verify/stripe` are compared with the adapter by payment's own tests; here they are
//! compared with PyPI's `stripe`, so that both together say that the two do the same.

use std::fs;

use anyhow::Result;

use super::{Place, Verdict, tools};
use crate::{
    checkout,
    process::{collect, command},
};

/// Scripts that compare a golden file with PyPI's `stripe`.
const GOLDEN: [(&str, &str); 2] = [
    ("record_requests.py", "requests.json"),
    ("judge_webhooks.py", "webhooks.jsonl"),
];

pub(super) fn run(place: &Place) -> Result<Verdict> {
    let pins = Place::config("stripe/requirements.txt");
    let python = match tools::environment(&place.tools, &pins) {
        Ok(programs) => programs.join("python"),
        Err(reason) => return Ok(Verdict::Skipped(format!("{reason:#}"))),
    };
    let mut looked_at = Vec::new();
    let mut said = String::new();
    for (script, golden) in GOLDEN {
        let ended = collect(
            command(&python)
                .arg(Place::config("stripe").join(script))
                .arg("--check")
                .arg(Place::config("stripe").join(golden)),
        )?;
        said.push_str(&ended.text);
        if !ended.status.success() {
            return Ok(Verdict::of(ended, ""));
        }
        looked_at.push(last_line(&ended.text));
    }
    let shop = checkout::build("standalone")?;
    let ended = collect(
        command(&python)
            .arg(Place::config("stripe/shop.py"))
            .arg(shop)
            .arg(&place.logs),
    )?;
    said.push_str(&ended.text);
    fs::write(place.log("stripe.txt"), said)?;
    looked_at.push(last_line(&ended.text));
    Ok(Verdict::of(ended, looked_at.join("; ")))
}

fn last_line(text: &str) -> String {
    text.lines().last().unwrap_or_default().to_owned()
}
