//! A dispute: a customer's bank takes the money of a charge back, or asks about it first.
//!
//! What it is stands at the provider; here is what was last seen of it, and our response. States only move on, so that
//! late, repeated and reordered news are harmless: what is older than what is known changes nothing. Deliberately
//! missing: the fee of a dispute (a line of the provider's settlement), and any judgement on whom the bank believes.

mod command;
mod evidence;

pub use evidence::{ContentType, Evidence, EvidenceFile, EvidenceRules, FileKind, Kept, TextKind};

use crate::failure::Failure;
use crate::policy::Asked;
use kernel::{AttemptId, DisputeId, Money};

/// How what a webhook names ends where it is about the disputes of a charge.
const REFERENCE: &str = "-disputes";

/// What a webhook about the disputes of an attempt's charge names.
pub fn reference_of(charge_reference: &str) -> String {
    format!("{charge_reference}{REFERENCE}")
}

/// The charge's reference in [`reference_of`]; of anything else, that itself.
pub fn charge_of(reference: &str) -> &str {
    reference.strip_suffix(REFERENCE).unwrap_or(reference)
}

/// Where a dispute stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DisputeState {
    /// The bank asks; no money has moved.
    Inquiry,
    /// The money is taken back, and evidence is waited for.
    NeedsResponse,
    /// The bank looks at what it was given.
    UnderReview,
    /// The money is ours. Final.
    Won,
    /// The money is the customer's. Final, unless the bank decides anew.
    Lost,
    /// The inquiry came to nothing. Final.
    Closed,
}

/// What can happen to a dispute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DisputeMove {
    /// The bank takes the money back.
    Escalate,
    /// The bank has what it waited for.
    Review,
    /// The bank decides for us.
    Win,
    /// The bank decides for the customer, or nobody answered it.
    Lose,
    /// The bank asks no more.
    Close,
}

impl DisputeState {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Inquiry,
        Self::NeedsResponse,
        Self::UnderReview,
        Self::Won,
        Self::Lost,
        Self::Closed,
    ];

    /// The state after a move; nothing where it is not allowed.
    pub fn after(self, step: DisputeMove) -> Option<Self> {
        use DisputeMove::{Close, Escalate, Lose, Review, Win};
        match (self, step) {
            (Self::Inquiry, Escalate) => Some(Self::NeedsResponse),
            (Self::Inquiry | Self::NeedsResponse, Review) => Some(Self::UnderReview),
            (Self::Inquiry | Self::NeedsResponse | Self::UnderReview | Self::Lost, Win) => {
                Some(Self::Won)
            }
            (Self::Inquiry | Self::NeedsResponse | Self::UnderReview, Lose) => Some(Self::Lost),
            (Self::Inquiry, Close) => Some(Self::Closed),
            (Self::NeedsResponse | Self::UnderReview, Escalate | Close)
            | (Self::UnderReview, Review)
            | (Self::Lost, Escalate | Review | Lose | Close)
            | (Self::Won | Self::Closed, Escalate | Review | Win | Lose | Close) => None,
        }
    }

    /// The move that leads to it; nothing leads to an inquiry.
    fn reached_by(self) -> Option<DisputeMove> {
        match self {
            Self::Inquiry => None,
            Self::NeedsResponse => Some(DisputeMove::Escalate),
            Self::UnderReview => Some(DisputeMove::Review),
            Self::Won => Some(DisputeMove::Win),
            Self::Lost => Some(DisputeMove::Lose),
            Self::Closed => Some(DisputeMove::Close),
        }
    }

    /// Where it stands once another state was seen: there, or as it was where that is older.
    #[must_use]
    pub fn once_seen(self, seen: Self) -> Self {
        let step = seen.reached_by();
        step.and_then(|step| self.after(step)).unwrap_or(self)
    }

    /// Whether it is decided.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Won | Self::Lost | Self::Closed)
    }

    /// The name in the contract, in the store and in filters.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inquiry => "INQUIRY",
            Self::NeedsResponse => "NEEDS_RESPONSE",
            Self::UnderReview => "UNDER_REVIEW",
            Self::Won => "WON",
            Self::Lost => "LOST",
            Self::Closed => "CLOSED",
        }
    }

    /// Reads [`DisputeState::name`] back.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// How far our response has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Response {
    /// None is under way or was given.
    None,
    /// Evidence is to be handed in, or was, and the answer is not known.
    Submitting,
    /// The provider has the evidence.
    Submitted,
    /// It is to be given up, or was, and the answer is not known.
    Accepting,
    /// It was given up.
    Accepted,
}

impl Response {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::None,
        Self::Submitting,
        Self::Submitted,
        Self::Accepting,
        Self::Accepted,
    ];

    /// The name in the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Submitting => "submitting",
            Self::Submitted => "submitted",
            Self::Accepting => "accepting",
            Self::Accepted => "accepted",
        }
    }

    /// Reads [`Response::name`] back.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|response| response.name() == name)
    }

    /// Whether the provider is to be asked, or was, and its answer is not known.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Submitting | Self::Accepting)
    }
}

/// A dispute as the provider has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenDispute {
    /// The provider's name of it.
    pub provider_ref: String,
    /// Where it stands.
    pub state: DisputeState,
    /// How much is disputed; above zero.
    pub amount: Money,
    /// Why, in the provider's words, such as `fraudulent`.
    pub reason: String,
    /// Until when evidence is taken, where the provider says it.
    pub evidence_due_at_us: Option<i64>,
    /// Whether the money was taken from us.
    pub withdrawn: bool,
    /// Whether it was given back to us after that.
    pub reinstated: bool,
    /// Whether evidence was handed in.
    pub responded: bool,
}

impl SeenDispute {
    /// Where it stands: what has taken money is no inquiry any more.
    pub fn stands(&self) -> DisputeState {
        match self.state {
            DisputeState::Inquiry if self.withdrawn => DisputeState::NeedsResponse,
            DisputeState::Closed if self.reinstated => DisputeState::Won,
            DisputeState::Closed if self.withdrawn => DisputeState::Lost,
            state => state,
        }
    }
}

/// One dispute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dispute {
    /// Its id.
    pub id: DisputeId,
    /// The attempt whose charge is disputed.
    pub attempt: AttemptId,
    /// The provider's name of it.
    pub provider_ref: String,
    /// Where it stands.
    pub state: DisputeState,
    /// How much is disputed. Fixed once it is booked.
    pub amount: Money,
    /// Why, in the provider's words.
    pub reason: String,
    /// Until when evidence is taken.
    pub evidence_due_at_us: Option<i64>,
    /// When it was known that the money was taken: booked then.
    pub withdrawn_at_us: Option<i64>,
    /// When it was known that the money came back: booked then.
    pub reinstated_at_us: Option<i64>,
    /// How far our response has come.
    pub response: Response,
    /// How many responses were begun: a part of the provider's idempotency key.
    pub responses: u32,
    /// When the last one was begun.
    pub responded_at_us: Option<i64>,
    /// The question to the provider.
    pub asked: Asked,
    /// What is known of the evidence that was handed in last.
    pub evidence: Vec<Kept>,
    /// Why the last response failed.
    pub failure: Option<Failure>,
    /// When it became known.
    pub created_at_us: i64,
    /// When it last changed.
    pub updated_at_us: i64,
}

impl Dispute {
    /// One that was seen for the first time. Nothing of it is booked yet.
    pub fn new(attempt: AttemptId, seen: &SeenDispute, now_us: i64) -> Self {
        Self {
            id: DisputeId::generate(now_us),
            attempt,
            provider_ref: seen.provider_ref.clone(),
            state: seen.stands(),
            amount: seen.amount,
            reason: seen.reason.clone(),
            evidence_due_at_us: seen.evidence_due_at_us,
            withdrawn_at_us: None,
            reinstated_at_us: None,
            response: Response::None,
            responses: 0,
            responded_at_us: None,
            asked: Asked::at(now_us),
            evidence: Vec::new(),
            failure: None,
            created_at_us: now_us,
            updated_at_us: now_us,
        }
    }

    /// The provider's idempotency key of the response that is under way.
    pub fn response_reference(&self) -> String {
        format!("{}-response-{}", self.id, self.responses)
    }

    /// Whether its money is with the customer, or on its way there.
    pub fn holds_money(&self) -> bool {
        self.withdrawn_at_us.is_some() && self.reinstated_at_us.is_none()
    }

    /// Whether something may still happen to it: it is not decided, or won and its money is not back.
    pub fn is_open(&self) -> bool {
        !self.state.is_final() || (self.state == DisputeState::Won && self.holds_money())
    }
}

/// What becomes of evidence in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keeping {
    /// It is kept until it was handed in.
    Keep(DisputeId, Evidence),
    /// It is not needed any more.
    Drop(DisputeId),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_and_move() {
        use DisputeState::{Closed, Inquiry, Lost, NeedsResponse, UnderReview, Won};
        let moves = [
            DisputeMove::Escalate,
            DisputeMove::Review,
            DisputeMove::Win,
            DisputeMove::Lose,
            DisputeMove::Close,
        ];
        let table = [
            (
                Inquiry,
                [
                    Some(NeedsResponse),
                    Some(UnderReview),
                    Some(Won),
                    Some(Lost),
                    Some(Closed),
                ],
            ),
            (
                NeedsResponse,
                [None, Some(UnderReview), Some(Won), Some(Lost), None],
            ),
            (UnderReview, [None, None, Some(Won), Some(Lost), None]),
            (Won, [None; 5]),
            (Lost, [None, None, Some(Won), None, None]),
            (Closed, [None; 5]),
        ];
        for (state, after) in table {
            for (step, expected) in moves.into_iter().zip(after) {
                assert_eq!(state.after(step), expected, "{state:?} {step:?}");
            }
            assert_eq!(DisputeState::parse(state.name()), Some(state));
        }
        for response in Response::ALL {
            assert_eq!(Response::parse(response.name()), Some(response));
        }
    }

    #[test]
    fn news_lead_on_and_never_back() {
        for state in DisputeState::ALL {
            for seen in DisputeState::ALL {
                let then = state.once_seen(seen);
                assert!(then == state || then == seen, "{state:?} {seen:?}");
                assert_eq!(then.once_seen(seen), then, "repeated news are none");
                assert_eq!(state.once_seen(state), state);
                assert!(
                    !state.is_final() || then == state || state == DisputeState::Lost,
                    "{state:?} is final"
                );
            }
        }
        let review = DisputeState::UnderReview;
        assert_eq!(review.once_seen(DisputeState::NeedsResponse), review);
        let lost = DisputeState::Lost;
        assert_eq!(lost.once_seen(DisputeState::Won), DisputeState::Won);
    }

    #[test]
    fn what_a_webhook_names_leads_back_to_the_charge() {
        assert_eq!(charge_of(&reference_of("att_1")), "att_1");
        assert_eq!(charge_of("att_1"), "att_1");
    }
}
