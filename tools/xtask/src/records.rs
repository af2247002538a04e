//! What is written down about a running stack: `stack.json` for programs, the pids for the next `up`.
//!
//! Secrets and the `env` file are in `secrets.rs`; here only addresses and process numbers change.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::layout::{self, Layout};
use crate::process::{self, Identity};

/// How long what an earlier `up` left behind may take to end.
const LEFTOVERS_END_WITHIN: Duration = Duration::from_secs(10);

/// The name under which the supervising process stands among the pids.
pub(crate) const SUPERVISOR: &str = "up";

/// `stack.json`: where everything is, for orderctl, the bench and other programs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StackFile {
    /// `host:port` of the broker.
    pub(crate) kafka: String,
    /// Base URL of the registry's Confluent API.
    pub(crate) registry: String,
    /// URL of each service's database, with its own role.
    pub(crate) postgres: BTreeMap<String, String>,
    /// URL of the superuser.
    pub(crate) postgres_admin: String,
    pub(crate) gateway: String,
    pub(crate) sink: String,
    pub(crate) topic_prefix: String,
    pub(crate) partitions: u32,
    pub(crate) services: Vec<ServiceEntry>,
    /// Process numbers by part; a part that has ended has none.
    pub(crate) processes: BTreeMap<String, u32>,
}

/// One instance of a service in `stack.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ServiceEntry {
    pub(crate) name: String,
    pub(crate) instance: u16,
    pub(crate) http: String,
    pub(crate) admin: String,
    pub(crate) pid: Option<u32>,
}

impl ServiceEntry {
    /// The name of this instance among the parts: `order-svc`, `order-svc-1`, ….
    pub(crate) fn part(&self) -> String {
        part_name(&self.name, self.instance)
    }
}

/// The name of an instance among parts, logs and pids.
pub(crate) fn part_name(service: &str, instance: u16) -> String {
    if instance == 0 { service.to_owned() } else { format!("{service}-{instance}") }
}

/// Writes both files anew whenever a part was started.
#[derive(Debug)]
pub(crate) struct Records {
    layout: Layout,
    stack: StackFile,
}

impl Records {
    pub(crate) fn new(layout: Layout, stack: StackFile) -> Self {
        Self { layout, stack }
    }

    /// Notes what runs now.
    pub(crate) fn write(&self, running: &BTreeMap<String, Identity>) -> Result<()> {
        let mut pids = running.clone();
        pids.extend(Identity::of(std::process::id()).map(|me| (SUPERVISOR.to_owned(), me)));
        layout::replace(&self.layout.pids_file(), &serde_json::to_string_pretty(&pids)?, 0o644)?;
        let stack = with_pids(self.stack.clone(), &pids);
        // It holds the databases' passwords.
        layout::replace(&self.layout.stack_file(), &serde_json::to_string_pretty(&stack)?, 0o600)
    }

    /// Notes that nothing runs; the addresses stay.
    pub(crate) fn clear(&self) {
        let stack = with_pids(self.stack.clone(), &BTreeMap::new());
        // Best effort at the end: a stale file is recognised by the next `up`.
        if let Ok(text) = serde_json::to_string_pretty(&stack) {
            drop(layout::replace(&self.layout.stack_file(), &text, 0o600));
        }
        drop(fs::remove_file(self.layout.pids_file()));
    }
}

fn with_pids(mut stack: StackFile, pids: &BTreeMap<String, Identity>) -> StackFile {
    for service in &mut stack.services {
        service.pid = pids.get(&service.part()).map(|process| process.pid);
    }
    stack.processes = pids.iter().map(|(name, process)| (name.clone(), process.pid)).collect();
    stack
}

/// The stack as it was last written.
///
/// # Errors
/// When there is none, or it is not understood.
pub(crate) fn read_stack(layout: &Layout) -> Result<StackFile> {
    let path = layout.stack_file();
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not understood", path.display()))
}

/// The pids as last written; nothing when there is no file, or one cut short.
pub(crate) fn read_pids(layout: &Layout) -> BTreeMap<String, Identity> {
    fs::read_to_string(layout.pids_file()).ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

/// Ends what a killed `up` left behind; returns the names of those that still ran. Call it only with the folder's lock held.
pub(crate) fn end_leftovers(layout: &Layout) -> Vec<String> {
    let mut left = read_pids(layout);
    left.remove(SUPERVISOR);
    left.retain(|_, process| process.lives());
    let is_postgres = |name: &str| name == "postgres";
    let (postgres, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
        left.clone().into_iter().partition(|(name, _)| is_postgres(name));
    let others: Vec<Identity> = others.into_values().collect();
    process::end_leftovers(&others, Signal::SIGTERM, LEFTOVERS_END_WITHIN);
    // SIGINT is Postgres' fast shutdown; SIGTERM would wait for its clients.
    let postgres: Vec<Identity> = postgres.into_values().collect();
    process::end_leftovers(&postgres, Signal::SIGINT, LEFTOVERS_END_WITHIN);
    left.into_keys().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack() -> StackFile {
        StackFile {
            kafka: "127.0.0.1:19092".into(),
            registry: "http://127.0.0.1:18081/apis/ccompat/v7".into(),
            postgres: BTreeMap::from([("order-svc".into(), "postgres://order:x@127.0.0.1:15432/order".into())]),
            postgres_admin: "postgres://postgres:x@127.0.0.1:15432/postgres".into(),
            gateway: "http://127.0.0.1:8201".into(),
            sink: "http://127.0.0.1:8202".into(),
            topic_prefix: String::new(),
            partitions: 6,
            services: vec![ServiceEntry {
                name: "order-svc".into(),
                instance: 1,
                http: "http://127.0.0.1:8111".into(),
                admin: "http://127.0.0.1:9111".into(),
                pid: None,
            }],
            processes: BTreeMap::new(),
        }
    }

    #[test]
    fn the_file_has_the_names_that_others_read() {
        let pids = BTreeMap::from([
            ("order-svc-1".to_owned(), Identity { pid: 4711, started: 1 }),
            ("kafka".to_owned(), Identity { pid: 12, started: 1 }),
        ]);
        let json = serde_json::to_value(with_pids(stack(), &pids)).unwrap();
        assert_eq!(json["services"][0]["pid"], 4711);
        assert_eq!(json["services"][0]["name"], "order-svc");
        assert_eq!(json["services"][0]["instance"], 1);
        assert_eq!(json["processes"]["kafka"], 12);
        assert_eq!(json["partitions"], 6);
        for name in ["kafka", "registry", "postgres", "postgres_admin", "gateway", "sink", "topic_prefix"] {
            assert!(json.get(name).is_some(), "{name}");
        }
    }

    #[test]
    fn an_ended_part_has_no_pid() {
        let json = serde_json::to_value(with_pids(stack(), &BTreeMap::new())).unwrap();
        assert!(json["services"][0]["pid"].is_null());
        assert_eq!(json["processes"], serde_json::json!({}));
    }
}
