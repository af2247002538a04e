//! The folder that a run leaves and the checker reads.
//!
//! | file | lines |
//! | --- | --- |
//! | `history.ndjson` | [`crate::history::Operation`]: what clients asked and were told |
//! | `topics/<topic>.ndjson` | [`Entry`]: every record from offset 0 of every partition; names without prefix |
//! | `tables/<service>/<schema>.<table>.ndjson` | one object per row, in the order of the primary key |
//! | `gateway.json` | list of charges, as `GET /v1/charges` gives them |
//! | `gateway_calls.json` | list of calls, as the simulator keeps them (may be missing) |
//! | `messages.json` | list of what the sink took |
//! | `run.json` | [`Run`] |
//! | `faults.ndjson`, `injected.ndjson`, `resources.ndjson` | [`Fault`], [`Injected`], [`Sample`] (may be missing) |
//! | `failpoints.json`, `counters.json` | object of name to number (may be missing) |
//! | `verify.json` | what `orderctl --json verify --all` printed (may be missing) |
//!
//! Nothing is judged here.

pub mod audit;
mod collect;
mod entry;
pub mod lines;
mod run;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use collect::{collect, topics, verify};
pub use entry::Entry;
pub use run::{Expects, Fault, Injected, Limits, Run, Sample};

use crate::history::Operation;

/// A row of a table.
pub type Row = serde_json::Map<String, Value>;

/// All that a run left.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Folder {
    /// What clients asked and were told, in the order in which it ended.
    pub history: Vec<Operation>,
    /// Records by topic without prefix, in order within each partition.
    pub topics: BTreeMap<String, Vec<Entry>>,
    /// Rows by service and by schema and table with a dot between them.
    pub tables: BTreeMap<String, BTreeMap<String, Vec<Row>>>,
    /// The gateway's ledger.
    pub charges: Vec<Value>,
    /// What was asked of the gateway, if it says.
    pub calls: Option<Vec<Value>>,
    /// What the sink took.
    pub messages: Vec<Value>,
    /// What the run says about itself.
    pub run: Run,
    /// What was done to it.
    pub faults: Vec<Fault>,
    /// Hits by label, if it has failpoints.
    pub failpoints: Option<BTreeMap<String, u64>>,
    /// What was counted beside.
    pub counters: BTreeMap<String, u64>,
    /// What the run appended to topics itself.
    pub injected: Vec<Injected>,
    /// Samples of what processes take.
    pub resources: Vec<Sample>,
    /// What `orderctl verify` said, if it was asked.
    pub verify: Option<Value>,
}

impl Folder {
    /// Reads a folder.
    ///
    /// # Errors
    /// When a file that must be there is missing, or one cannot be read.
    pub fn read(folder: &Path) -> anyhow::Result<Self> {
        let mut tables = BTreeMap::new();
        for (service, path) in named(&folder.join("tables"), "")? {
            let mut of_service = BTreeMap::new();
            for (table, path) in named(&path, ".ndjson")? {
                of_service.insert(table, lines::read(&path)?);
            }
            tables.insert(service, of_service);
        }
        let mut topics = BTreeMap::new();
        for (topic, path) in named(&folder.join("topics"), ".ndjson")? {
            topics.insert(topic, lines::read(&path)?);
        }
        let many = |name: &str| folder.join(name);
        Ok(Self {
            history: lines::read(&many(crate::history::FILE))?,
            topics,
            tables,
            charges: required(folder, "gateway.json")?,
            calls: optional(folder, "gateway_calls.json")?,
            messages: required(folder, "messages.json")?,
            run: required(folder, "run.json")?,
            faults: lines::read(&many("faults.ndjson"))?,
            failpoints: optional(folder, "failpoints.json")?,
            counters: optional(folder, "counters.json")?.unwrap_or_default(),
            injected: lines::read(&many("injected.ndjson"))?,
            resources: lines::read(&many("resources.ndjson"))?,
            verify: optional(folder, "verify.json")?,
        })
    }

    /// The rows of a table; none when it is not there.
    #[must_use]
    pub fn table(&self, service: &str, name: &str) -> &[Row] {
        self.tables.get(service).and_then(|tables| tables.get(name)).map_or(&[], Vec::as_slice)
    }

    /// The records of a topic.
    #[must_use]
    pub fn topic(&self, name: &str) -> &[Entry] {
        self.topics.get(name).map_or(&[], Vec::as_slice)
    }
}

/// What lies in a folder, by name without its ending.
fn named(folder: &Path, ending: &str) -> anyhow::Result<Vec<(String, std::path::PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(name) = name.strip_suffix(ending) {
            found.push((name.to_owned(), entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

fn required<T: DeserializeOwned>(folder: &Path, name: &str) -> anyhow::Result<T> {
    optional(folder, name)?.with_context(|| format!("{} is missing", folder.join(name).display()))
}

fn optional<T: DeserializeOwned>(folder: &Path, name: &str) -> anyhow::Result<Option<T>> {
    let path = folder.join(name);
    match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).with_context(|| format!("reading {}", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

/// Writes a JSON file of a folder.
///
/// # Errors
/// When it cannot be written.
pub fn write_json(folder: &Path, name: &str, document: &impl serde::Serialize) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    let path = folder.join(name);
    std::fs::write(&path, serde_json::to_vec_pretty(document)?).with_context(|| format!("writing {}", path.display()))
}
