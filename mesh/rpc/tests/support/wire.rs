//! A client that speaks HTTP/2 by hand, for what no client of gRPC would do.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use tokio::net::TcpStream;

/// A message of one text, as gRPC sends it.
pub(crate) fn message(text: &str) -> Bytes {
    let length = u8::try_from(text.len()).expect("a short text");
    let mut message = vec![0, 0, 0, 0, length + 2, 0x0a, length];
    message.extend_from_slice(text.as_bytes());
    Bytes::from(message)
}

/// A connection whose streams may each have `window` bytes in flight towards the client.
pub(crate) async fn connect(address: SocketAddr, window: u32) -> SendRequest<Bytes> {
    let socket = TcpStream::connect(address)
        .await
        .expect("the server listens");
    let (sender, connection) = h2::client::Builder::new()
        .initial_window_size(window)
        .initial_connection_window_size(1 << 20)
        .handshake(socket)
        .await
        .expect("the server speaks HTTP/2");
    mesh::spawn(async move {
        let _ = connection.await; // However it ends.
    });
    sender
}

/// Begins a call of `mesh.test.v1.TestService`; its request stays open.
pub(crate) async fn begin(
    sender: &SendRequest<Bytes>,
    method: &str,
) -> (ResponseFuture, h2::SendStream<Bytes>) {
    let request = http::Request::post(format!("http://test/mesh.test.v1.TestService/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .expect("a valid request");
    let sender = sender.clone().ready().await;
    let mut sender = sender.expect("the connection is open");
    sender
        .send_request(request, false)
        .expect("the connection is open")
}
