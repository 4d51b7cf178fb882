//! What is too much, too silent or broken is refused by name, and takes nothing else down.

use std::{net::SocketAddr, time::Duration};

use futures_util::{StreamExt as _, stream};
use mesh::{Config, ServerConfig};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Request};
use tonic_types::StatusExt as _;

use crate::support::{
    PATIENCE, TestClient, TestService, Texts, drain, elapse, mesh_calling, one, plain, serve,
};

const MIB: usize = 1 << 20;

/// Answers what it is sent, twice over.
fn doubling() -> TestService {
    TestService::new(|_, mut requests| async move {
        let text = requests
            .next()
            .await
            .ok_or_else(|| tonic::Status::aborted("no request"))??;
        Ok(one(text.repeat(2)))
    })
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_in_either_direction() {
    let served = serve(
        Config {
            message_bytes_max: MIB,
            ..Config::default()
        },
        doubling(),
    )
    .await;
    let refused = |result: Result<String, tonic::Status>| {
        let status = result.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        assert_eq!(
            status.get_error_details().error_info().unwrap().reason,
            "MESSAGE_TOO_LARGE"
        );
        assert!(status.message().contains("over the limit of"), "{status}");
    };
    // The client's own limit (4 MiB): nothing reaches the server.
    refused(served.client().unary("Read", &"x".repeat(5 * MIB)).await);
    refused(served.client().unary("Post", &"x".repeat(5 * MIB)).await);
    // The server's limit for what it receives.
    refused(
        plain(served.address)
            .unary("Read", &"x".repeat(2 * MIB))
            .await,
    );
    // The server's limit for what it sends.
    refused(
        plain(served.address)
            .unary("Read", &"x".repeat(MIB - 64))
            .await,
    );
    // Just below it.
    let text = "x".repeat(MIB / 2 - 64);
    assert_eq!(
        served.client().unary("Read", &text).await.unwrap().len(),
        MIB - 128
    );
}

#[tokio::test]
async fn a_message_over_the_limit_is_named_in_the_middle_of_a_stream_too() {
    let served = serve(
        Config::default(),
        TestService::new(|_, requests| async { Ok(Box::pin(requests) as Texts) }),
    )
    .await;
    let (send, texts) = mpsc::unbounded_channel();
    let texts = UnboundedReceiverStream::new(texts);
    send.send("small".to_owned()).unwrap();
    let mut answers = served.client().stream("Import", texts).await.unwrap();
    assert_eq!(answers.next().await.unwrap().unwrap(), "small");
    send.send("x".repeat(5 * MIB)).unwrap();
    let status = timeout(PATIENCE, answers.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
}

#[tokio::test]
async fn an_answer_over_the_clients_limit_is_refused() {
    let served = serve(Config::default(), doubling()).await;
    let mut config = Config {
        message_bytes_max: MIB,
        ..Config::default()
    };
    config
        .destinations
        .insert("test".into(), format!("http://{}", served.address));
    let mesh = crate::support::mesh_with(config, &prometheus::Registry::new());
    let status = TestClient(mesh.client("test"))
        .unary("Read", &"x".repeat(MIB - 64))
        .await;
    assert_eq!(status.unwrap_err().code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn a_panic_is_internal_without_a_text_and_the_connection_lives_on() {
    let served = serve(
        Config::default(),
        TestService::new(|method, _| async move {
            match method.as_str() {
                "Read" => panic!("password is hunter2"),
                "Watch" => {
                    let broken = stream::once(async {
                        tokio::task::yield_now().await; // Lets the first text leave.
                        panic!("password is hunter2")
                    });
                    Ok(Box::pin(stream::iter([Ok("first".to_owned())]).chain(broken)) as Texts)
                }
                _ => Ok(one("fine")),
            }
        }),
    )
    .await;
    let client = served.client();
    let status = client.unary("Read", "").await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Internal, "internal error")
    );
    let (texts, outcome) = drain(client.watch("Watch", "").await.unwrap()).await;
    let status = outcome.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Internal, "internal error")
    );
    assert_eq!(texts, ["first"]);
    assert_eq!(client.unary("Put", "").await.unwrap(), "fine");
}

#[tokio::test]
async fn a_header_that_cannot_be_read_is_refused_by_its_name() {
    let served = serve(Config::default(), doubling()).await;
    for (name, value) in [
        ("grpc-timeout", "soon"),
        ("mesh-criticality", "huge"),
        ("mesh-principal", "%ff"),
    ] {
        let mut request = Request::new(String::new());
        request.metadata_mut().insert(name, value.parse().unwrap());
        let status = plain(served.address)
            .ask("Read", request)
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{name}");
        assert!(status.message().contains(name), "{status}");
    }
    let seen = served.registry.gather();
    let seen = seen
        .iter()
        .filter(|family| family.name() == "grpc_server_call_duration_seconds")
        .flat_map(prometheus::proto::MetricFamily::get_metric)
        .filter(|one| {
            one.get_label()
                .iter()
                .any(|label| label.value() == "INVALID_ARGUMENT")
        });
    let seen: u64 = seen.map(|one| one.get_histogram().get_sample_count()).sum();
    assert_eq!(seen, 3, "refused calls are counted");
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let config = Config::default();
    let handshake_timeout = Duration::from_millis(config.server.handshake_timeout_ms);
    let served = serve(config, doubling()).await;
    let mut silent = TcpStream::connect(served.address).await.unwrap();
    // Connected later and answered: the silent one has been accepted by now.
    let client = served.client();
    assert_eq!(client.unary("Read", "a").await.unwrap(), "aa");
    elapse(handshake_timeout).await;
    let closed = timeout(PATIENCE, silent.read_to_end(&mut Vec::new())).await;
    assert!(closed.is_ok(), "still open");
    assert_eq!(client.unary("Read", "a").await.unwrap(), "aa");
}

#[tokio::test]
async fn a_connection_over_the_limit_waits_for_a_slot() {
    let server = ServerConfig {
        connections_max: 1,
        ..ServerConfig::default()
    };
    let served = serve(
        Config {
            server,
            ..Config::default()
        },
        doubling(),
    )
    .await;
    let first = served.client();
    first.unary("Read", "a").await.unwrap();
    let second = served.client();
    let waiting = mesh::spawn(async move { second.unary("Read", "b").await });
    // The first connection is served while the second waits.
    assert_eq!(first.unary("Read", "a").await.unwrap(), "aa");
    assert!(!waiting.is_finished());
    drop(first);
    assert_eq!(
        timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap(),
        "bb"
    );
}

/// Forwards one connection to `to` until `cut` is sent.
async fn cable(to: SocketAddr) -> (SocketAddr, oneshot::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("loopback has a free port");
    let address = listener
        .local_addr()
        .expect("a bound listener has an address");
    let (cut, cutting) = oneshot::channel();
    mesh::spawn(async move {
        let (mut near, _) = listener.accept().await.expect("the test connects");
        let mut far = TcpStream::connect(to).await.expect("the server listens");
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
            _ = cutting => {}
        }
    });
    (address, cut)
}

#[tokio::test]
async fn a_connection_that_breaks_is_unavailable_in_the_middle_of_a_stream_too() {
    let served = serve(
        Config::default(),
        TestService::new(|_, _| async {
            let silence = stream::pending();
            Ok(Box::pin(stream::iter([Ok("first".to_owned())]).chain(silence)) as Texts)
        }),
    )
    .await;
    let (address, cut) = cable(served.address).await;
    let mut answers = TestClient(mesh_calling(address).client("test"))
        .watch("Watch", "")
        .await
        .unwrap();
    assert_eq!(answers.next().await.unwrap().unwrap(), "first");
    cut.send(()).unwrap();
    let status = timeout(PATIENCE, answers.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(status.get_error_details().retry_info().is_some());
}
