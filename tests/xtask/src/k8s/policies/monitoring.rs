//! Alerts and dashboards: of metrics that somebody exports, with a way to what they mean.

use serde_json::Value;

use crate::k8s::{
    architecture::SERVICES,
    manifests::{Edit, at, list, text},
    policy::{Mutation, Policy, Scene, in_production},
};

pub(super) const POLICIES: [Policy; 3] = [
    Policy {
        name: "alerts are of metrics that exist, and lead to what they mean",
        overlays: in_production,
        check: alerts,
        mutations: &[
            Mutation {
                says: "an alert is of a metric that nobody exports",
                edits: &[Edit::Replace(
                    "PrometheusRule",
                    "commerce-mesh",
                    "/spec/groups/0/rules/1/expr",
                    "edge_requests_total",
                    "edge_request_total",
                )],
            },
            Mutation {
                says: "an alert says nothing about itself",
                edits: &[Edit::Remove(
                    "PrometheusRule",
                    "commerce-mesh",
                    "/spec/groups/0/rules/0/annotations/runbook_url",
                )],
            },
            Mutation {
                says: "an alert leads to a heading that is not there",
                edits: &[Edit::Replace(
                    "PrometheusRule",
                    "commerce-mesh",
                    "/spec/groups/0/rules/2/annotations/runbook_url",
                    "#",
                    "#old-",
                )],
            },
            Mutation {
                says: "nobody is told that payment has no pod at all",
                edits: &[Edit::Replace(
                    "PrometheusRule",
                    "commerce-mesh",
                    "/spec/groups/0/rules/0/expr",
                    "absent(up{job=\"payment\"})",
                    "absent(up{job=\"product\"})",
                )],
            },
            Mutation {
                says: "nobody knows how urgent an alert is",
                edits: &[Edit::Remove(
                    "PrometheusRule",
                    "commerce-mesh",
                    "/spec/groups/0/rules/3/labels/severity",
                )],
            },
        ],
    },
    Policy {
        name: "dashboards show metrics that exist",
        overlays: in_production,
        check: dashboards,
        mutations: &[
            Mutation {
                says: "a panel shows a metric that nobody exports",
                edits: &[Edit::Replace(
                    "ConfigMap",
                    "dashboards",
                    "/data/mesh.json",
                    "mesh_server_waiting",
                    "mesh_server_waits",
                )],
            },
            Mutation {
                says: "a dashboard is no JSON",
                edits: &[Edit::Replace(
                    "ConfigMap",
                    "dashboards",
                    "/data/shop.json",
                    "\"panels\": [",
                    "\"panels\": [,",
                )],
            },
            Mutation {
                says: "Grafana does not find the dashboards",
                edits: &[Edit::Remove(
                    "ConfigMap",
                    "dashboards",
                    "/metadata/labels/grafana_dashboard",
                )],
            },
        ],
    },
    Policy {
        name: "Prometheus reads every service",
        overlays: in_production,
        check: scraped,
        mutations: &[
            Mutation {
                says: "Prometheus leaves payment out",
                edits: &[Edit::Remove(
                    "ServiceMonitor",
                    "commerce-mesh",
                    "/spec/selector/matchExpressions/0/values/1",
                )],
            },
            Mutation {
                says: "Prometheus reads a port that the Services lack",
                edits: &[Edit::Set(
                    "ServiceMonitor",
                    "commerce-mesh",
                    "/spec/endpoints/0/port",
                    "\"metrics\"",
                )],
            },
            Mutation {
                says: "Prometheus reads a page that is not there",
                edits: &[Edit::Set(
                    "ServiceMonitor",
                    "commerce-mesh",
                    "/spec/endpoints/0/path",
                    "\"/prometheus\"",
                )],
            },
        ],
    },
];

fn alerts(scene: &Scene<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    let rules: Vec<_> = scene
        .manifests
        .of_kind("PrometheusRule")
        .flat_map(|rule| list(rule, "/spec/groups"))
        .flat_map(|group| list(group, "/rules"))
        .collect();
    if rules.is_empty() {
        findings.push("there is no alert".to_owned());
    }
    // Where there is no pod there is nothing to read, and a sum of nothing is no alert.
    for service in SERVICES.iter().map(|service| service.name) {
        let missed = format!("absent(up{{job=\"{service}\"}})");
        if !rules
            .iter()
            .any(|rule| text(rule, "/expr").contains(&missed))
        {
            findings.push(format!("no alert tells that {service} has no pod at all"));
        }
    }
    for rule in rules {
        let alert = text(rule, "/alert");
        let mut say = |what: String| findings.push(format!("alert {alert}: {what}"));
        for metric in unknown(scene, text(rule, "/expr")) {
            say(format!("nobody exports {metric}"));
        }
        if !["page", "ticket"].contains(&text(rule, "/labels/severity")) {
            say("its severity is neither page nor ticket".to_owned());
        }
        let runbook = text(rule, "/annotations/runbook_url").split_once("kubernetes.md#");
        if runbook.is_none_or(|(_, anchor)| !scene.code.anchors.contains(anchor)) {
            say("its runbook is no heading of docs/kubernetes.md".to_owned());
        }
    }
    findings
}

fn dashboards(scene: &Scene<'_>) -> Vec<String> {
    let Some(map) = scene.manifests.find("ConfigMap", "dashboards") else {
        return vec!["there is no ConfigMap of dashboards".to_owned()];
    };
    let mut findings = Vec::new();
    if text(map, "/metadata/labels/grafana_dashboard") != "1" {
        findings.push("Grafana's sidecar does not look at the ConfigMap".to_owned());
    }
    for (file, json) in at(map, "/data").as_object().into_iter().flatten() {
        let board: Value = match serde_json::from_str(json.as_str().unwrap_or_default()) {
            Ok(board) => board,
            Err(error) => {
                findings.push(format!("{file}: {error}"));
                continue;
            }
        };
        let targets = list(&board, "/panels")
            .iter()
            .flat_map(|panel| list(panel, "/targets"));
        for metric in targets.flat_map(|target| unknown(scene, text(target, "/expr"))) {
            findings.push(format!("{file}: nobody exports {metric}"));
        }
    }
    findings
}

fn unknown(scene: &Scene<'_>, expression: &str) -> Vec<String> {
    metrics(expression)
        .into_iter()
        .filter(|metric| !scene.code.has_metric(metric))
        .collect()
}

/// The metrics of a query: names that no parenthesis follows, outside of labels, texts and durations.
fn metrics(expression: &str) -> Vec<String> {
    let mut metrics = Vec::new();
    let mut rest = expression;
    while let Some(start) =
        rest.find(|c: char| c.is_ascii_alphabetic() || c == '_' || "{[\"'".contains(c))
    {
        rest = &rest[start..];
        let closing = match rest.as_bytes()[0] {
            b'{' => Some('}'),
            b'[' => Some(']'),
            quote @ (b'"' | b'\'') => Some(char::from(quote)),
            _ => None,
        };
        if let Some(closing) = closing {
            let end = rest[1..].find(closing).map_or(rest.len(), |end| end + 2);
            rest = &rest[end..];
            continue;
        }
        let end = rest
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':')
            .unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        rest = after;
        let mut following = after.trim_start();
        if ["by", "without", "on", "ignoring"].contains(&word) && following.starts_with('(') {
            following = following.split_once(')').map_or("", |(_, after)| after);
            rest = following;
        } else if ["by", "without"].iter().any(|word| {
            following
                .strip_prefix(word)
                .is_some_and(|rest| rest.starts_with([' ', '(']))
        }) {
            // An aggregation, whose labels come before what it sums up.
        } else if !following.starts_with('(')
            && word.len() > 1
            && !["and", "or", "unless", "bool"].contains(&word)
        {
            metrics.push(word.to_owned());
        }
    }
    metrics
}

fn scraped(scene: &Scene<'_>) -> Vec<String> {
    let Some(monitor) = scene.manifests.of_kind("ServiceMonitor").next() else {
        return vec!["there is no ServiceMonitor".to_owned()];
    };
    let mut findings = Vec::new();
    let selected = list(monitor, "/spec/selector/matchExpressions/0/values");
    let endpoint = at(monitor, "/spec/endpoints/0");
    if text(endpoint, "/path") != "/metrics" {
        findings.push("metrics are at /metrics".to_owned());
    }
    for service in SERVICES.iter().map(|service| service.name) {
        let ports = scene
            .manifests
            .find("Service", service)
            .map(|found| list(found, "/spec/ports"));
        let has_port = ports.is_some_and(|ports| {
            ports
                .iter()
                .any(|port| at(port, "/name") == at(endpoint, "/port"))
        });
        if !selected.contains(&service.into()) || !has_port {
            findings.push(format!("Prometheus does not read {service}"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_told_from_labels_functions_and_words() {
        let expression =
            "sum by (job, le) (rate(a_total{code=~\"b_c\"}[5m])) / on (x) b_bucket > 1 and up == 0";
        assert_eq!(metrics(expression), ["a_total", "b_bucket", "up"]);
        assert_eq!(
            metrics("min by (name) (c_seconds) - time() < 6 * 3600"),
            ["c_seconds"]
        );
    }
}
