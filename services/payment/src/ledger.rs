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
mod tests;
