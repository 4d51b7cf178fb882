//! Reconciliation: what a provider lists, compared with captures, refunds, disputes and the books.
//!
//! A run reads the provider's lists page by page, then walks through what they had and through our own entries, then
//! looks again at what was found and is still open. [`compare`] decides; what differs is kept once, however often it is found. Deliberately
//! missing: writing states. What is pending here and done there is asked about through the saga; all else that is no
//! missing fee or payout waits for a person.

pub mod compare;

pub use compare::{Booked, Case, Line, compare, stranger};

use kernel::{DiscrepancyId, Money, PaymentId, ReconciliationId};

/// What is wrong between the provider's lists and ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The provider lists what our books do not have.
    MissingHere,
    /// Our books have what the provider does not list.
    MissingThere,
    /// Both have it with different amounts.
    Amount,
    /// Both have it in different currencies.
    Currency,
    /// It is done there, and not here.
    State,
    /// The provider lists it more often than once.
    Duplicate,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::MissingHere,
        Self::MissingThere,
        Self::Amount,
        Self::Currency,
        Self::State,
        Self::Duplicate,
    ];

    /// The name in the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::MissingHere => "missing_here",
            Self::MissingThere => "missing_there",
            Self::Amount => "amount",
            Self::Currency => "currency",
            Self::State => "state",
            Self::Duplicate => "duplicate",
        }
    }

    /// Reads [`Kind::name`] back.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// What a person can do about it. `safe`: the service does something by itself first.
    pub fn next_step(self, safe: bool) -> &'static str {
        match self {
            Self::State if safe => {
                "the provider is asked again with each run; where that does not help, look the payment up, \
                 and ask the provider why it lists what it does not tell of"
            }
            Self::State => {
                "compare the payment with the provider's page by the reference; what the customer has paid and \
                 has no goods for is to be given back there"
            }
            Self::MissingHere => {
                "find the id at the provider; if it belongs to no order of this shop, or came back from a customer \
                 who is to have it, give the money back there"
            }
            Self::MissingThere => {
                "find our reference at the provider; if it is not there, no money moved: ask the provider, and \
                 have the entry corrected by another one"
            }
            Self::Amount | Self::Currency => {
                "compare both amounts with the provider's page; give back what was taken too much, or ask for \
                 what is missing, and have the books corrected by another entry"
            }
            Self::Duplicate => {
                "the provider did one thing twice: have the second one undone there, and tell the provider"
            }
        }
    }
}

/// What has become of a discrepancy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It stands.
    Open,
    /// A later look did not find it any more.
    ResolvedItself,
    /// A person has said what it was.
    Resolved,
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Open, Self::ResolvedItself, Self::Resolved];

    /// The name in the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::ResolvedItself => "resolved_itself",
            Self::Resolved => "resolved",
        }
    }

    /// Reads [`Status::name`] back.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }
}

/// One thing that differs, as a comparison finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong.
    pub kind: Kind,
    /// What it is about: the provider's id or, where the provider has none, our reference. With provider and kind it
    /// is the same thing, however often it is found.
    pub subject: String,
    /// The payment, where one is known.
    pub payment: Option<PaymentId>,
    /// Our capture, refund, dispute or attempt; else the reference that the provider has.
    pub our_reference: String,
    /// The provider's id; empty where the provider lists nothing.
    pub provider_id: String,
    /// The amount here.
    pub ours: Option<Money>,
    /// The amount there.
    pub theirs: Option<Money>,
    /// When it was booked, there or here.
    pub booked_at_us: i64,
    /// Whether asking the provider through the saga can put it right.
    pub safe: bool,
}

/// A finding as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discrepancy {
    /// Its id.
    pub id: DiscrepancyId,
    /// The provider.
    pub provider: String,
    /// What was found.
    pub finding: Finding,
    /// The run that found it first.
    pub run: ReconciliationId,
    /// When.
    pub found_at_us: i64,
    /// What has become of it.
    pub status: Status,
    /// Since when it is not open any more.
    pub resolved_at_us: Option<i64>,
    /// Who resolved it; empty: nobody had to.
    pub resolved_by: String,
    /// What they say of it.
    pub note: String,
}

/// What a run is at, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Reads the provider's transactions, and keeps them.
    Transactions,
    /// Walks through what the provider has listed; only now, for what is not read yet is not missing.
    Lines,
    /// Walks through our own entries.
    Entries,
    /// Reads fees and payouts, and books them.
    Settlements,
    /// Looks again at what is open.
    Open,
}

impl Phase {
    /// All of them, in their order.
    pub const ALL: [Self; 5] = [
        Self::Transactions,
        Self::Lines,
        Self::Entries,
        Self::Settlements,
        Self::Open,
    ];

    /// The name in the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Transactions => "transactions",
            Self::Lines => "lines",
            Self::Entries => "entries",
            Self::Settlements => "settlements",
            Self::Open => "open",
        }
    }

    /// Reads [`Phase::name`] back.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.name() == name)
    }

    /// What comes after it.
    pub fn next(self) -> Option<Self> {
        let place = Self::ALL.iter().position(|phase| *phase == self)?;
        Self::ALL.get(place + 1).copied()
    }
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunState {
    /// It is asked for, and nobody has begun.
    Requested,
    /// It is under way, or waits to be gone on with.
    Running,
    /// It went through both sides.
    Succeeded,
    /// It was given up; `error` says why.
    Failed,
}

impl RunState {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Requested,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
    ];

    /// The name in the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }

    /// Reads [`RunState::name`] back.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// One reconciliation with one provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its id.
    pub id: ReconciliationId,
    /// The provider.
    pub provider: String,
    /// Where it stands.
    pub state: RunState,
    /// What it is at.
    pub phase: Phase,
    /// Where in that; empty: at the beginning.
    pub place: String,
    /// From when on it compares.
    pub since_us: i64,
    /// What is younger is not yet a discrepancy.
    pub until_us: i64,
    /// Who asked for it.
    pub requested_by: String,
    /// When.
    pub requested_at_us: i64,
    /// When it was first begun.
    pub started_at_us: Option<i64>,
    /// When it ended.
    pub finished_at_us: Option<i64>,
    /// How many lines of the provider it has read.
    pub lines: i64,
    /// How many discrepancies it found that nobody had found before.
    pub found: i64,
    /// How many resolved themselves under it.
    pub resolved: i64,
    /// How many fees and payouts it booked.
    pub booked: i64,
    /// How often in a row the provider gave no answer.
    pub tries: i64,
    /// Why it waits or has failed; empty: it does not.
    pub error: String,
}

impl Run {
    /// One that is asked for now.
    pub fn new(provider: &str, requested_by: &str, now_us: i64) -> Self {
        Self {
            id: ReconciliationId::generate(now_us),
            provider: provider.to_owned(),
            state: RunState::Requested,
            phase: Phase::Transactions,
            place: String::new(),
            since_us: 0,
            until_us: 0,
            requested_by: requested_by.to_owned(),
            requested_at_us: now_us,
            started_at_us: None,
            finished_at_us: None,
            lines: 0,
            found: 0,
            resolved: 0,
            booked: 0,
            tries: 0,
            error: String::new(),
        }
    }

    /// Begins, where it has not begun: compares what was booked from where the last one ended, less an overlap, up to
    /// what is old enough. Nothing else moves these limits, so that one that is gone on with compares the same.
    pub fn begin(
        &mut self,
        last_until_us: Option<i64>,
        overlap_us: i64,
        grace_us: i64,
        now_us: i64,
    ) {
        if self.started_at_us.is_some() {
            return;
        }
        self.state = RunState::Running;
        self.started_at_us = Some(now_us);
        self.until_us = now_us.saturating_sub(grace_us);
        self.since_us =
            last_until_us.map_or(0, |until_us| until_us.saturating_sub(overlap_us).max(0));
    }

    /// A page is done: the next one begins at `next`, or the next phase, or it has ended.
    pub fn advance(&mut self, next: Option<String>, now_us: i64) {
        self.tries = 0;
        self.error.clear();
        if let Some(place) = next {
            self.place = place;
            return;
        }
        self.place.clear();
        match self.phase.next() {
            Some(phase) => self.phase = phase,
            None => self.end(RunState::Succeeded, now_us),
        }
    }

    /// The provider gave no answer: again later, or never more after `tries_max` times.
    pub fn fail(&mut self, error: String, tries_max: u32, for_good: bool, now_us: i64) {
        self.tries += 1;
        self.error = error;
        if for_good || self.tries >= i64::from(tries_max) {
            self.end(RunState::Failed, now_us);
        }
    }

    fn end(&mut self, state: RunState, now_us: i64) {
        self.state = state;
        self.finished_at_us = Some(now_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for kind in Kind::ALL {
            assert_eq!(Kind::parse(kind.name()), Some(kind));
            assert!(!kind.next_step(false).is_empty() && !kind.next_step(true).is_empty());
        }
        for status in Status::ALL {
            assert_eq!(Status::parse(status.name()), Some(status));
        }
        for phase in Phase::ALL {
            assert_eq!(Phase::parse(phase.name()), Some(phase));
        }
        for state in RunState::ALL {
            assert_eq!(RunState::parse(state.name()), Some(state));
        }
    }

    #[test]
    fn a_run_goes_through_its_phases_once_and_keeps_its_limits() {
        let mut run = Run::new("simulator", "boss", 1_000);
        run.begin(None, 50, 100, 2_000);
        assert_eq!((run.since_us, run.until_us), (0, 1_900));
        run.begin(Some(1_900), 50, 100, 9_000);
        assert_eq!((run.since_us, run.until_us), (0, 1_900), "it has begun");
        run.advance(Some("page 2".to_owned()), 2_001);
        assert_eq!(
            (run.phase, run.place.as_str()),
            (Phase::Transactions, "page 2")
        );
        let phases: Vec<Phase> = (0..5)
            .map(|_| {
                run.advance(None, 3_000);
                run.phase
            })
            .collect();
        let expected = [
            Phase::Lines,
            Phase::Entries,
            Phase::Settlements,
            Phase::Open,
            Phase::Open,
        ];
        assert_eq!(phases, expected);
        assert_eq!(
            (run.state, run.finished_at_us),
            (RunState::Succeeded, Some(3_000))
        );
        let mut next = Run::new("simulator", "boss", 9_000);
        next.begin(Some(1_900), 50, 100, 9_000);
        assert_eq!((next.since_us, next.until_us), (1_850, 8_900));
    }

    #[test]
    fn a_provider_that_does_not_answer_is_asked_so_often_and_no_more() {
        let mut run = Run::new("simulator", "boss", 1_000);
        run.begin(None, 0, 0, 1_000);
        run.fail("away".to_owned(), 2, false, 1_001);
        assert_eq!((run.state, run.tries), (RunState::Running, 1));
        run.advance(Some("2".to_owned()), 1_002);
        assert_eq!(
            (run.tries, run.error.as_str()),
            (0, ""),
            "an answer begins the count anew"
        );
        run.fail("away".to_owned(), 2, false, 1_003);
        run.fail("away".to_owned(), 2, false, 1_004);
        assert_eq!((run.state, run.error.as_str()), (RunState::Failed, "away"));
        let mut refused = Run::new("simulator", "boss", 1_000);
        refused.fail("no permission".to_owned(), 2, true, 1_005);
        assert_eq!(refused.state, RunState::Failed);
    }
}
