//! A capture: one taking of money, for some units of some items.

use crate::charges::Part;
use crate::failure::Failure;
use crate::policy::{Asked, Progress};
use kernel::{AttemptId, CaptureId};
use serde::{Deserialize, Serialize};

/// Where a capture stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CaptureState {
    /// The provider is to be asked, or was; the outcome is not known.
    Pending,
    /// The money is taken. Final.
    Succeeded,
    /// It was refused, or taken back before it became a sale. Final.
    Failed,
}

/// What can happen to a capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CaptureMove {
    /// The money is taken.
    Succeed,
    /// It was refused, or taken back.
    Fail,
}

impl CaptureState {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Pending, Self::Succeeded, Self::Failed];

    /// The state after a move; nothing where it is not allowed.
    pub fn after(self, step: CaptureMove) -> Option<Self> {
        match (self, step) {
            (Self::Pending, CaptureMove::Succeed) => Some(Self::Succeeded),
            (Self::Pending, CaptureMove::Fail) => Some(Self::Failed),
            (Self::Succeeded | Self::Failed, CaptureMove::Succeed | CaptureMove::Fail) => None,
        }
    }

    /// The name in the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }

    /// Reads [`CaptureState::name`] back.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// What the stock has to do after money was taken or given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Follow {
    /// Nothing.
    Nothing,
    /// The product service is to be told.
    Pending,
    /// It did it.
    Done,
    /// It refused for good: the units were no longer there.
    Refused,
}

impl Follow {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Nothing, Self::Pending, Self::Done, Self::Refused];

    /// The name in the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Pending => "pending",
            Self::Done => "done",
            Self::Refused => "refused",
        }
    }

    /// Reads [`Follow::name`] back.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|follow| follow.name() == name)
    }
}

/// Some units of an item and what falls on them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The item.
    pub sku: String,
    /// Units; 0 for a refund of an amount.
    pub quantity: i32,
    /// Their part of the amount, tax included; never negative.
    pub amount_minor: i64,
    /// How much of it is tax.
    #[serde(default)]
    pub tax_minor: i64,
}

impl Line {
    /// Some units of an item for an amount.
    pub fn new(sku: String, quantity: i32, part: Part) -> Self {
        Self {
            sku,
            quantity,
            amount_minor: part.total_minor(),
            tax_minor: part.tax_minor,
        }
    }

    /// What falls on them.
    pub fn part(&self) -> Part {
        Part {
            net_minor: self.amount_minor - self.tax_minor,
            tax_minor: self.tax_minor,
        }
    }
}

/// What falls on an item in some lines.
pub(crate) fn part_of<'a>(lines: impl Iterator<Item = &'a Line>, sku: &str) -> Part {
    let of_item = lines.filter(|line| line.sku == sku);
    of_item.fold(Part::default(), |sum, line| sum.plus(line.part()))
}

/// An amount's tax: of its lines and of shipping.
pub(crate) fn tax_of(lines: &[Line], shipping: Part) -> i64 {
    lines.iter().map(|line| line.tax_minor).sum::<i64>() + shipping.tax_minor
}

/// An amount's parts, summed.
pub(crate) fn sum_of(lines: &[Line], shipping: Part) -> i64 {
    lines.iter().map(|line| line.amount_minor).sum::<i64>() + shipping.total_minor()
}

/// One capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capture {
    /// Its id: the provider's idempotency key.
    pub id: CaptureId,
    /// The attempt whose authorisation it takes from.
    pub attempt: AttemptId,
    /// Where it stands.
    pub state: CaptureState,
    /// How much: the sum of its lines, and shipping.
    pub amount_minor: i64,
    /// What for.
    pub lines: Vec<Line>,
    /// Its part of shipping.
    pub shipping: Part,
    /// Whether what is then left is given up.
    pub is_final: bool,
    /// The question to the provider.
    pub asked: Asked,
    /// Whether its units have left the stock.
    pub stock: Follow,
    /// How far that has come.
    pub stock_progress: Progress,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// When it was begun.
    pub created_at_us: i64,
    /// When the money was known to be taken.
    pub captured_at_us: Option<i64>,
}

impl Capture {
    /// A new one, due at once.
    pub fn new(
        attempt: AttemptId,
        lines: Vec<Line>,
        shipping: Part,
        is_final: bool,
        now_us: i64,
    ) -> Self {
        Self {
            id: CaptureId::generate(now_us),
            attempt,
            state: CaptureState::Pending,
            amount_minor: sum_of(&lines, shipping),
            lines,
            shipping,
            is_final,
            asked: Asked::at(now_us),
            stock: Follow::Nothing,
            stock_progress: Progress::at(now_us),
            failure: None,
            created_at_us: now_us,
            captured_at_us: None,
        }
    }

    /// Units of an item in it.
    pub fn quantity_of(&self, sku: &str) -> i32 {
        self.lines
            .iter()
            .filter(|line| line.sku == sku)
            .map(|line| line.quantity)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_and_move() {
        let table = [
            (
                CaptureState::Pending,
                [Some(CaptureState::Succeeded), Some(CaptureState::Failed)],
            ),
            (CaptureState::Succeeded, [None, None]),
            (CaptureState::Failed, [None, None]),
        ];
        for (state, [succeed, fail]) in table {
            assert_eq!(state.after(CaptureMove::Succeed), succeed, "{state:?}");
            assert_eq!(state.after(CaptureMove::Fail), fail, "{state:?}");
            assert_eq!(CaptureState::parse(state.name()), Some(state));
        }
        for follow in Follow::ALL {
            assert_eq!(Follow::parse(follow.name()), Some(follow));
        }
    }

    #[test]
    fn its_amount_is_the_sum_of_its_lines_and_shipping() {
        let line = |sku: &str, quantity, amount_minor| Line {
            sku: sku.into(),
            quantity,
            amount_minor,
            tax_minor: 0,
        };
        let shipping = Part {
            net_minor: 7,
            tax_minor: 1,
        };
        let lines = vec![line("A", 2, 200), line("B", 1, 50)];
        let capture = Capture::new(AttemptId::generate(1), lines, shipping, true, 1);
        assert_eq!(capture.amount_minor, 258);
        assert_eq!((capture.quantity_of("A"), capture.quantity_of("C")), (2, 0));
    }
}
