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
        "chassis.workspace = true\nwidget.workspace = true\n",
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
];

const fn place(file: &'static str, after: &'static str, line: &'static str) -> Place {
    Place { file, after, line }
}

impl Place {
    /// The file's text with the line in it.
    pub(super) fn wire(&self, text: &str, name: &Name) -> Result<String> {
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
    use super::*;

    fn wire(text: &str, name: &str) -> Result<String> {
        let place = place(
            "id.rs",
            "id_type!(A, \"pay\");\n",
            "id_type!(WidgetId, \"wdg\");\n",
        );
        place.wire(text, &Name::new(name, None).unwrap())
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
