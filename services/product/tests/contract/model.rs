//! The oracle for random commands: stock and reservations as a few maps, written down a second time
//! and without the service's code for states.

use std::collections::BTreeMap;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Held,
    Committed,
    Released,
    Expired,
}

#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) sku: usize,
    pub(crate) quantity: i32,
    pub(crate) committed: i32,
    pub(crate) restocked: i32,
}

#[derive(Debug, Clone)]
pub(crate) struct Reservation {
    pub(crate) state: State,
    pub(crate) lines: Vec<Line>,
    pub(crate) expires_at_us: i64,
}

impl Reservation {
    fn knows(&self, lines: &[(usize, i32)]) -> Result<(), &'static str> {
        let known = |sku: usize| self.lines.iter().any(|line| line.sku == sku);
        if lines.iter().all(|(sku, _)| known(*sku)) {
            Ok(())
        } else {
            Err("INVALID_REQUEST")
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Command {
    Reserve {
        lines: Vec<(usize, i32)>,
        expires_at_us: i64,
    },
    Extend {
        reservation: usize,
        expires_at_us: i64,
    },
    Commit {
        reservation: usize,
        lines: Vec<(usize, i32)>,
        release_rest: bool,
    },
    Release {
        reservation: usize,
    },
    Restock {
        reservation: usize,
        lines: Vec<(usize, i32)>,
    },
    Adjust {
        sku: usize,
        delta: i32,
    },
}

/// What the shop should be like.
#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    pub(crate) on_hand: BTreeMap<usize, i32>,
    pub(crate) reservations: Vec<Reservation>,
}

impl Model {
    /// Holds that have run out are gone at that moment.
    pub(crate) fn pass_time(&mut self, now_us: i64) {
        for reservation in &mut self.reservations {
            if reservation.state == State::Held && reservation.expires_at_us <= now_us {
                reservation.state = State::Expired;
            }
        }
    }

    pub(crate) fn reserved(&self, sku: usize) -> i32 {
        let held = self
            .reservations
            .iter()
            .filter(|one| one.state == State::Held);
        let lines = held
            .flat_map(|one| &one.lines)
            .filter(|line| line.sku == sku);
        lines.map(|line| line.quantity - line.committed).sum()
    }

    fn free(&self, sku: usize) -> i32 {
        self.on_hand[&sku] - self.reserved(sku)
    }

    /// Carries a command out, or says why not and changes nothing.
    pub(crate) fn apply(&mut self, command: &Command) -> Result<(), &'static str> {
        let mut after = self.clone();
        after.change(command)?;
        *self = after;
        Ok(())
    }

    fn change(&mut self, command: &Command) -> Result<(), &'static str> {
        match command {
            Command::Reserve {
                lines,
                expires_at_us,
            } => {
                if lines
                    .iter()
                    .any(|(sku, quantity)| self.free(*sku) < *quantity)
                {
                    return Err("OUT_OF_STOCK");
                }
                let line = |(sku, quantity): &(usize, i32)| Line {
                    sku: *sku,
                    quantity: *quantity,
                    committed: 0,
                    restocked: 0,
                };
                self.reservations.push(Reservation {
                    state: State::Held,
                    lines: lines.iter().map(line).collect(),
                    expires_at_us: *expires_at_us,
                });
                Ok(())
            }
            Command::Extend {
                reservation,
                expires_at_us,
            } => {
                let one = &mut self.reservations[*reservation];
                if one.state != State::Held {
                    return Err("INVALID_STATE");
                }
                one.expires_at_us = one.expires_at_us.max(*expires_at_us);
                Ok(())
            }
            Command::Commit {
                reservation,
                lines,
                release_rest,
            } => self.commit(*reservation, lines, *release_rest),
            Command::Release { reservation } => {
                let one = &mut self.reservations[*reservation];
                let committed = one.lines.iter().any(|line| line.committed > 0);
                let whole = one.lines.iter().all(|line| line.committed == line.quantity);
                match one.state {
                    State::Held if committed => one.state = State::Committed,
                    State::Held => one.state = State::Released,
                    State::Committed if whole => return Err("INVALID_STATE"),
                    State::Committed | State::Released | State::Expired => {}
                }
                Ok(())
            }
            Command::Restock { reservation, lines } => {
                let one = &mut self.reservations[*reservation];
                if one.state == State::Released {
                    return Err("INVALID_STATE");
                }
                one.knows(lines)?;
                for (sku, quantity) in lines {
                    let line = one.lines.iter_mut().find(|line| line.sku == *sku).unwrap();
                    line.restocked += quantity;
                    if line.restocked > line.committed {
                        return Err("QUANTITY_EXCEEDED");
                    }
                    *self.on_hand.get_mut(sku).unwrap() += quantity;
                }
                Ok(())
            }
            Command::Adjust { sku, delta } => {
                if self.on_hand[sku] + delta < self.reserved(*sku) {
                    return Err("STOCK_RESERVED");
                }
                *self.on_hand.get_mut(sku).unwrap() += delta;
                Ok(())
            }
        }
    }

    fn commit(
        &mut self,
        reservation: usize,
        lines: &[(usize, i32)],
        release_rest: bool,
    ) -> Result<(), &'static str> {
        let state = self.reservations[reservation].state;
        if state == State::Released {
            return Err("INVALID_STATE");
        }
        self.reservations[reservation].knows(lines)?;
        let mut taken = lines.to_vec();
        if lines.is_empty() {
            if state == State::Committed {
                return Ok(());
            }
            let all = self.reservations[reservation].lines.iter();
            taken = all
                .map(|line| (line.sku, line.quantity - line.committed))
                .collect();
        }
        for (sku, quantity) in &taken {
            let lines = &self.reservations[reservation].lines;
            let line = lines
                .iter()
                .find(|line| line.sku == *sku)
                .ok_or("INVALID_REQUEST")?;
            let left = if state == State::Committed {
                0
            } else {
                line.quantity - line.committed
            };
            if *quantity > left {
                return Err("QUANTITY_EXCEEDED");
            }
        }
        if state == State::Expired
            && taken
                .iter()
                .any(|(sku, quantity)| *quantity > 0 && self.free(*sku) < *quantity)
        {
            return Err("OUT_OF_STOCK");
        }
        let one = &mut self.reservations[reservation];
        for (sku, quantity) in &taken {
            let line = one.lines.iter_mut().find(|line| line.sku == *sku).unwrap();
            line.committed += quantity;
            *self.on_hand.get_mut(sku).unwrap() -= quantity;
        }
        if release_rest || one.lines.iter().all(|line| line.committed == line.quantity) {
            one.state = State::Committed;
        }
        Ok(())
    }
}
