//! The widget service as a process of its own.

use clap::Parser as _;
use mesh_runtime::config;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = chassis::Args::parse();
    let loaded = config::load::<chassis::Process>(&args.common, "WIDGET", args.overrides())?;
    chassis::run::<widget::Service>(args, loaded, proto::FILE_DESCRIPTOR_SET).await
}
