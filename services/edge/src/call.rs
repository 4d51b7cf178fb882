//! Calls of any method, by its path, with messages as bytes. Deadline, trace and principal come from the
//! context that the call is made in.

use bytes::Bytes;
use futures_util::Stream;
use tonic::{
    Extensions, Request, Response, Status, Streaming, client::Grpc, metadata::MetadataMap,
};

use crate::{app::Target, codec::BytesCodec, request::Prepared};

/// A request that waits for nothing: what it needs has been read.
fn request<T>(metadata: MetadataMap, message: T) -> Request<T> {
    Request::from_parts(metadata, Extensions::default(), message)
}

fn grpc(target: &Target) -> Grpc<mesh::Client> {
    // The mesh's own limit is the one that counts; tonic's would be lower by default.
    Grpc::new(target.client.clone()).max_decoding_message_size(target.message_bytes_max)
}

/// One message there, one back.
pub(crate) async fn unary(target: &Target, prepared: Prepared) -> Result<Response<Bytes>, Status> {
    let mut grpc = grpc(target);
    grpc.ready().await?;
    let request = request(prepared.metadata, Ok(prepared.message));
    grpc.unary(request, target.path.clone(), BytesCodec).await
}

/// One message there, a stream back.
pub(crate) async fn server_streaming(
    target: &Target,
    prepared: Prepared,
) -> Result<Response<Streaming<Bytes>>, Status> {
    let mut grpc = grpc(target);
    grpc.ready().await?;
    let request = request(prepared.metadata, Ok(prepared.message));
    grpc.server_streaming(request, target.path.clone(), BytesCodec)
        .await
}

/// A stream there, one message back. An error in the stream resets it.
pub(crate) async fn client_streaming(
    target: &Target,
    metadata: MetadataMap,
    messages: impl Stream<Item = Result<Bytes, Status>> + Send + 'static,
) -> Result<Response<Bytes>, Status> {
    let mut grpc = grpc(target);
    grpc.ready().await?;
    let request = request(metadata, messages);
    grpc.client_streaming(request, target.path.clone(), BytesCodec)
        .await
}
