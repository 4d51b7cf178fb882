//! A TCP proxy that is the network on a bad day: it holds bytes up, cuts connections, and sends what a client
//! says to a second server connection as well, so that a request arrives twice.
//!
//! Deliberately without any protocol: it sees bytes. Doubling is for protocols in which the client speaks first
//! and a server ignores what it did not ask for, such as HTTP/1.1.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

const CHUNK_BYTES: usize = 16_384;

/// How a proxy behaves; probabilities from 0 to 1. The default passes everything on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manners {
    /// A chunk of bytes is held up.
    pub delay: f64,
    /// For at most this long.
    pub delay_max: Duration,
    /// Before a chunk is passed on, the connection is cut instead.
    pub cut: f64,
    /// A connection is doubled.
    pub double: f64,
}

/// What a proxy has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Connections that were taken.
    pub connections: u64,
    /// Chunks that were held up.
    pub delays: u64,
    /// Connections that were cut, by dice or by [`Proxy::cut_all`].
    pub cuts: u64,
    /// Connections that were doubled.
    pub doubled: u64,
}

/// A running proxy; gone with the value.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    _running: DropGuard,
}

struct Shared {
    targets: Vec<SocketAddr>,
    manners: Manners,
    calm: AtomicBool,
    random: Mutex<StdRng>,
    connections: AtomicU64,
    delays: AtomicU64,
    cuts: AtomicU64,
    doubled: AtomicU64,
    /// Cancelled to cut what is open; then another takes its place.
    open: Mutex<CancellationToken>,
}

impl Proxy {
    /// Listens on a free port and connects each client to one of the targets that answer.
    pub async fn start(targets: Vec<SocketAddr>, manners: Manners, seed: u64) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("there is a free port");
        let address = listener.local_addr().expect("it listens");
        let shared = Arc::new(Shared {
            targets,
            manners,
            calm: AtomicBool::new(false),
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            connections: AtomicU64::new(0),
            delays: AtomicU64::new(0),
            cuts: AtomicU64::new(0),
            doubled: AtomicU64::new(0),
            open: Mutex::default(),
        });
        let stop = CancellationToken::new();
        let serving = shared.clone().serve(listener);
        mesh::spawn(stop.clone().run_until_cancelled_owned(serving));
        Proxy {
            address,
            shared,
            _running: stop.drop_guard(),
        }
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts every connection that is open now.
    pub fn cut_all(&self) {
        self.shared.open().cancel();
    }

    /// From now on it passes everything on.
    pub fn calm(&self) {
        self.shared.calm.store(true, Ordering::Relaxed);
    }

    /// What it has done so far.
    pub fn done(&self) -> Done {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Done {
            connections: read(&self.shared.connections),
            delays: read(&self.shared.delays),
            cuts: read(&self.shared.cuts),
            doubled: read(&self.shared.doubled),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut_all();
    }
}

/// The connection is to be cut.
struct Cut;

impl Shared {
    async fn serve(self: Arc<Self>, listener: TcpListener) {
        loop {
            // Whatever is wrong with one client is not wrong with the next.
            if let Ok((client, _)) = listener.accept().await {
                mesh::spawn(self.clone().connection(client));
            }
        }
    }

    async fn connection(self: Arc<Self>, client: TcpStream) {
        let cut = self.open();
        let Some(server) = self.connect().await else {
            return; // Nobody is there: the client sees its connection end.
        };
        self.connections.fetch_add(1, Ordering::Relaxed);
        let double = if self.happens(self.manners.double) {
            TcpStream::connect(server.1).await.ok()
        } else {
            None
        };
        if double.is_some() {
            self.doubled.fetch_add(1, Ordering::Relaxed);
        }
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.0.into_split();
        let mut to = vec![to_server];
        if let Some(double) = double {
            let (mut answers, to_double) = double.into_split();
            to.push(to_double);
            mesh::spawn(async move { tokio::io::copy(&mut answers, &mut tokio::io::sink()).await });
        }
        let mut back = [to_client];
        let passing = async {
            tokio::select! {
                ended = self.pass(from_client, &mut to) => ended,
                ended = self.pass(from_server, &mut back) => ended,
            }
        };
        if !matches!(cut.run_until_cancelled(passing).await, Some(Ok(()))) {
            self.cuts.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A connection to the first target that answers, beginning anywhere.
    async fn connect(&self) -> Option<(TcpStream, SocketAddr)> {
        let first = self.random().random_range(0..self.targets.len());
        let (before, after) = self.targets.split_at(first);
        for target in after.iter().chain(before) {
            if let Ok(server) = TcpStream::connect(target).await {
                return Some((server, *target));
            }
        }
        None
    }

    /// Passes bytes on until either side ends.
    async fn pass<R, W>(&self, mut from: R, to: &mut [W]) -> Result<(), Cut>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let Ok(count @ 1..) = from.read(&mut chunk).await else {
                return Ok(());
            };
            if self.happens(self.manners.cut) {
                return Err(Cut);
            }
            if self.happens(self.manners.delay) {
                self.delays.fetch_add(1, Ordering::Relaxed);
                let part = self.random().random();
                tokio::time::sleep(self.manners.delay_max.mul_f64(part)).await;
            }
            // Only the first one counts: the double may end when it likes.
            for (index, to) in to.iter_mut().enumerate() {
                if to.write_all(&chunk[..count]).await.is_err() && index == 0 {
                    return Ok(());
                }
            }
        }
    }

    fn open(&self) -> CancellationToken {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.is_cancelled() {
            *open = CancellationToken::new();
        }
        open.clone()
    }

    fn happens(&self, probability: f64) -> bool {
        probability > 0.0
            && !self.calm.load(Ordering::Relaxed)
            && self.random().random::<f64>() < probability
    }

    fn random(&self) -> std::sync::MutexGuard<'_, StdRng> {
        self.random.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers each byte with itself and counts the connections on which it got any.
    async fn echo() -> (SocketAddr, Arc<AtomicU64>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::new(AtomicU64::new(0));
        let count = heard.clone();
        mesh::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let count = count.clone();
                mesh::spawn(async move {
                    let mut byte = [0];
                    while stream.read_exact(&mut byte).await.is_ok() {
                        count.fetch_add(1, Ordering::Relaxed);
                        stream.write_all(&byte).await.unwrap();
                    }
                });
            }
        });
        (address, heard)
    }

    async fn ask(stream: &mut TcpStream) -> std::io::Result<u8> {
        stream.write_all(b"a").await?;
        let mut byte = [0];
        stream.read_exact(&mut byte).await?;
        Ok(byte[0])
    }

    #[tokio::test]
    async fn without_manners_bytes_pass_and_a_cut_ends_them() {
        let (server, _) = echo().await;
        let proxy = Proxy::start(vec![server], Manners::default(), 1).await;
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(ask(&mut client).await.unwrap(), b'a');
        proxy.cut_all();
        assert!(ask(&mut client).await.is_err());
        let mut next = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(ask(&mut next).await.unwrap(), b'a');
        crate::eventually("the cut is counted", || async { proxy.done().cuts == 1 }).await;
    }

    #[tokio::test]
    async fn what_is_doubled_is_heard_twice_and_answered_once() {
        let (server, heard) = echo().await;
        let manners = Manners {
            double: 1.0,
            ..Manners::default()
        };
        let proxy = Proxy::start(vec![server], manners, 1).await;
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(ask(&mut client).await.unwrap(), b'a');
        let twice = || async { heard.load(Ordering::Relaxed) == 2 };
        crate::eventually("it is heard twice", twice).await;
        assert_eq!(ask(&mut client).await.unwrap(), b'a');
    }

    #[tokio::test]
    async fn another_target_answers_for_one_that_is_gone() {
        let (server, _) = echo().await;
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let nobody = gone.local_addr().unwrap();
        drop(gone);
        let proxy = Proxy::start(vec![nobody, server, nobody], Manners::default(), 1).await;
        for _ in 0..10 {
            let mut client = TcpStream::connect(proxy.address()).await.unwrap();
            assert_eq!(ask(&mut client).await.unwrap(), b'a');
        }
    }
}
