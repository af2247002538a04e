//! How the broker is started: one node that is broker and controller, from its jars.
//!
//! Topics are not made here; `orderctl topics create` does that.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use crate::fleet::{Part, Stage};
use crate::layout::{self, Layout};
use crate::probe::Probe;
use crate::process::Program;
use crate::secrets::random_hex;
use crate::settings::Settings;
use crate::sources::Programs;

const BROKER: &str = include_str!("../../../deploy/broker.properties");
const READY_WITHIN: Duration = Duration::from_secs(90);

/// Prepares the broker's folder and says how it is started.
///
/// # Errors
/// When the folder cannot be prepared.
pub(crate) fn part(layout: &Layout, settings: &Settings, programs: &Programs) -> Result<Part> {
    let data = layout.data_of("kafka");
    layout::make_folder(&data)?;
    let config = data.join("server.properties");
    layout::replace(&config, &properties(settings, &data)?, 0o644)?;
    let class_path = class_path(&programs.broker)?;
    let tool = |java: Program, class: &str| {
        let logging = layout.root.join("deploy/broker-log4j2.yaml");
        java.args(["-Xms256m", "-Xmx512m", "-XX:+UseSerialGC"])
            .args([format!("-Dlog4j2.configurationFile={}", logging.display())])
            .args(["-cp", &class_path, class])
    };
    if !data.join("log/meta.properties").exists() {
        tool(Program::new(&programs.java), "kafka.tools.StorageTool")
            .args(["format", "--standalone", "-t", &cluster_id()?, "-c"])
            .args([&config])
            .run("preparing the log", &layout.log_of("kafka-format"))?;
    }
    Ok(Part {
        name: "kafka".to_owned(),
        stage: Stage::Kafka,
        program: tool(programs.java_for("kafka", layout), "kafka.Kafka").args([config]),
        probe: Probe::Kafka { port: settings.port("KAFKA_PORT")? },
        log: layout.log_of("kafka"),
        stop: Signal::SIGTERM,
        ready_within: READY_WITHIN,
    })
}

/// `host:port` for clients.
pub(crate) fn bootstrap(settings: &Settings) -> Result<String> {
    Ok(format!("127.0.0.1:{}", settings.port("KAFKA_PORT")?))
}

fn properties(settings: &Settings, data: &Path) -> Result<String> {
    let broker = bootstrap(settings)?;
    let controller = settings.port("KAFKA_CONTROLLER_PORT")?;
    Ok(format!(
        "{BROKER}listeners=BROKER://{broker},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=BROKER://{broker},CONTROLLER://127.0.0.1:{controller}\n\
         controller.quorum.bootstrap.servers=127.0.0.1:{controller}\n\
         log.dirs={}\n",
        data.join("log").display()
    ))
}

/// The jars one by one, in sorted order.
fn class_path(folder: &Path) -> Result<String> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut jars: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    jars.sort();
    let jars: Vec<String> = jars.iter().map(|jar| jar.display().to_string()).collect();
    Ok(jars.join(":"))
}

/// 16 bytes in base64 without padding, as Kafka wants it: 22 characters, of which the last carries two bits.
fn cluster_id() -> Result<String> {
    Ok(format!("{}A", &random_hex()?[..21]))
}

/// Whether no order was ever written: the first `up` shows a demo order, a later one must not.
pub(crate) fn log_is_empty(layout: &Layout, prefix: &str) -> bool {
    let log = layout.data_of("kafka").join("log");
    let partitions = fs::read_dir(log).into_iter().flatten().flatten().filter(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        ["order.commands-", "order.events-", "inventory.events-"]
            .iter()
            .any(|topic| name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(topic)))
    });
    let segments = partitions.filter_map(|entry| fs::read_dir(entry.path()).ok()).flatten().flatten();
    let written = |file: fs::DirEntry| {
        file.path().extension().is_some_and(|kind| kind == "log") && file.metadata().is_ok_and(|meta| meta.len() > 0)
    };
    !segments.into_iter().any(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_base_reaches_every_address_of_the_broker() {
        let settings = Settings::new(Some(24_000)).unwrap();
        let text = properties(&settings, Path::new("/data")).unwrap();
        assert!(text.contains("listeners=BROKER://127.0.0.1:24000,CONTROLLER://127.0.0.1:24001\n"));
        assert!(text.contains("log.dirs=/data/log\n"));
        assert!(!text.contains("19092"));
    }

    #[test]
    fn the_broker_makes_no_topic_by_itself() {
        assert!(BROKER.contains("\nauto.create.topics.enable=false\n"));
    }

    #[test]
    fn a_cluster_id_is_16_bytes_of_base64() {
        let id = cluster_id().unwrap();
        assert_eq!(id.len(), 22);
        assert!(id.chars().all(|c| c.is_ascii_alphanumeric()));
    }

    #[test]
    fn a_log_is_empty_until_an_order_is_written() {
        let mut layout = Layout::of_checkout();
        layout.home = std::env::temp_dir().join(format!("xtask-log-empty-{}", std::process::id()));
        assert!(log_is_empty(&layout, ""));
        let partition = layout.data_of("kafka").join("log/order.commands-0");
        layout::make_folder(&partition).unwrap();
        let segment = partition.join("00000000000000000000.log");
        fs::write(&segment, "").unwrap();
        assert!(log_is_empty(&layout, ""));
        fs::write(&segment, "record").unwrap();
        assert!(!log_is_empty(&layout, ""));
        assert!(log_is_empty(&layout, "other."));
        layout::remove(&layout.home).unwrap();
    }
}
