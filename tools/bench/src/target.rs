//! What is measured, and where it runs.
//!
//! Addresses and options only; nothing is opened here.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use engine::kafka::Kafka;
use events::codec::Codec;
use serde::Serialize;

/// The first product of the bench: above the real data's, below every Snowflake ID.
const FIRST_PRODUCT: i64 = 900_000_001;
/// How many there are.
pub(crate) const PRODUCTS: i64 = 10_000;
const CUSTOMERS: usize = 100;

/// The products that the bench orders; they must be listed and have stock.
#[must_use]
pub fn products() -> std::ops::Range<i64> {
    FIRST_PRODUCT..FIRST_PRODUCT + PRODUCTS
}

/// The customer of an order of this number.
pub(crate) fn customer(number: usize) -> String {
    format!("bench-{}", number % CUSTOMERS)
}

/// All customers, in the order of their numbers.
pub(crate) fn customers() -> impl Iterator<Item = String> {
    (0..CUSTOMERS).map(customer)
}

/// How orders are started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// PlaceOrder is appended to Kafka.
    Log,
    /// `POST /v1/orders`.
    Http,
}

/// When orders are started.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Load {
    /// As soon as an earlier one is final.
    Closed {
        /// Orders that are started and not final.
        in_flight: usize,
    },
    /// At intended times, whatever the system does.
    Open {
        /// Orders per second.
        per_second: f64,
    },
}

impl Load {
    /// True for a rate.
    #[must_use]
    pub fn is_open(self) -> bool {
        matches!(self, Self::Open { .. })
    }
}

/// Which gateway adapter payment-svc uses (`GATEWAY_ADAPTER`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Gateway {
    /// It answers inside payment-svc.
    Inside,
    /// It is asked over HTTP.
    Http,
}

impl Gateway {
    /// As in the environment variable.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inside => "inside",
            Self::Http => "http",
        }
    }
}

/// What a run does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// How orders are started.
    pub mode: Mode,
    /// How many.
    pub orders: usize,
    /// When.
    pub load: Load,
    /// Orders before them that are not measured: a broker's code is compiled while it works, and payment-svc may have
    /// been restarted just now. The baseline is warmed up as well.
    pub warm_up: usize,
    /// Duration of pgbench; none leaves the baseline out.
    pub baseline: Option<Duration>,
}

/// Signs a customer's token.
pub type SignToken = Box<dyn Fn(&str) -> anyhow::Result<String> + Send + Sync>;

/// The running stack.
pub struct Target {
    /// Where the log is.
    pub kafka: Arc<Kafka>,
    /// With the registry's IDs.
    pub codec: Arc<Codec>,
    /// Base URLs of order-svc's instances.
    pub order_urls: Vec<String>,
    /// URL of order-svc's database: IDs are leased there (service number 7).
    pub order_database: String,
    /// URL of Postgres' superuser, for the baseline.
    pub postgres_admin: String,
    /// Process numbers by part, as in stack.json.
    pub processes: BTreeMap<String, u32>,
    /// Where stack.json lies; it is read again after a restart.
    pub stack_file: PathBuf,
    /// `/metrics` of each instance, by its name.
    pub metrics: Vec<(String, String)>,
    /// Signs tokens that live longer than the run.
    pub token: SignToken,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("kafka", &self.kafka).field("processes", &self.processes).finish_non_exhaustive()
    }
}
