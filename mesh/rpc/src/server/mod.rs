//! The server stack: what a call passes through on its way in, and the life of a server.
//!
//! Deliberately without audiences, which the edge enforces. Whose `mesh-principal` header is believed says
//! `context.rs`.

mod accept;
mod authorize;
mod begin;
mod call;
mod connection;
mod connection_metrics;
mod context;
mod deadline;
mod drain;
mod fault;
#[cfg(test)]
mod fuzz;
mod handlers;
mod health;
mod heard;
mod hush;
mod life;
pub(crate) mod metrics;
mod overload;
mod panic;
mod pattern;
mod peer;
mod rate_limit;

use std::{convert::Infallible, future::pending, sync::Arc};

use http::{Request, Response};
use tokio::{net::TcpListener, time::sleep};
use tokio_util::sync::CancellationToken;
use tonic::{
    body::Body,
    server::NamedService,
    service::{Routes, RoutesBuilder},
};
use tower::{Service, ServiceBuilder};

use drain::Drain;
pub use fault::{FaultRule, FaultsConfig};
pub use health::Health;
use health::ReadyCheck;
pub use overload::OverloadConfig;
pub use rate_limit::{RateLimitRule, RateLimitsConfig};

use crate::{Error, Mesh, frames, observe, stack::Side};

/// What a connection hands each request to, as a type, from outside in. It is always ready: what a call has to wait for
/// is part of the call.
type ServerStack = context::Extract<
    observe::Observe<
        authorize::Authorize<
            deadline::Deadline<
                rate_limit::RateLimit<
                    overload::Shed<
                        fault::Inject<panic::CatchPanic<frames::Limit<handlers::Handlers>>>,
                    >,
                >,
            >,
        >,
    >,
>;

/// Serves tonic services behind the mesh's stack.
#[derive(Debug)]
pub struct Server {
    mesh: Mesh,
    routes: RoutesBuilder,
    services: Vec<&'static str>,
    health: Health,
    ready: Option<ReadyCheck>,
    drain: Drain,
}

impl Server {
    pub(crate) fn new(mesh: Mesh) -> Self {
        Self {
            mesh,
            routes: Routes::builder(),
            services: Vec::new(),
            health: Health::new(),
            ready: None,
            drain: Drain::default(),
        }
    }

    /// Adds a generated tonic service. It has to be part of the mesh's contract.
    ///
    /// The mesh limits messages by `message_bytes_max`; tonic's own limit for what a service receives
    /// (4 MiB) can be raised on the generated type.
    #[must_use]
    #[expect(
        clippy::should_implement_trait,
        reason = "adds a service, not a number"
    )]
    pub fn add<S>(mut self, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.routes.add_service(service);
        self.services.push(S::NAME);
        self
    }

    /// Sets the health of single services while the server runs. All are SERVING from the start.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Calls should come here while this passes: health says so by the names `readiness` and `""`. It is asked every
    /// `server.readiness_interval_ms` and has `server.readiness_timeout_ms` to answer; its error is for the log.
    /// Without one the server is ready until its shutdown.
    #[must_use]
    pub fn ready_when<F>(mut self, check: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.ready = Some(ReadyCheck::new(check));
        self
    }

    /// Cancelled when the wait after the shutdown is over and the drain begins: what would go on for ever, such as
    /// a watch, has to end then, and not before.
    pub fn draining(&self) -> CancellationToken {
        self.drain.begun.child_token()
    }

    /// Serves until `shutdown`, then leaves in this order: health turns NOT_SERVING; calls are served for another
    /// `drain_wait_ms`, in which whoever balances by health or by a cluster's endpoints learns of it; no connection
    /// is accepted any more and clients are told to go elsewhere (GOAWAY); calls in flight may finish within
    /// `drain_timeout_ms`, streams without a deadline within `stream_grace_ms`.
    ///
    /// Health (`grpc.health.v1`) and reflection (`grpc.reflection.v1`) are served along.
    pub async fn serve(
        mut self,
        listener: TcpListener,
        shutdown: CancellationToken,
    ) -> Result<(), Error> {
        let contract = self.mesh.contract();
        if let Some(unknown) = self
            .services
            .iter()
            .find(|name| !contract.has_service(name))
        {
            return Err(Error::NotInContract(unknown));
        }
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(contract.descriptor_set())
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()?;
        self.routes
            .add_service(reflection)
            .add_service(self.health.service());
        self.health
            .begin(&self.services, self.ready.is_some())
            .await;

        let drain = self.drain.clone();
        let _closed = drain.close_on_drop();
        let routes = std::mem::take(&mut self.routes).routes();
        let config = self.mesh.config();
        let connections_max = config.server.connections_max;
        let terms = Arc::new(connection::Terms::new(
            self.stack(routes),
            config,
            self.mesh.identities().clone(),
            &drain,
            &self.mesh.server_metrics().connections,
        ));
        let leaving = async {
            let _ = shutdown.run_until_cancelled(self.follow()).await;
            self.health.leave(&self.services).await;
            sleep(self.mesh.config().server.drain_wait()).await;
            drain.begun.cancel();
        };
        let accepting = accept::serve(listener, terms, connections_max, &drain.begun);
        tokio::join!(accepting, leaving);
        let config = self.mesh.config();
        let server = &config.server;
        drain
            .run(server.stream_grace(), server.drain_timeout())
            .await;
        Ok(())
    }

    async fn follow(&self) {
        match &self.ready {
            Some(check) => {
                let limits = || self.mesh.config().server.clone();
                self.health.follow(check, limits).await;
            }
            None => pending().await,
        }
    }

    fn stack(&self, routes: Routes) -> ServerStack {
        let contract = self.mesh.contract();
        let (live, metrics) = (self.mesh.live(), self.mesh.server_metrics());
        let authorizer = self.mesh.identities().authorizer.clone();
        ServiceBuilder::new()
            // Who calls, why and until when; everything below runs inside that context.
            .layer(context::layer(contract.clone(), live.clone()))
            // Sees what the caller sees, whatever the layers below make of it.
            .layer(observe::layer(Side::Server, self.mesh.served(), self.mesh.traffic()))
            // Who may not call costs nothing, not even a timer, and uses up neither a place nor the rate
            // of the principal that it names; it is counted all the same.
            .layer(authorize::layer(authorizer))
            // The caller's deadline, capped by the contract's; and the end of its connection.
            .layer(deadline::layer())
            // What comes too often is nobody else's load.
            .layer(rate_limit::layer(live.clone(), metrics.clone()))
            // Refuses what cannot be borne while that is still cheap.
            .layer(overload::layer(live.clone(), contract, metrics.clone()))
            // Faults on purpose look like the handler's own.
            .layer(fault::layer(live.clone(), metrics.clone()))
            // A bug in one call is not the end of its connection, nor a text for its caller.
            .layer(panic::layer())
            // What is too long is refused before it is read.
            .layer(frames::layer(Side::Server, live.clone()))
            .service(handlers::Handlers::new(routes))
    }
}
