//! A stack of its own for one test: databases, topics, simulators, and N instances of each service.
//!
//! Kafka, registry and Postgres are shared and come from the environment (`cargo verify` starts them). Everything that
//! is started here ends with the value.

mod options;
mod tools;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::Signal;

use crate::ground::{binary, databases, free_port, keys, rand_u32, server};
use crate::process::Process;

pub use options::Options;

/// The four services, in the order of the flow.
pub const SERVICES: [&str; 4] = ["order-svc", "inventory-svc", "payment-svc", "notify-svc"];
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Of every topic of a stack.
pub const PARTITIONS: i32 = 2;

/// The variable of a test build that reads what another has miswritten.
const MENDED: &str = "MENDED";

/// One service's instance.
#[derive(Debug)]
struct Instance {
    service: &'static str,
    http: String,
    admin: String,
    process: Process,
}

/// Everything one test runs against.
#[derive(Debug)]
pub struct Stack {
    /// Put before all topics and databases.
    pub prefix: String,
    /// `host:port`
    pub kafka: String,
    /// Base URL.
    pub registry: String,
    /// By service.
    pub databases: BTreeMap<&'static str, String>,
    /// Base URL of the gateway.
    pub gateway: String,
    /// Base URL of the sink.
    pub sink: String,
    /// `host:port` for mail.
    pub smtp: String,
    /// Signs tokens.
    pub signing_key: String,
    /// Signs callbacks.
    pub gateway_secret: String,
    postgres_admin: String,
    options: Options,
    is_mended: bool,
    verify_key: PathBuf,
    instances: Vec<Instance>,
    simulators: Vec<Process>,
    folder: tempfile::TempDir,
}

impl Stack {
    /// Makes databases and topics, starts simulators and services, and waits until all are ready.
    ///
    /// # Errors
    /// When one of them does not start; the folder with their logs is named.
    pub async fn start(options: &Options) -> anyhow::Result<Self> {
        let mut stack = Self::without_services(options).await?;
        for service in SERVICES {
            for instance in 0..options.instances {
                stack.add_instance(service, instance, &[])?;
            }
        }
        stack.wait_until_ready().await?;
        Ok(stack)
    }

    /// Makes databases and topics and starts simulators; [`Self::add_instance`] does the rest.
    ///
    /// # Errors
    /// When one of them does not start.
    pub async fn without_services(options: &Options) -> anyhow::Result<Self> {
        let prefix = format!("e{:x}.", rand_u32());
        let folder = tempfile::tempdir()?;
        let (signing_key, verify_key) = keys(folder.path())?;
        let given = || (server("ORDERLOG_TEST_KAFKA"), server("ORDERLOG_TEST_POSTGRES"));
        let (kafka, postgres_admin) = options.servers.clone().unwrap_or_else(given);
        let mut stack = Self {
            kafka,
            registry: server("ORDERLOG_TEST_REGISTRY"),
            databases: databases(&postgres_admin, &prefix).await?,
            postgres_admin,
            gateway: format!("http://127.0.0.1:{}", free_port()?),
            sink: format!("http://127.0.0.1:{}", free_port()?),
            smtp: format!("127.0.0.1:{}", free_port()?),
            signing_key,
            gateway_secret: format!("{:08x}{:08x}", rand_u32(), rand_u32()),
            options: options.clone(),
            is_mended: false,
            verify_key,
            instances: Vec::new(),
            simulators: Vec::new(),
            prefix,
            folder,
        };
        stack.start_simulators()?;
        stack.make_topics()?;
        Ok(stack)
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.log"))
    }

    fn start_simulators(&mut self) -> anyhow::Result<()> {
        let address = |url: &str| url.trim_start_matches("http://").to_owned();
        let data = self.folder.path().join("simulators");
        std::fs::create_dir_all(&data)?;
        let data = data.display().to_string();
        let gateway = [
            ("GATEWAY_ADDR", address(&self.gateway)),
            ("GATEWAY_SECRET", self.gateway_secret.clone()),
            ("DATA_DIR", data.clone()),
        ];
        let sink = [("SINK_ADDR", address(&self.sink)), ("SMTP_ADDR", self.smtp.clone()), ("DATA_DIR", data)];
        for (name, environment) in [("gateway", gateway), ("sink", sink)] {
            let mut process = Process {
                program: binary("simulators")?,
                arguments: vec![name.to_owned()],
                environment: environment.map(|(key, value)| (key.to_owned(), value)).into(),
                log: self.log(name),
                child: None,
            };
            process.start()?;
            self.simulators.push(process);
        }
        Ok(())
    }

    /// From now on whatever is started is a build that reads what a test build has miswritten; what runs goes on.
    pub fn mend(&mut self) {
        self.is_mended = true;
        if let Some((name, value)) = self.mended() {
            for instance in &mut self.instances {
                instance.process.environment.insert(name.to_owned(), value.clone());
            }
        }
    }

    /// What such a build has in its environment.
    fn mended(&self) -> Option<(&'static str, String)> {
        self.is_mended.then(|| (MENDED, "1".to_owned()))
    }

    fn make_topics(&self) -> anyhow::Result<()> {
        self.write_stack_file()?;
        self.orderctl(&["schemas", "push"])?;
        self.orderctl(&["topics", "create"])?;
        Ok(())
    }

    /// `stack.json`, as `cargo up` writes it.
    fn write_stack_file(&self) -> anyhow::Result<()> {
        let services: Vec<_> = self
            .instances
            .iter()
            .map(|instance| {
                serde_json::json!({
                    "name": instance.service, "instance": 0, "http": instance.http, "admin": instance.admin,
                    "pid": instance.process.child.as_ref().map(Child::id),
                })
            })
            .collect();
        let stack = serde_json::json!({
            "kafka": self.kafka, "registry": self.registry, "postgres": self.databases,
            "postgres_admin": self.postgres_admin, "gateway": self.gateway, "sink": self.sink,
            "topic_prefix": self.prefix, "partitions": PARTITIONS, "services": services, "processes": {},
        });
        std::fs::write(self.stack_file(), stack.to_string())?;
        Ok(())
    }

    /// Starts one more instance of a service. `detours` replace variables of its environment.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn add_instance(
        &mut self,
        service: &'static str,
        number: usize,
        detours: &[(&str, String)],
    ) -> anyhow::Result<()> {
        let (http, admin) = (free_port()?, free_port()?);
        let first = self.instances.iter().find(|instance| instance.service == service);
        let public = first.map_or_else(|| format!("http://127.0.0.1:{http}"), |first| first.http.clone());
        let options = &self.options;
        let environment = [
            ("KAFKA_BOOTSTRAP", self.kafka.clone()),
            ("REGISTRY_URL", self.registry.clone()),
            ("DATABASE_URL", self.databases[service].clone()),
            ("HTTP_ADDR", format!("127.0.0.1:{http}")),
            ("ADMIN_ADDR", format!("127.0.0.1:{admin}")),
            ("TOPIC_PREFIX", self.prefix.clone()),
            ("PARTITIONS", PARTITIONS.to_string()),
            ("JWT_KEYS_FILE", self.verify_key.display().to_string()),
            ("GATEWAY_URL", self.gateway.clone()),
            ("GATEWAY_SECRET", self.gateway_secret.clone()),
            ("SMTP_URL", format!("smtp://{}", self.smtp)),
            ("SMS_URL", format!("{}/sms", self.sink)),
            ("PUBLIC_URL", public),
            ("PAY_WITHIN", options.pay_within.to_owned()),
            ("LOG", "info".to_owned()),
            ("GATEWAY_ADAPTER", options.gateway_adapter.to_owned()),
            ("SESSION_TIMEOUT", "6s".to_owned()),
            ("RETRY_DELAYS", "200ms,500ms".to_owned()),
            ("EFFECT_DELAYS", options.effect_delays.to_owned()),
            ("ASK_GATEWAY_AFTER", options.ask_gateway_after.to_owned()),
            ("TIMER_GRACE", options.timer_grace.to_owned()),
        ];
        let environment = environment.into_iter().chain(detours.iter().cloned()).chain(self.mended());
        let mut process = Process {
            program: binary(service)?,
            arguments: Vec::new(),
            environment: environment.map(|(key, value)| (key.to_owned(), value)).collect(),
            log: self.log(&format!("{service}.{number}")),
            child: None,
        };
        process.start()?;
        let http = format!("http://127.0.0.1:{http}");
        self.instances.push(Instance { service, http, admin: format!("http://127.0.0.1:{admin}"), process });
        Ok(())
    }

    /// Waits until every running instance says that it is ready.
    ///
    /// # Errors
    /// After a minute, or when one of them ends, with the reasons.
    pub async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        self.write_stack_file()?;
        let started = Instant::now();
        let client = reqwest::Client::new();
        for instance in self.instances.iter_mut().filter(|instance| instance.process.child.is_some()) {
            let url = format!("{}/readyz", instance.admin);
            loop {
                let answer = client.get(&url).timeout(Duration::from_secs(2)).send().await;
                let said = match answer {
                    Ok(answer) if answer.status().is_success() => break,
                    Ok(answer) => answer.text().await.unwrap_or_default(),
                    Err(error) => error.to_string(),
                };
                instance.process.check()?;
                if started.elapsed() > READY_WITHIN {
                    bail!("{} is not ready: {said}\n{}", instance.service, instance.process.last_lines());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    /// The public address of a service's instance.
    ///
    /// # Panics
    /// When there is no such instance.
    #[must_use]
    pub fn http(&self, service: &str, number: usize) -> &str {
        &self.instances[self.place(service, number).expect("an instance of this stack")].http
    }

    /// The admin address of a service's instance.
    ///
    /// # Panics
    /// When there is no such instance.
    #[must_use]
    pub fn admin(&self, service: &str, number: usize) -> &str {
        &self.instances[self.place(service, number).expect("an instance of this stack")].admin
    }

    fn place(&self, service: &str, number: usize) -> Option<usize> {
        let of_service = self.instances.iter().enumerate().filter(|(_, instance)| instance.service == service);
        of_service.map(|(place, _)| place).nth(number)
    }

    /// A service's instance, running or not.
    pub(crate) fn process(&mut self, service: &str, number: usize) -> anyhow::Result<&mut Process> {
        self.instance(service, number).map(|instance| &mut instance.process)
    }

    fn instance(&mut self, service: &str, number: usize) -> anyhow::Result<&mut Instance> {
        let place = self.place(service, number).with_context(|| format!("no instance {number} of {service}"))?;
        Ok(&mut self.instances[place])
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self, service: &str, number: usize) -> anyhow::Result<()> {
        self.instance(service, number)?.process.end(Signal::SIGKILL)
    }

    /// Ends all instances of a service as an operator would.
    ///
    /// # Errors
    /// When one does not end in time.
    pub fn stop_service(&mut self, service: &str) -> anyhow::Result<()> {
        for instance in self.instances.iter_mut().filter(|instance| instance.service == service) {
            instance.process.end(Signal::SIGTERM)?;
        }
        Ok(())
    }

    /// Starts an instance again that was ended.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn restart(&mut self, service: &str, number: usize) -> anyhow::Result<()> {
        self.instance(service, number)?.process.start()
    }

    /// Starts an instance again that was ended, with another value of this variable.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn restart_with(&mut self, service: &str, number: usize, variable: (&str, &str)) -> anyhow::Result<()> {
        let process = self.process(service, number)?;
        process.environment.insert(variable.0.to_owned(), variable.1.to_owned());
        process.start()
    }

    /// SIGSTOP or SIGCONT.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&mut self, service: &str, number: usize, signal: Signal) -> anyhow::Result<()> {
        self.instance(service, number)?.process.signal(signal)
    }

    /// True when charges go to the gateway's simulator, so that its ledger knows them.
    #[must_use]
    pub fn charges_outside(&self) -> bool {
        self.options.gateway_adapter == "http"
    }

    /// `stack.json` of this stack, as `cargo up` writes it.
    #[must_use]
    pub fn stack_file(&self) -> PathBuf {
        self.folder.path().join("stack.json")
    }

    /// The PEM file of the key that tokens are signed with.
    #[must_use]
    pub fn signing_key_file(&self) -> PathBuf {
        self.folder.path().join("signing.pem")
    }

    /// Keeps the folder with the logs, and says where it is. For failing tests.
    #[must_use]
    pub fn keep_logs(&mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        self.folder.path().to_owned()
    }
}
