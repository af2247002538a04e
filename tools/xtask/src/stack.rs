//! A stack as a whole: what `up` and `verify` have in common when they start one.
//!
//! The order is here: what runs beside what, and what waits for what.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, anyhow};

use crate::fleet::Fleet;
use crate::layout::Layout;
use crate::process::Program;
use crate::records::{Records, StackFile};
use crate::secrets::{self, Secrets};
use crate::settings::{SERVICES, Settings, database_of};
use crate::sources::Programs;
use crate::status::Status;
use crate::{kafka, postgres, registry, services, simulators};

/// A stack that is being started or runs.
pub(crate) struct Stack {
    pub(crate) layout: Layout,
    pub(crate) settings: Settings,
    pub(crate) secrets: Secrets,
    pub(crate) fleet: Fleet,
}

impl Stack {
    /// Makes secrets and files; nothing is started yet. `instances` is 0 where no services run.
    pub(crate) fn new(layout: Layout, settings: Settings, instances: u16, status: &Status) -> Result<Self> {
        let secrets = Secrets::load(&layout)?;
        let file = stack_file(&settings, &secrets, instances)?;
        secrets.write_env(&layout, &addresses(&layout, &file))?;
        let fleet = Fleet::new(Records::new(layout.clone(), file), status.clone());
        Ok(Self { layout, settings, secrets, fleet })
    }

    /// Starts Kafka beside Postgres with the registry on it, and the simulators beside both.
    pub(crate) fn start_infra(&self, programs: &Programs, simulators: &Path) -> Result<()> {
        thread::scope(|scope| {
            let kafka = scope.spawn(|| self.start_kafka(programs));
            let postgres = scope.spawn(|| self.start_postgres_and_registry(programs));
            let simulators = scope.spawn(|| {
                let parts = simulators::parts(&self.layout, &self.settings, &self.secrets, simulators)?;
                self.fleet.start_all(&parts)
            });
            [kafka, postgres, simulators]
                .into_iter()
                .map(|start| start.join().unwrap_or_else(|_| Err(anyhow!("a start panicked"))))
                .fold(Ok(()), Result::and)
        })
    }

    fn start_kafka(&self, programs: &Programs) -> Result<()> {
        self.fleet.start(&kafka::part(&self.layout, &self.settings, programs)?)
    }

    fn start_postgres_and_registry(&self, programs: &Programs) -> Result<()> {
        let server = postgres::Server::prepare(&self.layout, &self.secrets, programs)?;
        self.fleet.start(&server.part(&self.layout, &self.settings)?)?;
        server.create_databases(&self.layout, &self.settings, &self.secrets)?;
        self.fleet.start(&registry::part(&self.layout, &self.settings, &self.secrets, programs)?)
    }

    /// Creates topics and registers schemas; both do nothing where that was done.
    pub(crate) fn lay_the_log(&self, orderctl: &Path) -> Result<()> {
        self.orderctl(orderctl, &["topics", "create"]).run("creating the topics", &self.layout.log_of("topics"))?;
        self.orderctl(orderctl, &["schemas", "push"]).run("registering the schemas", &self.layout.log_of("schemas"))
    }

    /// orderctl with the addresses of this stack, which it would otherwise look for in the current folder.
    pub(crate) fn orderctl(&self, orderctl: &Path, args: &[&str]) -> Program {
        let mut program = Program::new(orderctl).args(args.iter().copied());
        if let Ok(file) = stack_file(&self.settings, &self.secrets, 0) {
            program.env = addresses(&self.layout, &file);
        }
        program.folder = Some(self.layout.root.clone());
        program
    }

    /// Starts every service and waits until each is ready.
    pub(crate) fn start_services(&self, binaries: &BTreeMap<String, PathBuf>, instances: u16) -> Result<()> {
        let parts = services::parts(&self.layout, &self.settings, &self.secrets, binaries, instances)?;
        self.fleet.start_all(&parts)
    }

    /// Makes the key that signs tokens.
    pub(crate) fn make_keys(&self, openssl: Option<&Path>, orderctl: &Path) -> Result<()> {
        secrets::make_signing_key(&self.layout, openssl, orderctl)
    }
}

/// One of the workspace's programs.
///
/// # Errors
/// When the workspace has none of that name.
pub(crate) fn binary<'a>(binaries: &'a BTreeMap<String, PathBuf>, name: &str) -> Result<&'a Path> {
    let path = binaries.get(name);
    path.map(PathBuf::as_path).with_context(|| format!("the workspace has no binary {name}"))
}

fn stack_file(settings: &Settings, secrets: &Secrets, instances: u16) -> Result<StackFile> {
    let mut databases = BTreeMap::new();
    for service in SERVICES {
        databases.insert(service.to_owned(), postgres::url(settings, secrets, database_of(service))?);
    }
    let partitions = settings.get("PARTITIONS")?;
    Ok(StackFile {
        kafka: kafka::bootstrap(settings)?,
        registry: registry::url(settings)?,
        postgres: databases,
        postgres_admin: postgres::admin_url(settings, secrets)?,
        gateway: format!("http://127.0.0.1:{}", settings.port("GATEWAY_PORT")?),
        sink: format!("http://127.0.0.1:{}", settings.port("SINK_PORT")?),
        topic_prefix: settings.get("TOPIC_PREFIX")?.to_owned(),
        partitions: partitions.parse().with_context(|| format!("PARTITIONS={partitions} is no number"))?,
        services: services::entries(settings, instances)?,
        processes: BTreeMap::new(),
    })
}

/// What `.orderlog/env` holds besides secrets: the variables that orderctl reads.
fn addresses(layout: &Layout, file: &StackFile) -> BTreeMap<String, String> {
    [
        ("ORDERLOG_KAFKA", file.kafka.clone()),
        ("ORDERLOG_REGISTRY", file.registry.clone()),
        ("ORDERLOG_POSTGRES_ADMIN", file.postgres_admin.clone()),
        ("ORDERLOG_GATEWAY", file.gateway.clone()),
        ("ORDERLOG_SINK", file.sink.clone()),
        ("ORDERLOG_TOPIC_PREFIX", file.topic_prefix.clone()),
        ("ORDERLOG_PARTITIONS", file.partitions.to_string()),
        ("ORDERLOG_STACK", layout.stack_file().display().to_string()),
        ("ORDERLOG_SIGNING_KEY", layout.keys().join("signing.pem").display().to_string()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}
