//! A stack of its own for one test: databases, topics, simulators, and N instances of each service.
//!
//! Kafka, registry and Postgres are shared and come from the environment (`cargo verify` starts them). Everything that
//! is started here ends with the value.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::Connection;

/// The four services, in the order of the flow.
pub const SERVICES: [&str; 4] = ["order-svc", "inventory-svc", "payment-svc", "notify-svc"];
const READY_WITHIN: Duration = Duration::from_secs(60);
const STOP_WITHIN: Duration = Duration::from_secs(30);
const PARTITIONS: i32 = 2;

/// How a stack differs from the usual one.
#[derive(Debug, Clone)]
pub struct Options {
    /// Instances of each service.
    pub instances: usize,
    /// `PAY_WITHIN`
    pub pay_within: &'static str,
    /// `ASK_GATEWAY_AFTER`
    pub ask_gateway_after: &'static str,
    /// `TIMER_GRACE`
    pub timer_grace: &'static str,
    /// `GATEWAY_ADAPTER`
    pub gateway_adapter: &'static str,
}

impl Default for Options {
    fn default() -> Self {
        Self { instances: 1, pay_within: "15m", ask_gateway_after: "2s", timer_grace: "5s", gateway_adapter: "http" }
    }
}

/// A running process and how to start it again.
#[derive(Debug)]
struct Process {
    program: PathBuf,
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    fn start(&mut self) -> anyhow::Result<()> {
        let log = std::fs::File::options().create(true).append(true).open(&self.log)?;
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .envs(&self.environment)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}; `cargo verify` builds it", self.program.display()))?;
        self.child = Some(child);
        Ok(())
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let child = self.child.as_ref().context("it does not run")?;
        kill(Pid::from_raw(i32::try_from(child.id())?), signal)?;
        Ok(())
    }

    fn end(&mut self, signal: Signal) -> anyhow::Result<()> {
        if self.child.is_some() {
            self.signal(signal)?;
            let mut child = self.child.take().context("just seen")?;
            let started = Instant::now();
            while child.try_wait()?.is_none() {
                if started.elapsed() > STOP_WITHIN {
                    child.kill()?;
                    child.wait()?;
                    bail!("{} did not end within {} s", self.program.display(), STOP_WITHIN.as_secs());
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It is being thrown away; that it may have ended already is fine.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

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
    /// Signs tokens.
    pub signing_key: String,
    /// Signs callbacks.
    pub gateway_secret: String,
    gateway_adapter: &'static str,
    instances: Vec<Instance>,
    simulators: Vec<Process>,
    folder: tempfile::TempDir,
}

/// A variable that `cargo verify` sets.
///
/// # Panics
/// With the sentence that says what to run.
#[must_use]
pub fn server(name: &str) -> String {
    #[expect(clippy::disallowed_methods, reason = "the tests' one way to learn where the servers are")]
    let value = std::env::var(name);
    value.unwrap_or_else(|_| panic!("{name} is not set: run this test with `cargo verify --only e2e`"))
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// The release binaries beside the folder that this test was built in.
fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe()?;
    let target = test.ancestors().nth(3).context("a test lies in target/PROFILE/deps")?;
    Ok(target.join("release").join(name))
}

impl Stack {
    /// Makes databases and topics, starts simulators and services, and waits until all are ready.
    ///
    /// # Errors
    /// When one of them does not start; the folder with their logs is named.
    pub async fn start(options: &Options) -> anyhow::Result<Self> {
        let prefix = format!("e{:x}.", rand_u32());
        let folder = tempfile::tempdir()?;
        let (signing_key, verify_key) = keys(folder.path())?;
        let mut stack = Self {
            kafka: server("ORDERLOG_TEST_KAFKA"),
            registry: server("ORDERLOG_TEST_REGISTRY"),
            databases: databases(&server("ORDERLOG_TEST_POSTGRES"), &prefix).await?,
            gateway: format!("http://127.0.0.1:{}", free_port()?),
            sink: format!("http://127.0.0.1:{}", free_port()?),
            signing_key,
            gateway_secret: format!("{:x}{:x}", rand_u32(), rand_u32()),
            gateway_adapter: options.gateway_adapter,
            instances: Vec::new(),
            simulators: Vec::new(),
            prefix,
            folder,
        };
        let smtp = free_port()?;
        stack.start_simulators(smtp)?;
        stack.make_topics()?;
        for service in SERVICES {
            for instance in 0..options.instances {
                stack.add_instance(service, instance, smtp, &verify_key, options)?;
            }
        }
        stack.wait_until_ready().await?;
        Ok(stack)
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.log"))
    }

    fn start_simulators(&mut self, smtp: u16) -> anyhow::Result<()> {
        let address = |url: &str| url.trim_start_matches("http://").to_owned();
        let data = self.folder.path().join("simulators");
        std::fs::create_dir_all(&data)?;
        let data = data.display().to_string();
        let gateway = [
            ("GATEWAY_ADDR", address(&self.gateway)),
            ("GATEWAY_SECRET", self.gateway_secret.clone()),
            ("DATA_DIR", data.clone()),
        ];
        let sink = [("SINK_ADDR", address(&self.sink)), ("SMTP_ADDR", format!("127.0.0.1:{smtp}")), ("DATA_DIR", data)];
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

    /// Runs orderctl against this stack and returns what it printed.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn orderctl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = Command::new(binary("orderctl")?)
            .args(arguments)
            .envs(self.tool_environment())
            .stdin(Stdio::null())
            .output()
            .context("starting orderctl; `cargo verify` builds it")?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "orderctl {arguments:?}: {}\n{printed}\n{said}", output.status);
        Ok(printed)
    }

    fn tool_environment(&self) -> BTreeMap<String, String> {
        let stack = self.folder.path().join("stack.json");
        let mut environment = BTreeMap::from([
            ("ORDERLOG_STACK".to_owned(), stack.display().to_string()),
            ("ORDERLOG_KAFKA".to_owned(), self.kafka.clone()),
            ("ORDERLOG_REGISTRY".to_owned(), self.registry.clone()),
            ("ORDERLOG_TOPIC_PREFIX".to_owned(), self.prefix.clone()),
            ("ORDERLOG_PARTITIONS".to_owned(), PARTITIONS.to_string()),
            ("ORDERLOG_GATEWAY".to_owned(), self.gateway.clone()),
            ("ORDERLOG_SINK".to_owned(), self.sink.clone()),
            ("ORDERLOG_SIGNING_KEY_FILE".to_owned(), self.folder.path().join("signing.pem").display().to_string()),
        ]);
        for (service, url) in &self.databases {
            let name = service.trim_end_matches("-svc").to_uppercase();
            environment.insert(format!("ORDERLOG_{name}_DATABASE_URL"), url.clone());
        }
        environment
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
            "postgres_admin": server("ORDERLOG_TEST_POSTGRES"), "gateway": self.gateway, "sink": self.sink,
            "topic_prefix": self.prefix, "partitions": PARTITIONS, "services": services, "processes": {},
        });
        std::fs::write(self.folder.path().join("stack.json"), stack.to_string())?;
        Ok(())
    }

    fn add_instance(
        &mut self,
        service: &'static str,
        number: usize,
        smtp: u16,
        verify_key: &Path,
        options: &Options,
    ) -> anyhow::Result<()> {
        let (http, admin) = (free_port()?, free_port()?);
        let first = self.instances.iter().find(|instance| instance.service == service);
        let public = first.map_or_else(|| format!("http://127.0.0.1:{http}"), |first| first.http.clone());
        let environment = [
            ("KAFKA_BOOTSTRAP", self.kafka.clone()),
            ("REGISTRY_URL", self.registry.clone()),
            ("DATABASE_URL", self.databases[service].clone()),
            ("HTTP_ADDR", format!("127.0.0.1:{http}")),
            ("ADMIN_ADDR", format!("127.0.0.1:{admin}")),
            ("TOPIC_PREFIX", self.prefix.clone()),
            ("PARTITIONS", PARTITIONS.to_string()),
            ("JWT_KEYS_FILE", verify_key.display().to_string()),
            ("GATEWAY_URL", self.gateway.clone()),
            ("GATEWAY_SECRET", self.gateway_secret.clone()),
            ("SMTP_URL", format!("smtp://127.0.0.1:{smtp}")),
            ("SMS_URL", format!("{}/sms", self.sink)),
            ("PUBLIC_URL", public),
            ("PAY_WITHIN", options.pay_within.to_owned()),
            ("LOG", "info".to_owned()),
            ("GATEWAY_ADAPTER", options.gateway_adapter.to_owned()),
            ("SESSION_TIMEOUT", "6s".to_owned()),
            ("ASK_GATEWAY_AFTER", options.ask_gateway_after.to_owned()),
            ("TIMER_GRACE", options.timer_grace.to_owned()),
        ];
        let mut process = Process {
            program: binary(service)?,
            arguments: Vec::new(),
            environment: environment.map(|(key, value)| (key.to_owned(), value)).into(),
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
    /// After a minute, with the reasons.
    pub async fn wait_until_ready(&self) -> anyhow::Result<()> {
        self.write_stack_file()?;
        let started = Instant::now();
        let client = reqwest::Client::new();
        for instance in self.instances.iter().filter(|instance| instance.process.child.is_some()) {
            let url = format!("{}/readyz", instance.admin);
            loop {
                let answer = client.get(&url).timeout(Duration::from_secs(2)).send().await;
                let said = match answer {
                    Ok(answer) if answer.status().is_success() => break,
                    Ok(answer) => answer.text().await.unwrap_or_default(),
                    Err(error) => error.to_string(),
                };
                if started.elapsed() > READY_WITHIN {
                    let log = std::fs::read_to_string(&instance.process.log).unwrap_or_default();
                    let tail: Vec<&str> = log.lines().rev().take(20).collect();
                    bail!("{} is not ready: {said}\n{}", instance.service, tail.join("\n"));
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
        let mut instances = self.instances.iter().filter(|instance| instance.service == service);
        &instances.nth(number).expect("an instance of this stack").http
    }

    /// The admin address of a service's instance.
    ///
    /// # Panics
    /// When there is no such instance.
    #[must_use]
    pub fn admin(&self, service: &str, number: usize) -> &str {
        let mut instances = self.instances.iter().filter(|instance| instance.service == service);
        &instances.nth(number).expect("an instance of this stack").admin
    }

    fn instance(&mut self, service: &str, number: usize) -> anyhow::Result<&mut Instance> {
        let mut instances = self.instances.iter_mut().filter(|instance| instance.service == service);
        instances.nth(number).with_context(|| format!("no instance {number} of {service}"))
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
        self.gateway_adapter == "http"
    }

    /// Keeps the folder with the logs, and says where it is. For failing tests.
    #[must_use]
    pub fn keep_logs(&mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        self.folder.path().to_owned()
    }
}

fn rand_u32() -> u32 {
    u32::from_be_bytes(*uuid::Uuid::new_v4().as_bytes().first_chunk().expect("16 bytes"))
}

fn keys(folder: &Path) -> anyhow::Result<(String, PathBuf)> {
    let (private, public) = (folder.join("signing.pem"), folder.join("verify.pem"));
    let run = |arguments: &[&std::ffi::OsStr]| -> anyhow::Result<()> {
        let status =
            Command::new("openssl").args(arguments).stderr(Stdio::null()).status().context("running openssl")?;
        ensure!(status.success(), "openssl: {status}");
        Ok(())
    };
    run(&["genpkey".as_ref(), "-algorithm".as_ref(), "ed25519".as_ref(), "-out".as_ref(), private.as_ref()])?;
    run(&["pkey".as_ref(), "-pubout".as_ref(), "-in".as_ref(), private.as_ref(), "-out".as_ref(), public.as_ref()])?;
    Ok((std::fs::read_to_string(private)?, public))
}

/// One database per service, of this stack alone.
async fn databases(admin: &str, prefix: &str) -> anyhow::Result<BTreeMap<&'static str, String>> {
    let mut conn = sqlx::PgConnection::connect(admin).await.context("connecting to Postgres")?;
    let mut urls = BTreeMap::new();
    for service in SERVICES {
        let name = format!("{}{}", prefix.replace('.', "_"), service.trim_end_matches("-svc"));
        // Made of digits and letters above; a database's name cannot be bound.
        sqlx::query(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut conn).await?;
        let (server, _) = admin.rsplit_once('/').context("the admin URL names a database")?;
        urls.insert(service, format!("{server}/{name}"));
    }
    conn.close().await?;
    Ok(urls)
}
