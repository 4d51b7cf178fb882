//! What is to be seen of calls while they go and after they have ended: pages, taps, metrics with exemplars.

use futures_util::StreamExt as _;
use http_body_util::BodyExt as _;
use mesh::{CallContext, Config, Mesh, Principal, RateLimitRule, TapFilter};
use prometheus::{Encoder as _, TextEncoder};
use serde_json::Value;
use tokio::{sync::oneshot, time::timeout};
use tonic::{Code, Status};

use crate::{
    party::{Authority, Logs, Party, QUICK, started},
    support::{PATIENCE, TestClient, TestService, mesh_calling, one, plain, serve},
};

async fn page(mesh: &Mesh, uri: &str) -> (u16, Value) {
    let uri = uri.parse().expect("it is a URI");
    let response = mesh.inspect(&uri).expect("there is such a page");
    let status = response.status().as_u16();
    let body = response.into_body().collect().await;
    let body = body.expect("pages do not break off").to_bytes();
    (status, serde_json::from_slice(&body).expect("it is JSON"))
}

/// Fails for `bad`, hangs for `hang`, answers what it is asked otherwise.
fn echo() -> TestService {
    TestService::new(|_, mut requests| async move {
        match requests.next().await.transpose()?.unwrap_or_default() {
            text if text == "bad" => Err(Status::not_found("there is none")),
            text if text == "hang" => std::future::pending().await,
            text => Ok(one(text)),
        }
    })
}

#[tokio::test]
async fn calls_are_counted_by_grpcs_names_and_methods_of_the_contract_only() {
    let served = serve(Config::default(), echo()).await;
    let context = CallContext::root(Principal::anonymous());
    let trace = context.trace_id();
    let client = served.client();
    context.scope(client.unary("Read", "four")).await.unwrap();
    let far = plain(served.address);
    assert_eq!(
        far.unary("Read", "bad").await.unwrap_err().code(),
        Code::NotFound
    );
    for invented in ["Invented", "Another"] {
        far.unary(invented, "").await.unwrap();
    }
    // A caller may know the end before the server has noted it; after the drain both do.
    served.shutdown.cancel();
    served.serving.await.unwrap().unwrap();
    let families = served.registry.gather();
    let mut text = Vec::new();
    TextEncoder::new().encode(&families, &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    let read = r#"grpc_method="mesh.test.v1.TestService/Read""#;
    for line in [
        format!(r#"grpc_server_call_duration_seconds_count{{{read},grpc_status="OK"}} 1"#),
        format!(r#"grpc_server_call_duration_seconds_count{{{read},grpc_status="NOT_FOUND"}} 1"#),
        r#"grpc_server_call_duration_seconds_count{grpc_method="other",grpc_status="OK"} 2"#.into(),
        format!("grpc_server_call_started_total{{{read}}} 2"),
        // A field's number and length, and the text.
        format!(
            r#"grpc_server_call_sent_total_compressed_message_size_bytes_sum{{{read},grpc_status="OK"}} 6"#
        ),
        format!(
            r#"grpc_server_call_rcvd_total_compressed_message_size_bytes_sum{{{read},grpc_status="OK"}} 6"#
        ),
        "mesh_server_calls_in_flight 0".to_owned(),
    ] {
        assert!(text.lines().any(|held| held == line), "{line} in:\n{text}");
    }
    assert!(!text.contains("Invented"), "{text}");
    let exemplar = format!("trace_id=\"{trace}\"");
    let is_exemplar = |line: &str| {
        line.starts_with("grpc_server_call_duration_seconds_exemplar") && line.contains(&exemplar)
    };
    assert!(text.lines().any(is_exemplar), "{text}");
}

#[tokio::test]
async fn the_client_counts_calls_attempts_and_what_it_decides_by() {
    let served = serve(Config::default(), echo()).await;
    let registry = prometheus::Registry::new();
    let mut config = Config::default();
    let address = format!("http://{}", served.address);
    config.destinations.insert("test".into(), address);
    let mesh = crate::support::mesh_with(config, &registry);
    TestClient(mesh.client("test"))
        .unary("Read", "four")
        .await
        .unwrap();
    let mut text = Vec::new();
    TextEncoder::new()
        .encode(&registry.gather(), &mut text)
        .unwrap();
    let text = String::from_utf8(text).unwrap();
    let read = r#"grpc_method="mesh.test.v1.TestService/Read""#;
    let labels = format!(r#"{read},grpc_status="OK",grpc_target="test""#);
    for line in [
        format!("grpc_client_call_duration_seconds_count{{{labels}}} 1"),
        format!("grpc_client_attempt_duration_seconds_count{{{labels}}} 1"),
        format!("grpc_client_attempt_sent_total_compressed_message_size_bytes_sum{{{labels}}} 6"),
        format!("grpc_client_attempt_rcvd_total_compressed_message_size_bytes_sum{{{labels}}} 6"),
        format!(r#"grpc_client_attempt_started_total{{{read},grpc_target="test"}} 1"#),
        r#"mesh_lb_endpoints{grpc_target="test",state="ready"} 1"#.to_owned(),
        r#"mesh_client_attempts_in_flight{grpc_target="test"} 0"#.to_owned(),
    ] {
        assert!(text.lines().any(|held| held == line), "{line} in:\n{text}");
    }
    let budget = r#"mesh_client_retry_budget_left{grpc_target="test"}"#;
    assert!(text.contains(budget), "{text}");
}

#[tokio::test]
async fn a_call_in_flight_is_shown_at_both_ends() {
    let (begun, mut began) = tokio::sync::mpsc::channel(1);
    let (finish, finished) = oneshot::channel::<()>();
    let finished = std::sync::Arc::new(tokio::sync::Mutex::new(Some(finished)));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // One mesh for both ends, as the standalone has it.
    let mesh = mesh_calling(address);
    let service = TestService::new(move |_, _| {
        let (begun, finished) = (begun.clone(), finished.clone());
        async move {
            begun
                .send(())
                .await
                .map_err(|_| Status::aborted("nobody looks"))?;
            let waiting = finished.lock().await.take().expect("one call");
            let _ = waiting.await;
            Ok(one("done"))
        }
    });
    let stop = tokio_util::sync::CancellationToken::new();
    let serving = mesh::spawn(mesh.server().add(service).serve(listener, stop.clone()));
    let client = TestClient(mesh.client("test"));
    let context = CallContext::root(Principal::new("shop", ["operator"]));
    let trace = context.trace_id();
    let calling = mesh::spawn(async move { context.scope(client.unary("Read", "")).await });
    timeout(PATIENCE, began.recv()).await.unwrap().unwrap();

    let (status, shown) = page(&mesh, "/mesh/calls").await;
    assert_eq!((status, &shown["hidden"]), (200, &Value::from(0)));
    let calls = shown["calls"].as_array().unwrap();
    let sides: Vec<_> = calls
        .iter()
        .map(|call| call["side"].as_str().unwrap())
        .collect();
    assert_eq!(sides, ["client", "server"], "the oldest first");
    for call in calls {
        assert_eq!(call["method"], "mesh.test.v1.TestService/Read");
        assert_eq!(call["caller"], "shop");
        assert_eq!(call["trace_id"], trace);
        assert_eq!(call["attempt"], 1);
        assert!(
            call["deadline_left_ms"].as_u64().unwrap() <= 5_000,
            "{call}"
        );
    }
    assert_eq!(calls[0]["peer"], address.to_string());
    assert!(calls[1]["peer"].as_str().unwrap().starts_with("127.0.0.1:"));

    finish.send(()).unwrap();
    calling.await.unwrap().unwrap();
    stop.cancel();
    serving.await.unwrap().unwrap();
    let (_, shown) = page(&mesh, "/mesh/calls").await;
    assert_eq!(shown["calls"], Value::Array(Vec::new()));
}

#[tokio::test]
async fn a_tap_streams_what_ends_as_lines() {
    let served = serve(Config::default(), echo()).await;
    let mesh = mesh_calling(served.address);
    let client = TestClient(mesh.client("test"));
    let tap = mesh.inspect(
        &"/mesh/tap?method=Read&code=not_found&limit=2"
            .parse()
            .unwrap(),
    );
    let tap = tap.unwrap();
    assert_eq!(tap.headers()["content-type"], "application/x-ndjson");
    for (method, text) in [
        ("Read", "good"),
        ("Read", "bad"),
        ("Put", "bad"),
        ("Read", "bad"),
    ] {
        let _ = client.unary(method, text).await;
    }
    let body = timeout(PATIENCE, tap.into_body().collect()).await.unwrap();
    let body = body.unwrap().to_bytes();
    let lines: Vec<Value> = body
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    for call in lines {
        assert_eq!(call["side"], "client");
        assert_eq!(call["method"], "mesh.test.v1.TestService/Read");
        assert_eq!(call["code"], "NOT_FOUND");
        assert_eq!(call["peer"], served.address.to_string());
        assert_eq!(call["sent_bytes"], 5);
    }
}

#[tokio::test]
async fn pages_show_endpoints_and_configuration_and_refuse_what_is_not_there() {
    let served = serve(Config::default(), echo()).await;
    let mesh = mesh_calling(served.address);
    TestClient(mesh.client("test"))
        .unary("Read", "")
        .await
        .unwrap();
    let (_, endpoints) = page(&mesh, "/mesh/endpoints").await;
    assert_eq!(endpoints[0]["destination"], "test");
    assert_eq!(
        endpoints[0]["endpoints"][0]["address"],
        served.address.to_string()
    );
    assert_eq!(endpoints[0]["endpoints"][0]["state"], "ready");
    let (_, config) = page(&mesh, "/mesh/config").await;
    assert_eq!(config["server"]["streams_max"], 1024);
    let (status, refused) = page(&mesh, "/mesh/tap?colour=red").await;
    assert_eq!(status, 400);
    assert!(
        refused["error"]
            .as_str()
            .unwrap()
            .starts_with("colour is none of")
    );
    assert!(mesh.inspect(&"/mesh/secrets".parse().unwrap()).is_none());
    let taps: Vec<_> = (0..8)
        .map(|_| mesh.tap(TapFilter::default()).unwrap())
        .collect();
    let (status, _) = page(&mesh, "/mesh/tap").await;
    assert_eq!(status, 429, "{taps:?}");
}

#[tokio::test]
async fn a_refusal_for_want_of_room_is_no_line_of_the_log_and_another_one_is() {
    let limit = RateLimitRule {
        methods: vec!["/mesh.test.v1.TestService/Put".to_owned()],
        per_s: 0.001,
        ..RateLimitRule::default()
    };
    let mut config = Config::default();
    let rules = &mut config.server.rate_limits.rules;
    rules.insert("puts".to_owned(), limit);
    let service = TestService::new(|method, _| async move {
        match &*method {
            "Put" => Ok(one("fine")),
            _ => Err(Status::not_found("no such thing")),
        }
    });
    let served = serve(config, service).await;
    let (client, logs) = (served.client(), Logs::capture());
    client.unary("Put", "").await.unwrap();
    let limited = client.unary("Put", "").await.unwrap_err();
    assert_eq!(limited.code(), Code::ResourceExhausted);
    client.unary("Post", "").await.unwrap_err();
    // The line is written when the server is done with the call, which may be after its answer.
    let written = async {
        while logs.with("code=\"NOT_FOUND\"").is_empty() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, written).await.unwrap();
    assert_eq!(logs.with("refused").len(), 1, "{:?}", logs.with("refused"));
}

#[tokio::test]
async fn certificates_are_shown_and_what_is_wrong_with_newer_ones() {
    let authority = Authority::new("shop.example");
    let issued = authority.issue("/product");
    let party = Party::new(&issued, &authority.pem());
    let mesh = started(party.config(mesh::identity::Mode::Strict, QUICK)).await;
    let (_, shown) = page(&mesh, "/mesh/certs").await;
    assert_eq!(shown["mode"], "strict");
    let own = &shown["identity"];
    assert_eq!(own["id"], "spiffe://shop.example/product");
    assert_eq!(own["not_after"], "2100-01-01T00:00:00Z");
    assert_eq!(own["issuer"], "CN=shop.example");
    assert_eq!(own["authorities"][0]["trust_domain"], "shop.example");
    assert_eq!(own["reload_trouble"], Value::Null);
    let other = Authority::new("shop.example");
    party.write(&other.issue("/product"), &authority.pem(), "");
    let trouble = async {
        loop {
            let (_, shown) = page(&mesh, "/mesh/certs").await;
            match shown["identity"]["reload_trouble"].as_str() {
                Some(trouble) => return trouble.to_owned(),
                None => tokio::time::sleep(QUICK).await,
            }
        }
    };
    let trouble = timeout(PATIENCE, trouble).await.unwrap();
    assert!(trouble.contains("unknown authority"), "{trouble}");

    let off = mesh_calling("127.0.0.1:1".parse().unwrap());
    let (_, shown) = page(&off, "/mesh/certs").await;
    assert_eq!(shown, serde_json::json!({"mode": "off", "identity": null}));
}
