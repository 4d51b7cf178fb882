//! One attempt to carry a payment out: one hold on the stock and one charge at the provider.
//!
//! The provider's idempotency key is the attempt's id, so that a charge is never made under two
//! keys. The row is committed as `sent` before the provider is called.

use crate::failure::Failure;
use crate::policy::{Asked, Progress};
use kernel::AttemptId;

/// Where the money of an attempt stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AttemptState {
    /// Stock is asked for; the provider has heard nothing.
    Reserving,
    /// Stock is held; the provider has heard nothing, or certainly done nothing.
    Reserved,
    /// The provider was asked; what it did is not known.
    Sent,
    /// The provider waits for the customer.
    ActionRequired,
    /// The provider holds the money.
    Authorized,
    /// The provider has taken the money in one step; the goods are not committed yet.
    Charged,
    /// Money was kept and the rest of the authorisation is to be voided.
    Closing,
    /// Money was kept; nothing is left to do. Final.
    Captured,
    /// It was refused. Final, unless the provider changes its mind: then it is reversed.
    Declined,
    /// What the provider holds or took must be given back.
    Reversing,
    /// The provider holds nothing of it. Final.
    Reversed,
}

impl AttemptState {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Reserving,
        Self::Reserved,
        Self::Sent,
        Self::ActionRequired,
        Self::Authorized,
        Self::Charged,
        Self::Closing,
        Self::Captured,
        Self::Declined,
        Self::Reversing,
        Self::Reversed,
    ];

    /// The name in the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reserving => "reserving",
            Self::Reserved => "reserved",
            Self::Sent => "sent",
            Self::ActionRequired => "action_required",
            Self::Authorized => "authorized",
            Self::Charged => "charged",
            Self::Closing => "closing",
            Self::Captured => "captured",
            Self::Declined => "declined",
            Self::Reversing => "reversing",
            Self::Reversed => "reversed",
        }
    }

    /// Reads [`AttemptState::name`] back.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// Where the stock of an attempt stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hold {
    /// Nothing is held, as far as is known; what was held unknown to us runs out by itself.
    None,
    /// Held.
    Held,
    /// All of it was asked to be committed; the answer is not known.
    Committing,
    /// All of it has left the stock, or each capture has taken its part.
    Committed,
    /// What is still held is to become free.
    Releasing,
    /// Nothing is held any more. Final.
    Released,
    /// A commit whose answer is not known must be undone: find out, then restock or release.
    Undoing,
    /// All of it was committed and is to be put back.
    Restocking,
    /// All of it was put back. Final.
    Restocked,
}

impl Hold {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::None,
        Self::Held,
        Self::Committing,
        Self::Committed,
        Self::Releasing,
        Self::Released,
        Self::Undoing,
        Self::Restocking,
        Self::Restocked,
    ];

    /// The name in the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Held => "held",
            Self::Committing => "committing",
            Self::Committed => "committed",
            Self::Releasing => "releasing",
            Self::Released => "released",
            Self::Undoing => "undoing",
            Self::Restocking => "restocking",
            Self::Restocked => "restocked",
        }
    }

    /// Reads [`Hold::name`] back.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|hold| hold.name() == name)
    }

    /// What has to become of it when the attempt is given up.
    #[must_use]
    pub fn given_up(self) -> Self {
        match self {
            Self::Held => Self::Releasing,
            Self::Committing => Self::Undoing,
            Self::Committed => Self::Restocking,
            Self::None
            | Self::Releasing
            | Self::Released
            | Self::Undoing
            | Self::Restocking
            | Self::Restocked => self,
        }
    }
}

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Its id: the provider's idempotency key.
    pub id: AttemptId,
    /// The token that it charges.
    pub payment_method: String,
    /// How much.
    pub amount_minor: i64,
    /// Where the money stands.
    pub state: AttemptState,
    /// The question to the provider: the charge, later what became of it.
    pub asked: Asked,
    /// The giving back, once it has to be.
    pub reversal: Asked,
    /// Whether the provider took the money, so that giving it back is a refund and not a void.
    pub taken: bool,
    /// Whether a webhook asks to look the charge up.
    pub check: bool,
    /// When the disputes of its charge are looked up next; nothing: there is no reason to.
    pub disputes: Option<Progress>,
    /// When the provider's authorisation ends.
    pub authorization_expires_at_us: Option<i64>,
    /// Where the stock stands.
    pub hold: Hold,
    /// The reservation.
    pub reservation: Option<String>,
    /// When the hold ends.
    pub hold_expires_at_us: Option<i64>,
    /// How far the next thing to do with the stock has come.
    pub stock: Progress,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// When it was begun.
    pub created_at_us: i64,
}

impl Attempt {
    /// A new one, due at once.
    pub fn new(payment_method: String, amount_minor: i64, now_us: i64) -> Self {
        Self {
            id: AttemptId::generate(now_us),
            payment_method,
            amount_minor,
            state: AttemptState::Reserving,
            asked: Asked::at(now_us),
            reversal: Asked::at(now_us),
            taken: false,
            check: false,
            disputes: None,
            authorization_expires_at_us: None,
            hold: Hold::None,
            reservation: None,
            hold_expires_at_us: None,
            stock: Progress::at(now_us),
            failure: None,
            created_at_us: now_us,
        }
    }

    /// Begins to give the money and the stock back.
    pub fn reverse(&mut self, now_us: i64) {
        self.state = AttemptState::Reversing;
        self.reversal = Asked::at(now_us);
        self.let_go(now_us);
    }

    /// Gives up waiting for the customer. A provider that cannot void is left alone: should the
    /// customer authenticate all the same, what it then takes is refunded.
    pub fn stop_waiting(&mut self, now_us: i64, voids: bool) {
        self.reverse(now_us);
        if !voids {
            self.state = AttemptState::Declined;
        }
    }

    /// Begins to give the stock back.
    pub fn let_go(&mut self, now_us: i64) {
        self.set_hold(self.hold.given_up(), now_us);
    }

    /// Sets where the stock stands; what is next to do with it is due at once.
    pub fn set_hold(&mut self, hold: Hold, now_us: i64) {
        if self.hold != hold {
            self.hold = hold;
            self.stock = Progress::at(now_us);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for state in AttemptState::ALL {
            assert_eq!(AttemptState::parse(state.name()), Some(state));
        }
        for hold in Hold::ALL {
            assert_eq!(Hold::parse(hold.name()), Some(hold));
        }
    }

    #[test]
    fn giving_up_turns_every_hold_into_what_undoes_it() {
        let table = [
            (Hold::None, Hold::None),
            (Hold::Held, Hold::Releasing),
            (Hold::Committing, Hold::Undoing),
            (Hold::Committed, Hold::Restocking),
            (Hold::Releasing, Hold::Releasing),
            (Hold::Released, Hold::Released),
            (Hold::Undoing, Hold::Undoing),
            (Hold::Restocking, Hold::Restocking),
            (Hold::Restocked, Hold::Restocked),
        ];
        for (hold, given_up) in table {
            assert_eq!(hold.given_up(), given_up, "{hold:?}");
        }
    }

    #[test]
    fn what_changes_the_hold_makes_its_next_step_due() {
        let mut attempt = Attempt::new("pm_card_visa".into(), 100, 5);
        attempt.hold = Hold::Held;
        attempt.stock = Progress {
            tries: 9,
            due_at_us: 1_000,
        };
        attempt.reverse(10);
        assert_eq!(
            (attempt.state, attempt.hold),
            (AttemptState::Reversing, Hold::Releasing)
        );
        assert_eq!(attempt.stock, Progress::at(10));
        attempt.stock.put_off(10, 7, 7);
        attempt.let_go(11);
        assert_eq!(
            attempt.stock.due_at_us, 17,
            "letting go twice does not hurry it"
        );
    }
}
