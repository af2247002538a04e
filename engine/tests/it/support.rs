//! What every test gets: the servers' addresses, a database and a topic prefix of its own.
//!
//! It starts no server: a missing one fails the test with the sentence that says what to run.

use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::kafka::Kafka;
use engine::pool::{self, PoolOptions};
use engine::topics::{self, Topic};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, PgPool};

/// Partitions of every topic in a test.
pub(crate) const PARTITIONS: i32 = 2;

/// Looks again and again until the answer is there.
///
/// # Panics
/// It is not there in time; the last state is in the message.
pub(crate) async fn eventually<T, S: std::fmt::Debug>(
    deadline: Duration,
    mut look: impl AsyncFnMut() -> Result<T, S>,
) -> T {
    let started = Instant::now();
    loop {
        match look().await {
            Ok(found) => return found,
            Err(state) if started.elapsed() > deadline => panic!("after {deadline:?}: {state:?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// The address of a server that `cargo verify` has started.
fn address(name: &str) -> String {
    #[expect(clippy::disallowed_methods, reason = "tests have no Config; this is the one place that reads it")]
    let address = std::env::var(name);
    address.unwrap_or_else(|_| panic!("{name} is not set: run `cargo verify`, which starts the servers of the tests"))
}

/// Letters and digits that no other test has.
pub(crate) fn unique() -> String {
    format!("{:016x}", rand::random::<u64>())
}

/// Base URL of the registry.
pub(crate) fn registry_url() -> String {
    address("ORDERLOG_TEST_REGISTRY")
}

/// The broker, with a topic prefix of this test.
pub(crate) fn kafka() -> Arc<Kafka> {
    Arc::new(Kafka {
        bootstrap: address("ORDERLOG_TEST_KAFKA"),
        topic_prefix: format!("t{}.", unique()),
        partitions: PARTITIONS,
        session_timeout: Duration::from_secs(6),
    })
}

/// The broker, with these topics created under a prefix of this test.
pub(crate) async fn kafka_with(topics: &[Topic]) -> Arc<Kafka> {
    let kafka = kafka();
    topics::create(&kafka, topics, 1).await.unwrap();
    kafka
}

/// A database of this test; dropped with it, kept when the test fails.
#[derive(Debug)]
pub(crate) struct Database {
    /// As `DATABASE_URL`.
    pub(crate) url: String,
    name: String,
    admin: PgConnectOptions,
}

impl Database {
    /// One without any table.
    pub(crate) async fn empty() -> Self {
        let admin = PgConnectOptions::from_str(&address("ORDERLOG_TEST_POSTGRES")).unwrap();
        let name = format!("t{}", unique());
        let mut conn = PgConnection::connect_with(&admin).await.expect("Postgres answers; run `cargo verify`");
        conn.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
        conn.close().await.unwrap();
        let url = admin.clone().database(&name).to_url_lossy().to_string();
        Self { url, name, admin }
    }

    /// One with the engine's tables, and a pool on it.
    pub(crate) async fn migrated() -> (Self, PgPool) {
        let database = Self::empty().await;
        let pool = database.pool(4).await;
        engine::migrate::migrate(&pool, &[]).await.unwrap();
        (database, pool)
    }

    /// Another one with the same contents, as a backup restored elsewhere has. Nobody may be connected to this one.
    pub(crate) async fn copy(&self) -> Self {
        let name = format!("t{}", unique());
        let mut conn = PgConnection::connect_with(&self.admin).await.unwrap();
        let sql = format!("CREATE DATABASE {name} TEMPLATE {}", self.name);
        eventually(Duration::from_secs(10), async || conn.execute(AssertSqlSafe(sql.clone())).await).await;
        conn.close().await.unwrap();
        let url = self.admin.clone().database(&name).to_url_lossy().to_string();
        Self { url, name, admin: self.admin.clone() }
    }

    /// A pool on it.
    pub(crate) async fn pool(&self, connections: u32) -> PgPool {
        pool::connect(&self.url, PoolOptions::new("test", connections)).await.unwrap()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the database of this test is kept: {}", self.name);
            return;
        }
        let (admin, sql) = (self.admin.clone(), format!("DROP DATABASE {} WITH (FORCE)", self.name));
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let mut conn = PgConnection::connect_with(&admin).await.unwrap();
                conn.execute(AssertSqlSafe(sql)).await.unwrap();
            });
        });
        dropping.join().unwrap();
    }
}
