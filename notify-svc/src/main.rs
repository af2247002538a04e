//! How the process starts.

use edge::config::Reader;
use notify_svc::{app, config::Config};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = Config::read(Reader::from_env())?;
    edge::telemetry::init(&config.common.log)?;
    app::run(config).await
}
