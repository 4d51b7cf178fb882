//! Tokens that take their time: authentication, time-outs and webhooks.

use super::*;
use crate::provider::simulator::delivery::{
    WEBHOOK_FAILURES_MAX, WEBHOOK_PAUSE_US, WEBHOOK_PAUSE_US_MAX,
};

#[tokio::test]
async fn a_customer_authenticates() {
    let mut bench = Bench::new().await;
    let waits = ChargeOutcome::ActionRequired {
        redirect_url: "https://simulator.example/authenticate/att_1".into(),
    };
    let token = "pm_card_authentication_required";
    assert_eq!(bench.authorize("att_1", token).await, Ok(waits.clone()));
    assert_eq!(bench.look_up("att_1").await, Some(waits));
    bench.reopen().await;
    assert_eq!(bench.simulator.authenticate("att_1", true).await, Ok(true));
    assert_eq!(
        bench.simulator.authenticate("att_1", false).await,
        Ok(false)
    );
    assert!(is_authorized(&bench.look_up("att_1").await.unwrap()));
    assert!(is_authorized(
        &bench.authorize("att_1", token).await.unwrap()
    ));

    bench.authorize("att_2", token).await.unwrap();
    assert_eq!(bench.simulator.authenticate("att_2", false).await, Ok(true));
    assert_eq!(
        declined(&bench.look_up("att_2").await.unwrap()),
        "AUTHENTICATION_FAILED"
    );
    assert_eq!(bench.simulator.authenticate("att_9", true).await, Ok(false));
}

#[tokio::test]
async fn scripted_authentication_shows_when_asked_again() {
    let bench = Bench::one_step().await;
    for (reference, token) in [
        ("att_1", "pm_card_authentication_ok"),
        ("att_2", "pm_card_authentication_fail"),
    ] {
        let outcome = bench.authorize(reference, token).await.unwrap();
        assert!(matches!(outcome, ChargeOutcome::ActionRequired { .. }));
        assert_eq!(bench.taken_minor().await, 0);
        let now = bench.look_up(reference).await.unwrap();
        if token.ends_with("ok") {
            assert!(is_captured(&now));
            assert!(is_done(
                &bench
                    .simulator
                    .refund(&refund("re_1", reference, 1000))
                    .await
                    .unwrap()
            ));
        } else {
            assert_eq!(declined(&now), "AUTHENTICATION_FAILED");
        }
    }
}

#[tokio::test]
async fn a_charge_that_waits_for_its_customer_can_be_given_up() {
    let bench = Bench::new().await;
    for token in [
        "pm_card_authentication_required",
        "pm_card_authentication_ok",
    ] {
        bench.authorize(token, token).await.unwrap();
        assert!(is_done(&bench.simulator.void(&void(token)).await.unwrap()));
        assert_eq!(bench.look_up(token).await, Some(ChargeOutcome::Voided));
        assert_eq!(bench.simulator.authenticate(token, true).await, Ok(false));
    }
}

#[tokio::test]
async fn a_request_lost_on_its_way_in_has_no_effect() {
    let mut bench = Bench::one_step().await;
    let lost = bench
        .authorize("att_1", "pm_card_timeout_before")
        .await
        .unwrap_err();
    assert_eq!(lost.retry(), crate::provider::Retry::IfIdempotent);
    assert_eq!(bench.look_up("att_1").await, None);
    assert_eq!(bench.journal_rows().await, 0);
    bench.reopen().await;
    assert!(is_captured(
        &bench
            .authorize("att_1", "pm_card_timeout_before")
            .await
            .unwrap()
    ));
    assert_eq!(bench.taken_minor().await, 1000);
}

#[tokio::test]
async fn an_answer_lost_on_its_way_out_leaves_the_effect() {
    let mut bench = Bench::one_step().await;
    let lost = bench
        .authorize("att_1", "pm_card_timeout_after")
        .await
        .unwrap_err();
    assert!(matches!(lost, ProviderError::Unknown(_)));
    bench.reopen().await;
    assert!(is_captured(&bench.look_up("att_1").await.unwrap()));
    assert!(is_captured(
        &bench
            .authorize("att_1", "pm_card_timeout_after")
            .await
            .unwrap()
    ));
    assert_eq!(bench.taken_minor().await, 1000);
}

#[tokio::test]
async fn pending_charges_are_decided_in_time_and_announced() {
    for (token, delay_us, expected) in [
        (
            "pm_card_webhook_late",
            3_000_000,
            &["charge.authorized"][..],
        ),
        (
            "pm_card_webhook_duplicate",
            500_000,
            &["charge.authorized", "charge.authorized"],
        ),
        (
            "pm_card_webhook_reordered",
            500_000,
            &["charge.authorized", "charge.pending"],
        ),
    ] {
        let mut bench = Bench::with(SimulatorConfig {
            webhook_secret: mesh_runtime::config::Secret::new("whsec"),
            ..SimulatorConfig::default()
        })
        .await;
        let mailbox = Mailbox::default();
        assert_eq!(
            bench.authorize("att_1", token).await,
            Ok(ChargeOutcome::Pending)
        );
        bench.clock.advance(delay_us - 1);
        assert_eq!(bench.simulator.deliver_webhooks(&mailbox).await, Ok(0));
        assert_eq!(bench.look_up("att_1").await, Some(ChargeOutcome::Pending));
        bench.reopen().await;
        bench.clock.advance(1);
        let arrived = bench.simulator.deliver_webhooks(&mailbox).await;
        assert_eq!(arrived, Ok(expected.len()), "{token}");
        assert!(is_authorized(&bench.look_up("att_1").await.unwrap()));
        let events = mailbox.events(&bench);
        let kinds: Vec<&str> = events.iter().map(|(_, kind)| kind.as_str()).collect();
        assert_eq!(kinds, expected);
        assert!(events.iter().all(|(event, _)| event.reference == "att_1"));
        let twice = events.len() == 2 && events[0].0.event_id == events[1].0.event_id;
        assert_eq!(twice, token.ends_with("duplicate"));
        assert_eq!(bench.simulator.deliver_webhooks(&mailbox).await, Ok(0));
    }
}

#[tokio::test]
async fn looking_up_decides_what_is_due_without_a_webhook_having_arrived() {
    let bench = Bench::one_step().await;
    bench
        .authorize("att_1", "pm_card_webhook_late")
        .await
        .unwrap();
    bench.clock.advance(3_000_000);
    assert!(is_captured(&bench.look_up("att_1").await.unwrap()));
    assert_eq!(bench.taken_minor().await, 1000);
    let mailbox = Mailbox::default();
    assert_eq!(
        bench.simulator.deliver_webhooks(&mailbox).await,
        Ok(1),
        "it is announced still"
    );
}

#[tokio::test]
async fn a_pending_charge_that_was_given_up_is_not_decided() {
    let bench = Bench::new().await;
    bench
        .authorize("att_1", "pm_card_webhook_late")
        .await
        .unwrap();
    bench.simulator.void(&void("att_1")).await.unwrap();
    bench.clock.advance(3_000_000);
    let mailbox = Mailbox::default();
    assert_eq!(bench.simulator.deliver_webhooks(&mailbox).await, Ok(0));
    assert_eq!(bench.look_up("att_1").await, Some(ChargeOutcome::Voided));
}

#[tokio::test]
async fn a_webhook_that_does_not_arrive_is_sent_again_and_given_up_in_the_end() {
    let bench = Bench::new().await;
    bench
        .authorize("att_1", "pm_card_webhook_late")
        .await
        .unwrap();
    bench.clock.advance(3_000_000);
    let mailbox = Mailbox {
        refuse: Mutex::new(2),
        ..Mailbox::default()
    };
    assert_eq!(bench.simulator.deliver_webhooks(&mailbox).await, Ok(0));
    assert_eq!(
        bench.simulator.deliver_webhooks(&mailbox).await,
        Ok(0),
        "not at once"
    );
    bench.clock.advance(WEBHOOK_PAUSE_US);
    assert_eq!(bench.simulator.deliver_webhooks(&mailbox).await, Ok(0));
    bench.clock.advance(2 * WEBHOOK_PAUSE_US);
    assert_eq!(bench.simulator.deliver_webhooks(&mailbox).await, Ok(1));

    bench
        .authorize("att_2", "pm_card_webhook_late")
        .await
        .unwrap();
    bench.clock.advance(3_000_000);
    let deaf = Mailbox {
        refuse: Mutex::new(u32::MAX),
        ..Mailbox::default()
    };
    for _ in 0..=WEBHOOK_FAILURES_MAX {
        assert_eq!(bench.simulator.deliver_webhooks(&deaf).await, Ok(0));
        bench.clock.advance(WEBHOOK_PAUSE_US_MAX);
    }
    assert_eq!(
        bench.simulator.deliver_webhooks(&mailbox).await,
        Ok(0),
        "given up"
    );
}
