//! Identity for a shop of processes: a development authority and its certificates by `meshctl certs`, and the rules of
//! authorisation that Kubernetes has.
//!
//! Deliberately without rules of its own: what a cluster would refuse is refused here too.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::Result;

use crate::{
    checkout,
    process::{command, output},
    services,
};

/// The trust domain of the rules, and so of the certificates.
const TRUST_DOMAIN: &str = "shop.example";
/// Who may call what, from the root of the checkout.
const RULES: &str = "k8s/base/mesh/policy.toml";
/// How long the certificates are valid: longer than anybody leaves such a shop open.
const LIFETIME_HOURS: u32 = 30 * 24;

/// The certificates of one run.
pub(super) struct Identity {
    folder: PathBuf,
}

impl Identity {
    /// Makes an authority, and a certificate for each service and the edge. Those of an earlier run are forgotten.
    pub(super) fn issue(meshctl: &Path, folder: PathBuf) -> Result<Identity> {
        if folder.is_dir() {
            fs::remove_dir_all(&folder)?;
        }
        let mut issuing = command(meshctl);
        issuing.args(["certs", "new", "--trust-domain", TRUST_DOMAIN]);
        issuing.args(["--lifetime-hours", &LIFETIME_HOURS.to_string()]);
        let names = services::NAMES.iter().chain(&["edge"]);
        issuing.args(names.flat_map(|name| ["--service", name]));
        output(issuing.arg("--out").arg(&folder))?;
        Ok(Identity { folder })
    }

    /// Where the files lie.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The configuration of whoever only calls: its certificate, and no call without one on both sides.
    pub(super) fn of_caller(&self, program: &str) -> String {
        let file = |name: &str| self.folder.join(name).display().to_string();
        format!(
            "[mesh.identity]\nmode = \"strict\"\n\n[mesh.identity.files]\n\
             certificate = {:?}\nkey = {:?}\nbundle = {:?}\ncrls = [{:?}]\n",
            file(&format!("{program}/certificate.pem")),
            file(&format!("{program}/key.pem")),
            file("bundle.pem"),
            file("crl.pem"),
        )
    }

    /// The configuration of a service: the same, and the rules.
    pub(super) fn of_service(&self, service: &str) -> String {
        let rules = checkout::root().join(RULES).display().to_string();
        let own = self.of_caller(service);
        format!("{own}\n[mesh.identity.policy]\nfile = {rules:?}\n")
    }
}

/// All replicas of a service as one destination of the mesh, and who has to be there.
pub(super) fn destination(service: &str, ports: &[u16]) -> String {
    let endpoint = |port: &u16| {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
        format!("https://{address};id=spiffe://{TRUST_DOMAIN}/{service}")
    };
    let endpoints: Vec<_> = ports.iter().map(endpoint).collect();
    endpoints.join(", ")
}

#[cfg(test)]
mod tests {
    use toml::{Table, Value};

    use super::*;

    fn read(file: &str) -> Table {
        let text = fs::read_to_string(checkout::root().join(file)).unwrap();
        text.parse().unwrap()
    }

    /// Keys below keys, with dots between them.
    fn keys(table: &Table, above: &str) -> Vec<String> {
        let below = |(key, value): (&String, &Value)| match value {
            Value::Table(table) => keys(table, &format!("{above}{key}.")),
            _ => vec![format!("{above}{key}")],
        };
        table.iter().flat_map(below).collect()
    }

    #[test]
    fn a_service_is_told_what_it_is_told_in_a_cluster() {
        let identity = Identity {
            folder: "/certificates".into(),
        };
        let written: Table = identity.of_service("product").parse().unwrap();
        let written = written["mesh"]["identity"].as_table().unwrap();
        let in_a_cluster = read("k8s/base/product/product.toml");
        let in_a_cluster = in_a_cluster["mesh"]["identity"].as_table().unwrap();
        let mut more = keys(written, "");
        more.retain(|key| !keys(in_a_cluster, "").contains(key));
        assert_eq!(more, ["files.crls"]);
        assert_eq!(written["mode"].as_str(), Some("strict"));
        assert_eq!(
            written["files"]["key"].as_str(),
            Some("/certificates/product/key.pem")
        );
        let rules = written["policy"]["file"].as_str().unwrap();
        assert!(Path::new(rules).is_file(), "{rules}");
        assert!(!identity.of_caller("edge").contains("policy"));
    }

    #[test]
    fn replicas_are_one_destination_whose_ids_are_those_of_a_cluster() {
        assert_eq!(
            destination("payment", &[1, 2]),
            "https://127.0.0.1:1;id=spiffe://shop.example/payment, \
             https://127.0.0.1:2;id=spiffe://shop.example/payment"
        );
        let edge = read("k8s/base/edge/edge.toml");
        for service in services::NAMES {
            let in_a_cluster = edge["mesh"]["destinations"][service].as_str().unwrap();
            let (_, id) = in_a_cluster.split_once(';').unwrap();
            let here = destination(service, &[1]);
            assert!(here.ends_with(&format!(";{id}")), "{here} and {id}");
        }
    }

    #[test]
    fn whom_the_rules_allow_something_gets_a_certificate() {
        for rule in read(RULES)["rule"].as_array().unwrap() {
            for caller in rule["callers"].as_array().unwrap() {
                let id = caller.as_str().unwrap();
                let name = id.strip_prefix(&format!("spiffe://{TRUST_DOMAIN}/"));
                let known = |name| name == "edge" || services::NAMES.contains(&name);
                assert!(name.is_some_and(known), "{id}");
            }
        }
    }
}
