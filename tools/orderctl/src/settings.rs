//! Where the stack is: flags, then ORDERLOG_* variables, then `.orderlog/env` and `.orderlog/stack.json`.
//!
//! Nothing is opened here but these files; whether something answers is asked by [`Settings::kafka_answers`].

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use engine::kafka::Kafka;
use engine::registry::Registry;
use serde::Deserialize;

use crate::cli::Place;

const FOLDER: &str = ".orderlog";
/// The services' own default; only rebuild uses it, to wait for a killed instance.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);
const PARTITIONS_DEFAULT: i32 = 6;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// `stack.json`, as `cargo up` writes it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Stack {
    pub(crate) kafka: String,
    pub(crate) registry: String,
    /// URL of each service's database, with its own role.
    pub(crate) postgres: BTreeMap<String, String>,
    pub(crate) postgres_admin: String,
    pub(crate) sink: String,
    #[serde(default)]
    pub(crate) topic_prefix: String,
    pub(crate) partitions: i32,
    pub(crate) services: Vec<Instance>,
    /// Process numbers by part.
    #[serde(default)]
    pub(crate) processes: BTreeMap<String, u32>,
}

/// One instance of a service.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Instance {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) instance: u16,
    pub(crate) http: String,
    pub(crate) admin: String,
}

impl Instance {
    /// `order-svc`, `order-svc-1` …
    pub(crate) fn label(&self) -> String {
        if self.instance == 0 { self.name.clone() } else { format!("{}-{}", self.name, self.instance) }
    }
}

/// Everything a command may need to know.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    given: Place,
    file: BTreeMap<String, String>,
    stack: Option<(Stack, PathBuf)>,
    /// The folder `.orderlog`, if there is one here or above.
    pub(crate) home: Option<PathBuf>,
}

impl Settings {
    /// Reads the files that are there.
    ///
    /// # Errors
    /// When one is there and not understood, or `--stack` names none.
    pub(crate) fn load(given: Place) -> anyhow::Result<Self> {
        let here = std::env::current_dir().context("asking for the current folder")?;
        let home = here.ancestors().map(|folder| folder.join(FOLDER)).find(|folder| folder.is_dir());
        Self::from_files(given, home)
    }

    fn from_files(given: Place, home: Option<PathBuf>) -> anyhow::Result<Self> {
        let env = home.as_ref().map(|home| home.join("env")).filter(|path| path.is_file());
        let file = env.map_or_else(|| Ok(BTreeMap::new()), |path| read_env(&path))?;
        let named = given.stack.clone().or_else(|| file.get("ORDERLOG_STACK").map(PathBuf::from));
        let beside = home.as_ref().map(|home| home.join("stack.json"));
        let path = named.or(beside).filter(|path| given.stack.is_some() || path.is_file());
        let stack = path.map(|path| anyhow::Ok((read_stack(&path)?, path))).transpose()?;
        Ok(Self { given, file, stack, home })
    }

    fn value(&self, given: Option<&String>, name: &str, stack: impl Fn(&Stack) -> String) -> anyhow::Result<String> {
        let file = || self.file.get(name).cloned();
        let value = given.cloned().or_else(file).or_else(|| self.stack.as_ref().map(|(file, _)| stack(file)));
        value.with_context(|| {
            format!("no stack is described here: run `cargo up` in the checkout first, or set {name} (see --help)")
        })
    }

    /// Where Kafka is.
    pub(crate) fn kafka(&self) -> anyhow::Result<Kafka> {
        let bootstrap = self.value(self.given.kafka.as_ref(), "ORDERLOG_KAFKA", |stack| stack.kafka.clone())?;
        let prefix =
            self.value(self.given.topic_prefix.as_ref(), "ORDERLOG_TOPIC_PREFIX", |stack| stack.topic_prefix.clone());
        let partitions = self.given.partitions.map(|count| count.to_string());
        let partitions =
            self.value(partitions.as_ref(), "ORDERLOG_PARTITIONS", |stack| stack.partitions.to_string()).ok();
        let partitions = partitions.map_or(Ok(PARTITIONS_DEFAULT), |text| {
            text.parse().ok().filter(|count| *count > 0).with_context(|| format!("{text} is no number of partitions"))
        })?;
        Ok(Kafka { bootstrap, topic_prefix: prefix.unwrap_or_default(), partitions, session_timeout: SESSION_TIMEOUT })
    }

    /// Where Kafka is, once it has taken a connection.
    ///
    /// # Errors
    /// One sentence where librdkafka would try for ever.
    pub(crate) async fn kafka_answers(&self) -> anyhow::Result<Kafka> {
        let kafka = self.kafka()?;
        for address in kafka.bootstrap.split(',') {
            let connect = tokio::net::TcpStream::connect(address.trim());
            if matches!(tokio::time::timeout(ANSWER_TIMEOUT, connect).await, Ok(Ok(_))) {
                return Ok(kafka);
            }
        }
        bail!("Kafka does not answer at {}; start the stack with `cargo up`", kafka.bootstrap)
    }

    /// A client of the registry.
    pub(crate) fn registry(&self) -> anyhow::Result<Registry> {
        let url = self.value(self.given.registry.as_ref(), "ORDERLOG_REGISTRY", |stack| stack.registry.clone())?;
        Registry::new(url)
    }

    /// URL of Postgres' superuser.
    pub(crate) fn postgres_admin(&self) -> anyhow::Result<String> {
        let given = self.given.postgres_admin.as_ref();
        self.value(given, "ORDERLOG_POSTGRES_ADMIN", |stack| stack.postgres_admin.clone())
    }

    /// URL of the sink for mail and SMS.
    pub(crate) fn sink(&self) -> anyhow::Result<String> {
        self.value(self.given.sink.as_ref(), "ORDERLOG_SINK", |stack| stack.sink.clone())
    }

    /// The key that signs tokens, as PEM.
    pub(crate) fn signing_key(&self) -> anyhow::Result<String> {
        let given = self.given.signing_key.clone();
        let file = || self.file.get("ORDERLOG_SIGNING_KEY").map(PathBuf::from);
        let beside = || self.home.as_ref().map(|home| home.join("keys/signing.pem"));
        let path = given.or_else(file).or_else(beside).context(
            "no signing key is known here: run `cargo up` in the checkout first, or set ORDERLOG_SIGNING_KEY",
        )?;
        fs::read_to_string(&path)
            .with_context(|| format!("the signing key {} cannot be read; `cargo up` makes one", path.display()))
    }

    /// The running stack.
    pub(crate) fn stack(&self) -> anyhow::Result<&Stack> {
        let stack = self.stack.as_ref().map(|(stack, _)| stack);
        stack.context("no stack.json is here: run `cargo up` in the checkout first, or give --stack FILE")
    }

    /// Where it is described.
    pub(crate) fn stack_file(&self) -> anyhow::Result<PathBuf> {
        self.stack()?;
        Ok(self.stack.as_ref().map(|(_, path)| path.clone()).expect("a stack that is there was read from a file"))
    }

    /// The instances of a service, the first one first.
    pub(crate) fn instances(&self, service: &str) -> anyhow::Result<Vec<&Instance>> {
        let instances: Vec<&Instance> = self.stack()?.services.iter().filter(|one| one.name == service).collect();
        if instances.is_empty() {
            bail!("the stack here runs no {service}; start it with `cargo up`");
        }
        Ok(instances)
    }

    /// URL of a service's database with its own role.
    pub(crate) fn database(&self, service: &str) -> anyhow::Result<&str> {
        let url = self.stack()?.postgres.get(service);
        url.map(String::as_str).with_context(|| format!("stack.json names no database of {service}"))
    }
}

fn read_stack(path: &Path) -> anyhow::Result<Stack> {
    let text =
        fs::read_to_string(path).with_context(|| format!("{} cannot be read; `cargo up` writes it", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not understood", path.display()))
}

fn read_env(path: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let pair = |line: &str| {
        let (name, value) = line.split_once('=')?;
        Some((name.to_owned(), value.to_owned()))
    };
    Ok(lines.filter_map(pair).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STACK: &str = r#"{"kafka":"stack:1","registry":"http://stack/r","postgres":{"order-svc":"postgres://o"},
        "postgres_admin":"postgres://a","gateway":"g","sink":"s","topic_prefix":"t.","partitions":2,
        "services":[{"name":"order-svc","instance":1,"http":"h","admin":"a","pid":null}],"processes":{"kafka":1}}"#;

    fn home(name: &str, env: &str) -> PathBuf {
        let home = std::env::temp_dir().join(format!("orderctl-settings-{name}-{}", std::process::id()));
        fs::create_dir_all(&home).unwrap();
        fs::write(home.join("env"), env).unwrap();
        fs::write(home.join("stack.json"), STACK).unwrap();
        home
    }

    #[test]
    fn flags_go_before_the_env_file_and_that_before_the_stack() {
        let home = home("order", "# a comment\nORDERLOG_KAFKA=file:1\n\n");
        let read = |given| Settings::from_files(given, Some(home.clone())).unwrap();
        let flag = Place { kafka: Some("flag:1".to_owned()), ..Place::default() };
        assert_eq!(read(flag).kafka().unwrap().bootstrap, "flag:1");
        let settings = read(Place::default());
        let kafka = settings.kafka().unwrap();
        assert_eq!((kafka.bootstrap.as_str(), kafka.topic_prefix.as_str(), kafka.partitions), ("file:1", "t.", 2));
        assert_eq!(settings.postgres_admin().unwrap(), "postgres://a");
        assert_eq!(settings.database("order-svc").unwrap(), "postgres://o");
        assert_eq!(settings.instances("order-svc").unwrap()[0].label(), "order-svc-1");
        assert!(settings.instances("notify-svc").unwrap_err().to_string().contains("cargo up"));
        fs::remove_dir_all(home).unwrap();
    }

    #[test]
    fn without_a_stack_the_sentence_names_cargo_up() {
        let settings = Settings::from_files(Place::default(), None).unwrap();
        for error in [settings.kafka().unwrap_err(), settings.stack().unwrap_err(), settings.signing_key().unwrap_err()]
        {
            assert!(error.to_string().contains("`cargo up`"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_broker_that_is_not_there_is_one_sentence() {
        let given = Place { kafka: Some("127.0.0.1:1".to_owned()), ..Place::default() };
        let error = Settings::from_files(given, None).unwrap().kafka_answers().await.unwrap_err();
        assert_eq!(error.to_string(), "Kafka does not answer at 127.0.0.1:1; start the stack with `cargo up`");
    }
}
