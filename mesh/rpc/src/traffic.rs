//! The calls of a process as they go: those in flight in a table, those that end to whoever taps.
//!
//! The table is bounded: what does not fit is counted and not shown. A tap is bounded too, and loses what its reader
//! does not take in time: it never slows a call down. While nobody taps, a call that ends pays for one comparison.
//!
//! Deliberately without messages and headers, and without the path of a method that the contract does not know.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use serde::Serialize;
use tokio::{sync::mpsc, time::Instant};
use tonic::Code;

use crate::{
    metrics,
    stack::{Call, Side},
};

/// How many calls in flight are shown, in parts with a lock of their own.
const SHARDS: usize = 16;
const CALLS_PER_SHARD_MAX: usize = 256;
/// How many may tap at a time.
const TAPS_MAX: usize = 8;
/// How many calls wait for a reader.
const TAP_WAITING_MAX: usize = 1024;

/// A call in flight.
pub(crate) struct InFlight {
    pub(crate) side: Side,
    pub(crate) call: Call,
    /// Who has connected; of a call that is made, [`crate::stack::Progress`] knows the endpoint.
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) started: Instant,
}

impl InFlight {
    /// `/package.Service/Method`, or `other`.
    pub(crate) fn path(&self) -> &str {
        let method = self.call.method.as_ref();
        method.map_or(metrics::OTHER, |method| &method.path)
    }

    /// On the server, who has proven to be at the other end.
    fn peer_id(&self) -> Option<String> {
        let caller = match self.side {
            Side::Server => self.call.context.caller(),
            Side::Client => None, // The context's one is who called this process.
        };
        caller.map(|id| id.as_str().to_owned())
    }

    fn peer(&self) -> Option<String> {
        match self.side {
            Side::Server => self.peer.map(|peer| peer.to_string()),
            Side::Client => self.call.progress.endpoint().map(|at| at.to_string()),
        }
    }
}

/// What is shown of a call in flight.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct CallSnapshot {
    /// Whether this process serves it or makes it.
    pub side: CallSide,
    /// `package.Service/Method`, or `other`.
    pub method: String,
    /// Who it is made for.
    pub caller: String,
    /// The other end's address; nothing while a call that is made has no endpoint yet.
    pub peer: Option<String>,
    /// Of a call that is served: the SPIFFE ID that the other end has proven.
    pub peer_id: Option<String>,
    /// Which attempt of the caller it is, or how many were made here.
    pub attempt: u32,
    /// How long it takes already, in milliseconds.
    pub age_ms: u64,
    /// How much time is left, in milliseconds; nothing: it has no deadline.
    pub deadline_left_ms: Option<u64>,
    /// 32 hexadecimal digits.
    pub trace_id: String,
}

/// The calls in flight at one moment.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct CallsSnapshot {
    /// The oldest first.
    pub calls: Vec<CallSnapshot>,
    /// How many more there are than the table has room for.
    pub hidden: u64,
}

/// A call that has ended.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct FinishedCall {
    /// Whether this process served it or made it.
    pub side: CallSide,
    /// `package.Service/Method`, or `other`.
    pub method: String,
    /// Who it was made for.
    pub caller: String,
    /// The other end's address.
    pub peer: Option<String>,
    /// Of a call that was served: the SPIFFE ID that the other end has proven.
    pub peer_id: Option<String>,
    /// Which attempt of the caller it was, or how many were made here.
    pub attempt: u32,
    /// gRPC's own spelling.
    pub code: &'static str,
    /// To the end of its stream, in microseconds.
    pub duration_us: u64,
    /// Bytes of all messages sent.
    pub sent_bytes: u64,
    /// Bytes of all messages received.
    pub received_bytes: u64,
    /// 32 hexadecimal digits.
    pub trace_id: String,
}

/// Where a process stands in a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CallSide {
    /// It makes the call.
    Client,
    /// It serves it.
    Server,
}

impl From<Side> for CallSide {
    fn from(side: Side) -> Self {
        match side {
            Side::Client => Self::Client,
            Side::Server => Self::Server,
        }
    }
}

/// Which calls a tap wants; what is nothing is no condition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TapFilter {
    /// `package.Service/Method`, or only its end: `Service/Method`, `Method`.
    pub method: Option<String>,
    /// Who the call was made for.
    pub caller: Option<String>,
    /// gRPC's own spelling, as `UNAVAILABLE`.
    pub code: Option<String>,
}

impl TapFilter {
    fn takes(&self, method: &str, caller: &str, code: &str) -> bool {
        let is = |wanted: &Option<String>, held: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == held)
        };
        let ends = |wanted: &str| {
            let rest = method.strip_suffix(wanted);
            rest.is_some_and(|rest| rest.is_empty() || rest.ends_with(['/', '.']))
        };
        self.method.as_deref().is_none_or(ends) && is(&self.caller, caller) && is(&self.code, code)
    }
}

/// The calls of one process. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Traffic {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    shards: [Mutex<HashMap<u64, Arc<InFlight>>>; SHARDS],
    next: AtomicU64,
    hidden: AtomicU64,
    tapped: AtomicUsize,
    taps: Mutex<Vec<Arc<Open>>>,
}

struct Open {
    filter: TapFilter,
    calls: mpsc::Sender<FinishedCall>,
    dropped: AtomicU64,
}

/// A call's place in the table, for as long as it lives.
pub(crate) struct Listed {
    traffic: Traffic,
    pub(crate) call: Arc<InFlight>,
    /// `None`: there was no room.
    at: Option<u64>,
}

/// A map of calls and a list of taps are whole even if a thread panicked while it held the lock.
fn lock<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

fn shard(id: u64) -> usize {
    usize::try_from(id).unwrap_or(0) % SHARDS
}

impl Traffic {
    pub(crate) fn list(&self, call: InFlight) -> Listed {
        let call = Arc::new(call);
        let id = self.inner.next.fetch_add(1, Relaxed);
        let mut calls = lock(&self.inner.shards[shard(id)]);
        let room = calls.len() < CALLS_PER_SHARD_MAX;
        if room {
            calls.insert(id, call.clone());
        } else {
            self.inner.hidden.fetch_add(1, Relaxed);
        }
        drop(calls);
        Listed {
            traffic: self.clone(),
            call,
            at: room.then_some(id),
        }
    }

    pub(crate) fn calls(&self) -> CallsSnapshot {
        let now = Instant::now();
        let mut calls: Vec<_> = self
            .inner
            .shards
            .iter()
            .flat_map(|shard| lock(shard).values().cloned().collect::<Vec<_>>())
            .collect();
        calls.sort_unstable_by_key(|call| call.started);
        CallsSnapshot {
            calls: calls.iter().map(|call| snapshot(call, now)).collect(),
            hidden: self.inner.hidden.load(Relaxed),
        }
    }

    /// `None`: too many tap already.
    pub(crate) fn tap(&self, filter: TapFilter) -> Option<Tap> {
        let mut taps = lock(&self.inner.taps);
        if taps.len() >= TAPS_MAX {
            return None;
        }
        let (send, calls) = mpsc::channel(TAP_WAITING_MAX);
        let open = Arc::new(Open {
            filter,
            calls: send,
            dropped: AtomicU64::new(0),
        });
        taps.push(open.clone());
        self.inner.tapped.store(taps.len(), Relaxed);
        Some(Tap {
            traffic: self.clone(),
            open,
            calls,
        })
    }
}

impl Listed {
    /// Tells those who tap.
    pub(crate) fn finished(&self, code: Code, duration_us: u64) {
        let Inner { tapped, taps, .. } = &*self.traffic.inner;
        if tapped.load(Relaxed) == 0 {
            return;
        }
        let Call {
            context, progress, ..
        } = &self.call.call;
        let method = metrics::label(self.call.path());
        let (caller, code) = (context.principal().name(), metrics::name(code));
        for open in lock(taps).iter() {
            if !open.filter.takes(method, caller, code) {
                continue;
            }
            let finished = FinishedCall {
                side: self.call.side.into(),
                method: method.to_owned(),
                caller: caller.to_owned(),
                peer: self.call.peer(),
                peer_id: self.call.peer_id(),
                attempt: progress.attempts(),
                code,
                duration_us,
                sent_bytes: progress.sent(),
                received_bytes: progress.received(),
                trace_id: context.trace_id(),
            };
            if open.calls.try_send(finished).is_err() {
                open.dropped.fetch_add(1, Relaxed);
            }
        }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        match self.at {
            Some(id) => drop(lock(&self.traffic.inner.shards[shard(id)]).remove(&id)),
            None => drop(self.traffic.inner.hidden.fetch_sub(1, Relaxed)),
        }
    }
}

fn snapshot(shown: &InFlight, now: Instant) -> CallSnapshot {
    let ms = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let Call {
        context, progress, ..
    } = &shown.call;
    let left = |deadline: Instant| ms(deadline.saturating_duration_since(now));
    CallSnapshot {
        side: shown.side.into(),
        method: metrics::label(shown.path()).to_owned(),
        caller: context.principal().name().to_owned(),
        peer: shown.peer(),
        peer_id: shown.peer_id(),
        attempt: progress.attempts(),
        age_ms: ms(now.saturating_duration_since(shown.started)),
        deadline_left_ms: context.deadline().map(left),
        trace_id: context.trace_id(),
    }
}

/// The calls that end from now on, until it is dropped.
pub struct Tap {
    traffic: Traffic,
    open: Arc<Open>,
    calls: mpsc::Receiver<FinishedCall>,
}

impl Tap {
    /// The next call that the filter takes.
    pub async fn next(&mut self) -> FinishedCall {
        let next = self.calls.recv().await;
        next.expect("this tap holds a sender itself")
    }

    /// How many calls were lost, because they were not taken in time.
    pub fn dropped(&self) -> u64 {
        self.open.dropped.load(Relaxed)
    }
}

impl std::fmt::Debug for Tap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tap").finish_non_exhaustive()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let Inner { tapped, taps, .. } = &*self.traffic.inner;
        let mut taps = lock(taps);
        taps.retain(|open| !Arc::ptr_eq(open, &self.open));
        tapped.store(taps.len(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CallContext, Principal};

    fn call(principal: &str) -> InFlight {
        InFlight {
            side: Side::Server,
            call: Call {
                method: None,
                context: CallContext::root(Principal::new(principal, ["operator"])),
                deadline_by: "none",
                progress: Arc::default(),
            },
            peer: Some("10.0.0.1:1".parse().unwrap()),
            started: Instant::now(),
        }
    }

    #[tokio::test]
    async fn the_table_is_bounded_and_says_what_it_hides() {
        let traffic = Traffic::default();
        let room = SHARDS * CALLS_PER_SHARD_MAX;
        let mut listed: Vec<_> = (0..room + 3).map(|_| traffic.list(call("shop"))).collect();
        let shown = traffic.calls();
        assert_eq!((shown.calls.len(), shown.hidden), (room, 3));
        assert_eq!(shown.calls[0].peer.as_deref(), Some("10.0.0.1:1"));
        assert_eq!(shown.calls[0].caller, "shop");
        listed.clear();
        let shown = traffic.calls();
        assert_eq!((shown.calls.len(), shown.hidden), (0, 0));
    }

    #[tokio::test]
    async fn a_tap_gets_what_it_filters_for_and_counts_what_it_loses() {
        let traffic = Traffic::default();
        let filter = TapFilter {
            caller: Some("shop".into()),
            code: Some("UNAVAILABLE".into()),
            ..TapFilter::default()
        };
        let mut tap = traffic.tap(filter).unwrap();
        let end = |principal, code| traffic.list(call(principal)).finished(code, 7);
        end("shop", Code::Ok);
        end("other", Code::Unavailable);
        for _ in 0..TAP_WAITING_MAX + 5 {
            end("shop", Code::Unavailable);
        }
        let first = tap.next().await;
        assert_eq!(
            (&*first.caller, first.code, first.duration_us),
            ("shop", "UNAVAILABLE", 7)
        );
        assert_eq!(tap.dropped(), 5);
        drop(tap);
        assert_eq!(traffic.inner.tapped.load(Relaxed), 0);
    }

    #[test]
    fn only_so_many_tap() {
        let traffic = Traffic::default();
        let taps: Vec<_> = (0..TAPS_MAX)
            .map(|_| traffic.tap(TapFilter::default()))
            .collect();
        assert!(taps.iter().all(Option::is_some));
        assert!(traffic.tap(TapFilter::default()).is_none());
        drop(taps);
        assert!(traffic.tap(TapFilter::default()).is_some());
    }

    #[test]
    fn a_method_is_named_whole_or_by_its_end() {
        for (wanted, takes) in [
            ("a.v1.Shop/Buy", true),
            ("Shop/Buy", true),
            ("Buy", true),
            ("uy", false),
            ("Shop", false),
        ] {
            let filter = TapFilter {
                method: Some(wanted.to_owned()),
                ..TapFilter::default()
            };
            assert_eq!(filter.takes("a.v1.Shop/Buy", "", ""), takes, "{wanted}");
        }
    }
}
