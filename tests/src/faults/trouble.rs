//! Who makes trouble: one hand kills processes, the other one servers and connections, both at the same time.
//!
//! Everything that is started here is told by the kernel when the thread that started it ends, so both hands
//! stay until the run is over.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::{IndexedMutRandom, IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use xtask::servers::Servers;

use super::house::{End, House, Process};

/// How often is looked whether a process has died at its fault point.
const LOOK: Duration = Duration::from_millis(20);
/// How long a broker that was killed stays away, at most.
const AWAY_MAX: Duration = Duration::from_secs(2);

/// How much trouble there is to be.
#[derive(Clone, Copy, Debug)]
pub struct Amounts {
    /// For how long.
    pub duration: Duration,
    /// Brokers killed.
    pub broker_kills: u32,
    /// Brokers stopped in good order and started again.
    pub broker_stops: u32,
    /// PostgreSQL restarted at once.
    pub postgres_restarts: u32,
    /// Times that all connections through one of the proxies are cut.
    pub cuts: u32,
}

/// What happened, by name.
#[derive(Clone, Debug, Default)]
pub struct Happened {
    counts: Arc<Mutex<BTreeMap<String, u32>>>,
    unexpected: Arc<Mutex<Vec<String>>>,
}

impl Happened {
    fn note(&self, what: String) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(what).or_default() += 1;
    }

    fn unexpected(&self, what: String) {
        let mut all = self
            .unexpected
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        all.push(what);
    }

    /// How often each thing happened.
    pub fn counts(&self) -> BTreeMap<String, u32> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.clone()
    }

    /// What nobody asked for: processes that ended by themselves, servers that did not start.
    pub fn surprises(&self) -> Vec<String> {
        let all = self
            .unexpected
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        all.clone()
    }
}

/// A thread that makes trouble, and then keeps what it has started alive.
pub struct Hand<T> {
    calm: Receiver<T>,
    release: Sender<()>,
    thread: thread::JoinHandle<()>,
}

impl<T: Send + 'static> Hand<T> {
    fn start(subject: T, make: impl FnOnce(&mut T) + Send + 'static) -> Hand<T> {
        let (calmed, calm) = channel();
        let (release, released) = channel::<()>();
        let thread = thread::spawn(move || {
            let mut subject = subject;
            make(&mut subject);
            if calmed.send(subject).is_ok() {
                // Ends with an error as soon as the sender is gone, which is what is waited for.
                let _ = released.recv();
            }
        });
        Hand {
            calm,
            release,
            thread,
        }
    }

    /// Waits until the trouble is over and answers what it was made with; the thread stays.
    pub async fn calm(&mut self) -> T {
        loop {
            match self.calm.try_recv() {
                Ok(subject) => return subject,
                Err(std::sync::mpsc::TryRecvError::Empty) => {
                    tokio::time::sleep(LOOK).await;
                }
                Err(std::sync::mpsc::TryRecvError::Disconnected) => panic!("a hand panicked"),
            }
        }
    }

    /// Ends the thread, and with it whatever it started.
    pub fn release(self) {
        drop(self.release);
        let ended = self.thread.join();
        ended.expect("a hand does not panic once its work is done");
    }
}

/// Whether there has been trouble enough.
pub type Over = Box<dyn Fn() -> bool + Send>;

/// Who is killed, and how often.
#[derive(Clone, Copy, Debug)]
pub struct Kills {
    /// Processes that are left alone, by name.
    pub spared: &'static [&'static str],
    /// A process is killed at a random moment this long after the last one, on average half of it.
    pub within: Duration,
    /// How often a fault point is passed before it kills, at most.
    pub passings_max: u32,
}

impl Default for Kills {
    /// Everybody, all the time.
    fn default() -> Kills {
        Kills {
            spared: &[],
            within: Duration::from_secs(10),
            passings_max: 10,
        }
    }
}

/// Kills processes at their fault points and at random moments, and starts them again.
pub fn processes(
    house: House,
    kills: Kills,
    over: Over,
    seed: u64,
    happened: Happened,
) -> Hand<House> {
    let mut random = StdRng::seed_from_u64(seed);
    Hand::start(house, move |house| {
        let mut next_kill = Instant::now();
        while !over() {
            for process in &mut house.processes {
                match process.ended() {
                    Ok(None) => {}
                    Ok(Some(end)) => {
                        note(&happened, process, end);
                        start(process, kills, &mut random, &happened);
                    }
                    Err(error) => happened.unexpected(format!("{}: {error:#}", process.name)),
                }
            }
            if Instant::now() >= next_kill {
                next_kill = Instant::now() + kills.within.mul_f64(random.random());
                let mut victims: Vec<&mut Process> = house
                    .processes
                    .iter_mut()
                    .filter(|process| !kills.spared.contains(&process.name.as_str()))
                    .collect();
                let process = victims.choose_mut(&mut random);
                let process = process.expect("not all are spared");
                process.kill();
                happened.note(format!("{} killed at a random moment", process.name));
                start(process, kills, &mut random, &happened);
            }
            thread::park_timeout(LOOK);
        }
        let victims = house.processes.iter_mut();
        for process in victims.filter(|process| !kills.spared.contains(&process.name.as_str())) {
            // What is armed could still kill; nothing is to happen from here on.
            process.kill();
            if let Err(error) = process.start(None) {
                happened.unexpected(format!("{} not started: {error:#}", process.name));
            }
        }
    })
}

fn note(happened: &Happened, process: &Process, end: End) {
    match end {
        End::Point(point) => happened.note(format!("{} killed at {point}", process.name)),
        End::Other(how) => happened.unexpected(how),
    }
}

/// Starts a process, to die where the fewest have died so far, or anywhere.
fn start(process: &mut Process, kills: Kills, random: &mut StdRng, happened: &Happened) {
    let counts = happened.counts();
    let died_at = |point: &&&str| {
        let name = format!("{} killed at {point}", process.name);
        counts.get(&name).copied().unwrap_or_default()
    };
    let point = if random.random() {
        process.points.iter().min_by_key(died_at)
    } else {
        process.points.choose(random)
    };
    let armed = point.map(|point| match *point {
        "before_retry" => format!("{point}:1"), // Passed only while the database is away.
        _ => format!("{point}:{}", random.random_range(1..=kills.passings_max)),
    });
    if let Err(error) = process.start(armed.as_deref()) {
        happened.unexpected(format!("{} not started: {error:#}", process.name));
    }
}

/// One thing done to servers or connections.
#[derive(Clone, Copy, Debug)]
enum Blow {
    BrokerKilled,
    BrokerStopped,
    PostgresRestarted,
    Cut(usize),
}

/// Cuts all connections of one proxy: by number, since the proxies belong to the house.
pub type Cut = Box<dyn Fn(usize) -> &'static str + Send>;

/// Kills and restarts servers and cuts connections, spread over the time.
pub fn servers(
    servers: Servers,
    cut: Cut,
    amounts: Amounts,
    seed: u64,
    happened: Happened,
) -> Hand<Servers> {
    let mut random = StdRng::seed_from_u64(seed);
    Hand::start(servers, move |servers| {
        let started = Instant::now();
        let blows = blows(amounts, &mut random);
        let count = u32::try_from(blows.len()).expect("few");
        for (number, blow) in blows.into_iter().enumerate() {
            let part = f64::from(u32::try_from(number).expect("few")) + random.random::<f64>();
            let at = amounts.duration.mul_f64(part / f64::from(count.max(1)));
            thread::park_timeout(at.saturating_sub(started.elapsed()));
            match strike(blow, servers, &cut, &mut random) {
                Ok(what) => happened.note(what),
                Err(error) => happened.unexpected(format!("{blow:?}: {error:#}")),
            }
        }
    })
}

fn blows(amounts: Amounts, random: &mut StdRng) -> Vec<Blow> {
    let mut blows = Vec::new();
    blows.extend((0..amounts.broker_kills).map(|_| Blow::BrokerKilled));
    blows.extend((0..amounts.broker_stops).map(|_| Blow::BrokerStopped));
    blows.extend((0..amounts.postgres_restarts).map(|_| Blow::PostgresRestarted));
    blows.extend((0..amounts.cuts).map(|_| Blow::Cut(random.random_range(0..6))));
    blows.shuffle(random);
    blows
}

fn strike(
    blow: Blow,
    servers: &mut Servers,
    cut: &Cut,
    random: &mut StdRng,
) -> anyhow::Result<String> {
    let away = AWAY_MAX.mul_f64(random.random());
    Ok(match blow {
        Blow::BrokerKilled => {
            servers.rabbitmq_mut().kill();
            thread::park_timeout(away);
            servers.rabbitmq_mut().start_again()?;
            "broker killed".to_owned()
        }
        Blow::BrokerStopped => {
            servers.rabbitmq_mut().stop();
            thread::park_timeout(away);
            servers.rabbitmq_mut().start_again()?;
            "broker stopped".to_owned()
        }
        Blow::PostgresRestarted => {
            servers.postgres_mut().stop_immediately();
            thread::park_timeout(away);
            servers.postgres_mut().start_again()?;
            "PostgreSQL restarted".to_owned()
        }
        Blow::Cut(index) => format!("connections to {} cut", cut(index)),
    })
}
