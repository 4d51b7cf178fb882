//! One destination: its endpoints as discovery knows them, and what is kept for all of them together.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::{sync::Notify, time::timeout};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::{
    balance::{Member, Pick, Set, Tried},
    budget::Budget,
    circuit::Circuit,
    clock::{Clock, Nanos, millis},
    config::HedgeConfig,
    connect::{Connect, Network},
    connection::Lease,
    discovery::{self, Discover, Failed, Target, parse_destination},
    endpoint::Endpoint,
    failure::Cause,
    hedge::Latencies,
    metrics::{AttemptMetrics, ClientMetrics, DestinationMetrics},
    outlier::{Outcome, Outliers},
    pool::{Found, Shared},
};
use crate::{Config, Contract, identities::Identities, live::Live};

pub(crate) struct Destination {
    pub(crate) name: Arc<str>,
    pub(crate) shared: Arc<Shared>,
    outliers: Outliers,
    pub(crate) circuit: Arc<Circuit>,
    pub(crate) budget: Budget,
    methods: Methods,
    set: ArcSwap<Set>,
    discovery: Mutex<Discovery>,
    next_id: AtomicU64,
    waiting: AtomicUsize,
    /// When no endpoint was found connected any more, or one of the marks below.
    deserted_at: AtomicU64,
    /// Which follower's look-ups count: that of before may have one under way when another takes over.
    generation: Mutex<u64>,
    /// `None`: it is not configured.
    following: ArcSwapOption<AbortOnDropHandle<()>>,
}

/// An endpoint is connected.
const INHABITED: Nanos = 0;
/// None ever was.
const NEVER_INHABITED: Nanos = Nanos::MAX;
/// How often a call looks for a free stream while another connection is opened.
const FULL_LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// How the look-ups have gone.
#[derive(Default)]
struct Discovery {
    /// Whether a look-up has ever found something.
    found: bool,
    /// Why the last one did not.
    trouble: Option<Arc<str>>,
}

/// What is kept per method: for the contract's, and one for all others.
struct Methods {
    known: HashMap<String, Arc<Method>>,
    other: Arc<Method>,
}

pub(crate) struct Method {
    pub(crate) metrics: AttemptMetrics,
    /// Of those that may be hedged.
    pub(crate) latencies: Latencies,
}

/// What came of looking for a place.
enum Place {
    Taken(Arc<Endpoint>, Lease),
    /// For a change.
    Wait,
    /// For a change, and so long at most.
    WaitFor(Duration),
    None(Cause),
}

impl Destination {
    /// As the configuration has it.
    pub(crate) fn configured(
        name: &str,
        live: &Live,
        contract: &Contract,
        metrics: &ClientMetrics,
        identities: Arc<Identities>,
    ) -> Arc<Self> {
        let discover = discover(name, &live.load());
        let connector = Arc::new(Network::new(identities, live.clone()));
        Self::open(name, discover, connector, live, contract, metrics)
    }

    /// Takes its endpoints from where the configuration has them now. Those it knows stay until a look-up
    /// has brought others.
    pub(crate) fn reconfigure(self: &Arc<Self>, config: &Config) {
        match discover(&self.name, config) {
            Some(discover) => self.follow(discover, config),
            None => self.following.store(None),
        }
    }

    fn follow(self: &Arc<Self>, discover: Box<dyn Discover>, config: &Config) {
        let generation = {
            let mut generation = self.lock_generation();
            *generation += 1;
            *generation
        };
        let following = crate::context::spawn_apart(discovery::follow(
            discover,
            config.client.discovery.clone(),
            self.shared.lost.clone(),
            publish_to(Arc::downgrade(self), generation),
        ));
        self.following.store(Some(Arc::new(following)));
    }

    /// Follows `discover`, which is missing where the destination is not configured. Connects nothing
    /// yet. Needs a tokio runtime.
    pub(crate) fn open(
        name: &str,
        discover: Option<Box<dyn Discover>>,
        connector: Arc<dyn Connect>,
        live: &Live,
        contract: &Contract,
        metrics: &ClientMetrics,
    ) -> Arc<Self> {
        let (metrics, clock) = (metrics.of(name), Clock::start());
        let config = live.whole();
        let client = &config.client;
        let destination = Arc::new(Self {
            name: Arc::from(name),
            outliers: Outliers::new(client.outlier.clone(), metrics.clone(), clock.now()),
            circuit: Circuit::new(client.concurrent_max),
            budget: Budget::new(&client.retry),
            methods: Methods::of(contract, &metrics),
            set: ArcSwap::default(),
            discovery: Mutex::default(),
            next_id: AtomicU64::new(1),
            waiting: AtomicUsize::new(0),
            deserted_at: AtomicU64::new(NEVER_INHABITED),
            generation: Mutex::default(),
            following: ArcSwapOption::empty(),
            shared: Arc::new(Shared {
                live: live.clone(),
                clock,
                connector,
                metrics,
                changed: Notify::new(),
                lost: Arc::default(),
                tasks: TaskTracker::new(),
            }),
        });
        if let Some(discover) = discover {
            destination.follow(discover, &config);
        }
        destination
    }

    pub(crate) fn set(&self) -> Arc<Set> {
        self.set.load_full()
    }

    /// What became of an attempt at one of the endpoints.
    pub(crate) fn conclude(&self, endpoint: &Endpoint, outcome: Outcome, now: Nanos) {
        let set = self.set.load();
        self.outliers.record(&set, endpoint, outcome, now);
    }

    /// Why discovery has no news, if it has none.
    pub(crate) fn discovery_trouble(&self) -> Option<Arc<str>> {
        self.lock_discovery().trouble.clone()
    }

    pub(crate) fn method(&self, path: &str) -> &Arc<Method> {
        self.methods.known.get(path).unwrap_or(&self.methods.other)
    }

    pub(crate) fn hedging(&self) -> HedgeConfig {
        self.shared.live.load().client.hedge.clone()
    }

    pub(crate) fn has_other(&self, tried: &Tried) -> bool {
        self.set.load().has_other(self.shared.clock.now(), tried)
    }

    /// A place on a connection to a good endpoint. Waits only while there is no connection at all, or no stream on those
    /// that there are: as long as one is being opened, and for `connect_timeout_ms` after the last one was lost.
    pub(crate) async fn place(&self, tried: &Tried) -> Result<(Arc<Endpoint>, Lease), Cause> {
        if self.following.load().is_none() {
            return Err(Cause::Unconfigured);
        }
        match self.look(tried) {
            Place::Taken(endpoint, lease) => Ok((endpoint, lease)),
            Place::None(cause) => Err(cause),
            // What few calls need is not part of every call's future.
            Place::Wait | Place::WaitFor(_) => Box::pin(self.place_later(tried)).await,
        }
    }

    async fn place_later(&self, tried: &Tried) -> Result<(Arc<Endpoint>, Lease), Cause> {
        let mut waiting = None;
        loop {
            // Listens before it looks, so that no change is missed.
            let mut changed = std::pin::pin!(self.shared.changed.notified());
            changed.as_mut().enable();
            let longest = match self.look(tried) {
                Place::Taken(endpoint, lease) => return Ok((endpoint, lease)),
                Place::None(cause) => return Err(cause),
                Place::Wait => None,
                Place::WaitFor(longest) => Some(longest),
            };
            if waiting.is_none() {
                waiting = Some(self.wait()?);
            }
            match longest {
                None => changed.await,
                // Over or not: it looks again.
                Some(longest) => drop(timeout(longest, changed).await),
            }
        }
    }

    fn look(&self, tried: &Tried) -> Place {
        let (clock, config) = (self.shared.clock, self.shared.live.load());
        let set = self.set.load();
        let picked = set.pick(clock.now(), &config.client.balance, tried, &mut rand::rng());
        match picked {
            Pick::Endpoint(endpoint) => match endpoint.pool.lease() {
                Found::Lease(lease) => {
                    if self.deserted_at.load(Relaxed) != INHABITED {
                        self.deserted_at.store(INHABITED, Relaxed);
                    }
                    Place::Taken(endpoint.clone(), lease)
                }
                Found::Full => Place::None(Cause::QueueFull(config.client.waiting_max)),
                // All streams are taken while another connection is opened: one that becomes free tells nobody.
                Found::None if endpoint.pool.is_live() => Place::WaitFor(FULL_LOOK_INTERVAL),
                // Lost between the two; whoever removes it says so.
                Found::None => Place::Wait,
            },
            Pick::Wait => Place::Wait,
            Pick::Nothing if set.members().is_empty() => match self.discovery_trouble() {
                None if !self.lock_discovery().found => Place::Wait,
                trouble => Place::None(Cause::Undiscovered(trouble)),
            },
            Pick::Nothing => self.unconnected(&set, millis(config.client.connect_timeout_ms)),
        }
    }

    /// No endpoint is connected and none is being connected, so that every one has a pause. Those began while others
    /// were there: when the last one has gone, all are tried at once, and the calls of the next `patience` wait.
    fn unconnected(&self, set: &Set, patience: Nanos) -> Place {
        let now = self.shared.clock.now();
        let deserted = self
            .deserted_at
            .compare_exchange(INHABITED, now, Relaxed, Relaxed);
        if deserted.is_ok() {
            set.rally(&mut rand::rng());
            return Place::Wait;
        }
        let pools = || set.members().iter().map(|member| &member.endpoint.pool);
        let retry_at = pools().map(|pool| pool.retry_at()).min().unwrap_or(0);
        let retry_in = Duration::from_nanos(retry_at.saturating_sub(now));
        let deserted_at = deserted.unwrap_or_else(|at| at);
        if deserted_at != NEVER_INHABITED && now < deserted_at.saturating_add(patience) {
            return Place::WaitFor(retry_in);
        }
        let trouble = pools().find_map(|pool| pool.trouble());
        Place::None(Cause::Unconnected(trouble, retry_in))
    }

    fn wait(&self) -> Result<Waiting<'_>, Cause> {
        let max = self.shared.live.load().client.waiting_max;
        let waiting = Waiting(&self.waiting);
        if self.waiting.fetch_add(1, Relaxed) < max {
            Ok(waiting)
        } else {
            Err(Cause::QueueFull(max))
        }
    }

    fn lock_generation(&self) -> std::sync::MutexGuard<'_, u64> {
        self.generation
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_discovery(&self) -> std::sync::MutexGuard<'_, Discovery> {
        // Two plain fields are whole even if a thread panicked while it held the lock.
        self.discovery
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what a look-up has brought. Known endpoints keep their connections and their past;
    /// those that are gone finish the calls in flight there.
    fn publish(self: &Arc<Self>, generation: u64, found: Result<Vec<Target>, Failed>) {
        let newest = self.lock_generation(); // Held: none of before may come in between.
        if *newest != generation {
            return;
        }
        let metrics = &self.shared.metrics;
        let targets = match found {
            Ok(targets) => targets,
            Err(failed) => {
                metrics.looked_up(match failed {
                    Failed::Empty => "empty",
                    _ => "failed",
                });
                let kept = self.set.load().members().len();
                tracing::warn!(destination = &*self.name, kept, %failed, "endpoints stay as they were");
                self.lock_discovery().trouble = Some(Arc::from(failed.to_string()));
                self.shared.changed.notify_waiters();
                return;
            }
        };
        let mut discovery = self.lock_discovery();
        let first = !discovery.found;
        *discovery = Discovery {
            found: true,
            trouble: None,
        };
        drop(discovery);
        let old = self.set.load_full();
        let members = self.members(targets, &old, first);
        if is_same(&members, old.members()) {
            metrics.looked_up("unchanged");
            return;
        }
        metrics.looked_up("updated");
        metrics.endpoints.set(members.len() as i64);
        tracing::info!(
            destination = &*self.name,
            endpoints = members.len(),
            before = old.members().len(),
            "endpoints have changed"
        );
        let config = self.shared.live.load();
        let zone = &config.client.zone;
        self.set.store(Arc::new(Set::new(members, zone)));
        self.shared.changed.notify_waiters();
    }

    /// The members of a set, each address once.
    fn members(&self, targets: Vec<Target>, old: &Set, first: bool) -> Vec<Member> {
        let known: HashMap<_, _> = old
            .members()
            .iter()
            .map(|member| (member.endpoint.address().clone(), &member.endpoint))
            .collect();
        // Who is there from the start has nobody to be slower than.
        let started_at = if first { 0 } else { self.shared.clock.now() };
        let mut seen = HashSet::new();
        let mut members = Vec::with_capacity(targets.len());
        for target in targets {
            if !seen.insert(target.address.clone()) {
                continue;
            }
            members.push(Member {
                weight: target.weight,
                zone: target.zone.clone(),
                endpoint: if let Some(endpoint) = known
                    .get(&target.address)
                    .filter(|endpoint| endpoint.pool.target().is_reached_like(&target))
                {
                    (*endpoint).clone()
                } else {
                    let id = self.next_id.fetch_add(1, Relaxed);
                    let shared = self.shared.clone();
                    Arc::new(Endpoint::new(id, target, shared, started_at))
                },
            });
        }
        members
    }
}

struct Waiting<'d>(&'d AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Where a destination's endpoints come from; `None`: it is not configured.
fn discover(name: &str, config: &Config) -> Option<Box<dyn Discover>> {
    let text = config.destinations.get(name)?;
    let source = parse_destination(text).expect("the configuration was validated");
    Some(discovery::of(source, &config.client.discovery))
}

fn publish_to(
    destination: Weak<Destination>,
    generation: u64,
) -> impl Fn(Result<Vec<Target>, Failed>) -> bool + Send + 'static {
    move |found| {
        let destination = destination.upgrade();
        if let Some(destination) = &destination {
            destination.publish(generation, found);
        }
        destination.is_some()
    }
}

fn is_same(new: &[Member], old: &[Member]) -> bool {
    let key = |member: &Member| (member.endpoint.id, member.weight, member.zone.clone());
    let sorted = |members: &[Member]| {
        let mut keys: Vec<_> = members.iter().map(key).collect();
        keys.sort_unstable();
        keys
    };
    sorted(new) == sorted(old)
}

impl Methods {
    fn of(contract: &Contract, metrics: &DestinationMetrics) -> Self {
        let method = |path: &str| {
            Arc::new(Method {
                metrics: metrics.attempts(path),
                latencies: Latencies::default(),
            })
        };
        Self {
            known: contract
                .methods()
                .map(|known| (known.path.clone(), method(&known.path)))
                .collect(),
            other: method("other"),
        }
    }
}
