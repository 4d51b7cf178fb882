//! A service whose calls take a while, and only so many of them at once: what sets a server's peak without its processor.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{sync::Semaphore, time::sleep};
use tonic::{
    body::Body,
    codegen::{BoxFuture, Service, http},
    server::NamedService,
};

/// The service, behind its workers.
#[derive(Clone)]
pub(crate) struct Busy<S> {
    inner: S,
    workers: Arc<Semaphore>,
    takes: Duration,
}

impl<S> Busy<S> {
    pub(crate) fn new(inner: S, workers: usize, takes: Duration) -> Busy<S> {
        Busy {
            inner,
            workers: Arc::new(Semaphore::new(workers)),
            takes,
        }
    }
}

impl<S: NamedService> NamedService for Busy<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Busy<S>
where
    S: Service<http::Request<Body>, Future: Send + 'static>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<S::Response, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let calling = self.inner.call(request);
        let (workers, takes) = (self.workers.clone(), self.takes);
        Box::pin(async move {
            let _worker = workers.acquire_owned().await;
            sleep(takes).await;
            calling.await
        })
    }
}
