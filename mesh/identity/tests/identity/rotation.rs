//! Files that change under a process that uses them.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use mesh_identity::{Expected, Mode};

use crate::{
    authority::{Authority, HOUR, Issued, at, leaf, serial},
    party::{INTERVAL, LIMIT, Logs, Party, meet, talk, write},
};

const ROTATIONS: u64 = 1_000;

/// Puts a set into place as Kubernetes does: a new folder, and one rename of a symlink to it.
fn swap(folder: &Path, version: u64, issued: &Issued, bundle: &str) {
    let data = folder.join(format!("..{version}"));
    fs::create_dir(&data).unwrap();
    write(&data, issued, bundle, "");
    fs::write(
        data.join("partner.pem"),
        Authority::new("partner.example").pem(),
    )
    .unwrap();
    let (fresh, current) = (folder.join("..data_tmp"), folder.join("..data"));
    let before = fs::read_link(&current).ok();
    symlink(&data, &fresh).unwrap();
    fs::rename(&fresh, &current).unwrap();
    if let Some(before) = before {
        fs::remove_dir_all(before).unwrap();
        return;
    }
    for name in [
        "certificate.pem",
        "key.pem",
        "bundle.pem",
        "crl.pem",
        "partner.pem",
    ] {
        symlink(Path::new("..data").join(name), folder.join(name)).unwrap();
    }
}

async fn kubernetes(issued: &Issued, bundle: &str) -> Party {
    let folder = tempfile::tempdir().unwrap();
    swap(folder.path(), 0, issued, bundle);
    Party::of(folder, Duration::from_millis(1)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_rotations_fail_no_connection() {
    let mut authority = Authority::new("shop.example");
    let server = kubernetes(&authority.issue("/product"), &authority.pem()).await;
    let client = kubernetes(&authority.issue("/payment"), &authority.pem()).await;
    let (acceptor, connector) = (server.acceptor(Mode::Strict), client.connector());
    let expected = Expected::default();
    let (accepted, connected) = meet(&acceptor, &connector, &expected).await;
    let (mut accepted, mut connected) = (accepted.unwrap(), connected.unwrap());
    let (done, made) = (AtomicBool::new(false), AtomicU64::new(0));

    let rotating = async {
        let mut bundle = authority.pem();
        for version in 1..=ROTATIONS {
            // Once in a while the authority itself: first everybody trusts both, then one signs.
            if version % 250 == 0 {
                let next = Authority::new("shop.example");
                bundle = authority.pem() + &next.pem();
                let (product, payment) = (authority.issue("/product"), authority.issue("/payment"));
                swap(server.folder.path(), 10_000 + version, &product, &bundle);
                swap(client.folder.path(), 10_000 + version, &payment, &bundle);
                tokio::join!(server.holds(product.serial), client.holds(payment.serial));
                authority = next;
            }
            let (product, payment) = (authority.issue("/product"), authority.issue("/payment"));
            swap(server.folder.path(), version, &product, &bundle);
            swap(client.folder.path(), version, &payment, &bundle);
            tokio::join!(server.holds(product.serial), client.holds(payment.serial));
        }
        done.store(true, Ordering::Relaxed);
    };
    let connecting = async || {
        while !done.load(Ordering::Relaxed) {
            let (accepted, connected) = meet(&acceptor, &connector, &expected).await;
            let (mut accepted, mut connected) = (accepted.unwrap(), connected.unwrap());
            talk(&mut connected, &mut accepted).await.unwrap();
            made.fetch_add(1, Ordering::Relaxed);
        }
    };
    let living = async {
        while !done.load(Ordering::Relaxed) {
            talk(&mut connected, &mut accepted).await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::join!(rotating, connecting(), connecting(), living);
    let made = made.into_inner();
    assert!(
        made > ROTATIONS / 10,
        "only {made} connections were made meanwhile"
    );
}

#[tokio::test]
async fn a_set_that_does_not_fit_together_is_refused_as_a_whole() {
    let authority = Authority::new("shop.example");
    let first = authority.issue("/product");
    let party = Party::new(&first, &authority.pem()).await;
    let other = authority.issue("/product");
    let stranger = Authority::new("shop.example");
    let half = &other.chain[..other.chain.len() / 2];
    let client_only = {
        let mut params = leaf("spiffe://shop.example/product", serial());
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        authority.sign(&params)
    };
    tokio::time::pause();
    let cases: [(&str, &[(&str, &str)]); 9] = [
        (
            "the private key does not belong to the certificate",
            &[("certificate.pem", &other.chain)],
        ),
        (
            "the private key does not belong to the certificate",
            &[("key.pem", &other.key)],
        ),
        (
            "certificate.pem\" is no list of certificates",
            &[("certificate.pem", half)],
        ),
        (
            "certificate.pem\" holds no certificate",
            &[("certificate.pem", "")],
        ),
        ("key.pem\" holds no private key", &[("key.pem", "")]),
        (
            "issued by an unknown authority",
            &[("bundle.pem", &stranger.pem())],
        ),
        (
            "a certificate in the trust bundle of \"shop.example\" is no certificate authority",
            &[("bundle.pem", &first.chain)],
        ),
        (
            "crl.pem\" is no list of CRLs",
            &[("crl.pem", "-----BEGIN X509 CRL-----\n")],
        ),
        (
            "extended key usage excludes this use",
            &[
                ("certificate.pem", &client_only.chain),
                ("key.pem", &client_only.key),
            ],
        ),
    ];
    for (reason, changes) in cases {
        let logs = Logs::capture();
        for (name, content) in changes {
            fs::write(party.path(name), content).unwrap();
        }
        tokio::time::sleep(INTERVAL * 4).await;
        let line = logs.one("identity stays as it was");
        assert!(line.contains(reason), "{line}");
        let trouble = party.identity.status().reload_trouble;
        assert!(trouble.is_some_and(|trouble| trouble.contains(reason)));
        party.holds(first.serial).await;
        write(party.folder.path(), &first, &authority.pem(), "");
        tokio::time::sleep(INTERVAL * 2).await;
        assert_eq!(party.identity.status().reload_trouble, None);
    }
    // And then a good one is taken.
    write(party.folder.path(), &other, &authority.pem(), "");
    party.holds(other.serial).await;
}

#[tokio::test]
async fn trouble_is_over_when_a_file_is_back_as_it_was() {
    let authority = Authority::new("shop.example");
    let party = Party::new(&authority.issue("/product"), &authority.pem()).await;
    tokio::time::pause();
    let trouble = || party.identity.status().reload_trouble;
    assert_eq!(trouble(), None);
    let (key, aside) = (party.path("key.pem"), party.path("aside.pem"));
    fs::rename(&key, &aside).unwrap();
    tokio::time::sleep(INTERVAL * 4).await;
    let said = trouble().expect("a file is missing");
    assert!(said.contains("key.pem\" cannot be read"), "{said}");
    fs::rename(&aside, &key).unwrap();
    tokio::time::sleep(INTERVAL * 4).await;
    assert_eq!(trouble(), None);
}

#[tokio::test]
async fn a_status_names_whoever_may_sign() {
    let authority = Authority::new("shop.example");
    let issued = authority.issue("/product");
    let party = Party::new(&issued, &authority.pem()).await;
    let status = party.identity.status();
    assert_eq!(status.issuer, "CN=shop.example");
    let signers = status.authorities.iter();
    let signers: Vec<_> = signers
        .map(|one| (one.trust_domain.as_str(), one.subject.as_str()))
        .collect();
    let expected = [
        ("partner.example", "CN=partner.example"),
        ("shop.example", "CN=shop.example"),
    ];
    assert_eq!(signers, expected);
    let page = serde_json::to_value(&status).unwrap();
    assert_eq!(page["id"], "spiffe://shop.example/product");
    assert_eq!(page["loaded_at"], "2027-01-15T08:00:00Z");
    assert_eq!(page["not_after"], "2027-01-15T09:00:00Z");
    assert_eq!(page["authorities"][1]["not_after"], "2027-01-16T08:00:00Z");
    assert!(!page.to_string().contains("PRIVATE"));
}

#[tokio::test]
async fn a_bad_set_at_the_start_is_an_error_with_its_reason() {
    let authority = Authority::new("shop.example");
    let (good, other) = (authority.issue("/product"), authority.issue("/product"));
    let mixed = Issued {
        key: other.key,
        ..good.clone()
    };
    let mut past = leaf("spiffe://shop.example/product", serial());
    past.not_after = at(-1);
    let mut future = leaf("spiffe://shop.example/product", serial());
    future.not_before = at(HOUR / 2);
    for (issued, bundle, crl, reason) in [
        (
            &mixed,
            authority.pem(),
            "",
            "does not belong to the certificate",
        ),
        (
            &authority.sign(&past),
            authority.pem(),
            "",
            "expired 1 s ago",
        ),
        (
            &authority.sign(&future),
            authority.pem(),
            "",
            "not valid before 1800 s from now",
        ),
        (
            &good,
            String::new(),
            "",
            "bundle.pem\" holds no certificate",
        ),
        (
            &good,
            authority.pem(),
            "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n",
            "a revocation list is unusable",
        ),
    ] {
        let Err(error) = Party::with(issued, &bundle, crl).await else {
            panic!("{reason}: taken all the same");
        };
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains(reason), "{cause}");
        assert!(error.to_string().contains("certificate.pem"), "{error}");
    }
}

#[tokio::test]
async fn a_new_certificate_serves_the_next_connection_and_keeps_the_last() {
    let authority = Authority::new("shop.example");
    let server = Party::new(&authority.issue("/product"), &authority.pem()).await;
    let client = Party::new(&authority.issue("/payment"), &authority.pem()).await;
    let (acceptor, connector) = (server.acceptor(Mode::Strict), client.connector());
    let expected = Expected::default();
    let (accepted, connected) = meet(&acceptor, &connector, &expected).await;
    let (mut accepted, mut connected) = (accepted.unwrap(), connected.unwrap());
    let next = authority.issue("/product");
    write(server.folder.path(), &next, &authority.pem(), "");
    tokio::time::timeout(LIMIT, server.holds(next.serial))
        .await
        .unwrap();
    talk(&mut accepted, &mut connected).await.unwrap();
    let (_held, connected) = meet(&acceptor, &connector, &expected).await;
    let shown = connected.unwrap().peer.unwrap().serial;
    assert_eq!(u64::from_str_radix(&shown, 16).unwrap(), next.serial);
}

#[tokio::test]
async fn a_certificate_that_nobody_renews_is_warned_of_once() {
    let authority = Authority::new("shop.example");
    let party = Party::new(&authority.issue("/product"), &authority.pem()).await;
    let logs = Logs::capture();
    tokio::time::pause();
    let quarter = Duration::from_mins(15);
    tokio::time::sleep(quarter * 3).await;
    assert!(logs.with("was not renewed").is_empty());
    tokio::time::sleep(quarter).await;
    let line = logs.one("the own certificate is near its end and was not renewed");
    assert!(line.contains("spiffe://shop.example/product"), "{line}");
    let next = authority.issue("/product");
    write(party.folder.path(), &next, &authority.pem(), "");
    party.holds(next.serial).await;
}
