//! What the code says that manifests must agree with: methods and their audiences from the contracts, the calls that
//! payment makes, names of health, of metrics, of programs.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::architecture;
use crate::checkout;

/// Facts of the code, read from its sources.
pub(super) struct Code {
    /// Every method of the contracts.
    pub(super) methods: Vec<Method>,
    /// The methods of product that payment calls: `/package.Service/Method`.
    pub(super) called_by_payment: BTreeSet<String>,
    /// The names that servers of the mesh answer health for, beside those of their gRPC services.
    pub(super) health: Vec<String>,
    /// Programs of the workspace.
    pub(super) programs: BTreeSet<String>,
    /// Everything between quotation marks in sources that could name a metric; `{}` stands for any word.
    metrics: BTreeSet<String>,
    /// The anchors of `docs/kubernetes.md`.
    pub(super) anchors: BTreeSet<String>,
}

/// A method of a contract.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Method {
    /// `/package.Service/Method`
    pub(super) path: String,
    /// `PUBLIC`, `OPERATOR`, `INTERNAL`, `ANYONE`.
    pub(super) audience: String,
}

/// Metrics that others export: Prometheus itself, cert-manager, kube-state-metrics.
const METRICS_OF_OTHERS: [&str; 3] = [
    "up",
    "certmanager_certificate_expiration_timestamp_seconds",
    "kube_job_failed",
];

impl Code {
    pub(super) fn read() -> Result<Self> {
        let root = checkout::root();
        let read = |path: &str| {
            fs::read_to_string(root.join(path)).with_context(|| format!("cannot read {path}"))
        };
        let mut contracts = Vec::new();
        for service in architecture::keepers().map(|service| service.name) {
            let proto = read(&format!(
                "proto/commerce/{service}/v1/{service}_service.proto"
            ))?;
            contracts.extend(methods(&proto)?);
        }
        let catalogue = read("services/payment/src/catalogue.rs")?;
        let product = |method: &&Method| method.path.contains(".product.");
        let called = contracts.iter().filter(product).filter(|method| {
            let name = method.path.rsplit('/').next().unwrap_or_default();
            catalogue.contains(&format!("client.{}(", snake(name)))
        });
        let called_by_payment = called.map(|method| method.path.clone()).collect();
        let mut metrics = BTreeSet::new();
        for folder in ["mesh", "services"] {
            quoted_below(&root.join(folder), &mut metrics)?;
        }
        Ok(Self {
            called_by_payment,
            methods: contracts,
            health: quoted(&read("mesh/rpc/src/server/health.rs")?)
                .map(str::to_owned)
                .collect(),
            programs: programs(&checkout::metadata()?),
            metrics,
            anchors: anchors(&read("docs/kubernetes.md")?),
        })
    }

    /// Whether somebody exports a metric of this name. Histograms have three names.
    pub(super) fn has_metric(&self, name: &str) -> bool {
        let endings = ["_bucket", "_count", "_sum"];
        let family = endings
            .iter()
            .find_map(|ending| name.strip_suffix(ending))
            .unwrap_or(name);
        METRICS_OF_OTHERS.contains(&name)
            || self
                .metrics
                .iter()
                .any(|text| matches(text, name) || matches(text, family))
    }
}

/// Whether a text of the code can become this name: `grpc_{name}_duration` becomes `grpc_server_duration`.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((before, rest)) = pattern.split_once('{') else {
        return pattern == name;
    };
    let after = rest.split_once('}').map_or(rest, |(_, after)| after);
    let middle = name
        .strip_prefix(before)
        .and_then(|rest| rest.strip_suffix(after));
    // A pattern of little but a hole would fit everything.
    before.contains('_') && middle.is_some_and(|word| !word.is_empty() && !word.contains('_'))
}

fn methods(proto: &str) -> Result<Vec<Method>> {
    let after = |keyword: &str| {
        let line = proto.lines().find_map(|line| line.strip_prefix(keyword));
        line.map(|line| line.trim_end_matches([';', '{', ' ']))
    };
    let (Some(package), Some(service)) = (after("package "), after("service ")) else {
        bail!("a contract without package and service");
    };
    let mut methods = Vec::new();
    let mut rpc = None;
    for line in proto.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("rpc ") {
            rpc = rest.split('(').next();
        } else if let Some(rest) = line.strip_prefix("option (mesh.v1.audience) = ") {
            let name = rpc.take().context("an audience without a method")?;
            methods.push(Method {
                path: format!("/{package}.{service}/{name}"),
                audience: rest.trim_end_matches(';').to_owned(),
            });
        }
    }
    Ok(methods)
}

/// `GetProduct` as `get_product`.
fn snake(name: &str) -> String {
    let mut snake = String::new();
    for character in name.chars() {
        if character.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(character.to_ascii_lowercase());
    }
    snake
}

/// What stands between quotation marks, by pairs of them; comments and all.
fn quoted(source: &str) -> impl Iterator<Item = &str> {
    source
        .lines()
        .flat_map(|line| line.split('"').skip(1).step_by(2))
}

fn quoted_below(folder: &Path, into: &mut BTreeSet<String>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            quoted_below(&path, into)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(&path)?;
            let could_be = |text: &&str| {
                text.contains('_')
                    && text.bytes().all(|b| {
                        b.is_ascii_lowercase() || b.is_ascii_digit() || b"_{}".contains(&b)
                    })
            };
            into.extend(quoted(&source).filter(could_be).map(str::to_owned));
        }
    }
    Ok(())
}

fn programs(metadata: &Value) -> BTreeSet<String> {
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let targets = packages.flat_map(|package| package["targets"].as_array().into_iter().flatten());
    let is_binary = |target: &&Value| target["kind"][0] == "bin";
    let name = |target: &Value| target["name"].as_str().map(str::to_owned);
    targets.filter(is_binary).filter_map(name).collect()
}

/// The anchors that GitHub gives to headings.
fn anchors(markdown: &str) -> BTreeSet<String> {
    let headings = markdown.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = words
            .chars()
            .filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-');
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_come_with_their_audience() {
        let proto = "package a.v1;\nservice A {\n  // Does.\n  rpc GetIt(X) returns (Y) {\n    option (mesh.v1.audience) = PUBLIC;\n  }\n}\n";
        let method = Method {
            path: "/a.v1.A/GetIt".to_owned(),
            audience: "PUBLIC".to_owned(),
        };
        assert_eq!(methods(proto).unwrap(), [method]);
        assert_eq!(snake("GetIt"), "get_it");
    }

    #[test]
    fn a_hole_in_a_name_stands_for_one_word() {
        assert!(matches("grpc_{name}_call", "grpc_server_call"));
        assert!(!matches("grpc_{name}_call", "grpc_server_big_call"));
        assert!(!matches("grpc_{name}_call", "grpc_server_calls"));
        assert!(!matches("{prefix}_total", "edge_total"));
    }

    #[test]
    fn the_sources_are_where_this_file_says() {
        let code = Code::read().unwrap();
        assert!(
            code.called_by_payment.len() > 3,
            "{:?}",
            code.called_by_payment
        );
        assert!(code.programs.contains("product"), "{:?}", code.programs);
        assert!(code.has_metric("edge_request_duration_seconds_bucket"));
        assert!(code.has_metric("grpc_server_call_duration_seconds_count"));
        assert!(!code.has_metric("edge_request_duration_hours"));
    }

    #[test]
    fn headings_have_anchors() {
        let found = anchors("# On Kubernetes\n## What's there (now)\ntext\n");
        let wanted = ["on-kubernetes", "whats-there-now"].map(str::to_owned);
        assert_eq!(found, BTreeSet::from(wanted));
    }
}
