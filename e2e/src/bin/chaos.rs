//! `cargo chaos`: the chaos run as a command. Exit status 1 when the system did wrong, 2 when the run could not be carried out.
//!
//! What it does is said in `chaos.rs` of the library.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use e2e::chaos::{self, Options, report::Report};

/// Loads all four services, two instances each, and does them harm; says whether they came to a right end.
///
/// Broker and Postgres of the run are its own, made like those of `cargo up` or `cargo verify`, which must run.
#[derive(Debug, Parser)]
#[command(name = "chaos", bin_name = "cargo chaos")]
struct Cli {
    /// Repeats a run's choices [default: random]
    #[arg(long)]
    seed: Option<u64>,
    /// How long there is load
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Orders per second
    #[arg(long, default_value_t = 20.0)]
    rate: f64,
    /// So many times the usual time to come to an end, on a busy machine
    #[arg(long, default_value_t = 1)]
    patience: u32,
    /// Where the evidence is written [default: a new folder]
    #[arg(long)]
    out: Option<PathBuf>,
    /// The report as JSON, and no line on the terminal
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli).await {
        Ok(report) if report.is_valid() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(1),
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(2)
        }
    }
}

async fn run(cli: &Cli) -> anyhow::Result<Report> {
    let seed = cli.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let out = match &cli.out {
        Some(out) => out.clone(),
        None => tempfile::Builder::new().prefix("orderlog-evidence-").tempdir()?.keep(),
    };
    anyhow::ensure!(cli.minutes > 0.5 && cli.rate > 0.0, "a run has at least half a minute, and load");
    let length = Duration::from_secs_f64(cli.minutes * 60.0);
    let options = Options { seed, length, rate: cli.rate, out, patience: cli.patience.max(1), is_live: !cli.json };
    chaos::stand_on_running_stack()?;
    if !cli.json {
        eprintln!("seed {seed}; evidence in {}", options.out.display());
    }
    // Dropped when somebody asks to stop: with it goes everything that was started.
    let report = tokio::select! {
        report = chaos::run(&options) => report?,
        _ = tokio::signal::ctrl_c() => anyhow::bail!("stopped"),
    };
    if cli.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{report}");
    }
    Ok(report)
}
