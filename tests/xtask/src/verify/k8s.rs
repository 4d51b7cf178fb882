//! The manifests in `k8s/`, as `cargo xtask k8s check` looks at them.

use anyhow::Result;

use super::{Place, Verdict};
use crate::k8s::{self, Outcome};

pub(super) fn run(place: &Place) -> Result<Verdict> {
    Ok(match k8s::check(&place.tools, &place.log("k8s"))? {
        Outcome::Passed(sum, _) => Verdict::Ok(sum),
        Outcome::Failed(report) => Verdict::Failed(report),
        Outcome::Skipped(reason) => Verdict::Skipped(reason),
    })
}
