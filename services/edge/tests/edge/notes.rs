//! A small service of the tests' own: what it does depends on the id or the text that it is asked for.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{Stream, StreamExt as _, stream};
use http::{Request, Response};
use mesh::CallContext;
use mesh_proto::google_api::HttpBody;
use tokio::sync::Notify;
use tonic::{Code, Status, Streaming, body::Body, server::NamedService};
use tonic_prost::ProstCodec;
use tonic_types::{ErrorDetails, StatusExt as _};
use tower::Service;

/// A note.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Note {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(string, tag = "2")]
    pub(crate) text: String,
    #[prost(string, tag = "3")]
    pub(crate) etag: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct GetNoteRequest {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct NoteResponse {
    #[prost(message, optional, tag = "1")]
    note: Option<Note>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CreateNoteRequest {
    #[prost(message, optional, tag = "1")]
    note: Option<Note>,
    #[prost(string, tag = "2")]
    request_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct FieldMask {
    #[prost(string, repeated, tag = "1")]
    paths: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct UpdateNoteRequest {
    #[prost(message, optional, tag = "1")]
    note: Option<Note>,
    #[prost(message, optional, tag = "2")]
    update_mask: Option<FieldMask>,
    #[prost(string, tag = "3")]
    request_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WatchNotesRequest {
    #[prost(int64, optional, tag = "1")]
    resume_revision: Option<i64>,
    #[prost(string, tag = "2")]
    ending: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WatchNotesResponse {
    #[prost(int64, tag = "1")]
    revision: i64,
    #[prost(message, optional, tag = "2")]
    note: Option<Note>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ImportNotesRequest {
    #[prost(string, tag = "1")]
    language: String,
    #[prost(message, optional, tag = "2")]
    file: Option<HttpBody>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ImportNotesResponse {
    #[prost(string, tag = "1")]
    language: String,
    #[prost(string, tag = "2")]
    content_type: String,
    #[prost(int64, tag = "3")]
    bytes: i64,
    #[prost(int32, tag = "4")]
    pieces: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ExportNotesRequest {
    #[prost(string, tag = "1")]
    ending: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ExportNotesResponse {
    #[prost(message, optional, tag = "1")]
    file: Option<HttpBody>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ReceiveHookRequest {
    #[prost(string, tag = "1")]
    sender: String,
    #[prost(message, optional, tag = "2")]
    body: Option<HttpBody>,
}

/// What the tests see of the service from outside.
#[derive(Clone, Default)]
pub(crate) struct Observed {
    /// Calls that were dropped before they had ended.
    pub(crate) cancelled: Arc<AtomicUsize>,
    /// Uploads that ended in good order.
    pub(crate) imported: Arc<AtomicUsize>,
    /// Told at each call that then waits for ever, at each piece of an upload, and at each call that is
    /// cancelled.
    pub(crate) event: Arc<Notify>,
}

/// Counts itself as cancelled unless it is disarmed.
struct Armed(Observed);

impl Armed {
    fn disarm(self) {
        std::mem::forget(self);
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        self.0.cancelled.fetch_add(1, Ordering::SeqCst);
        self.0.event.notify_one();
    }
}

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn note(id: &str, text: impl Into<String>) -> NoteResponse {
    let note = Note {
        id: id.to_owned(),
        text: text.into(),
        etag: "v1".to_owned(),
    };
    NoteResponse { note: Some(note) }
}

/// What the service saw of the call.
fn seen() -> String {
    let context = CallContext::current();
    let principal = context.principal();
    format!(
        "{} [{}] {} {}",
        principal.name(),
        principal.scopes().join(" "),
        context.request_id().unwrap_or("-"),
        context.trace_id(),
    )
}

fn failed(code: Code, reason: &str) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, "note.edge", []);
    if code == Code::InvalidArgument {
        details.add_bad_request_violation("note.page_size", "must be positive");
    }
    if code == Code::Aborted {
        details.set_retry_info(Some(Duration::from_secs(2)));
    }
    Status::with_error_details(code, format!("note: {reason}"), details)
}

async fn get(observed: Observed, id: String) -> Result<tonic::Response<NoteResponse>, Status> {
    match id.as_str() {
        "missing" => Err(failed(Code::NotFound, "NOTE_NOT_FOUND")),
        "wrong" => Err(failed(Code::InvalidArgument, "INVALID")),
        "full" => Err(Status::resource_exhausted("later")),
        "broken" => Err(Status::internal("SELECT secret FROM notes")),
        "panic" => panic!("a bug with a secret"),
        "slow" => {
            let armed = Armed(observed.clone());
            observed.event.notify_one();
            std::future::pending::<()>().await;
            armed.disarm();
            unreachable!("pending never ends")
        }
        id => Ok(tonic::Response::new(note(id, seen()))),
    }
}

fn create(request: CreateNoteRequest) -> Result<tonic::Response<NoteResponse>, Status> {
    let text = request.note.unwrap_or_default().text;
    match text.as_str() {
        "reused" => Err(failed(Code::InvalidArgument, "IDEMPOTENCY_KEY_REUSED")),
        "in flight" => Err(failed(Code::Aborted, "REQUEST_IN_FLIGHT")),
        _ => {
            let mut response = tonic::Response::new(note(&request.request_id, text.clone()));
            if text == "again" {
                response
                    .metadata_mut()
                    .insert("idempotency-replayed", "true".parse().unwrap());
            }
            Ok(response)
        }
    }
}

fn update(request: UpdateNoteRequest) -> Result<tonic::Response<NoteResponse>, Status> {
    let wanted = request.note.unwrap_or_default();
    if wanted.etag == "stale" {
        return Err(failed(Code::Aborted, "ETAG_MISMATCH"));
    }
    let mask = request.update_mask.unwrap_or_default().paths.join(",");
    let text = format!("{mask} {} {}", wanted.text, wanted.etag);
    Ok(tonic::Response::new(note(&wanted.id, text)))
}

fn watch(
    observed: &Observed,
    request: WatchNotesRequest,
) -> Result<tonic::Response<Messages<WatchNotesResponse>>, Status> {
    let from = request.resume_revision.unwrap_or(0);
    if from > 100 {
        return Err(failed(Code::OutOfRange, "REVISION_GONE"));
    }
    let change = |revision| {
        let note = Note {
            text: "한 line\nbreak".to_owned(),
            ..Note::default()
        };
        Ok(WatchNotesResponse {
            revision,
            note: Some(note),
        })
    };
    let changes = stream::iter([change(from + 1), change(from + 2)]);
    let armed = Armed(observed.clone());
    let ending: Messages<WatchNotesResponse> = match request.ending.as_str() {
        "end" => {
            armed.disarm();
            Box::pin(stream::empty())
        }
        "fail" => {
            armed.disarm();
            Box::pin(stream::iter([Err(failed(
                Code::NotFound,
                "NOTE_NOT_FOUND",
            ))]))
        }
        _ => Box::pin(stream::once(async move {
            let _armed = armed;
            std::future::pending().await
        })),
    };
    Ok(tonic::Response::new(Box::pin(changes.chain(ending))))
}

async fn import(
    observed: Observed,
    mut pieces: Streaming<ImportNotesRequest>,
) -> Result<tonic::Response<ImportNotesResponse>, Status> {
    let mut found = ImportNotesResponse::default();
    let armed = Armed(observed.clone());
    while let Some(piece) = pieces.message().await? {
        if found.pieces == 0 {
            found.language = piece.language;
        }
        let file = piece.file.unwrap_or_default();
        if !file.content_type.is_empty() {
            found.content_type = file.content_type;
        }
        found.bytes += i64::try_from(file.data.len()).unwrap();
        found.pieces += 1;
        observed.event.notify_one();
    }
    armed.disarm();
    observed.imported.fetch_add(1, Ordering::SeqCst);
    Ok(tonic::Response::new(found))
}

fn export(
    request: ExportNotesRequest,
) -> Result<tonic::Response<Messages<ExportNotesResponse>>, Status> {
    let piece = |content_type: &str, data: &[u8]| {
        let file = HttpBody {
            content_type: content_type.to_owned(),
            data: data.to_vec(),
            extensions: Vec::new(),
        };
        Ok(ExportNotesResponse { file: Some(file) })
    };
    let pieces = match request.ending.as_str() {
        "refused" => return Err(failed(Code::FailedPrecondition, "CURRENCY")),
        "at once" => vec![Err(failed(Code::FailedPrecondition, "CURRENCY"))],
        "fail" => vec![
            piece("text/csv", b"a,b\n"),
            Err(failed(Code::Unavailable, "GONE")),
        ],
        "nothing" => vec![],
        _ => vec![piece("text/csv", b"a,b\n"), piece("", b"1,2\n")],
    };
    Ok(tonic::Response::new(Box::pin(stream::iter(pieces))))
}

fn hook(request: tonic::Request<ReceiveHookRequest>) -> tonic::Response<NoteResponse> {
    let header = |name: &str| {
        request
            .metadata()
            .get(name)
            .map_or("-", |v| v.to_str().unwrap_or("?"))
            .to_owned()
    };
    let (signature, other) = (header("webhook-signature"), header("x-other"));
    let ReceiveHookRequest { sender, body } = request.into_inner();
    let body = body.unwrap_or_default();
    let data = String::from_utf8_lossy(&body.data).into_owned();
    let text = format!(
        "{sender} {} {data} {signature} {other} {}",
        body.content_type,
        seen()
    );
    tonic::Response::new(note("hook", text))
}

/// `edge.note.v1.NoteService`.
#[derive(Clone)]
pub(crate) struct NoteServer(pub(crate) Observed);

impl NamedService for NoteServer {
    const NAME: &'static str = "edge.note.v1.NoteService";
}

impl Service<Request<Body>> for NoteServer {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let observed = self.0.clone();
        let method = request
            .uri()
            .path()
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .to_owned();
        Box::pin(async move { Ok(serve(observed, &method, request).await) })
    }
}

async fn serve(observed: Observed, method: &str, request: Request<Body>) -> Response<Body> {
    use tonic::server::Grpc;
    use tower::service_fn;
    match method {
        "GetNote" => {
            let service = service_fn(move |request: tonic::Request<GetNoteRequest>| {
                get(observed.clone(), request.into_inner().id)
            });
            Grpc::new(ProstCodec::default())
                .unary(service, request)
                .await
        }
        "CreateNote" => {
            let service = service_fn(|request: tonic::Request<CreateNoteRequest>| async {
                create(request.into_inner())
            });
            Grpc::new(ProstCodec::default())
                .unary(service, request)
                .await
        }
        "UpdateNote" => {
            let service = service_fn(|request: tonic::Request<UpdateNoteRequest>| async {
                update(request.into_inner())
            });
            Grpc::new(ProstCodec::default())
                .unary(service, request)
                .await
        }
        "WatchNotes" => {
            let service = service_fn(move |request: tonic::Request<WatchNotesRequest>| {
                let answer = watch(&observed, request.into_inner());
                async { answer }
            });
            Grpc::new(ProstCodec::default())
                .server_streaming(service, request)
                .await
        }
        "ImportNotes" => {
            let service = service_fn(
                move |request: tonic::Request<Streaming<ImportNotesRequest>>| {
                    import(observed.clone(), request.into_inner())
                },
            );
            Grpc::new(ProstCodec::default())
                .client_streaming(service, request)
                .await
        }
        "ExportNotes" => {
            let service = service_fn(|request: tonic::Request<ExportNotesRequest>| async {
                export(request.into_inner())
            });
            Grpc::new(ProstCodec::default())
                .server_streaming(service, request)
                .await
        }
        "ReceiveHook" => {
            let service = service_fn(|request: tonic::Request<ReceiveHookRequest>| async {
                Ok(hook(request))
            });
            Grpc::new(ProstCodec::default())
                .unary(service, request)
                .await
        }
        method => panic!("the edge must not call {method}"),
    }
}
