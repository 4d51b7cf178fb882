//! Who has a deadline when nobody has said one, and how far one goes. (`tonic_defects` shows what one covers.)
//!
//! Calls run over real sockets in real time until they are where the test wants them; then the clock of
//! the runtime is moved past their deadline.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use mesh::{CallContext, Config, Principal};
use tokio::{
    sync::{broadcast, mpsc},
    time::{Instant, timeout},
};
use tonic::{Code, Request};

use crate::support::{PATIENCE, Served, TestService, Texts, elapse, one, plain, serve};

/// Enough for a call to arrive on a busy machine, less than any default of the mesh.
const DEADLINE: Duration = Duration::from_secs(9);

/// Reports what its calls had left when they arrived, and never answers.
fn silent() -> (TestService, mpsc::UnboundedReceiver<Option<Duration>>) {
    let (arrived, arrivals) = mpsc::unbounded_channel();
    let service = TestService::new(move |_, _| {
        let deadline = CallContext::current().deadline();
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        arrived.send(left).expect("the test listens");
        async { std::future::pending().await }
    });
    (service, arrivals)
}

/// Answers what the test says, when it says it.
fn prompted() -> (TestService, broadcast::Sender<&'static str>) {
    let (prompt, _) = broadcast::channel::<&str>(4);
    let prompts = prompt.clone();
    let service = TestService::new(move |_, _| {
        let said = stream::unfold(prompts.subscribe(), |mut prompts| async {
            Some((Ok(prompts.recv().await.ok()?.to_owned()), prompts))
        });
        async { Ok(Box::pin(said) as Texts) }
    });
    (service, prompt)
}

fn within(limit: Duration) -> CallContext {
    CallContext::root(Principal::anonymous()).with_deadline(Some(Instant::now() + limit))
}

#[tokio::test]
async fn the_server_has_a_deadline_for_clients_that_have_none() {
    let (service, mut arrivals) = silent();
    let config = Config::default();
    let default = Duration::from_millis(config.deadline_default_ms);
    let served = serve(config, service).await;
    let calling = mesh::spawn(async move { plain(served.address).unary("Put", "").await });
    assert!(arrivals.recv().await.unwrap().unwrap() <= default);
    elapse(default).await;
    let status = calling.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
}

#[tokio::test]
async fn the_server_ends_a_stream_by_itself_with_trailers() {
    let (service, prompt) = prompted();
    let served = serve(Config::default(), service).await;
    // Plain tonic's client enforces nothing here: its timer ends with the headers.
    let mut request = Request::new(stream::iter([String::new()]));
    request.set_timeout(DEADLINE);
    let mut answers = plain(served.address).open("Export", request).await.unwrap();
    prompt.send("in time").unwrap();
    assert_eq!(answers.next().await.unwrap().unwrap(), "in time");
    elapse(DEADLINE).await;
    let status = timeout(PATIENCE, answers.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
}

/// A front service whose every call goes to `back`.
async fn front_of(back: &Served) -> Served {
    let back = back.client();
    let forward = TestService::new(move |method, _| {
        let back = back.clone();
        async move { back.unary(&method, "").await.map(one) }
    });
    serve(Config::default(), forward).await
}

#[tokio::test]
async fn a_deadline_crosses_two_hops() {
    let (service, mut arrivals) = silent();
    let back = serve(Config::default(), service).await;
    let front = front_of(&back).await;
    let client = front.client();
    let calling = mesh::spawn(within(DEADLINE).scope(async move { client.unary("Put", "").await }));
    let left = arrivals.recv().await.unwrap().unwrap();
    assert!(left <= DEADLINE, "the far end was given {left:?}");
    elapse(DEADLINE).await;
    let status = timeout(PATIENCE, calling)
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
}

#[tokio::test]
async fn a_spawned_call_ends_with_its_caller_and_a_detached_one_finishes() {
    let (service, mut arrivals) = silent();
    let back = serve(Config::default(), service).await;
    let client = back.client();
    let (done, mut outcomes) = mpsc::unbounded_channel();
    let (release, _) = broadcast::channel::<()>(1);
    let released = release.clone();
    let service = TestService::new(move |_, _| {
        let (client, spawned, detached) = (client.clone(), done.clone(), done.clone());
        let mut released = released.subscribe();
        async move {
            mesh::spawn(async move {
                let status = client.unary("Put", "").await.unwrap_err();
                spawned.send(("spawned", status.code())).unwrap();
            });
            let detached = mesh::detach(async move {
                released.recv().await.unwrap();
                assert_eq!(CallContext::current().deadline(), None);
                detached.send(("detached", Code::Ok)).unwrap();
            });
            #[expect(clippy::disallowed_methods, reason = "detach has said what is carried")]
            drop(tokio::spawn(detached));
            std::future::pending().await
        }
    });
    let front = serve(Config::default(), service).await;
    let client = front.client();
    let calling = mesh::spawn(within(DEADLINE).scope(async move { client.unary("Put", "").await }));
    arrivals.recv().await.unwrap();
    elapse(DEADLINE).await;
    let status = timeout(PATIENCE, calling)
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    let (what, code) = timeout(PATIENCE, outcomes.recv()).await.unwrap().unwrap();
    // Its own deadline and the end of its caller come at the same moment; either may be first.
    assert_eq!(what, "spawned");
    assert!(
        matches!(code, Code::DeadlineExceeded | Code::Cancelled),
        "{code:?}"
    );
    release.send(()).unwrap();
    let detached = timeout(PATIENCE, outcomes.recv()).await.unwrap().unwrap();
    assert_eq!(detached, ("detached", Code::Ok));
}
