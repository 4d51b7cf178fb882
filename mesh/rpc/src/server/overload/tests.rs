//! The layer around a handler, in paused time.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Instant as WallClock,
};

use futures_util::FutureExt as _;
use http_body_util::{BodyExt as _, StreamBody};
use prometheus::Registry;
use tokio::time::Instant;
use tonic_types::StatusExt as _;

use super::*;
use crate::{
    CallContext, Config, Criticality, Principal, stack::handler, testing::descriptor_set,
    wire::header,
};

const READ: &str = "/mesh.test.v1.TestService/Read";
const WATCH: &str = "/mesh.test.v1.TestService/Watch";
const IMPORT: &str = "/mesh.test.v1.TestService/Import";

/// At most two at a time, and one more waits.
fn narrow() -> OverloadConfig {
    OverloadConfig {
        limit_initial: 2,
        limit_min: 2,
        limit_max: 2,
        waiting_max: 1,
        ..OverloadConfig::default()
    }
}

fn gate(overload: OverloadConfig) -> Arc<Gate> {
    let mut config = Config::default();
    config.server.overload = overload;
    let metrics = ServerMetrics::register(&Registry::new()).unwrap();
    let contract = Contract::new(descriptor_set()).unwrap();
    Arc::new(Gate::new(Live::new(config), &contract, metrics))
}

fn request(path: &str, caller: &str, criticality: Criticality) -> Request<Body> {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = path.parse().unwrap();
    let context = CallContext::root(Principal::new(caller, [""; 0])).with_criticality(criticality);
    let contract = Contract::new(descriptor_set()).unwrap();
    let method = contract.lookup(path);
    request
        .extensions_mut()
        .insert(Call::tested(method, context));
    request
}

/// A handler that answers after 100 ms, with a stream that never ends where it is to.
fn slow(gate: &Arc<Gate>) -> Shed<impl Stack> {
    let slow = handler(|request| async move {
        sleep(Duration::from_millis(100)).await;
        let body = if request.uri().path() == WATCH {
            Body::new(StreamBody::new(futures_util::stream::pending::<
                Result<http_body::Frame<bytes::Bytes>, Status>,
            >()))
        } else {
            Body::empty()
        };
        Ok(Response::new(body))
    });
    Shed {
        inner: slow,
        gate: gate.clone(),
    }
}

fn in_flight(gate: &Gate) -> usize {
    gate.locked(|admission, _, _| admission.in_flight())
}

fn read(gate: &Arc<Gate>, criticality: Criticality) -> Answer {
    slow(gate).call(request(READ, "shop", criticality))
}

#[tokio::test(start_paused = true)]
async fn what_is_above_limit_and_queue_is_refused_at_once_and_says_when_to_come_back() {
    let gate = gate(narrow());
    let begun = [Criticality::Critical; 3].map(|criticality| read(&gate, criticality));
    let started = Instant::now();
    let refused = read(&gate, Criticality::Critical).await.unwrap_err();
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let details = refused.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!(
        (info.reason.as_str(), info.domain.as_str()),
        ("OVERLOADED", "mesh")
    );
    assert_eq!(info.metadata["layer"], "overload");
    assert_eq!(info.metadata["policy"], "full");
    let pause = details.retry_info().unwrap().retry_delay.unwrap();
    let pushback = refused
        .metadata()
        .get(header::RETRY_PUSHBACK.as_str())
        .unwrap();
    let pushback: u64 = pushback.to_str().unwrap().parse().unwrap();
    assert!(pause >= Duration::from_millis(20), "{pause:?}");
    assert_eq!(u128::from(pushback), pause.as_micros().div_ceil(1_000));
    for answered in futures_util::future::join_all(begun).await {
        answered.unwrap();
    }
    assert_eq!(started.elapsed().as_millis(), 200, "two at a time");
    assert_eq!(in_flight(&gate), 0);
}

#[tokio::test(start_paused = true)]
async fn a_critical_call_takes_the_place_of_a_sheddable_one_in_the_queue() {
    let gate = gate(narrow());
    let begun = [Criticality::Critical; 2].map(|criticality| read(&gate, criticality));
    let sheddable = read(&gate, Criticality::Sheddable);
    let critical = read(&gate, Criticality::Critical);
    let refused = sheddable.await.unwrap_err();
    let info = refused.get_error_details().error_info().cloned().unwrap();
    assert_eq!(info.metadata["policy"], "displaced");
    drop(begun); // Given up: their places are free.
    critical.await.unwrap();
    assert_eq!(in_flight(&gate), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_does_not_wait_longer_than_it_may() {
    let config = OverloadConfig {
        wait_ms: 30,
        ..narrow()
    };
    let gate = gate(config);
    let _begun = [Criticality::Critical; 2].map(|criticality| read(&gate, criticality));
    let started = Instant::now();
    let refused = read(&gate, Criticality::Critical).await.unwrap_err();
    assert_eq!(started.elapsed().as_millis(), 30);
    let info = refused.get_error_details().error_info().cloned().unwrap();
    assert_eq!(info.metadata["policy"], "waited");
    assert_eq!(gate.locked(|admission, _, _| admission.waiting()), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_has_expired_when_its_turn_comes_is_not_begun() {
    let gate = gate(narrow());
    let begun = [Criticality::Critical; 2].map(|criticality| read(&gate, criticality));
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    let counting = handler(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Ok(Response::new(Body::empty())) }
    });
    let mut late = request(READ, "shop", Criticality::Critical);
    let call = Call::of(&late).clone();
    let deadline = Some(Instant::now() + Duration::from_millis(50));
    late.extensions_mut().insert(Call {
        context: call.context.with_deadline(deadline),
        ..call
    });
    let mut shed = Shed {
        inner: counting,
        gate: gate.clone(),
    };
    let late = shed.call(late);
    let (_, answered) = tokio::join!(futures_util::future::join_all(begun), late);
    assert_eq!(answered.unwrap_err().code(), Code::DeadlineExceeded);
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    assert_eq!(in_flight(&gate), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stream_gives_its_place_back_when_it_has_begun() {
    let gate = gate(narrow());
    let mut streams = Vec::new();
    for _ in 0..10 {
        let watch = request(WATCH, "shop", Criticality::Critical);
        streams.push(slow(&gate).call(watch).await.unwrap());
    }
    assert_eq!(in_flight(&gate), 0);
    read(&gate, Criticality::Critical).await.unwrap();
    assert!(
        streams[0].body_mut().frame().now_or_never().is_none(),
        "still open"
    );
}

#[tokio::test(start_paused = true)]
async fn an_upload_gives_its_place_back_after_a_while() {
    let gate = gate(narrow());
    let mut shed = Shed {
        inner: handler(|_| std::future::pending()),
        gate: gate.clone(),
    };
    let uploads = [(); 2].map(|()| {
        let upload = request(IMPORT, "shop", Criticality::Critical);
        Box::pin(shed.call(upload))
    });
    let mut uploads = futures_util::future::join_all(uploads);
    assert_eq!(in_flight(&gate), 2);
    assert!(timeout(UPLOAD_HOLD, &mut uploads).await.is_err());
    assert_eq!(in_flight(&gate), 0);
}

#[tokio::test(start_paused = true)]
async fn health_is_never_refused_and_a_gate_that_is_off_refuses_nothing() {
    let closed = gate(narrow());
    let _begun = [Criticality::Critical; 3].map(|criticality| read(&closed, criticality));
    let health = "/grpc.health.v1.Health/Check";
    let checked = slow(&closed).call(request(health, "kubelet", Criticality::Sheddable));
    checked.await.unwrap();
    let open = gate(OverloadConfig {
        enabled: false,
        ..narrow()
    });
    let calls = (0..100).map(|_| read(&open, Criticality::Sheddable));
    for answered in futures_util::future::join_all(calls).await {
        answered.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiting_call_that_goes_away_leaves_nothing_behind() {
    let gate = gate(narrow());
    let begun = [Criticality::Critical; 2].map(|criticality| read(&gate, criticality));
    let mut waiting = read(&gate, Criticality::Critical);
    assert!((&mut waiting).now_or_never().is_none());
    // Its place comes at the same moment as it goes.
    drop(begun);
    drop(waiting);
    assert_eq!(in_flight(&gate), 0);
    assert_eq!(gate.locked(|admission, _, _| admission.waiting()), 0);
    read(&gate, Criticality::Critical).await.unwrap();
}

/// What a refusal costs, to be looked at: the time is printed and not compared, for it is the machine's.
#[tokio::test]
async fn the_cost_of_a_refusal_is_printed() {
    let gate = gate(OverloadConfig {
        waiting_max: 256,
        limit_max: 32,
        limit_min: 32,
        limit_initial: 32,
        ..OverloadConfig::default()
    });
    let _begun: Vec<_> = (0..32 + 256)
        .map(|_| read(&gate, Criticality::Critical))
        .collect();
    let calls = 1_000;
    let mut shed = slow(&gate);
    let again = request(READ, "shop", Criticality::Critical);
    let requests: Vec<_> = (0..calls)
        .map(|_| {
            let mut request = Request::new(Body::empty());
            *request.uri_mut() = again.uri().clone();
            request.extensions_mut().insert(Call::of(&again).clone());
            request
        })
        .collect();
    let started = WallClock::now();
    for request in requests {
        let refused = shed.call(request).now_or_never().unwrap();
        assert_eq!(refused.unwrap_err().code(), Code::ResourceExhausted);
    }
    println!("{:?} for each refusal", started.elapsed() / calls);
}
