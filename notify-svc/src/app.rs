//! How the parts are wired: what `host` is told about this service.

use std::process::ExitCode;

use edge::config::Reader;
use edge::routes::Routes;
use engine::migrate::MigrationSet;
use host::run::EDGE_MIGRATIONS;
use host::{Base, Program, Ready};
use utoipa::openapi::OpenApi;

use crate::config::Config;
use crate::http;
use crate::mailer::Mailer;
use crate::processor::{DESCRIPTION, Notices};
use crate::store;

/// All migrations of this service's database but the engine's.
pub const MIGRATIONS: &[MigrationSet] = &[EDGE_MIGRATIONS, store::CONTACTS, store::NOTICES];

/// The service for folding only: it sends nothing.
#[must_use]
pub fn replay() -> Notices {
    Notices { mailer: None }
}

#[derive(Debug)]
struct NotifyProgram {
    config: Config,
    mailer: Mailer,
}

impl Program for NotifyProgram {
    type Service = Notices;

    const MIGRATIONS: &'static [MigrationSet] = MIGRATIONS;
    /// It takes no commands.
    const COMMANDS: Option<&'static str> = None;

    fn service(&self, base: &Base) -> anyhow::Result<Notices> {
        let mailer = self.mailer.clone().guarded(self.config.smtp_url.reveal(), &base.breakers)?;
        Ok(Notices { mailer: Some(mailer) })
    }

    fn api(&self) -> OpenApi {
        http::api()
    }

    fn routes(&self, ready: Ready<Notices>) -> impl Fn() -> Routes + Clone + Send + 'static {
        http::routes(ready)
    }
}

/// The process: settings from the environment, then the service until it is told to stop.
#[must_use]
pub fn main() -> ExitCode {
    host::main(DESCRIPTION.name, async {
        let config = Config::read(Reader::from_env())?;
        edge::telemetry::init(&config.common.log)?;
        run(config).await
    })
}

/// Runs the service until it is told to stop.
///
/// # Errors
/// When it cannot start, or ended by itself.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let mailer = Mailer::new(config.smtp_url.reveal(), config.sms_url.reveal())?;
    let common = config.common.clone();
    host::run(NotifyProgram { config, mailer }, common, DESCRIPTION.number, DESCRIPTION.name).await
}
