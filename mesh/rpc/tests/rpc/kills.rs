//! A backend that is killed: a process of its own, and `SIGKILL`.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use futures_util::{StreamExt as _, stream};
use mesh::Config;
use tokio::{sync::mpsc, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::support::{PATIENCE, TestClient, TestService, count, mesh_calling_all, one, serve};

/// Set for the process that is killed: this test again, which then is the backend.
const ROLE: &str = "MESH_TEST_ROLE_BACKEND";
const TEST: &str = "kills::a_killed_process_takes_only_what_was_in_flight_there";

/// What the backend says on a line of its own.
const LISTENS: &str = "listens on ";
const HOLDS: &str = "holds ";

/// A backend that says what arrives, and answers nothing.
async fn backend() {
    let holding = TestService::new(|method, _| async move {
        println!("\n{HOLDS}{method}");
        std::future::pending().await
    });
    let served = serve(Config::default(), holding).await;
    println!("\n{LISTENS}{}", served.address);
    std::future::pending::<()>().await;
}

/// Killed at the latest when the test ends.
struct Process(Child);

impl Process {
    /// The process, and the lines that it writes.
    fn start() -> (Self, mpsc::UnboundedReceiver<String>) {
        let program = std::env::current_exe().unwrap();
        let mut child = Command::new(program)
            .args(["--exact", TEST, "--nocapture"])
            .env(ROLE, "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (said, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if said.send(line).is_err() {
                    return;
                }
            }
        });
        (Self(child), lines)
    }

    fn kill(&mut self) {
        self.0.kill().unwrap(); // SIGKILL.
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The rest of the next line that begins so.
async fn said(lines: &mut mpsc::UnboundedReceiver<String>, beginning: &str) -> String {
    loop {
        let line = timeout(PATIENCE, lines.recv()).await.unwrap();
        if let Some(rest) = line.expect("the backend lives").strip_prefix(beginning) {
            return rest.to_owned();
        }
    }
}

#[tokio::test]
async fn a_killed_process_takes_only_what_was_in_flight_there() {
    if count(ROLE, 0) == 1 {
        return backend().await;
    }
    let (mut doomed, mut lines) = Process::start();
    let address: SocketAddr = said(&mut lines, LISTENS).await.parse().unwrap();
    // The other one holds its calls as well, so that neither looks faster.
    let (release, (arrived, mut arrivals)) = (CancellationToken::new(), mpsc::unbounded_channel());
    let released = release.clone();
    let holding = TestService::new(move |_, _| {
        arrived.send(()).unwrap();
        let released = released.clone();
        async move {
            released.cancelled().await;
            Ok(one("fine"))
        }
    });
    let sound = serve(Config::default(), holding).await;
    let client = TestClient(mesh_calling_all([address, sound.address]).client("test"));
    let mut calls = JoinSet::new();
    let (mut puts, mut posts) = (0, 0);
    // One by one, so that they are few and within the budget of retries.
    for method in ["Put", "Post"].into_iter().cycle() {
        if puts >= 2 && posts >= 2 {
            break;
        }
        let client = client.clone();
        calls.spawn(async move { (method, client.unary(method, "").await) });
        tokio::select! {
            held = said(&mut lines, HOLDS) => match &*held {
                "Put" => puts += 1,
                _ => posts += 1,
            },
            Some(()) = arrivals.recv() => {}
        }
    }
    doomed.kill();
    release.cancel();
    let mut lost = 0;
    while let Some(ended) = timeout(PATIENCE, calls.join_next()).await.unwrap() {
        match ended.unwrap() {
            (_, Ok(text)) => assert_eq!(text, "fine"),
            (method, Err(status)) => {
                assert_eq!((method, status.code()), ("Post", Code::Unavailable));
                lost += 1;
            }
        }
    }
    assert_eq!(lost, posts, "what may not be repeated, and nothing else");
    println!("{puts} Puts succeeded elsewhere, {lost} Posts were lost");

    // And nothing that comes later.
    let later = stream::iter(0..500).map(|_| client.unary("Post", ""));
    let later = later.buffer_unordered(8);
    let later = timeout(PATIENCE, later.collect::<Vec<_>>()).await.unwrap();
    assert!(later.iter().all(Result::is_ok));
}
