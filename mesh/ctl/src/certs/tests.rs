use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use clap::Parser as _;
use mesh_identity::{
    Acceptor, Connector, Expected, Files, FilesConfig, HandshakeFailure, Identity, Mode, Refusal,
};
use tokio::net::{TcpListener, TcpStream};

use super::*;

#[derive(clap::Parser)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

/// Runs `meshctl certs` with these words in a folder; what it printed, or what it complained about.
fn certs(folder: &Path, words: &[&str]) -> Result<String, String> {
    let folder = folder.to_str().unwrap();
    let (command, rest) = words.split_first().unwrap();
    let line = ["certs", command, "--out", folder]
        .into_iter()
        .chain(rest.iter().copied());
    let line = Line::try_parse_from(line).map_err(|error| error.to_string())?;
    let mut out = Vec::new();
    run(line.command, &mut out).map_err(|error| format!("{error:#}"))?;
    Ok(String::from_utf8(out).unwrap())
}

fn new<'a>(rest: &[&'a str]) -> Vec<&'a str> {
    [&["new", "--trust-domain", "shop.example"], rest].concat()
}

async fn identity(folder: &Path, service: &str) -> Identity {
    let config = FilesConfig {
        certificate: folder.join(service).join("certificate.pem"),
        key: folder.join(service).join("key.pem"),
        bundle: folder.join("bundle.pem"),
        crls: vec![folder.join("crl.pem")],
        federated: [].into(),
        reload_interval_ms: 1_000,
    };
    Identity::start(Files::new(&config)).await.unwrap().0
}

/// What the server `product` makes of the client `payment`.
async fn payment_calls(folder: &Path) -> Result<String, HandshakeFailure> {
    let acceptor = Acceptor::new(Mode::Strict, identity(folder, "product").await);
    let connector = Connector::new(identity(folder, "payment").await);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connecting = TcpStream::connect(listener.local_addr().unwrap());
    let (accepted, connected) = tokio::join!(listener.accept(), connecting);
    let limit = std::time::Duration::from_secs(20);
    let expected = Expected::own_trust_domain();
    let (accepted, _) = tokio::join!(
        acceptor.accept(accepted.unwrap().0, limit),
        connector.connect(connected.unwrap(), &expected, limit),
    );
    let peer = accepted.map_err(|error| error.reason)?.peer.unwrap();
    Ok(peer.id.to_string())
}

#[tokio::test]
async fn services_know_each_other_until_one_is_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let said = certs(
        folder,
        &new(&["--service", "product", "--service", "payment"]),
    )
    .unwrap();
    assert!(
        said.contains("spiffe://shop.example/payment until 20"),
        "{said}"
    );
    for name in [
        "ca/key.pem",
        "ca/certificate.pem",
        "bundle.pem",
        "crl.pem",
        "payment/key.pem",
    ] {
        assert!(said.contains(name), "{name} in {said}");
        let mode = fs::metadata(folder.join(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o777;
        assert_eq!(
            mode,
            if name.ends_with("key.pem") {
                0o600
            } else {
                0o644
            },
            "{name}"
        );
    }
    assert_eq!(
        payment_calls(folder).await.unwrap(),
        "spiffe://shop.example/payment"
    );

    let old = fs::read(folder.join("payment/certificate.pem")).unwrap();
    let said = certs(folder, &["revoke", "--service", "payment"]).unwrap();
    assert!(said.contains(" is revoked\n"), "{said}");
    let refused = payment_calls(folder).await.unwrap_err();
    assert!(
        matches!(refused, HandshakeFailure::Refused(Refusal::Revoked)),
        "{refused}"
    );
    let said = certs(folder, &["revoke", "--service", "payment"]).unwrap();
    assert!(said.ends_with("is revoked already\n"), "{said}");

    certs(folder, &new(&["--service", "payment", "--force"])).unwrap();
    payment_calls(folder).await.unwrap();
    // A second revocation keeps the first.
    certs(folder, &["revoke", "--service", "product"]).unwrap();
    fs::write(folder.join("old.pem"), old).unwrap();
    let path = folder.join("old.pem");
    let said = certs(folder, &["revoke", "--certificate", path.to_str().unwrap()]).unwrap();
    assert!(said.ends_with("is revoked already\n"), "{said}");
}

#[test]
fn nothing_is_replaced_unasked_and_the_authority_never() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    certs(folder, &new(&["--service", "product"])).unwrap();
    let read = |name: &str| fs::read(folder.join(name)).unwrap();
    let (authority, product) = (read("ca/key.pem"), read("product/key.pem"));
    let refused = certs(
        folder,
        &new(&["--service", "payment", "--service", "product"]),
    );
    let refused = refused.unwrap_err();
    assert!(
        refused.contains("product/certificate.pem\" exists: --force"),
        "{refused}"
    );
    assert!(!folder.join("payment").exists(), "nothing was begun");
    assert_eq!(read("product/key.pem"), product);
    certs(folder, &new(&["--service", "product", "--force"])).unwrap();
    assert_ne!(read("product/key.pem"), product);
    assert_eq!(read("ca/key.pem"), authority);
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("new");
    for (words, reason) in [
        (new(&["--service", "a/b"]), "one word is wanted"),
        (new(&["--service", "ca"]), "one word is wanted"),
        (new(&["--service", "a b"]), "--service \"a b\": has a path"),
        (
            new(&["--service", ".."]),
            "--service \"..\": has a path segment of dots",
        ),
        (
            new(&["--service", ""]),
            "--service \"\": has an empty path segment",
        ),
        (
            vec!["new", "--trust-domain", "Shop", "--service", "a"],
            "--trust-domain \"Shop\": has a trust domain with",
        ),
        (new(&[]), "--service"),
        (vec!["revoke", "--service", "a"], "holds no authority"),
        (vec!["revoke"], "--service"),
    ] {
        let error = certs(&folder, &words).unwrap_err();
        assert!(error.contains(reason), "{error}");
        assert!(!folder.exists(), "{words:?}");
    }
    certs(
        &folder,
        &new(&["--service", "a", "--ca-lifetime-days", "2"]),
    )
    .unwrap();
    let long = certs(&folder, &new(&["--service", "b", "--lifetime-hours", "49"])).unwrap_err();
    assert!(
        long.contains("--lifetime-hours: the authority ends earlier, at 20"),
        "{long}"
    );
    let other = ["new", "--trust-domain", "other.example", "--service", "b"];
    let other = certs(&folder, &other).unwrap_err();
    assert!(
        other.contains("is of the trust domain \"shop.example\""),
        "{other}"
    );
}

/// Whoever reads what is printed has hung up at the second line.
struct HungUp(usize);

impl Write for HungUp {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += usize::from(bytes.contains(&b'\n'));
        if self.0 > 1 {
            return Err(std::io::ErrorKind::BrokenPipe.into());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_reader_who_hangs_up_leaves_no_certificate_without_its_key() {
    let folder = tempfile::tempdir().unwrap();
    certs(folder.path(), &new(&["--service", "product"])).unwrap();
    let out = folder.path().to_str().unwrap();
    let again = new(&["--service", "product", "--force", "--out", out]);
    let line = Line::try_parse_from(std::iter::once("certs").chain(again)).unwrap();
    run(line.command, &mut HungUp(0)).unwrap_err();
    identity(folder.path(), "product").await;
}
