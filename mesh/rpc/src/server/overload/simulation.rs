//! The overload control in front of a server of `workers` workers and an endless queue, in virtual time:
//! what it does in minutes of overload is seen in milliseconds, and the same for the same seed.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
};

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{
    OverloadConfig,
    admission::{Admission, Arrival, Fate, Ticket, Verdict},
    limit::{Departure, Limit},
};
use crate::{
    client::clock::{Nanos, float, millis, whole},
    contract::Criticality::{self, Critical, Sheddable, SheddablePlus},
};

const SECOND: Nanos = millis(1_000);

/// Calls of one kind, which come at random at a rate.
#[derive(Clone, Copy)]
struct Stream {
    caller: u64,
    criticality: Criticality,
    method: usize,
    rate_per_s: f64,
}

impl Stream {
    fn arrival(&self) -> Arrival {
        Arrival {
            criticality: self.criticality,
            method: self.method,
            caller: self.caller,
            deadline: None,
        }
    }
}

/// What a stream came to, since the last look.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    offered: u32,
    served: u32,
    refused: u32,
    latencies: f64,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrives(usize),
    Done(usize),
    Impatient(usize),
}

struct Call {
    stream: usize,
    asked: Nanos,
    began: Nanos,
    ticket: Option<Ticket>,
}

struct Simulation {
    config: OverloadConfig,
    admission: Admission<usize>,
    streams: Vec<Stream>,
    tallies: Vec<Tally>,
    workers: usize,
    /// Mean, by method; each call's own is exponential around it.
    service: Vec<f64>,
    busy: usize,
    queue: VecDeque<usize>,
    calls: HashMap<usize, Call>,
    next_call: usize,
    events: BinaryHeap<Reverse<(Nanos, Event)>>,
    now: Nanos,
    random: StdRng,
}

impl Simulation {
    /// Workers that take `service_ms` on average, by method, and nobody who calls yet.
    fn new(seed: u64, workers: usize, service_ms: &[f64], config: OverloadConfig) -> Self {
        Self {
            admission: Admission::new(service_ms.len(), &config),
            config,
            streams: Vec::new(),
            tallies: Vec::new(),
            workers,
            service: service_ms.iter().map(|ms| ms * 1e6).collect(),
            busy: 0,
            queue: VecDeque::new(),
            calls: HashMap::new(),
            next_call: 0,
            events: BinaryHeap::new(),
            now: 1,
            random: StdRng::seed_from_u64(seed),
        }
    }

    fn call(&mut self, caller: u64, criticality: Criticality, method: usize, rate_per_s: f64) {
        self.streams.push(Stream {
            caller,
            criticality,
            method,
            rate_per_s,
        });
        self.tallies.push(Tally::default());
        self.schedule(self.streams.len() - 1);
    }

    fn exponential(&mut self, mean: f64) -> Nanos {
        let random: f64 = self.random.random();
        whole(-mean * (1.0 - random).ln())
    }

    fn schedule(&mut self, stream: usize) {
        let pause = self.exponential(1e9 / self.streams[stream].rate_per_s);
        self.at(self.now + pause, Event::Arrives(stream));
    }

    fn at(&mut self, time: Nanos, event: Event) {
        self.events.push(Reverse((time, event)));
    }

    /// Goes on for so many seconds and tells what came of each stream meanwhile.
    fn run(&mut self, seconds: u64) -> Vec<Tally> {
        let end = self.now + seconds * SECOND;
        while let Some(Reverse((time, _))) = self.events.peek()
            && *time <= end
        {
            let Some(Reverse((time, event))) = self.events.pop() else {
                break;
            };
            self.now = time;
            match event {
                Event::Arrives(stream) => self.arrive(stream),
                Event::Done(call) => self.done(call),
                Event::Impatient(call) => self.impatient(call),
            }
        }
        self.now = end;
        let fresh = vec![Tally::default(); self.streams.len()];
        std::mem::replace(&mut self.tallies, fresh)
    }

    fn arrive(&mut self, index: usize) {
        self.schedule(index);
        let stream = self.streams[index];
        self.tallies[index].offered += 1;
        let id = self.next_call;
        self.next_call += 1;
        let mut told = Vec::new();
        let arrival = stream.arrival();
        let verdict = self
            .admission
            .arrive(self.now, arrival, &self.config, || id, &mut told);
        let mut call = Call {
            stream: index,
            asked: self.now,
            began: self.now,
            ticket: None,
        };
        match verdict {
            Verdict::Refused => self.tallies[index].refused += 1,
            Verdict::Admitted => {
                self.calls.insert(id, call);
                self.begin(id);
            }
            Verdict::Waits(ticket, until) => {
                call.ticket = Some(ticket);
                self.calls.insert(id, call);
                self.at(until, Event::Impatient(id));
            }
        }
        self.tell(told);
    }

    fn tell(&mut self, told: Vec<(usize, Fate)>) {
        for (id, fate) in told {
            if fate == Fate::Admitted(self.now) {
                self.begin(id);
            } else {
                self.refuse(id);
            }
        }
    }

    fn refuse(&mut self, id: usize) {
        let call = self.calls.remove(&id).expect("the call is known");
        self.tallies[call.stream].refused += 1;
    }

    fn begin(&mut self, id: usize) {
        let call = self.calls.get_mut(&id).expect("the call is known");
        (call.began, call.ticket) = (self.now, None);
        self.queue.push_back(id);
        self.work();
    }

    fn work(&mut self) {
        while self.busy < self.workers
            && let Some(id) = self.queue.pop_front()
        {
            self.busy += 1;
            let method = self.streams[self.calls[&id].stream].method;
            let takes = self.exponential(self.service[method]);
            self.at(self.now + takes, Event::Done(id));
        }
    }

    fn done(&mut self, id: usize) {
        self.busy -= 1;
        let call = self.calls.remove(&id).expect("the call is known");
        let stream = self.streams[call.stream];
        let tally = &mut self.tallies[call.stream];
        tally.served += 1;
        tally.latencies += float(self.now - call.asked);
        let mut told = Vec::new();
        self.admission.leave(
            self.now,
            &stream.arrival(),
            call.began,
            Departure::Served,
            &self.config,
            &mut told,
        );
        self.tell(told);
        self.work();
    }

    fn impatient(&mut self, id: usize) {
        let waits = self.calls.get(&id).and_then(|call| call.ticket);
        if let Some(ticket) = waits
            && self.admission.cancel(ticket)
        {
            self.refuse(id);
        }
    }
}

impl Simulation {
    /// What the limit is most of the time: now and then a baseline is measured below it.
    fn median_limit(&mut self) -> u64 {
        let mut limits: Vec<_> = (0..11)
            .map(|_| {
                self.run(1);
                self.admission.limit()
            })
            .collect();
        limits.sort_unstable();
        limits[5]
    }
}

fn adaptive(limit_min: usize) -> OverloadConfig {
    OverloadConfig {
        limit_min,
        waiting_max: 32,
        ..OverloadConfig::default()
    }
}

impl Simulation {
    /// Calls of one moment.
    fn burst(&mut self, caller: u64, criticality: Criticality, calls: usize) {
        self.streams.push(Stream {
            caller,
            criticality,
            method: 0,
            rate_per_s: 1e-8, // None after these.
        });
        self.tallies.push(Tally::default());
        for _ in 0..calls {
            self.arrive(self.streams.len() - 1);
        }
    }
}

fn served_per_s(tallies: &[Tally], seconds: u64) -> f64 {
    let served: u32 = tallies.iter().map(|tally| tally.served).sum();
    f64::from(served) / float(seconds)
}

impl Tally {
    fn part(&self) -> f64 {
        1.0 - f64::from(self.refused) / f64::from(self.offered)
    }

    fn latency_ms(&self) -> f64 {
        self.latencies / f64::from(self.served) / 1e6
    }
}

/// Five times as many calls as `workers` workers of 50 ms can serve, all of one class.
fn overloaded(seed: u64, workers: usize) -> (Simulation, f64) {
    let mut simulation = Simulation::new(seed, workers, &[50.0], adaptive(1));
    let peak = float(workers as u64) * 20.0;
    simulation.call(1, Critical, 0, 5.0 * peak);
    (simulation, peak)
}

const SEEDS: std::ops::Range<u64> = 1..4;

#[test]
fn the_limit_settles_a_little_above_the_number_of_workers() {
    for (seed, workers) in (1..).zip([8, 20, 60]) {
        let (mut simulation, peak) = overloaded(seed, workers);
        simulation.run(30);
        let served = served_per_s(&simulation.run(20), 20) / peak;
        let limit = float(simulation.median_limit()) / float(workers as u64);
        let seen = format!("seed {seed}, {workers} workers: {served:.3} served, limit {limit:.2}x");
        println!("{seen}");
        assert!(served > 0.9, "{seen}");
        assert!((0.9..3.0).contains(&limit), "{seen}");
    }
}

#[test]
fn an_unloaded_server_refuses_nothing_and_its_limit_stays() {
    for seed in SEEDS {
        let mut simulation = Simulation::new(seed, 400, &[50.0], adaptive(1));
        simulation.call(1, Sheddable, 0, 1_000.0); // 50 in flight.
        let tallies = simulation.run(30);
        assert_eq!(tallies[0].refused, 0, "seed {seed}: {tallies:?}");
        assert_eq!(simulation.admission.limit(), 256, "seed {seed}");
    }
}

#[test]
fn the_limit_grows_as_far_as_it_is_used() {
    for seed in SEEDS {
        let mut simulation = Simulation::new(seed, 2_000, &[100.0], adaptive(1));
        simulation.call(1, Critical, 0, 8_000.0); // 800 in flight.
        simulation.run(4);
        let tallies = simulation.run(2);
        assert!(tallies[0].part() > 0.99, "seed {seed}: {tallies:?}");
        assert!(simulation.median_limit() < 2_200, "seed {seed}");
    }
}

#[test]
fn a_server_that_gets_slower_and_faster_again_is_used_all_the_time() {
    for seed in SEEDS {
        let (mut simulation, _) = overloaded(seed, 20);
        simulation.run(15);
        for ms in [200.0, 50.0, 120.0, 30.0] {
            let peak = 20_000.0 / ms;
            simulation.service[0] = ms * 1e6;
            simulation.streams[0].rate_per_s = 5.0 * peak;
            let early = served_per_s(&simulation.run(10), 10) / peak;
            let later = served_per_s(&simulation.run(30), 30) / peak;
            let limit = simulation.admission.limit();
            let seen = format!("seed {seed}, {ms} ms: {early:.3}, {later:.3}, limit {limit}");
            println!("{seen}");
            assert!(early > 0.5 && later > 0.9, "{seen}");
        }
    }
}

#[test]
fn a_long_overload_wears_the_limit_neither_down_nor_up() {
    let mut simulation = Simulation::new(7, 20, &[100.0], adaptive(1));
    simulation.call(1, Critical, 0, 400.0);
    simulation.run(60);
    for minute in 0..10 {
        let served = served_per_s(&simulation.run(60), 60);
        let limit = simulation.median_limit();
        println!("minute {minute}: {served:.1} of 200 per s, limit {limit}");
        assert!(served > 180.0, "minute {minute}: {served} of 200 per s");
        assert!((10..80).contains(&limit), "minute {minute}: {limit}");
    }
}

#[test]
fn a_change_of_the_mix_is_no_change_of_the_load() {
    for seed in SEEDS {
        let mut simulation = Simulation::new(seed, 100, &[10.0, 300.0], adaptive(1));
        simulation.call(1, Critical, 0, 4_000.0); // 40 workers.
        simulation.run(5);
        simulation.call(1, Critical, 1, 120.0); // 36 more.
        let tallies = simulation.run(10);
        let refused: u32 = tallies.iter().map(|tally| tally.refused).sum();
        assert_eq!(refused, 0, "seed {seed}: {tallies:?}");
    }
}

#[test]
fn what_is_critical_is_served_at_five_times_the_load() {
    for seed in SEEDS {
        let config = OverloadConfig::default();
        let mut simulation = Simulation::new(seed, 50, &[50.0], config);
        let peak = 1_000.0;
        simulation.call(1, Critical, 0, 0.3 * peak);
        simulation.call(1, SheddablePlus, 0, 0.5 * peak);
        simulation.call(1, Sheddable, 0, 4.2 * peak);
        simulation.run(5);
        let tallies = simulation.run(20);
        let served = served_per_s(&tallies, 20) / peak;
        let parts: Vec<_> = tallies.iter().map(Tally::part).collect();
        let latency = tallies[0].latency_ms();
        let seen = format!("seed {seed}: {served:.3} served, {parts:.4?}, {latency:.0} ms");
        println!("{seen}");
        assert!(served > 0.9 && parts[0] > 0.999 && parts[1] > 0.9, "{seen}");
        assert!(latency < 200.0, "{seen}");
    }
}

#[test]
fn with_the_defaults_five_times_the_load_of_one_class_keeps_every_worker_busy() {
    for (seed, workers) in (1..).zip([8, 30]) {
        let mut simulation = Simulation::new(seed, workers, &[50.0], OverloadConfig::default());
        let peak = float(workers as u64) * 20.0;
        simulation.call(1, Critical, 0, 5.0 * peak);
        simulation.run(20); // So long it takes from the 256 of the start to what a few workers can bear.
        let tallies = simulation.run(30);
        let served = served_per_s(&tallies, 30) / peak;
        let latency = tallies[0].latency_ms();
        let seen = format!("{workers} workers: {served:.3} served, {latency:.0} ms");
        println!("{seen}");
        assert!(served > 0.9, "seed {seed}, {seen}");
        // Whoever is served has waited no longer than he may, and then for a worker.
        assert!(latency < 2_500.0, "seed {seed}, {seen}");
    }
}

#[test]
fn with_the_defaults_a_thousand_calls_of_one_moment_are_served() {
    for seed in SEEDS {
        // As many as it takes for the last one to be begun in time.
        let mut simulation = Simulation::new(seed, 32, &[20.0], OverloadConfig::default());
        simulation.burst(1, Critical, 1_000);
        let tallies = simulation.run(10);
        assert_eq!(
            (tallies[0].served, tallies[0].refused),
            (1_000, 0),
            "seed {seed}"
        );
    }
}

#[test]
fn a_greedy_caller_gets_no_more_than_the_others_leave() {
    for seed in SEEDS {
        let config = OverloadConfig::default();
        let mut simulation = Simulation::new(seed, 50, &[50.0], config);
        let peak = 1_000.0;
        simulation.call(1, Critical, 0, 4.6 * peak);
        simulation.call(2, Critical, 0, 0.2 * peak);
        simulation.call(3, Critical, 0, 0.2 * peak);
        simulation.run(5);
        let tallies = simulation.run(20);
        let served = served_per_s(&tallies, 20) / peak;
        let parts: Vec<_> = tallies.iter().map(Tally::part).collect();
        let seen = format!("seed {seed}: {served:.3} served, {parts:.4?}");
        println!("{seen}");
        assert!(served > 0.9 && parts[1] > 0.99 && parts[2] > 0.99, "{seen}");
    }
}

#[test]
fn a_measurement_that_comes_to_no_end_is_given_up() {
    let config = adaptive(1);
    let (mut limit, mut now) = (Limit::new(1, &config), 1);
    let step = |limit: &mut Limit, now: &mut Nanos, latency_ms, departure| {
        let in_flight = usize::try_from(whole(limit.current())).unwrap();
        limit.begin(*now, 0, in_flight);
        let began = *now;
        *now += millis(latency_ms);
        limit.end(*now, 0, began, departure, 0, &config);
    };
    for _ in 0..2_000 {
        step(&mut limit, &mut now, 10, Departure::Served);
    }
    let before = limit.current();
    let mut measured = 0;
    while limit.current() >= before / 2.0 {
        step(&mut limit, &mut now, 20, Departure::Served); // Slower: worth measuring.
        measured += 1;
        assert!(measured < 10_000, "never measures");
    }
    for _ in 0..1_000 {
        step(&mut limit, &mut now, 20, Departure::Unmeasured); // All calls fail now.
    }
    assert!(
        limit.current() >= before / 2.0,
        "{} of {before}",
        limit.current()
    );
}
