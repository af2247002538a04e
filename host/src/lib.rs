//! How a service's process is put together: settings, pools, migrations, schema IDs, lease, engine, sites, and the stop.
//!
//! The same for all four services, so it is here once; what differs is a [`Program`]. It knows no business word, reads no
//! record and answers no request itself. Read [`settings`], then [`run`].

pub mod run;
pub mod settings;

pub use run::{Base, Program, Ready, run};
pub use settings::Settings;

/// What a service's `main` returns. An error is one line on standard error, without a backtrace: operators read it.
#[must_use]
pub fn exit(program: &str, ended: anyhow::Result<()>) -> std::process::ExitCode {
    match ended {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{program}: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
