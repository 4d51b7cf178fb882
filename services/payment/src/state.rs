//! Where a payment stands and how it may move: the state table of the design as one function.
//!
//! Deliberately without side effects: what a move means for money and stock is decided elsewhere,
//! and goes through [`State::after`] to become true.

/// Where a payment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Waits to be confirmed.
    RequiresConfirmation,
    /// Being carried out, or its outcome is not known yet.
    Processing,
    /// The customer must authenticate.
    RequiresAction,
    /// Authorised; waits for its capture.
    RequiresCapture,
    /// Some items are captured.
    PartiallyCaptured,
    /// All that was to be captured is. Final.
    Succeeded,
    /// Given up; nothing was kept. Final.
    Canceled,
}

/// What can happen to a payment that moves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Move {
    /// It is carried out, or goes on after the customer has authenticated.
    Start,
    /// The provider wants the customer to authenticate.
    AskCustomer,
    /// The provider holds the money for a later capture.
    Authorize,
    /// Declined, out of stock, authentication failed: another attempt may follow.
    Refuse,
    /// Some of the money is taken, and more may follow.
    CapturePart,
    /// All that was to be taken is taken, or the rest is given up.
    Finish,
    /// It is given up and nothing is kept.
    Cancel,
}

/// What a caller may ask of a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Command {
    /// Carry it out.
    Confirm,
    /// Take authorised money.
    Capture,
    /// Give it up.
    Cancel,
    /// Give captured money back.
    Refund,
}

impl State {
    /// All of them, in the order of a purchase.
    pub const ALL: [Self; 7] = [
        Self::RequiresConfirmation,
        Self::Processing,
        Self::RequiresAction,
        Self::RequiresCapture,
        Self::PartiallyCaptured,
        Self::Succeeded,
        Self::Canceled,
    ];

    /// The state after a move; nothing where the move is not allowed.
    pub fn after(self, step: Move) -> Option<Self> {
        match (self, step) {
            (Self::RequiresConfirmation | Self::RequiresAction, Move::Start) => {
                Some(Self::Processing)
            }
            (Self::Processing, Move::AskCustomer) => Some(Self::RequiresAction),
            (Self::Processing, Move::Authorize) => Some(Self::RequiresCapture),
            (Self::Processing | Self::RequiresAction, Move::Refuse) => {
                Some(Self::RequiresConfirmation)
            }
            (Self::RequiresCapture | Self::PartiallyCaptured, Move::CapturePart) => {
                Some(Self::PartiallyCaptured)
            }
            (Self::Processing | Self::RequiresCapture | Self::PartiallyCaptured, Move::Finish) => {
                Some(Self::Succeeded)
            }
            (
                Self::RequiresConfirmation
                | Self::Processing
                | Self::RequiresAction
                | Self::RequiresCapture,
                Move::Cancel,
            ) => Some(Self::Canceled),
            (
                Self::RequiresConfirmation,
                Move::AskCustomer
                | Move::Authorize
                | Move::Refuse
                | Move::CapturePart
                | Move::Finish,
            )
            | (Self::Processing, Move::Start | Move::CapturePart)
            | (
                Self::RequiresAction,
                Move::AskCustomer | Move::Authorize | Move::CapturePart | Move::Finish,
            )
            | (
                Self::RequiresCapture,
                Move::Start | Move::AskCustomer | Move::Authorize | Move::Refuse,
            )
            | (
                Self::PartiallyCaptured,
                Move::Start | Move::AskCustomer | Move::Authorize | Move::Refuse | Move::Cancel,
            )
            | (Self::Succeeded | Self::Canceled, _) => None,
        }
    }

    /// Whether a caller may ask for this here. A cancellation in `Processing` is recorded only.
    pub fn allows(self, command: Command) -> bool {
        match command {
            Command::Confirm => matches!(self, Self::RequiresConfirmation | Self::RequiresAction),
            Command::Capture => matches!(self, Self::RequiresCapture | Self::PartiallyCaptured),
            Command::Cancel => matches!(
                self,
                Self::RequiresConfirmation
                    | Self::Processing
                    | Self::RequiresAction
                    | Self::RequiresCapture
            ),
            Command::Refund => matches!(self, Self::PartiallyCaptured | Self::Succeeded),
        }
    }

    /// The name in the contract, in the store and in filters.
    pub fn name(self) -> &'static str {
        match self {
            Self::RequiresConfirmation => "REQUIRES_CONFIRMATION",
            Self::Processing => "PROCESSING",
            Self::RequiresAction => "REQUIRES_ACTION",
            Self::RequiresCapture => "REQUIRES_CAPTURE",
            Self::PartiallyCaptured => "PARTIALLY_CAPTURED",
            Self::Succeeded => "SUCCEEDED",
            Self::Canceled => "CANCELED",
        }
    }

    /// Reads [`State::name`] back.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

impl Command {
    /// The verb, for messages.
    pub fn verb(self) -> &'static str {
        match self {
            Self::Confirm => "confirmed",
            Self::Capture => "captured",
            Self::Cancel => "canceled",
            Self::Refund => "refunded",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOVES: [Move; 7] = [
        Move::Start,
        Move::AskCustomer,
        Move::Authorize,
        Move::Refuse,
        Move::CapturePart,
        Move::Finish,
        Move::Cancel,
    ];

    /// The drawing in `docs/payments.md`, arrow by arrow, written down a second time as pairs of states.
    const DRAWN: [(State, State); 16] = [
        (State::RequiresConfirmation, State::Processing),
        (State::RequiresConfirmation, State::Canceled),
        (State::Processing, State::RequiresAction),
        (State::Processing, State::RequiresCapture),
        (State::Processing, State::Succeeded),
        (State::Processing, State::RequiresConfirmation),
        (State::Processing, State::Canceled),
        (State::RequiresAction, State::Processing),
        (State::RequiresAction, State::RequiresConfirmation),
        (State::RequiresAction, State::Canceled),
        (State::RequiresCapture, State::Succeeded),
        (State::RequiresCapture, State::PartiallyCaptured),
        (State::RequiresCapture, State::Canceled),
        (State::PartiallyCaptured, State::PartiallyCaptured),
        (State::PartiallyCaptured, State::Succeeded),
        // Reached by no move: listed so that its absence below is seen to be checked.
        (State::Succeeded, State::Canceled),
    ];

    #[test]
    fn moves_are_exactly_those_that_are_drawn() {
        let mut reached: Vec<(State, State)> = Vec::new();
        for from in State::ALL {
            for step in MOVES {
                if let Some(to) = from.after(step) {
                    assert!(
                        !reached.contains(&(from, to)),
                        "two moves lead {from:?} -> {to:?}"
                    );
                    reached.push((from, to));
                }
            }
        }
        for pair in &DRAWN[..15] {
            assert!(reached.contains(pair), "{pair:?} is missing");
        }
        assert_eq!(reached.len(), 15, "a move that is not drawn: {reached:?}");
        assert!(!reached.contains(&DRAWN[15]));
    }

    #[test]
    fn every_state_and_command() {
        // Confirm, Capture, Cancel, Refund
        let table = [
            (State::RequiresConfirmation, [true, false, true, false]),
            (State::Processing, [false, false, true, false]),
            (State::RequiresAction, [true, false, true, false]),
            (State::RequiresCapture, [false, true, true, false]),
            (State::PartiallyCaptured, [false, true, false, true]),
            (State::Succeeded, [false, false, false, true]),
            (State::Canceled, [false, false, false, false]),
        ];
        for (state, allowed) in table {
            let commands = [
                Command::Confirm,
                Command::Capture,
                Command::Cancel,
                Command::Refund,
            ];
            let verbs = commands.map(Command::verb);
            assert_eq!(verbs, ["confirmed", "captured", "canceled", "refunded"]);
            for (command, allowed) in commands.into_iter().zip(allowed) {
                assert_eq!(state.allows(command), allowed, "{state:?} {command:?}");
            }
        }
    }

    #[test]
    fn names_read_back() {
        for state in State::ALL {
            assert_eq!(State::parse(state.name()), Some(state));
        }
        assert_eq!(State::parse("canceled"), None);
    }
}
