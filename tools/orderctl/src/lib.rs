//! The operator's command: tokens, schemas, topics, orders, the log decoded, lag, import, rebuild, verify, bench.
//!
//! Read in this order: [`cli`] (what can be typed), `settings` (where the stack is), `output` and `progress` (what a
//! person sees), `client` (how services are asked), `log` and `decoded` (how topics are read); then one module per
//! command, named like it. The import's parts are `package`, `baskets`, `plan`, `shop` and `outcomes`. `services` is the
//! only place that names all four services; what a rebuild and a verification do is `engine`'s.

mod baskets;
mod bench;
pub mod cli;
mod cli_desk;
mod client;
mod decode;
mod decoded;
mod demo;
mod desk;
mod dlq;
mod duration;
mod history;
mod import;
mod keys;
mod lag;
mod log;
mod order;
mod outcomes;
mod output;
mod package;
mod plan;
mod postgres;
mod processors;
mod progress;
mod rebuild;
mod schemas;
mod services;
mod settings;
mod shop;
mod strange;
mod tail;
mod token;
mod topics;
mod verify;

use std::process::ExitCode;

use cli::{Cli, Command};
use output::Output;
use settings::Settings;

/// Runs a command.
///
/// # Errors
/// With the sentence that says what is wrong and, where something helps, what to do.
pub async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let out = Output::new(cli.json);
    let settings = Settings::load(cli.place)?;
    match cli.command {
        Command::Token(args) => token::run(&settings, out, &args),
        Command::Keys(args) => keys::run(out, &args),
        Command::Schemas { what } => schemas::run(&settings, out, what).await,
        Command::Topics { what } => topics::run(&settings, out, &what).await,
        Command::Order { what } => order::run(&settings, out, what).await,
        Command::Tail(args) => tail::run(&settings, out, args).await,
        Command::Decode(args) => decode::run(&settings, &args).await,
        Command::Lag => lag::run(&settings, out).await,
        Command::Processors { what } => processors::run(&settings, out, what).await,
        Command::Held { service } => dlq::held(&settings, out, service).await,
        Command::Dlq { what } => dlq::run(&settings, out, what).await,
        Command::Import(args) => import::run(&settings, out, args).await,
        Command::Rebuild(args) => rebuild::run(&settings, out, &args).await,
        Command::Verify(args) => verify::run(&settings, out, &args).await,
        Command::Demo => demo::run(&settings, out).await,
        Command::Bench(args) => bench::run(&settings, out, args).await,
    }
}
