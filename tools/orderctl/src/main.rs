//! Starts the operator's command.
//!
//! Everything is in the library; here only the runtime, the exit status and the one sentence of an error.

use std::process::ExitCode;

use clap::Parser;
use orderctl::cli::Cli;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("orderctl: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = match runtime.block_on(orderctl::run(cli)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("orderctl: {error:#}");
            ExitCode::FAILURE
        }
    };
    // A thread that still reads Kafka must not keep the command from ending.
    runtime.shutdown_background();
    code
}
