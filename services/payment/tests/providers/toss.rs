//! Toss Payments, against a stand-in that keeps its rules.

use crate::notes::Notes;
use crate::toss_stand_in::StandIn;
use kernel::{Currency, Money};
use mesh_runtime::Clock;
use mesh_runtime::config::Secret;
use payment::provider::toss::{Toss, TossConfig};
use payment::provider::{
    Authorize, ChargeOutcome, Decline, Provider as _, ProviderError, Refund, Settlement,
    SettlementKind, TransactionKind, Void,
};
use std::sync::Arc;

const ORDER: &str = "pay_01h455vb4pex5vsknk084sn02q";

async fn toss() -> (StandIn, Toss) {
    let (stand_in, url) = StandIn::start().await;
    (stand_in, at(url, "test_sk_1"))
}

fn at(url: String, key: &str) -> Toss {
    let config = TossConfig {
        url,
        secret_key: Secret::new(key),
        ..TossConfig::default()
    };
    let clock = Clock::manual(1_700_000_000_000_000);
    Toss::new(&config, Arc::new(Notes::default()), clock).unwrap()
}

fn won(amount_minor: i64) -> Money {
    Money::new(Currency::parse("KRW").unwrap(), amount_minor).unwrap()
}

fn authorize(reference: &str, key: &str, amount_minor: i64) -> Authorize {
    Authorize {
        reference: reference.to_owned(),
        payment_reference: ORDER.to_owned(),
        amount: won(amount_minor),
        payment_method: key.to_owned(),
        order_ref: "ORDER-1".to_owned(),
        capture: true,
    }
}

fn refund(reference: &str, charge: &str, amount_minor: i64) -> Refund {
    Refund {
        reference: reference.to_owned(),
        charge_reference: charge.to_owned(),
        amount: won(amount_minor),
    }
}

fn captured(key: &str) -> ChargeOutcome {
    ChargeOutcome::Captured {
        provider_ref: key.to_owned(),
    }
}

fn done(transaction: &str) -> Settlement {
    Settlement::Done {
        provider_ref: transaction.to_owned(),
    }
}

#[tokio::test]
async fn a_confirmation_takes_the_money_once() {
    let (stand_in, toss) = toss().await;
    stand_in.agreed("key_1", ORDER, 36_000);
    let charge = authorize("att_1", "key_1", 36_000);
    for _ in 0..2 {
        assert_eq!(toss.authorize(&charge).await, Ok(captured("key_1")));
    }
    assert_eq!(
        toss.look_up_charge("att_1").await,
        Ok(Some(captured("key_1")))
    );
    assert_eq!(stand_in.confirmations(), 1);
    assert_eq!(toss.look_up_charge("att_unsent").await, Ok(None));
}

#[tokio::test]
async fn another_amount_than_the_customer_agreed_to_is_refused() {
    let (stand_in, toss) = toss().await;
    stand_in.agreed("key_1", ORDER, 100);
    let refused = toss.authorize(&authorize("att_1", "key_1", 36_000)).await;
    let Err(ProviderError::Refused { code, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(
        (code.as_str(), stand_in.confirmations()),
        ("INVALID_REQUEST", 0)
    );
}

#[tokio::test]
async fn a_lost_answer_is_found_by_the_order() {
    let (stand_in, toss) = toss().await;
    for (reference, key, done) in [("att_1", "key_1", true), ("att_2", "key_2", false)] {
        stand_in.agreed(key, ORDER, 36_000);
        stand_in.next_confirmation(500, "FAILED_INTERNAL_SYSTEM_PROCESSING", done);
        let lost = toss.authorize(&authorize(reference, key, 36_000)).await;
        assert!(matches!(lost, Err(ProviderError::Unknown(_))), "{lost:?}");
        let expected = done.then(|| captured(key));
        assert_eq!(toss.look_up_charge(reference).await, Ok(expected), "{key}");
    }
    // The order has a newer key by now: the older one is found all the same.
    assert_eq!(
        toss.look_up_charge("att_1").await,
        Ok(Some(captured("key_1")))
    );
}

/// Who names the key of an order that is paid already must not have another one for it, even where the answer to
/// the confirmation is lost and the outcome is looked up.
#[tokio::test]
async fn a_key_of_another_order_pays_nothing() {
    const PAID: &str = "pay_01h455vb4pex5vsknk084sn02r";
    for (status, code) in [
        (500, "FAILED_INTERNAL_SYSTEM_PROCESSING"),
        (400, "ALREADY_PROCESSED_PAYMENT"),
    ] {
        let (stand_in, toss) = toss().await;
        stand_in.agreed("key_1", PAID, 36_000);
        let paid = Authorize {
            payment_reference: PAID.to_owned(),
            ..authorize("att_1", "key_1", 36_000)
        };
        assert_eq!(toss.authorize(&paid).await, Ok(captured("key_1")));
        stand_in.next_confirmation(status, code, false);
        let again = toss.authorize(&authorize("att_2", "key_1", 36_000)).await;
        assert!(again.is_err(), "{code}: {again:?}");
        assert_eq!(toss.look_up_charge("att_2").await, Ok(None), "{code}");
    }
}

#[tokio::test]
async fn a_confirmation_whose_key_toss_has_forgotten_is_looked_up() {
    let (stand_in, toss) = toss().await;
    stand_in.agreed("key_1", ORDER, 36_000);
    toss.authorize(&authorize("att_1", "key_1", 36_000))
        .await
        .unwrap();
    let again = toss
        .authorize(&authorize("att_later", "key_1", 36_000))
        .await;
    assert_eq!(
        (again, stand_in.confirmations()),
        (Ok(captured("key_1")), 1)
    );
}

#[tokio::test]
async fn each_error_code_says_what_it_means() {
    let decline = |code: &str, message: &str| {
        let (code, message) = (code.to_owned(), message.to_owned());
        Ok(ChargeOutcome::Declined(Decline { code, message }))
    };
    let table = [
        (
            403,
            "REJECT_CARD_PAYMENT",
            decline(
                "INSUFFICIENT_FUNDS",
                "there is not enough money, or a limit is reached",
            ),
        ),
        (
            400,
            "EXCEED_MAX_PAYMENT_AMOUNT",
            decline(
                "INSUFFICIENT_FUNDS",
                "a limit of the payment method is reached",
            ),
        ),
        (
            403,
            "INVALID_PASSWORD",
            decline("AUTHENTICATION_FAILED", "the customer did not authenticate"),
        ),
        (
            404,
            "NOT_FOUND_PAYMENT_SESSION",
            decline("CARD_DECLINED", "the payment was not finished in time"),
        ),
        (
            403,
            "REJECT_CARD_COMPANY",
            decline("CARD_DECLINED", "the payment was declined"),
        ),
        (
            400,
            "INVALID_CARD_LOST_OR_STOLEN",
            decline("CARD_DECLINED", "the payment was declined"),
        ),
    ];
    for (place, (status, code, expected)) in table.into_iter().enumerate() {
        let (stand_in, toss) = toss().await;
        stand_in.agreed("key_1", ORDER, 36_000);
        stand_in.next_confirmation(status, code, false);
        let reference = format!("att_{place}");
        assert_eq!(
            toss.authorize(&authorize(&reference, "key_1", 36_000))
                .await,
            expected,
            "{code}"
        );
    }
    for (status, code) in [
        (409, "IDEMPOTENT_REQUEST_PROCESSING"),
        (500, "UNKNOWN_PAYMENT_ERROR"),
    ] {
        let (stand_in, toss) = toss().await;
        stand_in.next_confirmation(status, code, false);
        let unknown = toss.authorize(&authorize("att_1", "key_1", 36_000)).await;
        assert!(
            matches!(unknown, Err(ProviderError::Unknown(_))),
            "{code}: {unknown:?}"
        );
    }
}

#[tokio::test]
async fn refunds_in_parts_carry_our_reference_and_are_made_once() {
    let (stand_in, toss) = toss().await;
    stand_in.agreed("key_1", ORDER, 36_000);
    toss.authorize(&authorize("att_1", "key_1", 36_000))
        .await
        .unwrap();
    for _ in 0..2 {
        assert_eq!(
            toss.refund(&refund("re_1", "att_1", 6_000)).await,
            Ok(done("txn_1"))
        );
    }
    assert_eq!(stand_in.balance("key_1"), 30_000);
    assert_eq!(
        toss.look_up_settlement("re_1").await,
        Ok(Some(done("txn_1")))
    );
    assert_eq!(toss.look_up_settlement("re_2").await, Ok(None));
    let too_much = toss.refund(&refund("re_2", "att_1", 30_001)).await;
    assert!(
        matches!(too_much, Err(ProviderError::Refused { .. })),
        "{too_much:?}"
    );
    assert_eq!(toss.look_up_settlement("re_2").await, Ok(None));
    assert_eq!(
        toss.refund(&refund("re_3", "att_1", 30_000)).await,
        Ok(done("txn_2"))
    );
    let over = toss.refund(&refund("re_4", "att_1", 1)).await;
    assert!(
        matches!(over, Err(ProviderError::Refused { .. })),
        "{over:?}"
    );
    let unknown = toss.refund(&refund("re_5", "att_unsent", 1)).await;
    assert!(
        matches!(unknown, Err(ProviderError::Refused { .. })),
        "{unknown:?}"
    );
}

#[tokio::test]
async fn a_deposit_is_pending_until_it_comes_or_its_time_is_over() {
    let (stand_in, toss) = toss().await;
    stand_in.agreed("vbank_1", ORDER, 36_000);
    let charge = authorize("att_1", "vbank_1", 36_000);
    assert_eq!(toss.authorize(&charge).await, Ok(ChargeOutcome::Pending));
    assert_eq!(
        toss.look_up_charge("att_1").await,
        Ok(Some(ChargeOutcome::Pending))
    );
    stand_in.becomes("vbank_1", "DONE");
    assert_eq!(
        toss.look_up_charge("att_1").await,
        Ok(Some(captured("vbank_1")))
    );
    stand_in.becomes("vbank_1", "EXPIRED");
    let expired = toss.look_up_charge("att_1").await;
    assert!(
        matches!(expired, Ok(Some(ChargeOutcome::Declined(_)))),
        "{expired:?}"
    );
}

#[tokio::test]
async fn what_was_not_taken_yet_is_given_up_whole() {
    let (stand_in, toss) = toss().await;
    stand_in.agreed("vbank_1", ORDER, 36_000);
    toss.authorize(&authorize("att_1", "vbank_1", 36_000))
        .await
        .unwrap();
    let charge_reference = "att_1".to_owned();
    assert_eq!(
        toss.void(&Void { charge_reference }).await,
        Ok(done("txn_1"))
    );
    assert_eq!(
        toss.look_up_charge("att_1").await,
        Ok(Some(ChargeOutcome::Voided))
    );
}

#[tokio::test]
async fn settlements_are_read_day_by_day_and_page_by_page() {
    let (stand_in, toss) = toss().await;
    for number in 0..101 {
        let (key, amount) = (format!("tx_{number:03}"), 10_000 + number);
        stand_in.settled(&key, ORDER, amount, amount - 330, "2023-11-14");
    }
    stand_in.settled("tx_canceled", ORDER, -10_000, -9_670, "2023-11-14");
    stand_in.settled("tx_tomorrow", ORDER, 10_000, 9_670, "2023-11-16"); // It is the 15th in Korea.
    let mut from = Some(toss.since(1_699_800_000_000_000));
    assert_eq!(from.as_deref(), Some("2023-11-12T23:40:00"));
    let mut lines = Vec::new();
    while let Some(place) = from {
        let page = toss.settlements(Some(&place)).await.unwrap();
        lines.extend(page.lines);
        from = page.next;
    }
    let sum = |kind: SettlementKind| -> i64 {
        let of = lines.iter().filter(|line| line.kind == kind);
        of.map(|line| line.amount.amount_minor()).sum()
    };
    assert_eq!(lines.len(), 2 * 102);
    assert_eq!(sum(SettlementKind::Fee), 101 * 330 - 330);
    assert_eq!(sum(SettlementKind::Payout), 101 * 9_670 + 5_050 - 9_670);
    let payout = lines
        .iter()
        .find(|line| line.kind == SettlementKind::Payout)
        .unwrap();
    assert_eq!(
        (payout.payout.as_str(), payout.arrival_day.as_str()),
        ("2023-11-14", "2023-11-14")
    );
    assert_eq!(payout.reference, ORDER);
    assert_eq!(
        payout.booked_at_us, 1_699_887_600_000_000,
        "midnight in Korea"
    );
    let nowhere = toss.settlements(Some("nowhere")).await;
    assert!(
        matches!(nowhere, Err(ProviderError::Refused { .. })),
        "{nowhere:?}"
    );
}

#[tokio::test]
async fn transactions_are_listed_from_a_time_on() {
    let (stand_in, toss) = toss().await;
    for number in 0..101 {
        stand_in.booked(&format!("tx_{number:03}"), ORDER, "DONE", 1_000);
    }
    stand_in.booked("tx_canceled", ORDER, "PARTIAL_CANCELED", -400);
    let since = toss.since(1_699_800_000_000_000);
    let first = toss.transactions(Some(&since)).await.unwrap();
    assert_eq!(first.transactions.len(), 100);
    let rest = toss.transactions(first.next.as_deref()).await.unwrap();
    let told: Vec<_> = rest
        .transactions
        .iter()
        .map(|one| (one.id.as_str(), one.kind, one.amount.amount_minor()))
        .collect();
    let expected = [
        ("tx_100", TransactionKind::Capture, 1_000),
        ("tx_canceled", TransactionKind::Refund, 400),
    ];
    assert_eq!(told, expected);
    assert_eq!(rest.next, None);
    assert_eq!(
        stand_in.starts(),
        ["2023-11-12T23:40:00", "2023-11-12T23:40:00"]
    );
}

#[tokio::test]
async fn a_wrong_key_tells_no_customer_that_the_card_was_declined() {
    let (stand_in, url) = StandIn::start().await;
    stand_in.agreed("key_1", ORDER, 36_000);
    let toss = at(url, "test_sk_other");
    let refused = toss.authorize(&authorize("att_1", "key_1", 36_000)).await;
    assert!(
        matches!(refused, Err(ProviderError::Unavailable(_))),
        "{refused:?}"
    );
}

#[test]
fn a_missing_key_is_named() {
    let clock = Clock::manual(0);
    let error = Toss::new(&TossConfig::default(), Arc::new(Notes::default()), clock);
    assert_eq!(
        error.err().unwrap().to_string(),
        "toss.secret_key: is needed, or toss.secret_key_file: provider \"toss\" is configured"
    );
}
