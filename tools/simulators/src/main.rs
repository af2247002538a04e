//! `simulators gateway` and `simulators sink`: starts one of them and ends it on SIGTERM or Ctrl-C. All settings come
//! from the environment.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use simulators::config::{self, GatewayConfig, SinkConfig};
use simulators::gateway::Gateway;
use simulators::sink::Sink;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// The outside world of Orderlog, simulated.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum Part {
    /// Payment gateway: GATEWAY_ADDR (127.0.0.1:8201), GATEWAY_SECRET or GATEWAY_SECRET_FILE, DATA_DIR, PUBLIC_URL
    Gateway,
    /// Mail and SMS sink: SINK_ADDR (127.0.0.1:8202), SMTP_ADDR (127.0.0.1:8225), DATA_DIR
    Sink,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { part } = Arguments::parse();
    match run(part).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("simulators: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(part: Part) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(config::log_filter()?)?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let shutdown = shutdown_on_signal()?;
    match part {
        Part::Gateway => Gateway::build(GatewayConfig::from_env()?).await?.run(shutdown).await,
        Part::Sink => Sink::build(SinkConfig::from_env()?).await?.run(shutdown).await,
    }
}

fn shutdown_on_signal() -> anyhow::Result<CancellationToken> {
    let shutdown = CancellationToken::new();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let token = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        token.cancel();
    });
    Ok(shutdown)
}
