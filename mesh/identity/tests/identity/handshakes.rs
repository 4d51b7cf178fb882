//! Connections that come about: modes, protocols, identities.

use std::time::Duration;

use mesh_identity::{Accepted, Acceptor, Expected, HandshakeFailure, Mode, Refusal};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    authority::{Authority, leaf, serial},
    party::{LIMIT, Logs, Party, meet, meet_strictly, talk, tcp},
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

async fn shop() -> (Authority, Party, Party) {
    let authority = Authority::new("shop.example");
    let server = Party::new(&authority.issue("/product"), &authority.pem()).await;
    let client = Party::new(&authority.issue("/payment"), &authority.pem()).await;
    (authority, server, client)
}

#[tokio::test]
async fn both_ends_know_each_other() {
    let (_, server, client) = shop().await;
    for mode in [Mode::Permissive, Mode::Strict] {
        let expected = Expected::own_trust_domain();
        let (accepted, connected) =
            meet(&server.acceptor(mode), &client.connector(), &expected).await;
        let (mut accepted, mut connected) = (accepted.unwrap(), connected.unwrap());
        assert!(accepted.tls && connected.tls && accepted.stream.is_tls());
        let id = |end: &Accepted| end.peer.as_ref().unwrap().id.to_string();
        assert_eq!(id(&accepted), "spiffe://shop.example/payment");
        assert_eq!(id(&connected), "spiffe://shop.example/product");
        talk(&mut connected, &mut accepted).await.unwrap();
        talk(&mut accepted, &mut connected).await.unwrap();
    }
}

#[tokio::test]
async fn an_intermediate_is_part_of_the_chain() {
    let root = Authority::new("shop.example");
    let intermediate = root.intermediate(600);
    let mut issued = intermediate.issue("/product");
    issued.chain += &intermediate.pem();
    let server = Party::new(&issued, &root.pem()).await;
    let client = Party::new(&root.issue("/payment"), &root.pem()).await;
    let (_, connected) = meet_strictly(&server, &client).await;
    let ends = connected.unwrap().peer.unwrap().not_after.as_secs();
    assert_eq!(ends, 1_800_000_600, "the intermediate ends first");
}

#[tokio::test]
async fn a_permissive_port_speaks_both_and_a_strict_one_does_not() {
    let (_, server, client) = shop().await;
    let permissive = server.acceptor(Mode::Permissive);
    let (accepted, mut connected) = tcp().await;
    connected.write_all(PREFACE).await.unwrap();
    let mut accepted = permissive.accept(accepted, LIMIT).await.unwrap();
    assert!(!accepted.tls && accepted.peer.is_none());
    let mut heard = [0; PREFACE.len()];
    accepted.stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard, PREFACE, "nothing of it was swallowed");
    let expected = Expected::default();
    let (accepted, _) = meet(&permissive, &client.connector(), &expected).await;
    assert!(accepted.unwrap().tls);

    let logs = Logs::capture();
    let (accepted, mut connected) = tcp().await;
    connected.write_all(PREFACE).await.unwrap();
    let refused = server.acceptor(Mode::Strict).accept(accepted, LIMIT).await;
    assert!(matches!(
        refused.unwrap_err().reason,
        HandshakeFailure::Plaintext
    ));
    let line = logs.one("connection refused: plaintext is not accepted here");
    assert!(
        line.contains(&connected.local_addr().unwrap().to_string()),
        "{line}"
    );
}

#[tokio::test]
async fn what_is_neither_tls_nor_http2_is_refused() {
    let (_, server, _) = shop().await;
    for (first, what) in [(b'G', "0x47"), (0, "0x00"), (0xff, "0xff")] {
        let logs = Logs::capture();
        let (accepted, mut connected) = tcp().await;
        connected.write_all(&[first; 40]).await.unwrap();
        let refused = server
            .acceptor(Mode::Permissive)
            .accept(accepted, LIMIT)
            .await;
        assert!(matches!(
            refused.unwrap_err().reason,
            HandshakeFailure::Protocol(_)
        ));
        logs.one(&format!("the first byte {what} is neither TLS nor HTTP/2"));
    }
    let (accepted, mut connected) = tcp().await;
    connected.write_all(&[0x16; 40]).await.unwrap();
    let refused = server
        .acceptor(Mode::Permissive)
        .accept(accepted, LIMIT)
        .await;
    assert!(matches!(
        refused.unwrap_err().reason,
        HandshakeFailure::Tls(_)
    ));
}

#[tokio::test]
async fn a_peer_that_is_silent_or_gone_does_not_hold_the_server() {
    let (_, server, client) = shop().await;
    let soon = Duration::from_millis(50);
    for said in [&b""[..], &[0x16]] {
        let (accepted, mut connected) = tcp().await;
        connected.write_all(said).await.unwrap();
        let refused = server.acceptor(Mode::Strict).accept(accepted, soon).await;
        assert!(matches!(
            refused.unwrap_err().reason,
            HandshakeFailure::TimedOut(_)
        ));
    }
    let (accepted, connected) = tcp().await;
    drop(connected);
    let refused = server.acceptor(Mode::Strict).accept(accepted, LIMIT).await;
    assert!(matches!(
        refused.unwrap_err().reason,
        HandshakeFailure::HungUp
    ));

    let (_silent, connected) = tcp().await;
    let expected = Expected::default();
    let refused = client.connector().connect(connected, &expected, soon).await;
    assert!(matches!(
        refused.unwrap_err().reason,
        HandshakeFailure::TimedOut(_)
    ));
}

#[tokio::test]
async fn off_is_plaintext_and_waits_for_nothing() {
    let (accepted, _connected) = tcp().await;
    let accepted = Acceptor::off().accept(accepted, LIMIT).await.unwrap();
    assert!(!accepted.tls && accepted.peer.is_none() && !accepted.stream.is_tls());
    let (_, server, _) = shop().await;
    let (accepted, _connected) = tcp().await;
    let accepted = server
        .acceptor(Mode::Off)
        .accept(accepted, LIMIT)
        .await
        .unwrap();
    assert!(!accepted.tls);
}

#[tokio::test]
async fn a_client_reaches_only_whom_it_expects() {
    let (_, server, client) = shop().await;
    let acceptor = server.acceptor(Mode::Strict);
    for (pattern, good) in [
        ("spiffe://shop.example/product", true),
        ("spiffe://shop.example/*", true),
        ("spiffe://shop.example/payment", false),
        ("spiffe://partner.example/*", false),
    ] {
        let logs = Logs::capture();
        let expected = Expected::one_of([pattern.parse().unwrap()]);
        let (accepted, connected) = meet(&acceptor, &client.connector(), &expected).await;
        assert_eq!(connected.is_ok(), good, "{pattern}");
        if let Err(error) = connected {
            assert!(matches!(
                error.reason,
                HandshakeFailure::Refused(Refusal::NotExpected)
            ));
            let line = logs.one("connection failed: the identity is not one that is expected");
            assert!(line.contains("spiffe://shop.example/product"), "{line}");
            // The server is told, with an alert of its own kind.
            let told = accepted.unwrap_err();
            assert!(
                matches!(told.reason, HandshakeFailure::Alert(_)),
                "{told:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_federated_client_is_let_in_and_a_federated_server_must_be_named() {
    let (shop, partner) = (
        Authority::new("shop.example"),
        Authority::new("partner.example"),
    );
    let folder = tempfile::tempdir().unwrap();
    crate::party::write(folder.path(), &shop.issue("/product"), &shop.pem(), "");
    std::fs::write(folder.path().join("partner.pem"), partner.pem()).unwrap();
    let ours = Party::of(folder, LIMIT).await.unwrap();
    // The partner's own configuration calls us its partner.
    let folder = tempfile::tempdir().unwrap();
    crate::party::write(folder.path(), &partner.issue("/buyer"), &partner.pem(), "");
    std::fs::write(folder.path().join("partner.pem"), shop.pem()).unwrap();
    let mut files = crate::party::files(folder.path(), LIMIT);
    let bundle = files.federated.pop_first().unwrap().1;
    files
        .federated
        .insert("shop.example".parse().unwrap(), bundle);
    let clock = std::sync::Arc::new(crate::authority::Clock(tokio::time::Instant::now()));
    let source = mesh_identity::Files::new(&files);
    let (theirs, _) = mesh_identity::Identity::start_at(source, clock)
        .await
        .unwrap();

    let named = Expected::one_of(["spiffe://shop.example/product".parse().unwrap()]);
    let connector = mesh_identity::Connector::new(theirs.clone());
    let (accepted, connected) = meet(&ours.acceptor(Mode::Strict), &connector, &named).await;
    connected.unwrap();
    assert_eq!(
        accepted.unwrap().peer.unwrap().id.as_str(),
        "spiffe://partner.example/buyer"
    );
    let acceptor = Acceptor::new(Mode::Strict, theirs);
    let unnamed = Expected::own_trust_domain();
    let (_, connected) = meet(&acceptor, &ours.connector(), &unnamed).await;
    assert!(matches!(
        connected.unwrap_err().reason,
        HandshakeFailure::Refused(Refusal::NotExpected)
    ));
}

#[tokio::test]
async fn a_certificate_may_have_host_names_beside_its_id() {
    let authority = Authority::new("shop.example");
    let mut params = leaf("spiffe://shop.example/product", serial());
    let host = rcgen::SanType::DnsName("product.shop.svc".try_into().unwrap());
    params.subject_alt_names.push(host);
    let server = Party::new(&authority.sign(&params), &authority.pem()).await;
    let client = Party::new(&authority.issue("/payment"), &authority.pem()).await;
    let (_, connected) = meet_strictly(&server, &client).await;
    connected.unwrap();
}
