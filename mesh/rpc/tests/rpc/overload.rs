//! A server that is asked for more than it can bear, over real sockets and with the defaults. What the limit does in
//! minutes is simulated in `src/server/overload/simulation.rs`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use mesh::{CallContext, Config, Criticality, Principal};
use tokio::{sync::Semaphore, task::JoinSet};
use tonic::{Code, Status};

use crate::support::{Served, TestService, count, due, one, percentile, serve};

/// The server's workers, and how long a call keeps one of them: so many calls a second are the peak.
const WORKERS: usize = 10;
const TAKES: Duration = Duration::from_millis(100);
const PEAK_PER_S: f64 = 100.0;

/// What its workers have done.
#[derive(Default)]
struct Done {
    calls: AtomicUsize,
    /// The time that they were held; a busy machine lets sleeps last longer.
    busy_us: AtomicUsize,
}

async fn server(workers: usize, takes: Duration) -> (Served, Arc<Done>) {
    let (done, places) = (Arc::new(Done::default()), Arc::new(Semaphore::new(workers)));
    let noted = done.clone();
    let service = TestService::new(move |_, _| {
        let (noted, places) = (noted.clone(), places.clone());
        async move {
            let _place = places.acquire().await.unwrap();
            let began = Instant::now();
            tokio::time::sleep(takes).await;
            let us = usize::try_from(began.elapsed().as_micros()).unwrap();
            noted.busy_us.fetch_add(us, SeqCst);
            noted.calls.fetch_add(1, SeqCst);
            Ok(one("done"))
        }
    });
    (serve(Config::default(), service).await, done)
}

/// How long this process has kept processors busy so far, in seconds.
fn cpu_s() -> f64 {
    // The fields after the program's name, which may hold anything: user and system time are the 12th and 13th of them, in
    // hundredths of a second (proc(5); USER_HZ is 100 wherever Rust runs Linux).
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux has it");
    let fields = stat.rsplit(')').next().expect("a name in parentheses");
    let times = fields.split_whitespace().skip(11).take(2);
    times
        .map(|time| time.parse::<f64>().expect("a number"))
        .sum::<f64>()
        / 100.0
}

/// What became of one call.
struct Outcome {
    is_critical: bool,
    result: Result<String, Status>,
    ended: Instant,
    took: Duration,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_five_times_the_load_the_server_works_on_and_serves_what_is_critical() {
    let seconds = count("MESH_TEST_OVERLOAD_S", 4);
    let (served, done) = server(WORKERS, TAKES).await;
    let client = served.client();
    let (began, load_per_s) = (Instant::now(), 5.0 * PEAK_PER_S);
    // The first two seconds fill the server, and teach it what it can bear.
    let (from, until) = (
        began + Duration::from_secs(2),
        began + Duration::from_secs(2 + seconds as u64),
    );
    let (mut calls, mut number, cpu_before_s) = (JoinSet::new(), 0, cpu_s());
    while Instant::now() < until {
        // Three tenths of the peak are critical, the rest is not.
        let is_critical = number % 50 < 3;
        let client = client.clone();
        calls.spawn(async move {
            let context = CallContext::root(Principal::anonymous());
            let (method, context) = if is_critical {
                ("Put", context)
            } else {
                ("Post", context.with_criticality(Criticality::Sheddable))
            };
            let began = Instant::now();
            let result = context.scope(client.unary(method, "")).await;
            Outcome {
                is_critical,
                result,
                ended: Instant::now(),
                took: began.elapsed(),
            }
        });
        number += 1;
        due(began, number, load_per_s).await;
    }
    let outcomes = calls.join_all().await;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let cores = f64::from(u32::try_from(cores).expect("fewer than 2^32"));
    let cpu_percent = 100.0 * (cpu_s() - cpu_before_s) / began.elapsed().as_secs_f64() / cores;
    let measured = || {
        let in_time = |outcome: &&Outcome| (from..until).contains(&outcome.ended);
        outcomes.iter().filter(in_time)
    };
    let served_ok = measured().filter(|outcome| outcome.result.is_ok()).count();
    let takes_us = done.busy_us.load(SeqCst) / done.calls.load(SeqCst);
    let could = WORKERS * seconds * 1_000_000 / takes_us;
    let critical: Vec<_> = outcomes
        .iter()
        .filter(|outcome| outcome.is_critical)
        .collect();
    let critical_ok = critical.iter().filter(|outcome| outcome.result.is_ok());
    let critical_ok = critical_ok.count();
    let refused = measured().filter_map(|outcome| {
        let status = outcome.result.as_ref().err()?;
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        Some(outcome.took)
    });
    let mut refused: Vec<_> = refused.collect();
    println!(
        "{number} calls in {} s; {served_ok} of {could} served, {critical_ok} of {} critical ones; {} refused, in {:?} at \
         the median; {cpu_percent:.0} % of the processors were ours",
        2 + seconds,
        critical.len(),
        refused.len(),
        percentile(&mut refused, 50)
    );
    assert!(refused.len() > served_ok, "it was no overload");
    // Nine parts in ten on a machine of one's own; one that others use hands places over late.
    assert!(
        served_ok * 10 >= could * 8,
        "goodput {served_ok} of {could}"
    );
    assert!(critical_ok * 1000 >= critical.len() * 999);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_calls_at_once_are_all_served() {
    let (served, done) = server(64, Duration::from_millis(5)).await;
    let client = served.client();
    client.unary("Post", "").await.unwrap();
    let answers = join_all((0..1000).map(|_| client.unary("Post", ""))).await;
    let refused = answers.iter().filter(|answer| answer.is_err()).count();
    assert_eq!(refused, 0, "of a thousand");
    assert_eq!(done.calls.load(SeqCst), 1001);
}
