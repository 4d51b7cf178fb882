//! A server that speaks HTTP/2 by hand, for what no server of gRPC would do.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use bytes::Bytes;
use h2::Reason;
use tokio::{net::TcpListener, sync::mpsc};

/// How a server of our own ends a stream after it has read the whole request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Answer,
    Reset(Reason),
    /// The connection breaks.
    Break,
}

/// How often each message has arrived.
pub(crate) type Seen = Arc<Mutex<HashMap<Bytes, u32>>>;

/// Speaks HTTP/2 by hand: counts each message, and ends the nth stream of the server as told.
pub(crate) async fn by_hand(
    ending: impl Fn(usize) -> Ending + Clone + Send + 'static,
) -> (SocketAddr, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("loopback works");
    let address = listener.local_addr().expect("loopback works");
    let (seen, count) = (Seen::default(), Arc::new(AtomicUsize::new(0)));
    let noted = seen.clone();
    mesh::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.expect("loopback works");
            let (ending, seen, count) = (ending.clone(), noted.clone(), count.clone());
            mesh::spawn(async move {
                let mut connection = h2::server::handshake(socket).await.expect("loopback works");
                let (broken, mut breaking) = mpsc::channel(1);
                loop {
                    let accepted = tokio::select! {
                        accepted = connection.accept() => accepted,
                        _ = breaking.recv() => return,
                    };
                    let Some(Ok((request, respond))) = accepted else {
                        return;
                    };
                    let ending = ending(count.fetch_add(1, SeqCst));
                    let handling = handle(request, respond, ending, seen.clone(), broken.clone());
                    mesh::spawn(handling);
                }
            });
        }
    });
    (address, seen)
}

async fn handle(
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    ending: Ending,
    seen: Seen,
    broken: mpsc::Sender<()>,
) {
    if ending == Ending::Reset(Reason::REFUSED_STREAM) {
        return respond.send_reset(Reason::REFUSED_STREAM);
    }
    let mut body = request.into_body();
    let mut message = Vec::new();
    while let Some(Ok(chunk)) = body.data().await {
        message.extend_from_slice(&chunk);
    }
    *seen
        .lock()
        .expect("nobody panics with it")
        .entry(message.into())
        .or_default() += 1;
    match ending {
        Ending::Reset(reason) => respond.send_reset(reason),
        Ending::Break => broken.send(()).await.unwrap_or_default(),
        Ending::Answer => {
            let head = http::Response::builder().header("content-type", "application/grpc");
            let mut stream = respond
                .send_response(head.body(()).expect("loopback works"), false)
                .expect("loopback works");
            stream
                .send_data(Bytes::from_static(&[0; 5]), false)
                .expect("loopback works");
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().expect("loopback works"));
            stream.send_trailers(trailers).expect("loopback works");
        }
    }
}
