//! What a running service shows of its mesh: endpoints, calls in flight, certificates, configuration; and calls as
//! they end.
//!
//! Tables for people, `--json` for programs: then what the service says is passed on as it is. Deliberately without
//! knowledge of what the columns mean, so that an older tool shows what a newer service says.

use std::io::Write;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::admin::Admin;

/// The admin endpoint of a service, and the form of the answer.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Source {
    /// The admin endpoint of the service.
    #[arg(
        long,
        value_name = "http://HOST:PORT",
        default_value = "http://127.0.0.1:9080"
    )]
    admin: Admin,
    /// JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// What there is to see.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// The endpoints of every destination that was called: state, load, latency, trouble.
    Endpoints {
        #[command(flatten)]
        source: Source,
    },
    /// The calls in flight, made and served.
    Calls {
        #[command(flatten)]
        source: Source,
    },
    /// The own certificate, whom it trusts, and how the last reload of both went.
    Certs {
        #[command(flatten)]
        source: Source,
    },
    /// The configuration of the mesh in effect.
    Config {
        #[command(flatten)]
        source: Source,
    },
}

/// Which calls are tapped.
#[derive(clap::Args)]
pub(crate) struct Tap {
    #[command(flatten)]
    source: Source,
    /// Only of this method: package.Service/Method, or its end.
    #[arg(long)]
    method: Option<String>,
    /// Only for this principal.
    #[arg(long)]
    caller: Option<String>,
    /// Only with this outcome, such as UNAVAILABLE.
    #[arg(long)]
    code: Option<String>,
    /// End after so many.
    #[arg(long, value_name = "COUNT")]
    limit: Option<u64>,
}

const ENDPOINT: [&str; 9] = [
    "destination",
    "address",
    "state",
    "zone",
    "weight",
    "in_flight",
    "connections",
    "latency_us",
    "trouble",
];
const CALL: [&str; 9] = [
    "side",
    "method",
    "caller",
    "peer",
    "peer_id",
    "attempt",
    "age_ms",
    "deadline_left_ms",
    "trace_id",
];
const ENDED: [&str; 9] = [
    "side",
    "method",
    "caller",
    "peer",
    "peer_id",
    "attempt",
    "code",
    "duration_us",
    "trace_id",
];
const AUTHORITY: [&str; 5] = [
    "trust_domain",
    "subject",
    "serial",
    "not_before",
    "not_after",
];

/// Prints one page.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run(command: Command, out: &mut impl Write) -> anyhow::Result<()> {
    let (source, page) = match command {
        Command::Endpoints { source } => (source, "/mesh/endpoints"),
        Command::Calls { source } => (source, "/mesh/calls"),
        Command::Certs { source } => (source, "/mesh/certs"),
        Command::Config { source } => (source, "/mesh/config"),
    };
    let text = source.admin.text(page).await?;
    if source.json {
        writeln!(out, "{text}")?;
        return Ok(());
    }
    let mut value: Value = serde_json::from_str(&text)?;
    match page {
        "/mesh/endpoints" => table(&ENDPOINT, &endpoints(&value), out),
        "/mesh/calls" => {
            table(&CALL, &rows(&value["calls"]), out)?;
            match value["hidden"].as_u64() {
                None | Some(0) => Ok(()),
                Some(hidden) => Ok(writeln!(out, "and {hidden} more")?),
            }
        }
        "/mesh/certs" => {
            // The authorities are a table of their own, below.
            let authorities = value.pointer_mut("/identity/authorities");
            let authorities = authorities.map(Value::take).unwrap_or_default();
            let own = flat(&value).into_iter();
            let own = own.filter(|leaf| leaf["key"] != "identity.authorities");
            table(&["key", "value"], &own.collect::<Vec<_>>(), out)?;
            if authorities.is_array() {
                writeln!(out)?;
                table(&AUTHORITY, &rows(&authorities), out)?;
            }
            Ok(())
        }
        _ => table(&["key", "value"], &flat(&value), out),
    }
}

/// Prints calls as they end.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn tap(tap: Tap, out: &mut impl Write) -> anyhow::Result<()> {
    let conditions = [
        ("method", tap.method),
        ("caller", tap.caller),
        ("code", tap.code),
        ("limit", tap.limit.map(|limit| limit.to_string())),
    ];
    let conditions = conditions.into_iter().filter_map(|(key, value)| {
        let value = value?;
        Some(format!(
            "{key}={}",
            utf8_percent_encode(&value, NON_ALPHANUMERIC)
        ))
    });
    let query = conditions.collect::<Vec<_>>().join("&");
    let json = tap.source.json;
    if !json {
        writeln!(out, "{}", ENDED.join("\t").to_uppercase())?;
    }
    let print = |line: &str| {
        if json {
            writeln!(out, "{line}")?;
        } else {
            writeln!(out, "{}", ended(&serde_json::from_str(line)?))?;
        }
        Ok(out.flush()?)
    };
    tap.source
        .admin
        .lines(&format!("/mesh/tap?{query}"), print)
        .await
}

/// A line of the table of calls that have ended. Their widths are not known before the last one.
fn ended(call: &Value) -> String {
    match call.get("dropped") {
        Some(dropped) => format!("({dropped} lost so far)"),
        None => ENDED.map(|column| cell(&call[column])).join("\t"),
    }
}

/// The endpoints with the destination each belongs to; a destination without any has a row all the same.
fn endpoints(destinations: &Value) -> Vec<Value> {
    let mut all = Vec::new();
    for destination in rows(destinations) {
        let mut endpoints = rows(&destination["endpoints"]);
        if endpoints.is_empty() {
            let trouble = destination["discovery_trouble"].clone();
            endpoints.push(serde_json::json!({"trouble": trouble}));
        }
        for mut endpoint in endpoints {
            endpoint["destination"] = destination["destination"].clone();
            all.push(endpoint);
        }
    }
    all
}

fn rows(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

/// Each leaf of a tree, by the path to it.
fn flat(value: &Value) -> Vec<Value> {
    fn walk(path: &str, value: &Value, leaves: &mut Vec<Value>) {
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                for (key, value) in fields {
                    let path = if path.is_empty() {
                        key.clone()
                    } else {
                        format!("{path}.{key}")
                    };
                    walk(&path, value, leaves);
                }
            }
            leaf => leaves.push(serde_json::json!({"key": path, "value": leaf})),
        }
    }
    let mut leaves = Vec::new();
    walk("", value, &mut leaves);
    leaves
}

/// Text as it is, nothing as a dash, the rest as JSON; never more than one line.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.replace(char::is_control, " "),
        other => other.to_string(),
    }
}

fn table(columns: &[&str], rows: &[Value], out: &mut impl Write) -> anyhow::Result<()> {
    let head: Vec<String> = columns.iter().map(|column| column.to_uppercase()).collect();
    let cells = rows
        .iter()
        .map(|row| columns.iter().map(|column| cell(&row[*column])).collect());
    let lines: Vec<Vec<String>> = std::iter::once(head).chain(cells).collect();
    let width = |at: usize| lines.iter().map(|line| line[at].chars().count()).max();
    let widths: Vec<_> = (0..columns.len())
        .map(|at| width(at).unwrap_or(0))
        .collect();
    for line in &lines {
        let cells = line.iter().zip(&widths);
        let padded = cells.map(|(cell, width)| format!("{cell:width$}"));
        writeln!(out, "{}", padded.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, net::TcpListener};

    use serde_json::json;

    use super::*;

    /// An admin endpoint that answers one request with these lines.
    fn answering(status: &'static str, lines: &'static [&'static str]) -> Source {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                asked.push(byte[0]);
            }
            let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            for line in lines {
                stream.write_all(format!("{line}\n").as_bytes()).unwrap();
            }
        });
        Source {
            admin: url.parse().unwrap(),
            json: false,
        }
    }

    #[test]
    fn a_page_is_a_table_or_what_the_service_says() {
        let page = &[
            r#"{"calls": [{"side": "server", "method": "a.B/C", "peer_id": "spiffe://a/b", "age_ms": 7}], "hidden": 2}"#,
        ];
        let shown = |json: bool| {
            let source = Source {
                json,
                ..answering("200 OK", page)
            };
            let mut out = Vec::new();
            run(Command::Calls { source }, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let expected = "\
SIDE    METHOD  CALLER  PEER  PEER_ID       ATTEMPT  AGE_MS  DEADLINE_LEFT_MS  TRACE_ID
server  a.B/C   -       -     spiffe://a/b  -        7       -                 -
and 2 more
";
        assert_eq!(shown(false), expected);
        assert_eq!(shown(true).trim_end(), page[0]);
    }

    #[test]
    fn calls_are_printed_as_they_come_until_the_stream_ends() {
        let source = answering(
            "200 OK",
            &[r#"{"side": "client", "code": "OK"}"#, r#"{"dropped": 4}"#],
        );
        let wanted = Tap {
            source,
            method: Some("a.B/C".to_owned()),
            caller: None,
            code: None,
            limit: Some(1),
        };
        let mut out = Vec::new();
        tap(wanted, &mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        let lines: Vec<_> = out.lines().collect();
        assert_eq!(
            lines[1..],
            ["client\t-\t-\t-\t-\t-\tOK\t-\t-", "(4 lost so far)"]
        );
    }

    #[test]
    fn certificates_are_the_own_one_and_those_who_may_sign() {
        let page = &[
            r#"{"mode": "strict", "identity": {"id": "spiffe://a/b", "reload_trouble": null,
                "authorities": [{"trust_domain": "a", "subject": "CN=a", "serial": "01", "not_after": "2027"}]}}"#,
        ];
        let shown = |page| {
            let source = answering("200 OK", page);
            let mut out = Vec::new();
            run(Command::Certs { source }, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let expected = "\
KEY                      VALUE
mode                     strict
identity.id              spiffe://a/b
identity.reload_trouble  -

TRUST_DOMAIN  SUBJECT  SERIAL  NOT_BEFORE  NOT_AFTER
a             CN=a     01      -           2027
";
        assert_eq!(shown(page), expected);
        let off = shown(&[r#"{"mode": "off", "identity": null}"#]);
        assert_eq!(off, "KEY       VALUE\nmode      off\nidentity  -\n");
    }

    #[test]
    fn a_refusal_is_shown_with_the_address() {
        let source = answering("404 Not Found", &["see /livez"]);
        let url = format!("{}/mesh/config", source.admin);
        let error = run(Command::Config { source }, &mut Vec::new()).unwrap_err();
        let error = format!("{error:#}");
        assert!(
            error.starts_with(&url) && error.ends_with("404 Not Found: see /livez"),
            "{error}"
        );
    }

    fn printed(columns: &[&str], rows: &[Value]) -> String {
        let mut out = Vec::new();
        table(columns, rows, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn endpoints_stand_under_their_destination() {
        let page = json!([
            {"destination": "product", "discovery_trouble": null, "endpoints": [
                {"address": "10.0.0.1:1", "state": "ready"}, {"address": "10.0.0.2:1", "state": "down"}]},
            {"destination": "shop", "discovery_trouble": "no such name", "endpoints": []},
        ]);
        let columns = ["destination", "address", "state", "trouble"];
        let expected = "\
DESTINATION  ADDRESS     STATE  TROUBLE
product      10.0.0.1:1  ready  -
product      10.0.0.2:1  down   -
shop         -           -      no such name
";
        assert_eq!(printed(&columns, &endpoints(&page)), expected);
    }

    #[test]
    fn a_configuration_is_shown_leaf_by_leaf() {
        let page = json!({"server": {"streams_max": 1024}, "zone": "", "destinations": {}});
        let expected = "\
KEY                 VALUE
server.streams_max  1024
zone                -
destinations        {}
";
        assert_eq!(printed(&["key", "value"], &flat(&page)), expected);
    }

    #[test]
    fn what_a_tap_has_lost_is_a_line_of_its_own() {
        assert_eq!(ended(&json!({"dropped": 3})), "(3 lost so far)");
        let call = json!({"side": "server", "method": "a.B/C\n", "code": "OK", "duration_us": 7});
        assert_eq!(ended(&call), "server\ta.B/C \t-\t-\t-\t-\tOK\t7\t-");
    }
}
