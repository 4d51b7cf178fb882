//! The life of connections: uploads that break off, readers that do not read, age, idleness.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use h2::Reason;
use mesh::Config;
use prometheus::Registry;
use tokio::{
    net::TcpStream,
    sync::{Notify, mpsc},
    time::{interval, timeout},
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::support::{
    PATIENCE, Served, TestClient, TestService, Texts, drain, elapse, mesh_with, one, serve,
    serve_plain, wire,
};

type Upload = (Vec<String>, Result<(), Status>);

/// Reads uploads in tasks of their own, which nobody's going away ends.
struct Reading {
    service: TestService,
    /// A first message was read.
    begun: Arc<Notify>,
    /// What became of each upload.
    uploads: mpsc::UnboundedReceiver<Upload>,
    /// A handler is dropped.
    gone: Arc<Notify>,
}

impl Reading {
    fn new() -> Self {
        struct Gone(Arc<Notify>);
        impl Drop for Gone {
            fn drop(&mut self) {
                self.0.notify_one();
            }
        }
        let (done, uploads) = mpsc::unbounded_channel();
        let (begun, gone) = (Arc::<Notify>::default(), Arc::<Notify>::default());
        let (beginning, going) = (begun.clone(), gone.clone());
        let service = TestService::new(move |_, mut requests| {
            let (done, begun, gone) = (done.clone(), beginning.clone(), Gone(going.clone()));
            mesh::spawn(async move {
                let first = requests.next().await;
                let first = first.expect("a message").expect("a good one");
                begun.notify_one();
                let (mut texts, outcome) = drain(requests).await;
                texts.insert(0, first);
                done.send((texts, outcome)).expect("the test listens");
            });
            async move {
                let _gone = gone;
                std::future::pending().await
            }
        });
        Self {
            service,
            begun,
            uploads,
            gone,
        }
    }

    async fn begun(&self) {
        let begun = timeout(PATIENCE, self.begun.notified()).await;
        begun.expect("a message is read");
    }

    async fn upload(&mut self) -> Upload {
        let upload = timeout(PATIENCE, self.uploads.recv()).await;
        upload.expect("the upload ends").expect("readers live on")
    }

    async fn gone(&self) {
        let gone = timeout(PATIENCE, self.gone.notified()).await;
        gone.expect("the handler is dropped");
    }

    /// Sends one message and then resets the stream; what the reader makes of it.
    async fn broken_off(&mut self, address: std::net::SocketAddr, reason: Reason) -> Upload {
        let sender = wire::connect(address, 65_535).await;
        let (_answer, mut upload) = wire::begin(&sender, "Import").await;
        let sent = upload.send_data(wire::message("half"), false);
        sent.expect("the connection is open");
        self.begun().await;
        upload.send_reset(reason);
        self.upload().await
    }
}

#[tokio::test]
async fn half_an_upload_is_an_error_where_plain_tonic_takes_it_for_a_whole_one() {
    let mut reading = Reading::new();
    let (address, _stop, _serving) = serve_plain(reading.service.clone()).await;
    let (texts, outcome) = reading.broken_off(address, Reason::CANCEL).await;
    assert_eq!(texts, ["half"]);
    outcome.expect("plain tonic is expected to see nothing");

    let mut reading = Reading::new();
    let served = serve(Config::default(), reading.service.clone()).await;
    for reason in [Reason::CANCEL, Reason::NO_ERROR, Reason::INTERNAL_ERROR] {
        let (texts, outcome) = reading.broken_off(served.address, reason).await;
        assert_eq!(texts, ["half"]);
        let status = outcome.unwrap_err();
        assert_eq!(status.code(), Code::Aborted, "{status}");
        reading.gone().await;
    }
}

#[tokio::test]
async fn an_upload_whose_connection_breaks_is_an_error_too() {
    let mut reading = Reading::new();
    let served = serve(Config::default(), reading.service.clone()).await;
    let socket = TcpStream::connect(served.address).await.unwrap();
    let (sender, connection) = h2::client::handshake(socket).await.unwrap();
    let connection = mesh::spawn(connection);
    let (_answer, mut upload) = wire::begin(&sender, "Import").await;
    upload.send_data(wire::message("half"), false).unwrap();
    reading.begun().await;
    connection.abort();
    let (_, outcome) = reading.upload().await;
    assert_eq!(outcome.unwrap_err().code(), Code::Aborted);
    reading.gone().await;
}

#[tokio::test]
async fn whoever_produces_waits_for_whoever_reads() {
    let produced = Arc::new(AtomicUsize::new(0));
    let counting = produced.clone();
    let service = TestService::new(move |method, _| {
        let counting = counting.clone();
        async move {
            if method == "Read" {
                return Ok(one(""));
            }
            let texts = stream::repeat_with(move || {
                counting.fetch_add(1, SeqCst);
                Ok("x".repeat(64 << 10))
            });
            // Not endless after all, so that a server that waits for nobody fails the test only.
            Ok(Box::pin(texts.take(2_000)) as Texts)
        }
    });
    let served = serve(Config::default(), service).await;
    let sender = wire::connect(served.address, 65_535).await;
    let (answer, mut request) = wire::begin(&sender, "Export").await;
    request.send_data(wire::message(""), true).unwrap();
    let unread = answer.await.unwrap();
    // Others on the same connection are served meanwhile, over and over.
    for _ in 0..200 {
        let (answer, mut request) = wire::begin(&sender, "Read").await;
        request.send_data(wire::message(""), true).unwrap();
        let mut body = answer.await.unwrap().into_body();
        while let Some(data) = body.data().await {
            let length = data.unwrap().len();
            body.flow_control().release_capacity(length).unwrap();
        }
    }
    // The peer's window, the buffer for it, and what the encoder holds: less than a megabyte.
    let produced = produced.load(SeqCst);
    assert!((1..=16).contains(&produced), "{produced} texts of 64 KiB");
    drop(unread);
}

fn limited(age_ms: u64, grace_ms: u64, idle_ms: u64) -> Config {
    let mut config = Config::default();
    config.server.connection_age_max_ms = age_ms;
    config.server.connection_age_grace_ms = grace_ms;
    config.server.connection_idle_max_ms = idle_ms;
    config
}

/// A client of the server, and the registry that counts its connections.
fn counted(served: &Served) -> (TestClient<mesh::Client>, Registry) {
    let (mut config, registry) = (Config::default(), Registry::new());
    let address = format!("http://{}", served.address);
    config.destinations.insert("test".into(), address);
    let mesh = mesh_with(config, &registry);
    (TestClient(mesh.client("test")), registry)
}

/// How often the peer has ended a connection.
fn disconnects(registry: &Registry) -> u64 {
    let families = registry.gather();
    let family = families
        .iter()
        .find(|family| family.name() == "grpc_subchannel_disconnections_total");
    family.map_or(0, |family| {
        let counts = family.get_metric().iter();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "Prometheus counts in floating point"
        )]
        counts
            .map(|metric| metric.get_counter().get_value() as u64)
            .sum()
    })
}

async fn disconnected(registry: &Registry) {
    let noticed = async {
        while disconnects(registry) == 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, noticed).await.expect("a GOAWAY");
}

/// Texts as they are asked for.
fn on_demand() -> (TestService, mpsc::UnboundedSender<&'static str>) {
    let (say, texts) = mpsc::unbounded_channel::<&'static str>();
    let texts = Arc::new(tokio::sync::Mutex::new(texts));
    let service = TestService::new(move |method, _| {
        let texts = texts.clone();
        async move {
            if method == "Read" {
                return Ok(one("fine"));
            }
            let said = stream::unfold(texts, |texts| async move {
                let text = texts.lock().await.recv().await?;
                Some((Ok(text.to_owned()), texts))
            });
            Ok(Box::pin(said) as Texts)
        }
    });
    (service, say)
}

#[tokio::test]
async fn an_old_connection_goes_away_and_its_streams_have_their_grace() {
    let (service, say) = on_demand();
    let served = serve(limited(10_000, 20_000, 0), service).await;
    let (client, registry) = counted(&served);
    say.send("young").unwrap();
    let mut answers = client.watch("Export", "").await.unwrap();
    assert_eq!(answers.next().await.unwrap().unwrap(), "young");
    elapse(Duration::from_millis(11_001)).await;
    disconnected(&registry).await;
    // What is new goes elsewhere, what is there goes on.
    assert_eq!(client.unary("Read", "").await.unwrap(), "fine");
    say.send("old").unwrap();
    assert_eq!(answers.next().await.unwrap().unwrap(), "old");
    elapse(Duration::from_secs(19)).await;
    say.send("ancient").unwrap();
    assert_eq!(answers.next().await.unwrap().unwrap(), "ancient");
    elapse(Duration::from_millis(1_001)).await;
    let status = timeout(PATIENCE, answers.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    let details = status.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!(info.reason, "CONNECTION_ENDED");
    assert_eq!(
        info.metadata["policy"],
        "mesh.server.connection_age_grace_ms"
    );
    assert_eq!(client.unary("Read", "").await.unwrap(), "fine");
}

#[tokio::test]
async fn an_idle_connection_goes_away_and_a_busy_one_stays() {
    let (service, say) = on_demand();
    let served = serve(limited(0, 1_000, 60_000), service).await;
    let (busy, counted_busy) = counted(&served);
    let (idle, counted_idle) = counted(&served);
    say.send("first").unwrap();
    let mut answers = busy.watch("Export", "").await.unwrap();
    assert_eq!(answers.next().await.unwrap().unwrap(), "first");
    assert_eq!(idle.unary("Read", "").await.unwrap(), "fine");
    elapse(Duration::from_secs(59)).await;
    assert_eq!(disconnects(&counted_idle), 0);
    elapse(Duration::from_millis(1_002)).await;
    disconnected(&counted_idle).await;
    assert_eq!(disconnects(&counted_busy), 0);
    assert_eq!(idle.unary("Read", "").await.unwrap(), "fine");
}

#[tokio::test]
async fn a_peer_that_says_nothing_any_more_is_let_go() {
    let reading = Reading::new();
    let served = serve(Config::default(), reading.service.clone()).await;
    let socket = TcpStream::connect(served.address).await.unwrap();
    let (sender, mut connection) = h2::client::handshake(socket).await.unwrap();
    let calling = async {
        let (_answer, mut upload) = wire::begin(&sender, "Import").await;
        upload.send_data(wire::message("half"), false).unwrap();
        reading.begun().await;
        upload
    };
    // The connection is moved until the request is read, and never again.
    let _upload = tokio::select! {
        _ = &mut connection => panic!("the server hung up"),
        upload = calling => upload,
    };
    // An interval in which something was heard, a silent one, and the wait for an answer: 20 + 20 + 5 s.
    let mut elapsed_s = 0;
    while futures_util::poll!(std::pin::pin!(reading.gone.notified())).is_pending() {
        elapse(Duration::from_secs(1)).await;
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        elapsed_s += 1;
        assert!(elapsed_s < 60, "still there");
    }
    assert!(elapsed_s >= 44, "let go after {elapsed_s} s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_rotate_under_load_without_a_failed_call() {
    let rotations = u64::try_from(crate::support::count("MESH_TEST_AGES", 10)).unwrap();
    let service = TestService::new(|method, _| async move {
        if method == "Read" || method == "Post" {
            return Ok(one("fine"));
        }
        let ticks = stream::unfold(interval(Duration::from_millis(5)), |mut ticks| async {
            ticks.tick().await;
            Some((Ok("tick".to_owned()), ticks))
        });
        Ok(Box::pin(ticks.take(100)) as Texts)
    });
    // Each stream outlives its connection's age.
    let served = serve(limited(300, 60_000, 0), service).await;
    let (client, registry) = counted(&served);
    let done = Arc::new(AtomicBool::new(false));
    let mut load = tokio::task::JoinSet::new();
    for method in ["Read", "Post"] {
        let (client, done) = (client.clone(), done.clone());
        load.spawn(async move {
            while !done.load(SeqCst) {
                client.unary(method, "").await.unwrap();
            }
        });
    }
    for _ in 0..4 {
        let (client, done) = (client.clone(), done.clone());
        load.spawn(async move {
            while !done.load(SeqCst) {
                let (texts, outcome) = drain(client.watch("Export", "").await.unwrap()).await;
                outcome.unwrap();
                assert_eq!(texts.len(), 100);
            }
        });
    }
    while disconnects(&registry) < rotations {
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(load.try_join_next().is_none(), "a call has failed");
    }
    done.store(true, SeqCst);
    while let Some(ended) = load.join_next().await {
        ended.unwrap();
    }
}

/// Served without end, to whom reads nothing of it; says when nobody produces any more.
async fn unread(method: &str) -> (Served, impl Future<Output = ()>, impl Sized) {
    struct Gone(Arc<Notify>);
    impl Drop for Gone {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    let gone = Arc::new(Notify::new());
    let told = gone.clone();
    let service = TestService::new(move |_, _| {
        let guard = Gone(told.clone());
        async move {
            let texts = stream::repeat_with(move || {
                let _held = &guard;
                Ok("x".repeat(64 << 10))
            });
            Ok(Box::pin(texts) as Texts)
        }
    });
    let served = serve(Config::default(), service).await;
    let sender = wire::connect(served.address, 65_535).await;
    let (answer, mut request) = wire::begin(&sender, method).await;
    request.send_data(wire::message(""), true).unwrap();
    let held = (sender, answer.await.unwrap());
    let gone = async move {
        let gone = timeout(PATIENCE, gone.notified()).await;
        gone.expect("the handler's stream is dropped");
    };
    (served, gone, held)
}

#[tokio::test]
async fn a_deadline_ends_what_nobody_reads() {
    let (_served, gone, _held) = unread("Export").await;
    elapse(Duration::from_secs(61)).await;
    gone.await;
}

#[tokio::test]
async fn a_drain_ends_what_has_no_deadline_and_nobody_reads() {
    let (served, gone, _held) = unread("Watch").await;
    served.shutdown.cancel();
    gone.await;
}

#[tokio::test]
async fn a_connection_outlives_any_number_of_answers_that_come_before_the_end_of_their_requests() {
    let service = TestService::new(|_, _| async { Ok(one("read nothing")) });
    let served = serve(Config::default(), service).await;
    let sender = wire::connect(served.address, 1 << 16).await;
    for number in 0..1_500 {
        let (answer, mut request) = wire::begin(&sender, "Post").await;
        let answer = timeout(PATIENCE, answer).await.unwrap();
        let mut body = answer
            .unwrap_or_else(|error| panic!("call {number}: {error}"))
            .into_body();
        while body.data().await.is_some() {}
        assert!(body.trailers().await.unwrap().is_some());
        request.send_data(wire::message("late"), true).unwrap();
    }
    let mut sender = sender.ready().await.unwrap();
    assert!(poll_fn(|cx| sender.poll_ready(cx)).await.is_ok());
}
