//! Attempts that fail, or part from their hedges, and what the retry layer makes of them.

use super::*;

/// Attempts that fail on purpose, `failures` times, and then succeed.
#[derive(Clone)]
struct Failing {
    failures: u32,
    reach: Reach,
    attempts: Arc<AtomicU32>,
    previous: Arc<std::sync::Mutex<Vec<String>>>,
}

impl Attempts for Failing {
    async fn attempt(
        &self,
        request: &mut Option<Request<Body>>,
        number: u32,
        _: &Tried,
    ) -> Result<Response<Body>, Failure> {
        let attempt = self.attempts.fetch_add(1, Ordering::SeqCst);
        assert_eq!(number, attempt + 1);
        let headers = request.as_ref().unwrap().headers();
        let previous = headers.get(&header::PREVIOUS_ATTEMPTS);
        let previous = previous.map_or("-", |previous| previous.to_str().unwrap());
        self.previous.lock().unwrap().push(previous.to_owned());
        if attempt < self.failures && self.reach != Reach::Handler {
            return Err(Failure {
                cause: Cause::CutOff,
                reach: self.reach,
                endpoint: None,
            });
        }
        send(request).await;
        if attempt < self.failures {
            return Err(Failure::cut_off("10.0.0.1:1".into()));
        }
        Ok(Response::new(Body::empty()))
    }

    fn has_other(&self, _: &Tried) -> bool {
        false
    }
}

/// Takes a request like an attempt that sends it.
async fn send(request: &mut Option<Request<Body>>) {
    let body = request.take().unwrap().into_body();
    let body = body.collect().await.unwrap().to_bytes();
    let sent = "every attempt sends the request";
    assert_eq!(&body[..], [0, 0, 0, 0, 2, 10, 0], "{sent}");
}

/// The first call is answered. Of the second one's attempts the first breaks after it was sent, the hedge beside it
/// never gets as far, and the third is answered.
#[derive(Clone, Default)]
struct Parted(Arc<AtomicU32>);

impl Attempts for Parted {
    async fn attempt(
        &self,
        request: &mut Option<Request<Body>>,
        _: u32,
        _: &Tried,
    ) -> Result<Response<Body>, Failure> {
        let attempt = self.0.fetch_add(1, Ordering::SeqCst);
        if attempt != 2 {
            send(request).await;
        }
        sleep(Duration::from_millis([10, 100, 200, 10][attempt as usize])).await;
        let lost = Failure::cut_off("10.0.0.1:1".into());
        match attempt {
            1 => Err(lost),
            2 => Err(Failure {
                reach: Reach::NoHandler,
                ..lost
            }),
            _ => Ok(Response::new(Body::empty())),
        }
    }

    fn has_other(&self, _: &Tried) -> bool {
        true
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_is_sent_again_when_its_hedge_was_not_sent_at_all() {
    let mut config = Config::default();
    config.client.hedge.calls_min = 1;
    let destination = destination_over(network(), "http://test:1", &config);
    let attempts = Parted::default();
    let stack = ServiceBuilder::new()
        .layer(context::layer(contract(), Live::new(config)))
        .service(retry::Retry::new(attempts.clone(), destination));
    for expected in [1, 4] {
        stack.clone().oneshot(request(READ)).await.unwrap();
        assert_eq!(attempts.0.load(Ordering::SeqCst), expected);
    }
}

/// What the retry layer makes of attempts that fail.
async fn tried_by(
    caller: CallContext,
    path: &str,
    failures: u32,
    reach: Reach,
    retry: RetryConfig,
) -> (u32, Option<Status>, Vec<String>) {
    let mut config = Config::default();
    config.client.retry = retry;
    let destination = destination_over(network(), "http://test:1", &config);
    let attempts = Failing {
        failures,
        reach,
        attempts: Arc::default(),
        previous: Arc::default(),
    };
    let stack = ServiceBuilder::new()
        .layer(context::layer(contract(), Live::new(Config::default())))
        .layer(deadline::layer())
        .service(retry::Retry::new(attempts.clone(), destination));
    let outcome = caller.scope(stack.oneshot(request(path))).await;
    let previous = attempts.previous.lock().unwrap().clone();
    (
        attempts.attempts.load(Ordering::SeqCst),
        outcome.err(),
        previous,
    )
}

async fn tried(
    path: &str,
    failures: u32,
    reach: Reach,
    config: RetryConfig,
) -> (u32, Option<Code>) {
    let caller = CallContext::root(Principal::anonymous());
    let (attempts, status, _) = tried_by(caller, path, failures, reach, config).await;
    (attempts, status.map(|status| status.code()))
}

#[tokio::test(start_paused = true)]
async fn what_may_have_reached_a_handler_is_tried_again_only_where_the_contract_allows_it() {
    let config = RetryConfig::default;
    let unavailable = Some(Code::Unavailable);
    let reach = Reach::Handler;
    assert_eq!(tried(READ, 2, reach, config()).await, (3, None));
    assert_eq!(tried(PUT, 2, reach, config()).await, (3, None));
    assert_eq!(tried(POST, 2, reach, config()).await, (1, unavailable));
    assert_eq!(tried(READ, 9, reach, config()).await, (4, unavailable));
    let never = RetryConfig {
        attempts_max: 1,
        ..config()
    };
    assert_eq!(tried(READ, 2, reach, never).await, (1, unavailable));
    let short = RetryConfig {
        replay_bytes_max: 3,
        ..config()
    };
    assert_eq!(tried(READ, 2, reach, short).await, (1, unavailable));
}

#[tokio::test(start_paused = true)]
async fn what_reached_no_handler_is_tried_again_whatever_it_is() {
    let config = || RetryConfig {
        backoff_max_ms: 1,
        ..RetryConfig::default()
    };
    let unavailable = Some(Code::Unavailable);
    for path in [READ, POST, "/unknown.v1.Service/Method"] {
        for reach in [Reach::Nowhere, Reach::NoHandler] {
            assert_eq!(tried(path, 2, reach, config()).await, (3, None), "{path}");
        }
        assert_eq!(
            tried(path, 99, Reach::Nowhere, config()).await,
            (4, unavailable)
        );
        assert_eq!(
            tried(path, 99, Reach::NoHandler, config()).await,
            (17, unavailable)
        );
        assert_eq!(
            tried(path, 99, Reach::TurnedAway, config()).await,
            (4, unavailable),
            "once for nothing, then for the budget"
        );
        assert_eq!(
            tried(path, 99, Reach::Refused, config()).await,
            (1, unavailable)
        );
    }
    let short = RetryConfig {
        replay_bytes_max: 3,
        ..config()
    };
    assert_eq!(
        tried(READ, 2, Reach::NoHandler, short).await,
        (3, None),
        "given back, not kept"
    );
}

#[tokio::test(start_paused = true)]
async fn each_attempt_says_how_often_it_was_sent_before() {
    let caller = || CallContext::root(Principal::anonymous());
    let config = RetryConfig::default();
    let (_, _, previous) = tried_by(caller(), READ, 2, Reach::Handler, config.clone()).await;
    assert_eq!(previous, ["-", "1", "2"]);
    let (_, _, previous) = tried_by(caller(), READ, 2, Reach::NoHandler, config).await;
    assert_eq!(previous, ["-", "-", "-"], "nobody has seen those");
}

#[tokio::test(start_paused = true)]
async fn a_retry_from_above_is_not_retried_again_and_is_passed_on() {
    let mut headers = http::HeaderMap::new();
    headers.insert(&header::PREVIOUS_ATTEMPTS, "2".parse().unwrap());
    let caller = CallContext::root(Principal::anonymous()).with_previous_attempts(&headers);
    let config = RetryConfig::default();
    let (attempts, status, previous) =
        tried_by(caller.clone(), READ, 9, Reach::Handler, config.clone()).await;
    assert_eq!((attempts, previous), (1, vec!["2".to_owned()]));
    let metadata = status.unwrap().metadata().clone();
    assert_eq!(metadata.get(header::RETRY_PUSHBACK.as_str()).unwrap(), "-1");
    let (attempts, ..) = tried_by(caller, READ, 2, Reach::NoHandler, config).await;
    assert_eq!(attempts, 3, "it reached nobody");
}

#[tokio::test(start_paused = true)]
async fn an_error_says_where_it_was_made() {
    let caller = CallContext::root(Principal::anonymous());
    let (_, status, _) = tried_by(caller, READ, 9, Reach::Handler, RetryConfig::default()).await;
    let status = status.unwrap();
    assert!(
        status.message().contains("(connection, attempt 4)"),
        "{status}"
    );
    let details = status.get_error_details();
    let metadata = &details.error_info().unwrap().metadata;
    assert_eq!(metadata["layer"], "connection");
    assert_eq!(metadata["attempt"], "4");
    assert_eq!(metadata["endpoint"], "10.0.0.1:1");
    assert_eq!(metadata["destination"], "test");
}

#[tokio::test(start_paused = true)]
async fn no_attempt_is_waited_for_that_would_come_after_the_deadline() {
    let started = Instant::now();
    let patient = RetryConfig {
        backoff_ms: 3_600_000,
        backoff_max_ms: 3_600_000,
        ..RetryConfig::default()
    };
    let (attempts, code) = tried(READ, 9, Reach::Handler, patient).await;
    assert_eq!(code, Some(Code::Unavailable), "the cause, not the deadline");
    assert!(attempts < 4 && started.elapsed() < Duration::from_secs(5));
}

#[test]
fn pauses_grow_to_their_limit() {
    let mean_ms = |attempt| retry::jitter(attempt, 25, 500, 0.5).as_millis();
    assert_eq!([1, 2, 3, 6, 40].map(mean_ms), [25, 50, 100, 500, 500]);
    assert_eq!(retry::jitter(3, 25, 500, 0.0), Duration::ZERO);
}
