//! The client under load as a process of its own; it ends with one line of JSON that says what it saw.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use hyper_util::rt::TokioIo;
use interop::{
    payload,
    pb::{SimpleRequest, test_service_client::TestServiceClient},
};
use mesh::{Criticality, Mesh};
use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, sleep_until},
};
use tokio_rustls::TlsConnector;
use tonic::{
    Code,
    metadata::MetadataValue,
    transport::{Channel, Endpoint},
};
use tower::service_fn;

use super::{
    DESTINATION,
    certificates::{Certificates, SERVER_NAME},
    full,
    loops::{self, Caller, OUTSTANDING_MAX, Tally, Window},
    server::Kind,
};
use crate::cpu::Threads;

/// Of the request and of the answer: as a small message of a small service has.
const PAYLOAD_BYTES: usize = 70;

/// What to call, and how.
#[derive(clap::Args)]
pub(crate) struct Options {
    #[arg(long)]
    kind: Kind,
    /// `host:port`.
    #[arg(long)]
    address: String,
    /// How many Channels of tonic share the calls.
    #[arg(long, default_value_t = 1)]
    channels: usize,
    /// With mTLS, by the certificates in this folder.
    #[arg(long, value_name = "FOLDER")]
    certificates: Option<PathBuf>,
    /// A closed loop of so many callers.
    #[arg(long, conflicts_with = "rate")]
    concurrent: Option<usize>,
    /// An open loop of so many calls a second.
    #[arg(long, required_unless_present = "concurrent")]
    rate: Option<u32>,
    #[arg(long)]
    length_ms: u64,
    /// How long it runs before the clock, so that connections are open and everybody is awake, in milliseconds.
    #[arg(long, default_value_t = 500)]
    warm_up_ms: u64,
    /// Calls say that they may be shed; tonic's only.
    #[arg(long)]
    sheddable: bool,
    /// A first call takes the one place that the server has, so that all others are refused.
    #[arg(long)]
    refused: bool,
    /// Processes whose time is counted too.
    #[arg(long, value_delimiter = ',')]
    watch: Vec<u32>,
}

/// What the loader saw.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// Calls that were answered.
    pub(crate) calls: u64,
    /// Calls that failed, by code.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Calls answered a second.
    pub(crate) rate: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// How late the loader sent the latest hundredth; open loops only.
    pub(crate) late_p99_us: f64,
    /// Connections at the end.
    pub(crate) connections: usize,
    /// Processor time while calls counted, in nanoseconds: the loader's own, then of those that it watched.
    pub(crate) cpu_ns: Vec<u64>,
}

/// Puts load on, and says what came of it.
pub(crate) fn run(options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let seen = runtime.block_on(load(options))?;
    println!("{}", serde_json::to_string(&seen)?);
    Ok(())
}

#[derive(Clone)]
enum Client {
    Tonic(TestServiceClient<Channel>, Option<Criticality>),
    Mesh(TestServiceClient<mesh::Client>),
}

impl Caller for Client {
    async fn call(&mut self) -> Result<(), Code> {
        let request = SimpleRequest {
            response_size: i32::try_from(PAYLOAD_BYTES).expect("it is small"),
            payload: Some(payload(PAYLOAD_BYTES)),
            ..SimpleRequest::default()
        };
        let answered = match self {
            Client::Tonic(client, criticality) => {
                let mut request = tonic::Request::new(request);
                if let Some(criticality) = criticality {
                    let value = MetadataValue::from_static(criticality.as_str());
                    request.metadata_mut().insert("mesh-criticality", value);
                }
                client.unary_call(request).await
            }
            Client::Mesh(client) => client.unary_call(request).await,
        };
        let answer = answered.map_err(|status| status.code())?.into_inner();
        match answer.payload {
            Some(payload) if payload.body.len() == PAYLOAD_BYTES => Ok(()),
            _ => Err(Code::DataLoss),
        }
    }
}

async fn load(options: &Options) -> Result<Seen> {
    let (clients, mesh) = connect(options).await?;
    if options.refused {
        take_the_place(&clients[0]).await?;
    } else {
        // A first call outside of the clock: who cannot be reached at all is not measured.
        for mut client in clients.clone() {
            let answered = client.call().await;
            ensure!(answered.is_ok(), "the first call ended with {answered:?}");
        }
    }
    let begins = Instant::now() + Duration::from_millis(options.warm_up_ms);
    let ends = begins + Duration::from_millis(options.length_ms);
    let window = Window { begins, ends };
    let watching = mesh::spawn(watch(options.watch.clone(), window));
    let tally = match (options.concurrent, options.rate) {
        (Some(concurrent), _) => loops::closed(&clients, concurrent, window).await,
        (None, rate) => {
            let intended = loops::pace(rate.unwrap_or(1).max(1), ends);
            loops::open(&clients, OUTSTANDING_MAX, intended, window).await
        }
    };
    let took = begins.elapsed();
    let connections = mesh.map_or(options.channels, |mesh| {
        let known = mesh.endpoints();
        let endpoints = known.iter().flat_map(|destination| &destination.endpoints);
        endpoints.map(|endpoint| endpoint.connections).sum()
    });
    Ok(seen(tally, took, connections, watching.await??))
}

/// Has the server begin a call that it does not end, and sees it refuse another one for it.
async fn take_the_place(client: &Client) -> Result<()> {
    let (mut first, mut second) = (client.clone(), client.clone());
    mesh::spawn(async move { first.call().await });
    sleep(Duration::from_millis(100)).await; // By then it is there.
    let answered = second.call().await;
    ensure!(
        answered == Err(Code::ResourceExhausted),
        "the second call ended with {answered:?}"
    );
    Ok(())
}

async fn connect(options: &Options) -> Result<(Vec<Client>, Option<Mesh>)> {
    let certificates = options.certificates.as_deref().map(Certificates::of);
    if options.kind == Kind::Mesh {
        let mesh = full::calling(&options.address, certificates.as_ref()).await?;
        let client = TestServiceClient::new(mesh.client(DESTINATION));
        return Ok((vec![Client::Mesh(client)], Some(mesh)));
    }
    let criticality = options.sheddable.then_some(Criticality::Sheddable);
    let mut clients = Vec::new();
    for _ in 0..options.channels.max(1) {
        let endpoint = Endpoint::from_shared(format!("http://{}", options.address))?;
        let channel = match &certificates {
            None => endpoint.connect().await?,
            Some(certificates) => secured(&endpoint, options.address.clone(), certificates).await?,
        };
        clients.push(Client::Tonic(TestServiceClient::new(channel), criticality));
    }
    Ok((clients, None))
}

/// A Channel over TLS that was made outside of tonic.
async fn secured(
    endpoint: &Endpoint,
    address: String,
    certificates: &Certificates,
) -> Result<Channel> {
    let connector = TlsConnector::from(Arc::new(certificates.client()?));
    let connector = service_fn(move |_| {
        let (connector, address) = (connector.clone(), address.clone());
        async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let name = ServerName::try_from(SERVER_NAME).map_err(std::io::Error::other)?;
            let stream = connector.connect(name, stream).await?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    Ok(endpoint.connect_with_connector(connector).await?)
}

/// The time that this process and the others used within the window.
async fn watch(others: Vec<u32>, window: Window) -> Result<Vec<u64>> {
    let used = || {
        let ids = std::iter::once(std::process::id()).chain(others.iter().copied());
        ids.map(Threads::of).collect::<Result<Vec<_>>>()
    };
    sleep_until(window.begins).await;
    let before = used()?;
    sleep_until(window.ends).await;
    let after = used()?;
    Ok(after
        .iter()
        .zip(before)
        .map(|(after, before)| after.since(&before))
        .collect())
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn seen(tally: Tally, took: Duration, connections: usize, cpu_ns: Vec<u64>) -> Seen {
    let Tally {
        mut latencies,
        mut late,
        errors,
    } = tally;
    latencies.sort_unstable();
    late.sort_unstable();
    Seen {
        calls: latencies.len() as u64,
        errors,
        rate: latencies.len() as f64 / took.as_secs_f64(),
        p50_us: percentile_us(&latencies, 50),
        p99_us: percentile_us(&latencies, 99),
        late_p99_us: percentile_us(&late, 99),
        connections,
        cpu_ns,
    }
}

/// Of ascending durations, in microseconds.
fn percentile_us(ascending: &[Duration], percent: usize) -> f64 {
    let last = ascending.len().saturating_sub(1);
    let place = (ascending.len() * percent / 100).min(last);
    ascending.get(place).map_or(0.0, Duration::as_secs_f64) * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_was_answered() {
        let latencies: Vec<_> = (1..=100).map(Duration::from_micros).collect();
        let tally = Tally {
            latencies,
            ..Tally::default()
        };
        let seen = seen(tally, Duration::from_secs(2), 1, vec![7]);
        assert!((seen.rate - 50.0).abs() < 1e-9);
        assert!((seen.p50_us - 51.0).abs() < 1e-6 && (seen.p99_us - 100.0).abs() < 1e-6);
        assert!(percentile_us(&[], 99).abs() < 1e-9);
    }
}
