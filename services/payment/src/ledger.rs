//! The double-entry ledger: entries as values that cannot be made unbalanced.
//!
//! Debits are positive, credits negative. A capture debits what the provider owes us and credits sales (the goods less
//! discounts), shipping and tax; a refund debits refunds (the contra account of sales and shipping) and tax, and credits
//! the provider. A refund that fails after all is reversed by an entry of its own, and so is a dispute that is won. What
//! a provider keeps is an expense; what it pays out moves to the bank.
//! Deliberately missing: exchange between currencies. Nothing is booked for a charge that was taken
//! back before its goods were committed: it was no sale.

use kernel::{
    CaptureId, Currency, DisputeId, InvalidId, Money, PaymentId, RefundId, SettlementId,
    TransactionId,
};
use std::collections::BTreeMap;
use uuid::Uuid;

/// An account's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Account {
    /// What a provider owes us.
    Provider(String),
    /// What was sold.
    Sales,
    /// What was given back of goods and shipping, kept apart from sales.
    Refunds,
    /// What customers paid for shipping.
    Shipping,
    /// Tax that customers paid and that is owed to whoever levies it.
    Tax,
    /// What a provider paid out to us.
    Bank(String),
    /// What a provider kept for its service.
    Fees(String),
    /// What was taken back by customers' banks.
    Disputes,
}

impl std::fmt::Display for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Provider(name) => write!(f, "assets:provider:{name}"),
            Self::Sales => f.write_str("income:sales"),
            Self::Refunds => f.write_str("income:refunds"),
            Self::Shipping => f.write_str("income:shipping"),
            Self::Tax => f.write_str("liabilities:tax"),
            Self::Bank(name) => write!(f, "assets:bank:{name}"),
            Self::Fees(name) => write!(f, "expenses:fees:{name}"),
            Self::Disputes => f.write_str("expenses:disputes"),
        }
    }
}

/// One side of an entry: positive for a debit, negative for a credit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posting {
    /// Where it is booked.
    pub account: Account,
    /// How much, never zero.
    pub amount: Money,
}

/// What an amount is for; no part is negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Split {
    /// Goods, less discounts.
    pub goods: Money,
    /// Shipping.
    pub shipping: Money,
    /// Tax on both.
    pub tax: Money,
}

impl From<Money> for Split {
    /// All of it for goods.
    fn from(goods: Money) -> Self {
        let zero = Money::zero(goods.currency());
        Self {
            goods,
            shipping: zero,
            tax: zero,
        }
    }
}

impl Split {
    /// Against a provider: a positive sign for money that came in.
    fn postings(self, provider: &str, sign: i64) -> Vec<Posting> {
        let signed = |amount: Money, sign| if sign < 0 { amount.negated() } else { amount };
        let sold = if sign < 0 {
            Account::Refunds
        } else {
            Account::Sales
        };
        let shipped = if sign < 0 {
            Account::Refunds
        } else {
            Account::Shipping
        };
        let sides = [
            (sold, self.goods),
            (shipped, self.shipping),
            (Account::Tax, self.tax),
        ];
        let mut postings: Vec<Posting> = Vec::with_capacity(4);
        for (account, amount) in sides {
            let amount = signed(amount, -sign);
            let same = postings
                .iter_mut()
                .find(|posting| posting.account == account);
            match same {
                Some(posting) => posting.amount = plus(posting.amount, amount),
                None => postings.push(Posting { account, amount }),
            }
        }
        postings.retain(|posting| !posting.amount.is_zero());
        let sum = postings
            .iter()
            .fold(Money::zero(self.goods.currency()), |sum, posting| {
                plus(sum, posting.amount)
            });
        let provider = Account::Provider(provider.to_owned());
        let provider = Posting {
            account: provider,
            amount: sum.negated(),
        };
        postings.insert(if sign < 0 { postings.len() } else { 0 }, provider);
        postings
    }
}

fn plus(one: Money, other: Money) -> Money {
    one.checked_add(other)
        .expect("parts of a payment are no larger than its amount, which is an amount")
}

/// `amount` from what the provider owes us to another account.
fn from_provider(provider: &str, to: Account, amount: Money) -> Vec<Posting> {
    let provider = Account::Provider(provider.to_owned());
    let (debit, credit) = ((to, amount), (provider, amount.negated()));
    let posting = |(account, amount)| Posting { account, amount };
    vec![posting(debit), posting(credit)]
}

/// What an entry records: exactly one entry each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// A capture.
    Capture(CaptureId),
    /// A refund.
    Refund(RefundId),
    /// That a refund failed after it was booked.
    RefundReversal(RefundId),
    /// That a dispute took money back.
    Dispute(DisputeId),
    /// That its money came back to us.
    DisputeReversal(DisputeId),
    /// What a provider kept.
    Fee(SettlementId),
    /// What a provider paid out.
    Payout(SettlementId),
}

impl Source {
    /// The kind as it is stored.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Capture(_) => "capture",
            Self::Refund(_) => "refund",
            Self::RefundReversal(_) => "refund_reversal",
            Self::Dispute(_) => "dispute",
            Self::DisputeReversal(_) => "dispute_reversal",
            Self::Fee(_) => "fee",
            Self::Payout(_) => "payout",
        }
    }

    /// Reads [`Source::kind`] and [`Source::uuid`] back; nothing where there is no such kind.
    pub fn from_uuid(kind: &str, uuid: Uuid) -> Result<Option<Self>, InvalidId> {
        Ok(Some(match kind {
            "capture" => Self::Capture(CaptureId::from_uuid(uuid)?),
            "refund" => Self::Refund(RefundId::from_uuid(uuid)?),
            "refund_reversal" => Self::RefundReversal(RefundId::from_uuid(uuid)?),
            "dispute" => Self::Dispute(DisputeId::from_uuid(uuid)?),
            "dispute_reversal" => Self::DisputeReversal(DisputeId::from_uuid(uuid)?),
            "fee" => Self::Fee(SettlementId::from_uuid(uuid)?),
            "payout" => Self::Payout(SettlementId::from_uuid(uuid)?),
            _ => return Ok(None),
        }))
    }

    /// Reads [`Source::kind`] and the text of the id back; nothing where there is no such kind.
    pub fn parse(kind: &str, id: &str) -> Result<Option<Self>, InvalidId> {
        Ok(Some(match kind {
            "capture" => Self::Capture(CaptureId::parse(id)?),
            "refund" => Self::Refund(RefundId::parse(id)?),
            "refund_reversal" => Self::RefundReversal(RefundId::parse(id)?),
            "dispute" => Self::Dispute(DisputeId::parse(id)?),
            "dispute_reversal" => Self::DisputeReversal(DisputeId::parse(id)?),
            "fee" => Self::Fee(SettlementId::parse(id)?),
            "payout" => Self::Payout(SettlementId::parse(id)?),
            _ => return Ok(None),
        }))
    }

    /// The UUID in the id of what is recorded.
    pub fn uuid(self) -> Uuid {
        match self {
            Self::Capture(id) => id.uuid(),
            Self::Refund(id) | Self::RefundReversal(id) => id.uuid(),
            Self::Dispute(id) | Self::DisputeReversal(id) => id.uuid(),
            Self::Fee(id) | Self::Payout(id) => id.uuid(),
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Capture(id) => id.fmt(f),
            Self::Refund(id) | Self::RefundReversal(id) => id.fmt(f),
            Self::Dispute(id) | Self::DisputeReversal(id) => id.fmt(f),
            Self::Fee(id) | Self::Payout(id) => id.fmt(f),
        }
    }
}

/// Postings that are no entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unbalanced {
    /// Fewer than two.
    #[error("an entry has at least two postings, not {0}")]
    TooFew(usize),
    /// One of nothing.
    #[error("a posting to {0} is zero")]
    Zero(Account),
    /// The sum over a currency is not zero.
    #[error("postings in {0} sum to {1}, not to zero")]
    Sum(Currency, i128),
}

/// One entry. Its postings sum to zero in each currency: there is no way to make another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    id: TransactionId,
    payment: Option<PaymentId>,
    source: Source,
    postings: Vec<Posting>,
    recorded_at_us: i64,
}

impl Transaction {
    /// An entry of these postings; fees and payouts need not belong to one payment.
    pub fn new(
        payment: Option<PaymentId>,
        source: Source,
        postings: Vec<Posting>,
        now_us: i64,
    ) -> Result<Self, Unbalanced> {
        if postings.len() < 2 {
            return Err(Unbalanced::TooFew(postings.len()));
        }
        let mut sums: BTreeMap<Currency, i128> = BTreeMap::new();
        for posting in &postings {
            if posting.amount.is_zero() {
                return Err(Unbalanced::Zero(posting.account.clone()));
            }
            *sums.entry(posting.amount.currency()).or_default() +=
                i128::from(posting.amount.amount_minor());
        }
        if let Some((currency, sum)) = sums.into_iter().find(|(_, sum)| *sum != 0) {
            return Err(Unbalanced::Sum(currency, sum));
        }
        let id = TransactionId::generate(now_us);
        Ok(Self {
            id,
            payment,
            source,
            postings,
            recorded_at_us: now_us,
        })
    }

    /// Money came in for a sale. The sum is above zero.
    pub fn of_capture(
        payment: PaymentId,
        capture: CaptureId,
        provider: &str,
        split: impl Into<Split>,
        now_us: i64,
    ) -> Result<Self, Unbalanced> {
        let postings = split.into().postings(provider, 1);
        Self::new(Some(payment), Source::Capture(capture), postings, now_us)
    }

    /// Money went back. The sum is above zero.
    pub fn of_refund(
        payment: PaymentId,
        refund: RefundId,
        provider: &str,
        split: impl Into<Split>,
        now_us: i64,
    ) -> Result<Self, Unbalanced> {
        let postings = split.into().postings(provider, -1);
        Self::new(Some(payment), Source::Refund(refund), postings, now_us)
    }

    /// Money that went back did not arrive and is ours again: all that [`Transaction::of_refund`] booked, the other way
    /// round.
    pub fn of_refund_reversal(
        payment: PaymentId,
        refund: RefundId,
        provider: &str,
        split: impl Into<Split>,
        now_us: i64,
    ) -> Result<Self, Unbalanced> {
        let mut postings = split.into().postings(provider, -1);
        for posting in &mut postings {
            posting.amount = posting.amount.negated();
        }
        Self::new(
            Some(payment),
            Source::RefundReversal(refund),
            postings,
            now_us,
        )
    }

    /// A dispute took `amount`, which is above zero, from what the provider owes us.
    pub fn of_dispute(
        payment: PaymentId,
        dispute: DisputeId,
        provider: &str,
        amount: Money,
        now_us: i64,
    ) -> Result<Self, Unbalanced> {
        let postings = from_provider(provider, Account::Disputes, amount);
        Self::new(Some(payment), Source::Dispute(dispute), postings, now_us)
    }

    /// `amount` of a dispute, which is above zero, came back.
    pub fn of_dispute_reversal(
        payment: PaymentId,
        dispute: DisputeId,
        provider: &str,
        amount: Money,
        now_us: i64,
    ) -> Result<Self, Unbalanced> {
        let postings = from_provider(provider, Account::Disputes, amount.negated());
        Self::new(
            Some(payment),
            Source::DisputeReversal(dispute),
            postings,
            now_us,
        )
    }

    /// The provider kept `amount`; below zero: it gave a fee back.
    pub fn of_fee(
        payment: Option<PaymentId>,
        fee: SettlementId,
        provider: &str,
        amount: Money,
        now_us: i64,
    ) -> Result<Self, Unbalanced> {
        let postings = from_provider(provider, Account::Fees(provider.to_owned()), amount);
        Self::new(payment, Source::Fee(fee), postings, now_us)
    }

    /// The provider paid `amount` out; below zero: it took what we owed it.
    pub fn of_payout(
        payout: SettlementId,
        provider: &str,
        amount: Money,
        now_us: i64,
    ) -> Result<Self, Unbalanced> {
        let postings = from_provider(provider, Account::Bank(provider.to_owned()), amount);
        Self::new(None, Source::Payout(payout), postings, now_us)
    }

    /// Its id.
    pub fn id(&self) -> TransactionId {
        self.id
    }

    /// The payment that it belongs to, where it belongs to one.
    pub fn payment(&self) -> Option<PaymentId> {
        self.payment
    }

    /// Which of `stripes` rows of a balance it is added to. The id of what it belongs to spreads the writes: its last
    /// bits are random.
    pub fn stripe(&self, stripes: u128) -> u128 {
        let uuid = self.payment.map_or(self.source.uuid(), PaymentId::uuid);
        uuid.as_u128() % stripes
    }

    /// What it records.
    pub fn source(&self) -> Source {
        self.source
    }

    /// Its postings, at least two.
    pub fn postings(&self) -> &[Posting] {
        &self.postings
    }

    /// When it was recorded.
    pub fn recorded_at_us(&self) -> i64 {
        self.recorded_at_us
    }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn a_capture_debits_the_provider_and_credits_sales() {
        let (payment, capture) = (PaymentId::generate(NOW_US), CaptureId::generate(NOW_US));
        let entry =
            Transaction::of_capture(payment, capture, "simulator", money("USD", 199), NOW_US)
                .unwrap();
        let sides: Vec<(String, i64)> = entry
            .postings()
            .iter()
            .map(|posting| (posting.account.to_string(), posting.amount.amount_minor()))
            .collect();
        assert_eq!(
            sides,
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
            Transaction::of_refund(payment, refund, "simulator", money("KRW", 1000), NOW_US)
                .unwrap();
        let sides: Vec<(String, i64)> = entry
            .postings()
            .iter()
            .map(|posting| (posting.account.to_string(), posting.amount.amount_minor()))
            .collect();
        assert_eq!(
            sides,
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
}
