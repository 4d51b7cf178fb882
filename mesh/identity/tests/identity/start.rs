//! All of it by configuration, by the machine's clock.

use std::{fs, path::Path};

use mesh_identity::{Authorizer, Config, Expected, Mode, PolicyConfig};
use tokio_util::sync::CancellationToken;

use crate::{
    authority::{Authority, HOUR, at, leaf, serial},
    party::{Logs, meet, write},
};

const GET: &str = "/commerce.product.v1.ProductService/GetProduct";
const RULES: &str = r#"
[[rule]]
name = "payment reads"
callers = ["spiffe://shop.example/payment"]
methods = ["/commerce.product.v1.ProductService/*"]
"#;

/// A configuration as people write it, with what it names; good for decades by any clock.
fn configured(authority: &Authority, path: &str, folder: &Path) -> Config {
    let mut params = leaf(&authority.id(path), serial());
    params.not_before = at(-400 * 24 * HOUR);
    params.not_after = at(10_000 * 24 * HOUR);
    write(folder, &authority.sign(&params), &authority.pem(), "");
    fs::write(folder.join("policy.toml"), RULES).unwrap();
    let folder = folder.display();
    let config = format!(
        "mode = \"strict\"
         [files]
         certificate = \"{folder}/certificate.pem\"
         key = \"{folder}/key.pem\"
         bundle = \"{folder}/bundle.pem\"
         crls = [\"{folder}/crl.pem\"]
         [policy]
         file = \"{folder}/policy.toml\""
    );
    toml::from_str(&config).unwrap()
}

#[tokio::test]
async fn a_configuration_starts_and_two_of_them_meet() {
    let authority = Authority::new("shop.example");
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = configured(&authority, "/product", a.path())
        .start()
        .await
        .unwrap();
    let client = configured(&authority, "/payment", b.path())
        .start()
        .await
        .unwrap();
    let expected = Expected::own_trust_domain();
    let (accepted, _) = meet(&server.acceptor, &client.connector.unwrap(), &expected).await;
    let peer = accepted.unwrap().peer.unwrap();
    let authorizer = server.authorizer.unwrap();
    authorizer.authorize(Some(&peer.id), None, GET).unwrap();
    let denied = authorizer
        .authorize(Some(&peer.id), None, "/a.B/C")
        .unwrap_err();
    assert_eq!(denied.to_string(), "the caller may not call \"/a.B/C\"");
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    server.reloads.run(shutdown).await;
}

#[tokio::test]
async fn off_needs_nothing_and_what_is_missing_is_named() {
    let off = Config::default().start().await.unwrap();
    assert!(off.identity.is_none() && off.connector.is_none() && off.authorizer.is_none());
    let authority = Authority::new("shop.example");
    let folder = tempfile::tempdir().unwrap();
    let config = configured(&authority, "/product", folder.path());
    fs::write(folder.path().join("policy.toml"), "[[rule]]").unwrap();
    let error = config.start().await.unwrap_err().to_string();
    assert!(
        error.contains("policy.toml\": line 1: missing field"),
        "{error}"
    );
    fs::remove_file(folder.path().join("key.pem")).unwrap();
    let error = config.start().await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("key.pem\" cannot be read"), "{cause}");
    let config = Config {
        mode: Mode::Strict,
        ..Config::default()
    };
    let error = config.start().await.unwrap_err().to_string();
    assert!(error.starts_with("identity.mode needs"), "{error}");
}

#[tokio::test]
async fn a_check_names_the_key_of_what_a_start_would_refuse() {
    let authority = Authority::new("shop.example");
    let folder = tempfile::tempdir().unwrap();
    let config = configured(&authority, "/product", folder.path());
    config.check().await.unwrap();
    let other = Authority::new("shop.example").pem();
    let wrong: [(&str, &str, &str, Option<&str>); 6] = [
        (
            "policy.toml",
            "policy.file",
            "is no policy: line 1: missing field",
            Some("[[rule]]"),
        ),
        (
            "policy.toml",
            "policy.file",
            "cannot be read: No such file",
            None,
        ),
        (
            "bundle.pem",
            "files.certificate",
            "is refused: ",
            Some(&other),
        ),
        (
            "crl.pem",
            "files.crls",
            "cannot be read: No such file",
            None,
        ),
        ("key.pem", "files.key", "holds no private key", Some("")),
        (
            "certificate.pem",
            "files.certificate",
            "holds no certificate",
            Some(""),
        ),
    ];
    for (file, key, reason, content) in wrong {
        let path = folder.path().join(file);
        let good = fs::read(&path).unwrap();
        match content {
            Some(content) => fs::write(&path, content).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let error = config.check().await.unwrap_err();
        assert_eq!(error.key, key, "{error}");
        assert!(error.reason.starts_with(reason), "{error}");
        fs::write(&path, good).unwrap();
    }
    config.check().await.unwrap();
}

#[tokio::test]
async fn denials_leave_an_audit_line_and_a_dry_run_lets_them_through() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = PolicyConfig {
        file: folder.path().join("policy.toml"),
        dry_run: false,
        audit_allowed: false,
        reload_interval_ms: 1_000,
    };
    fs::write(&config.file, RULES).unwrap();
    let payment = "spiffe://shop.example/payment".parse().unwrap();
    let mallory = "spiffe://shop.example/mallory".parse().unwrap();
    let address = "10.0.0.1:5000".parse().unwrap();

    let (authorizer, _) = Authorizer::start(&config).await.unwrap();
    let logs = Logs::capture();
    authorizer
        .authorize(Some(&payment), Some(address), GET)
        .unwrap();
    assert!(logs.with("call allowed").is_empty(), "only when asked for");
    authorizer
        .authorize(Some(&mallory), Some(address), GET)
        .unwrap_err();
    let line = logs.one("call denied");
    for part in [
        "mesh::audit",
        "mallory",
        "10.0.0.1:5000",
        GET,
        "dry_run=false",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }

    config.dry_run = true;
    config.audit_allowed = true;
    let (authorizer, _) = Authorizer::start(&config).await.unwrap();
    let logs = Logs::capture();
    authorizer.authorize(None, None, GET).unwrap();
    let line = logs.one("call denied");
    assert!(
        line.contains("dry_run=true") && line.contains("caller=\"\""),
        "{line}"
    );
    authorizer.authorize(Some(&payment), None, GET).unwrap();
    let line = logs.one("call allowed");
    assert!(line.contains("rule=\"payment reads\""), "{line}");
}
