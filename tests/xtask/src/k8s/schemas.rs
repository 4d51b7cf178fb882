//! Strict validation against schemas: of the API itself, of custom resources as far as their models can be had, and
//! against an own table of fields where not. The script `tests/verify/kubernetes/schemas.py` says which is which.
//!
//! Validation is tested by mutations too: a field that is misspelt has to be refused for every kind of source.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{
    manifests::{Edit, title},
    render::Overlay,
};
use crate::{
    checkout,
    process::{command, output},
};

/// Each with the source of schemas that has to notice it.
const MUTATIONS: [(&str, Edit); 7] = [
    (
        "the API: a misspelt field of a Deployment",
        Edit::Set(
            "Deployment",
            "product",
            "/spec/template/spec/terminationGraceSeconds",
            "60",
        ),
    ),
    (
        "the API: a number where text is wanted",
        Edit::Set("Service", "edge", "/spec/ports/0/name", "80"),
    ),
    (
        "cert-manager: a misspelt field of a Certificate",
        Edit::Set("Certificate", "edge-identity", "/spec/renewBefor", "\"1h\""),
    ),
    (
        "Prometheus: a misspelt field of an alert",
        Edit::Set(
            "PrometheusRule",
            "commerce-mesh",
            "/spec/groups/0/rules/0/four",
            "\"1m\"",
        ),
    ),
    (
        "Prometheus: a query that cannot be read",
        Edit::Set(
            "PrometheusRule",
            "commerce-mesh",
            "/spec/groups/0/rules/0/expr",
            "\"sum(rate(up[5m]) > 1\"",
        ),
    ),
    (
        "the table: a misspelt field of a PostgreSQL cluster",
        Edit::Set("Cluster", "postgres", "/spec/instance", "3"),
    ),
    (
        "the table: a misspelt field of a route",
        Edit::Set("HTTPRoute", "edge", "/spec/hostname", "[]"),
    ),
];

/// What validation found.
pub(super) struct Outcome {
    /// How many objects were validated.
    pub(super) objects: usize,
    pub(super) findings: Vec<String>,
    /// Mutations that were noticed.
    pub(super) caught: Vec<&'static str>,
    pub(super) missed: Vec<String>,
}

/// Validates all overlays, and broken ones with them. `python` is the folder of the environment's programs.
pub(super) fn validate(python: &Path, overlays: &[Overlay], folder: &Path) -> Result<Outcome> {
    let mut asked = Vec::new();
    let mut outcome = Outcome {
        objects: 0,
        findings: Vec::new(),
        caught: Vec::new(),
        missed: Vec::new(),
    };
    for overlay in overlays {
        outcome.objects += overlay.manifests.all().len();
        asked.extend(
            overlay
                .manifests
                .all()
                .iter()
                .map(|object| json!({"from": overlay.name, "object": object})),
        );
    }
    for (says, edit) in &MUTATIONS {
        let broken = overlays.iter().find_map(|overlay| {
            let mut broken = overlay.manifests.clone();
            broken.edit(edit).ok().map(|()| (overlay, broken))
        });
        let Some((overlay, broken)) = broken else {
            bail!("no overlay can be broken so: {says}");
        };
        let changed = broken
            .all()
            .iter()
            .zip(overlay.manifests.all())
            .filter(|(new, old)| new != old);
        asked.extend(changed.map(|(object, _)| json!({"from": says, "object": object})));
    }
    let file = folder.join("objects.json");
    fs::write(&file, serde_json::to_vec(&asked)?)?;
    let script = checkout::root().join("tests/verify/kubernetes/schemas.py");
    let answer = output(command(python.join("python")).arg(script).arg(&file))?;
    let answers: Vec<Value> = serde_json::from_str(&answer).context("schemas.py answers JSON")?;
    if answers.len() != asked.len() {
        bail!(
            "schemas.py has answered for {} of {} objects",
            answers.len(),
            asked.len()
        );
    }
    for (asked, answer) in asked.iter().zip(&answers) {
        let from = asked["from"].as_str().unwrap_or_default();
        let wrong: Vec<_> = answer
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        match MUTATIONS.iter().find(|(says, _)| *says == from) {
            Some((says, _)) if wrong.is_empty() => outcome.missed.push((*says).to_owned()),
            Some((says, _)) => outcome.caught.push(says),
            None => outcome.findings.extend(
                wrong
                    .iter()
                    .map(|what| format!("{from}: {}: {what}", title(&asked["object"]))),
            ),
        }
    }
    Ok(outcome)
}
