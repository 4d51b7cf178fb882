//! How many unary calls a second one client makes: plain tonic's Channel, three of them, and the
//! mesh, interleaved, at 1, 8 and 64 concurrent calls.
//!
//! `cargo run --release -p commerce-mesh --example client_rate [rounds] [seconds]`
//!
//! The server is plain tonic in a process of its own, so that the CPU time is the client's alone.

#[path = "../tests/support/mod.rs"]
#[expect(dead_code, reason = "shared with the tests")]
mod support;

use std::{
    net::SocketAddr,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;
use support::{TestClient, TestService, mesh_calling, one, plain, serve_plain};
use tokio::task::JoinSet;
use tonic::{body::Body, codegen::StdError};

const TEXT: &str = "about seventy bytes of text, as a small message of a small service has";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    if arguments.get(1).map(String::as_str) == Some("serve") {
        return runtime.block_on(serve());
    }
    let number = |index: usize, default| {
        arguments
            .get(index)
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    };
    let mut server = Command::new(std::env::current_exe().expect("a program has a path"))
        .arg("serve")
        .stdout(Stdio::piped())
        .spawn()
        .expect("the server starts");
    let mut line = String::new();
    let stdout = server.stdout.as_mut().expect("it is piped");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line)
        .expect("the server says where it listens");
    let address = line.trim().parse().expect("an address");
    runtime.block_on(compare(address, number(1, 5), number(2, 1)));
    server.kill().expect("the server runs");
    server.wait().expect("it has ended");
}

async fn serve() {
    let echo = TestService::new(|_, mut requests| async move {
        Ok(one(requests.next().await.expect("one request")?))
    });
    let (address, _stop, serving) = serve_plain(echo).await;
    println!("{address}");
    serving.await.expect("it serves").expect("it serves");
}

async fn compare(address: SocketAddr, rounds: u64, seconds: u64) {
    let mesh = mesh_calling(address);
    let client = TestClient(mesh.client("test"));
    let channel = plain(address);
    let channels = [plain(address), plain(address), plain(address)];
    for concurrent in [1, 8, 64] {
        for round in 0..rounds {
            let length = Duration::from_secs(seconds);
            let one = rate(std::slice::from_ref(&channel), concurrent, length).await;
            let three = rate(&channels, concurrent, length).await;
            let own = rate(std::slice::from_ref(&client), concurrent, length).await;
            let connections = mesh.endpoints()[0].endpoints[0].connections;
            println!(
                "{concurrent:>3} concurrent, round {round}: tonic {one}, 3 channels {three}, mesh {own} \
                 ({connections} connections)"
            );
        }
    }
}

struct Rate {
    per_second: f64,
    cpu_us: f64,
    p99_us: u64,
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            per_second,
            cpu_us,
            p99_us,
        } = self;
        write!(f, "{per_second:.0}/s {cpu_us:.1} us CPU p99 {p99_us} us")
    }
}

async fn rate<C>(clients: &[TestClient<C>], concurrent: usize, length: Duration) -> Rate
where
    C: tower::Service<http::Request<Body>, Response = http::Response<Body>>
        + Clone
        + Send
        + Sync
        + 'static,
    C::Error: Into<StdError>,
    C::Future: Send,
{
    let calls = Arc::new(AtomicU32::new(0));
    let (began, cpu) = (Instant::now(), cpu_us());
    let mut callers = JoinSet::new();
    for caller in 0..concurrent {
        let client = clients[caller % clients.len()].clone();
        let calls = calls.clone();
        callers.spawn(async move {
            let mut latencies = Vec::new();
            while began.elapsed() < length {
                let called = Instant::now();
                client
                    .unary("Read", TEXT)
                    .await
                    .expect("the server answers");
                latencies.push(called.elapsed());
                calls.fetch_add(1, Relaxed);
            }
            latencies
        });
    }
    let mut latencies: Vec<_> = callers.join_all().await.into_iter().flatten().collect();
    latencies.sort_unstable();
    let p99 = latencies[latencies.len() * 99 / 100];
    let made = f64::from(calls.load(Relaxed));
    Rate {
        per_second: made / began.elapsed().as_secs_f64(),
        cpu_us: (cpu_us() - cpu) / made,
        p99_us: u64::try_from(p99.as_micros()).expect("it is short"),
    }
}

/// The CPU time of this process so far.
fn cpu_us() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux has it");
    let after_name = stat
        .rsplit(") ")
        .next()
        .expect("the name is in parentheses");
    let ticks: f64 = after_name
        .split(' ')
        .skip(11)
        .take(2)
        .filter_map(|ticks| ticks.parse::<f64>().ok())
        .sum();
    ticks * 10_000.0 // 100 ticks a second
}
