//! What a run prints.
//!
//! Names are the contract's; every figure says its unit in its name.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::target::{Gateway, Mode};

/// The batches of one instance during the run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Batch {
    /// Committed ones.
    pub batches: u64,
    /// Inputs per batch.
    pub mean_inputs: f64,
    /// Milliseconds per batch.
    pub mean_ms: f64,
}

/// Under which the figures were measured.
#[derive(Debug, Clone, Serialize)]
pub struct Conditions {
    /// How orders were started.
    pub mode: Mode,
    /// How many.
    pub orders: usize,
    /// Orders before them that were not measured.
    pub warm_up: usize,
    /// Orders per second of an open loop.
    pub rate: Option<f64>,
    /// Orders in flight of a closed loop.
    pub in_flight: Option<usize>,
    /// HTTP connections, with `http`.
    pub connections: Option<usize>,
    /// The gateway adapter of payment-svc.
    pub gateway: Option<Gateway>,
    /// Orders that ended CONFIRMED.
    pub confirmed: usize,
    /// Orders that ended otherwise.
    pub not_confirmed: usize,
    /// Orders that did not end before the run gave up.
    pub open: usize,
    /// From the first start to the last confirmation.
    pub seconds: f64,
    /// Lines per order.
    pub lines_per_order: usize,
    /// Products that orders are spread over.
    pub products: i64,
    /// Partitions of every topic.
    pub partitions: i32,
    /// Cores that this process may use.
    pub cores: usize,
    /// Of the producers.
    pub acks: &'static str,
    /// Postgres' version.
    pub postgres: String,
    /// Postgres' setting.
    pub fsync: String,
    /// Postgres' setting.
    pub synchronous_commit: String,
    /// Postgres' setting.
    pub full_page_writes: String,
    /// How the baseline was measured.
    pub baseline: Option<String>,
}

/// The report of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Orders CONFIRMED per second, from the first start to the last confirmation.
    pub orders_per_second: f64,
    /// Transactions per second of pgbench, one per order.
    pub baseline_orders_per_second: Option<f64>,
    /// The former by the latter.
    pub ratio: Option<f64>,
    /// Median from intended start to CONFIRMED, in milliseconds.
    pub p50_ms: f64,
    /// 99 of 100 are faster.
    pub p99_ms: f64,
    /// 999 of 1,000 are faster.
    pub p999_ms: f64,
    /// By process group; `bench` is this process.
    pub cpu_seconds_per_1000_orders: BTreeMap<String, f64>,
    /// By instance.
    pub batch: BTreeMap<String, Batch>,
    /// Resident MiB by process group at the end of the run.
    pub rss_mb: BTreeMap<String, f64>,
    /// Under which all this was measured.
    pub conditions: Conditions,
}
