//! checkov's checks of manifests. What it finds and we mean to keep stands with its reason in `k8s/checkov.toml`, and
//! nowhere else; an entry that matches nothing is an error, so that the file does not outlive its reasons.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{
    manifests::{list, text},
    render::Overlay,
};
use crate::{checkout, process::command};

/// What checkov found.
pub(super) struct Outcome {
    /// How many of its checks passed.
    pub(super) passed: u64,
    /// How many findings have a reason.
    pub(super) reasoned: usize,
    pub(super) findings: Vec<String>,
}

/// A finding that we keep.
struct Kept {
    check: String,
    /// The overlay and the kind of what it may be found on; `*`: any.
    overlay: String,
    kind: String,
    reason: String,
}

pub(super) fn check(python: &Path, overlays: &[Overlay]) -> Result<Outcome> {
    let kept = kept(&fs::read_to_string(
        checkout::root().join("k8s/checkov.toml"),
    )?)?;
    let mut used = BTreeMap::new();
    let mut outcome = Outcome {
        passed: 0,
        reasoned: 0,
        findings: Vec::new(),
    };
    for overlay in overlays {
        let mut checkov = command(python.join("checkov"));
        checkov
            .args([
                "--skip-download",
                "--framework",
                "kubernetes",
                "--compact",
                "--quiet",
                "--output",
                "json",
                "--file",
            ])
            .arg(&overlay.file);
        // It ends with 1 where it finds something; what it finds is what counts.
        let ended = checkov.output().context("cannot start checkov")?;
        let report: Value = serde_json::from_slice(&ended.stdout).with_context(|| {
            format!(
                "checkov answers no JSON: {}",
                String::from_utf8_lossy(&ended.stderr)
            )
        })?;
        let passed = report.pointer("/summary/passed").and_then(Value::as_u64);
        outcome.passed += passed
            .filter(|passed| *passed > 0)
            .context("checkov has looked at nothing")?;
        for failed in list(&report, "/results/failed_checks") {
            let (check, resource) = (text(failed, "/check_id"), text(failed, "/resource"));
            let found = kept.iter().position(|kept| {
                kept.check == check
                    && fits(&kept.overlay, &overlay.name)
                    && fits(&kept.kind, resource.split('.').next().unwrap_or_default())
            });
            match found {
                Some(index) => *used.entry(index).or_insert(0_usize) += 1,
                None => outcome.findings.push(format!(
                    "{}: {check} {resource}: {}",
                    overlay.name,
                    text(failed, "/check_name")
                )),
            }
        }
    }
    outcome.reasoned = used.values().sum();
    for (index, kept) in kept
        .iter()
        .enumerate()
        .filter(|(index, _)| !used.contains_key(index))
    {
        outcome.findings.push(format!(
            "k8s/checkov.toml: entry {} ({} on {}) matches nothing",
            index + 1,
            kept.check,
            kept.kind
        ));
    }
    Ok(outcome)
}

fn fits(wanted: &str, found: &str) -> bool {
    wanted == "*" || wanted == found
}

fn kept(file: &str) -> Result<Vec<Kept>> {
    let file: Value = toml::from_str(file).context("k8s/checkov.toml")?;
    let read = |entry: &Value| {
        let kept = Kept {
            check: text(entry, "/check").to_owned(),
            kind: text(entry, "/kind").to_owned(),
            overlay: text(entry, "/overlay").to_owned(),
            reason: text(entry, "/reason").to_owned(),
        };
        if [&kept.check, &kept.overlay, &kept.kind]
            .iter()
            .any(|text| text.is_empty())
            || kept.reason.len() < 20
        {
            bail!("k8s/checkov.toml: {entry} needs check, overlay, kind (or \"*\") and a reason");
        }
        Ok(kept)
    };
    list(&file, "/kept").iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_kept_for_a_reason_only() {
        let entry = "[[kept]]\ncheck = \"CKV_K8S_1\"\noverlay = \"*\"\nkind = \"Job\"\n";
        assert!(kept(entry).is_err());
        let reasoned = format!("{entry}reason = \"nobody else may reach it\"\n");
        assert_eq!(kept(&reasoned).unwrap().len(), 1);
    }
}
