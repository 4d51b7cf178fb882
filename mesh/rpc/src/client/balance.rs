//! Which endpoint a call goes to: the cheaper of two that are drawn at random ("The Power of Two Choices
//! in Randomized Load Balancing", Mitzenmacher 2001; the cost is Finagle's, see `load.rs`).
//!
//! Two draws know enough: a pick costs the same with ten endpoints and with ten thousand. Draws are in
//! proportion to the weights (Vose's alias method, 1991), so costs need not be. Endpoints of this
//! process's own zone are drawn first; a third draw, from the other zones, takes over when it is much
//! cheaper or nothing here can be used.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use rand::Rng;

use super::{
    clock::{Nanos, float},
    config::BalanceConfig,
    endpoint::Endpoint,
    pool::Pool,
};

/// How many draws may hit endpoints that cannot be used before all are looked at.
const DRAWS_MAX: usize = 8;

/// How many endpoints are dialed at a time where none is connected.
const DIALS_MAX: usize = 64;

/// How many endpoints a call remembers to have tried.
const TRIED_MAX: usize = 4;

/// An endpoint, and what discovery says of its place among the others.
#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) weight: u32,
    pub(crate) zone: Arc<str>,
}

/// The endpoints of a destination at one moment; replaced as a whole.
#[derive(Default)]
pub(crate) struct Set {
    /// Those of this zone first.
    members: Vec<Member>,
    near: Group,
    far: Group,
    weight_mean: f64,
}

/// A part of the members from which draws are made.
#[derive(Default)]
struct Group {
    range: Range<usize>,
    alias: Option<Alias>,
}

/// The endpoints that earlier attempts of a call went to; the last four of them.
#[derive(Debug, Default)]
pub(crate) struct Tried {
    ids: [AtomicU64; TRIED_MAX],
    count: AtomicUsize,
}

impl Tried {
    pub(crate) fn add(&self, id: u64) {
        let index = self.count.fetch_add(1, Relaxed) % TRIED_MAX;
        self.ids[index].store(id, Relaxed);
    }

    fn has(&self, id: u64) -> bool {
        let count = self.count.load(Relaxed).min(TRIED_MAX);
        self.ids[..count]
            .iter()
            .any(|tried| tried.load(Relaxed) == id)
    }
}

/// What a pick comes to.
pub(crate) enum Pick<'s> {
    Endpoint(&'s Arc<Endpoint>),
    /// None is connected, and at least one is being connected.
    Wait,
    /// None can be had.
    Nothing,
}

impl Set {
    /// `zone` is this process's own; empty: none is preferred.
    pub(crate) fn new(members: Vec<Member>, zone: &str) -> Self {
        let is_near = |member: &Member| zone.is_empty() || &*member.zone == zone;
        let (mut members, far): (Vec<_>, Vec<_>) = members.into_iter().partition(is_near);
        let near = members.len();
        members.extend(far);
        let group = |range: Range<usize>| {
            let weights = members[range.clone()].iter().map(|member| member.weight);
            Group {
                alias: Alias::new(weights.collect()),
                range,
            }
        };
        let weights: f64 = members.iter().map(|member| f64::from(member.weight)).sum();
        Self {
            weight_mean: weights / float(members.len() as u64),
            near: group(0..near),
            far: group(near..members.len()),
            members,
        }
    }

    pub(crate) fn members(&self) -> &[Member] {
        &self.members
    }

    pub(crate) fn pick(
        &self,
        now: Nanos,
        config: &BalanceConfig,
        tried: &Tried,
        random: &mut impl Rng,
    ) -> Pick<'_> {
        let cost = |member: &Member| {
            let share = f64::from(member.weight) / self.weight_mean;
            member.endpoint.cost(now, config, share)
        };
        let near = self.draw(&self.near, 2, now, tried, random);
        let far = self.draw(
            &self.far,
            if near.is_some() { 1 } else { 2 },
            now,
            tried,
            random,
        );
        let chosen = match (near.map(|pair| pair.cheaper(cost)), far) {
            (Some(near), None) => near,
            (None, Some(far)) => far.cheaper(cost),
            (Some(near), Some(far)) => {
                let far = far.cheaper(cost);
                let spill = f64::from(config.zone_spill_percent) / 100.0;
                if cost(near) > spill * cost(far) {
                    far
                } else {
                    near
                }
            }
            (None, None) => return self.search(now, tried, random),
        };
        Pick::Endpoint(&chosen.endpoint)
    }

    /// Up to two different members that can be used. Those without a connection are told to get one.
    fn draw<'s>(
        &'s self,
        group: &Group,
        wanted: usize,
        now: Nanos,
        tried: &Tried,
        random: &mut impl Rng,
    ) -> Option<Pair<'s>> {
        let members = &self.members[group.range.clone()];
        let draws_max = match members.len() {
            0 => return None,
            1 => 1,
            _ => DRAWS_MAX,
        };
        let mut found: Option<(usize, &Member)> = None;
        let mut last = None;
        for _ in 0..draws_max {
            let index = group.index(members.len(), last, random);
            last = Some(index);
            let member = &members[index];
            let endpoint = &member.endpoint;
            if !endpoint.is_usable(now) {
                if !endpoint.pool.is_live() {
                    endpoint.pool.dial();
                }
                continue;
            }
            if tried.has(endpoint.id) {
                continue;
            }
            match found {
                Some((held, _)) if held == index => {}
                Some((_, first)) => return Some(Pair(first, Some(member))),
                None if wanted == 1 => return Some(Pair(member, None)),
                None => found = Some((index, member)),
            }
        }
        found.map(|(_, member)| Pair(member, None))
    }

    /// Looks at all of them, from a random one on, and takes the first of the best kind: not ejected and
    /// not tried before ejected, before tried.
    #[cold]
    fn search(&self, now: Nanos, tried: &Tried, random: &mut impl Rng) -> Pick<'_> {
        if self.members.is_empty() {
            return Pick::Nothing;
        }
        let (mut best, mut dialing) = (None, false);
        let start = random.random_range(0..self.members.len());
        let (before, from) = self.members.split_at(start);
        for Member { endpoint, .. } in from.iter().chain(before) {
            if !endpoint.pool.is_live() {
                dialing |= endpoint.pool.is_dialing();
                continue;
            }
            let rank = usize::from(endpoint.reputation.is_ejected(now))
                + 2 * usize::from(tried.has(endpoint.id));
            if best.is_none_or(|(least, _)| rank < least) {
                best = Some((rank, endpoint));
            }
            if rank == 0 {
                break;
            }
        }
        match best {
            Some((_, endpoint)) => Pick::Endpoint(endpoint),
            None if dialing || self.dial(random, |pool| pool.retry_at() <= now) => Pick::Wait,
            None => Pick::Nothing,
        }
    }

    /// Nobody is left: dials whatever their pauses are.
    pub(crate) fn rally(&self, random: &mut impl Rng) {
        self.dial(random, |_| true);
    }

    /// Dials up to `DIALS_MAX` of those that are due, from a random one on. Whether there was one.
    fn dial(&self, random: &mut impl Rng, is_due: impl Fn(&Pool) -> bool) -> bool {
        let start = random.random_range(0..self.members.len());
        let (before, from) = self.members.split_at(start);
        let pools = from
            .iter()
            .chain(before)
            .map(|member| &member.endpoint.pool);
        let due = pools.filter(|pool| is_due(pool)).take(DIALS_MAX);
        due.map(Pool::dial_now).count() > 0
    }

    /// Whether a call that has tried one endpoint could go to another.
    pub(crate) fn has_other(&self, now: Nanos, tried: &Tried) -> bool {
        let other =
            |member: &Member| member.endpoint.is_usable(now) && !tried.has(member.endpoint.id);
        self.members.len() > 1 && self.members.iter().any(other)
    }
}

struct Pair<'s>(&'s Member, Option<&'s Member>);

impl<'s> Pair<'s> {
    fn cheaper(self, cost: impl Fn(&Member) -> f64) -> &'s Member {
        match self {
            Self(first, Some(second)) if cost(second) < cost(first) => second,
            Self(first, _) => first,
        }
    }
}

impl Group {
    /// A random index; where all weigh the same, never twice the same one in a row.
    fn index(&self, len: usize, last: Option<usize>, random: &mut impl Rng) -> usize {
        match (&self.alias, last) {
            (Some(alias), _) => alias.draw(random),
            (None, Some(last)) if len > 1 => (last + random.random_range(1..len)) % len,
            (None, _) => random.random_range(0..len),
        }
    }
}

/// Draws indexes in proportion to weights, in constant time.
struct Alias {
    /// For each index: how likely it is itself, and who else it is.
    table: Vec<(f64, usize)>,
}

impl Alias {
    /// `None`: all weigh the same.
    fn new(weights: Vec<u32>) -> Option<Self> {
        if weights.iter().all(|weight| Some(weight) == weights.first()) {
            return None;
        }
        let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
        let scale = float(weights.len() as u64) / total;
        let mut table: Vec<_> = weights
            .iter()
            .enumerate()
            .map(|(index, weight)| (f64::from(*weight) * scale, index))
            .collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..table.len()).partition(|index| table[*index].0 < 1.0);
        while let (Some(less), Some(more)) = (small.pop(), large.last().copied()) {
            table[less].1 = more;
            table[more].0 -= 1.0 - table[less].0;
            if table[more].0 < 1.0 {
                large.pop();
                small.push(more);
            }
        }
        Some(Self { table })
    }

    fn draw(&self, random: &mut impl Rng) -> usize {
        let index = random.random_range(0..self.table.len());
        let (own, other) = self.table[index];
        if random.random::<f64>() < own {
            index
        } else {
            other
        }
    }
}

#[cfg(test)]
#[path = "balance/tests.rs"]
pub(crate) mod testing;
