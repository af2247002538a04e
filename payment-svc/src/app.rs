//! How the parts are wired: what `host` is told about this service.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use edge::config::Reader;
use edge::rotation::Rotating;
use edge::routes::Routes;
use edge::signature::Secrets;
use engine::migrate::MigrationSet;
use events::payment::PaymentCommand;
use host::run::EDGE_MIGRATIONS;
use host::{Base, Program, Ready};
use utoipa::openapi::OpenApi;

use crate::config::{Adapter, Config};
use crate::gateway::{Gateway, Http};
use crate::processor::{DESCRIPTION, Payments};
use crate::{http, store};

/// All migrations of this service's database but the engine's.
pub const MIGRATIONS: &[MigrationSet] = &[EDGE_MIGRATIONS, store::MIGRATIONS];

/// The service for folding only: it calls nobody.
#[must_use]
pub fn replay() -> Payments {
    Payments { gateway: Gateway::Inside }
}

#[derive(Debug)]
struct PaymentProgram {
    config: Config,
    secrets: Arc<Rotating<Secrets>>,
}

impl Program for PaymentProgram {
    type Service = Payments;

    const MIGRATIONS: &'static [MigrationSet] = MIGRATIONS;
    const COMMANDS: Option<&'static str> = Some(PaymentCommand::TOPIC);

    fn service(&self, base: &Base) -> anyhow::Result<Payments> {
        let config = &self.config;
        let gateway = match config.adapter {
            Adapter::Inside => Gateway::Inside,
            Adapter::Http => {
                let callback = format!("{}/v1/callbacks/gateway", config.public_url.trim_end_matches('/'));
                let http = Http::new(&config.gateway_url, callback, config.ask_gateway_after)?;
                Gateway::Http(http.guarded(&base.breakers)?)
            }
        };
        Ok(Payments { gateway })
    }

    fn api(&self) -> OpenApi {
        http::api()
    }

    fn routes(&self, ready: Ready<Payments>) -> impl Fn() -> Routes + Clone + Send + 'static {
        http::routes(ready, Arc::clone(&self.secrets))
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
    let secrets = Rotating::new(&config.gateway_secret, str::parse::<Secrets>).context("GATEWAY_SECRET")?;
    let (common, secrets) = (config.common.clone(), Arc::new(secrets));
    secrets.watch();
    host::run(PaymentProgram { config, secrets }, common, DESCRIPTION.number, DESCRIPTION.name).await
}
