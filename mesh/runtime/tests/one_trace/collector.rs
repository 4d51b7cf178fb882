//! A collector that keeps what it receives.

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value,
    trace::v1::Span,
};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

pub(crate) struct Collector {
    pub(crate) url: String,
    requests: mpsc::UnboundedReceiver<ExportTraceServiceRequest>,
    serving: JoinHandle<()>,
}

struct Service(mpsc::UnboundedSender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let _ = self.0.send(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("loopback has a free port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let (send, requests) = mpsc::unbounded_channel();
        let serving = tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(Service(send)))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let serving = mesh::spawn(async move { drop(serving.await) });
        Self {
            url,
            requests,
            serving,
        }
    }

    /// The service's name, and every span that has come. To be asked after the sender has flushed.
    pub(crate) async fn received(mut self) -> (String, Vec<Span>) {
        self.serving.abort();
        let _ = self.serving.await;
        let (mut name, mut spans) = (String::new(), Vec::new());
        while let Ok(request) = self.requests.try_recv() {
            for of_resource in request.resource_spans {
                let attributes = of_resource.resource.unwrap_or_default().attributes;
                let named = attributes.into_iter().find(|one| one.key == "service.name");
                let value = named.and_then(|named| named.value?.value);
                if let Some(Value::StringValue(value)) = value {
                    name = value;
                }
                let of_scopes = of_resource.scope_spans.into_iter();
                spans.extend(of_scopes.flat_map(|of_scope| of_scope.spans));
            }
        }
        (name, spans)
    }
}
