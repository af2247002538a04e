//! A broker and a Postgres of a run's own, so that it may kill them or fill their disks: started as the ones that run already,
//! with other ports and empty folders.
//!
//! The registry is shared; who cuts it off does so by a proxy. Both servers die with this process, however it ends.

mod disk;

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::sys::signal::Signal;
use rdkafka::consumer::{BaseConsumer, Consumer};
use sqlx::Connection;

use crate::client::eventually;
use crate::ground::{binary, free_port, server};
use crate::process::Process;
use disk::Disk;

const READY_WITHIN: Duration = Duration::from_secs(90);
/// A server that takes longer to end is killed. Postgres does when it is told to in the middle of a recovery.
const ENDS_WITHIN: Duration = Duration::from_secs(8);
const ORPHANS_END_WITHIN: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What is done to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToServer {
    /// SIGKILL
    Kill,
    /// SIGQUIT: Postgres' immediate shutdown.
    Quit,
    /// SIGTERM
    Terminate,
    /// SIGSTOP
    Stop,
    /// SIGCONT
    Continue,
    /// Where it does not run.
    Start,
}

/// A server that is ended and started again.
#[derive(Debug)]
pub struct Server {
    process: Process,
    /// What it writes to, where that has an end.
    disk: Option<Disk>,
    /// It was told to end.
    ending: bool,
    /// What ends it when it is to start again and has not ended.
    last_resort: Signal,
}

/// Both of them.
#[derive(Debug)]
pub struct Servers {
    /// Kafka.
    pub broker: Server,
    /// Postgres.
    pub postgres: Server,
    /// `host:port`
    pub kafka: String,
    /// URL of the superuser.
    pub postgres_admin: String,
    /// Goes last.
    _folder: tempfile::TempDir,
}

/// A process of this machine.
struct Model {
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
    uid: u32,
    gid: u32,
}

impl Servers {
    /// Starts both and waits until they answer. With `disk_bytes` each writes to a disk of that size.
    ///
    /// # Errors
    /// When one does not start, or when this machine cannot make such a disk.
    pub async fn start(logs: &Path, disk_bytes: Option<u64>) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("orderlog-chaos-").tempdir()?;
        // Postgres runs under an account of its own, which must get through.
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755))?;
        let disk = |name: &str| {
            let place = folder.path().join(name);
            std::fs::create_dir(&place)?;
            disk_bytes.map(|bytes| Disk::make(place, bytes)).transpose()
        };
        let disks = (disk("kafka")?, disk("postgres")?);
        let (broker, kafka) = broker(folder.path(), logs)?;
        let (postgres, postgres_admin) = postgres(folder.path(), logs)?;
        let mut broker = Server::new(broker, disks.0, Signal::SIGKILL);
        // Children of a killed postmaster would be in the way of the next one.
        let mut postgres = Server::new(postgres, disks.1, Signal::SIGQUIT);
        broker.process.start()?;
        postgres.process.start()?;
        let servers = Self { broker, postgres, kafka, postgres_admin, _folder: folder };
        let (kafka, admin) = (servers.kafka.clone(), servers.postgres_admin.clone());
        eventually("a broker", READY_WITHIN, async || {
            let asked = kafka.clone();
            let answer = tokio::task::spawn_blocking(move || broker_answers(&asked)).await?;
            Ok(answer.map_err(|error| format!("{error:#}")))
        })
        .await?;
        eventually("a Postgres", READY_WITHIN, async || {
            Ok(sqlx::PgConnection::connect(&admin).await.map(drop).map_err(|error| error.to_string()))
        })
        .await?;
        Ok(servers)
    }
}

impl Server {
    fn new(process: Process, disk: Option<Disk>, last_resort: Signal) -> Self {
        Self { process, disk, ending: false, last_resort }
    }

    /// Nothing more can be written, which may be its end.
    ///
    /// # Errors
    /// When its disk has no end.
    pub fn fill_disk(&mut self) -> anyhow::Result<()> {
        self.ending = true;
        self.disk.as_ref().context("a disk without an end")?.fill()
    }

    /// There is room again, and it runs again if it had ended.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn free_disk(&mut self) -> anyhow::Result<()> {
        self.disk.as_ref().context("a disk without an end")?.free()?;
        if self.process.running().is_none() {
            return self.start().await;
        }
        self.ending = false;
        Ok(())
    }

    /// Does it. `Some` says whether it ran.
    pub(crate) async fn act(&mut self, what: ToServer) -> anyhow::Result<Option<bool>> {
        let signal = match what {
            ToServer::Kill => Signal::SIGKILL,
            ToServer::Quit => Signal::SIGQUIT,
            ToServer::Terminate => Signal::SIGTERM,
            ToServer::Stop => Signal::SIGSTOP,
            ToServer::Continue => Signal::SIGCONT,
            ToServer::Start => return self.start().await.map(|()| None),
        };
        let ran = self.process.running().is_some();
        if ran {
            self.process.signal(signal)?;
        }
        match what {
            ToServer::Continue => Ok(None),
            ToServer::Stop => Ok(Some(ran)),
            _ => {
                self.ending = true;
                Ok(Some(ran))
            }
        }
    }

    async fn start(&mut self) -> anyhow::Result<()> {
        if !self.ending {
            return Ok(());
        }
        if self.process.running().is_some() {
            self.process.signal(self.last_resort)?;
            self.process.signal(Signal::SIGCONT)?;
            let asked = Instant::now();
            while self.process.running().is_some() && asked.elapsed() < ENDS_WITHIN {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        if self.process.running().is_some() {
            self.process.end(Signal::SIGKILL)?;
            // Postgres' children notice that they are alone, and go.
            tokio::time::sleep(ORPHANS_END_WITHIN).await;
        }
        self.process.start()?;
        self.ending = false;
        Ok(())
    }

    /// No fault is in force any more.
    pub(crate) async fn heal(&mut self) -> anyhow::Result<()> {
        self.act(ToServer::Continue).await?;
        self.start().await
    }

    /// Fails when it ended although nobody told it to.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        if self.ending { Ok(()) } else { self.process.check() }
    }
}

fn broker_answers(kafka: &str) -> anyhow::Result<()> {
    let mut config = rdkafka::ClientConfig::new();
    config.set("bootstrap.servers", kafka).set_log_level(rdkafka::config::RDKafkaLogLevel::Emerg);
    let consumer: BaseConsumer = config.create()?;
    consumer.fetch_metadata(None, Duration::from_secs(2))?;
    Ok(())
}

fn broker(folder: &Path, logs: &Path) -> anyhow::Result<(Process, String)> {
    let given = server("ORDERLOG_TEST_KAFKA");
    let listens = |arguments: &[String]| {
        let config = arguments.last().and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        arguments.iter().any(|argument| argument == "kafka.Kafka") && config.contains(&format!("//{given},"))
    };
    let model = Model::find(listens).with_context(|| format!("no process here is the broker of {given}"))?;
    let (last, arguments) = model.arguments.split_last().context("a broker has arguments")?;
    let (port, controller) = (free_port()?, free_port()?);
    let own = format!(
        "listeners=BROKER://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=BROKER://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
         controller.quorum.bootstrap.servers=127.0.0.1:{controller}\nlog.dirs={}\n",
        folder.join("kafka/log").display()
    );
    // The last of two lines counts; the model's are left out so that a reader is not misled.
    let replaced = |line: &&str| own.lines().any(|mine| mine.split('=').next() == line.split('=').next());
    let text = std::fs::read_to_string(last)?;
    let text: String = text.lines().filter(|line| !replaced(line)).map(|line| format!("{line}\n")).collect();
    let config = folder.join("server.properties");
    std::fs::write(&config, text + &own)?;
    let config = config.display().to_string();
    let position = arguments.iter().position(|argument| argument == "kafka.Kafka").context("the broker's class")?;
    let java = &arguments[..position];
    let cluster = format!("{}A", &uuid::Uuid::new_v4().simple().to_string()[..21]);
    let format = ["kafka.tools.StorageTool", "format", "--standalone", "-t", &cluster, "-c", &config];
    let status = Command::new(&java[0])
        .args(&java[1..])
        .args(format)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .context("preparing the broker's log")?;
    ensure!(status.success(), "preparing the broker's log: {status}");
    let command = [java, &["kafka.Kafka".to_owned(), config]].concat();
    Ok((model.launch(&command, "SIGKILL", &logs.join("kafka.log"))?, format!("127.0.0.1:{port}")))
}

fn postgres(folder: &Path, logs: &Path) -> anyhow::Result<(Process, String)> {
    let given = server("ORDERLOG_TEST_POSTGRES");
    let options: sqlx::postgres::PgConnectOptions = given.parse().context("ORDERLOG_TEST_POSTGRES")?;
    let its_port = format!("port={}", options.get_port());
    let listens = |arguments: &[String]| {
        let program = arguments.first().map(Path::new).and_then(Path::file_name);
        program.is_some_and(|name| name == "postgres") && arguments.contains(&its_port)
    };
    let model = Model::find(listens).with_context(|| format!("no process here is the Postgres of {its_port}"))?;
    let data = folder.join("postgres");
    std::fs::set_permissions(&data, PermissionsExt::from_mode(0o700))?;
    chown(&data, Some(model.uid), Some(model.gid))?;
    let initdb = Path::new(&model.arguments[0]).with_file_name("initdb").display().to_string();
    let place = data.display().to_string();
    let arguments = ["-A", "trust", "-U", "postgres", "--no-locale", "-E", "UTF8", "--no-sync", "-D", &place];
    let command: Vec<String> = [initdb.as_str()].into_iter().chain(arguments).map(str::to_owned).collect();
    let launch = model.launch(&command, "SIGKILL", &logs.join("initdb.log"))?;
    let status = Command::new(&launch.program)
        .args(&launch.arguments)
        .envs(&launch.environment)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .context("making the database cluster")?;
    ensure!(status.success(), "initdb: {status}");
    let port = free_port()?;
    let config = data.join("orderlog.conf");
    let mut command = Vec::new();
    for argument in &model.arguments {
        command.push(match argument.split_once('=') {
            Some(("config_file", theirs)) => {
                std::fs::copy(theirs, &config)?;
                chown(&config, Some(model.uid), Some(model.gid))?;
                format!("config_file={}", config.display())
            }
            Some(("port", _)) => format!("port={port}"),
            _ if command.last().is_some_and(|last| last == "-D") => place.clone(),
            _ => argument.clone(),
        });
    }
    // Its children must go with it.
    let process = model.launch(&command, "SIGQUIT", &logs.join("postgres.log"))?;
    Ok((process, format!("postgres://postgres@127.0.0.1:{port}/postgres")))
}

impl Model {
    fn find(matches: impl Fn(&[String]) -> bool) -> Option<Self> {
        let processes = std::fs::read_dir("/proc").ok()?.flatten().map(|entry| entry.path());
        processes.filter_map(|process| Self::read(&process, &matches)).next()
    }

    fn read(process: &Path, matches: impl Fn(&[String]) -> bool) -> Option<Self> {
        let list = |name: &str| -> Option<Vec<String>> {
            let bytes = std::fs::read(process.join(name)).ok()?;
            let texts = bytes.split(|byte| *byte == 0).filter(|text| !text.is_empty());
            Some(texts.map(|text| String::from_utf8_lossy(text).into_owned()).collect())
        };
        let arguments = list("cmdline")?;
        if !matches(&arguments) {
            return None;
        }
        let pairs = list("environ")?;
        let pairs = pairs.iter().filter_map(|pair| pair.split_once('='));
        let environment = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let meta = std::fs::metadata(process).ok()?;
        Some(Self { arguments, environment, uid: meta.uid(), gid: meta.gid() })
    }

    /// Under the model's account, with its environment, dead when this process is.
    fn launch(&self, command: &[String], death: &str, log: &Path) -> anyhow::Result<Process> {
        let mut arguments = vec!["launch".to_owned(), format!("--parent={}", std::process::id())];
        arguments.push(format!("--signal={death}"));
        if self.uid != nix::unistd::geteuid().as_raw() {
            arguments.push(format!("--user={}:{}", self.uid, self.gid));
        }
        arguments.push("--".to_owned());
        arguments.extend_from_slice(command);
        let (program, log): (PathBuf, PathBuf) = (binary("xtask")?, log.to_owned());
        if !program.exists() {
            bail!("{} is missing: `cargo build -p xtask` builds it", program.display());
        }
        Ok(Process { program, arguments, environment: self.environment.clone(), log, child: None })
    }
}
