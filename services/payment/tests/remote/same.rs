//! The provider over HTTP answers as the simulator in the same process does, command by command.

use crate::far::{
    Far, authorize, capture, client, config, is_unavailable, open, refund, usd, void,
};
use payment::dispute::{ContentType, DisputeState, Evidence, EvidenceFile, FileKind, TextKind};
use payment::provider::simulator::remote::LostAnswers;
use payment::provider::simulator::{Decision, FeeRule, SettlementConfig, SimulatorConfig};
use payment::provider::{
    AcceptDispute, Authorize, Capture, Provider, ProviderError, Settlement, SubmitEvidence,
};
use std::fmt::Debug;

const TOKENS: [&str; 24] = [
    "pm_card_visa",
    "pm_card_mastercard",
    "pm_card_declined",
    "pm_card_insufficient_funds",
    "pm_card_authentication_required",
    "pm_card_authentication_ok",
    "pm_card_authentication_fail",
    "pm_card_timeout_before",
    "pm_card_timeout_after",
    "pm_card_webhook_late",
    "pm_card_webhook_duplicate",
    "pm_card_webhook_reordered",
    "pm_card_webhook_forged",
    "pm_card_webhook_lost",
    "pm_card_late",
    "pm_card_slow",
    "pm_card_capture_declined",
    "pm_card_refund_declined",
    "pm_card_refund_fails_later",
    "pm_card_dispute_won",
    "pm_card_dispute_lost",
    "pm_card_inquiry",
    "pm_card_inquiry_escalates",
    "pm_card_nobody_knows",
];

/// An answer as text. How an answer was lost is each side's own story.
fn told<T: Debug>(answer: Result<T, ProviderError>) -> String {
    match answer {
        Err(ProviderError::Unknown(_)) => "unknown".to_owned(),
        answer => format!("{answer:?}"),
    }
}

/// Every command and question with every token, each twice.
async fn everything(provider: &dyn Provider) -> Vec<String> {
    let mut answers = Vec::new();
    for (index, token) in TOKENS.into_iter().enumerate() {
        // What stands in a path has to be written in other letters there.
        let charge = format!("att {index}/ü?%");
        let at_once = Authorize {
            capture: true,
            ..authorize(&format!("once-{index}"), token)
        };
        let last = Capture {
            last: true,
            ..capture(&format!("cap2-{index}"), &charge, 300)
        };
        answers.push(told(provider.look_up_charge(&charge).await));
        for _ in 0..2 {
            answers.push(told(provider.authorize(&authorize(&charge, token)).await));
            answers.push(told(provider.authorize(&at_once).await));
        }
        for _ in 0..2 {
            let first = capture(&format!("cap1-{index}"), &charge, 400);
            answers.push(told(provider.look_up_charge(&charge).await));
            answers.push(told(provider.capture(&first).await));
            answers.push(told(provider.look_up_settlement(&first.reference).await));
            answers.push(told(provider.capture(&last).await));
        }
        for _ in 0..2 {
            let some = refund(&format!("re-{index}"), &charge, 100);
            answers.push(told(provider.refund(&some).await));
            answers.push(told(provider.look_up_settlement(&some.reference).await));
            answers.push(told(provider.void(&void(&charge)).await));
            answers.push(told(provider.look_up_disputes(&charge).await));
        }
    }
    answers
}

/// What is wrong with a command is said in the same words.
async fn mistakes(provider: &dyn Provider) -> Vec<String> {
    let other = Authorize {
        amount: usd(1),
        ..authorize("once-0", "pm_card_visa")
    };
    let negative = Authorize {
        amount: usd(-1),
        ..authorize("new", "pm_card_visa")
    };
    vec![
        told(provider.authorize(&other).await),
        told(provider.authorize(&negative).await),
        told(provider.authorize(&authorize("", "pm_card_visa")).await),
        told(provider.capture(&capture("c", "nowhere", 1)).await),
        told(provider.refund(&refund("r", "once-0", 1001)).await),
        told(provider.void(&void("once-0")).await),
        told(provider.transactions(Some("not a place")).await),
        told(provider.settlements(Some("not a place")).await),
    ]
}

async fn books(provider: &dyn Provider) -> Vec<String> {
    let (mut pages, mut from) = (Vec::new(), None);
    loop {
        let page = provider.transactions(from.as_deref()).await.unwrap();
        from.clone_from(&page.next);
        pages.push(format!("{page:?}"));
        if from.is_none() {
            return pages;
        }
    }
}

/// What was kept and paid out, from a time on.
async fn settled(provider: &dyn Provider, since_us: i64) -> Vec<String> {
    let (mut pages, mut from) = (Vec::new(), Some(provider.since(since_us)));
    while let Some(place) = from {
        let page = provider.settlements(Some(&place)).await.unwrap();
        pages.push(format!("{page:?}"));
        from = page.next;
    }
    pages
}

async fn compare(config: SimulatorConfig) {
    let far = Far::with(config.clone(), LostAnswers::Close).await;
    let folder = tempfile::tempdir().unwrap();
    let near = open(folder.path(), &config, &far.clock).await;
    let remote = far.client();
    assert_eq!(remote.name(), near.name());
    assert_eq!(remote.capabilities(), near.capabilities());
    let expected = everything(&*near).await;
    assert_eq!(everything(&remote).await, expected);
    let lost = expected.iter().filter(|answer| *answer == "unknown");
    assert_eq!(
        lost.count(),
        6,
        "three tokens lose their first answer, of two"
    );
    assert_eq!(mistakes(&remote).await, mistakes(&*near).await);
    assert_eq!(books(&remote).await, books(&*near).await);
    let began_us = far.clock.now_us();
    far.clock.advance(2 * kernel::day::DAY_US);
    let lines = settled(&remote, began_us).await;
    assert_eq!(lines, settled(&*near, began_us).await);
    let all = lines.concat();
    assert!(all.contains("Fee") && all.contains("Payout"), "{all}");
}

fn with_fees() -> SimulatorConfig {
    let fee = FeeRule {
        basis_points: 290,
        fixed_minor: 30,
    };
    SimulatorConfig {
        settlement: SettlementConfig {
            fees: [("USD".to_owned(), fee)].into(),
            arrival_days: 1,
        },
        ..config()
    }
}

#[tokio::test]
async fn every_command_with_every_token_is_answered_as_in_the_same_process() {
    compare(with_fees()).await;
}

#[tokio::test]
async fn so_does_one_that_charges_in_one_step() {
    compare(SimulatorConfig {
        one_step: true,
        ..with_fees()
    })
    .await;
}

#[tokio::test]
async fn all_pages_of_transactions_are_read() {
    let one_step = SimulatorConfig {
        one_step: true,
        ..config()
    };
    let far = Far::with(one_step, LostAnswers::Close).await;
    let remote = far.client();
    for index in 0..201 {
        let request = authorize(&format!("att_{index}"), "pm_card_visa");
        far.simulator.authorize(&request).await.unwrap();
    }
    let pages = books(&remote).await;
    assert_eq!(pages.len(), 2);
    assert_eq!(pages, books(&*far.simulator).await);
}

/// Evidence with all that can stand in it.
fn evidence(dispute_ref: &str) -> SubmitEvidence {
    SubmitEvidence {
        reference: "dsp_1-response-1".to_owned(),
        dispute_ref: dispute_ref.to_owned(),
        evidence: Evidence {
            texts: vec![(TextKind::CustomerName, "Zoë \"Z\"\n".to_owned())],
            files: vec![EvidenceFile {
                kind: FileKind::Receipt,
                content_type: ContentType::Png,
                description: "ü".to_owned(),
                bytes: [b"\x89PNG\r\n\x1a\n".as_slice(), &vec![0xff; 100_000]].concat(),
            }],
        },
    }
}

#[tokio::test]
async fn banks_and_our_answers_to_them_travel_too() {
    let far = Far::new().await;
    let remote = far.client();
    let once = Authorize {
        capture: true,
        ..authorize("att_1", "pm_card_visa")
    };
    remote.authorize(&once).await.unwrap();
    let refused = remote.open_dispute("nobody", None, false).await;
    assert!(matches!(refused, Err(ProviderError::Refused { .. })));
    let won = remote.open_dispute("att_1", Some(usd(300)), true).await;
    let won = won.unwrap();
    let escalated = remote.decide_dispute(&won, Decision::Escalate).await;
    assert_eq!(escalated.unwrap().state, DisputeState::NeedsResponse);
    let handed_in = remote.submit_evidence(&evidence(&won)).await.unwrap();
    assert!(handed_in.responded && handed_in.state == DisputeState::UnderReview);
    assert_eq!(remote.submit_evidence(&evidence(&won)).await, Ok(handed_in));
    remote.decide_dispute(&won, Decision::Win).await.unwrap();
    let lost = remote.open_dispute("att_1", None, false).await.unwrap();
    let accept = AcceptDispute {
        reference: "dsp_2-response-1".to_owned(),
        dispute_ref: lost,
    };
    let accepted = remote.accept_dispute(&accept).await;
    assert_eq!(accepted.unwrap().state, DisputeState::Lost);
    remote.refund(&refund("re_1", "att_1", 100)).await.unwrap();
    remote.return_refund("re_1").await.unwrap();
    let near = &*far.simulator;
    let seen = near.look_up_disputes("att_1").await;
    assert_eq!(seen.as_ref().unwrap().len(), 2);
    assert_eq!(remote.look_up_disputes("att_1").await, seen);
    let returned = near.look_up_settlement("re_1").await;
    assert!(matches!(returned, Ok(Some(Settlement::Declined(_)))));
    assert_eq!(remote.look_up_settlement("re_1").await, returned);
    assert_eq!(books(&remote).await, books(near).await);
}

#[tokio::test]
async fn a_customer_authenticates() {
    let far = Far::new().await;
    let remote = far.client();
    let token = "pm_card_authentication_required";
    remote.authorize(&authorize("att_1", token)).await.unwrap();
    assert_eq!(remote.authenticate("att_1", true).await, Ok(true));
    assert_eq!(remote.authenticate("att_1", true).await, Ok(false));
    let stands = far.simulator.look_up_charge("att_1").await;
    assert_eq!(remote.look_up_charge("att_1").await, stands);
}

#[tokio::test]
async fn a_simulator_with_other_capabilities_is_sent_no_command() {
    let far = Far::new().await;
    let other = SimulatorConfig {
        one_step: true,
        ..config()
    };
    let remote = client(&far.url(), crate::far::KEY, &other);
    let answer = remote.authorize(&authorize("att_1", "pm_card_visa")).await;
    assert!(is_unavailable(&answer), "{answer:?}");
    assert_eq!(far.simulator.look_up_charge("att_1").await, Ok(None));
}
