//! The server of the tests: stateless, does what each request asks for.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use http_body_util::BodyExt as _;
use tonic::{
    Code, Request, Response, Status, Streaming,
    body::Body,
    codegen::{
        BoxFuture, BoxStream, Service,
        http::{self, HeaderName},
    },
    server::NamedService,
};

use crate::{
    payload,
    pb::{
        EchoStatus, Empty, ResponseParameters, SimpleRequest, SimpleResponse,
        StreamingInputCallRequest, StreamingInputCallResponse, StreamingOutputCallRequest,
        StreamingOutputCallResponse,
        test_service_server::{TestService, TestServiceServer},
    },
};

/// The longest payload that can be asked for, in bytes.
const PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// Comes back in the headers.
pub const ECHO_INITIAL: &str = "x-grpc-test-echo-initial";
/// Comes back in the trailers.
pub const ECHO_TRAILING: &str = "x-grpc-test-echo-trailing-bin";

/// The service, for any server of tonic services.
pub fn service() -> EchoMetadata<TestServiceServer<Handler>> {
    EchoMetadata(TestServiceServer::new(Handler))
}

/// Implements `grpc.testing.TestService`, but for `UnimplementedCall`.
#[derive(Clone, Copy, Debug)]
pub struct Handler;

#[tonic::async_trait]
impl TestService for Handler {
    async fn empty_call(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        Ok(Response::new(Empty {}))
    }

    async fn unary_call(
        &self,
        request: Request<SimpleRequest>,
    ) -> Result<Response<SimpleResponse>, Status> {
        let request = request.into_inner();
        echo(request.response_status)?;
        Ok(Response::new(SimpleResponse {
            payload: Some(payload(length(request.response_size)?)),
            ..SimpleResponse::default()
        }))
    }

    async fn streaming_output_call(
        &self,
        request: Request<StreamingOutputCallRequest>,
    ) -> Result<Response<BoxStream<StreamingOutputCallResponse>>, Status> {
        let request = request.into_inner();
        echo(request.response_status)?;
        Ok(Response::new(Box::pin(answers(
            request.response_parameters,
        ))))
    }

    async fn streaming_input_call(
        &self,
        request: Request<Streaming<StreamingInputCallRequest>>,
    ) -> Result<Response<StreamingInputCallResponse>, Status> {
        let sum = |sum: usize, request: StreamingInputCallRequest| {
            let bytes = request.payload.map_or(0, |payload| payload.body.len());
            std::future::ready(Ok(sum + bytes))
        };
        let bytes = request.into_inner().try_fold(0, sum).await?;
        let aggregated_payload_size = i32::try_from(bytes)
            .map_err(|_| Status::out_of_range("the payloads are longer than can be said"))?;
        Ok(Response::new(StreamingInputCallResponse {
            aggregated_payload_size,
        }))
    }

    async fn full_duplex_call(
        &self,
        request: Request<Streaming<StreamingOutputCallRequest>>,
    ) -> Result<Response<BoxStream<StreamingOutputCallResponse>>, Status> {
        let requests = request.into_inner();
        let answers = requests
            .and_then(|request| {
                let echoed = echo(request.response_status);
                std::future::ready(echoed.map(|()| answers(request.response_parameters)))
            })
            .try_flatten();
        Ok(Response::new(Box::pin(answers)))
    }
}

fn answers(
    parameters: Vec<ResponseParameters>,
) -> impl Stream<Item = Result<StreamingOutputCallResponse, Status>> {
    stream::iter(parameters).then(|asked| async move {
        let interval_us = u64::try_from(asked.interval_us).unwrap_or(0);
        if interval_us > 0 {
            tokio::time::sleep(Duration::from_micros(interval_us)).await;
        }
        Ok(StreamingOutputCallResponse {
            payload: Some(payload(length(asked.size)?)),
        })
    })
}

/// The status that the client wants to see.
fn echo(status: Option<EchoStatus>) -> Result<(), Status> {
    match status {
        Some(status) if status.code != 0 => {
            Err(Status::new(Code::from(status.code), status.message))
        }
        _ => Ok(()),
    }
}

fn length(bytes: i32) -> Result<usize, Status> {
    let length = usize::try_from(bytes)
        .ok()
        .filter(|bytes| *bytes <= PAYLOAD_BYTES_MAX);
    length.ok_or_else(|| Status::invalid_argument(format!("no payload has {bytes} bytes")))
}

/// Sends two headers of each request back, one in the headers and one in the trailers: what tonic lets a handler
/// add to an answer goes into the headers only.
#[derive(Clone, Debug)]
pub struct EchoMetadata<S>(S);

impl<S: NamedService> NamedService for EchoMetadata<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for EchoMetadata<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Future: Send + 'static>,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let [initial, trailing] =
            [ECHO_INITIAL, ECHO_TRAILING].map(|name| request.headers().get(name).cloned());
        let calling = self.0.call(request);
        Box::pin(async move {
            let mut response = calling.await?;
            if let Some(value) = initial {
                let headers = response.headers_mut();
                headers.insert(HeaderName::from_static(ECHO_INITIAL), value);
            }
            let Some(value) = trailing else {
                return Ok(response);
            };
            Ok(response.map(|body| {
                Body::new(body.map_frame(move |mut frame| {
                    if let Some(trailers) = frame.trailers_mut() {
                        trailers.insert(HeaderName::from_static(ECHO_TRAILING), value.clone());
                    }
                    frame
                }))
            }))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_has_a_length_that_can_be_had() {
        assert_eq!(length(314_159).unwrap(), 314_159);
        assert_eq!(length(-1).unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(length(i32::MAX).unwrap_err().code(), Code::InvalidArgument);
    }

    #[tokio::test(start_paused = true)]
    async fn answers_come_in_order_and_wait_as_told() {
        let began = tokio::time::Instant::now();
        let asked = |size, interval_us| ResponseParameters {
            size,
            interval_us,
            compressed: None,
        };
        let answers = answers(vec![asked(9, 0), asked(3, 2_000_000)]);
        let lengths: Vec<_> = answers
            .map_ok(|answer| answer.payload.unwrap().body.len())
            .try_collect()
            .await
            .unwrap();
        assert_eq!(lengths, [9, 3]);
        assert_eq!(began.elapsed(), Duration::from_secs(2));
    }
}
