//! The cases that a client goes through, and what it has to see in each.
//!
//! A call that its client cancels has nobody left to be told its status: there the mesh's own count of ended calls
//! is asked. Whether the server has noticed is for the server to say.

use std::{future::pending, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use mesh::{Client, Mesh};
use prometheus::{Registry, proto::MetricFamily};
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming, metadata::MetadataValue};

use crate::{
    DESTINATION, payload,
    pb::{
        EchoStatus, Empty, ResponseParameters, SimpleRequest, StreamingInputCallRequest,
        StreamingOutputCallRequest, StreamingOutputCallResponse,
        test_service_client::TestServiceClient,
        unimplemented_service_client::UnimplementedServiceClient,
    },
    server::{ECHO_INITIAL, ECHO_TRAILING},
};

const LARGE_REQUEST_BYTES: usize = 271_828;
const LARGE_RESPONSE_BYTES: i32 = 314_159;
const REQUESTS_BYTES: [usize; 4] = [27_182, 8, 1_828, 45_904];
const RESPONSES_BYTES: [i32; 4] = [31_415, 9, 2_653, 58_979];
const INITIAL: &str = "test_initial_metadata_value";
const TRAILING: [u8; 3] = [0xab; 3];
/// Whitespace, and characters of one and of two UTF-16 units.
const SPECIAL: &str =
    "\t\ntest with whitespace\r\nand Unicode BMP \u{263a} and non-BMP \u{1f608}\t\n";
/// Shorter than any call takes.
const TOO_SHORT: Duration = Duration::from_millis(1);

/// A case by its official name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
#[expect(missing_docs, reason = "gRPC's document says what each is")]
pub enum Case {
    EmptyUnary,
    LargeUnary,
    ClientStreaming,
    ServerStreaming,
    PingPong,
    EmptyStream,
    StatusCodeAndMessage,
    SpecialStatusMessage,
    CustomMetadata,
    UnimplementedMethod,
    UnimplementedService,
    CancelAfterBegin,
    CancelAfterFirstResponse,
    TimeoutOnSleepingServer,
}

/// Calls a server of the tests through the mesh.
pub struct Caller {
    test: TestServiceClient<Client>,
    unimplemented: UnimplementedServiceClient<Client>,
    registry: Registry,
}

impl Caller {
    /// Of a mesh that knows [`DESTINATION`] and registers its metrics in `registry`.
    pub fn new(mesh: &Mesh, registry: Registry) -> Caller {
        let client = mesh.client(DESTINATION);
        Caller {
            test: TestServiceClient::new(client.clone()),
            unimplemented: UnimplementedServiceClient::new(client),
            registry,
        }
    }

    /// Goes through a case. An error says what was not as it should be.
    pub async fn run(&mut self, case: Case) -> Result<()> {
        match case {
            Case::EmptyUnary => self.empty_unary().await,
            Case::LargeUnary => self.large_unary().await,
            Case::ClientStreaming => self.client_streaming().await,
            Case::ServerStreaming => self.server_streaming().await,
            Case::PingPong => self.ping_pong().await,
            Case::EmptyStream => self.empty_stream().await,
            Case::StatusCodeAndMessage => self.status_code_and_message().await,
            Case::SpecialStatusMessage => self.unary_status(SPECIAL).await,
            Case::CustomMetadata => self.custom_metadata().await,
            Case::UnimplementedMethod => {
                unimplemented(self.test.unimplemented_call(Empty {}).await)
            }
            Case::UnimplementedService => {
                unimplemented(self.unimplemented.unimplemented_call(Empty {}).await)
            }
            Case::CancelAfterBegin => self.cancel_after_begin().await,
            Case::CancelAfterFirstResponse => self.cancel_after_first_response().await,
            Case::TimeoutOnSleepingServer => self.timeout_on_sleeping_server().await,
        }
    }

    async fn empty_unary(&mut self) -> Result<()> {
        let answer = self.test.empty_call(Empty {}).await?.into_inner();
        ensure!(answer == Empty {}, "the answer is not empty");
        Ok(())
    }

    async fn large_unary(&mut self) -> Result<()> {
        let answer = self.test.unary_call(large()).await?.into_inner();
        zeros(answer.payload, LARGE_RESPONSE_BYTES)
    }

    async fn client_streaming(&mut self) -> Result<()> {
        let requests = REQUESTS_BYTES.map(|bytes| StreamingInputCallRequest {
            payload: Some(payload(bytes)),
            expect_compressed: None,
        });
        let answer = self.test.streaming_input_call(stream::iter(requests));
        let bytes = answer.await?.into_inner().aggregated_payload_size;
        ensure!(bytes == 74_922, "the server counted {bytes} bytes");
        Ok(())
    }

    async fn server_streaming(&mut self) -> Result<()> {
        let request = StreamingOutputCallRequest {
            response_parameters: RESPONSES_BYTES.map(response).to_vec(),
            ..StreamingOutputCallRequest::default()
        };
        let mut answers = self.test.streaming_output_call(request).await?.into_inner();
        for bytes in RESPONSES_BYTES {
            next(&mut answers, bytes).await?;
        }
        end(&mut answers).await
    }

    async fn ping_pong(&mut self) -> Result<()> {
        let mut pairs = REQUESTS_BYTES.into_iter().zip(RESPONSES_BYTES);
        let (ask, asked) = mpsc::channel(1);
        let (request, first) = pairs.next().context("there is a first request")?;
        // Before the call is awaited: a server may keep its headers back until it has something to say.
        ask.send(duplex(request, Some(first))).await?;
        let answers = self.test.full_duplex_call(ReceiverStream::new(asked)).await;
        let mut answers = answers?.into_inner();
        next(&mut answers, first).await?;
        for (request, response) in pairs {
            ask.send(duplex(request, Some(response))).await?;
            next(&mut answers, response).await?;
        }
        drop(ask);
        end(&mut answers).await
    }

    async fn empty_stream(&mut self) -> Result<()> {
        let answers = self.test.full_duplex_call(stream::empty()).await?;
        end(&mut answers.into_inner()).await
    }

    async fn status_code_and_message(&mut self) -> Result<()> {
        let message = "test status message";
        self.unary_status(message).await?;
        let request = StreamingOutputCallRequest {
            response_status: Some(unknown(message)),
            ..StreamingOutputCallRequest::default()
        };
        let answers = self.test.full_duplex_call(stream::iter([request])).await;
        refused(first(answers).await, message)
    }

    async fn unary_status(&mut self, message: &str) -> Result<()> {
        let request = SimpleRequest {
            response_status: Some(unknown(message)),
            ..SimpleRequest::default()
        };
        refused(self.test.unary_call(request).await, message)
    }

    async fn custom_metadata(&mut self) -> Result<()> {
        let answer = self.test.unary_call(with_metadata(large())).await?;
        // tonic puts the trailers of a unary answer among its headers.
        let found = answer.metadata().get(ECHO_INITIAL);
        ensure!(
            found.is_some_and(|value| value == INITIAL),
            "the headers hold {found:?}"
        );
        trailing(answer.metadata())?;

        let request = duplex(LARGE_REQUEST_BYTES, Some(LARGE_RESPONSE_BYTES));
        let requests = with_metadata(stream::iter([request]));
        let answers = self.test.full_duplex_call(requests).await?;
        let found = answers.metadata().get(ECHO_INITIAL);
        ensure!(
            found.is_some_and(|value| value == INITIAL),
            "the headers of the stream hold {found:?}"
        );
        let mut answers = answers.into_inner();
        next(&mut answers, LARGE_RESPONSE_BYTES).await?;
        end(&mut answers).await?;
        trailing(&answers.trailers().await?.unwrap_or_default())
    }

    async fn cancel_after_begin(&mut self) -> Result<()> {
        let before = self.cancelled("StreamingInputCall");
        // The body is asked for when the headers have gone out.
        let begun = Arc::new(Notify::new());
        let requests = stream::once({
            let begun = begun.clone();
            async move {
                begun.notify_one();
                pending().await
            }
        });
        tokio::select! {
            answer = self.test.streaming_input_call(requests) => {
                bail!("the call ended by itself: {answer:?}")
            }
            () = begun.notified() => {} // What is not awaited any more is cancelled.
        }
        let ended = self.cancelled("StreamingInputCall") - before;
        ensure!(ended == 1, "{ended} calls have ended with CANCELLED");
        Ok(())
    }

    async fn cancel_after_first_response(&mut self) -> Result<()> {
        let before = self.cancelled("FullDuplexCall");
        let request = duplex(REQUESTS_BYTES[0], Some(RESPONSES_BYTES[0]));
        let requests = stream::iter([request]).chain(stream::pending());
        let answers = self.test.full_duplex_call(requests).await?;
        let mut answers = answers.into_inner();
        next(&mut answers, RESPONSES_BYTES[0]).await?;
        drop(answers);
        let ended = self.cancelled("FullDuplexCall") - before;
        ensure!(ended == 1, "{ended} calls have ended with CANCELLED");
        Ok(())
    }

    async fn timeout_on_sleeping_server(&mut self) -> Result<()> {
        let requests = stream::iter([duplex(REQUESTS_BYTES[0], None)]).chain(stream::pending());
        let mut request = Request::new(requests);
        request.set_timeout(TOO_SHORT);
        let answers = self.test.full_duplex_call(request).await;
        match first(answers).await {
            Err(status) if status.code() == Code::DeadlineExceeded => Ok(()),
            ended => bail!("the call ended with {ended:?}"),
        }
    }

    /// How many calls of a method have ended with CANCELLED, by the mesh's own metric.
    fn cancelled(&self, method: &str) -> u64 {
        let method = format!("grpc.testing.TestService/{method}");
        let families = self.registry.gather();
        let counted = families
            .iter()
            .filter(|family| family.name() == "grpc_client_call_duration_seconds")
            .flat_map(MetricFamily::get_metric);
        let labelled = counted.filter(|metric| {
            let has = |text: &str| metric.get_label().iter().any(|label| label.value() == text);
            has(&method) && has("CANCELLED")
        });
        labelled.fold(0, |sum, metric| {
            sum + metric.get_histogram().get_sample_count()
        })
    }
}

fn large() -> SimpleRequest {
    SimpleRequest {
        response_size: LARGE_RESPONSE_BYTES,
        payload: Some(payload(LARGE_REQUEST_BYTES)),
        ..SimpleRequest::default()
    }
}

/// A request of so many bytes that wants no answer or one of so many.
fn duplex(bytes: usize, answer: Option<i32>) -> StreamingOutputCallRequest {
    StreamingOutputCallRequest {
        response_parameters: answer.map(response).into_iter().collect(),
        payload: Some(payload(bytes)),
        response_status: None,
    }
}

fn response(bytes: i32) -> ResponseParameters {
    ResponseParameters {
        size: bytes,
        ..ResponseParameters::default()
    }
}

fn unknown(message: &str) -> EchoStatus {
    EchoStatus {
        code: Code::Unknown.into(),
        message: message.to_owned(),
    }
}

fn with_metadata<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let metadata = request.metadata_mut();
    metadata.insert(ECHO_INITIAL, MetadataValue::from_static(INITIAL));
    metadata.insert_bin(ECHO_TRAILING, MetadataValue::from_bytes(&TRAILING));
    request
}

fn trailing(metadata: &tonic::metadata::MetadataMap) -> Result<()> {
    let found = metadata.get_bin(ECHO_TRAILING);
    let bytes = found.context("the trailers hold nothing")?.to_bytes()?;
    ensure!(bytes[..] == TRAILING, "the trailers hold {bytes:?}");
    Ok(())
}

/// The first answer of a stream, or the status with which it ended instead.
async fn first<T>(
    answers: Result<tonic::Response<Streaming<T>>, Status>,
) -> Result<Option<T>, Status> {
    answers?.into_inner().try_next().await
}

async fn next(answers: &mut Streaming<StreamingOutputCallResponse>, bytes: i32) -> Result<()> {
    let answer = answers.try_next().await?;
    zeros(answer.context("the stream ended early")?.payload, bytes)
}

async fn end(answers: &mut Streaming<StreamingOutputCallResponse>) -> Result<()> {
    let more = answers.try_next().await?;
    ensure!(more.is_none(), "there is an answer too many");
    Ok(())
}

fn zeros(payload: Option<crate::pb::Payload>, bytes: i32) -> Result<()> {
    let body = payload.context("there is no payload")?.body;
    ensure!(
        body.len() == usize::try_from(bytes)?,
        "the payload has {} bytes",
        body.len()
    );
    ensure!(
        body.iter().all(|byte| *byte == 0),
        "the payload is not zero"
    );
    Ok(())
}

/// It has to have ended with UNKNOWN and this text.
fn refused<T: std::fmt::Debug>(ended: Result<T, Status>, message: &str) -> Result<()> {
    match ended {
        Err(status) if status.code() == Code::Unknown && status.message() == message => Ok(()),
        ended => bail!("the call ended with {ended:?}"),
    }
}

fn unimplemented<T: std::fmt::Debug>(ended: Result<T, Status>) -> Result<()> {
    match ended {
        Err(status) if status.code() == Code::Unimplemented => Ok(()),
        ended => bail!("the call ended with {ended:?}"),
    }
}
