//! A server's connections are counted: open, accepted, closed by reason, and those that came to nothing.

use std::time::Duration;

use mesh::{Config, identity::Mode};
use prometheus::{Registry, TextEncoder};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::timeout};

use crate::{
    party::{Authority, Party, QUICK, started_in},
    support::{PATIENCE, TestService, one, plain, serve},
};

fn answering() -> TestService {
    TestService::new(|_, _| async { Ok(one("")) })
}

/// Waits until the registry says so.
async fn says(registry: &Registry, line: &str) {
    let text = || {
        TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap()
    };
    let said = async {
        while !text().lines().any(|held| held == line) {
            tokio::time::sleep(QUICK).await;
        }
    };
    let waited = timeout(PATIENCE, said).await;
    assert!(waited.is_ok(), "{line} in:\n{}", text());
}

#[tokio::test]
async fn a_connection_is_open_until_one_end_leaves() {
    let served = serve(Config::default(), answering()).await;
    let client = plain(served.address);
    client.unary("Read", "").await.unwrap();
    says(&served.registry, "mesh_server_connections 1").await;
    drop(client);
    let closed = |reason| format!("mesh_server_connections_closed_total{{reason=\"{reason}\"}} 1");
    says(&served.registry, &closed("peer")).await;
    says(&served.registry, "mesh_server_connections 0").await;
    let client = plain(served.address);
    client.unary("Read", "").await.unwrap();
    served.shutdown.cancel();
    served.serving.await.unwrap().unwrap();
    says(&served.registry, &closed("drain")).await;
    says(&served.registry, "mesh_server_connections_accepted_total 2").await;
}

#[tokio::test]
async fn a_connection_without_calls_is_closed_for_that() {
    let mut config = Config::default();
    config.server.connection_idle_max_ms = 20;
    let served = serve(config, answering()).await;
    let client = plain(served.address);
    client.unary("Read", "").await.unwrap();
    let closed = "mesh_server_connections_closed_total{reason=\"idle\"} 1";
    says(&served.registry, closed).await;
}

#[tokio::test]
async fn an_old_connection_is_closed_for_that() {
    let mut config = Config::default();
    config.server.connection_age_max_ms = 20;
    let served = serve(config, answering()).await;
    let client = plain(served.address);
    client.unary("Read", "").await.unwrap();
    let closed = "mesh_server_connections_closed_total{reason=\"age\"} 1";
    says(&served.registry, closed).await;
}

#[tokio::test]
async fn a_full_server_and_a_socket_that_says_nothing_are_counted() {
    let mut config = Config::default();
    config.server.connections_max = 1;
    config.server.handshake_timeout_ms = 20;
    let served = serve(config, answering()).await;
    let _silent = TcpStream::connect(served.address).await.unwrap();
    says(&served.registry, "mesh_server_connections_full_total 1").await;
    let failed = "mesh_server_handshakes_failed_total{reason=\"timed_out\"} 1";
    says(&served.registry, failed).await;
    says(&served.registry, "mesh_server_connections 0").await;
}

#[tokio::test]
async fn who_is_not_let_in_is_counted_by_reason() {
    let authority = Authority::new("shop.example");
    let party = Party::new(&authority.issue("/product"), &authority.pem());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let registry = Registry::new();
    let mesh = started_in(
        party.config(Mode::Strict, Duration::from_secs(1)),
        &registry,
    )
    .await;
    let stop = tokio_util::sync::CancellationToken::new();
    let serving = mesh::spawn(mesh.server().add(answering()).serve(listener, stop.clone()));
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(b"PRI * HTTP/2.0\r\n\r\n").await.unwrap();
    let failed = "mesh_server_handshakes_failed_total{reason=\"plaintext\"} 1";
    says(&registry, failed).await;
    stop.cancel();
    serving.await.unwrap().unwrap();
}
