//! The life of a reservation, as a pure function of its state, a command and the time.
//!
//! | state | may become |
//! |---|---|
//! | held | committed, released, expired; can be extended |
//! | expired | committed, only while the units are still free |
//! | committed | restocked by line |
//! | released | final |
//!
//! A reservation of which some units are committed and others still held stays HELD; it is COMMITTED
//! once nothing is held any more. Commands that were carried out already change nothing and are no
//! error, apart from those that name quantities: repeating these is what a request id is for.
//!
//! Deliberately missing: where stock is kept. A decision names the changes; the store carries them out.

mod place;

use std::collections::HashSet;

use kernel::{Invalid, Money, ProductId, ReservationId};

use crate::error::{Error, Shortage};

pub use place::{Offer, Wish};

/// The most lines of a reservation.
pub const LINES_MAX: usize = 100;
/// The most units of a line.
pub const QUANTITY_MAX: i32 = 1_000_000;
/// The longest reference, in characters.
pub const REFERENCE_CHARACTERS_MAX: usize = 64;
/// The shortest hold, in microseconds: a second.
pub const TTL_MIN_US: i64 = 1_000_000;
/// The longest hold, in microseconds: 30 days.
pub const TTL_MAX_US: i64 = 30 * 86_400 * 1_000_000;

/// Where a reservation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Its units cannot be bought by others.
    Held,
    /// Units have left the stock, and nothing is held any more.
    Committed,
    /// It was given back before anything was committed.
    Released,
    /// Its time ran out.
    Expired,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Held, Self::Committed, Self::Released, Self::Expired];

    /// The name in the contract and in the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Held => "HELD",
            Self::Committed => "COMMITTED",
            Self::Released => "RELEASED",
            Self::Expired => "EXPIRED",
        }
    }

    /// Reads [`State::name`].
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// Stock held for somebody for a limited time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// Its id.
    pub id: ReservationId,
    /// What it is held for.
    pub reference: String,
    /// Where it stands, as stored: see [`Reservation::is_overdue`].
    pub state: State,
    /// Its lines, in the order given, each SKU once.
    pub lines: Vec<Line>,
    /// When it expires while it is held.
    pub expires_at_us: i64,
    /// When it was made.
    pub created_at_us: i64,
    /// Raised by one with every change; begins at 1.
    pub version: i64,
}

/// One line, with what the variant was at that moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The variant's SKU.
    pub sku: String,
    /// Units reserved.
    pub quantity: i32,
    /// The product.
    pub product_id: ProductId,
    /// The product's title.
    pub title: String,
    /// The product's category.
    pub category: String,
    /// The price of one unit.
    pub unit_price: Money,
    /// Units committed so far.
    pub committed: i32,
    /// Committed units that were put back.
    pub restocked: i32,
}

impl Line {
    /// Units that are neither committed nor given back by the end of the hold.
    pub fn outstanding(&self) -> i32 {
        self.quantity - self.committed
    }
}

/// A variant and how many of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The variant's SKU.
    pub sku: String,
    /// Units.
    pub quantity: i32,
}

/// What can be asked of a reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Hold until then, if that is later than now.
    Extend {
        /// The new expiry.
        expires_at_us: i64,
    },
    /// Take units out of stock.
    Commit {
        /// Which; empty: all that is outstanding.
        parts: Vec<Part>,
        /// Whether the rest becomes free.
        release_rest: bool,
    },
    /// Give back what is held.
    Release,
    /// Put committed units back.
    Restock {
        /// Which.
        parts: Vec<Part>,
    },
    /// Note that the time has run out.
    Expire,
}

/// What a command does to a reservation and to the stock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The reservation afterwards.
    pub after: Reservation,
    /// The changes of stock, by SKU in ascending order, so that locks are always taken in one order.
    pub stock: Vec<StockChange>,
    /// What happened; `None`: nothing, it was so already.
    pub happened: Option<Happened>,
}

/// A change of one variant's stock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StockChange {
    /// The variant's SKU.
    pub sku: String,
    /// Added to what is on hand.
    pub on_hand: i32,
    /// Added to what is reserved.
    pub reserved: i32,
}

/// What happened to a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happened {
    /// It holds for longer.
    Extended,
    /// Units left the stock.
    Committed,
    /// What was held became free.
    Released,
    /// Its time ran out.
    Expired,
    /// Committed units came back.
    Restocked,
}

impl Reservation {
    /// Whether its time has run out although that is not written down yet.
    pub fn is_overdue(&self, now_us: i64) -> bool {
        self.state == State::Held && self.expires_at_us <= now_us
    }

    /// The reservation as it is to be seen at a moment: an overdue one has expired.
    #[must_use]
    pub fn seen_at(mut self, now_us: i64) -> Self {
        if self.is_overdue(now_us) {
            self.state = State::Expired;
        }
        self
    }

    /// What a command does. An overdue reservation has to be decided with [`Command::Expire`] first.
    /// `free` answers how many units of a SKU can be bought at this moment; it is asked only when an
    /// expired reservation is to be committed.
    pub fn decide(
        &self,
        command: &Command,
        now_us: i64,
        free: impl Fn(&str) -> i32,
    ) -> Result<Decision, Error> {
        debug_assert!(
            *command == Command::Expire || !self.is_overdue(now_us),
            "expire it first"
        );
        match command {
            Command::Extend { expires_at_us } => self.extend(*expires_at_us),
            Command::Commit {
                parts,
                release_rest,
            } => self.commit(parts, *release_rest, free),
            Command::Release => self.release(),
            Command::Restock { parts } => self.restock(parts),
            Command::Expire => Ok(self.expire(now_us)),
        }
    }

    fn extend(&self, expires_at_us: i64) -> Result<Decision, Error> {
        if self.state != State::Held {
            return Err(self.in_wrong_state("extended"));
        }
        if expires_at_us <= self.expires_at_us {
            return Ok(self.unchanged());
        }
        let after = Self {
            expires_at_us,
            ..self.raised()
        };
        Ok(Decision {
            after,
            stock: Vec::new(),
            happened: Some(Happened::Extended),
        })
    }

    fn commit(
        &self,
        parts: &[Part],
        release_rest: bool,
        free: impl Fn(&str) -> i32,
    ) -> Result<Decision, Error> {
        if self.state == State::Released {
            return Err(self.in_wrong_state("committed"));
        }
        let quantities = self.by_line(parts)?;
        let nothing_left = self.state == State::Committed;
        if nothing_left && parts.is_empty() {
            return Ok(self.unchanged());
        }
        let mut after = self.raised();
        let mut short = Vec::new();
        for (line, named) in after.lines.iter_mut().zip(&quantities) {
            let quantity = if parts.is_empty() {
                line.outstanding()
            } else {
                *named
            };
            let left = if nothing_left { 0 } else { line.outstanding() };
            if quantity > left {
                return Err(exceeded(&line.sku, quantity, left, "held"));
            }
            if self.state == State::Expired && free(&line.sku) < quantity {
                let available = free(&line.sku);
                short.push(Shortage {
                    sku: line.sku.clone(),
                    wanted: quantity,
                    available,
                });
            }
            line.committed += quantity;
        }
        if !short.is_empty() {
            return Err(Error::OutOfStock(short));
        }
        let rest_is_free = release_rest || after.lines.iter().all(|line| line.outstanding() == 0);
        if rest_is_free {
            after.state = State::Committed;
        }
        let held = self.state == State::Held;
        let moved = self.lines.iter().zip(&after.lines).map(|(before, line)| {
            let quantity = line.committed - before.committed;
            let given_up = if rest_is_free {
                before.outstanding()
            } else {
                quantity
            };
            (&line.sku, -quantity, if held { -given_up } else { 0 })
        });
        Ok(Decision {
            stock: changes(moved),
            after,
            happened: Some(Happened::Committed),
        })
    }

    fn release(&self) -> Result<Decision, Error> {
        match self.state {
            State::Released | State::Expired => Ok(self.unchanged()),
            State::Committed if self.lines.iter().any(|line| line.outstanding() > 0) => {
                Ok(self.unchanged())
            }
            State::Committed => Err(self.in_wrong_state("released")),
            State::Held => {
                let mut after = self.raised();
                let partly = self.lines.iter().any(|line| line.committed > 0);
                after.state = if partly {
                    State::Committed
                } else {
                    State::Released
                };
                Ok(Decision {
                    stock: self.give_up(),
                    after,
                    happened: Some(Happened::Released),
                })
            }
        }
    }

    fn restock(&self, parts: &[Part]) -> Result<Decision, Error> {
        if self.state == State::Released {
            return Err(self.in_wrong_state("restocked"));
        }
        let quantities = self.by_line(parts)?;
        let mut after = self.raised();
        for (line, quantity) in after.lines.iter_mut().zip(&quantities) {
            let left = line.committed - line.restocked;
            if *quantity > left {
                return Err(exceeded(
                    &line.sku,
                    *quantity,
                    left,
                    "committed and not yet restocked",
                ));
            }
            line.restocked += quantity;
        }
        let back = self
            .lines
            .iter()
            .zip(&quantities)
            .map(|(line, quantity)| (&line.sku, *quantity, 0));
        Ok(Decision {
            stock: changes(back),
            after,
            happened: Some(Happened::Restocked),
        })
    }

    fn expire(&self, now_us: i64) -> Decision {
        if !self.is_overdue(now_us) {
            return self.unchanged();
        }
        let after = Self {
            state: State::Expired,
            ..self.raised()
        };
        Decision {
            stock: self.give_up(),
            after,
            happened: Some(Happened::Expired),
        }
    }

    /// The quantity that `parts` name for each line, 0 for lines that they leave out.
    fn by_line(&self, parts: &[Part]) -> Result<Vec<i32>, Error> {
        check_parts("lines", parts).map_err(Error::Invalid)?;
        let mut quantities = vec![0; self.lines.len()];
        for (index, part) in parts.iter().enumerate() {
            let Some(line) = self.lines.iter().position(|line| line.sku == part.sku) else {
                let field = format!("lines[{index}].sku");
                return Err(Error::invalid(field, "is not in this reservation"));
            };
            quantities[line] = part.quantity;
        }
        Ok(quantities)
    }

    fn give_up(&self) -> Vec<StockChange> {
        changes(
            self.lines
                .iter()
                .map(|line| (&line.sku, 0, -line.outstanding())),
        )
    }

    fn unchanged(&self) -> Decision {
        Decision {
            after: self.clone(),
            stock: Vec::new(),
            happened: None,
        }
    }

    fn raised(&self) -> Self {
        Self {
            version: self.version + 1,
            ..self.clone()
        }
    }

    fn in_wrong_state(&self, command: &'static str) -> Error {
        let resource = format!("reservation {}", self.id);
        Error::InvalidState {
            resource,
            state: self.state.name(),
            command,
        }
    }
}

/// What is wrong with a list of SKUs and quantities.
pub fn check_parts(field: &str, parts: &[Part]) -> Result<(), Vec<Invalid>> {
    if parts.len() > LINES_MAX {
        return Err(vec![Invalid::new(
            field,
            format!("must be at most {LINES_MAX} lines"),
        )]);
    }
    let mut invalid = Vec::new();
    let mut skus = HashSet::new();
    for (index, part) in parts.iter().enumerate() {
        let at = format!("{field}[{index}]");
        invalid.extend(kernel::text::sku(&format!("{at}.sku"), &part.sku).err());
        if !skus.insert(part.sku.as_str()) {
            invalid.push(Invalid::new(
                format!("{at}.sku"),
                "stands in another line already",
            ));
        }
        if !(1..=QUANTITY_MAX).contains(&part.quantity) {
            let reason = format!("must be 1 to {QUANTITY_MAX}");
            invalid.push(Invalid::new(format!("{at}.quantity"), reason));
        }
    }
    if invalid.is_empty() {
        Ok(())
    } else {
        Err(invalid)
    }
}

/// When a hold of `ttl_us` from now ends.
pub fn expiry(field: &str, ttl_us: i64, now_us: i64) -> Result<i64, Invalid> {
    if (TTL_MIN_US..=TTL_MAX_US).contains(&ttl_us) {
        return Ok(now_us + ttl_us);
    }
    Err(Invalid::new(field, "must be 1 second to 30 days"))
}

fn changes<'a>(lines: impl Iterator<Item = (&'a String, i32, i32)>) -> Vec<StockChange> {
    let mut changes: Vec<StockChange> = lines
        .filter(|(_, on_hand, reserved)| *on_hand != 0 || *reserved != 0)
        .map(|(sku, on_hand, reserved)| StockChange {
            sku: sku.clone(),
            on_hand,
            reserved,
        })
        .collect();
    changes.sort_by(|a, b| a.sku.cmp(&b.sku));
    changes
}

fn exceeded(sku: &str, wanted: i32, left: i32, what: &'static str) -> Error {
    Error::QuantityExceeded {
        sku: sku.to_owned(),
        wanted,
        left,
        what,
    }
}

#[cfg(test)]
mod tests;
