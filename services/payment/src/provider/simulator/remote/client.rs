//! The simulator in another process, as a provider.
//!
//! What it could not connect to was never sent; what was sent and not answered is unknown; what was
//! refused by name was not done. An answer of somebody else's (a proxy, another server) is no answer.

use super::connect::{HttpClient, http_client, http_url};
use super::{NO_SUCH_CALL, UNAUTHENTICATED, UNAVAILABLE, disputes, messages};
use crate::dispute::SeenDispute;
use crate::provider::https::{asked, chain};
use crate::provider::simulator::{
    Decision, Faults, SINCE, SimulatorConfig, WebhookFaults, webhook,
};
use crate::provider::{
    AcceptDispute, Authorize, Capabilities, Capture, ChargeOutcome, Provider, ProviderError,
    Refund, Settlement, SettlementPage, SubmitEvidence, TransactionPage, Void, WebhookError,
    WebhookEvent,
};
use async_trait::async_trait;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use kernel::{Invalid, Money};
use mesh_runtime::config::Secret;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::sync::OnceCell;

/// The longest answer that is read: a page of transactions is the longest there is.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Where the simulator runs as a process of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RemoteConfig {
    /// Where it listens, such as `http://127.0.0.1:50053`; empty: it runs in this process.
    pub url: String,
    /// The key that it asks for.
    pub key: Secret,
    /// How long connecting to it may take, in milliseconds.
    pub connect_timeout_ms: u32,
}

impl Default for RemoteConfig {
    fn default() -> Self {
        Self {
            url: String::new(),
            key: Secret::default(),
            connect_timeout_ms: 2_000,
        }
    }
}

/// The simulator in another process; see the module.
pub struct RemoteSimulator {
    name: String,
    client: HttpClient,
    base: String,
    authorization: HeaderValue,
    webhook_secret: Vec<u8>,
    capabilities: Capabilities,
    /// Set once the other side has said that it has these capabilities.
    agreed: OnceCell<()>,
}

impl RemoteSimulator {
    /// The provider of this name. Connects to nothing yet: it starts while the simulator is away. Of
    /// `simulator` it takes what the other side can do, and the secret of its webhooks. Errors name the key
    /// within the configuration of one simulator, such as `remote.url`.
    pub fn new(
        name: &str,
        config: &RemoteConfig,
        simulator: &SimulatorConfig,
    ) -> Result<Self, Invalid> {
        let url = http_url("remote.url", &config.url)?;
        if simulator.webhook_secret.is_empty() {
            let reason = "must be the secret of the simulator in the other process";
            return Err(Invalid::new("simulator.webhook_secret", reason));
        }
        let bearer = format!("Bearer {}", config.key.expose());
        let mut authorization = HeaderValue::try_from(bearer)
            .map_err(|_| Invalid::new("remote.key", "is no header value"))?;
        authorization.set_sensitive(true);
        let connect_timeout = Duration::from_millis(config.connect_timeout_ms.into());
        Ok(Self {
            name: name.to_owned(),
            client: http_client(connect_timeout),
            base: url.to_string().trim_end_matches('/').to_owned(),
            authorization,
            webhook_secret: simulator.webhook_secret.expose().into(),
            capabilities: simulator.capabilities(),
            agreed: OnceCell::new(),
        })
    }

    /// The customer of a charge has authenticated, or failed to. False: it does not wait for that.
    pub async fn authenticate(&self, reference: &str, ok: bool) -> Result<bool, ProviderError> {
        let reference = reference.to_owned();
        let body = messages::Authentication { reference, ok };
        let answer: messages::Decided = self.command("authentications", &body).await?;
        Ok(answer.decided)
    }

    /// A customer disputes a charge, of all that its first capture took or of an amount; answers the name of the dispute.
    pub async fn open_dispute(
        &self,
        charge_reference: &str,
        amount: Option<Money>,
        inquiry: bool,
    ) -> Result<String, ProviderError> {
        let body = disputes::Opening {
            charge_reference: charge_reference.to_owned(),
            amount: amount.map(Into::into),
            inquiry,
        };
        let opened: disputes::Opened = self.command("disputes", &body).await?;
        Ok(opened.dispute_ref)
    }

    /// The bank of a customer returns a refund.
    pub async fn return_refund(&self, reference: &str) -> Result<(), ProviderError> {
        let reference = reference.to_owned();
        let body = disputes::Return { reference };
        let _: disputes::Returned = self.command("returns", &body).await?;
        Ok(())
    }

    /// The bank decides a dispute.
    pub async fn decide_dispute(
        &self,
        dispute_ref: &str,
        decision: Decision,
    ) -> Result<SeenDispute, ProviderError> {
        let dispute_ref = dispute_ref.to_owned();
        let body = disputes::Decided {
            dispute_ref,
            decision,
        };
        seen(self.command("decisions", &body).await?)
    }

    /// Tells the other side what is to go wrong from now on.
    pub async fn set_faults(
        &self,
        commands: Faults,
        webhooks: WebhookFaults,
    ) -> Result<(), ProviderError> {
        let body = messages::Misfortune { commands, webhooks };
        let body = serde_json::to_vec(&body).expect("numbers are JSON");
        let _: messages::Misfortune = self.call(Method::PUT, "faults", body.into()).await?;
        Ok(())
    }

    async fn command<T: DeserializeOwned>(
        &self,
        call: &str,
        body: &impl Serialize,
    ) -> Result<T, ProviderError> {
        self.agree().await?;
        let body = serde_json::to_vec(body).expect("texts, numbers and flags are JSON");
        self.call(Method::POST, call, body.into()).await
    }

    /// Before the first command: a capability that is not there would change what a command means.
    async fn agree(&self) -> Result<(), ProviderError> {
        let ask = || async {
            let told: messages::Capabilities = self.question("capabilities").await?;
            let told = Capabilities::from(told);
            if told == self.capabilities {
                return Ok(());
            }
            tracing::error!(configured = ?self.capabilities, ?told, "the simulator is another one");
            Err(ProviderError::Unavailable(
                "the simulator can do other things than [simulator] says".to_owned(),
            ))
        };
        self.agreed.get_or_try_init(ask).await.copied()
    }

    async fn question<T: DeserializeOwned>(&self, call: &str) -> Result<T, ProviderError> {
        self.call(Method::GET, call, Bytes::new())
            .await
            .map_err(asked)
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        call: &str,
        body: Bytes,
    ) -> Result<T, ProviderError> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}/v1/{call}", self.base))
            .header(AUTHORIZATION, self.authorization.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(Full::new(body))
            .map_err(|error| ProviderError::Unavailable(error.to_string()))?;
        let answer = self.client.request(request).await.map_err(|error| {
            let reason = chain(&error);
            if error.is_connect() {
                ProviderError::Unavailable(reason)
            } else {
                ProviderError::Unknown(reason)
            }
        })?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
        let body = body.collect().await.map_err(|error| unknown(&*error))?;
        let body = body.to_bytes();
        if status == StatusCode::OK {
            return serde_json::from_slice(&body).map_err(|error| unknown(&error));
        }
        Err(said(status, &body))
    }
}

/// What an answer without success says, if it is one of the simulator's.
fn said(status: StatusCode, body: &[u8]) -> ProviderError {
    let Ok(messages::Refusal { error }) = serde_json::from_slice(body) else {
        return ProviderError::Unknown(format!("answered with {status} by somebody else"));
    };
    let messages::RefusalReason { code, message } = error;
    match code.as_str() {
        UNAVAILABLE if status == StatusCode::SERVICE_UNAVAILABLE => {
            ProviderError::Unavailable(message)
        }
        // Ours to put right, and no reason to tell a customer that the card was refused.
        UNAUTHENTICATED if status == StatusCode::UNAUTHORIZED => {
            ProviderError::Unavailable(message)
        }
        _ if status.is_client_error() => ProviderError::Refused { code, message },
        _ => ProviderError::Unknown(format!("{code}: {message}")),
    }
}

fn unknown(error: &dyn std::error::Error) -> ProviderError {
    ProviderError::Unknown(chain(error))
}

/// A page of a list.
fn list(name: &str, from: Option<&str>) -> String {
    match from {
        Some(from) => format!("{name}?from={}", segment(from)),
        None => name.to_owned(),
    }
}

fn segment(reference: &str) -> impl std::fmt::Display {
    utf8_percent_encode(reference, NON_ALPHANUMERIC)
}

/// The charge or settlement of a command's answer, which always has one.
fn answered<T>(answer: Option<T>) -> Result<T, ProviderError> {
    answer.ok_or_else(|| ProviderError::Unknown("the answer is empty".to_owned()))
}

/// The dispute of an answer.
fn seen(answer: disputes::Answered) -> Result<SeenDispute, ProviderError> {
    let seen = SeenDispute::try_from(answer.dispute);
    seen.map_err(|error| ProviderError::Unknown(error.to_string()))
}

#[async_trait]
impl Provider for RemoteSimulator {
    fn name(&self) -> &str {
        &self.name
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn authorize(&self, request: &Authorize) -> Result<ChargeOutcome, ProviderError> {
        let body = messages::Authorize::from(request);
        let answer: messages::Charged = self.command("charges", &body).await?;
        answered(answer.charge).map(Into::into)
    }

    async fn capture(&self, request: &Capture) -> Result<Settlement, ProviderError> {
        let body = messages::Capture::from(request);
        let answer: messages::Settled = self.command("captures", &body).await?;
        answered(answer.settlement).map(Into::into)
    }

    async fn void(&self, request: &Void) -> Result<Settlement, ProviderError> {
        let body = messages::Void::from(request);
        let answer: messages::Settled = self.command("voids", &body).await?;
        answered(answer.settlement).map(Into::into)
    }

    async fn refund(&self, request: &Refund) -> Result<Settlement, ProviderError> {
        let body = messages::Refund::from(request);
        let answer: messages::Settled = self.command("refunds", &body).await?;
        answered(answer.settlement).map(Into::into)
    }

    async fn look_up_charge(
        &self,
        reference: &str,
    ) -> Result<Option<ChargeOutcome>, ProviderError> {
        let call = format!("charges/{}", segment(reference));
        let answer: messages::Charged = self.question(&call).await?;
        Ok(answer.charge.map(Into::into))
    }

    async fn look_up_settlement(
        &self,
        reference: &str,
    ) -> Result<Option<Settlement>, ProviderError> {
        let call = format!("settlements/{}", segment(reference));
        let answer: messages::Settled = self.question(&call).await?;
        Ok(answer.settlement.map(Into::into))
    }

    async fn look_up_disputes(
        &self,
        charge_reference: &str,
    ) -> Result<Vec<SeenDispute>, ProviderError> {
        let call = format!("charges/{}/disputes", segment(charge_reference));
        let answer: disputes::Disputes = match self.question(&call).await {
            Err(ProviderError::Refused { code, .. }) if code == NO_SUCH_CALL => {
                return Err(ProviderError::without_disputes(&self.name));
            }
            answer => answer?,
        };
        let all = answer.disputes.into_iter().map(SeenDispute::try_from);
        all.collect::<Result<_, _>>()
            .map_err(|error: Invalid| ProviderError::Unavailable(error.to_string()))
    }

    async fn submit_evidence(
        &self,
        request: &SubmitEvidence,
    ) -> Result<SeenDispute, ProviderError> {
        let body = disputes::Submission::from(request);
        seen(self.command("evidence", &body).await?)
    }

    async fn accept_dispute(&self, request: &AcceptDispute) -> Result<SeenDispute, ProviderError> {
        let body = disputes::Acceptance::from(request);
        seen(self.command("acceptances", &body).await?)
    }

    /// Its webhooks name our references.
    async fn reference_of(&self, charge_ref: &str) -> Result<Option<String>, ProviderError> {
        Ok(Some(charge_ref.to_owned()))
    }

    fn verify_webhook(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        now_us: i64,
    ) -> Result<WebhookEvent, WebhookError> {
        webhook::verify(&self.webhook_secret, headers, body, now_us)
    }

    async fn transactions(&self, from: Option<&str>) -> Result<TransactionPage, ProviderError> {
        let page: messages::TransactionPage = self.question(&list("transactions", from)).await?;
        page.try_into()
            .map_err(|error: Invalid| ProviderError::Unavailable(error.to_string()))
    }

    async fn settlements(&self, from: Option<&str>) -> Result<SettlementPage, ProviderError> {
        let call = list("settlement_lines", from);
        let page: messages::SettlementPage = self.question(&call).await?;
        page.try_into()
            .map_err(|error: Invalid| ProviderError::Unavailable(error.to_string()))
    }

    fn since(&self, at_us: i64) -> String {
        format!("{SINCE}{at_us}")
    }
}
