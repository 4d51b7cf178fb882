//! What a person sees who has just started the shop: where it is, and three commands to try.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

/// The variant of the sample catalogue that the second command buys.
pub(crate) const SAMPLE_SKU: &str = "TEA-SEJAK-50";

/// What the ready screen tells.
pub(crate) struct Ready<'a> {
    /// The edge's base URL.
    pub(crate) base: &'a str,
    pub(crate) admin: SocketAddr,
    /// Where the data is; none: it goes with the process.
    pub(crate) data_dir: Option<&'a Path>,
    /// Whether the sample catalogue is there to buy from.
    pub(crate) sample: bool,
    /// When the shop was ready; makes the reference of the order a new one.
    pub(crate) now_us: i64,
    pub(crate) took_ms: u128,
}

/// The screen, a few lines of plain text.
pub(crate) fn ready(ready: &Ready<'_>) -> String {
    let Ready {
        base,
        admin,
        data_dir,
        sample,
        now_us,
        took_ms,
    } = ready;
    let data = data_dir.map_or_else(
        || "in a temporary folder, gone when the shop stops".to_owned(),
        |path| path.display().to_string(),
    );
    let json = "-H 'Content-Type: application/json'";
    let mut screen = format!(
        "\nThe shop is open ({took_ms} ms).\n\n  \
         Documentation  {base}/docs\n  \
         Health         http://{admin}/readyz and /metrics\n  \
         Data           {data}\n\nTry:\n"
    );
    let order = format!("order-{}", now_us / 1000);
    let commands = if *sample {
        [
            format!("curl '{base}/v1/products:search?query=tea&pageSize=3'"),
            format!(
                "curl {base}/v1/payments -H 'Idempotency-Key: {order}' {json} \
                 -d '{{\"orderRef\": \"{order}\", \"currencyCode\": \"KRW\", \
                 \"items\": [{{\"sku\": \"{SAMPLE_SKU}\", \"quantity\": 2}}], \
                 \"paymentMethod\": \"pm_card_visa\", \"confirm\": true}}'"
            ),
            format!("curl '{base}/v1/sales:summarize?groupBy=CATEGORY&groupBy=DAY'"),
        ]
    } else {
        [
            format!(
                "curl {base}/v1/products -H 'Idempotency-Key: {order}' {json} \
                 -d '{{\"title\": \"Green tea\", \"variants\": [{{\"sku\": \"{order}\", \
                 \"prices\": [{{\"currencyCode\": \"KRW\", \"amountMinor\": \"18000\"}}], \
                 \"initialQuantity\": 10}}]}}'"
            ),
            format!("curl '{base}/v1/products?pageSize=3'"),
            format!("curl '{base}/v1/sales:summarize?groupBy=CATEGORY&groupBy=DAY'"),
        ]
    };
    for command in commands {
        writeln!(screen, "  {command}").expect("writing to a String cannot fail");
    }
    screen.push_str("\nCtrl-C stops it.\n");
    screen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(sample: bool) -> String {
        ready(&Ready {
            base: "http://127.0.0.1:8080",
            admin: SocketAddr::from(([127, 0, 0, 1], 9080)),
            data_dir: None,
            sample,
            now_us: 1_700_000_000_000_000,
            took_ms: 300,
        })
    }

    #[test]
    fn three_commands_are_shown_and_each_is_one_line() {
        for sample in [true, false] {
            let screen = shown(sample);
            let commands: Vec<&str> = screen
                .lines()
                .filter(|line| line.trim_start().starts_with("curl "))
                .collect();
            assert_eq!(commands.len(), 3, "{screen}");
            for command in commands {
                assert!(command.contains("http://127.0.0.1:8080/v1/"), "{command}");
                assert_eq!(
                    command.matches('\'').count() % 2,
                    0,
                    "quotes are closed: {command}"
                );
            }
            assert!(screen.lines().count() < 20, "short");
        }
    }

    #[test]
    fn each_start_shows_another_order() {
        assert!(shown(true).contains("\"orderRef\": \"order-1700000000000\""));
    }
}
