//! One HTTP/2 connection, on the `h2` crate itself.
//!
//! A call locks the connection's state, writes its frames there and waits for its own stream: no queue
//! and no task stands between a call and its connection. (hyper's `SendRequest` is a queue to a task that
//! starts another task per call: read in its source.) A task of its own moves the bytes, notices GOAWAY
//! at once, sends keepalive pings and ends an idle connection.
//!
//! Deliberately without: push, CONNECT, upgrades, adaptive windows.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::{Ping, PingPong, Reason, SendStream, client};
use http::{Request, Response};
use http_body::{Body as _, Frame};
use mesh_identity::{GuardEvent, PeerGuard};
use tokio::{
    sync::Notify,
    task::coop::unconstrained,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, body::Body};

use super::connect::{Opened, Stream};
use crate::{Config, UNTRUSTED_GRACE, context, incoming::Incoming};

/// The half that calls use.
pub(crate) struct Connection {
    sender: client::SendRequest<Bytes>,
    in_flight: AtomicUsize,
    streams_max: AtomicUsize,
    /// Something was received since the last look.
    heard: AtomicBool,
    /// A call was made since the last look.
    used: AtomicBool,
    /// An answer was received, ever.
    answered: AtomicBool,
    /// Takes no more calls.
    retired: AtomicBool,
    /// Wakes the task when the connection is retired or the last call on a retired one has ended.
    over: Notify,
}

/// The half that its task polls.
pub(crate) struct Driver {
    io: client::Connection<Box<dyn Stream>, Bytes>,
    pings: Option<PingPong>,
    guard: PeerGuard,
    /// When what is left is cut off, because the peer is not trusted any more or does not answer.
    cut_at: Option<Instant>,
    keepalive_interval: Duration,
    keepalive_timeout: Duration,
    idle: Duration,
}

/// Why a call brought no answer.
pub(crate) struct Broken {
    pub(crate) error: Trouble,
    /// Not a byte of the request was written, and its owner still has it.
    pub(crate) unsent: bool,
}

pub(crate) enum Trouble {
    Http2(h2::Error),
    /// The request's own body failed.
    Body(Status),
}

impl Trouble {
    /// Whether the peer went away, with nothing to complain about, before it has processed the request (RFC 9113, section
    /// 6.8): h2 says GOAWAY of a stream only where its number is above the last one that the peer names.
    pub(crate) fn is_unprocessed(&self) -> bool {
        matches!(self, Self::Http2(error) if is_farewell(error))
    }

    /// Whether this end gave the stream up, as it does where a request's body fails.
    pub(crate) fn is_own(&self) -> bool {
        match self {
            Self::Body(_) => true,
            Self::Http2(error) => is_own_reset(error),
        }
    }

    /// Whether the peer refused the request before any processing: its stream (RFC 9113, section 8.7), or with the whole
    /// connection. Then this request may be what it complains about, and ends the next connection as well.
    pub(crate) fn is_refused(&self) -> bool {
        let refused = Some(Reason::REFUSED_STREAM);
        self.is_goaway()
            || matches!(self, Self::Http2(error) if error.is_remote() && error.reason() == refused)
    }

    /// Whether the peer ended the connection, for whatever reason, before it has processed the request.
    pub(crate) fn is_goaway(&self) -> bool {
        matches!(self, Self::Http2(error) if error.is_remote() && error.is_go_away())
    }
}

/// Whether a stream was reset by this end, and not by h2 for what the peer did.
pub(crate) fn is_own_reset(error: &h2::Error) -> bool {
    error.is_reset() && !error.is_remote() && !error.is_library()
}

/// Shakes hands on a fresh byte stream, until the peer's settings are there: only then does somebody
/// speak HTTP/2 at the other end, and the number of streams is known.
pub(crate) async fn open(
    opened: Opened,
    config: &Config,
) -> Result<(Arc<Connection>, Driver), h2::Error> {
    let (sender, mut io) = client::Builder::new()
        .enable_push(false)
        .initial_max_send_streams(0)
        .initial_window_size(config.stream_window_bytes)
        .initial_connection_window_size(config.connection_window_bytes)
        .max_header_list_size(config.header_bytes_max)
        // Answers to calls that were given up come late. h2 takes those of streams that it has forgotten for errors of the
        // peer, and would end the connection with the 1,025th.
        .max_local_error_reset_streams(None)
        .handshake(opened.stream)
        .await?;
    let streams_max = poll_fn(|cx| {
        if let Poll::Ready(ended) = Pin::new(&mut io).poll(cx) {
            return Poll::Ready(Err(ended.err().unwrap_or(Reason::NO_ERROR.into())));
        }
        match sender.current_max_send_streams() {
            0 => Poll::Pending,
            streams_max => Poll::Ready(Ok(streams_max)),
        }
    })
    .await?;
    let connection = Connection {
        sender,
        in_flight: AtomicUsize::new(0),
        streams_max: AtomicUsize::new(streams_max),
        heard: AtomicBool::new(false),
        used: AtomicBool::new(true),
        answered: AtomicBool::new(false),
        retired: AtomicBool::new(false),
        over: Notify::new(),
    };
    let driver = Driver {
        pings: io.ping_pong(),
        io,
        guard: opened.guard,
        cut_at: None,
        keepalive_interval: config.keepalive_interval(),
        keepalive_timeout: config.keepalive_timeout(),
        idle: Duration::from_millis(config.client.pool.idle_ms),
    };
    Ok((Arc::new(connection), driver))
}

impl Connection {
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    pub(crate) fn streams_max(&self) -> usize {
        self.streams_max.load(Relaxed)
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.retired.load(Relaxed)
    }

    pub(crate) fn has_answered(&self) -> bool {
        self.answered.load(Relaxed)
    }

    /// Takes no more calls; ends when those in flight have.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Relaxed);
        self.over.notify_one();
    }

    /// Counts a call for as long as the lease lives.
    pub(crate) fn lease(self: &Arc<Self>) -> Lease {
        self.in_flight.fetch_add(1, Relaxed);
        if !self.used.load(Relaxed) {
            self.used.store(true, Relaxed);
        }
        Lease(self.clone())
    }

    fn hear(&self) {
        if !self.heard.load(Relaxed) {
            self.heard.store(true, Relaxed);
        }
    }
}

/// A call's place on a connection.
pub(crate) struct Lease(Arc<Connection>);

impl Drop for Lease {
    fn drop(&mut self) {
        let connection = &self.0;
        if connection.in_flight.fetch_sub(1, Relaxed) == 1 && !connection.is_open() {
            connection.over.notify_one();
        }
    }
}

impl Lease {
    /// Takes the request when it can be sent, and waits for the answer's headers. Dropped before, it resets the stream.
    pub(crate) async fn call(
        &self,
        request: &mut Option<Request<Body>>,
    ) -> Result<(Response<()>, Received), Broken> {
        let mut sender = self.0.sender.clone();
        if let Err(error) = poll_fn(|cx| sender.poll_ready(cx)).await {
            return Err(Broken {
                error: Trouble::Http2(error),
                unsent: true,
            });
        }
        let broken = |error| Broken {
            error,
            unsent: false,
        };
        let request = request.take().expect("an attempt has its request");
        let (parts, body) = request.into_parts();
        let empty = body.is_end_stream();
        let (answer, stream) = sender
            .send_request(Request::from_parts(parts, ()), empty)
            .map_err(|error| broken(Trouble::Http2(error)))?;
        let pumping = if empty {
            None
        } else {
            start_pump(body, stream)
                .await
                .map_err(|status| broken(Trouble::Body(status)))?
        };
        let answer = answer.await;
        // A reset is an answer too, if not to the call.
        let is_heard = |error: &h2::Error| error.is_remote() && error.is_reset();
        if answer.as_ref().map_or_else(is_heard, |_| true) {
            self.0.hear();
            if !self.0.answered.load(Relaxed) {
                self.0.answered.store(true, Relaxed);
            }
        }
        let answer = answer.map_err(|error| broken(Trouble::Http2(error)))?;
        let (parts, stream) = answer.into_parts();
        let received = Received {
            incoming: Incoming::new(stream),
            _pumping: pumping,
        };
        Ok((Response::from_parts(parts, ()), received))
    }

    pub(crate) fn hear(&self) {
        self.0.hear();
    }
}

/// Sends what is ready at once, as a unary request is; a task sends the rest, and ends when the handle
/// is dropped.
async fn start_pump(
    body: Body,
    stream: SendStream<Bytes>,
) -> Result<Option<AbortOnDropHandle<()>>, Status> {
    let mut pump = Pump {
        body,
        stream,
        begun: false,
        ended: false,
    };
    match futures_util::poll!(&mut pump) {
        Poll::Ready(sent) => sent.map(|()| None),
        Poll::Pending => Ok(Some(context::spawn_apart(async {
            // The stream was reset with it: the answer says so.
            let _ = pump.await;
        }))),
    }
}

/// Moves a request's body into its stream, one frame ahead of the peer's flow control. Dropped before its end, it
/// resets the stream as an error: servers on hyper take a CANCEL for the end of the request, so that half an upload
/// would look like a whole one.
struct Pump {
    body: Body,
    stream: SendStream<Bytes>,
    begun: bool,
    ended: bool,
}

impl Drop for Pump {
    fn drop(&mut self) {
        if !self.ended {
            self.stream.send_reset(Reason::INTERNAL_ERROR);
        }
    }
}

impl Future for Pump {
    type Output = Result<(), Status>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self {
            body,
            stream,
            begun,
            ended,
        } = self.get_mut();
        loop {
            // What has been begun waits until the peer has room; the first frame is buffered.
            if *begun {
                if stream.poll_reset(cx).is_ready() {
                    return Poll::Ready(Ok(())); // The answer tells why.
                }
                stream.reserve_capacity(1);
                while stream.capacity() == 0 {
                    match ready!(stream.poll_capacity(cx)) {
                        Some(Ok(_)) => {}
                        Some(Err(_)) | None => return Poll::Ready(Ok(())),
                    }
                }
            }
            let (data, last) = match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => (data, body.is_end_stream()),
                    Err(_) => continue, // Requests have no trailers in gRPC.
                },
                None => (Bytes::new(), true),
                Some(Err(status)) => return Poll::Ready(Err(status)),
            };
            *begun = true;
            *ended = last;
            if stream.send_data(data, last).is_err() || last {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

/// An answer's body. Dropped before its end, it resets the stream.
pub(crate) struct Received {
    incoming: Incoming,
    /// The rest of the request, which is of no use without an answer.
    _pumping: Option<AbortOnDropHandle<()>>,
}

impl Received {
    pub(crate) fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        self.incoming.poll_frame(cx)
    }
}

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The peer goes away, and says so without an error: it takes no more calls.
    Left,
    /// The connection is broken.
    Lost,
    /// It was not needed any more.
    Idle,
    /// A certificate of either end runs out before long, or the peer is not trusted any more: another
    /// connection takes over.
    Stale,
    /// Nobody holds it any more.
    Retired,
}

impl Driver {
    /// Moves bytes until the connection takes no more calls.
    pub(crate) async fn run(&mut self, connection: &Connection) -> End {
        let mut probe = connection.sender.clone();
        let mut silent = Duration::ZERO;
        loop {
            let look = self.keepalive_interval.min(self.idle);
            tokio::select! {
                biased;
                end = lost(&mut self.io, &mut probe, connection) => return end,
                event = unconstrained(self.guard.event()) => {
                    self.cut_at = cut_at(&event);
                    return End::Stale;
                }
                () = connection.over.notified() => {
                    if !connection.is_open() {
                        return End::Retired;
                    }
                }
                () = sleep(look) => {
                    connection.streams_max.store(probe.current_max_send_streams(), Relaxed);
                    let used = connection.used.swap(false, Relaxed) || connection.in_flight() > 0;
                    silent = if used { Duration::ZERO } else { silent + look };
                    if silent >= self.idle {
                        return End::Idle;
                    }
                    let heard = connection.heard.swap(false, Relaxed);
                    if connection.in_flight() > 0 && !heard && self.is_silent(connection).await {
                        self.cut_at = Some(Instant::now()); // What is left has waited long enough.
                        return End::Lost;
                    }
                }
            }
        }
    }

    /// Moves bytes until the calls in flight have ended, or their time on a connection to a peer that is
    /// not trusted any more or does not answer.
    pub(crate) async fn drain(&mut self, connection: &Connection) {
        let far = Instant::now(); // Never waited for: without a moment there is no branch.
        while connection.in_flight() > 0 {
            tokio::select! {
                _ = &mut self.io => return,
                () = connection.over.notified() => {}
                event = self.guard.event(), if self.cut_at.is_none() => self.cut_at = cut_at(&event),
                () = sleep_until(self.cut_at.unwrap_or(far)), if self.cut_at.is_some() => return,
                () = sleep(self.keepalive_interval) => {
                    let heard = connection.heard.swap(false, Relaxed);
                    if !heard && self.is_silent(connection).await {
                        return;
                    }
                }
            }
        }
    }

    /// Whether a ping brings nothing to hear: its answer may stand behind much that is on its way, and whatever is received
    /// is a sign of life (gRFC A8).
    async fn is_silent(&mut self, connection: &Connection) -> bool {
        !self.answers_ping().await && !connection.heard.swap(false, Relaxed)
    }

    async fn answers_ping(&mut self) -> bool {
        let Self { io, pings, .. } = self;
        let Some(pings) = pings else {
            return true;
        };
        // h2 refuses a second ping while one is under way, which then is as good.
        let _ = pings.send_ping(Ping::opaque());
        let pong = async {
            tokio::select! {
                pong = poll_fn(|cx| pings.poll_pong(cx)) => pong.is_ok(),
                _ = io => false,
            }
        };
        timeout(self.keepalive_timeout, pong).await.unwrap_or(false)
    }
}

/// Resolves when the connection has ended or the peer has sent GOAWAY.
async fn lost(
    io: &mut client::Connection<Box<dyn Stream>, Bytes>,
    probe: &mut client::SendRequest<Bytes>,
    connection: &Connection,
) -> End {
    let mut stood_back = false;
    poll_fn(|cx| {
        // A call that has written its frames wakes this task, which would be next and send them
        // alone. Standing back once lets the calls that are ready as well write theirs first, where there
        // are others: a task that wakes itself also wakes a processor.
        stood_back = !stood_back && connection.in_flight() > 1;
        if stood_back {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let over = Pin::new(&mut *io).poll(cx).is_ready();
        match probe.poll_ready(cx) {
            Poll::Ready(Err(error)) if is_farewell(&error) => Poll::Ready(End::Left),
            Poll::Ready(Err(_)) => Poll::Ready(End::Lost),
            _ if over => Poll::Ready(End::Lost),
            _ => Poll::Pending,
        }
    })
    .await
}

/// Whether the peer has nothing to complain about.
fn is_farewell(error: &h2::Error) -> bool {
    error.is_remote() && error.is_go_away() && error.reason() == Some(Reason::NO_ERROR)
}

/// `None`: what is in flight may end by itself.
fn cut_at(event: &GuardEvent) -> Option<Instant> {
    match event {
        GuardEvent::Expiring => None,
        GuardEvent::Invalid(_) => Some(Instant::now() + UNTRUSTED_GRACE),
    }
}
