//! Answers that are lost, servers that are away: what the client may conclude, and what is true.

use crate::far::{
    Far, VISA, authorize, capture, client, config, is_unavailable, is_unknown, refund, void,
};
use payment::provider::simulator::remote::LostAnswers;
use payment::provider::simulator::{Faults, SimulatorConfig};
use payment::provider::{ChargeOutcome, Provider, Settlement};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;

/// Long enough for any answer that comes, short enough to wait for one that does not.
const LIMIT: Duration = Duration::from_millis(500);

fn before() -> Faults {
    Faults {
        unknown_before: 1.0,
        ..Faults::default()
    }
}

fn after() -> Faults {
    Faults {
        unknown_after: 1.0,
        ..Faults::default()
    }
}

#[tokio::test]
async fn a_connection_lost_before_the_effect_is_unknown_and_then_not_found() {
    let far = Far::new().await;
    let remote = far.client();
    far.simulator.set_faults(before());
    assert!(is_unknown(
        &remote.authorize(&authorize("att_1", VISA)).await
    ));
    assert_eq!(remote.look_up_charge("att_1").await, Ok(None));

    far.simulator.set_faults(Faults::default());
    remote.authorize(&authorize("att_1", VISA)).await.unwrap();
    far.simulator.set_faults(before());
    assert!(is_unknown(
        &remote.capture(&capture("cap_1", "att_1", 1)).await
    ));
    assert!(is_unknown(
        &remote.refund(&refund("re_1", "att_1", 1)).await
    ));
    assert!(is_unknown(&remote.void(&void("att_1")).await));
    assert_eq!(remote.look_up_settlement("cap_1").await, Ok(None));
    assert_eq!(remote.look_up_settlement("re_1").await, Ok(None));
    let stands = remote.look_up_charge("att_1").await.unwrap().unwrap();
    assert!(matches!(stands, ChargeOutcome::Authorized { .. }));
}

#[tokio::test]
async fn a_connection_lost_after_the_effect_is_unknown_and_then_found() {
    let far = Far::new().await;
    let remote = far.client();
    far.simulator.set_faults(after());
    assert!(is_unknown(
        &remote.authorize(&authorize("att_1", VISA)).await
    ));
    let stands = remote.look_up_charge("att_1").await.unwrap().unwrap();
    assert!(matches!(stands, ChargeOutcome::Authorized { .. }));
    assert!(is_unknown(
        &remote.capture(&capture("cap_1", "att_1", 9)).await
    ));
    assert!(is_unknown(
        &remote.refund(&refund("re_1", "att_1", 4)).await
    ));
    for reference in ["cap_1", "re_1"] {
        let stands = remote.look_up_settlement(reference).await.unwrap();
        assert!(
            matches!(stands, Some(Settlement::Done { .. })),
            "{reference}"
        );
    }
    far.simulator.set_faults(Faults::default());
    remote.capture(&capture("cap_1", "att_1", 9)).await.unwrap();
    let booked = remote.transactions(None).await.unwrap().transactions;
    assert_eq!(
        booked.len(),
        2,
        "repeated under its own reference it is not done again"
    );
}

#[tokio::test]
async fn a_silent_server_is_waited_for_as_long_as_the_caller_likes() {
    let far = Far::with(config(), LostAnswers::Silence).await;
    let remote = far.client();
    remote.authorize(&authorize("att_0", VISA)).await.unwrap();
    far.simulator.set_faults(after());
    let waited = tokio::time::timeout(LIMIT, remote.authorize(&authorize("att_1", VISA))).await;
    assert!(waited.is_err(), "{waited:?}");
    assert!(remote.look_up_charge("att_1").await.unwrap().is_some());
    far.simulator.set_faults(before());
    let waited = tokio::time::timeout(LIMIT, remote.authorize(&authorize("att_2", VISA))).await;
    assert!(waited.is_err(), "{waited:?}");
    assert_eq!(remote.look_up_charge("att_2").await, Ok(None));
}

#[tokio::test]
async fn either_loses_both_ways() {
    let far = Far::with(config(), LostAnswers::Either).await;
    let remote = far.client();
    remote.authorize(&authorize("att_0", VISA)).await.unwrap();
    far.simulator.set_faults(before());
    let calls = (0..40).map(|index| {
        let request = authorize(&format!("att_{index}"), VISA);
        let remote = &remote;
        // Each is noted on disk before it is lost.
        let limit = 10 * LIMIT;
        async move { tokio::time::timeout(limit, remote.authorize(&request)).await }
    });
    let answers = futures_util::future::join_all(calls).await;
    let silent = answers.iter().filter(|answer| answer.is_err()).count();
    assert!((1..40).contains(&silent), "{silent} of 40");
    assert!(answers.iter().flatten().all(is_unknown));
}

#[tokio::test]
async fn a_server_that_is_away_has_done_nothing() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    let remote = client(&url, crate::far::KEY, &config());
    assert!(is_unavailable(
        &remote.authorize(&authorize("att_1", VISA)).await
    ));
    assert!(is_unavailable(&remote.look_up_charge("att_1").await));
    assert!(is_unavailable(&remote.transactions(None).await));
}

#[tokio::test]
async fn a_server_that_goes_away_is_known_to_be_away() {
    let far = Far::new().await;
    let remote = far.client();
    remote.authorize(&authorize("att_1", VISA)).await.unwrap();
    let simulator = far.stop().await;
    // The connection that was kept has ended too, and is not taken for one that lost an answer.
    let answer = remote.authorize(&authorize("att_2", VISA)).await;
    assert!(is_unavailable(&answer), "{answer:?}");
    assert_eq!(simulator.look_up_charge("att_2").await, Ok(None));
}

#[tokio::test]
async fn a_simulator_that_says_not_now_has_done_nothing() {
    let far = Far::new().await;
    let remote = far.client();
    remote.authorize(&authorize("att_0", VISA)).await.unwrap();
    far.simulator.set_faults(Faults {
        unavailable: 1.0,
        ..Faults::default()
    });
    assert!(is_unavailable(
        &remote.authorize(&authorize("att_1", VISA)).await
    ));
    assert!(is_unavailable(&remote.look_up_charge("att_0").await));
    far.simulator.set_faults(Faults::default());
    assert_eq!(remote.look_up_charge("att_1").await, Ok(None));
}

#[tokio::test]
async fn the_server_stops_although_a_connection_is_silent() {
    let slow = SimulatorConfig {
        latency_ms: 50,
        ..config()
    };
    let far = Far::with(slow, LostAnswers::Silence).await;
    let remote = far.client();
    remote.authorize(&authorize("att_0", VISA)).await.unwrap();
    far.simulator.set_faults(after());
    let request = authorize("att_1", VISA);
    let (lost, took) = tokio::join!(remote.authorize(&request), async {
        while far
            .simulator
            .look_up_charge("att_1")
            .await
            .unwrap()
            .is_none()
        {
            tokio::task::yield_now().await;
        }
        let started = Instant::now();
        far.stop().await;
        started.elapsed()
    });
    assert!(is_unknown(&lost), "{lost:?}");
    assert!(took < Duration::from_secs(4), "{took:?}");
}
