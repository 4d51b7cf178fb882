//! How long a connection lives: when it has to go away, when what is left on it is cut off, and when it
//! closes whatever is left.
//!
//! Going away is HTTP/2's GOAWAY (RFC 9113, section 6.8), which costs no call: the peer opens another
//! connection, and what is in flight here goes on. Only after a grace is it cut off. tonic's
//! `max_connection_age` with a grace sends no GOAWAY and kills calls (seen).
//!
//! Keepalive is gRFC A8's: whatever is received counts as a sign of life, and only who was silent for an
//! interval is asked.

use std::{
    future::{pending, poll_fn},
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use h2::{Ping, PingPong};
use mesh_identity::{GuardEvent, PeerGuard};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::drain::{Closing, Drain, FLUSH_TIMEOUT};
use crate::{Config, UNTRUSTED_GRACE, status::Origin};

/// How much earlier or later than configured a connection ends by its age, in percent: connections made
/// together, as after a deployment, do not all end together.
const AGE_JITTER_PERCENT: f64 = 10.0;

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// The server drains.
    Drain,
    /// It is `connection_age_max_ms` old.
    Age,
    /// It had no call for `connection_idle_max_ms`.
    Idle,
    /// The peer does not answer.
    Silent,
    /// A certificate of either end runs out before long.
    Expiry,
    /// The peer is not trusted any more: its certificate, or the authority behind it, is revoked, gone or
    /// out of date.
    Distrust,
}

impl Why {
    /// A word for metrics and logs; it does not change.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Age => "age",
            Self::Idle => "idle",
            Self::Silent => "silent",
            Self::Expiry => "expiry",
            Self::Distrust => "distrust",
        }
    }

    /// What decides when the calls on it are cut off: a key of the configuration, or an event.
    pub(crate) fn policy(self) -> &'static str {
        match self {
            Self::Drain => "mesh.server.drain_timeout_ms",
            Self::Age | Self::Idle => "mesh.server.connection_age_grace_ms",
            Self::Silent => "mesh.keepalive_timeout_ms",
            Self::Expiry => "the certificate expires",
            Self::Distrust => "the caller's certificate",
        }
    }

    /// What the calls are told that are cut off for it.
    pub(crate) fn status(self, origin: Origin<'_>) -> Status {
        match self {
            Self::Drain => origin.shutting_down(),
            Self::Distrust => origin.distrusted(),
            Self::Age | Self::Idle | Self::Silent | Self::Expiry => origin.connection_ended(),
        }
    }
}

/// What a connection has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Say that it goes away; what is in flight goes on.
    Leave(Why),
    /// End the calls that are left.
    Cut(Why),
    /// End.
    Close(Why),
}

/// What is going on on a connection; calls count themselves.
#[derive(Debug)]
pub(crate) struct Activity {
    began: Instant,
    calls: AtomicUsize,
    /// When the last call ended, in milliseconds from the beginning.
    rested_at_ms: AtomicU64,
    /// Something was received since the last look.
    pub(crate) heard: Arc<AtomicBool>,
}

impl Activity {
    pub(crate) fn begin() -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            calls: AtomicUsize::new(0),
            rested_at_ms: AtomicU64::new(0),
            heard: Arc::default(),
        })
    }

    /// Counts a call for as long as the guard lives.
    pub(crate) fn call(self: &Arc<Self>) -> InFlight {
        self.calls.fetch_add(1, SeqCst);
        InFlight(self.clone())
    }

    /// Resolves when there was no call for so long.
    async fn idle(&self, limit: Duration) {
        loop {
            let now = Instant::now();
            let rested_at = Duration::from_millis(self.rested_at_ms.load(SeqCst));
            let due = if self.calls.load(SeqCst) > 0 {
                now + limit // Whenever the call ends, it is later than now.
            } else {
                self.began + rested_at + limit
            };
            if due <= now {
                return;
            }
            sleep_until(due).await;
        }
    }
}

/// A call's place in the count.
pub(crate) struct InFlight(Arc<Activity>);

impl Drop for InFlight {
    fn drop(&mut self) {
        let age_ms = u64::try_from(self.0.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.rested_at_ms.fetch_max(age_ms, SeqCst);
        self.0.calls.fetch_sub(1, SeqCst);
    }
}

/// The life of one connection.
pub(crate) struct Life {
    stage: Stage,
    idle: Option<Duration>,
    grace: Duration,
    activity: Arc<Activity>,
    closing: Closing,
    closed: CancellationToken,
    guard: PeerGuard,
    keepalive: Keepalive,
}

#[derive(Clone, Copy)]
enum Stage {
    Serving { age_at: Option<Instant> },
    Leaving { why: Why, cut_at: Option<Instant> },
    Cutting { why: Why, close_at: Instant },
}

impl Life {
    /// Of a connection that begins now.
    pub(crate) fn begin(
        config: &Config,
        drain: &Drain,
        closing: Closing,
        activity: Arc<Activity>,
        pings: Option<PingPong>,
        guard: PeerGuard,
    ) -> Self {
        let limit = |ms: u64| (ms > 0).then(|| Duration::from_millis(ms));
        let server = &config.server;
        let age = limit(server.connection_age_max_ms);
        Self {
            stage: Stage::Serving {
                age_at: age.map(|age| activity.began + jittered(age, rand::random())),
            },
            idle: limit(server.connection_idle_max_ms),
            grace: Duration::from_millis(server.connection_age_grace_ms),
            closing,
            closed: drain.closed.child_token(),
            guard,
            keepalive: Keepalive {
                pings,
                heard: activity.heard.clone(),
                interval: config.keepalive_interval(),
                timeout: config.keepalive_timeout(),
            },
            activity,
        }
    }

    /// Waits for the next thing that the connection has to do.
    pub(crate) async fn next(&mut self) -> Event {
        let is_serving = matches!(self.stage, Stage::Serving { .. });
        let event = tokio::select! {
            biased;
            () = self.closed.cancelled() => Event::Close(Why::Drain),
            () = self.closing.begun(), if is_serving => Event::Leave(Why::Drain),
            event = self.guard.event() => match event {
                GuardEvent::Expiring => Event::Leave(Why::Expiry),
                GuardEvent::Invalid(_) => {
                    self.guard = PeerGuard::default(); // It has nothing more to say.
                    Event::Leave(Why::Distrust)
                }
            },
            event = due(self.stage, &self.activity, self.idle) => event,
            () = self.keepalive.silent() => Event::Close(Why::Silent),
        };
        let now = Instant::now();
        match event {
            Event::Leave(why) => {
                self.stage = match (self.stage, why) {
                    (Stage::Cutting { .. }, _) => self.stage,
                    (_, Why::Distrust) => {
                        let cut_at = Some(now + UNTRUSTED_GRACE);
                        Stage::Leaving { why, cut_at }
                    }
                    (Stage::Leaving { .. }, _) => self.stage,
                    // The drain has a bound of its own for all connections, and a certificate its end.
                    (Stage::Serving { .. }, Why::Drain | Why::Expiry) => {
                        Stage::Leaving { why, cut_at: None }
                    }
                    (Stage::Serving { .. }, _) => {
                        let cut_at = Some(now + self.grace);
                        Stage::Leaving { why, cut_at }
                    }
                };
            }
            Event::Cut(why) => {
                let close_at = now + FLUSH_TIMEOUT;
                self.stage = Stage::Cutting { why, close_at };
            }
            Event::Close(_) => {}
        }
        event
    }
}

/// What the stage itself asks for, in time.
async fn due(stage: Stage, activity: &Activity, idle: Option<Duration>) -> Event {
    match stage {
        Stage::Serving { age_at } => tokio::select! {
            () = at(age_at) => Event::Leave(Why::Age),
            () = async {
                match idle {
                    Some(limit) => activity.idle(limit).await,
                    None => pending().await,
                }
            } => Event::Leave(Why::Idle),
        },
        Stage::Leaving { why, cut_at } => {
            at(cut_at).await;
            Event::Cut(why)
        }
        Stage::Cutting { why, close_at } => {
            sleep_until(close_at).await;
            Event::Close(why)
        }
    }
}

/// `None`: never.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => pending().await,
    }
}

/// `random`: from 0 to 1.
fn jittered(age: Duration, random: f64) -> Duration {
    age.mul_f64(1.0 + (random * 2.0 - 1.0) * AGE_JITTER_PERCENT / 100.0)
}

struct Keepalive {
    pings: Option<PingPong>,
    heard: Arc<AtomicBool>,
    interval: Duration,
    timeout: Duration,
}

impl Keepalive {
    /// Resolves when the peer, asked after an interval of silence, says nothing for the timeout either.
    async fn silent(&mut self) {
        let Some(pings) = &mut self.pings else {
            return pending().await;
        };
        loop {
            sleep(self.interval).await;
            if self.heard.swap(false, Relaxed) {
                continue;
            }
            // h2 refuses a second ping while one is under way, which then is as good.
            let _ = pings.send_ping(Ping::opaque());
            let pong = timeout(self.timeout, poll_fn(|cx| pings.poll_pong(cx))).await;
            match pong {
                Ok(Ok(_)) => {}
                Ok(Err(_)) => pending().await, // The connection is over, and says so itself.
                Err(_) if self.heard.swap(false, Relaxed) => {}
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(change: impl FnOnce(&mut Config)) -> (Life, Drain, Arc<Activity>) {
        let mut config = Config::default();
        config.server.connection_age_max_ms = 0;
        config.server.connection_idle_max_ms = 0;
        config.server.connection_age_grace_ms = 5_000;
        change(&mut config);
        let (drain, activity) = (Drain::default(), Activity::begin());
        let closing = Closing::new(&drain);
        let life = Life::begin(
            &config,
            &drain,
            closing,
            activity.clone(),
            None,
            PeerGuard::default(),
        );
        (life, drain, activity)
    }

    async fn timed(life: &mut Life) -> (Event, u64) {
        let event = life.next().await;
        let age = life.activity.began.elapsed();
        (event, age.as_millis().try_into().unwrap())
    }

    #[test]
    fn the_age_varies_by_a_tenth() {
        let age = Duration::from_secs(100);
        for (random, seconds) in [(0.0, 90.0), (0.5, 100.0), (1.0, 110.0)] {
            let jittered = jittered(age, random).as_secs_f64();
            assert!((jittered - seconds).abs() < 1e-6, "{jittered}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_connection_leaves_then_cuts_then_closes() {
        let (mut life, ..) = life(|config| config.server.connection_age_max_ms = 100_000);
        let (event, left_ms) = timed(&mut life).await;
        assert_eq!(event, Event::Leave(Why::Age));
        assert!((90_000..=110_001).contains(&left_ms), "{left_ms}");
        let (event, cut_ms) = timed(&mut life).await;
        assert_eq!(event, Event::Cut(Why::Age));
        assert!((5_000..=5_002).contains(&(cut_ms - left_ms)));
        let (event, closed_ms) = timed(&mut life).await;
        assert_eq!(event, Event::Close(Why::Age));
        assert!(closed_ms >= cut_ms + 500);
    }

    #[tokio::test(start_paused = true)]
    async fn idle_is_counted_from_the_end_of_the_last_call() {
        let (mut life, _drain, activity) =
            life(|config| config.server.connection_idle_max_ms = 1_000);
        let call = activity.call();
        let ending = async {
            sleep(Duration::from_millis(2_300)).await;
            drop(call);
        };
        let ((event, left_ms), ()) = tokio::join!(timed(&mut life), ending);
        assert_eq!(event, Event::Leave(Why::Idle));
        assert!((3_300..=3_302).contains(&left_ms), "{left_ms}");
    }

    #[tokio::test(start_paused = true)]
    async fn with_every_limit_off_only_the_server_ends_it() {
        let (mut life, drain, _activity) = life(|_| {});
        let quiet = timeout(Duration::from_hours(1000), life.next()).await;
        assert!(quiet.is_err(), "{quiet:?}");
        drain.begun.cancel();
        assert_eq!(life.next().await, Event::Leave(Why::Drain));
        // The server's drain has the bound.
        let quiet = timeout(Duration::from_hours(1000), life.next()).await;
        assert!(quiet.is_err(), "{quiet:?}");
        drain.closed.cancel();
        assert_eq!(life.next().await, Event::Close(Why::Drain));
    }
}
