//! A peer that stops being trusted while it is connected: its certificate is revoked, or the authority behind it is gone.
//! (A revoked caller, as its server sees it: `identity.rs`.)

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use mesh::{EndpointSnapshot, EndpointState, Mesh, identity::Mode};
use tokio::{
    net::TcpListener,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::{
    identity::reason,
    party::{Authority, Logs, Party, QUICK, how_soon, started},
    support::{PATIENCE, TestClient, TestService, Texts, one},
};

/// Who says its name, and where.
struct Serving {
    address: String,
    mesh: Mesh,
    _stop: CancellationToken,
}

/// Serves with an identity; watches say the name and then nothing.
async fn serve(name: &'static str, party: &Party) -> Serving {
    let mesh = started(party.config(Mode::Strict, QUICK)).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    let service = TestService::new(move |method, _| async move {
        if method != "Watch" {
            return Ok(one(name));
        }
        Ok(Box::pin(stream::iter([Ok(name.to_owned())]).chain(stream::pending())) as Texts)
    });
    let serving = mesh.server().add(service).serve(listener, stop.clone());
    mesh::spawn(async { serving.await.unwrap() });
    Serving {
        address: address.to_string(),
        mesh,
        _stop: stop,
    }
}

/// A client of some servers that looks for new files as often as told.
async fn client(party: &Party, interval: Duration, servers: &[&Serving]) -> Mesh {
    let mut config = party.config(Mode::Strict, interval);
    let listed = servers
        .iter()
        .map(|server| format!("https://{}", server.address));
    let listed: Vec<_> = listed.collect();
    config.destinations.insert("test".into(), listed.join(","));
    started(config).await
}

fn endpoint(mesh: &Mesh, server: &Serving) -> EndpointSnapshot {
    let mut endpoints = mesh.endpoints().remove(0).endpoints.into_iter();
    let endpoint = endpoints.find(|endpoint| endpoint.address == server.address);
    endpoint.unwrap()
}

/// Watches until one is served by the server of this name; that one.
async fn watched(client: &TestClient<mesh::Client>, name: &str) -> tonic::Streaming<String> {
    let watching = async {
        loop {
            let mut watching = client.watch("Watch", "").await.unwrap();
            if watching.next().await.unwrap().unwrap() == name {
                return watching;
            }
        }
    };
    timeout(PATIENCE, watching).await.unwrap()
}

/// Calls go to the other one only, and the peer is not let in again.
async fn is_left(mesh: &Mesh, server: &Serving, other: &str, trouble: &str) {
    let client = TestClient(mesh.client("test"));
    for _ in 0..20 {
        assert_eq!(client.unary("Post", "").await.unwrap(), other);
    }
    let refused = async {
        while endpoint(mesh, server).state != EndpointState::Down {
            client.unary("Post", "").await.unwrap();
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, refused).await.unwrap();
    let seen = endpoint(mesh, server);
    assert_eq!(seen.connections, 0);
    assert!(seen.trouble.unwrap().contains(trouble));
}

#[tokio::test]
async fn a_revoked_server_is_left_within_two_seconds_and_calls_go_to_another() {
    let authority = Authority::new("shop.example");
    let (theirs, ours) = (authority.issue("/product"), authority.issue("/payment"));
    let revoked = Party::new(&theirs, &authority.pem());
    let good = Party::new(&authority.issue("/product"), &authority.pem());
    let payment = Party::new(&ours, &authority.pem());
    let (revoked, good) = (serve("revoked", &revoked).await, serve("good", &good).await);
    let second = Duration::from_secs(1); // The default.
    let mesh = client(&payment, second, &[&revoked, &good]).await;
    let calls = TestClient(mesh.client("test"));
    let mut watching = watched(&calls, "revoked").await;
    let mut going_on = watched(&calls, "good").await;

    let logs = Logs::capture();
    payment.write(&ours, &authority.pem(), &authority.crl(&[theirs.serial]));
    let (ended, elapsed) = how_soon(watching.next()).await;
    let status = ended.unwrap().unwrap_err();
    assert_eq!(
        reason(&status),
        (Code::Unavailable, "DESTINATION_UNAVAILABLE".into())
    );
    println!("a revoked peer's connection ends after {elapsed:?}");
    assert!(elapsed <= Duration::from_secs(2), "after {elapsed:?}");
    let ends = logs.with("connection ends: the certificate is revoked");
    assert_eq!(ends.len(), 1, "{ends:?}");
    is_left(&mesh, &revoked, "good", "revoked").await;
    assert!(futures_util::poll!(going_on.next()).is_pending());
}

#[tokio::test]
async fn a_server_whose_authority_is_not_trusted_any_more_is_left() {
    let (old, new) = (
        Authority::new("shop.example"),
        Authority::new("shop.example"),
    );
    let both = old.pem() + &new.pem();
    let ours = new.issue("/payment");
    let of_old = Party::new(&old.issue("/product"), &both);
    let of_new = Party::new(&new.issue("/product"), &both);
    let payment = Party::new(&ours, &both);
    let (of_old, of_new) = (serve("old", &of_old).await, serve("new", &of_new).await);
    let mesh = client(&payment, QUICK, &[&of_old, &of_new]).await;
    let calls = TestClient(mesh.client("test"));
    let mut watching = watched(&calls, "old").await;
    let mut going_on = watched(&calls, "new").await;

    payment.write(&ours, &new.pem(), "");
    let ended = timeout(PATIENCE, watching.next()).await.unwrap();
    let status = ended.unwrap().unwrap_err();
    assert_eq!(
        reason(&status),
        (Code::Unavailable, "DESTINATION_UNAVAILABLE".into())
    );
    is_left(&mesh, &of_old, "new", "unknown authority").await;
    assert!(futures_util::poll!(going_on.next()).is_pending());
}

#[tokio::test]
async fn a_caller_whose_authority_is_not_trusted_any_more_is_cut_off() {
    let (old, new) = (
        Authority::new("shop.example"),
        Authority::new("shop.example"),
    );
    let both = old.pem() + &new.pem();
    let theirs = new.issue("/product");
    let product = Party::new(&theirs, &both);
    let of_old = Party::new(&old.issue("/payment"), &both);
    let of_new = Party::new(&new.issue("/payment"), &both);
    let server = serve("product", &product).await;
    let (left, stays) = (
        client(&of_old, QUICK, &[&server]).await,
        client(&of_new, QUICK, &[&server]).await,
    );
    let [left, stays] = [left, stays].map(|mesh| TestClient(mesh.client("test")));
    let mut watching = watched(&left, "product").await;
    let mut going_on = watched(&stays, "product").await;

    product.write(&theirs, &new.pem(), "");
    let ended = timeout(PATIENCE, watching.next()).await.unwrap();
    assert_eq!(
        reason(&ended.unwrap().unwrap_err()),
        (Code::Unauthenticated, "CALLER_NOT_TRUSTED".into())
    );
    left.unary("Post", "").await.unwrap_err();
    assert!(futures_util::poll!(going_on.next()).is_pending());
    assert_eq!(stays.unary("Post", "").await.unwrap(), "product");
    assert_eq!(
        server.mesh.calls().calls.len(),
        1,
        "only the one that stays"
    );
}
