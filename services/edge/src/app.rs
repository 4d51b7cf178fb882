//! What all requests share, put together once at start.

use std::{collections::HashMap, sync::Arc};

use anyhow::Context as _;
use http::uri::PathAndQuery;
use mesh::{Audience, Client, Mesh, destination_of};
use mesh_transcode::{Router, Schema};
use prometheus::Registry;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{auth::Keys, config::Config, error::Refusal, metrics::Metrics, pages::Pages};

/// The edge's state. One per process; shared by every request.
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) router: Router,
    pub(crate) keys: Keys,
    pub(crate) pages: Pages,
    pub(crate) metrics: Metrics,
    /// Shutdown was asked for: requests are still answered, and whoever asks learns that they should go elsewhere.
    pub(crate) stopping: CancellationToken,
    /// No more requests are taken. Ends streams, so that the drain does not wait for what has no end of its own.
    pub(crate) draining: CancellationToken,
    /// WebSockets, which live on after their HTTP request has been answered.
    pub(crate) sockets: TaskTracker,
    /// Where calls may go, by name of the destination.
    pub(crate) destinations: HashMap<String, Client>,
    targets: HashMap<String, Target>,
    in_flight: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    /// Room for bodies in KiB: for all, and for those whose requests need no key.
    bodies: Arc<Semaphore>,
    keyless_bodies: Arc<Semaphore>,
}

/// Room for one body, until it is dropped.
pub(crate) struct Room {
    of_all: OwnedSemaphorePermit,
    of_keyless: Option<OwnedSemaphorePermit>,
}

impl Room {
    /// Gives back what a body did not need that is read now: one that did not name its length might have been longer.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let needed = bytes.div_ceil(1024);
        for permit in self.of_keyless.iter_mut().chain([&mut self.of_all]) {
            drop(permit.split(permit.num_permits().saturating_sub(needed)));
        }
    }
}

/// Where the calls of one RPC go.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) client: Client,
    pub(crate) path: PathAndQuery,
    pub(crate) audience: Audience,
    pub(crate) message_bytes_max: usize,
}

impl App {
    pub(crate) fn new(
        config: Config,
        mesh: Mesh,
        keys: Keys,
        registry: &Registry,
        stopping: CancellationToken,
    ) -> anyhow::Result<Arc<Self>> {
        let contract = mesh.contract();
        let audience = |path: &str| {
            contract
                .method(path)
                .map_or(Audience::Internal, |m| m.audience)
        };
        let schema = Schema::decode(contract.descriptor_set())?;
        let router = Router::new(&schema, |path| audience(path) != Audience::Internal)?;
        let mut targets = HashMap::new();
        let mut destinations = HashMap::new();
        for endpoint in router.endpoints() {
            let path = endpoint.rpc().path();
            let destination = destination_of(path)
                .with_context(|| format!("method {path}: its package names no destination"))?;
            mesh.require(&[destination])?;
            let client = mesh.client(destination);
            destinations.insert(destination.to_owned(), client.clone());
            let target = Target {
                client,
                path: path
                    .parse()
                    .with_context(|| format!("method {path} is not a path"))?,
                audience: audience(path),
                message_bytes_max: mesh.config().message_bytes_max,
            };
            targets.insert(path.to_owned(), target);
        }
        let pages = Pages::new(&config, &schema, &router, &audience, !keys.is_open());
        let limits = &config.limits;
        Ok(Arc::new(Self {
            pages,
            metrics: Metrics::register(registry)?,
            in_flight: Arc::new(Semaphore::new(limits.in_flight_max)),
            streams: Arc::new(Semaphore::new(limits.streams_max)),
            bodies: Arc::new(Semaphore::new(kib(limits.held_body_bytes_max))),
            keyless_bodies: Arc::new(Semaphore::new(kib(limits.held_body_bytes_max / 2))),
            config,
            router,
            keys,
            stopping,
            draining: CancellationToken::new(),
            sockets: TaskTracker::new(),
            destinations,
            targets,
        }))
    }

    pub(crate) fn target(&self, rpc_path: &str) -> &Target {
        self.targets
            .get(rpc_path)
            .expect("every endpoint of the router has a target")
    }

    /// Room for one more request; refused at once when there is none.
    pub(crate) fn admit(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        Arc::clone(&self.in_flight)
            .try_acquire_owned()
            .map_err(|_| Refusal::overloaded())
    }

    /// Room for a body of so many bytes. Whoever needs no key cannot take what others need.
    pub(crate) fn room(&self, audience: Audience, bytes: u64) -> Result<Room, Refusal> {
        let take = |of: &Arc<Semaphore>| {
            let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
            let taken = Arc::clone(of).try_acquire_many_owned(kib);
            taken.map_err(|_| Refusal::overloaded())
        };
        let keyless = (audience == Audience::Anyone).then(|| take(&self.keyless_bodies));
        Ok(Room {
            of_keyless: keyless.transpose()?,
            of_all: take(&self.bodies)?,
        })
    }

    /// Room for one more stream.
    pub(crate) fn admit_stream(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        Arc::clone(&self.streams)
            .try_acquire_owned()
            .map_err(|_| Refusal::overloaded())
    }
}

fn kib(bytes: u64) -> usize {
    usize::try_from(bytes / 1024).map_or(Semaphore::MAX_PERMITS, |kib| {
        kib.min(Semaphore::MAX_PERMITS)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_is_there_takes_no_more_room_than_it_needs() {
        let rooms = [100, 50].map(|kib| Arc::new(Semaphore::new(kib)));
        let take = |of: &Arc<Semaphore>| Arc::clone(of).try_acquire_many_owned(50).unwrap();
        let mut room = Room {
            of_all: take(&rooms[0]),
            of_keyless: Some(take(&rooms[1])),
        };
        let left = || rooms.each_ref().map(|of| of.available_permits());
        assert_eq!(left(), [50, 0]);
        room.shrink(2049);
        assert_eq!(left(), [97, 47]);
        room.shrink(1 << 20);
        assert_eq!(left(), [97, 47], "it does not grow");
        drop(room);
        assert_eq!(left(), [100, 50]);
    }
}
