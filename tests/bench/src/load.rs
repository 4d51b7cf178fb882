//! A closed loop, as pgbench has it: so many clients, each asks again as soon as it is answered.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tonic::transport::{Channel, Endpoint};

/// Runs before the clock, so that connections are open and statements prepared. pgbench does not count its own either.
const WARM_UP: Duration = Duration::from_millis(500);
/// Connections that the clients of one service share.
const CONNECTIONS: usize = 4;

/// One client: asks, and checks what it is answered.
pub(crate) trait Caller: Send + 'static {
    /// One call. An answer that is not as it should be is an error, and an error ends the run.
    fn call(&mut self) -> impl Future<Output = Result<()>> + Send;
}

/// What a run came to.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    /// Calls with the warm-up: as many effects must there be.
    pub(crate) calls: u64,
    /// Calls a second, without it.
    pub(crate) rate: f64,
    /// How long they took, in microseconds, ascending.
    pub(crate) latencies_us: Vec<u64>,
}

impl Run {
    /// The latency below which so many of a hundred calls were.
    pub(crate) fn percentile_ms(&self, percent: usize) -> f64 {
        percentile_ms(&self.latencies_us, percent)
    }
}

/// Of ascending microseconds, in milliseconds.
pub(crate) fn percentile_ms(ascending_us: &[u64], percent: usize) -> f64 {
    let last = ascending_us.len().saturating_sub(1);
    let place = (ascending_us.len() * percent / 100).min(last);
    Duration::from_micros(ascending_us.get(place).copied().unwrap_or(0)).as_secs_f64() * 1e3
}

/// Lets all clients ask for as long as said.
pub(crate) async fn run<C: Caller>(callers: Vec<C>, length: Duration) -> Result<Run> {
    let begins = Instant::now() + WARM_UP;
    let ends = begins + length;
    let clients: Vec<_> = callers
        .into_iter()
        .map(|caller| mesh::spawn(client(caller, begins, ends)))
        .collect();
    let (mut calls, mut latencies_us) = (0, Vec::new());
    for client in clients {
        let (all, mut timed) = client.await.context("a client")??;
        calls += all;
        latencies_us.append(&mut timed);
    }
    let rate = per_second(latencies_us.len(), begins.elapsed());
    latencies_us.sort_unstable();
    Ok(Run {
        calls,
        rate,
        latencies_us,
    })
}

async fn client(
    mut caller: impl Caller,
    begins: Instant,
    ends: Instant,
) -> Result<(u64, Vec<u64>)> {
    let (mut calls, mut timed) = (0, Vec::new());
    loop {
        let asked = Instant::now();
        if asked >= ends {
            return Ok((calls, timed));
        }
        caller.call().await?;
        calls += 1;
        if asked >= begins {
            timed.push(u64::try_from(asked.elapsed().as_micros())?);
        }
    }
}

/// So many in a time, a second.
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
pub(crate) fn per_second(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

/// Connections to a service.
pub(crate) async fn connect(address: &str) -> Result<Vec<Channel>> {
    let endpoint = Endpoint::from_shared(address.to_owned())?.tcp_nodelay(true);
    let mut channels = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        channels.push(
            endpoint
                .connect()
                .await
                .context("connecting to a service")?,
        );
    }
    Ok(channels)
}

/// A key that was never used, in letters: digits may look like the number of a card, which services refuse.
pub(crate) fn fresh_key() -> String {
    let random: [u8; 16] = rand::random();
    let letters = random
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|nibble| char::from(b'a' + nibble));
    letters.collect()
}
