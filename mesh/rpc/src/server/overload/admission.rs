//! Who gets in, who waits and who is refused, pure (time and chance are arguments).
//!
//! By criticality ("Site Reliability Engineering", chapter 21): a freed place goes to the most critical
//! call that waits, a full queue loses its least critical one, and the last part of the limit is kept free
//! of what is sheddable, so that a critical call need not wait for calls that are long. (DAGOR, "Overload
//! Control for Scaling WeChat Microservices", Zhou et al. 2018, moves a threshold through the classes
//! instead; here the order of the queue does, and no histogram of the last second can be wrong.)
//!
//! By caller: within a class, the caller with the fewest calls in flight is next, and the one that holds
//! the most loses its newest (max-min fairness). Whoever sends five times as much gets no more than the
//! others, if they want as much.
//!
//! A short wait bridges a burst; a queue that has not been empty for half a second is no burst, and then what is
//! sheddable waits for one mean latency only ("Fail at Scale", Maurer 2015: controlled delay).

use std::{
    cmp::{Ordering, Reverse},
    collections::HashMap,
};

use super::{
    OverloadConfig,
    limit::{Departure, Limit},
};
use crate::{
    client::clock::{Nanos, float, millis, whole},
    contract::Criticality,
};

/// How long a queue that does not empty is a burst, and how long what is sheddable waits in one.
const BURST: Nanos = millis(500);
/// The shortest wait that is worth waiting.
const WAIT_MIN: Nanos = millis(10);
/// The shortest and the longest pause that a refused caller is asked for.
const PAUSE_MIN: Nanos = millis(20);
const PAUSE_MAX: Nanos = millis(2_000);

/// Names a call that waits. Never reused.
pub(crate) type Ticket = u64;

/// A call that asks for a place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) criticality: Criticality,
    /// The number of its method.
    pub(crate) method: usize,
    /// A hash of the caller's name.
    pub(crate) caller: u64,
    /// When its caller stops waiting.
    pub(crate) deadline: Option<Nanos>,
}

/// What becomes of a call that asks for a place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Admitted,
    /// Until then; [`Admission::cancel`] it afterwards.
    Waits(Ticket, Nanos),
    Refused,
}

/// What becomes of a call that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It has a place since then.
    Admitted(Nanos),
    /// Its time is up.
    Expired,
    /// A better one took its place in the queue.
    Displaced,
}

/// The limit, what is in flight below it, and what waits for a place. `W` is how a waiting call is told.
#[derive(Debug)]
pub(crate) struct Admission<W> {
    limit: Limit,
    in_flight: usize,
    /// Where each caller that has something here is found in `held`.
    callers: HashMap<u64, usize>,
    held: Vec<Held>,
    /// The places in `held` that are free.
    free: Vec<usize>,
    waiting: Vec<Waiter<W>>,
    /// How many wait of each criticality, lowest first.
    classes: [usize; 4],
    next: Ticket,
    /// When the queue was last seen empty.
    empty_at: Nanos,
}

/// What a caller has here.
#[derive(Clone, Copy, Debug)]
struct Held {
    caller: u64,
    in_flight: u32,
    waiting: u32,
}

#[derive(Debug)]
struct Waiter<W> {
    ticket: Ticket,
    arrival: Arrival,
    /// Where its caller is found in `held`.
    held: usize,
    tell: W,
}

impl<W> Admission<W> {
    /// For `methods` methods, numbered from 0.
    pub(crate) fn new(methods: usize, config: &OverloadConfig) -> Self {
        Self {
            limit: Limit::new(methods, config),
            in_flight: 0,
            callers: HashMap::new(),
            held: Vec::new(),
            free: Vec::new(),
            waiting: Vec::new(),
            classes: [0; 4],
            next: 0,
            empty_at: 0,
        }
    }

    #[cfg(test)]
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn limit(&self) -> u64 {
        whole(self.limit.current())
    }

    /// A call asks for a place. Those whose fate it decides are put into `told`.
    pub(crate) fn arrive(
        &mut self,
        now: Nanos,
        arrival: Arrival,
        config: &OverloadConfig,
        tell: impl FnOnce() -> W,
        told: &mut Vec<(W, Fate)>,
    ) -> Verdict {
        self.grant(now, told);
        if self.waiting.is_empty() {
            self.empty_at = now;
        }
        if self.has_room(arrival.criticality) {
            let held = self.hold(arrival.caller);
            self.admit(now, held, arrival.method);
            return Verdict::Admitted;
        }
        if self.waiting.len() >= config.waiting_max {
            if !self.may_displace(&arrival) {
                return Verdict::Refused;
            }
            match self.worst() {
                Some(worst) if self.is_better(&arrival, &self.waiting[worst]) => {
                    told.push((self.remove(worst).tell, Fate::Displaced));
                }
                _ => return Verdict::Refused,
            }
        }
        let (ticket, until) = (self.next, now + self.patience(now, &arrival, config));
        self.next += 1;
        let held = self.hold(arrival.caller);
        self.held[held].waiting += 1;
        self.classes[arrival.criticality as usize] += 1;
        self.waiting.push(Waiter {
            ticket,
            arrival,
            held,
            tell: tell(),
        });
        Verdict::Waits(ticket, until)
    }

    /// A call that was admitted at `began` is over.
    pub(crate) fn leave(
        &mut self,
        now: Nanos,
        arrival: &Arrival,
        began: Nanos,
        departure: Departure,
        config: &OverloadConfig,
        told: &mut Vec<(W, Fate)>,
    ) {
        self.in_flight -= 1;
        let held = self.callers.get(&arrival.caller).copied();
        let held = held.expect("whoever has something here is counted");
        self.held[held].in_flight -= 1;
        self.release(held);
        let (method, left) = (arrival.method, self.in_flight);
        self.limit.end(now, method, began, departure, left, config);
        self.grant(now, told);
    }

    /// A call waits no longer. `false`: it does not wait, because its fate was told before.
    pub(crate) fn cancel(&mut self, ticket: Ticket) -> bool {
        let found = self
            .waiting
            .iter()
            .position(|waiter| waiter.ticket == ticket);
        if let Some(index) = found {
            self.remove(index);
        }
        found.is_some()
    }

    /// After how long a refused caller may try again, in nanoseconds. `random` is below 1.
    pub(crate) fn pause(&self, criticality: Criticality, random: f64) -> Nanos {
        let patience = match criticality {
            Criticality::Sheddable => 8.0,
            Criticality::SheddablePlus => 4.0,
            Criticality::Critical | Criticality::CriticalPlus => 2.0,
        };
        let mean = self.limit.latency_mean().max(float(PAUSE_MIN)) * patience;
        whole(mean * (0.5 + random)).clamp(PAUSE_MIN, PAUSE_MAX)
    }

    /// Gives free places to those who wait for them.
    fn grant(&mut self, now: Nanos, told: &mut Vec<(W, Fate)>) {
        while let Some(best) = self.best() {
            let waiter = self.take(best);
            let deadline = waiter.arrival.deadline;
            if deadline.is_some_and(|deadline| deadline <= now) {
                self.release(waiter.held);
                told.push((waiter.tell, Fate::Expired));
            } else {
                self.admit(now, waiter.held, waiter.arrival.method);
                told.push((waiter.tell, Fate::Admitted(now)));
            }
        }
    }

    fn admit(&mut self, now: Nanos, held: usize, method: usize) {
        self.in_flight += 1;
        self.limit.begin(now, method, self.in_flight);
        self.held[held].in_flight += 1;
    }

    fn has_room(&self, criticality: Criticality) -> bool {
        let part = match criticality {
            Criticality::Sheddable => 0.8,
            Criticality::SheddablePlus => 0.9,
            Criticality::Critical | Criticality::CriticalPlus => 1.0,
        };
        float(self.in_flight as u64) + 1.0 <= (self.limit.current() * part).max(1.0)
    }

    /// How long a call may wait for a place.
    fn patience(&self, now: Nanos, arrival: &Arrival, config: &OverloadConfig) -> Nanos {
        let longest = millis(config.wait_ms);
        if arrival.criticality >= Criticality::Critical {
            return longest;
        }
        let longest = longest.min(BURST);
        if now.saturating_sub(self.empty_at) <= BURST {
            longest
        } else {
            whole(self.limit.latency_mean()).max(WAIT_MIN).min(longest)
        }
    }

    /// The next to get a place, if there is one for it.
    fn best(&self) -> Option<usize> {
        if !self.has_room(Criticality::CriticalPlus) {
            return None; // As nearly always when somebody waits.
        }
        let order = |waiter: &Waiter<W>| {
            let held = self.held[waiter.held].in_flight;
            (Reverse(waiter.arrival.criticality), held, waiter.ticket)
        };
        let waiting = self.waiting.iter().enumerate();
        let (index, best) = waiting.min_by_key(|(_, waiter)| order(waiter))?;
        // Who is less critical has no more room.
        self.has_room(best.arrival.criticality).then_some(index)
    }

    /// `false`: no place in the queue can be a newcomer's. In a long overload that is what is asked most often, and a look
    /// at the callers is cheaper than one at all that waits.
    fn may_displace(&self, newcomer: &Arrival) -> bool {
        let least = self.classes.iter().position(|waiting| *waiting > 0);
        least.is_some_and(|least| match (newcomer.criticality as usize).cmp(&least) {
            Ordering::Less => false,
            Ordering::Equal => {
                let has = self.all_of(newcomer.caller);
                self.held.iter().any(|held| has + 1 < held.all())
            }
            Ordering::Greater => true,
        })
    }

    /// How much of this caller is in flight or waits.
    fn all_of(&self, caller: u64) -> u32 {
        let held = self.callers.get(&caller);
        held.map_or(0, |held| self.held[*held].all())
    }

    /// The first to lose its place in the queue.
    fn worst(&self) -> Option<usize> {
        let order = |waiter: &Waiter<W>| {
            let held = self.held[waiter.held].all();
            (Reverse(waiter.arrival.criticality), held, waiter.ticket)
        };
        let waiting = self.waiting.iter().enumerate();
        waiting
            .max_by_key(|(_, waiter)| order(waiter))
            .map(|(index, _)| index)
    }

    /// Whether a newcomer deserves the place in the queue more than the worst of those who have one.
    fn is_better(&self, newcomer: &Arrival, worst: &Waiter<W>) -> bool {
        let has = self.all_of(newcomer.caller);
        newcomer.criticality > worst.arrival.criticality
            || (newcomer.criticality == worst.arrival.criticality
                && has + 1 < self.held[worst.held].all())
    }

    fn remove(&mut self, index: usize) -> Waiter<W> {
        let waiter = self.take(index);
        self.release(waiter.held);
        waiter
    }

    /// Out of the queue.
    fn take(&mut self, index: usize) -> Waiter<W> {
        let waiter = self.waiting.swap_remove(index);
        self.held[waiter.held].waiting -= 1;
        self.classes[waiter.arrival.criticality as usize] -= 1;
        waiter
    }

    /// Where a caller's counts are.
    fn hold(&mut self, caller: u64) -> usize {
        *self.callers.entry(caller).or_insert_with(|| {
            let fresh = Held {
                caller,
                in_flight: 0,
                waiting: 0,
            };
            if let Some(index) = self.free.pop() {
                self.held[index] = fresh;
                return index;
            }
            self.held.push(fresh);
            self.held.len() - 1
        })
    }

    /// Forgets a caller that has nothing here any more.
    fn release(&mut self, held: usize) {
        if self.held[held].all() == 0 {
            self.callers.remove(&self.held[held].caller);
            self.free.push(held);
        }
    }
}

impl Held {
    fn all(self) -> u32 {
        self.in_flight + self.waiting
    }
}
