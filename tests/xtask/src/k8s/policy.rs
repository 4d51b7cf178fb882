//! Own tests of manifests: each looks for one property, and each is tested itself by breaking that property in the
//! rendered manifests. A test that lets such a mutation pass looks at nothing.

use super::{
    code::Code,
    config::Reader,
    manifests::{Edit, Manifests},
    render::Overlay,
};

/// What a policy looks at.
pub(super) struct Scene<'a> {
    pub(super) overlay: &'a str,
    pub(super) manifests: &'a Manifests,
    pub(super) code: &'a Code,
    pub(super) configs: &'a Reader,
}

/// Every overlay.
pub(super) fn everywhere(_: &str) -> bool {
    true
}

/// The overlays that are thrown away.
pub(super) fn in_development(overlay: &str) -> bool {
    !in_production(overlay)
}

/// The overlays that serve customers.
pub(super) fn in_production(overlay: &str) -> bool {
    overlay.starts_with("prod")
}

/// One property of the manifests.
pub(super) struct Policy {
    pub(super) name: &'static str,
    /// Which overlays must have it.
    pub(super) overlays: fn(&str) -> bool,
    /// What is wrong with a scene, object by object; nothing: it has the property.
    pub(super) check: fn(&Scene<'_>) -> Vec<String>,
    /// Ways to break the property. Each has to be caught in every overlay that it can be done to.
    pub(super) mutations: &'static [Mutation],
}

/// A way to break a property.
pub(super) struct Mutation {
    /// As a sentence about the broken manifests.
    pub(super) says: &'static str,
    /// All of them, one after the other.
    pub(super) edits: &'static [Edit],
}

/// What came out of one policy.
#[derive(Default)]
pub(super) struct Verdict {
    /// Findings in the manifests as they are.
    pub(super) findings: Vec<String>,
    /// Each mutation, and in how many overlays it was caught.
    pub(super) caught: Vec<(&'static str, usize)>,
    /// Mutations that were not noticed, or could not be carried out anywhere.
    pub(super) missed: Vec<String>,
}

/// Judges all overlays by a policy, and the policy by its mutations.
pub(super) fn judge(
    policy: &Policy,
    overlays: &[Overlay],
    code: &Code,
    configs: &Reader,
) -> Verdict {
    let look = |overlay: &Overlay, manifests: &Manifests| {
        (policy.check)(&Scene {
            overlay: &overlay.name,
            manifests,
            code,
            configs,
        })
    };
    let mut verdict = Verdict::default();
    let overlays: Vec<_> = overlays
        .iter()
        .filter(|overlay| (policy.overlays)(&overlay.name))
        .collect();
    for overlay in &overlays {
        let findings = look(overlay, &overlay.manifests);
        verdict.findings.extend(
            findings
                .into_iter()
                .map(|finding| format!("{}: {finding}", overlay.name)),
        );
    }
    for mutation in policy.mutations {
        let (mut caught, mut done) = (0, 0);
        for overlay in &overlays {
            let mut broken = overlay.manifests.clone();
            let all = mutation.edits.iter().try_for_each(|edit| broken.edit(edit));
            if all.is_err() {
                continue; // This overlay has no such object.
            }
            done += 1;
            if look(overlay, &broken).is_empty() {
                verdict
                    .missed
                    .push(format!("{}: {}", overlay.name, mutation.says));
            } else {
                caught += 1;
            }
        }
        if done == 0 {
            verdict
                .missed
                .push(format!("in no overlay can it be done: {}", mutation.says));
        }
        verdict.caught.push((mutation.says, caught));
    }
    if policy.mutations.is_empty() {
        verdict.missed.push("it has no mutation".to_owned());
    }
    verdict
}
