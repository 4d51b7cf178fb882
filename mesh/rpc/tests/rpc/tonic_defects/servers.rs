//! How connections and messages are limited, and how a server goes.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use tokio::{
    net::TcpStream,
    sync::{Semaphore, mpsc},
    time::timeout,
};
use tonic::Code;

use crate::support::{
    PATIENCE, TestService, Texts, elapse,
    kinds::{Kind, Terms},
    one, wire,
};

/// Over the default limit of either, 4 MiB.
const TOO_MUCH: usize = 5 << 20;

/// For what is expected not to happen.
const SHORT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn an_old_connection_is_told_to_go() {
    for (kind, is_told) in [(Kind::Plain, false), (Kind::Mesh, true)] {
        let (age, grace) = (Duration::from_secs(1000), Duration::from_secs(500));
        let (arrived, mut arrivals) = mpsc::unbounded_channel();
        let release = Arc::new(Semaphore::new(0));
        let released = release.clone();
        let held = TestService::new(move |_, _| {
            arrived.send(()).unwrap();
            let released = released.clone();
            async move {
                drop(released.acquire().await);
                Ok(one("done"))
            }
        });
        let terms = Terms {
            age_and_grace: Some((age, grace)),
        };
        let served = kind.serve(held, terms).await;
        let mut sender = wire::connect(served.address, 1 << 16).await;
        // A stream that has its own deadline of an hour, lest that ends it.
        let (answer, _request) = wire::begin(&sender, "Watch").await;
        arrivals.recv().await.unwrap();
        elapse(age * 6 / 5).await;
        let told = async {
            while poll_fn(|cx| sender.poll_ready(cx)).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let patience = if is_told { PATIENCE } else { SHORT };
        let told = timeout(patience, told).await;
        assert_eq!(told.is_ok(), is_told, "{kind:?}");
        if is_told {
            release.add_permits(1);
        } else {
            elapse(grace).await;
        }
        let answer = timeout(PATIENCE, answer).await.unwrap();
        assert_eq!(answer.is_ok(), is_told, "{kind:?}: what is in flight");
    }
}

#[tokio::test]
async fn streams_are_limited() {
    for (kind, limit) in [(Kind::Plain, usize::MAX), (Kind::Mesh, 1024)] {
        let service = TestService::new(|_, _| async { Ok(one("")) });
        let served = kind.serve(service, Terms::default()).await;
        let sender = wire::connect(served.address, 1 << 16).await;
        let (answer, _request) = wire::begin(&sender, "Put").await;
        answer.await.unwrap(); // The settings have come before it.
        assert_eq!(sender.current_max_send_streams(), limit, "{kind:?}");
    }
}

#[tokio::test]
async fn a_shutdown_has_a_bound() {
    for (kind, ends) in [(Kind::Plain, false), (Kind::Mesh, true)] {
        let endless = TestService::new(|_, _| async {
            let texts = stream::iter([Ok("first".to_owned())]).chain(stream::pending());
            Ok(Box::pin(texts) as Texts)
        });
        let served = kind.serve(endless, Terms::default()).await;
        let client = Kind::Plain.client(&[served.address]);
        let mut answers = client.watch("Export", "").await.unwrap();
        assert_eq!(answers.next().await.unwrap().unwrap(), "first");
        served.shutdown.cancel();
        let refused = async { while TcpStream::connect(served.address).await.is_ok() {} };
        timeout(PATIENCE, refused).await.unwrap();
        // More than the drain has, less than the stream.
        elapse(Duration::from_secs(30)).await;
        let patience = if ends { PATIENCE } else { SHORT };
        let ended = timeout(patience, served.serving).await;
        assert_eq!(ended.is_ok(), ends, "{kind:?}");
    }
}

/// Answers as many bytes as it is asked for, and counts.
fn sized() -> (TestService, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let service = TestService::new(move |_, mut requests| {
        counted.fetch_add(1, SeqCst);
        async move {
            let asked = requests.next().await.transpose()?.unwrap_or_default();
            Ok(one("x".repeat(asked.parse().unwrap_or_default())))
        }
    });
    (service, count)
}

#[tokio::test]
async fn a_message_over_the_limit_has_a_code_of_its_own() {
    for (kind, code) in [
        (Kind::Plain, Code::OutOfRange),
        (Kind::Mesh, Code::ResourceExhausted),
    ] {
        // Sent to a server, by a client that sends everything.
        let served = kind.serve(sized().0, Terms::default()).await;
        let client = Kind::Plain.client(&[served.address]);
        let status = client.unary("Put", &"x".repeat(TOO_MUCH)).await;
        assert_eq!(status.unwrap_err().code(), code, "{kind:?} as a server");
        // And sent back by a server that sends everything.
        let served = Kind::Plain.serve(sized().0, Terms::default()).await;
        let client = kind.client(&[served.address]);
        let status = client.unary("Put", &TOO_MUCH.to_string()).await;
        assert_eq!(status.unwrap_err().code(), code, "{kind:?} as a client");
    }
}

#[tokio::test]
async fn what_nobody_would_take_is_not_sent() {
    for (kind, arrives) in [(Kind::Plain, 1), (Kind::Mesh, 0)] {
        let (service, count) = sized();
        let served = Kind::Plain.serve(service, Terms::default()).await;
        let client = kind.client(&[served.address]);
        client.unary("Put", "1").await.unwrap();
        let status = client.unary("Put", &"x".repeat(TOO_MUCH)).await;
        status.unwrap_err();
        assert_eq!(count.load(SeqCst) - 1, arrives, "{kind:?}");
    }
}
