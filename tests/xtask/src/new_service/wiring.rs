//! Where services are listed, and the line that a new one gets there.

use anyhow::{Result, bail};

use super::name::Name;

/// A place in a file of the tree.
pub(super) struct Place {
    /// From the root.
    pub(super) file: &'static str,
    /// What stands there, exactly once.
    after: &'static str,
    /// What follows it then, about widgets.
    line: &'static str,
}

/// All of them, file by file.
pub(super) const PLACES: &[Place] = &[
    place(
        "Cargo.toml",
        "  \"services/payment\",\n",
        "  \"services/widget\",\n",
    ),
    place(
        "Cargo.toml",
        "payment = { path = \"services/payment\" }\n",
        "widget = { path = \"services/widget\" }\n",
    ),
    place(
        "proto/build.rs",
        "            \"commerce/payment/v1/events.proto\",\n",
        "            \"commerce/widget/v1/widget_service.proto\",\n",
    ),
    place(
        "proto/src/lib.rs",
        "            tonic::include_proto!(\"commerce.payment.v1\");\n        }\n    }\n",
        "    /// The widget service.\n    pub mod widget {\n        /// Version 1.\n        #[expect(\n            \
         clippy::pedantic,\n            clippy::allow_attributes,\n            \
         clippy::allow_attributes_without_reason,\n            reason = \"generated code\"\n        )]\n        \
         pub mod v1 {\n            tonic::include_proto!(\"commerce.widget.v1\");\n        }\n    }\n",
    ),
    place(
        "services/kernel/src/id.rs",
        "id_type!(PaymentId, \"pay\", \"A payment's id.\");\n",
        "id_type!(WidgetId, \"wdg\", \"The id of a widget.\");\n",
    ),
    place(
        "services/kernel/src/lib.rs",
        "pub use currency::{Currency, UnknownCurrency};\n",
        "pub use id::WidgetId;\n",
    ),
    place(
        "services/standalone/Cargo.toml",
        "payment.workspace = true\n",
        "widget.workspace = true\n",
    ),
    place(
        "services/standalone/Cargo.toml",
        "[dependencies]\n",
        "chassis.workspace = true\n",
    ),
    place(
        "services/standalone/src/config.rs",
        "    pub payment: ServiceConfig,\n",
        "    /// The widget service.\n    pub widget: chassis::Config,\n",
    ),
    place(
        "services/standalone/src/config.rs",
        "                ..ServiceConfig::default()\n            },\n",
        "            widget: chassis::Config {\n                store: SqliteConfig {\n                    \
         path: \"widget.db\".into(),\n                    ..SqliteConfig::default()\n                },\n                \
         ..chassis::Config::default()\n            },\n",
    ),
    place(
        "services/standalone/src/config.rs",
        "            &mut self.payment.database,\n",
        "            &mut self.widget.store,\n",
    ),
    place(
        "services/standalone/src/ground.rs",
        "impl Ground {\n",
        "    /// Opens the widget service and serves it.\n    pub(crate) async fn widget(&self, listener: TcpListener) \
         -> anyhow::Result<Running> {\n        let parts = chassis::Parts {\n            \
         clock: self.clock.clone(),\n            bus: Arc::new(self.bus.clone()),\n            \
         dead_letters: None,\n            mesh: self.mesh.clone(),\n            \
         event_metrics: self.event_metrics.clone(),\n            fault_points: FaultPoints::default(),\n        };\n        \
         let config = self.config.widget.clone();\n        \
         let service = chassis::Opened::<widget::Service>::open(config, parts).await?;\n        \
         let outbox = service.outbox();\n        \
         let part = Part::start(\"the widget service\", &self.ended, |shutdown| {\n            \
         service.run(listener, shutdown)\n        });\n        Ok(Running { part, outbox })\n    }\n\n",
    ),
    place(
        "services/standalone/src/shop.rs",
        "    payment: Slot,\n",
        "    widget: Slot,\n",
    ),
    place(
        "services/standalone/src/shop.rs",
        "        let payment_addr = payment_listener.local_addr()?;\n",
        "        let widget_listener = listen_inside(0).await?;\n        \
         let widget_addr = widget_listener.local_addr()?;\n",
    ),
    place(
        "services/standalone/src/shop.rs",
        "(\"payment\", payment_addr)",
        ", (\"widget\", widget_addr)",
    ),
    place(
        "services/standalone/src/shop.rs",
        "        payment.fill(ground.payment(payment_listener).await?).await;\n",
        "        let widget = Slot::default();\n        \
         widget.check(&readiness, \"widget\", &ground.clock);\n        \
         widget.fill(ground.widget(widget_listener).await?).await;\n",
    ),
    place(
        "services/standalone/src/shop.rs",
        "            payment,\n",
        "            widget,\n",
    ),
    place(
        "services/standalone/src/shop.rs",
        "            self.edge.stop().await,\n",
        "            self.widget.stop().await,\n",
    ),
    place(
        "services/standalone/src/shop.rs",
        "+ self.product.events_pending(now_us).await?",
        "\n                + self.widget.events_pending(now_us).await?",
    ),
    place("tests/xtask/src/services.rs", "\"payment\"", ", \"widget\""),
    place(
        "k8s/base/kustomization.yaml",
        "  - payment\n",
        "  - widget\n",
    ),
    place(
        "k8s/base/mesh/policy.toml",
        "# calls that payment makes.\n",
        "\n[[rule]]\nname = \"edge brings what clients may call of widget\"\ncallers = [\"spiffe://shop.example/edge\"]\nmethods = [\n    \"/commerce.widget.v1.WidgetService/CreateWidget\",\n    \"/commerce.widget.v1.WidgetService/GetWidget\",\n]\n",
    ),
    place(
        "k8s/base/edge/edge.toml",
        "[mesh.destinations]\n",
        "widget = \"dns://widget:50054;id=spiffe://shop.example/widget\"\n",
    ),
    place(
        "k8s/base/edge/network.yaml",
        "  policyTypes: [Egress]\n  egress:\n",
        "    - to:\n        - podSelector:\n            matchLabels:\n              app.kubernetes.io/name: widget\n      ports:\n        - port: 50054\n",
    ),
    place(
        "k8s/components/certificates/certificates.yaml",
        "  uris: [spiffe://shop.example/edge]\n  duration: 24h\n  renewBefore: 12h\n  privateKey:\n    algorithm: ECDSA\n    encoding: PKCS8\n    size: 256\n    rotationPolicy: Always\n  usages: [digital signature, server auth, client auth]\n",
        "---\napiVersion: cert-manager.io/v1\nkind: Certificate\nmetadata:\n  name: widget-identity\nspec:\n  secretName: widget-identity\n  issuerRef:\n    kind: Issuer\n    name: mesh\n  uris: [spiffe://shop.example/widget]\n  duration: 24h\n  renewBefore: 12h\n  privateKey:\n    algorithm: ECDSA\n    encoding: PKCS8\n    size: 256\n    rotationPolicy: Always\n  usages: [digital signature, server auth, client auth]\n",
    ),
    place(
        "k8s/components/monitoring/service-monitors.yaml",
        "values: [product, payment, edge",
        ", widget",
    ),
    place(
        "k8s/components/monitoring/alerts.yaml",
        "{job=~\"product|payment|edge",
        "|widget",
    ),
    place(
        "k8s/components/monitoring/alerts.yaml",
        "              or absent(up{job=\"payment\"})\n",
        "              or absent(up{job=\"widget\"})\n",
    ),
    place(
        "k8s/components/postgres/roles.sh",
        "for service in product payment",
        " widget",
    ),
    place(
        "k8s/components/postgres/postgres.yaml",
        "                  items: [{key: password, path: payment-owner/password}]\n",
        "              - secret:\n                  name: widget-postgres\n                  items: [{key: password, path: widget/password}]\n              - secret:\n                  name: widget-postgres-owner\n                  items: [{key: password, path: widget-owner/password}]\n",
    ),
    place(
        "k8s/components/operators/postgres.yaml",
        "          name: payment-postgres-owner\n",
        "      - name: widget\n        ensure: present\n        login: true\n        passwordSecret:\n          name: widget-postgres\n      - name: widget_owner\n        ensure: present\n        login: true\n        passwordSecret:\n          name: widget-postgres-owner\n",
    ),
    place(
        "k8s/components/operators/postgres.yaml",
        "  owner: payment_owner\n  ensure: present\n  encoding: UTF8\n  localeCollate: C.UTF-8\n  localeCType: C.UTF-8\n  template: template0\n  cluster:\n    name: postgres\n",
        "---\napiVersion: postgresql.cnpg.io/v1\nkind: Database\nmetadata:\n  name: widget\nspec:\n  name: widget\n  owner: widget_owner\n  ensure: present\n  encoding: UTF8\n  localeCollate: C.UTF-8\n  localeCType: C.UTF-8\n  template: template0\n  cluster:\n    name: postgres\n",
    ),
    place(
        "k8s/components/release/kustomization.yaml",
        "images:\n",
        "  - {name: commerce-mesh/widget, newTag: 0.1.0}\n",
    ),
    place(
        "k8s/components/release/kustomization.yaml",
        "      - select: {kind: Job, name: payment-migrate-RELEASE}\n        fieldPaths: [metadata.name]\n        options: {delimiter: \"-\", index: 2}\n",
        "      - select: {kind: Job, name: widget-migrate-RELEASE}\n        fieldPaths: [metadata.name]\n        options: {delimiter: \"-\", index: 2}\n",
    ),
    place(
        "k8s/components/production/kustomization.yaml",
        "images:\n",
        "  - {name: commerce-mesh/widget, newName: registry.shop.example/commerce-mesh/widget}\n",
    ),
    place(
        "k8s/overlays/dev/kustomization.yaml",
        "configMapGenerator:\n",
        "  - name: widget-endpoints\n    literals:\n      - WIDGET__SERVICE__POSTGRES__URL=postgres://widget@postgres:5432/widget\n      - WIDGET__BUS__URL=amqp://rabbitmq:5672/%2f\n      - WIDGET__BUS__USER=commerce\n  - name: widget-migrate-endpoints\n    literals:\n      - WIDGET__SERVICE__POSTGRES__URL=postgres://widget_owner@postgres:5432/widget\n",
    ),
    place(
        "k8s/overlays/prod/kustomization.yaml",
        "configMapGenerator:\n",
        "  - name: widget-endpoints\n    literals:\n      - WIDGET__SERVICE__POSTGRES__URL=postgres://widget@postgres.shop.example:5432/widget?sslmode=verify-full&sslrootcert=/etc/commerce-mesh/store-ca/postgres.crt\n      - WIDGET__BUS__URL=amqps://rabbitmq.shop.example:5671/commerce\n      - WIDGET__BUS__USER=widget\n      - WIDGET__BUS__CA_FILE=/etc/commerce-mesh/store-ca/rabbitmq.crt\n  - name: widget-migrate-endpoints\n    literals:\n      - WIDGET__SERVICE__POSTGRES__URL=postgres://widget_owner@postgres.shop.example:5432/widget?sslmode=verify-full&sslrootcert=/etc/commerce-mesh/store-ca/postgres.crt\n",
    ),
    place(
        "k8s/overlays/prod-operators/kustomization.yaml",
        "configMapGenerator:\n",
        "  - name: widget-endpoints\n    literals:\n      - WIDGET__SERVICE__POSTGRES__URL=postgres://widget@postgres-rw:5432/widget?sslmode=verify-full&sslrootcert=/etc/commerce-mesh/store-ca/postgres.crt\n      - WIDGET__BUS__URL=amqps://rabbitmq:5671/%2f\n      - WIDGET__BUS__USER=commerce\n      - WIDGET__BUS__CA_FILE=/etc/commerce-mesh/store-ca/rabbitmq.crt\n  - name: widget-migrate-endpoints\n    literals:\n      - WIDGET__SERVICE__POSTGRES__URL=postgres://widget_owner@postgres-rw:5432/widget?sslmode=verify-full&sslrootcert=/etc/commerce-mesh/store-ca/postgres.crt\n",
    ),
    place(
        "k8s/overlays/dev/kustomization.yaml",
        "secretGenerator: # Of a cluster that is thrown away.\n",
        "  - {name: widget-postgres, literals: [username=widget, password=dev-widget]}\n  - {name: widget-postgres-owner, literals: [username=widget_owner, password=dev-widget-owner]}\n  - {name: widget-rabbitmq, literals: [password=dev-rabbitmq]}\n",
    ),
    place(
        "tests/xtask/src/k8s/architecture.rs",
        "pub(crate) const SERVICES: &[Service] = &[\n",
        "    Service {\n        name: \"widget\",\n        port: 50054,\n        admin_port: 9054,\n        calls: &[],\n        keeps_data: true,\n        afterwards_ms: 30_000,\n    },\n",
    ),
    place(
        "tests/xtask/src/k8s/architecture.rs",
        "        calls: &[\"payment\", \"product\"",
        ", \"widget\"",
    ),
    place(
        "tests/xtask/src/image/mod.rs",
        "pub const PROGRAMS: &[Program] = &[\n",
        "    Program {\n        name: \"widget\",\n        package: \"widget\",\n        about: \"the widget service\",\n    },\n",
    ),
];

const fn place(file: &'static str, after: &'static str, line: &'static str) -> Place {
    Place { file, after, line }
}

impl Place {
    /// The file's text with the line in it. A line that speaks of no service is there once for all of them.
    pub(super) fn wire(&self, text: &str, name: &Name) -> Result<String> {
        if !self.line.contains("widget") && text.contains(self.line) {
            return Ok(text.to_owned());
        }
        let mut places = text.match_indices(self.after);
        let (Some((place, _)), None) = (places.next(), places.next()) else {
            bail!(
                "{} has not exactly one {:?}: tell new_service/wiring.rs",
                self.file,
                self.after.trim()
            );
        };
        if self.line.contains("id_type!") && text.contains(&format!("\"{}\"", name.prefix())) {
            bail!(
                "ids begin with \"{}_\" already: choose another --prefix",
                name.prefix()
            );
        }
        let (before, behind) = text.split_at(place + self.after.len());
        Ok(format!("{before}{}{behind}", name.fill(self.line)))
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs};

    use super::*;
    use crate::checkout;

    fn wire(text: &str, name: &str) -> Result<String> {
        let place = place(
            "id.rs",
            "id_type!(A, \"pay\");\n",
            "id_type!(WidgetId, \"wdg\");\n",
        );
        place.wire(text, &Name::new(name, None).unwrap())
    }

    #[test]
    fn a_second_service_finds_every_place_too() {
        let mut files = BTreeMap::new();
        for name in ["quibble", "squabble"] {
            let name = Name::new(name, None).unwrap();
            for place in PLACES {
                let read = || fs::read_to_string(checkout::root().join(place.file)).unwrap();
                let text = files.entry(place.file).or_insert_with(read);
                *text = place.wire(text, &name).unwrap();
            }
        }
        let manifests = files
            .iter()
            .filter(|(file, _)| file.ends_with("Cargo.toml"));
        for (file, text) in manifests {
            let read = text.parse::<toml::Table>(); // Which refuses what stands there twice.
            assert!(read.is_ok(), "{file}: {read:?}");
        }
    }

    #[test]
    fn the_line_follows_what_stands_there() {
        let wired = wire("x\nid_type!(A, \"pay\");\ny\n", "order").unwrap();
        assert_eq!(
            wired,
            "x\nid_type!(A, \"pay\");\nid_type!(OrderId, \"ord\");\ny\n"
        );
    }

    #[test]
    fn a_place_that_is_not_there_once_is_named_and_a_prefix_is_used_once() {
        for text in ["", "id_type!(A, \"pay\");\nid_type!(A, \"pay\");\n"] {
            let error = wire(text, "order").unwrap_err().to_string();
            assert!(error.starts_with("id.rs has not exactly one"), "{error}");
        }
        let error = wire("id_type!(A, \"pay\");\n", "payout")
            .unwrap_err()
            .to_string();
        assert!(error.contains("--prefix"), "{error}");
    }
}
