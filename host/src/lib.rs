//! How a service's process is put together: settings, pools, migrations, schema IDs, lease, engine, sites, and the stop.
//!
//! The same for all four services, so it is here once; what differs is a [`Program`]. It knows no business word, reads no
//! record and answers no request itself. Read [`settings`], then [`run`].

use std::process::ExitCode;

use anyhow::Context;

pub mod run;
pub mod settings;
mod stage;

/// Also librdkafka's, whose every header is an allocation: a fifth less CPU per order than glibc's (ADR 6).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

pub use run::{Base, Program, Ready, run};
pub use settings::Settings;

/// Runs a service to its end. An error is one line on standard error, without a backtrace: operators read it.
#[must_use]
pub fn main(program: &str, service: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    // Four services, Kafka and Postgres share the cores; waking a second worker costs more than it brings.
    let workers = std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build();
    match runtime.context("no runtime").and_then(|runtime| runtime.block_on(service)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{program}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
