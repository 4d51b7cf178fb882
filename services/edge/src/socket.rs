//! A server stream over a WebSocket: one text message for each message of the stream.
//!
//! What the client sends is not read beyond control frames; closing the socket cancels the call.

use axum::{
    extract::{
        FromRequestParts as _,
        ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code},
    },
    response::Response,
};
use bytes::Bytes;
use http::{StatusCode, header, request::Parts};
use tonic::Code;

use crate::{
    download::{Next, Stream},
    error::Refusal,
};

/// The longest message that a client may send, in bytes: there is nothing to say.
const MESSAGE_BYTES_MAX: usize = 4096;

/// The upgrade, if the request asks for one.
pub(crate) async fn requested(parts: &mut Parts) -> Result<Option<WebSocketUpgrade>, Refusal> {
    let asks = parts
        .headers
        .get(header::UPGRADE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.eq_ignore_ascii_case("websocket"));
    if !asks {
        return Ok(None);
    }
    let upgrade = WebSocketUpgrade::from_request_parts(parts, &())
        .await
        .map_err(|rejection| {
            let http = StatusCode::BAD_REQUEST;
            let message = format!("WebSocket: {rejection}");
            Refusal::new(http, Code::InvalidArgument, "INVALID_UPGRADE", message)
        })?;
    Ok(Some(
        upgrade
            .max_message_size(MESSAGE_BYTES_MAX)
            .max_frame_size(MESSAGE_BYTES_MAX),
    ))
}

/// Switches protocols; the stream goes on in a task of its own.
pub(crate) fn answer(upgrade: WebSocketUpgrade, stream: Stream) -> Response {
    let token = stream.app().sockets.token();
    upgrade.on_upgrade(move |socket| async move {
        forward(socket, stream).await;
        drop(token);
    })
}

async fn forward(mut socket: WebSocket, mut stream: Stream) {
    loop {
        let sent = tokio::select! {
            incoming = socket.recv() => match incoming {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => continue,
            },
            next = stream.next() => match next {
                Next::Message { json, .. } => socket.send(Message::Text(json.into())).await,
                Next::Idle => socket.send(Message::Ping(Bytes::new())).await,
                Next::Failed(status) => {
                    let text = serde_json::json!({"error": status}).to_string();
                    let _ = socket.send(Message::Text(text.into())).await;
                    return close(socket, close_code::ERROR, "the stream failed").await;
                }
                Next::End if stream.app().draining.is_cancelled() => {
                    return close(socket, close_code::RESTART, "shutting down").await;
                }
                Next::End => return close(socket, close_code::NORMAL, "").await,
            },
        };
        if sent.is_err() {
            return;
        }
    }
}

async fn close(mut socket: WebSocket, code: u16, reason: &'static str) {
    // The client may be gone already; there is nobody left to tell.
    let _ = socket
        .send(Message::Close(Some(CloseFrame {
            code,
            reason: reason.into(),
        })))
        .await;
}
