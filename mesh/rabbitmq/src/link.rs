//! A connection that is supervised: lost, it is opened again with backoff, for as long as the link
//! lives. Whoever uses it finds it up or gets the reason at once; nobody queues up behind it.

use std::sync::Arc;

use futures_util::StreamExt as _;
use lapin::{Connection, Event};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Duration, MissedTickBehavior, interval, sleep},
};
use tracing::{info, warn};

use crate::{Metrics, RabbitMqConfig, connect::connect, error::chain};

/// How often is asked whether the connection still stands, besides listening to its events.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) struct Link {
    state: watch::Receiver<State>,
    /// Ends with the link.
    _supervisor: JoinSet<()>,
}

#[derive(Clone)]
enum State {
    /// The first attempt is under way.
    Connecting,
    Up(Arc<Connection>),
    /// The broker takes no messages for want of memory or disk.
    Blocked(String),
    /// There is no connection.
    Down(String),
}

impl Link {
    /// Begins to connect.
    pub(crate) fn start(config: Arc<RabbitMqConfig>, name: String, metrics: Metrics) -> Link {
        let (sender, state) = watch::channel(State::Connecting);
        let mut supervisor = JoinSet::new();
        let supervised = Supervisor {
            config,
            name,
            metrics,
            state: sender,
        };
        supervisor.spawn(supervised.run());
        Link {
            state,
            _supervisor: supervisor,
        }
    }

    /// The connection, or why it can not be used. Waits for the first attempt to connect only.
    pub(crate) async fn connection(&self) -> Result<Arc<Connection>, String> {
        let mut state = self.state.clone();
        let known = state.wait_for(|state| !matches!(state, State::Connecting));
        match known.await.as_deref() {
            Ok(State::Up(connection)) => Ok(connection.clone()),
            Ok(State::Blocked(reason) | State::Down(reason)) => Err(reason.clone()),
            Ok(State::Connecting) | Err(_) => Err("the link was closed".into()),
        }
    }

    /// Waits until the connection can not be used; why.
    pub(crate) async fn interrupted(&self) -> String {
        let mut state = self.state.clone();
        let interrupted =
            state.wait_for(|state| matches!(state, State::Blocked(_) | State::Down(_)));
        match interrupted.await.as_deref() {
            Ok(State::Blocked(reason) | State::Down(reason)) => reason.clone(),
            Ok(State::Up(_) | State::Connecting) | Err(_) => "the link was closed".into(),
        }
    }
}

struct Supervisor {
    config: Arc<RabbitMqConfig>,
    name: String,
    metrics: Metrics,
    state: watch::Sender<State>,
}

impl Supervisor {
    async fn run(self) {
        let mut failures = 0;
        // Somewhere, so that those who start together do not all go to the first node of a cluster.
        let mut turn = usize::from(rand::random::<u16>());
        loop {
            let reason = match connect(&self.config, &self.name, turn).await {
                Ok(connection) => {
                    failures = 0;
                    info!(connection = %self.name, url = %self.config.url, "connected");
                    self.watch(Arc::new(connection)).await
                }
                Err(error) => chain(&error),
            };
            turn = turn.wrapping_add(1);
            failures += 1;
            warn!(connection = %self.name, reason, failures, "not connected");
            self.set(State::Down(reason));
            sleep(self.config.backoff().after(failures)).await;
        }
    }

    /// Follows a connection until it is lost; why.
    async fn watch(&self, connection: Arc<Connection>) -> String {
        let mut events = connection.events_listener();
        let mut probe = interval(PROBE_INTERVAL);
        probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.set(State::Up(connection.clone()));
        let mut reason = "the connection was closed".to_owned();
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Event::ConnectionBlocked(why)) => {
                        warn!(connection = %self.name, reason = why, "blocked by the broker");
                        self.set(State::Blocked(format!("blocked by the broker: {why}")));
                    }
                    Some(Event::ConnectionUnblocked) => {
                        info!(connection = %self.name, "unblocked by the broker");
                        self.set(State::Up(connection.clone()));
                    }
                    Some(Event::Error(error)) => reason = chain(&error),
                    Some(_) => {}
                    None => return reason,
                },
                _ = probe.tick() => {}
            }
            if !connection.status().connected() {
                return reason;
            }
        }
    }

    fn set(&self, state: State) {
        let blocked = matches!(state, State::Blocked(_));
        let connected = blocked || matches!(state, State::Up(_));
        let metrics = [
            (&self.metrics.connected, connected),
            (&self.metrics.blocked, blocked),
        ];
        for (metric, value) in metrics {
            metric
                .with_label_values(&[&self.name])
                .set(i64::from(value));
        }
        self.state.send_replace(state);
    }
}
