//! Requests that arrive late, keys that are forgotten, look-ups that lag, and webhooks with every fault.

use super::*;
use crate::provider::Retry;

const SECOND_US: i64 = 1_000_000;

fn secret() -> mesh_runtime::config::Secret {
    mesh_runtime::config::Secret::new("whsec")
}

fn adversary(faults: Faults) -> SimulatorConfig {
    SimulatorConfig {
        faults,
        webhook_secret: secret(),
        ..SimulatorConfig::default()
    }
}

fn all(probability: impl Fn(&mut Faults) -> &mut f64) -> Faults {
    let mut faults = Faults::NONE;
    *probability(&mut faults) = 1.0;
    faults
}

impl Bench {
    /// What was done on purpose to commands, in order.
    async fn noted(&self) -> Vec<(String, String)> {
        sqlx::query_as("SELECT operation, fault FROM faults ORDER BY sequence")
            .fetch_all(self.simulator.journal.reader())
            .await
            .unwrap()
    }

    /// What was done on purpose to webhooks and what became of them, in order.
    async fn webhooks(&self) -> Vec<(String, String)> {
        sqlx::query_as("SELECT fault, outcome FROM webhooks ORDER BY sequence")
            .fetch_all(self.simulator.journal.reader())
            .await
            .unwrap()
    }
}

#[tokio::test]
async fn a_request_that_is_held_up_takes_effect_later_and_once() {
    let mut bench = Bench::with(adversary(Faults::NONE)).await;
    let lost = bench.authorize("att_1", "pm_card_late").await.unwrap_err();
    assert_eq!(lost.retry(), Retry::IfIdempotent);
    let mailbox = Mailbox::default();
    bench.clock.advance(3 * SECOND_US - 1);
    bench.simulator.deliver_webhooks(&mailbox).await.unwrap();
    assert_eq!(bench.look_up("att_1").await, None);
    bench.reopen().await;
    bench.clock.advance(1);
    assert_eq!(bench.simulator.deliver_webhooks(&mailbox).await, Ok(1));
    assert!(is_authorized(&bench.look_up("att_1").await.unwrap()));
    assert_eq!(mailbox.events(&bench)[0].1, "charge.authorized");
    bench.authorize("att_1", "pm_card_late").await.unwrap();
    assert_eq!(bench.journal_rows().await, 1);
}

#[tokio::test]
async fn every_command_may_be_held_up() {
    let bench = Bench::with(adversary(Faults::NONE)).await;
    for charge in ["att_1", "att_2"] {
        bench.authorize(charge, "pm_card_visa").await.unwrap();
    }
    bench.simulator.set_faults(all(|faults| &mut faults.late));
    let commands = async || {
        let held_up = [
            bench.authorize("att_3", "pm_card_visa").await.map(drop),
            bench
                .simulator
                .capture(&capture("cap_1", "att_1", 600))
                .await
                .map(drop),
            bench
                .simulator
                .refund(&refund("re_1", "att_1", 200))
                .await
                .map(drop),
            bench.simulator.void(&void("att_2")).await.map(drop),
            bench.simulator.void(&void("att_9")).await.map(drop), // Wrong, which nobody will be told.
        ];
        assert!(
            held_up
                .iter()
                .all(|answer| matches!(answer, Err(ProviderError::Unknown(_))))
        );
    };
    commands().await;
    assert_eq!(bench.journal_rows().await, 2);
    commands().await; // They are sent again while the first are under way: that changes nothing.
    bench.clock.advance(3 * SECOND_US);
    bench.simulator.carry_out_due().await.unwrap();
    assert_eq!(bench.journal_rows().await, 6);
    assert_eq!(bench.taken_minor().await, 400);
    assert_eq!(bench.look_up("att_2").await, Some(ChargeOutcome::Voided));
    assert!(is_authorized(&bench.look_up("att_3").await.unwrap()));
    bench.simulator.carry_out_due().await.unwrap();
    assert_eq!(bench.journal_rows().await, 6, "each arrives once");
    assert_eq!(bench.noted().await.len(), 10);
}

#[tokio::test]
async fn a_key_that_was_forgotten_charges_again() {
    let bench = Bench::with(SimulatorConfig {
        idempotency_window_s: 60,
        one_step: true,
        ..SimulatorConfig::default()
    })
    .await;
    assert_eq!(
        bench.simulator.capabilities().idempotency_window_us,
        60 * SECOND_US
    );
    bench.authorize("att_1", "pm_card_visa").await.unwrap();
    bench.clock.advance(60 * SECOND_US - 1);
    bench.authorize("att_1", "pm_card_visa").await.unwrap();
    assert_eq!(bench.taken_minor().await, 1000);
    bench.clock.advance(1);
    bench.authorize("att_1", "pm_card_visa").await.unwrap();
    assert_eq!(bench.taken_minor().await, 2000, "as a real provider would");
    for _ in 0..2 {
        let refunded = bench.simulator.refund(&refund("re_1", "att_1", 300)).await;
        assert!(is_done(&refunded.unwrap()));
        bench.clock.advance(60 * SECOND_US);
    }
    assert_eq!(bench.taken_minor().await, 1400);
    let page = bench.simulator.transactions(None).await.unwrap();
    for reference in ["att_1", "re_1"] {
        let booked = page.transactions.iter();
        let listed = booked
            .filter(|booked| booked.reference == reference)
            .count();
        assert_eq!(listed, 2, "{reference} was carried out twice");
    }
}

#[tokio::test]
async fn a_look_up_lags_behind() {
    let bench = Bench::with(SimulatorConfig {
        look_up_lag_ms: 5_000,
        ..SimulatorConfig::default()
    })
    .await;
    assert_eq!(bench.simulator.capabilities().look_up_lag_us, 5 * SECOND_US);
    bench.authorize("att_1", "pm_card_visa").await.unwrap();
    bench.clock.advance(5 * SECOND_US - 1);
    assert_eq!(bench.look_up("att_1").await, None);
    bench.clock.advance(1);
    assert!(is_authorized(&bench.look_up("att_1").await.unwrap()));
    bench.capture("cap_1", "att_1", 100).await;
    assert_eq!(bench.simulator.look_up_settlement("cap_1").await, Ok(None));
    bench.clock.advance(5 * SECOND_US);
    assert!(
        bench
            .simulator
            .look_up_settlement("cap_1")
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test]
async fn what_chance_did_is_noted_with_its_effect() {
    let bench = Bench::with(SimulatorConfig {
        slow_ms: 10,
        ..adversary(Faults::NONE)
    })
    .await;
    bench
        .simulator
        .set_faults(all(|faults| &mut faults.declined));
    let declined_by_chance = bench.authorize("att_1", "pm_card_visa").await.unwrap();
    assert_eq!(declined(&declined_by_chance), "CARD_DECLINED");
    bench.simulator.set_faults(all(|faults| &mut faults.slow));
    let started = std::time::Instant::now();
    bench.authorize("att_2", "pm_card_visa").await.unwrap();
    assert!(started.elapsed() >= std::time::Duration::from_millis(10));
    bench
        .simulator
        .set_faults(all(|faults| &mut faults.declined));
    bench.capture("cap_1", "att_2", 100).await; // Only charges are declined by chance.
    let without_answer: [fn(&mut Faults) -> &mut f64; 3] = [
        |faults| &mut faults.unavailable,
        |faults| &mut faults.unknown_before,
        |faults| &mut faults.unknown_after,
    ];
    for probability in without_answer {
        bench.simulator.set_faults(all(probability));
        let refunded = bench.simulator.refund(&refund("re_1", "att_2", 10)).await;
        refunded.unwrap_err();
    }
    let noted = bench.noted().await;
    let noted: Vec<_> = noted
        .iter()
        .map(|(o, f)| (o.as_str(), f.as_str()))
        .collect();
    let expected = [
        ("authorize", "declined"),
        ("authorize", "slow"),
        ("refund", "unavailable"),
        ("refund", "unknown_before"),
        ("refund", "unknown_after"),
    ];
    assert_eq!(noted, expected);
    assert_eq!(bench.taken_minor().await, 90);
}

#[tokio::test]
async fn tokens_script_webhooks_that_are_forged_and_lost() {
    let bench = Bench::with(adversary(Faults::NONE)).await;
    for token in ["pm_card_webhook_forged", "pm_card_webhook_lost"] {
        let waits = bench.authorize(token, token).await;
        assert_eq!(waits, Ok(ChargeOutcome::Pending));
    }
    bench.clock.advance(SECOND_US);
    let receiver = Verifying::of(&bench);
    assert_eq!(bench.simulator.deliver_webhooks(&receiver).await, Ok(1));
    assert_eq!(receiver.told(), (vec!["charge.authorized".to_owned()], 1));
    let ended = [
        ("forged", "refused"),
        ("none", "accepted"),
        ("lost", "lost"),
    ];
    assert_eq!(
        bench.webhooks().await,
        ended.map(|(a, b)| (a.to_owned(), b.to_owned()))
    );
    for token in ["pm_card_webhook_forged", "pm_card_webhook_lost"] {
        assert!(is_authorized(&bench.look_up(token).await.unwrap()));
    }
}

#[tokio::test]
async fn webhooks_of_everything_have_every_fault_about_as_often_as_asked() {
    let bench = Bench::with(SimulatorConfig {
        webhooks_of_all: true,
        webhook_faults: WebhookFaults {
            seed: 5,
            late: 0.1,
            duplicated: 0.1,
            reordered: 0.1,
            forged: 0.1,
            lost: 0.1,
        },
        ..adversary(Faults::NONE)
    })
    .await;
    for number in 0..50 {
        let charge = format!("att_{number}");
        bench.authorize(&charge, "pm_card_visa").await.unwrap();
        bench.capture(&format!("cap_{number}"), &charge, 10).await;
        let given_back = refund(&format!("re_{number}"), &charge, 10);
        bench.simulator.refund(&given_back).await.unwrap();
        bench.simulator.void(&void(&charge)).await.unwrap();
    }
    let receiver = Verifying::of(&bench);
    let in_time = bench.simulator.deliver_webhooks(&receiver).await.unwrap();
    bench.clock.advance(SECOND_US);
    let held_back = bench.simulator.deliver_webhooks(&receiver).await.unwrap();
    bench.clock.advance(3 * SECOND_US);
    let late = bench.simulator.deliver_webhooks(&receiver).await.unwrap();
    let webhooks = bench.webhooks().await;
    let count = |fault: &str, outcome: &str| {
        let ended = (fault.to_owned(), outcome.to_owned());
        webhooks.iter().filter(|webhook| **webhook == ended).count()
    };
    let table = [
        ("late", "accepted", 20),
        ("duplicated", "accepted", 40),
        ("reordered", "accepted", 40),
        ("forged", "refused", 20),
        ("lost", "lost", 20),
        ("none", "accepted", 120),
    ];
    let seen = table.map(|(fault, outcome, _)| count(fault, outcome));
    for ((fault, _, about), count) in table.into_iter().zip(seen) {
        assert!(count.abs_diff(about) <= about / 2 + 5, "{fault}: {count}");
    }
    assert_eq!(
        webhooks.len(),
        seen.iter().sum::<usize>(),
        "nothing else became of any"
    );
    let [late_ones, duplicated, reordered, forged, _, plain] = seen;
    assert_eq!((late, held_back), (late_ones, reordered));
    assert_eq!(in_time, duplicated + plain);
    let (kinds, refused) = receiver.told();
    assert_eq!(refused, forged);
    for kind in [
        "charge.authorized",
        "capture.captured",
        "refund.refunded",
        "charge.voided",
    ] {
        let told = kinds.iter().filter(|told| *told == kind).count();
        assert!((40..60).contains(&told), "{kind}: {told} of 50");
    }
}

/// Takes what is signed as it must be, as payment does.
struct Verifying<'a> {
    bench: &'a Bench,
    told: Mutex<(Vec<String>, usize)>,
}

impl<'a> Verifying<'a> {
    fn of(bench: &'a Bench) -> Self {
        Self {
            bench,
            told: Mutex::default(),
        }
    }

    /// The kinds of what was taken, and how many were refused.
    fn told(&self) -> (Vec<String>, usize) {
        self.told.lock().unwrap().clone()
    }
}

#[async_trait]
impl WebhookSender for Verifying<'_> {
    async fn send(&self, webhook: Webhook) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let (simulator, now_us) = (&self.bench.simulator, self.bench.clock.now_us());
        let mut told = self.told.lock().unwrap();
        if let Err(error) = simulator.verify_webhook(&webhook.headers, &webhook.body, now_us) {
            told.1 += 1;
            return Err(error.into());
        }
        let body: serde_json::Value = serde_json::from_slice(&webhook.body)?;
        told.0.push(body["type"].as_str().unwrap().to_owned());
        Ok(())
    }
}
