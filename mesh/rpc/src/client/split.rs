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

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        io,
        sync::atomic::{AtomicU32, Ordering::SeqCst},
    };

    use prometheus::Registry;
    use tonic_types::StatusExt as _;
    use tower::ServiceExt as _;

    use super::*;
    use crate::{
        CallContext, Config, Contract, Principal,
        client::{
            ClientMetrics,
            connect::{Connect, Connecting},
            discovery::{self, Target, parse_destination},
        },
        live::Live,
        stack::Call,
        testing::descriptor_set,
    };

    /// Refuses every connection, and counts them.
    #[derive(Default)]
    struct Refusing(AtomicU32);

    impl Connect for Refusing {
        fn connect<'a>(&'a self, _: &'a Target) -> Connecting<'a> {
            self.0.fetch_add(1, SeqCst);
            Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) })
        }

        fn scheme(&self, _: &Target) -> http::uri::Scheme {
            http::uri::Scheme::HTTP
        }
    }

    /// A destination of one endpoint, or of none: then calls fail at once, and say by what name.
    fn destination(
        name: &str,
        endpoint: Option<&str>,
        connector: &Arc<Refusing>,
    ) -> Arc<Destination> {
        let contract = Contract::new(descriptor_set()).unwrap();
        let config = Config::default();
        let discover = endpoint.map(|endpoint| {
            let source = parse_destination(endpoint).unwrap();
            discovery::of(source, &config.client.discovery)
        });
        let metrics = ClientMetrics::register(&Registry::new()).unwrap();
        let live = Live::new(config);
        Destination::open(
            name,
            discover,
            connector.clone(),
            &live,
            &contract,
            &metrics,
        )
    }

    fn unconfigured(name: &str) -> Arc<Destination> {
        destination(name, None, &Arc::default())
    }

    fn request() -> Request<Body> {
        let mut request = Request::post("http://test/mesh.test.v1.TestService/Post");
        let context = CallContext::root(Principal::anonymous());
        let extensions = request.extensions_mut().expect("the URI is one");
        extensions.insert(Call::tested(None, context));
        request.body(Body::empty()).unwrap()
    }

    /// Where a call goes.
    async fn version(
        stack: impl Service<Request<Body>, Error = Status, Response: Sized>,
    ) -> String {
        let Err(status) = stack.oneshot(request()).await else {
            panic!("there is nobody who could answer");
        };
        let details = status.get_error_details();
        details.error_info().unwrap().metadata["destination"].clone()
    }

    #[tokio::test]
    async fn every_version_has_the_share_that_its_weight_says() {
        let versions = Versions::default();
        let names = ["none", "much", "no", "little", "nothing"].map(unconfigured);
        versions.replace([0, 90, 0, 10, 0].into_iter().zip(names));
        let shares = versions.0.load();
        let mut seen = BTreeMap::<_, u32>::new();
        for thousandth in 0..1000 {
            // In the middle of each, where no rounding can matter.
            let picked = shares.pick((f64::from(thousandth) + 0.5) / 1000.0);
            *seen
                .entry(version(picked.unwrap().clone()).await)
                .or_default() += 1;
        }
        let expected = [("much", 900), ("little", 100)];
        assert_eq!(
            seen,
            expected
                .map(|(name, count)| (name.to_owned(), count))
                .into()
        );
        for (random, name) in [(0.0, "much"), (1.0_f64.next_down(), "little")] {
            assert_eq!(version(shares.pick(random).unwrap().clone()).await, name);
        }
    }

    #[tokio::test]
    async fn calls_are_drawn_and_without_versions_go_to_the_whole() {
        let versions = Versions::default();
        let split = Split::new(unconfigured("whole"), versions.clone());
        assert_eq!(version(split.clone()).await, "whole");
        versions.replace([(1, unconfigured("one")), (1, unconfigured("two"))]);
        let mut seen = BTreeMap::<_, u32>::new();
        for _ in 0..400 {
            *seen.entry(version(split.clone()).await).or_default() += 1;
        }
        // Ten times the standard deviation.
        assert!(seen["one"].abs_diff(200) < 100, "{seen:?}");
        assert_eq!(seen["one"] + seen["two"], 400, "{seen:?}");
        versions.replace([(0, unconfigured("one"))]);
        assert_eq!(version(split.clone()).await, "whole");
    }

    #[tokio::test(start_paused = true)]
    async fn all_attempts_of_a_call_go_to_the_version_that_was_drawn() {
        for _ in 0..20 {
            let connectors = [(); 3].map(|()| Arc::<Refusing>::default());
            let [one, two, later] = [0, 1, 2].map(|index: usize| {
                let endpoint = format!("http://v{index}:1");
                destination("version", Some(&endpoint), &connectors[index])
            });
            let versions = Versions::default();
            versions.replace([(1, one), (1, two)]);
            let mut calling = Split::new(unconfigured("whole"), versions.clone()).call(request());
            assert!(futures_util::poll!(&mut calling).is_pending());
            versions.replace([(1, later)]); // For those that come later.
            calling.await.unwrap_err();
            let [one, two, later] = connectors.map(|connector| connector.0.load(SeqCst));
            assert!(one.min(two) == 0 && one.max(two) > 1, "{one} and {two}");
            assert_eq!(later, 0);
        }
    }
}
