//! One HTTP/2 connection of a server, on the `h2` crate itself: it takes calls in, begins them
//! (`begin.rs`), and ends in good order.
//!
//! On hyper, nothing could be sent between a connection's life and its calls, and a call's task would be
//! two futures deeper; the client has reasons of its own (`client/connection.rs`).
//!
//! Deliberately without: push, CONNECT, upgrades, adaptive windows.

use std::{future::poll_fn, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use h2::{Reason, server};
use mesh_identity::PeerIdentity;
use tokio::{
    net::TcpStream,
    task::coop::{consume_budget, unconstrained},
    time::{Instant, timeout_at},
};
use tonic::{
    codegen::StdError as BoxError,
    transport::server::{Connected as _, TcpConnectInfo},
};

use super::{
    ServerStack,
    begin::Begin,
    call,
    connection_metrics::ConnectionMetrics,
    drain::{Closing, Drain},
    heard::Heard,
    hush::Hush,
    life::{Activity, Event, Life, Why},
    peer::Peer,
};
use crate::{Config, identities::Identities};

/// How much of a response may wait for the peer's flow control, in bytes, beside one frame of its body.
const SEND_BUFFER_BYTES_MAX: usize = 256 << 10;

/// What every connection of a server is served by.
pub(crate) struct Terms {
    stack: Arc<ServerStack>,
    pub(crate) drain: Drain,
    pub(crate) metrics: ConnectionMetrics,
    config: Arc<Config>,
    identities: Arc<Identities>,
    http2: server::Builder,
}

impl Terms {
    pub(crate) fn new(
        stack: ServerStack,
        config: Arc<Config>,
        identities: Arc<Identities>,
        drain: &Drain,
        metrics: &ConnectionMetrics,
    ) -> Self {
        let mut http2 = server::Builder::new();
        http2
            .max_concurrent_streams(config.server.streams_max)
            .max_header_list_size(config.header_bytes_max)
            .initial_window_size(config.stream_window_bytes)
            .initial_connection_window_size(config.connection_window_bytes)
            .max_send_buffer_size(SEND_BUFFER_BYTES_MAX);
        Self {
            stack: Arc::new(stack),
            drain: drain.clone(),
            metrics: metrics.clone(),
            config,
            identities,
            http2,
        }
    }

    /// Serves a connection that was just accepted until it ends. An error says why it did not end in
    /// good order; a handshake that fails has been logged.
    pub(crate) async fn serve(&self, stream: TcpStream) -> Result<(), BoxError> {
        let patience = Duration::from_millis(self.config.server.handshake_timeout_ms);
        let deadline = Instant::now() + patience;
        let closing = Closing::new(&self.drain);
        stream.set_nodelay(true)?;
        let connected = stream.connect_info();
        let activity = Activity::begin();
        let shaking = async {
            let accepted = self.identities.acceptor.accept(stream, patience).await;
            let accepted = accepted
                .inspect_err(|error| self.metrics.handshake_failed(error.reason.reason()))?;
            let stream = Heard::new(accepted.stream, activity.heard.clone());
            let shaken = timeout_at(deadline, self.http2.handshake::<_, Bytes>(stream)).await;
            let shaken = shaken.inspect_err(|_| self.metrics.handshake_failed("timed_out"));
            let io = shaken.map_err(|_| "nothing that looks like HTTP/2 was said in time")?;
            let io = io.inspect_err(|_| self.metrics.handshake_failed("http2"))?;
            Ok::<_, BoxError>((io, accepted.peer, accepted.guard))
        };
        let (mut io, proven, guard) = tokio::select! {
            shaken = shaking => shaken?,
            // Nothing was asked yet, so nothing is lost.
            () = closing.begun() => return Ok(()),
        };
        let mut open = self.metrics.opened();
        let peer = self.peer(&connected, proven);
        let pings = io.ping_pong();
        let mut life = Life::begin(
            &self.config,
            &self.drain,
            closing.clone(),
            activity.clone(),
            pings,
            guard,
        );
        let mut left_for = None;
        let (mut came, hush) = (Begin::new(), Hush::new());
        loop {
            let mut next = pin!(unconstrained(life.next()));
            let event = loop {
                // Calls first; but whatever comes of them, the connection's own life has its turn.
                tokio::select! {
                    biased;
                    accepted = poll_fn(|cx| hush.poll(cx, |cx| io.poll_accept(cx))), if came.has_room() => {
                        let Some(accepted) = accepted else {
                            open.reason = left_for.map_or("peer", Why::name);
                            return Ok(());
                        };
                        let (mut request, mut respond) = accepted?;
                        if left_for == Some(Why::Distrust) {
                            respond.send_reset(Reason::REFUSED_STREAM);
                            continue;
                        }
                        let extensions = request.extensions_mut();
                        extensions.insert(connected.clone()); // tonic's `Request::remote_addr`
                        extensions.insert(peer.clone());
                        extensions.insert(closing.clone());
                        came.add((request, respond, activity.call()));
                    }
                    event = &mut next => break event,
                    // Their answers leave with the next look at the socket.
                    () = consume_budget(), if !came.is_empty() => {
                        let serve = |(request, respond, in_flight)| {
                            call::serve(request, respond, self.stack.clone(), in_flight)
                        };
                        hush.during(|| came.half(&self.drain.tasks, serve));
                    }
                }
            };
            match event {
                Event::Leave(why) => {
                    tracing::debug!(reason = why.name(), "connection goes away");
                    io.graceful_shutdown();
                    // What was said first stays, unless the peer is not trusted any more.
                    if left_for.is_none() || why == Why::Distrust {
                        left_for = Some(why);
                    }
                }
                Event::Cut(why) => closing.cut(why),
                Event::Close(why) => {
                    open.reason = why.name();
                    return Err(format!("cut off: {}", why.name()).into());
                }
            }
        }
    }

    fn peer(&self, connected: &TcpConnectInfo, proven: Option<PeerIdentity>) -> Peer {
        let id = proven.map(|peer| peer.id);
        let own = self.identities.own.as_ref();
        let own = own.map(mesh_identity::Identity::id);
        Peer {
            address: connected.remote_addr,
            here: connected.local_addr.map(|here| Arc::from(here.to_string())),
            is_foreign: id
                .as_ref()
                .is_some_and(|id| own.is_none_or(|own| own.trust_domain() != id.trust_domain())),
            id,
        }
    }
}
