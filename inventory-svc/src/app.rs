//! How the parts are wired: what `host` is told about this service.

use std::process::ExitCode;

use edge::config::Reader;
use edge::routes::Routes;
use engine::migrate::MigrationSet;
use events::inventory::InventoryCommand;
use host::run::EDGE_MIGRATIONS;
use host::{Base, Program, Ready};
use utoipa::openapi::OpenApi;

use crate::config::Config;
use crate::http;
use crate::processor::{DESCRIPTION, Inventory};
use crate::store;

/// All migrations of this service's database but the engine's.
pub const MIGRATIONS: &[MigrationSet] = &[EDGE_MIGRATIONS, store::MIGRATIONS];

/// The service for folding only.
#[must_use]
pub fn replay() -> Inventory {
    Inventory
}

#[derive(Debug)]
struct InventoryProgram;

impl Program for InventoryProgram {
    type Service = Inventory;

    const MIGRATIONS: &'static [MigrationSet] = MIGRATIONS;
    const COMMANDS: Option<&'static str> = Some(InventoryCommand::TOPIC);

    fn service(&self, _base: &Base) -> anyhow::Result<Inventory> {
        Ok(Inventory)
    }

    fn api(&self) -> OpenApi {
        http::api()
    }

    fn routes(&self, ready: Ready<Inventory>) -> impl Fn() -> Routes + Clone + Send + 'static {
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
    host::run(InventoryProgram, config.common, DESCRIPTION.number, DESCRIPTION.name).await
}
