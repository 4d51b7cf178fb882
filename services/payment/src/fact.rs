//! What a change leaves behind besides the new state: facts for others, moves for the history,
//! entries for the books, lines for the sales. All of it is stored in the transaction of the change.

use crate::audit::Record;
use crate::dispute::{Dispute, Keeping};
use crate::failure::Failure;
use crate::ledger::{Split, Transaction};
use crate::limits::Spending;
use crate::payment::CancelReason;
use crate::policy::Rules;
use crate::sales::SaleLine;
use crate::state::State;
use kernel::{CaptureId, Money, RefundId};

/// Something that others may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// The payment was created.
    Created,
    /// The provider holds the money; it waits for a capture.
    Authorized,
    /// Money was taken.
    Captured {
        /// The capture.
        capture: CaptureId,
        /// How much.
        amount: Money,
        /// What for.
        split: Split,
        /// When it was sold: ordered if that is known, else captured.
        sold_at_us: i64,
        /// What was sold.
        lines: Vec<SaleLine>,
    },
    /// Nothing is left to do.
    Succeeded,
    /// An attempt was refused.
    Declined(Failure),
    /// The payment was given up.
    Canceled(CancelReason),
    /// Money was given back.
    Refunded {
        /// The refund.
        refund: RefundId,
        /// How much.
        amount: Money,
        /// What for.
        split: Split,
        /// When it was asked for.
        refunded_at_us: i64,
        /// What was given back.
        lines: Vec<SaleLine>,
    },
    /// A refund was refused.
    RefundFailed {
        /// The refund.
        refund: RefundId,
        /// Why.
        failure: Failure,
        /// What was undone, where it had succeeded before.
        reversed: Option<Reversed>,
    },
    /// A dispute became known.
    DisputeOpened(Box<Dispute>),
    /// A dispute that is not decided has changed.
    DisputeUpdated(Box<Dispute>),
    /// A dispute is decided.
    DisputeClosed(Box<Dispute>),
}

/// A refund that was undone because its money came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reversed {
    /// How much came back.
    pub amount: Money,
    /// What for.
    pub split: Split,
    /// What had been given back, line by line.
    pub lines: Vec<SaleLine>,
    /// Whether its units had gone back into stock, or are to: that is not undone.
    pub restocked: bool,
    /// When it was known.
    pub reversed_at_us: i64,
}

/// One move of the state, for the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// The payment's version after it.
    pub version: i64,
    /// Where it stood; nothing at the creation.
    pub from: Option<State>,
    /// Where it stands.
    pub to: State,
}

/// Everything that is stored with a change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effects {
    /// Facts, each with the payment's version at that moment.
    pub facts: Vec<(i64, Fact)>,
    /// Moves of the state.
    pub moves: Vec<Moved>,
    /// Entries for the books.
    pub entries: Vec<Transaction>,
    /// Lines for the sales.
    pub sales: Vec<SaleLine>,
    /// What is asked for, against each limit of the caller; what exceeds one is not written at all.
    pub spending: Vec<Spending>,
    /// Evidence that is kept until the provider has it, or is not needed any more.
    pub evidence: Vec<Keeping>,
    /// Who did it.
    pub audit: Vec<Record>,
}

/// One change in the making: the time, the rules, and what it leaves behind.
#[derive(Debug)]
pub struct Turn<'a> {
    /// Now.
    pub now_us: i64,
    /// The limits that hold.
    pub rules: &'a Rules,
    /// What is stored with the change.
    pub effects: Effects,
}

impl<'a> Turn<'a> {
    /// A change at `now_us`.
    pub fn new(now_us: i64, rules: &'a Rules) -> Self {
        Self {
            now_us,
            rules,
            effects: Effects::default(),
        }
    }
}
