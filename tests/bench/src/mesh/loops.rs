//! The two ways to put load on something.
//!
//! A closed loop waits for an answer before it asks again: a slow server is asked less often, and its worst moments
//! are hardly seen. An open loop asks at moments that were fixed before, and latency counts from the moment at which
//! a call was meant to be sent, however late it was sent (Gil Tene, "How NOT to Measure Latency": coordinated
//! omission).

use std::{
    collections::BTreeMap,
    future::Future,
    sync::Arc,
    thread,
    time::{Duration, Instant as Clock},
};

use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::Instant,
};
use tonic::Code;

/// Calls of an open loop that may be on their way at once; later ones wait, and that counts.
pub(crate) const OUTSTANDING_MAX: usize = 4_096;

/// Makes calls.
pub(crate) trait Caller: Clone + Send + 'static {
    /// One call; an error is its gRPC code.
    fn call(&mut self) -> impl Future<Output = Result<(), Code>> + Send;
}

/// When calls count: those that begin in it.
#[derive(Clone, Copy)]
pub(crate) struct Window {
    pub(crate) begins: Instant,
    pub(crate) ends: Instant,
}

/// What the calls of a window came to.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Of those that were answered.
    pub(crate) latencies: Vec<Duration>,
    /// How late calls were sent; open loops only.
    pub(crate) late: Vec<Duration>,
    /// Those that failed, by code.
    pub(crate) errors: BTreeMap<String, u64>,
}

impl Tally {
    fn add(&mut self, latency: Duration, answer: Result<(), Code>) {
        match answer {
            Ok(()) => self.latencies.push(latency),
            Err(code) => *self.errors.entry(format!("{code:?}")).or_default() += 1,
        }
    }

    fn append(&mut self, other: Tally) {
        self.latencies.extend(other.latencies);
        self.late.extend(other.late);
        for (code, count) in other.errors {
            *self.errors.entry(code).or_default() += count;
        }
    }
}

/// So many callers, each of which calls again as soon as it is answered.
pub(crate) async fn closed<C: Caller>(callers: &[C], concurrent: usize, window: Window) -> Tally {
    let mut loops = JoinSet::new();
    for caller in callers.iter().cycle().take(concurrent) {
        let mut caller = caller.clone();
        loops.spawn(async move {
            let mut tally = Tally::default();
            loop {
                let began = Instant::now();
                if began >= window.ends {
                    return tally;
                }
                let answer = caller.call().await;
                if began >= window.begins {
                    tally.add(began.elapsed(), answer);
                }
            }
        });
    }
    let mut tally = Tally::default();
    for one in loops.join_all().await {
        tally.append(one);
    }
    tally
}

/// Calls at the moments that `intended` says, with at most `outstanding_max` on their way.
pub(crate) async fn open<C: Caller>(
    callers: &[C],
    outstanding_max: usize,
    mut intended: mpsc::Receiver<Instant>,
    window: Window,
) -> Tally {
    let slots = Arc::new(Semaphore::new(outstanding_max));
    let mut calls = JoinSet::new();
    let mut callers = callers.iter().cycle();
    let mut tally = Tally::default();
    while let Some(at) = intended.recv().await {
        let slot = slots.clone().acquire_owned().await;
        let slot = slot.expect("the semaphore is never closed");
        let mut caller = callers.next().expect("there is a caller").clone();
        calls.spawn(async move {
            let late = at.elapsed();
            let answer = caller.call().await;
            drop(slot);
            (at, late, at.elapsed(), answer)
        });
        while let Some(ended) = calls.try_join_next() {
            tally.ended(ended.expect("a call does not panic"), window);
        }
    }
    for ended in calls.join_all().await {
        tally.ended(ended, window);
    }
    tally
}

impl Tally {
    fn ended(
        &mut self,
        (at, late, latency, answer): (Instant, Duration, Duration, Result<(), Code>),
        window: Window,
    ) {
        if (window.begins..window.ends).contains(&at) {
            self.late.push(late);
            self.add(latency, answer);
        }
    }
}

/// Says when to call, so many times a second until the end: a thread of its own, for the runtime's timer knows
/// milliseconds only.
pub(crate) fn pace(rate: u32, ends: Instant) -> mpsc::Receiver<Instant> {
    let (say, intended) = mpsc::channel(OUTSTANDING_MAX);
    let ends = ends.into_std();
    thread::spawn(move || {
        let began = Clock::now();
        for number in 0_u32.. {
            let at = began + Duration::from_secs(1) * number / rate;
            if at >= ends {
                drop(say);
                // Of a thread that has ended nobody can tell any more what it used.
                thread::park_timeout(Duration::from_millis(200));
                return;
            }
            while let Some(left) = at.checked_duration_since(Clock::now())
                && !left.is_zero()
            {
                thread::park_timeout(left);
            }
            if say.blocking_send(Instant::from_std(at)).is_err() {
                return; // Nobody calls any more.
            }
        }
    });
    intended
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a while, and fails at times.
    #[derive(Clone)]
    struct Slow(Duration, Result<(), Code>);

    impl Caller for Slow {
        async fn call(&mut self) -> Result<(), Code> {
            tokio::time::sleep(self.0).await;
            self.1
        }
    }

    fn window(seconds: u64) -> Window {
        let begins = Instant::now();
        Window {
            begins,
            ends: begins + Duration::from_secs(seconds),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_loop_asks_no_faster_than_it_is_answered() {
        let callers = [Slow(Duration::from_millis(100), Ok(()))];
        let tally = closed(&callers, 3, window(1)).await;
        assert_eq!(tally.latencies, [Duration::from_millis(100); 30]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_loop_counts_from_when_a_call_was_meant_to_be_sent() {
        let window = window(1);
        let (say, intended) = mpsc::channel(8);
        for step in 0..3 {
            let at = window.begins + Duration::from_millis(10) * step;
            say.try_send(at).unwrap();
        }
        say.try_send(window.ends).unwrap(); // Outside.
        drop(say);
        let callers = [Slow(Duration::from_millis(100), Ok(()))];
        let tally = open(&callers, 1, intended, window).await;
        let milliseconds = [100, 190, 280].map(Duration::from_millis);
        assert_eq!(tally.latencies, milliseconds);
        assert_eq!(tally.late, [0, 90, 180].map(Duration::from_millis));
    }

    #[tokio::test(start_paused = true)]
    async fn errors_are_counted_by_code_and_are_no_answers() {
        let callers = [Slow(Duration::from_millis(500), Err(Code::Unavailable))];
        let tally = closed(&callers, 2, window(1)).await;
        assert!(tally.latencies.is_empty());
        assert_eq!(
            tally.errors,
            BTreeMap::from([("Unavailable".to_owned(), 4)])
        );
    }

    #[tokio::test]
    async fn a_pace_is_fixed_before() {
        let begins = Instant::now();
        let mut intended = pace(1_000, begins + Duration::from_hours(1));
        let first = intended.recv().await.unwrap();
        let second = intended.recv().await.unwrap();
        assert_eq!(second - first, Duration::from_millis(1));
    }
}
