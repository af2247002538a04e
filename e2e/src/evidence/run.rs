//! What a run says about itself: what it was, what was done to it, what must have happened in it.
//!
//! All times are microseconds since 1970, by the clock of the machine that drove the run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `run.json`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Run {
    /// Repeats the run's choices.
    pub seed: u64,
    /// Of the tree that was built.
    pub commit: String,
    /// Before every topic on the broker.
    pub prefix: String,
    /// Crate names of the services.
    pub services: Vec<String>,
    /// Of every topic.
    pub partitions: i32,
    /// The first client operation is not before.
    pub started_at: i64,
    /// The last client operation began before.
    pub loaded_until: Option<i64>,
    /// No fault is in force from then on.
    pub healed_at: Option<i64>,
    /// Everything was at its end.
    pub converged_at: Option<i64>,
    /// When the folder was filled.
    pub collected_at: Option<i64>,
    /// True when every request of every client is in the history, so that an order nobody asked for is a phantom.
    pub whole_history: bool,
    /// For people.
    pub phases: Value,
    /// False when payment-svc answers for the gateway itself, so that no ledger knows its charges.
    pub charges_outside: Option<bool>,
    /// What must have happened, so that the run says anything (I15).
    pub expects: Expects,
    /// What must not be passed (I16).
    pub limits: Limits,
}

/// Minimums of a run that is not vacuous.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Expects {
    /// Percent of client operations that must be ok before the first fault; 95 when faults are there.
    pub ok_before_percent: Option<u64>,
    /// The same between the first fault and `healed_at`; 50 when faults are there.
    pub ok_during_percent: Option<u64>,
    /// How often each kind of fault must have been done.
    pub faults: BTreeMap<String, u64>,
    /// Kinds of faults of which one must have been felt; a kind of which none says `felt` is not asked.
    pub felt: Vec<String>,
    /// How often each failpoint must have been hit.
    pub failpoints: BTreeMap<String, u64>,
    /// Minimums of what `counters.json` counts, or of what the checker counts itself (`repeats`, `held_released`,
    /// `asked_first`, `dead`, `timers`).
    pub counters: BTreeMap<String, u64>,
    /// Minimum of orders by final status.
    pub statuses: BTreeMap<String, u64>,
}

/// Maximums, by service or for all (`*`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Resident memory of a process.
    pub rss_bytes: BTreeMap<String, u64>,
    /// Connections of a process to its database.
    pub db_connections: BTreeMap<String, u64>,
    /// Bytes in a service's outbox.
    pub outbox_bytes: BTreeMap<String, u64>,
    /// Messages that one fault may have made come again; 2 where nothing is said.
    pub repeats_per_fault: Option<usize>,
    /// From `healed_at` to `converged_at`; 90 s where nothing is said.
    pub converge_us: Option<i64>,
}

/// A line of `faults.ndjson`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// When it began.
    pub at: i64,
    /// `kill`, `stop`, …
    pub kind: String,
    /// To whom.
    pub target: String,
    /// More about it.
    #[serde(default)]
    pub detail: Value,
    /// Whether the system was seen to notice; null when nobody looked.
    #[serde(default)]
    pub felt: Option<bool>,
}

/// A line of `injected.ndjson`: a record that the run appended itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Injected {
    /// Without prefix.
    pub topic: String,
    /// Partition number.
    pub partition: i32,
    /// Where it lies.
    pub offset: i64,
    /// `repeat` for a copy of a past record; anything else is strange and must be dead at every reader.
    pub class: String,
    /// Its bytes.
    #[serde(default, with = "super::entry::optional_bytes")]
    pub value: Option<Vec<u8>>,
}

/// A line of `resources.ndjson`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// When.
    pub at: i64,
    /// Crate name.
    pub service: String,
    /// Which process of it.
    #[serde(default)]
    pub instance: usize,
    /// Resident memory.
    #[serde(default)]
    pub rss_bytes: Option<u64>,
    /// Connections to its database.
    #[serde(default)]
    pub db_connections: Option<u64>,
    /// In its outbox.
    #[serde(default)]
    pub outbox_bytes: Option<u64>,
}
