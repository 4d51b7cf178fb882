//! Faults on purpose, as whoever calls sees them.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use mesh::{Config, FaultRule, FaultsConfig, header};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::support::{Served, TestService, one, plain, serve};

/// A server with faults, and how many calls have come to its handler.
async fn served(faults: FaultsConfig) -> (Served, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let service = TestService::new(move |_, _| {
        counted.fetch_add(1, SeqCst);
        async { Ok(one("fine")) }
    });
    let mut config = Config::default();
    config.server.faults = faults;
    (serve(config, service).await, count)
}

/// Code, reason, rule.
fn injected(status: &Status) -> (Code, String, String) {
    let info = status.get_error_details().error_info().cloned().unwrap();
    assert_eq!(info.domain, mesh::ERROR_DOMAIN);
    assert_eq!(info.metadata["layer"], "fault");
    (status.code(), info.reason, info.metadata["policy"].clone())
}

#[tokio::test]
async fn a_rule_aborts_the_calls_that_it_names_and_no_others() {
    let rule = FaultRule {
        methods: vec!["/mesh.test.v1.TestService/Post".to_owned()],
        percent: 100.0,
        abort: "DATA_LOSS".to_owned(),
        ..FaultRule::default()
    };
    let (served, count) = served(FaultsConfig {
        rules: [("posts are lost".to_owned(), rule)].into(),
        ..FaultsConfig::default()
    })
    .await;
    let expected = (
        Code::DataLoss,
        "FAULT_INJECTED".to_owned(),
        "posts are lost".to_owned(),
    );
    let status = served.client().unary("Post", "").await.unwrap_err();
    assert_eq!(injected(&status), expected);
    // Whoever speaks gRPC is told the same.
    let status = plain(served.address).unary("Post", "").await.unwrap_err();
    assert_eq!(injected(&status), expected);
    assert_eq!(count.load(SeqCst), 0, "the handler is not called");
    assert_eq!(served.client().unary("Put", "").await.unwrap(), "fine");
    assert_eq!(count.load(SeqCst), 1);
}

#[tokio::test]
async fn a_caller_gets_the_fault_that_it_asks_for_only_where_it_may() {
    let asking = || {
        let mut request = Request::new(String::new());
        let abort = "ABORTED".parse().unwrap();
        request
            .metadata_mut()
            .insert(header::FAULT_ABORT.as_str(), abort);
        request
    };
    for headers_allowed in [false, true] {
        let (served, count) = served(FaultsConfig {
            headers_allowed,
            ..FaultsConfig::default()
        })
        .await;
        let plain = plain(served.address).ask("Post", asking()).await;
        let meshed = served.client().ask("Post", asking()).await;
        for outcome in [plain, meshed] {
            if headers_allowed {
                let expected = (Code::Aborted, "FAULT_INJECTED".into(), "header".into());
                assert_eq!(injected(&outcome.unwrap_err()), expected);
            } else {
                assert_eq!(outcome.unwrap(), "fine");
            }
        }
        assert_eq!(served.client().unary("Post", "").await.unwrap(), "fine");
        let handled = count.load(SeqCst);
        assert_eq!(handled, if headers_allowed { 1 } else { 3 });
    }
}
