//! Identity from a SPIFFE agent on the same machine, by the Workload API's `FetchX509SVID` stream
//! (<https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE_Workload_API.md>, sections 4 to 6).
//!
//! Deliberately without JWT-SVIDs, and with the default identity alone where an agent offers several.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use async_trait::async_trait;
use hyper_util::rt::TokioIo;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivatePkcs8KeyDer};
use tokio::{net::UnixStream, time::sleep};
use tonic::{
    Code, Request, Status, Streaming,
    transport::{Channel, Endpoint},
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use self::pb::{
    X509svidRequest, X509svidResponse, spiffe_workload_api_client::SpiffeWorkloadApiClient,
};
use super::{Source, SourceError};
use crate::Material;

/// The contract, as generated.
#[expect(
    unreachable_pub,
    clippy::pedantic,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
mod pb {
    include!(concat!(env!("OUT_DIR"), "/_.rs"));
}

/// How long to wait before asking again, at first and at most; it doubles, and is random above its half.
const BACKOFF: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// How long the agent may take to be reached and to answer first.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest answer, in bytes: bundles and revocation lists of many trust domains fit.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Without it the agent refuses to answer, so that no browser can be made to ask (section 6.1).
const SECURITY_HEADER: &str = "workload.spiffe.io";

/// Asks the agent, and goes on listening to it.
#[derive(Debug)]
pub struct WorkloadApi {
    socket: PathBuf,
    stream: Option<Streaming<X509svidResponse>>,
    /// How long to wait before the next attempt.
    pause: Option<Duration>,
}

impl WorkloadApi {
    /// An agent's address as `SPIFFE_ENDPOINT_SOCKET` has it, such as `unix:///run/spire/agent.sock`.
    /// Connects nothing yet. `None`: it is no Unix socket with an absolute path.
    pub fn new(address: &str) -> Option<Self> {
        let path = address.strip_prefix("unix:")?;
        // `unix:///path` and `unix:/path` are the same (section 4).
        let path = path.strip_prefix("//").unwrap_or(path);
        path.starts_with('/').then(|| Self {
            socket: path.into(),
            stream: None,
            pause: None,
        })
    }

    async fn ask(&self) -> Result<Streaming<X509svidResponse>, SourceError> {
        let socket = self.socket.clone();
        let connector = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        // tonic wants an authority; a Unix socket has none.
        let endpoint = Endpoint::from_static("http://localhost").connect_timeout(ANSWER_TIMEOUT);
        let connecting = endpoint.connect_with_connector(connector);
        let channel: Channel = connecting.await.map_err(|error| self.unreachable(&error))?;
        let mut client =
            SpiffeWorkloadApiClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        let mut request = Request::new(X509svidRequest {});
        let header = tonic::metadata::MetadataValue::from_static("true");
        request.metadata_mut().insert(SECURITY_HEADER, header);
        let asking = client.fetch_x509svid(request);
        match tokio::time::timeout(ANSWER_TIMEOUT, asking).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.refused(&status)),
            Err(_) => Err(self.unreachable(&"no answer in time")),
        }
    }

    async fn answer(&mut self) -> Result<Material, SourceError> {
        if let Some(pause) = self.pause {
            let half = pause / 2;
            sleep(half + half.mul_f64(rand::random())).await;
        }
        if self.stream.is_none() {
            self.stream = Some(self.ask().await?);
        }
        let Some(stream) = &mut self.stream else {
            return Err(self.unreachable(&"no stream"));
        };
        match stream.message().await {
            Ok(Some(response)) => {
                let material = read(response);
                material.map_err(|reason| SourceError::WorkloadApi {
                    socket: self.socket.clone(),
                    reason,
                })
            }
            Ok(None) => Err(self.unreachable(&"the agent has ended the stream")),
            Err(status) => Err(self.refused(&status)),
        }
    }

    fn unreachable(&self, reason: &dyn std::fmt::Display) -> SourceError {
        SourceError::WorkloadApi {
            socket: self.socket.clone(),
            reason: format!("cannot be asked: {reason}"),
        }
    }

    /// Where an agent knows no identity for its caller, it may know one later (section 6.2).
    fn refused(&self, status: &Status) -> SourceError {
        let reason = match status.code() {
            Code::PermissionDenied => "has no identity for this process".to_owned(),
            code => format!("fails: {code:?}: {}", status.message()),
        };
        SourceError::WorkloadApi {
            socket: self.socket.clone(),
            reason,
        }
    }
}

#[async_trait]
impl Source for WorkloadApi {
    async fn next(&mut self) -> Result<Material, SourceError> {
        let answered = self.answer().await;
        if answered.is_ok() {
            self.pause = None;
        } else {
            self.stream = None;
            let doubled = self.pause.map_or(BACKOFF, |pause| pause * 2);
            self.pause = Some(doubled.min(BACKOFF_MAX));
        }
        answered
    }

    fn name(&self) -> String {
        format!("the Workload API at \"{}\"", self.socket.display())
    }
}

fn read(response: X509svidResponse) -> Result<Material, String> {
    let svid = response
        .svids
        .into_iter()
        .next()
        .ok_or("answers without an identity")?;
    let mut federated = BTreeMap::new();
    for (name, bundle) in response.federated_bundles {
        // SPIRE writes the trust domain's id; the standard asks for it, others write the name.
        let name = name.strip_prefix("spiffe://").unwrap_or(&name);
        let name = name
            .parse()
            .map_err(|error| format!("answers with a trust domain that {error}"))?;
        federated.insert(name, certificates(&bundle)?);
    }
    Ok(Material {
        chain: certificates(&svid.x509_svid)?,
        key: PrivatePkcs8KeyDer::from(svid.x509_svid_key).into(),
        bundle: certificates(&svid.bundle)?,
        federated,
        crls: response
            .crl
            .into_iter()
            .map(CertificateRevocationListDer::from)
            .collect(),
    })
}

/// Certificates in DER, one after the other.
fn certificates(mut der: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut certificates = Vec::new();
    while !der.is_empty() {
        let (rest, _) = X509Certificate::from_der(der)
            .map_err(|_| "answers with something that is no certificate".to_owned())?;
        let length = der.len() - rest.len();
        certificates.push(CertificateDer::from(der[..length].to_vec()));
        der = rest;
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests;
