//! Who and why travels with a call; so does the news that the caller has gone.

use futures_util::{StreamExt as _, stream};
use mesh::{CallContext, Config, Criticality, Principal};
use tokio::{sync::mpsc, time::timeout};

use crate::support::{PATIENCE, TestClient, TestService, Texts, drain, mesh_calling, one, serve};

/// Sends its message when it is dropped: a handler or stream that has ended.
struct Ended(mpsc::UnboundedSender<&'static str>, &'static str);

impl Drop for Ended {
    fn drop(&mut self) {
        // A test that no longer listens has seen what it wanted.
        let _ = self.0.send(self.1);
    }
}

fn describe(context: &CallContext) -> String {
    let principal = context.principal();
    format!(
        "{} {} {} {} {}",
        principal.name(),
        principal.has_scope("operator"),
        context.request_id().unwrap_or("-"),
        context.criticality(),
        context.trace_id(),
    )
}

#[tokio::test]
async fn the_context_arrives_in_the_handler_in_its_stream_and_at_the_next_hop() {
    let back = serve(
        Config::default(),
        TestService::new(|_, _| async { Ok(one(describe(&CallContext::current()))) }),
    )
    .await;
    let back = TestClient(mesh_calling(back.address).client("test"));
    let front = serve(
        Config::default(),
        TestService::new(move |_, _| {
            let back = back.clone();
            async move {
                let here = describe(&CallContext::current());
                let there = back.unary("Put", "").await?;
                // Polled when the handler has returned long since.
                let later = stream::once(async { Ok(describe(&CallContext::current())) });
                Ok(Box::pin(stream::iter([Ok(here), Ok(there)]).chain(later)) as Texts)
            }
        }),
    )
    .await;
    let caller = CallContext::root(Principal::new("상점, main", ["operator"]))
        .with_request_id("req-1")
        .with_criticality(Criticality::Sheddable);
    let expected = describe(&caller);
    let client = front.client();
    let (seen, outcome) = caller
        .scope(async { drain(client.watch("Watch", "").await.unwrap()).await })
        .await;
    outcome.unwrap();
    assert_eq!(seen, [expected.clone(), expected.clone(), expected]);

    let (seen, _) = drain(front.client().watch("Watch", "").await.unwrap()).await;
    assert!(
        seen[0].starts_with("anonymous false - critical "),
        "{seen:?}"
    );
    assert!(
        seen[1].starts_with("anonymous false - critical "),
        "never raised: {seen:?}"
    );
}

#[tokio::test]
async fn a_request_stream_is_read_in_the_callers_context() {
    let served = serve(
        Config::default(),
        TestService::new(|_, requests| async move { Ok(one(drain(requests).await.0.join(","))) }),
    )
    .await;
    let client = served.client();
    let caller = CallContext::root(Principal::new("importer", ["operator"]));
    let names =
        stream::iter(0..2).then(|_| async { CallContext::current().principal().name().to_owned() });
    let answer = caller.scope(async { drain(client.stream("Import", names).await.unwrap()).await });
    assert_eq!(answer.await.0, ["importer,importer"]);
}

#[tokio::test]
async fn a_caller_that_goes_away_ends_the_handler_and_tells_its_tasks() {
    let (events, mut ended) = mpsc::unbounded_channel();
    let served = serve(
        Config::default(),
        TestService::new(move |_, _| {
            let events = events.clone();
            async move {
                let told = events.clone();
                let context = CallContext::current();
                mesh::spawn(async move {
                    context.cancelled().await;
                    told.send("task told").unwrap();
                });
                let _ended = Ended(events.clone(), "handler dropped");
                events.send("handler running").unwrap();
                std::future::pending().await
            }
        }),
    )
    .await;
    let client = served.client();
    let calling = mesh::spawn(async move { client.unary("Read", "").await });
    assert_eq!(ended.recv().await, Some("handler running"));
    calling.abort();
    let mut seen = Vec::new();
    for _ in 0..2 {
        seen.push(timeout(PATIENCE, ended.recv()).await.unwrap().unwrap());
    }
    seen.sort_unstable();
    assert_eq!(seen, ["handler dropped", "task told"]);
}

#[tokio::test]
async fn a_caller_that_drops_its_stream_ends_it_at_the_server() {
    let (events, mut ended) = mpsc::unbounded_channel();
    let served = serve(
        Config::default(),
        TestService::new(move |_, _| {
            let guard = Ended(events.clone(), "stream dropped");
            async move {
                let silence = stream::once(async move {
                    let _guard = guard;
                    std::future::pending().await
                });
                Ok(Box::pin(stream::iter([Ok("first".to_owned())]).chain(silence)) as Texts)
            }
        }),
    )
    .await;
    let mut answers = served.client().watch("Watch", "").await.unwrap();
    assert_eq!(answers.next().await.unwrap().unwrap(), "first");
    drop(answers);
    assert_eq!(
        timeout(PATIENCE, ended.recv()).await.unwrap(),
        Some("stream dropped")
    );
}

#[tokio::test]
async fn a_call_that_ends_in_good_order_cancels_nothing() {
    let (events, mut contexts) = mpsc::unbounded_channel();
    let served = serve(
        Config::default(),
        TestService::new(move |method, _| {
            events.send(CallContext::current()).unwrap();
            async move {
                if method == "Post" {
                    return Err(tonic::Status::not_found("no such thing"));
                }
                Ok(one("done"))
            }
        }),
    )
    .await;
    let client = served.client();
    assert_eq!(client.unary("Read", "").await.unwrap(), "done");
    client.unary("Post", "").await.unwrap_err();
    served.shutdown.cancel();
    served.serving.await.unwrap().unwrap();
    for _ in 0..2 {
        let context = contexts.recv().await.unwrap();
        let cancelled = futures_util::poll!(std::pin::pin!(context.cancelled()));
        assert!(cancelled.is_pending());
    }
}
