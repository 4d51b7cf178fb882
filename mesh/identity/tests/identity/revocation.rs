//! Peers that stop being trusted while they are connected.

use std::{fs, time::Duration};

use mesh_identity::{Accepted, Expected, GuardEvent, Mode, Refusal};
use tokio::time::{Instant, timeout};

use crate::{
    authority::{Authority, HOUR, at, leaf, serial},
    party::{INTERVAL, Logs, Party, meet, meet_strictly, talk},
};

/// How much later than the files' interval a guard may speak: certificates end at whole seconds.
const SLACK: Duration = Duration::from_secs(1);

async fn connect(server: &Party, client: &Party) -> (Accepted, Accepted) {
    let expected = Expected::default();
    let acceptor = server.acceptor(Mode::Strict);
    let (accepted, connected) = meet(&acceptor, &client.connector(), &expected).await;
    (accepted.unwrap(), connected.unwrap())
}

#[tokio::test]
async fn a_revoked_peer_is_told_of_within_the_interval() {
    let authority = Authority::new("shop.example");
    let (product, payment) = (authority.issue("/product"), authority.issue("/payment"));
    let server = Party::with(&product, &authority.pem(), &authority.crl(1, &[]))
        .await
        .unwrap();
    let client = Party::new(&payment, &authority.pem()).await;
    let bystander = Party::new(&authority.issue("/payment"), &authority.pem()).await;
    let (mut accepted, mut connected) = connect(&server, &client).await;
    let (mut other, _held) = connect(&server, &bystander).await;
    talk(&mut accepted, &mut connected).await.unwrap();

    let logs = Logs::capture();
    tokio::time::pause();
    let quiet = timeout(Duration::from_secs(30), accepted.guard.event()).await;
    assert!(quiet.is_err(), "nothing is wrong yet");
    fs::write(server.path("crl.pem"), authority.crl(2, &[payment.serial])).unwrap();
    let started = Instant::now();
    let event = accepted.guard.event().await;
    assert_eq!(event, GuardEvent::Invalid(Refusal::Revoked));
    assert!(
        started.elapsed() <= INTERVAL + SLACK,
        "{:?}",
        started.elapsed()
    );
    let line = logs.one("connection ends: the certificate is revoked");
    let address = accepted.stream.peer_addr().unwrap();
    assert!(line.contains("spiffe://shop.example/payment"), "{line}");
    assert!(line.contains(&format!("peer={address}")), "{line}");
    let quiet = timeout(Duration::from_secs(30), other.guard.event()).await;
    assert!(quiet.is_err(), "only the one that was named");
}

#[tokio::test]
async fn a_client_leaves_a_revoked_server() {
    let authority = Authority::new("shop.example");
    let product = authority.issue("/product");
    let server = Party::new(&product, &authority.pem()).await;
    let client = Party::new(&authority.issue("/payment"), &authority.pem()).await;
    let (_held, mut connected) = connect(&server, &client).await;
    tokio::time::pause();
    fs::write(client.path("crl.pem"), authority.crl(1, &[product.serial])).unwrap();
    let started = Instant::now();
    assert_eq!(
        connected.guard.event().await,
        GuardEvent::Invalid(Refusal::Revoked)
    );
    assert!(started.elapsed() <= INTERVAL + SLACK);
}

#[tokio::test]
async fn an_authority_that_is_dropped_takes_its_peers_along() {
    let (old, new) = (
        Authority::new("shop.example"),
        Authority::new("shop.example"),
    );
    let both = old.pem() + &new.pem();
    let server = Party::new(&new.issue("/product"), &both).await;
    let client = Party::new(&old.issue("/payment"), &both).await;
    let (mut accepted, mut connected) = connect(&server, &client).await;
    talk(&mut accepted, &mut connected).await.unwrap();
    tokio::time::pause();
    fs::write(server.path("bundle.pem"), new.pem()).unwrap();
    let event = accepted.guard.event().await;
    assert_eq!(event, GuardEvent::Invalid(Refusal::UnknownAuthority));
}

#[tokio::test]
async fn lists_of_authorities_of_one_name_are_told_apart() {
    // As after a rotation of the authority: two keys, one name, and a list of each or of one.
    let (old, new) = (
        Authority::new("shop.example"),
        Authority::new("shop.example"),
    );
    let both = old.pem() + &new.pem();
    let (by_old, by_new) = (old.issue("/old"), new.issue("/new"));
    let gone = Authority::new("shop.example");
    for (crl, old_good, new_good) in [
        (old.crl(1, &[]), true, true),
        (old.crl(1, &[by_old.serial, by_new.serial]), false, true),
        (new.crl(1, &[by_new.serial]), true, false),
        (
            old.crl(1, &[by_old.serial]) + &new.crl(1, &[by_new.serial]),
            false,
            false,
        ),
        // The newest of two counts, in whatever order they stand.
        (old.crl(1, &[by_old.serial]) + &old.crl(2, &[]), true, true),
        (
            old.crl(300, &[]) + &old.crl(2, &[by_old.serial]),
            true,
            true,
        ),
        // Of an authority that is not trusted any more.
        (gone.crl(1, &[by_old.serial]), true, true),
    ] {
        let server = Party::with(&new.issue("/product"), &both, &crl)
            .await
            .unwrap();
        for (issued, good) in [(&by_old, old_good), (&by_new, new_good)] {
            let client = Party::new(issued, &both).await;
            let (accepted, _) = meet_strictly(&server, &client).await;
            assert_eq!(accepted.is_ok(), good, "{accepted:?}");
        }
    }
}

#[tokio::test]
async fn a_list_of_an_intermediate_counts_and_one_that_revokes_it_too() {
    let root = Authority::new("shop.example");
    let intermediate = root.intermediate(HOUR);
    let mut payment = intermediate.issue("/payment");
    payment.chain += &intermediate.pem();
    let client = Party::new(&payment, &root.pem()).await;
    for (crl, good) in [
        (intermediate.crl(1, &[]), true),
        (intermediate.crl(1, &[payment.serial]), false),
        (root.crl(1, &[payment.serial]), true),
    ] {
        let server = Party::with(&root.issue("/product"), &root.pem(), &crl)
            .await
            .unwrap();
        let (accepted, _) = meet_strictly(&server, &client).await;
        assert_eq!(accepted.is_ok(), good, "{accepted:?}");
    }
}

#[tokio::test]
async fn a_peer_drains_before_it_expires_and_is_cut_when_it_does() {
    let authority = Authority::new("shop.example");
    let mut params = leaf("spiffe://shop.example/payment", serial());
    params.not_after = at(1_000);
    let client = Party::new(&authority.sign(&params), &authority.pem()).await;
    let server = Party::new(&authority.issue("/product"), &authority.pem()).await;
    let started = Instant::now();
    let (mut accepted, mut connected) = connect(&server, &client).await;
    tokio::time::pause();
    assert_eq!(accepted.guard.event().await, GuardEvent::Expiring);
    let drained = started.elapsed().as_secs();
    assert!((845..=955).contains(&drained), "{drained} s");
    // The other end knows the end of its own certificate.
    assert_eq!(connected.guard.event().await, GuardEvent::Expiring);
    let event = accepted.guard.event().await;
    assert!(
        matches!(event, GuardEvent::Invalid(Refusal::Expired(_))),
        "{event:?}"
    );
    let ended = started.elapsed().as_secs();
    assert!((1_000..=1_003).contains(&ended), "{ended} s");
}

#[tokio::test]
async fn an_own_revocation_is_loud_and_holds_no_list_back() {
    let authority = Authority::new("shop.example");
    let (product, payment) = (authority.issue("/product"), authority.issue("/payment"));
    let server = Party::new(&product, &authority.pem()).await;
    let client = Party::new(&payment, &authority.pem()).await;
    let (mut accepted, _held) = connect(&server, &client).await;
    let logs = Logs::capture();
    tokio::time::pause();
    let both = authority.crl(1, &[product.serial, payment.serial]);
    fs::write(server.path("crl.pem"), both).unwrap();
    assert_eq!(
        accepted.guard.event().await,
        GuardEvent::Invalid(Refusal::Revoked)
    );
    logs.one("the own certificate is revoked");
    assert!(server.identity.status().revoked);
}

#[tokio::test(start_paused = true)]
async fn a_plaintext_connection_has_nothing_to_watch() {
    let mut guard = mesh_identity::PeerGuard::default();
    let quiet = timeout(Duration::from_secs(1_000_000), guard.event()).await;
    assert!(quiet.is_err());
}
