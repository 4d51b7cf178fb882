//! Plain tonic and the mesh behind one face, so that one test body shows both.

use std::{net::SocketAddr, time::Duration};

use http::{Request, Response};
use mesh::Config;
use prometheus::Registry;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::{
    Status,
    body::Body,
    transport::{Channel, Endpoint},
};
use tower::{ServiceExt as _, util::BoxCloneSyncService};

use super::{TestClient, TestService, mesh_calling_all, mesh_with};

pub(crate) type AnyClient = TestClient<BoxCloneSyncService<Request<Body>, Response<Body>, Status>>;

/// Whose client or server it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    Mesh,
}

/// A server of either kind.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) shutdown: CancellationToken,
    pub(crate) serving: JoinHandle<()>,
}

/// What a server of either kind is told.
#[derive(Clone, Copy, Default)]
pub(crate) struct Terms {
    /// How old a connection may become, and how long its calls may then go on.
    pub(crate) age_and_grace: Option<(Duration, Duration)>,
}

impl Kind {
    /// A client of several endpoints of one destination.
    pub(crate) fn client(self, addresses: &[SocketAddr]) -> AnyClient {
        TestClient(match self {
            // As generated clients make a status of it.
            Self::Plain => BoxCloneSyncService::new(
                channel(addresses).map_err(|error| Status::from_error(error.into())),
            ),
            Self::Mesh => {
                let mesh = mesh_calling_all(addresses.iter().copied());
                BoxCloneSyncService::new(mesh.client("test"))
            }
        })
    }

    pub(crate) async fn serve(self, service: TestService, terms: Terms) -> Running {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("loopback has a free port");
        let address = listener
            .local_addr()
            .expect("a bound listener has an address");
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let serving = match self {
            Self::Plain => {
                let mut server = tonic::transport::Server::builder();
                if let Some((age, grace)) = terms.age_and_grace {
                    server = server
                        .max_connection_age(age)
                        .max_connection_age_grace(grace);
                }
                let incoming = super::undelayed(listener);
                let serving = server
                    .add_service(service)
                    .serve_with_incoming_shutdown(incoming, stop.cancelled_owned());
                mesh::spawn(async { serving.await.expect("it serves until it is stopped") })
            }
            Self::Mesh => {
                let mut config = Config::default();
                if let Some((age, grace)) = terms.age_and_grace {
                    let ms = |time: Duration| time.as_millis().try_into().expect("a test is short");
                    config.server.connection_age_max_ms = ms(age);
                    config.server.connection_age_grace_ms = ms(grace);
                }
                let mesh = mesh_with(config, &Registry::new());
                let serving = mesh.server().add(service).serve(listener, stop);
                mesh::spawn(async { serving.await.expect("it serves until it is stopped") })
            }
        };
        Running {
            address,
            shutdown,
            serving,
        }
    }
}

/// As tonic's documentation has it for one endpoint, and for several.
fn channel(addresses: &[SocketAddr]) -> Channel {
    let endpoints = addresses.iter().map(|address| {
        Endpoint::from_shared(format!("http://{address}")).expect("an address makes a URI")
    });
    let endpoints: Vec<_> = endpoints.collect();
    match &endpoints[..] {
        [only] => only.connect_lazy(),
        several => Channel::balance_list(several.iter().cloned()),
    }
}
