//! Layer: the calls of a destination are shared between its versions by weight.
//!
//! A version is a destination of its own, so that it has its own endpoints, balancing, ejections, circuit
//! and budget: a new version that fails cannot use up what the old one needs, and its figures stand apart.
//! Each call draws its version once; its retries and hedges stay there. Were they to leave it, a version
//! that fails would look healthy to its callers, which is what a split is to find out, and the load would
//! not be what the weights say when it matters.
//!
//! Deliberately without stickiness: who needs the same version twice has two destinations.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use arc_swap::ArcSwap;
use http::{Request, Response};
use tonic::{Status, body::Body};
use tower::Service;

use super::{destination::Destination, retry::Retry};
use crate::stack::Answer;

type Version = Retry<Arc<Destination>>;

/// The versions of a destination, replaced as a whole while calls run. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Versions(Arc<ArcSwap<Shares>>);

/// Each version with the sum of the weights up to its own. Empty: there are none.
#[derive(Default)]
struct Shares(Vec<(u64, Version)>);

impl Versions {
    /// Calls go to these from now on; to the destination itself, if there are none.
    pub(crate) fn replace(&self, versions: impl IntoIterator<Item = (u32, Arc<Destination>)>) {
        let mut end = 0;
        let shares = versions.into_iter().filter(|(weight, _)| *weight > 0);
        let shares = shares.map(|(weight, destination)| {
            end += u64::from(weight);
            (end, Retry::new(destination.clone(), destination))
        });
        self.0.store(Arc::new(Shares(shares.collect())));
    }
}

impl Shares {
    /// `random` is below 1.
    fn pick(&self, random: f64) -> Option<&Version> {
        let (whole, _) = self.0.last()?;
        let point = super::clock::whole(super::clock::float(*whole) * random);
        let index = self.0.partition_point(|(end, _)| *end <= point);
        self.0.get(index).map(|(_, version)| version)
    }
}

/// Chooses the version of each call.
#[derive(Clone)]
pub(crate) struct Split {
    whole: Version,
    versions: Versions,
}

impl Split {
    pub(crate) fn new(destination: Arc<Destination>, versions: Versions) -> Self {
        Self {
            whole: Retry::new(destination.clone(), destination),
            versions,
        }
    }
}

impl Service<Request<Body>> for Split {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(())) // Waiting for a connection belongs to the call, under its deadline.
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        let shares = self.versions.0.load();
        if shares.0.is_empty() {
            return self.whole.call(request);
        }
        match shares.pick(rand::random()) {
            Some(version) => version.clone().call(request),
            None => self.whole.call(request),
        }
    }
}
