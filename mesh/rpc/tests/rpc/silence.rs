//! A peer that is there and says nothing any more, as behind a network that drops what it is given. How long that
//! takes to be noticed is tested in paused time, beside the client.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use futures_util::{StreamExt as _, stream};
use mesh::Config;
use prometheus::Registry;
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::support::{PATIENCE, TestClient, TestService, Texts, mesh_with, one, serve};

/// Forwards connections, until it is told to swallow what those say that it has.
#[derive(Clone)]
struct Cable {
    address: SocketAddr,
    swallows: Arc<Mutex<CancellationToken>>,
    connections: Arc<AtomicUsize>,
}

impl Cable {
    async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let cable = Self {
            address: listener.local_addr().unwrap(),
            swallows: Arc::default(),
            connections: Arc::default(),
        };
        let held = cable.clone();
        mesh::spawn(async move {
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                held.connections.fetch_add(1, SeqCst);
                let swallows = held.swallows.lock().unwrap().clone();
                mesh::spawn(async move {
                    let mut far = TcpStream::connect(server).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        // Both stay open.
                        () = swallows.cancelled() => std::future::pending().await,
                    }
                });
            }
        });
        cable
    }

    /// Nothing passes any more, but on connections that are made from now on.
    fn swallow(&self) {
        std::mem::take(&mut *self.swallows.lock().unwrap()).cancel();
    }
}

#[tokio::test]
async fn calls_leave_a_connection_that_has_fallen_silent() {
    let puts = Arc::new(AtomicUsize::new(0));
    let counted = puts.clone();
    let service = TestService::new(move |method, _| {
        let is_first = method == "Put" && counted.fetch_add(1, SeqCst) == 0;
        async move {
            match method.as_str() {
                "Watch" => {
                    let first = stream::iter([Ok("first".to_owned())]);
                    Ok(Box::pin(first.chain(stream::pending())) as Texts)
                }
                "Put" if is_first => std::future::pending().await,
                _ => Ok(one("fine")),
            }
        }
    });
    let served = serve(Config::default(), service).await;
    let cable = Cable::to(served.address).await;
    let mut config = Config {
        keepalive_interval_ms: 100,
        keepalive_timeout_ms: 1_000,
        deadline_default_ms: 3_600_000,
        ..Config::default()
    };
    let address = format!("http://{}", cable.address);
    config.destinations.insert("test".into(), address);
    let client = TestClient(mesh_with(config, &Registry::new()).client("test"));
    let mut watching = client.watch("Watch", "").await.unwrap();
    assert_eq!(watching.next().await.unwrap().unwrap(), "first");
    let putting = client.clone();
    let putting = mesh::spawn(async move { putting.unary("Put", "").await });
    let put = async {
        while puts.load(SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, put).await.unwrap();
    assert_eq!(cable.connections.load(SeqCst), 1);

    cable.swallow();
    let ended = timeout(PATIENCE, watching.next()).await.unwrap();
    let status = ended.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    let put = timeout(PATIENCE, putting).await.unwrap();
    assert_eq!(put.unwrap().unwrap(), "fine", "it may be repeated");
    assert_eq!(client.unary("Post", "").await.unwrap(), "fine");
    assert_eq!(puts.load(SeqCst), 2);
    assert_eq!(cable.connections.load(SeqCst), 2);
}
