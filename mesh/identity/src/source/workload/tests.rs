use std::{path::Path, pin::Pin, time::Duration};

use futures_util::{Stream, StreamExt as _};
use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose, SanType};
use tokio::{net::UnixListener, sync::watch, task::JoinSet};
use tokio_stream::wrappers::{UnixListenerStream, WatchStream};
use tokio_util::sync::CancellationToken;
use tonic::Response;

use super::{
    pb::{
        X509svid,
        spiffe_workload_api_server::{SpiffeWorkloadApi, SpiffeWorkloadApiServer},
    },
    *,
};
use crate::Identity;

type Answer = Result<X509svidResponse, Code>;

/// An agent that answers whatever the test says.
struct Agent(watch::Receiver<Answer>);

#[tonic::async_trait]
impl SpiffeWorkloadApi for Agent {
    type FetchX509SVIDStream = Pin<Box<dyn Stream<Item = Result<X509svidResponse, Status>> + Send>>;

    async fn fetch_x509svid(
        &self,
        request: Request<X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        let header = request.metadata().get(SECURITY_HEADER);
        assert_eq!(header.unwrap(), "true");
        let answers = WatchStream::new(self.0.clone());
        let answers = answers.map(|answer| answer.map_err(|code| Status::new(code, "told so")));
        Ok(Response::new(Box::pin(answers)))
    }
}

fn serve(socket: &Path, answers: watch::Receiver<Answer>, tasks: &mut JoinSet<()>) {
    let listener = UnixListenerStream::new(UnixListener::bind(socket).unwrap());
    tasks.spawn(async move {
        let server = tonic::transport::Server::builder();
        let mut server = server;
        let serving = server.add_service(SpiffeWorkloadApiServer::new(Agent(answers)));
        serving.serve_with_incoming(listener).await.unwrap();
    });
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    /// An answer with this identity, and the same again as the one that is not the default.
    fn answer(&self, id: &str) -> X509svidResponse {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.0).unwrap();
        let svid = X509svid {
            spiffe_id: id.to_owned(),
            x509_svid: leaf.der().to_vec(),
            x509_svid_key: key.serialize_der(),
            bundle: [self.0.der().to_vec(), self.0.der().to_vec()].concat(),
            hint: String::new(),
        };
        let partner = Self::new().0.der().to_vec();
        X509svidResponse {
            svids: vec![
                svid.clone(),
                X509svid {
                    spiffe_id: "other".to_owned(),
                    ..svid
                },
            ],
            crl: Vec::new(),
            federated_bundles: [("spiffe://partner.example".to_owned(), partner)].into(),
        }
    }
}

const FIRST: &str = "spiffe://shop.example/first";
const SECOND: &str = "spiffe://shop.example/second";
const THIRD: &str = "spiffe://shop.example/third";

async fn becomes(identity: &Identity, id: &str) {
    let waiting = async {
        while identity.id().as_str() != id {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting)
        .await
        .unwrap();
}

#[tokio::test]
async fn identities_come_as_the_agent_issues_them_and_over_its_restart() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    let address = format!("unix://{}", socket.display());
    let authority = Authority::new();
    let (say, answers) = watch::channel(Ok(authority.answer(FIRST)));
    let mut agent = JoinSet::new();
    serve(&socket, answers.clone(), &mut agent);

    let source = WorkloadApi::new(&address).unwrap();
    let (identity, reload) = Identity::start(source).await.unwrap();
    assert_eq!(identity.id().as_str(), FIRST);
    let shutdown = CancellationToken::new();
    let mut reloading = JoinSet::new();
    reloading.spawn(reload.run(shutdown.clone()));
    drop(say.send_replace(Ok(authority.answer(SECOND))));
    becomes(&identity, SECOND).await;

    // The stream ends with its sender, and nobody listens any more.
    agent.shutdown().await;
    std::fs::remove_file(&socket).unwrap();
    drop((say, answers));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(identity.id().as_str(), SECOND, "the old one stays");
    let (say, answers) = watch::channel(Ok(authority.answer(THIRD)));
    serve(&socket, answers, &mut agent);
    becomes(&identity, THIRD).await;

    // What is refused, and an agent that has nothing any more, change nothing.
    let mut mixed = authority.answer(FIRST);
    mixed.svids[0].x509_svid_key = authority.answer(FIRST).svids[0].x509_svid_key.clone();
    drop(say.send_replace(Ok(mixed)));
    drop(say.send_replace(Err(Code::PermissionDenied)));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(identity.id().as_str(), THIRD);
    drop(say.send_replace(Ok(authority.answer(FIRST))));
    becomes(&identity, FIRST).await;
    shutdown.cancel();
    reloading.join_next().await.unwrap().unwrap();
}

#[tokio::test]
async fn an_agent_that_gives_nothing_is_an_error_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    let address = format!("unix:{}", socket.display());
    let first = async || {
        let error = WorkloadApi::new(&address)
            .unwrap()
            .next()
            .await
            .unwrap_err();
        error.to_string()
    };
    let missing = first().await;
    assert!(
        missing.contains("agent.sock\" cannot be asked"),
        "{missing}"
    );

    let (say, answers) = watch::channel(Err(Code::PermissionDenied));
    let mut agent = JoinSet::new();
    serve(&socket, answers, &mut agent);
    let denied = first().await;
    assert!(
        denied.ends_with("has no identity for this process"),
        "{denied}"
    );
    drop(say.send_replace(Ok(X509svidResponse::default())));
    assert!(first().await.ends_with("answers without an identity"));
    let mut broken = Authority::new().answer(FIRST);
    broken.svids[0].bundle.push(0);
    drop(say.send_replace(Ok(broken)));
    assert!(first().await.ends_with("something that is no certificate"));
    let mut capital = Authority::new().answer(FIRST);
    capital.federated_bundles = [("Partner".to_owned(), Vec::new())].into();
    drop(say.send_replace(Ok(capital)));
    assert!(
        first()
            .await
            .contains("a trust domain that has a trust domain with other")
    );
}

#[test]
fn an_address_is_a_socket() {
    for (address, good) in [
        ("unix:///run/agent.sock", true),
        ("unix:/run/agent.sock", true),
        ("unix://run/agent.sock", false),
        ("tcp://127.0.0.1:8081", false),
        ("/run/agent.sock", false),
        ("", false),
    ] {
        assert_eq!(WorkloadApi::new(address).is_some(), good, "{address:?}");
    }
}
