//! RouteGuide on plain tonic: where the rungs begin.

use std::sync::Arc;

use routeguide::{
    Guide,
    pb::{route_guide_client::RouteGuideClient, route_guide_server::RouteGuideServer},
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Endpoint, Server};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}", listener.local_addr()?);
    let shutdown = CancellationToken::new();
    let service = RouteGuideServer::new(Arc::new(Guide::default()));
    let serving = Server::builder()
        .add_service(service)
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), shutdown.cancelled());
    let channel = Endpoint::from_shared(address)?.connect_lazy();
    let touring = async {
        let told = routeguide::tour(RouteGuideClient::new(channel)).await;
        shutdown.cancel();
        told
    };
    let (served, told) = tokio::join!(serving, touring);
    served?;
    print!("{}", told?);
    Ok(())
}
