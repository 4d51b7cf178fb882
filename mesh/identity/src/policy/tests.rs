use std::{fs, time::Duration};

use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::PolicyConfig;

const RULES: &str = r#"
[[rule]]
name = "payment reserves"
callers = ["spiffe://shop.example/payment"]
methods = ["/commerce.product.v1.StockService/ReserveStock"]

[[rule]]
name = "jobs do all of stock"
callers = ["spiffe://shop.example/jobs/*", "spiffe://ops.example/*"]
methods = ["/commerce.product.v1.StockService/*"]

[[rule]]
name = "the catalogue is for whoever is known"
callers = ["spiffe://*"]
methods = ["/commerce.product.v1.ProductService/GetProduct"]

[[rule]]
name = "probes"
callers = ["*"]
methods = ["/grpc.health.v1.Health/*"]

[[rule]]
name = "root"
callers = ["spiffe://shop.example/root"]
methods = ["/*"]
"#;

fn decide(caller: &str, method: &str) -> Option<String> {
    let policy = Policy::parse(RULES).unwrap();
    let caller = (!caller.is_empty()).then(|| caller.parse().unwrap());
    match policy.decide(caller.as_ref(), method) {
        Decision::Allowed(rule) => Some(rule.to_string()),
        Decision::Denied => None,
    }
}

#[test]
fn what_no_rule_allows_is_denied() {
    const RESERVE: &str = "/commerce.product.v1.StockService/ReserveStock";
    const ADJUST: &str = "/commerce.product.v1.StockService/AdjustStock";
    const GET: &str = "/commerce.product.v1.ProductService/GetProduct";
    const CHECK: &str = "/grpc.health.v1.Health/Check";
    for (caller, method, rule) in [
        (
            "spiffe://shop.example/payment",
            RESERVE,
            Some("payment reserves"),
        ),
        ("spiffe://shop.example/payment", ADJUST, None),
        ("spiffe://shop.example/payment/x", RESERVE, None),
        ("spiffe://elsewhere.example/payment", RESERVE, None),
        ("", RESERVE, None),
        (
            "spiffe://shop.example/jobs/night/1",
            ADJUST,
            Some("jobs do all of stock"),
        ),
        ("spiffe://shop.example/jobs", ADJUST, None),
        ("spiffe://shop.example/jobsworth/1", ADJUST, None),
        (
            "spiffe://ops.example/alice",
            RESERVE,
            Some("jobs do all of stock"),
        ),
        (
            "spiffe://elsewhere.example/x",
            GET,
            Some("the catalogue is for whoever is known"),
        ),
        ("", GET, None),
        ("", CHECK, Some("probes")),
        ("spiffe://elsewhere.example/x", CHECK, Some("probes")),
        ("spiffe://shop.example/root", "/a.B/C", Some("root")),
        ("spiffe://shop.example/root", "", Some("root")),
        ("spiffe://shop.example/payment", "", None),
        ("spiffe://shop.example/payment", "/", None),
        ("", "/grpc.health.v1.Health", None),
        ("", "/grpc.health.v1.Health/Check/More", None),
    ] {
        assert_eq!(decide(caller, method).as_deref(), rule, "{caller} {method}");
    }
    let empty = Policy::parse("").unwrap();
    assert_eq!(
        empty.decide(None, CHECK),
        Decision::Denied,
        "deny by default"
    );
}

#[test]
fn of_two_rules_that_allow_the_same_the_first_is_named() {
    let rule = |name: &str| {
        format!("[[rule]]\nname = \"{name}\"\ncallers = [\"*\"]\nmethods = [\"/a.B/C\"]\n")
    };
    let policy = Policy::parse(&(rule("one") + &rule("two"))).unwrap();
    assert_eq!(
        policy.decide(None, "/a.B/C"),
        Decision::Allowed("one".into())
    );
    assert_eq!(policy.rules(), 2);
}

#[test]
fn a_bad_file_is_refused_with_the_place() {
    let rule = |name: &str, caller: &str, method: &str| {
        format!("[[rule]]\nname = \"{name}\"\ncallers = [{caller}]\nmethods = [{method}]\n")
    };
    let good = rule("a", "\"*\"", "\"/a.B/C\"");
    for (text, reason) in [
        ("rule = 1".to_owned(), "line 1: "),
        (format!("{good}color = 1"), "line 5: unknown field `color`"),
        (
            "[[rule]]\nname = \"a\"".to_owned(),
            "missing field `callers`",
        ),
        (rule("", "\"*\"", "\"/a.B/C\""), "rule \"\" needs a name"),
        (rule("a\\nb", "\"*\"", "\"/a.B/C\""), "needs a name"),
        (good.clone() + &good, "rule \"a\" needs a name of its own"),
        (rule("a", "", "\"/a.B/C\""), "rule \"a\" has no callers"),
        (rule("a", "\"*\"", ""), "rule \"a\" has no methods"),
        (
            rule("a", "\"spiffe://A/b\"", "\"/a.B/C\""),
            "rule \"a\": caller \"spiffe://A/b\" has a trust domain with",
        ),
        (
            rule("a", "\"spiffe://a/b*\"", "\"/a.B/C\""),
            "caller \"spiffe://a/b*\" has a path",
        ),
        (rule("a", "\"*\"", "\"a.B/C\""), "method \"a.B/C\" is not"),
        (rule("a", "\"*\"", "\"/a.B\""), "method \"/a.B\" is not"),
        (rule("a", "\"*\"", "\"/a.B/C*\""), "is not"),
        (rule("a", "\"*\"", "\"/a.*/C\""), "is not"),
        (rule("a", "\"*\"", "\"/a.B/C/D\""), "is not"),
        (rule("a", "\"*\"", "\"/a..B/C\""), "is not"),
        (rule("a", "\"*\"", "\"*\""), "is not"),
    ] {
        let error = Policy::parse(&text).unwrap_err().to_string();
        assert!(error.contains(reason), "{text}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_changed_file_is_taken_over_and_a_bad_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let config = PolicyConfig {
        file: folder.path().join("policy.toml"),
        dry_run: false,
        audit_allowed: false,
        reload_interval_ms: 1_000,
    };
    let missing = Authorizer::start(&config).await.unwrap_err().to_string();
    assert!(
        missing.contains("policy.toml\" cannot be read"),
        "{missing}"
    );
    fs::write(&config.file, "rule = 1").unwrap();
    let bad = Authorizer::start(&config).await.unwrap_err().to_string();
    assert!(bad.contains("policy.toml\": line 1: "), "{bad}");

    fs::write(&config.file, RULES).unwrap();
    let (authorizer, reload) = Authorizer::start(&config).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    let shutdown = CancellationToken::new();
    tasks.spawn(reload.run(shutdown.clone()));
    let probe = || {
        authorizer
            .authorize(None, None, "/grpc.health.v1.Health/Check")
            .is_ok()
    };
    let pause = || tokio::time::sleep(Duration::from_secs(3));
    assert!(probe());
    fs::write(&config.file, "[[rule]]").unwrap();
    pause().await;
    assert!(probe(), "the old policy stays");
    fs::write(&config.file, "").unwrap();
    pause().await;
    assert!(!probe(), "an empty policy denies");
    fs::write(&config.file, RULES).unwrap();
    pause().await;
    assert!(probe());
    shutdown.cancel();
    tasks.join_next().await.unwrap().unwrap();
}

proptest! {
    #![proptest_config(crate::fuzz::config(2_000))]

    #[test]
    fn no_file_panics(text in "(\\[\\[rule\\]\\]\n)?(name = \"\\PC{0,5}\"\n)?(callers = \\[\"\\PC{0,20}\"\\]\n)?(methods = \\[\"\\PC{0,20}\"\\]\n)?\\PC{0,10}") {
        drop(Policy::parse(&text));
    }

    #[test]
    fn no_method_panics_or_is_allowed(method in "\\PC{0,40}") {
        let policy = Policy::parse(RULES).unwrap();
        let allowed = policy.decide(None, &method) != Decision::Denied;
        prop_assert_eq!(allowed, method.strip_prefix("/grpc.health.v1.Health/").is_some_and(|name| !name.contains('/')));
    }
}
