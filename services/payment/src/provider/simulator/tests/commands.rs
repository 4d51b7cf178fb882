//! Commands: what they do, repeated, at once, wrong, and under faults.

use super::*;
use crate::provider::SettlementKind;
use kernel::day::DAY_US;
use std::collections::BTreeSet;

#[tokio::test]
async fn authorised_money_is_captured_in_parts_and_refunded() {
    let bench = Bench::new().await;
    let outcome = bench.authorize("att_1", "pm_card_visa").await.unwrap();
    let ttl_us = bench.simulator.capabilities().authorization_ttl_us;
    assert_eq!(
        outcome,
        ChargeOutcome::Authorized {
            provider_ref: "sim_charge_att_1".into(),
            expires_at_us: NOW_US + ttl_us,
        }
    );
    assert_eq!(bench.taken_minor().await, 0);
    assert!(is_done(&bench.capture("cap_1", "att_1", 400).await));
    assert!(is_done(&bench.capture("cap_2", "att_1", 600).await));
    assert!(is_captured(&bench.look_up("att_1").await.unwrap()));
    let more = bench.simulator.capture(&capture("cap_3", "att_1", 1)).await;
    assert_eq!(refusal(more), "AMOUNT_EXCEEDED");
    assert!(is_done(
        &bench
            .simulator
            .refund(&refund("re_1", "att_1", 999))
            .await
            .unwrap()
    ));
    let more = bench.simulator.refund(&refund("re_2", "att_1", 2)).await;
    assert_eq!(refusal(more), "AMOUNT_EXCEEDED");
    assert_eq!(bench.taken_minor().await, 1);
}

#[tokio::test]
async fn the_last_capture_gives_up_the_rest() {
    let bench = Bench::new().await;
    bench
        .authorize("att_1", "pm_card_mastercard")
        .await
        .unwrap();
    let last = Capture {
        last: true,
        ..capture("cap_1", "att_1", 400)
    };
    assert!(is_done(&bench.simulator.capture(&last).await.unwrap()));
    let more = bench.simulator.capture(&capture("cap_2", "att_1", 1)).await;
    assert_eq!(refusal(more), "INVALID_STATE");
    assert_eq!(bench.taken_minor().await, 400);
}

#[tokio::test]
async fn the_same_reference_is_answered_the_same_and_carried_out_once() {
    let mut bench = Bench::new().await;
    let first = bench.authorize("att_1", "pm_card_visa").await.unwrap();
    let captured = bench.capture("cap_1", "att_1", 400).await;
    let refunded = bench
        .simulator
        .refund(&refund("re_1", "att_1", 100))
        .await
        .unwrap();
    let rows = bench.journal_rows().await;
    for round in 0..3 {
        if round == 1 {
            bench.reopen().await;
        }
        assert!(
            is_captured(&bench.authorize("att_1", "pm_card_visa").await.unwrap()),
            "{first:?}"
        );
        assert_eq!(bench.capture("cap_1", "att_1", 400).await, captured);
        let again = bench
            .simulator
            .refund(&refund("re_1", "att_1", 100))
            .await
            .unwrap();
        assert_eq!(again, refunded);
        let asked = bench.simulator.look_up_settlement("re_1").await.unwrap();
        assert_eq!(asked, Some(refunded.clone()));
    }
    assert_eq!(bench.journal_rows().await, rows);
    assert_eq!(bench.taken_minor().await, 300);
}

#[tokio::test]
async fn the_same_reference_for_something_else_is_refused() {
    let bench = Bench::new().await;
    bench.authorize("att_1", "pm_card_visa").await.unwrap();
    bench.authorize("att_2", "pm_card_visa").await.unwrap();
    bench.capture("cap_1", "att_1", 400).await;
    bench
        .simulator
        .refund(&refund("re_1", "att_1", 100))
        .await
        .unwrap();
    let first = || authorize("att_1", "pm_card_visa");
    for other in [
        Authorize {
            amount: usd(999),
            ..first()
        },
        Authorize {
            payment_method: "pm_card_mastercard".into(),
            ..first()
        },
        Authorize {
            order_ref: "order-2".into(),
            ..first()
        },
        Authorize {
            capture: true,
            ..first()
        },
    ] {
        assert_eq!(
            refusal(bench.simulator.authorize(&other).await),
            "REFERENCE_REUSED"
        );
    }
    for other in [
        capture("cap_1", "att_1", 401),
        capture("cap_1", "att_2", 400),
        Capture {
            last: true,
            ..capture("cap_1", "att_1", 400)
        },
    ] {
        assert_eq!(
            refusal(bench.simulator.capture(&other).await),
            "REFERENCE_REUSED"
        );
    }
    for other in [refund("re_1", "att_1", 101), refund("re_1", "att_2", 100)] {
        assert_eq!(
            refusal(bench.simulator.refund(&other).await),
            "REFERENCE_REUSED"
        );
    }
    assert_eq!(bench.taken_minor().await, 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_equal_calls_at_once_charge_once() {
    let bench = Bench::one_step().await;
    let calls = (0..100).map(|_| {
        let simulator = bench.simulator.clone();
        mesh::spawn(async move {
            simulator
                .authorize(&authorize("att_1", "pm_card_visa"))
                .await
        })
    });
    let answers = futures_util::future::join_all(calls).await;
    for answer in answers {
        assert!(is_captured(&answer.unwrap().unwrap()));
    }
    assert_eq!(
        (bench.taken_minor().await, bench.journal_rows().await),
        (1000, 1)
    );
}

#[tokio::test]
async fn a_void_gives_up_what_is_not_captured() {
    let bench = Bench::new().await;
    bench.authorize("att_1", "pm_card_visa").await.unwrap();
    let voided = bench.simulator.void(&void("att_1")).await.unwrap();
    assert!(is_done(&voided));
    assert_eq!(bench.simulator.void(&void("att_1")).await.unwrap(), voided);
    assert_eq!(bench.look_up("att_1").await, Some(ChargeOutcome::Voided));
    let late = bench.simulator.capture(&capture("cap_1", "att_1", 1)).await;
    assert_eq!(refusal(late), "INVALID_STATE");

    bench.authorize("att_2", "pm_card_visa").await.unwrap();
    bench.capture("cap_2", "att_2", 400).await;
    assert!(is_done(
        &bench.simulator.void(&void("att_2")).await.unwrap()
    ));
    assert!(is_captured(&bench.look_up("att_2").await.unwrap()));
    let late = bench.simulator.capture(&capture("cap_3", "att_2", 1)).await;
    assert_eq!(refusal(late), "INVALID_STATE");

    bench.authorize("att_3", "pm_card_visa").await.unwrap();
    bench.capture("cap_4", "att_3", 1000).await;
    assert_eq!(
        refusal(bench.simulator.void(&void("att_3")).await),
        "ALREADY_CAPTURED"
    );
    assert_eq!(bench.taken_minor().await, 1400);
}

#[tokio::test]
async fn a_provider_without_manual_capture_charges_at_once() {
    let bench = Bench::one_step().await;
    let capabilities = bench.simulator.capabilities();
    assert!(!capabilities.manual_capture && !capabilities.void && !capabilities.partial_capture);
    assert!(is_captured(
        &bench.authorize("att_1", "pm_card_visa").await.unwrap()
    ));
    assert_eq!(bench.taken_minor().await, 1000);
    let captured = bench.simulator.capture(&capture("cap_1", "att_1", 1)).await;
    assert_eq!(refusal(captured), "UNSUPPORTED");
    assert_eq!(
        refusal(bench.simulator.void(&void("att_1")).await),
        "UNSUPPORTED"
    );
    assert!(is_done(
        &bench
            .simulator
            .refund(&refund("re_1", "att_1", 1000))
            .await
            .unwrap()
    ));
    assert_eq!(bench.taken_minor().await, 0);
}

#[tokio::test]
async fn a_charge_in_one_step_can_be_asked_for() {
    let bench = Bench::new().await;
    let at_once = Authorize {
        capture: true,
        ..authorize("att_1", "pm_card_visa")
    };
    assert!(is_captured(
        &bench.simulator.authorize(&at_once).await.unwrap()
    ));
    assert_eq!(
        refusal(bench.simulator.void(&void("att_1")).await),
        "ALREADY_CAPTURED"
    );
    assert_eq!(bench.taken_minor().await, 1000);
}

#[tokio::test]
async fn declines_are_answers_and_hold_nothing() {
    let bench = Bench::new().await;
    for (reference, token, code) in [
        ("att_1", "pm_card_declined", "CARD_DECLINED"),
        ("att_2", "pm_card_insufficient_funds", "INSUFFICIENT_FUNDS"),
    ] {
        let outcome = bench.authorize(reference, token).await.unwrap();
        assert_eq!(declined(&outcome), code);
        assert_eq!(bench.look_up(reference).await, Some(outcome));
        let captured = bench
            .simulator
            .capture(&capture("cap_1", reference, 1))
            .await;
        assert_eq!(refusal(captured), "INVALID_STATE");
    }
    bench
        .authorize("att_3", "pm_card_capture_declined")
        .await
        .unwrap();
    let settlement = bench.capture("cap_3", "att_3", 1000).await;
    assert_eq!(declined(&settlement), "CAPTURE_DECLINED");
    assert_eq!(bench.capture("cap_3", "att_3", 1000).await, settlement);
    assert!(is_authorized(&bench.look_up("att_3").await.unwrap()));
    bench
        .authorize("att_4", "pm_card_refund_declined")
        .await
        .unwrap();
    assert!(is_done(&bench.capture("cap_4", "att_4", 1000).await));
    let settlement = bench
        .simulator
        .refund(&refund("re_4", "att_4", 1000))
        .await
        .unwrap();
    assert_eq!(declined(&settlement), "REFUND_DECLINED");
    assert_eq!(bench.taken_minor().await, 1000);
}

#[tokio::test]
async fn wrong_commands_are_refused_and_leave_nothing() {
    let bench = Bench::new().await;
    for token in ["", "pm_card_unknown", "4111111111111111"] {
        let error = bench.authorize("att_1", token).await.unwrap_err();
        assert!(
            !error.to_string().contains("4111"),
            "a card number is not repeated"
        );
        assert_eq!(refusal::<()>(Err(error)), "PAYMENT_METHOD_UNKNOWN");
    }
    let negative = Authorize {
        amount: usd(-1),
        ..authorize("att_1", "pm_card_visa")
    };
    assert_eq!(
        refusal(bench.simulator.authorize(&negative).await),
        "AMOUNT_INVALID"
    );
    let long = "a".repeat(REFERENCE_CHARACTERS_MAX + 1);
    for reference in ["", "a\0", &long] {
        assert_eq!(
            refusal(bench.authorize(reference, "pm_card_visa").await),
            "INVALID"
        );
        assert_eq!(
            refusal(bench.authorize(reference, "pm_card_timeout_before").await),
            "INVALID"
        );
    }
    let nowhere = bench.simulator.capture(&capture("cap_1", "att_9", 1)).await;
    assert_eq!(refusal(nowhere), "CHARGE_NOT_FOUND");
    assert_eq!(
        refusal(bench.simulator.void(&void("att_9")).await),
        "CHARGE_NOT_FOUND"
    );
    let nowhere = bench.simulator.refund(&refund("re_1", "att_9", 1)).await;
    assert_eq!(refusal(nowhere), "CHARGE_NOT_FOUND");
    assert_eq!(bench.journal_rows().await, 0);

    bench.authorize("att_1", "pm_card_visa").await.unwrap();
    let won = Money::new(Currency::parse("KRW").unwrap(), 1).unwrap();
    let other = Capture {
        amount: won,
        ..capture("cap_1", "att_1", 1)
    };
    assert_eq!(
        refusal(bench.simulator.capture(&other).await),
        "CURRENCY_MISMATCH"
    );
    let early = bench.simulator.refund(&refund("re_1", "att_1", 1)).await;
    assert_eq!(refusal(early), "AMOUNT_EXCEEDED");
    assert_eq!(
        refusal(bench.simulator.transactions(Some("x")).await),
        "CURSOR_INVALID"
    );
}

#[tokio::test]
async fn an_authorisation_lapses() {
    let bench = Bench::new().await;
    bench.authorize("att_1", "pm_card_visa").await.unwrap();
    let ttl_us = bench.simulator.capabilities().authorization_ttl_us;
    bench.clock.advance(ttl_us - 1);
    assert!(is_authorized(&bench.look_up("att_1").await.unwrap()));
    bench.clock.advance(1);
    assert_eq!(bench.look_up("att_1").await, Some(ChargeOutcome::Voided));
    let settlement = bench.capture("cap_1", "att_1", 1000).await;
    assert_eq!(declined(&settlement), "AUTHORIZATION_EXPIRED");
    assert_eq!(bench.taken_minor().await, 0);
}

#[tokio::test]
async fn the_journal_only_grows() {
    let bench = Bench::new().await;
    bench.authorize("att_1", "pm_card_visa").await.unwrap();
    for sql in ["DELETE FROM journal", "UPDATE journal SET amount_minor = 1"] {
        let mut write = bench.simulator.journal.begin().await.unwrap();
        let error = sqlx::query(sql).execute(&mut *write).await.unwrap_err();
        assert!(error.to_string().contains("append-only"), "{error}");
    }
}

#[tokio::test]
async fn all_transactions_are_listed_page_by_page() {
    let bench = Bench::one_step().await;
    let count = usize::try_from(store::ROWS_MAX).unwrap() + 1;
    for index in 0..count {
        bench
            .authorize(&format!("att_{index}"), "pm_card_visa")
            .await
            .unwrap();
    }
    let first = bench.simulator.transactions(None).await.unwrap();
    assert_eq!(first.transactions.len(), count - 1);
    let second = bench
        .simulator
        .transactions(first.next.as_deref())
        .await
        .unwrap();
    assert_eq!((second.transactions.len(), second.next), (1, None));
    assert_eq!(
        second.transactions[0].reference,
        format!("att_{}", count - 1)
    );
}

#[tokio::test]
async fn what_is_paid_out_is_what_was_taken_less_what_went_back_and_the_fees() {
    let fee = FeeRule {
        basis_points: 290,
        fixed_minor: 30,
    };
    let bench = Bench::with(SimulatorConfig {
        one_step: true,
        settlement: SettlementConfig {
            fees: [("USD".to_owned(), fee)].into(),
            arrival_days: 1,
        },
        ..SimulatorConfig::default()
    })
    .await;
    for day in 0..40 {
        for index in 0..6 {
            let reference = format!("att_{day}_{index}");
            bench.authorize(&reference, "pm_card_visa").await.unwrap();
        }
        let back = refund(&format!("re_{day}"), &format!("att_{day}_0"), 300 + day);
        bench.simulator.refund(&back).await.unwrap();
        bench.clock.advance(DAY_US);
    }
    let lines = async |since_us: i64| {
        let (mut lines, mut from) = (Vec::new(), Some(bench.simulator.since(since_us)));
        while let Some(place) = from {
            let page = bench.simulator.settlements(Some(&place)).await.unwrap();
            lines.extend(page.lines);
            from = page.next;
        }
        lines
    };
    let all = lines(0).await;
    let sum = |kind: SettlementKind| -> i64 {
        let of = all.iter().filter(|line| line.kind == kind);
        of.map(|line| line.amount.amount_minor()).sum()
    };
    assert_eq!(sum(SettlementKind::Fee), 240 * 59);
    let back: i64 = (0..40).map(|day| 300 + day).sum();
    assert_eq!(sum(SettlementKind::Payout), 240 * 1000 - back - 240 * 59);
    assert_eq!(all.len(), 240 + 40);
    assert_eq!(all, lines(0).await, "the same each time");
    let payouts: BTreeSet<&str> = all.iter().map(|line| line.payout.as_str()).collect();
    assert_eq!(payouts.len(), 40, "each fee is part of its day's payout");
    // From a time on nothing is left out that was booked since.
    let since_us = NOW_US + 20 * DAY_US;
    let later = lines(since_us).await;
    let expected = all.iter().filter(|line| line.booked_at_us >= since_us);
    assert!(expected.clone().all(|line| later.contains(line)));
    assert!(later.len() < expected.count() + 8, "and hardly more");
}

#[tokio::test]
async fn under_faults_every_charge_happens_once_when_it_is_resolved_as_documented() {
    let faults = Faults {
        seed: 1,
        unavailable: 0.1,
        unknown_before: 0.15,
        unknown_after: 0.15,
        ..Faults::NONE
    };
    let bench = Bench::with(SimulatorConfig {
        one_step: true,
        faults,
        ..SimulatorConfig::default()
    })
    .await;
    let mut failed = 0;
    for index in 0..200 {
        let reference = format!("att_{index}");
        while bench.authorize(&reference, "pm_card_visa").await.is_err() {
            failed += 1; // The same reference is repeated whatever the error was.
        }
    }
    assert!(failed > 50, "{failed}");
    bench.simulator.set_faults(Faults::default());
    assert_eq!(
        (bench.taken_minor().await, bench.journal_rows().await),
        (200 * 1000, 200)
    );
}

#[test]
fn every_token_is_documented() {
    let source = include_str!("../mod.rs");
    for (token, _) in token::TOKENS {
        assert!(source.contains(&format!("`{token}`")), "{token}");
    }
}
