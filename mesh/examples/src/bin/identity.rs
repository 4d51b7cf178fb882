//! The fourth rung: both ends prove who they are. Takes a configuration file with `[identity]`.

use std::sync::Arc;

use mesh::{Config, Contract, Mesh, Registry};
use routeguide::{
    Guide,
    pb::{route_guide_client::RouteGuideClient, route_guide_server::RouteGuideServer},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}", listener.local_addr()?);
    let shutdown = CancellationToken::new();
    let service = RouteGuideServer::new(Arc::new(Guide::default()));
    let file = std::env::args().nth(1).unwrap_or("mesh.toml".to_owned());
    let mut config: Config = toml::from_str(&std::fs::read_to_string(file)?)?;
    config.destinations = Config::calling([("route-guide", address)]).destinations;
    let contract = Contract::new(tonic::include_file_descriptor_set!("contract"))?;
    let mesh = Mesh::start(config, contract, &Registry::new()).await?;
    let serving = mesh.server().add(service).serve(listener, shutdown.clone());
    let channel = mesh.client("route-guide");
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
