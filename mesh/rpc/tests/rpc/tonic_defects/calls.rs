//! Deadlines, and what a broken call is told.

use std::{net::SocketAddr, time::Duration};

use futures_util::{StreamExt as _, stream};
use h2::Reason;
use tokio::{
    net::{TcpSocket, TcpStream},
    sync::{broadcast, mpsc},
    time::timeout,
};
use tonic::{Code, Request};

use crate::support::{
    PATIENCE, TestService, Texts,
    by_hand::{Ending, by_hand},
    elapse,
    kinds::{Kind, Terms},
};

/// Enough for a call to arrive on a busy machine, less than any default of the mesh.
const DEADLINE: Duration = Duration::from_secs(9);

fn asking<T>(request: T) -> Request<T> {
    let mut request = Request::new(request);
    request.set_timeout(DEADLINE);
    request
}

#[tokio::test]
async fn an_expired_call_is_told_so() {
    for (kind, code) in [
        (Kind::Plain, Code::Cancelled),
        (Kind::Mesh, Code::DeadlineExceeded),
    ] {
        let (arrived, mut arrivals) = mpsc::unbounded_channel();
        let silent = TestService::new(move |_, _| {
            arrived.send(()).unwrap();
            std::future::pending()
        });
        let served = Kind::Plain.serve(silent, Terms::default()).await;
        let client = kind.client(&[served.address]);
        let calling = mesh::spawn(async move { client.ask("Put", asking(String::new())).await });
        arrivals.recv().await.unwrap();
        elapse(DEADLINE).await;
        let status = calling.await.unwrap().unwrap_err();
        assert_eq!(status.code(), code, "{kind:?}: {status}");
    }
}

/// Where nobody listens and nobody refuses: a listener whose backlog is full, for as long as what is returned lives.
async fn blackhole() -> (SocketAddr, impl Sized) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut held = Vec::new();
    let quick = Duration::from_millis(300);
    while let Ok(connected) = timeout(quick, TcpStream::connect(address)).await {
        held.push(connected.unwrap());
    }
    (address, (listener, held))
}

#[tokio::test]
async fn a_deadline_covers_connecting() {
    for (kind, ends) in [(Kind::Plain, false), (Kind::Mesh, true)] {
        let (address, _held) = blackhole().await;
        let client = kind.client(&[address]);
        let calling = mesh::spawn(async move { client.ask("Put", asking(String::new())).await });
        let mut calling = std::pin::pin!(calling);
        tokio::task::yield_now().await;
        elapse(2 * DEADLINE).await;
        // What does not end can only be waited for so long.
        let patience = if ends {
            PATIENCE
        } else {
            Duration::from_millis(200)
        };
        let ended = timeout(patience, &mut calling).await;
        assert_eq!(ended.is_ok(), ends, "{kind:?}");
        if let Ok(ended) = ended {
            let status = ended.unwrap().unwrap_err();
            assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
        }
    }
}

#[tokio::test]
async fn a_deadline_covers_the_whole_stream() {
    for (kind, told) in [
        (Kind::Plain, Ok("too late")),
        (Kind::Mesh, Err(Code::DeadlineExceeded)),
    ] {
        let (prompt, _) = broadcast::channel::<&str>(4);
        let prompts = prompt.clone();
        let prompted = TestService::new(move |_, _| {
            let said = stream::unfold(prompts.subscribe(), |mut prompts| async {
                Some((Ok(prompts.recv().await.ok()?.to_owned()), prompts))
            });
            async { Ok(Box::pin(said) as Texts) }
        });
        let served = kind.serve(prompted, Terms::default()).await;
        let client = kind.client(&[served.address]);
        let request = asking(stream::iter([String::new()]));
        let mut answers = client.open("Export", request).await.unwrap();
        prompt.send("in time").unwrap();
        assert_eq!(answers.next().await.unwrap().unwrap(), "in time");
        elapse(2 * DEADLINE).await;
        // Nobody may be there any more to be prompted.
        let _ = prompt.send("too late");
        let next = timeout(PATIENCE, answers.next()).await.unwrap().unwrap();
        let next = next.as_deref().map_err(tonic::Status::code);
        assert_eq!(next, told, "{kind:?}");
    }
}

#[tokio::test]
async fn a_connection_that_breaks_is_unavailable() {
    let mut codes = Vec::new();
    for kind in [Kind::Plain, Kind::Mesh] {
        for ending in [Ending::Break, Ending::Reset(Reason::CANCEL)] {
            let (address, _) = by_hand(move |_| ending).await;
            let status = kind.client(&[address]).unary("Post", "").await.unwrap_err();
            println!("{kind:?}: {ending:?} is {status}");
            codes.push((kind, status.code() == Code::Unavailable));
        }
    }
    let (plain, mesh): (Vec<_>, Vec<_>) = codes.iter().partition(|(kind, _)| *kind == Kind::Plain);
    assert!(!plain.iter().all(|(_, unavailable)| *unavailable));
    assert!(mesh.iter().all(|(_, unavailable)| *unavailable));
}
