//! The widget service as a process of its own.

use chassis::Opened;
use clap::Parser as _;
use mesh_runtime::config;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = chassis::Args::parse();
    let loaded = config::load::<chassis::Process>(&args.common, "WIDGET", args.overrides())?;
    Box::pin(chassis::run::<Opened<widget::Service>>(loaded, args.into(), proto::FILE_DESCRIPTOR_SET)).await
}
