//! How the process starts.

use std::process::ExitCode;

use edge::config::Reader;
use notify_svc::{app, config::Config};

#[tokio::main]
async fn main() -> ExitCode {
    host::exit("notify-svc", start().await)
}

async fn start() -> anyhow::Result<()> {
    let config = Config::read(Reader::from_env())?;
    edge::telemetry::init(&config.common.log)?;
    app::run(config).await
}
