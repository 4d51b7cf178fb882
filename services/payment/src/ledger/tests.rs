//! Entries balance or cannot be made, and say what they record.

use super::*;
use proptest::prelude::*;

const NOW_US: i64 = 1_700_000_000_000_000;

fn money(code: &str, amount_minor: i64) -> Money {
    Money::new(Currency::parse(code).unwrap(), amount_minor).unwrap()
}

fn entry(postings: Vec<Posting>) -> Result<Transaction, Unbalanced> {
    let source = Source::Capture(CaptureId::generate(NOW_US));
    Transaction::new(None, source, postings, NOW_US)
}

fn posting(account: Account, amount: Money) -> Posting {
    Posting { account, amount }
}

fn sides(entry: &Transaction) -> Vec<(String, i64)> {
    let side = |posting: &Posting| (posting.account.to_string(), posting.amount.amount_minor());
    entry.postings().iter().map(side).collect()
}

#[test]
fn a_capture_debits_the_provider_and_credits_sales() {
    let (payment, capture) = (PaymentId::generate(NOW_US), CaptureId::generate(NOW_US));
    let entry =
        Transaction::of_capture(payment, capture, "simulator", money("USD", 199), NOW_US).unwrap();
    assert_eq!(
        sides(&entry),
        [
            ("assets:provider:simulator".to_owned(), 199),
            ("income:sales".to_owned(), -199)
        ]
    );
    assert_eq!(entry.source(), Source::Capture(capture));
    assert_eq!(entry.source().kind(), "capture");
    assert_eq!(entry.payment(), Some(payment));
    assert_eq!(entry.recorded_at_us(), NOW_US);
}

#[test]
fn a_refund_debits_refunds_and_credits_the_provider() {
    let (payment, refund) = (PaymentId::generate(NOW_US), RefundId::generate(NOW_US));
    let entry =
        Transaction::of_refund(payment, refund, "simulator", money("KRW", 1000), NOW_US).unwrap();
    assert_eq!(
        sides(&entry),
        [
            ("income:refunds".to_owned(), 1000),
            ("assets:provider:simulator".to_owned(), -1000)
        ]
    );
    assert_eq!(entry.source().to_string(), refund.to_string());
    assert_eq!(entry.source().kind(), "refund");
}

#[test]
fn shipping_and_tax_have_accounts_of_their_own() {
    let (payment, capture) = (PaymentId::generate(NOW_US), CaptureId::generate(NOW_US));
    let split = Split {
        goods: money("USD", 900),
        shipping: money("USD", 50),
        tax: money("USD", 181),
    };
    let sides = |entry: Transaction| -> Vec<(String, i64)> {
        let sides = entry.postings().iter();
        sides
            .map(|side| (side.account.to_string(), side.amount.amount_minor()))
            .collect()
    };
    let captured = Transaction::of_capture(payment, capture, "p", split, NOW_US).unwrap();
    let expected = [
        ("assets:provider:p", 1131),
        ("income:sales", -900),
        ("income:shipping", -50),
        ("liabilities:tax", -181),
    ];
    assert_eq!(
        sides(captured),
        expected.map(|(account, minor)| (account.to_owned(), minor))
    );
    let refund = RefundId::generate(NOW_US);
    let refunded = Transaction::of_refund(payment, refund, "p", split, NOW_US).unwrap();
    let expected = [
        ("income:refunds", 950),
        ("liabilities:tax", 181),
        ("assets:provider:p", -1131),
    ];
    assert_eq!(
        sides(refunded),
        expected.map(|(account, minor)| (account.to_owned(), minor))
    );
}

#[test]
fn what_follows_moves_what_the_provider_owes() {
    let (payment, amount) = (PaymentId::generate(NOW_US), money("USD", 250));
    let refund = RefundId::generate(NOW_US);
    let dispute = DisputeId::generate(NOW_US);
    let line = SettlementId::generate(NOW_US);
    let entries = [
        Transaction::of_refund_reversal(payment, refund, "p", amount, NOW_US),
        Transaction::of_dispute(payment, dispute, "p", amount, NOW_US),
        Transaction::of_dispute_reversal(payment, dispute, "p", amount, NOW_US),
        Transaction::of_fee(None, line, "p", amount, NOW_US),
        Transaction::of_payout(line, "p", amount, NOW_US),
    ];
    let expected = [
        ("refund_reversal", "income:refunds", 250),
        ("dispute", "expenses:disputes", -250),
        ("dispute_reversal", "expenses:disputes", 250),
        ("fee", "expenses:fees:p", -250),
        ("payout", "assets:bank:p", -250),
    ];
    for (entry, (kind, other, owed)) in entries.into_iter().zip(expected) {
        let entry = entry.unwrap();
        let mut sides: Vec<(String, i64)> = entry
            .postings()
            .iter()
            .map(|side| (side.account.to_string(), side.amount.amount_minor()))
            .collect();
        sides.sort();
        let mut wanted = [
            ("assets:provider:p".to_owned(), owed),
            (other.to_owned(), -owed),
        ];
        wanted.sort();
        assert_eq!(sides, wanted, "{kind}");
        let source = entry.source();
        assert_eq!(source.kind(), kind);
        assert_eq!(Source::from_uuid(kind, source.uuid()), Ok(Some(source)));
        assert_eq!(Source::parse(kind, &source.to_string()), Ok(Some(source)));
        assert!(entry.stripe(16) < 16);
    }
    assert_eq!(Source::parse("gift", "re_"), Ok(None));
    assert!(Source::parse("refund", "cap_").is_err());
}

#[test]
fn what_is_no_entry_cannot_be_made() {
    assert_eq!(entry(vec![]), Err(Unbalanced::TooFew(0)));
    let one = vec![posting(Account::Sales, money("USD", 1))];
    assert_eq!(entry(one), Err(Unbalanced::TooFew(1)));
    let zero = vec![
        posting(Account::Sales, money("USD", 0)),
        posting(Account::Refunds, money("USD", 0)),
    ];
    assert_eq!(entry(zero), Err(Unbalanced::Zero(Account::Sales)));
    let two_currencies = vec![
        posting(Account::Sales, money("USD", 5)),
        posting(Account::Refunds, money("KRW", -5)),
    ];
    assert!(matches!(entry(two_currencies), Err(Unbalanced::Sum(_, _))));
}

proptest! {
    #[test]
    fn postings_make_an_entry_exactly_when_they_balance(
        amounts in prop::collection::vec((0_usize..3, -50_i64..50), 0..6),
    ) {
        let codes = ["USD", "KRW", "KWD"];
        let mut sums = [0_i64; 3];
        for (currency, amount) in &amounts {
            sums[*currency] += amount;
        }
        let balanced = amounts.len() >= 2
            && sums == [0, 0, 0]
            && amounts.iter().all(|(_, amount)| *amount != 0);
        let postings = amounts
            .iter()
            .map(|(currency, amount)| posting(Account::Sales, money(codes[*currency], *amount)))
            .collect();
        prop_assert_eq!(entry(postings).is_ok(), balanced);
    }

    #[test]
    fn captures_and_refunds_of_any_amount_balance(amount_minor in 1..=kernel::AMOUNT_MINOR_MAX) {
        let (payment, amount) = (PaymentId::generate(NOW_US), money("USD", amount_minor));
        for entry in [
            Transaction::of_capture(payment, CaptureId::generate(NOW_US), "p", amount, NOW_US),
            Transaction::of_refund(payment, RefundId::generate(NOW_US), "p", amount, NOW_US),
        ] {
            let sum: i64 =
                entry.unwrap().postings().iter().map(|p| p.amount.amount_minor()).sum();
            prop_assert_eq!(sum, 0);
        }
    }
}
