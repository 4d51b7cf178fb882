//! The architecture's arrows: who calls whom, who has a database, who may be reached from where. The one place that says
//! so: the policies compare manifests with it, and `cargo xtask k8s smoke` what a cluster lets through.

/// From whom, to whom, at which port of a pod.
pub(crate) type Arrow = (String, &'static str, u16);

/// A service of the shop.
pub(crate) struct Service {
    pub(crate) name: &'static str,
    /// Where its pods take calls.
    pub(crate) port: u16,
    /// Where they answer Prometheus.
    admin_port: u16,
    /// The services that it calls.
    pub(crate) calls: &'static [&'static str],
    /// Whether it has a database of its own, and events.
    pub(crate) keeps_data: bool,
    /// What it does after its server has drained, in milliseconds: payment waits four times for `DRAIN` of its `lib.rs` at
    /// most, others finish a window of their relay and what their consumer is handling; the edge nothing.
    pub(crate) afterwards_ms: u64,
}

/// All of them, those that are called before their callers.
pub(crate) const SERVICES: &[Service] = &[
    Service {
        name: "product",
        port: 50051,
        admin_port: 9051,
        calls: &[],
        keeps_data: true,
        afterwards_ms: 30_000,
    },
    Service {
        name: "payment",
        port: 50052,
        admin_port: 9052,
        calls: &["product"],
        keeps_data: true,
        afterwards_ms: 60_000,
    },
    Service {
        name: "edge",
        port: 8080,
        admin_port: 9080,
        calls: &["payment", "product"],
        keeps_data: false,
        afterwards_ms: 0,
    },
];

/// What only the overlay `dev` has, whose stores and provider are in the namespace.
const DEVELOPMENT: [(&str, &str, u16); 2] =
    [("payment", "simulator", 50053), ("simulator", "edge", 8080)];
/// What production has, wherever its stores are.
const PRODUCTION: [(&str, &str, u16); 2] =
    [("gateway", "edge", 8080), ("payment", "provider", 443)];
/// What stores that operators run have beside the services.
const OPERATORS: [(&str, &str, u16); 10] = [
    ("postgres-cluster", "postgres-cluster", 5432),
    ("postgres-cluster", "postgres-cluster", 8000),
    ("postgres-operator", "postgres-cluster", 5432),
    ("postgres-operator", "postgres-cluster", 8000),
    ("rabbitmq-cluster", "rabbitmq-cluster", 25672),
    ("rabbitmq-operator", "rabbitmq-cluster", 15671),
    // The API server's address is not known: any but the cloud's metadata, at its port.
    ("postgres-cluster", "provider", 443),
    ("postgres-cluster", "private", 443),
    ("rabbitmq-cluster", "provider", 443),
    ("rabbitmq-cluster", "private", 443),
];

/// The services that have a database.
pub(crate) fn keepers() -> impl Iterator<Item = &'static Service> {
    SERVICES.iter().filter(|service| service.keeps_data)
}

/// The name of the Job that brings a service's schema up, without its release.
pub(crate) fn migration(service: &Service) -> String {
    format!("{}-migrate", service.name)
}

/// The arrows of an overlay, without those to DNS and those of whoever else is in the cluster.
pub(crate) fn arrows(overlay: &str) -> Vec<Arrow> {
    let mut arrows = calls();
    match overlay {
        "dev" => {
            arrows.extend(stores(("postgres", 5432), ("rabbitmq", 5672)));
            arrows.extend(owned(&DEVELOPMENT));
        }
        "prod-operators" => {
            arrows.extend(production());
            arrows.extend(stores(
                ("postgres-cluster", 5432),
                ("rabbitmq-cluster", 5671),
            ));
            arrows.extend(owned(&OPERATORS));
        }
        _ => {
            arrows.extend(production());
            arrows.extend(stores(
                ("managed-postgres", 5432),
                ("managed-rabbitmq", 5671),
            ));
        }
    }
    arrows
}

fn calls() -> Vec<Arrow> {
    let mut arrows = Vec::new();
    for caller in SERVICES {
        let called = SERVICES
            .iter()
            .filter(|called| caller.calls.contains(&called.name));
        arrows.extend(called.map(|called| (caller.name.to_owned(), called.name, called.port)));
    }
    arrows
}

/// Those to database and broker. A migration needs no broker.
fn stores(database: (&'static str, u16), broker: (&'static str, u16)) -> Vec<Arrow> {
    let arrows = keepers().flat_map(|service| {
        [
            (service.name.to_owned(), database.0, database.1),
            (migration(service), database.0, database.1),
            (service.name.to_owned(), broker.0, broker.1),
        ]
    });
    arrows.collect()
}

fn production() -> impl Iterator<Item = Arrow> {
    let scraped = SERVICES.iter();
    owned(&PRODUCTION)
        .chain(scraped.map(|service| ("prometheus".to_owned(), service.name, service.admin_port)))
}

fn owned(arrows: &'static [(&'static str, &'static str, u16)]) -> impl Iterator<Item = Arrow> {
    arrows
        .iter()
        .map(|(from, to, port)| ((*from).to_owned(), *to, *port))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whom somebody reaches; services that `cargo xtask new-service` has made are left out.
    fn reached(overlay: &str, from: &str) -> Vec<(&'static str, u16)> {
        let made = &crate::services::NAMES[2..];
        let arrows = arrows(overlay).into_iter();
        arrows
            .filter(|(start, to, _)| start == from && !made.contains(to))
            .map(|(_, to, port)| (to, port))
            .collect()
    }

    #[test]
    fn each_overlay_has_the_arrows_of_its_stores() {
        let development = [
            ("product", 50051),
            ("postgres", 5432),
            ("rabbitmq", 5672),
            ("simulator", 50053),
        ];
        assert_eq!(reached("dev", "payment"), development);
        let production = [
            ("product", 50051),
            ("provider", 443),
            ("managed-postgres", 5432),
            ("managed-rabbitmq", 5671),
        ];
        assert_eq!(reached("prod", "payment"), production);
        assert_eq!(
            reached("prod-operators", "product-migrate"),
            [("postgres-cluster", 5432)]
        );
        assert_eq!(
            reached("prod", "prometheus"),
            [("product", 9051), ("payment", 9052), ("edge", 9080)]
        );
    }

    /// It routes to every service of the contracts, and does not start without knowing where each is.
    #[test]
    fn the_edge_calls_every_service_that_has_a_contract() {
        let sorted = |mut names: Vec<&'static str>| {
            names.sort_unstable();
            names
        };
        let services = sorted(crate::services::NAMES.to_vec());
        assert_eq!(
            sorted(keepers().map(|service| service.name).collect()),
            services
        );
        let edge = SERVICES.iter().find(|service| service.name == "edge");
        assert_eq!(sorted(edge.unwrap().calls.to_vec()), services);
    }

    #[test]
    fn whoever_is_called_is_a_service() {
        for service in SERVICES {
            for called in service.calls {
                assert!(
                    SERVICES.iter().any(|other| other.name == *called),
                    "{called}"
                );
            }
        }
    }
}
