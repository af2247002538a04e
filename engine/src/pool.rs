//! Connections to a service's Postgres, with the limits that keep a stopped owner from holding others up.
//!
//! Statements are the callers'. A future that touches the database runs in a task that nothing drops (PITFALLS P2.1).

use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::Context;
use sqlx::Executor;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgQueryResult};
use tracing::warn;

use crate::breaker::Breaker;
use crate::{clock, mutant, probe};

/// Between two tries while Postgres is not there.
const RETRY_EVERY: Duration = Duration::from_millis(250);
/// A transaction that is forgotten, or whose owner is stopped, is ended by Postgres after this.
const IDLE_IN_TRANSACTION_MS_MAX: u32 = 5_000;
const LOCK_MS_MAX: u32 = 5_000;
const STATEMENT_MS_MAX: u32 = 30_000;
const CONNECTION_LIFE: Duration = Duration::from_secs(300);
/// One try to reach Postgres at start.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// While Postgres is not there, this often a line in the log says so.
const TELL_EVERY: Duration = Duration::from_secs(30);
/// Postgres notices within about 25 s that the machine of a connection is gone, and frees its locks.
const KEEPALIVE_IDLE_S: u32 = 10;
const KEEPALIVE_INTERVAL_S: u32 = 5;
const KEEPALIVE_COUNT: u32 = 3;
const TCP_USER_TIMEOUT_MS: u32 = 25_000;

/// How a pool is used.
#[derive(Debug, Clone)]
pub struct PoolOptions {
    /// Shown in `pg_stat_activity`.
    pub application: String,
    /// Connections, all opened at once: a pool that grows may time out although some are idle (PITFALLS P2.2).
    pub connections: u32,
    /// How long a caller waits for one.
    pub acquire_timeout: Duration,
    /// Unqualified names are looked up here, in this order.
    pub search_path: String,
    /// How its statements are planned.
    pub plans: Plans,
    /// Told of connections that are lost.
    pub breaker: Breaker,
}

/// How Postgres plans the statements of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plans {
    /// Once per connection, always along an index: for the statements of a batch, all of which go by key. A plan per
    /// execution costs more than most of them; and a generic one is blind to the length of an array and may, made while
    /// a table was empty, scan it ever after (PITFALLS P2.5), which is what forbidding scans prevents.
    ByKey,
    /// For each execution: for reads with filters.
    Custom,
}

impl Plans {
    fn cache_mode(self) -> &'static str {
        match self {
            Self::ByKey => "force_generic_plan",
            Self::Custom => "force_custom_plan",
        }
    }

    /// Whether a plan may read a table or an index in its own order.
    fn other_scans(self) -> &'static str {
        match self {
            Self::ByKey => "off",
            Self::Custom => "on",
        }
    }
}

impl PoolOptions {
    /// The usual options.
    #[must_use]
    pub fn new(application: impl Into<String>, connections: u32) -> Self {
        Self {
            application: application.into(),
            connections,
            acquire_timeout: Duration::from_secs(5),
            search_path: "engine, projection".to_owned(),
            plans: Plans::Custom,
            breaker: Breaker::new("postgres", "Postgres", true),
        }
    }
}

/// A pool; waits until Postgres is there.
///
/// # Errors
/// When the URL is none.
pub async fn connect(url: &str, options: PoolOptions) -> anyhow::Result<PgPool> {
    let connect = PgConnectOptions::from_str(url)
        .context("DATABASE_URL is not a Postgres URL")?
        .application_name(&options.application)
        .options([
            ("search_path", options.search_path.as_str()),
            ("statement_timeout", &STATEMENT_MS_MAX.to_string()),
            ("lock_timeout", &LOCK_MS_MAX.to_string()),
            ("idle_in_transaction_session_timeout", &IDLE_IN_TRANSACTION_MS_MAX.to_string()),
            ("tcp_keepalives_idle", &KEEPALIVE_IDLE_S.to_string()),
            ("tcp_keepalives_interval", &KEEPALIVE_INTERVAL_S.to_string()),
            ("tcp_keepalives_count", &KEEPALIVE_COUNT.to_string()),
            ("tcp_user_timeout", &TCP_USER_TIMEOUT_MS.to_string()),
            ("plan_cache_mode", options.plans.cache_mode()),
            ("enable_seqscan", options.plans.other_scans()),
            // An index scan marks the entries of dead rows, so that the next one passes over them; a bitmap scan visits
            // them all until the next vacuum.
            ("enable_bitmapscan", options.plans.other_scans()),
        ]);
    wait_for(&connect, &options.breaker).await;
    let breaker = options.breaker;
    let pool = PgPoolOptions::new()
        .min_connections(options.connections)
        .max_connections(options.connections)
        .acquire_timeout(options.acquire_timeout)
        .max_lifetime(CONNECTION_LIFE)
        // The hook below asks the server anyway.
        .test_before_acquire(false)
        .before_acquire(move |connection, _| {
            let breaker = breaker.clone();
            Box::pin(async move {
                // A transaction left open by a dropped future must not be the next caller's (PITFALLS P2.1). A bare
                // ROLLBACK would warn each time that there is none, here and in the server's log; so a transaction is
                // begun, which warns only in the case that matters. In an aborted one BEGIN errs, and the connection
                // is closed.
                let checked = connection.execute("BEGIN; ROLLBACK").await;
                if let Err(error) = &checked {
                    breaker.failed(error);
                }
                checked.map(|_| true)
            })
        })
        .connect_lazy_with(connect);
    Ok(pool)
}

async fn wait_for(options: &PgConnectOptions, breaker: &Breaker) {
    let mut told: Option<Instant> = None;
    loop {
        let error = match tokio::time::timeout(CONNECT_TIMEOUT, probe::postgres(options)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(_) => format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()),
        };
        breaker.failed(&error);
        if told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            warn!(error, "waiting for Postgres");
            told = Some(clock::instant());
        }
        tokio::time::sleep(RETRY_EVERY).await;
    }
}

/// SQLSTATE classes that speak of a row, and would again: data, constraints, what exceeds a limit (a row too big for its
/// index), and what a trigger of the shop's own raises.
const ROWS_FAULT: [&str; 4] = ["22", "23", "54", "P0"];

/// True when a record, not a dependency, is at fault (H6; ADR 9).
#[must_use]
pub fn is_record_fault(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    let is_lock = |code: &str| code == "55P03" && mutant::is("lock-time-out-held-as-a-bad-record");
    code.is_some_and(|code| ROWS_FAULT.iter().any(|class| code.starts_with(class)) || is_lock(&code))
}

/// True when Postgres could not be reached, or had no room, whatever was asked of it: waiting may help.
#[must_use]
pub fn is_outage(error: &anyhow::Error) -> bool {
    match error.chain().find_map(|cause| cause.downcast_ref::<sqlx::Error>()) {
        Some(sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::Protocol(_)) => true,
        // Connections, room, and a server that is starting or stopping.
        Some(sqlx::Error::Database(error)) => {
            error.code().is_some_and(|code| ["08", "53", "57P"].iter().any(|class| code.starts_with(class)))
        }
        _ => false,
    }
}

/// Takes a step that needs the database again and again while that is away; `tell` hears why.
///
/// # Errors
/// What the step errs with for another reason.
pub async fn waited_out<T>(
    breaker: &Breaker,
    tell: impl Fn(String),
    step: impl AsyncFn() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    loop {
        match step().await {
            Err(error) if is_outage(&error) => {
                let error = format!("waiting for Postgres: {error:#}");
                warn!(error);
                breaker.failed(&error);
                tell(error);
                breaker.settled().await;
            }
            other => return other,
        }
    }
}

/// Errs unless an UPDATE has found as many rows as it was given: they were read in the same transaction, and nobody deletes
/// one, so that a missing one is a broken invariant.
///
/// # Errors
/// [`sqlx::Error::RowNotFound`], which stops the processor.
pub fn all_found(done: &PgQueryResult, expected: usize) -> Result<(), sqlx::Error> {
    if usize::try_from(done.rows_affected()) == Ok(expected) { Ok(()) } else { Err(sqlx::Error::RowNotFound) }
}
