//! One call of the protocol: whose it is, what it asks for, and the simulator's answer as HTTP.

use super::{
    BODY_BYTES_MAX, EVIDENCE_BYTES_MAX, NO_SUCH_CALL, UNAUTHENTICATED, UNAVAILABLE, disputes,
    messages,
};
use crate::provider::simulator::Simulator;
use crate::provider::{ChargeOutcome, Provider as _, ProviderError, Settlement};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use kernel::Invalid;
use mesh_runtime::config::Secret;
use percent_encoding::percent_decode_str;
use prometheus::{IntCounterVec, Opts, Registry};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use subtle::ConstantTimeEq as _;
use tokio_util::sync::CancellationToken;

/// How long a caller may take to send a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a silent connection is kept; no caller waits as long.
const SILENCE: Duration = Duration::from_mins(2);

/// What becomes of a connection whose answer is lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LostAnswers {
    /// It breaks at once.
    Close,
    /// It stays, and nothing comes.
    Silence,
    /// One or the other, by chance.
    #[default]
    Either,
}

/// The simulator behind the protocol.
pub struct Calls {
    simulator: Arc<Simulator>,
    key: Secret,
    lost_answers: LostAnswers,
    counted: IntCounterVec,
}

/// There is no answer: the connection ends without one.
#[derive(Debug, thiserror::Error)]
#[error("the answer is lost")]
pub(super) struct Lost;

/// Why a call is not answered as it wishes.
enum Failure {
    Protocol(StatusCode, &'static str, String),
    Provider(ProviderError),
}

/// What can be asked for.
enum Call {
    Capabilities,
    Authorize,
    Capture,
    Void,
    Refund,
    Authenticate,
    SetFaults,
    ReturnRefund,
    OpenDispute,
    DecideDispute,
    SubmitEvidence,
    AcceptDispute,
    Disputes(String),
    Charge(String),
    Settlement(String),
    Transactions(Option<String>),
    SettlementLines(Option<String>),
}

impl Calls {
    /// Calls to `simulator` for whoever has `key`; without one, for everybody.
    pub fn new(
        simulator: Arc<Simulator>,
        key: Secret,
        lost_answers: LostAnswers,
        registry: &Registry,
    ) -> prometheus::Result<Self> {
        let opts = Opts::new("simulator_calls_total", "Calls by how they were answered.");
        let counted = IntCounterVec::new(opts, &["call", "outcome"])?;
        registry.register(Box::new(counted.clone()))?;
        Ok(Self {
            simulator,
            key,
            lost_answers,
            counted,
        })
    }

    /// Answers a request, unless the answer is to be lost.
    pub(super) async fn answer(
        &self,
        request: Request<Incoming>,
        stopping: &CancellationToken,
    ) -> Result<Response<Full<Bytes>>, Lost> {
        let call = route(request.method(), request.uri());
        let name = call.as_ref().map_or("unknown", Call::name);
        let count = |outcome| self.counted.with_label_values(&[name, outcome]).inc();
        let failure = match self.carry_out(call, request).await {
            Ok(json) => {
                count("answered");
                return Ok(respond(StatusCode::OK, json));
            }
            Err(failure) => failure,
        };
        let (status, code, message) = match failure {
            Failure::Protocol(status, code, message) => (status, code.to_owned(), message),
            Failure::Provider(ProviderError::Refused { code, message }) => {
                (StatusCode::UNPROCESSABLE_ENTITY, code, message)
            }
            Failure::Provider(ProviderError::Unavailable(reason)) => {
                let code = UNAVAILABLE.to_owned();
                (StatusCode::SERVICE_UNAVAILABLE, code, reason)
            }
            Failure::Provider(ProviderError::Unknown(reason)) => {
                count("lost");
                tracing::debug!(call = name, reason, "no answer");
                self.fall_silent(stopping).await;
                return Err(Lost);
            }
        };
        count("refused");
        let error = messages::RefusalReason { code, message };
        Ok(respond(status, json(&messages::Refusal { error })))
    }

    async fn carry_out(
        &self,
        call: Option<Call>,
        request: Request<Incoming>,
    ) -> Result<Vec<u8>, Failure> {
        self.authenticate(request.headers().get(AUTHORIZATION))?;
        let Some(call) = call else {
            let asked = format!("{} {}", request.method(), request.uri().path());
            return Err(Failure::Protocol(
                StatusCode::NOT_FOUND,
                NO_SUCH_CALL,
                asked,
            ));
        };
        let bytes_max = match call {
            Call::SubmitEvidence => EVIDENCE_BYTES_MAX,
            _ => BODY_BYTES_MAX,
        };
        let body = read(request.into_body(), bytes_max).await?;
        let simulator = &*self.simulator;
        let answer = match call {
            Call::Capabilities => json(&messages::Capabilities::from(simulator.capabilities())),
            Call::Authorize => {
                let command = parse::<messages::Authorize>(&body)?.try_into()?;
                charge(Some(simulator.authorize(&command).await?))
            }
            Call::Capture => {
                let command = parse::<messages::Capture>(&body)?.try_into()?;
                settlement(Some(simulator.capture(&command).await?))
            }
            Call::Void => {
                let command = parse::<messages::Void>(&body)?.into();
                settlement(Some(simulator.void(&command).await?))
            }
            Call::Refund => {
                let command = parse::<messages::Refund>(&body)?.try_into()?;
                settlement(Some(simulator.refund(&command).await?))
            }
            Call::Authenticate => {
                let messages::Authentication { reference, ok } = parse(&body)?;
                let decided = simulator.authenticate(&reference, ok).await?;
                json(&messages::Decided { decided })
            }
            Call::SetFaults => {
                let wanted = parse::<messages::Misfortune>(&body)?;
                wanted.commands.validate("commands")?;
                wanted.webhooks.validate("webhooks")?;
                simulator.set_faults(wanted.commands);
                simulator.set_webhook_faults(wanted.webhooks);
                json(&wanted)
            }
            call @ (Call::ReturnRefund
            | Call::OpenDispute
            | Call::DecideDispute
            | Call::SubmitEvidence
            | Call::AcceptDispute
            | Call::Disputes(_)) => self.about_disputes(call, &body).await?,
            Call::Charge(reference) => charge(simulator.look_up_charge(&reference).await?),
            Call::Settlement(reference) => {
                settlement(simulator.look_up_settlement(&reference).await?)
            }
            Call::Transactions(from) => {
                let page = simulator.transactions(from.as_deref()).await?;
                json(&messages::TransactionPage::from(page))
            }
            Call::SettlementLines(from) => {
                let page = simulator.settlements(from.as_deref()).await?;
                json(&messages::SettlementPage::from(page))
            }
        };
        Ok(answer)
    }

    async fn about_disputes(&self, call: Call, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let simulator = &*self.simulator;
        let seen = match call {
            Call::Disputes(reference) => {
                let all = simulator.look_up_disputes(&reference).await?;
                let disputes = all.into_iter().map(Into::into).collect();
                return Ok(json(&disputes::Disputes { disputes }));
            }
            Call::ReturnRefund => {
                let wanted = parse::<disputes::Return>(body)?;
                simulator.return_refund(&wanted.reference).await?;
                return Ok(json(&disputes::Returned { returned: true }));
            }
            Call::OpenDispute => {
                let wanted = parse::<disputes::Opening>(body)?;
                let amount = wanted.amount.map(TryInto::try_into).transpose()?;
                let opened =
                    simulator.open_dispute(&wanted.charge_reference, amount, wanted.inquiry);
                let dispute_ref = opened.await?;
                return Ok(json(&disputes::Opened { dispute_ref }));
            }
            Call::DecideDispute => {
                let wanted = parse::<disputes::Decided>(body)?;
                let decided = simulator.decide_dispute(&wanted.dispute_ref, wanted.decision);
                decided.await?
            }
            Call::SubmitEvidence => {
                let command = parse::<disputes::Submission>(body)?.try_into()?;
                simulator.submit_evidence(&command).await?
            }
            _ => {
                let command = parse::<disputes::Acceptance>(body)?.into();
                simulator.accept_dispute(&command).await?
            }
        };
        let dispute = seen.into();
        Ok(json(&disputes::Answered { dispute }))
    }

    fn authenticate(&self, given: Option<&HeaderValue>) -> Result<(), Failure> {
        let key = given.and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        let wanted = self.key.expose().as_bytes();
        let right = wanted.is_empty() || key.is_some_and(|key| key.ct_eq(wanted).into());
        if right {
            return Ok(());
        }
        Err(Failure::Protocol(
            StatusCode::UNAUTHORIZED,
            UNAUTHENTICATED,
            "the key is missing or wrong".to_owned(),
        ))
    }

    async fn fall_silent(&self, stopping: &CancellationToken) {
        let silent = match self.lost_answers {
            LostAnswers::Close => false,
            LostAnswers::Silence => true,
            LostAnswers::Either => rand::random(),
        };
        if silent {
            // Ends sooner where the caller breaks the connection: nobody waits for this any more.
            let _ = tokio::time::timeout(SILENCE, stopping.cancelled()).await;
        }
    }
}

impl Call {
    fn name(&self) -> &'static str {
        match self {
            Self::Capabilities => "capabilities",
            Self::Authorize => "authorize",
            Self::Capture => "capture",
            Self::Void => "void",
            Self::Refund => "refund",
            Self::Authenticate => "authenticate",
            Self::SetFaults => "set_faults",
            Self::ReturnRefund => "return_refund",
            Self::OpenDispute => "open_dispute",
            Self::DecideDispute => "decide_dispute",
            Self::SubmitEvidence => "submit_evidence",
            Self::AcceptDispute => "accept_dispute",
            Self::Disputes(_) => "look_up_disputes",
            Self::Charge(_) => "look_up_charge",
            Self::Settlement(_) => "look_up_settlement",
            Self::Transactions(_) => "transactions",
            Self::SettlementLines(_) => "settlement_lines",
        }
    }
}

fn route(method: &Method, uri: &Uri) -> Option<Call> {
    let path: Vec<&str> = uri.path().strip_prefix("/v1/")?.split('/').collect();
    let call = match (method.as_str(), path.as_slice()) {
        ("GET", ["capabilities"]) => Call::Capabilities,
        ("POST", ["charges"]) => Call::Authorize,
        ("POST", ["captures"]) => Call::Capture,
        ("POST", ["voids"]) => Call::Void,
        ("POST", ["refunds"]) => Call::Refund,
        ("POST", ["authentications"]) => Call::Authenticate,
        ("PUT", ["faults"]) => Call::SetFaults,
        ("POST", ["returns"]) => Call::ReturnRefund,
        ("POST", ["disputes"]) => Call::OpenDispute,
        ("POST", ["decisions"]) => Call::DecideDispute,
        ("POST", ["evidence"]) => Call::SubmitEvidence,
        ("POST", ["acceptances"]) => Call::AcceptDispute,
        ("GET", ["charges", reference, "disputes"]) => Call::Disputes(decoded(reference)),
        ("GET", ["charges", reference]) => Call::Charge(decoded(reference)),
        ("GET", ["settlements", reference]) => Call::Settlement(decoded(reference)),
        ("GET", ["transactions"]) => Call::Transactions(place(uri)),
        ("GET", ["settlement_lines"]) => Call::SettlementLines(place(uri)),
        _ => return None,
    };
    Some(call)
}

/// Where a list is to be read on from.
fn place(uri: &Uri) -> Option<String> {
    let from = uri.query().and_then(|query| query.strip_prefix("from="));
    from.map(decoded)
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

async fn read(body: Incoming, bytes_max: usize) -> Result<Bytes, Failure> {
    let limited = Limited::new(body, bytes_max).collect();
    match tokio::time::timeout(BODY_TIMEOUT, limited).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Failure::Protocol(
            StatusCode::PAYLOAD_TOO_LARGE,
            "BODY_TOO_LARGE",
            format!("a body has at most {bytes_max} bytes"),
        )),
        Ok(Err(error)) => Err(unreadable(format!("the body broke off: {error}"))),
        Err(_) => Err(unreadable(format!(
            "the body took longer than {BODY_TIMEOUT:?}"
        ))),
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| unreadable(format!("body: {error}")))
}

fn charge(outcome: Option<ChargeOutcome>) -> Vec<u8> {
    json(&messages::Charged {
        charge: outcome.map(Into::into),
    })
}

fn settlement(settlement: Option<Settlement>) -> Vec<u8> {
    json(&messages::Settled {
        settlement: settlement.map(Into::into),
    })
}

fn json(answer: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(answer).expect("texts, numbers and flags are JSON")
}

fn unreadable(message: String) -> Failure {
    Failure::Protocol(StatusCode::BAD_REQUEST, "INVALID_REQUEST", message)
}

fn respond(status: StatusCode, json: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(json.into()));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

impl From<ProviderError> for Failure {
    fn from(error: ProviderError) -> Self {
        Self::Provider(error)
    }
}

impl From<Invalid> for Failure {
    fn from(invalid: Invalid) -> Self {
        unreadable(invalid.to_string())
    }
}
