//! Starts a service, keeps it until a signal or a failure, and stops it in order.
//!
//! Start: bind, Postgres (wait, migrate), schema IDs, lease, engine, public site. Stop: not ready, stop accepting, finish
//! the batches, exit. `kill -9` is the stop that the tests rely on; this one is only kinder.

use std::fmt::Debug;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use edge::commands::Commands;
use edge::health::{Admin, Stopping};
use edge::log::EngineLog;
use edge::metrics::HttpMetrics;
use edge::rotation::Rotating;
use edge::routes::Routes;
use edge::server::{self, Running, Site};
use edge::token::Keys;
use engine::append::Appender;
use engine::barriers::Barriers;
use engine::breaker::Breakers;
use engine::desk::Desk;
use engine::kafka::Kafka;
use engine::lease::IdIssuer;
use engine::migrate::{MigrationSet, Schema, migrate};
use engine::pool::{self, Plans, PoolOptions};
use engine::probe;
use engine::registry::Registry;
use engine::service::Service;
use engine::wait::{Acked, Waiters};
use engine::{Engine, Meters, Parts, Servers};
use events::codec::Codec;
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};
use utoipa::openapi::OpenApi;

use crate::settings::Settings;
use crate::stage::Stage;

/// Connections for processors, and for HTTP.
const PROCESSOR_CONNECTIONS: u32 = 6;
const HTTP_CONNECTIONS: u32 = 4;
const HTTP_ACQUIRE: Duration = Duration::from_secs(2);
/// While the registry cannot be used at the start.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// The migrations that every service has beside its own and the engine's.
pub const EDGE_MIGRATIONS: MigrationSet =
    MigrationSet { schema: Schema::Engine, name: "edge", migrator: &edge::MIGRATIONS };

/// What every service is given once its database is open.
#[derive(Debug, Clone)]
pub struct Base {
    /// Where Kafka is.
    pub kafka: Arc<Kafka>,
    /// For HTTP; processors have a pool of their own.
    pub pool: PgPool,
    /// With the registry's IDs.
    pub codec: Arc<Codec>,
    /// Snowflake IDs.
    pub ids: IdIssuer,
    /// Tell when Postgres or Kafka is away.
    pub servers: Servers,
    /// All breakers; a service adds those of whom it calls.
    pub breakers: Breakers,
}

/// What the routes of a service are made from.
#[derive(Debug)]
pub struct Ready<S> {
    /// Pools, codec, IDs.
    pub base: Base,
    /// The service itself.
    pub service: Arc<S>,
    /// The way in for commands; none for a service that takes none.
    pub commands: Option<Commands>,
    /// Counts what signed routes refuse.
    pub metrics: HttpMetrics,
}

/// What one service differs in from the others.
pub trait Program: Sized {
    /// Its side of the engine.
    type Service: Service + Debug;

    /// All migrations of its database but the engine's.
    const MIGRATIONS: &'static [MigrationSet];

    /// Its commands topic, without prefix.
    const COMMANDS: Option<&'static str>;

    /// Makes the service.
    ///
    /// # Errors
    /// When a part of it cannot be made.
    fn service(&self, base: &Base) -> anyhow::Result<Self::Service>;

    /// Describes its public routes.
    fn api(&self) -> OpenApi;

    /// Its public routes; called once per worker thread.
    fn routes(&self, ready: Ready<Self::Service>) -> impl Fn() -> Routes + Clone + Send + 'static;
}

/// Runs a service until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start, or ended by itself.
pub async fn run<P: Program>(program: P, settings: Settings, number: u8, name: &'static str) -> anyhow::Result<()> {
    let (public, admin) = (server::bind(settings.http_addr)?, server::bind(settings.admin_addr)?);
    let keys = Arc::new(Rotating::new(&settings.jwt_keys, str::parse::<Keys>).context("JWT_KEYS")?);
    keys.watch();
    let mut registry = prometheus_client::registry::Registry::default();
    let (http_metrics, meters) = (HttpMetrics::register(&mut registry), Meters::register(&mut registry));
    let breakers = Breakers::register(&mut registry);
    let servers = servers(&settings, &breakers)?;
    let stage = Arc::new(Stage::new(name, breakers.clone()));
    let shown = Admin {
        health: Arc::clone(&stage) as _,
        processors: Arc::clone(&stage) as _,
        registry: Arc::new(registry),
        stopping: Stopping::default(),
    };
    let stopping = shown.stopping.clone();
    let admin = Site::new(admin, Arc::clone(&keys), http_metrics.clone()).start(move || shown.routes())?;
    info!(admin = %admin.address(), "starting");

    let mut signals = Signals::listen()?;
    let started = tokio::select! {
        started = start(&program, &settings, number, name, &stage, http_metrics, meters, servers, breakers, public, keys) => started?,
        () = signals.next() => {
            admin.stop().await;
            return Ok(());
        }
    };
    info!(http = %started.address(), admin = %admin.address(), "serving");
    let outcome = tokio::select! {
        () = signals.next() => Ok(()),
        reason = stage.engine_ended() => Err(anyhow::anyhow!(reason)),
    };
    stopping.begin();
    started.stop().await;
    if let Some(engine) = stage.take_engine()
        && let Err(reason) = engine.stop().await
    {
        error!(reason, "the engine had ended already");
    }
    admin.stop().await;
    info!("stopped");
    outcome
}

#[expect(clippy::too_many_arguments, reason = "one straight line of start-up, called once")]
async fn start<P: Program>(
    program: &P,
    settings: &Settings,
    number: u8,
    name: &'static str,
    stage: &Arc<Stage>,
    http_metrics: HttpMetrics,
    meters: Meters,
    servers: Servers,
    breakers: Breakers,
    public: std::net::TcpListener,
    keys: Arc<Rotating<Keys>>,
) -> anyhow::Result<Running> {
    let url = settings.database_url.reveal();
    let instance = format!("{name}@{}/{}", settings.http_addr, std::process::id());
    let usual = |application: &str, connections| PoolOptions {
        breaker: servers.postgres.clone(),
        ..PoolOptions::new(application, connections)
    };
    let by_key = PoolOptions { plans: Plans::ByKey, ..usual(&instance, PROCESSOR_CONNECTIONS) };
    let processors = pool::connect(url, by_key).await?;
    let http = PoolOptions { acquire_timeout: HTTP_ACQUIRE, ..usual(&format!("{name} http"), HTTP_CONNECTIONS) };
    let http = pool::connect(url, http).await?;
    stage.say("migrating the database and starting the processors".to_owned());
    let (postgres, say) = (&servers.postgres, |what| stage.say(what));
    pool::waited_out(postgres, say, async || migrate(&processors, P::MIGRATIONS).await).await?;
    let registry = Registry::new(&settings.registry_url)?;
    let codec = Arc::new(schema_ids(&registry, &processors, &servers, stage).await);
    let issue = async || IdIssuer::start(processors.clone(), number, &instance).await;
    let ids = pool::waited_out(postgres, say, issue).await?;
    let kafka = Arc::new(settings.kafka.clone());
    let base = Base {
        kafka: Arc::clone(&kafka),
        pool: http.clone(),
        codec: Arc::clone(&codec),
        ids: ids.clone(),
        servers: servers.clone(),
        breakers,
    };
    let service = Arc::new(program.service(&base)?);
    let desk = Desk {
        service: Arc::clone(&service),
        kafka: Arc::clone(&kafka),
        codec: Arc::clone(&codec),
        pool: http.clone(),
    };
    stage.set_desk(Arc::new(desk));
    let acked = Acked::default();
    let commands = match P::COMMANDS {
        None => None,
        Some(topic) => {
            let events = kafka.topic(service.describe().events_topic);
            let appender = Appender::new(Arc::clone(&kafka))?.guarded(servers.kafka.clone());
            let waiters = Waiters::start(http.clone(), events, acked.clone());
            let barriers = Barriers::watch(http.clone());
            let log =
                Arc::new(EngineLog { appender, waiters, ids: ids.clone(), barriers, kafka: servers.kafka.clone() });
            Some(Commands::start(http, log, name, topic, http_metrics.clone()))
        }
    };
    let parts = Parts {
        service: Arc::clone(&service),
        kafka,
        pool: processors,
        codec,
        registry,
        breakers: servers.clone(),
        ids,
        acked,
        meters,
        settings: engine::Settings {
            timer_grace: settings.timer_grace,
            retry_delays: settings.retry_delays.as_slice().into(),
            effect_delays: settings.effect_delays.as_slice().into(),
            ..engine::Settings::new(instance)
        },
    };
    stage.set_engine(Engine::start(parts).await?);
    let routes = program.routes(Ready { base, service, commands, metrics: http_metrics.clone() });
    Site::new(public, keys, http_metrics).documented(program.api()).needs(servers.postgres).start(routes)
}

/// The breakers of the servers that every service needs, each with its probe.
fn servers(settings: &Settings, breakers: &Breakers) -> anyhow::Result<Servers> {
    let url = settings.database_url.reveal();
    let database = PgConnectOptions::from_str(url).context("DATABASE_URL is not a Postgres URL")?;
    let kafka = Arc::new(settings.kafka.clone());
    let registry = probe::Http::new(&settings.registry_url).context("REGISTRY_URL")?;
    let servers = Servers {
        postgres: breakers.add("postgres", probe::postgres_place(&database), true),
        kafka: breakers.add("kafka", format!("Kafka at {}", kafka.bootstrap), true),
        registry: breakers.add("registry", format!("the schema registry at {}", registry.place()), false),
    };
    servers.postgres.watch(move || {
        let database = database.clone();
        async move { probe::postgres(&database).await }
    });
    servers.kafka.watch(move || probe::kafka(Arc::clone(&kafka)));
    servers.registry.watch(move || registry.look());
    Ok(servers)
}

/// The schema IDs; waits while nothing is remembered and the registry does not answer or does not have them yet, and while
/// it contradicts what is remembered: another one may be put in its place.
async fn schema_ids(registry: &Registry, pool: &PgPool, servers: &Servers, stage: &Stage) -> Codec {
    loop {
        match registry.codec(pool).await {
            Ok(codec) => return codec,
            Err(error) => {
                warn!(error = format!("{error:#}"), "waiting for the schema IDs");
                stage.say(format!("waiting for the schema IDs: {error:#}"));
                servers.registry.failed(format!("{error:#}"));
                tokio::time::sleep(RETRY_EVERY).await;
            }
        }
    }
}

struct Signals(tokio::signal::unix::Signal, tokio::signal::unix::Signal);

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        Ok(Self(signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?))
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}
