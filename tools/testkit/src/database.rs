//! A database per test, in the server that the tests are given.
//!
//! It goes with its test, and is kept when that failed.

use std::ops::Deref;
use std::str::FromStr;
use std::time::Duration;

use engine::migrate::MigrationSet;
use engine::pool::{self, PoolOptions};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, PgPool};

use crate::{address, eventually, unique};

/// Connections of a pool on a migrated database.
const CONNECTIONS: u32 = 4;
/// A caller that waits longer for a connection has found a leak.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);

/// A database of one test.
#[derive(Debug)]
pub struct Database {
    /// As `DATABASE_URL`.
    pub url: String,
    name: String,
    admin: PgConnectOptions,
}

/// One with its tables, and a pool on it.
#[derive(Debug)]
pub struct Migrated {
    pool: PgPool,
    /// Where it lies.
    pub database: Database,
}

impl Migrated {
    /// The database, which must be kept, and the pool.
    #[must_use]
    pub fn into_parts(self) -> (Database, PgPool) {
        (self.database, self.pool)
    }
}

impl Deref for Migrated {
    type Target = PgPool;

    fn deref(&self) -> &PgPool {
        &self.pool
    }
}

impl Database {
    /// One without any table.
    ///
    /// # Panics
    /// Postgres does not answer.
    pub async fn empty() -> Self {
        let admin = PgConnectOptions::from_str(&address("ORDERLOG_TEST_POSTGRES")).expect("a Postgres URL");
        Self::create(admin, "").await
    }

    /// One with the engine's tables and these.
    ///
    /// # Panics
    /// Postgres does not answer, or refuses a migration.
    pub async fn migrated(sets: &[MigrationSet]) -> Migrated {
        let database = Self::empty().await;
        let options = PoolOptions { acquire_timeout: ACQUIRE_TIMEOUT, ..PoolOptions::new("test", CONNECTIONS) };
        let pool = pool::connect(&database.url, options).await.expect("a pool");
        engine::migrate::migrate(&pool, sets).await.expect("the migrations fit");
        Migrated { pool, database }
    }

    /// Another one with the same contents, as a backup restored elsewhere has. Nobody may be connected to this one.
    ///
    /// # Panics
    /// Somebody is for ten seconds.
    pub async fn copy(&self) -> Self {
        Self::create(self.admin.clone(), &format!("TEMPLATE {}", self.name)).await
    }

    async fn create(admin: PgConnectOptions, template: &str) -> Self {
        let name = format!("t{}", unique());
        let sql = format!("CREATE DATABASE {name} {template}");
        eventually(Duration::from_secs(10), async || execute(&admin, &sql).await).await;
        let url = admin.clone().database(&name).to_url_lossy().to_string();
        Self { url, name, admin }
    }

    /// A pool on it.
    ///
    /// # Panics
    /// The URL is none.
    pub async fn pool(&self, connections: u32) -> PgPool {
        pool::connect(&self.url, PoolOptions::new("test", connections)).await.expect("a pool")
    }
}

/// The name of a database cannot be bound; it is made of letters and digits here.
async fn execute(admin: &PgConnectOptions, sql: &str) -> Result<(), sqlx::Error> {
    let mut conn = PgConnection::connect_with(admin).await?;
    conn.execute(AssertSqlSafe(sql)).await?;
    conn.close().await
}

impl Drop for Database {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the database of this test is kept: {}", self.name);
            return;
        }
        let (admin, sql) = (self.admin.clone(), format!("DROP DATABASE {} WITH (FORCE)", self.name));
        // Of its own: the test's runtime may be ending.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(execute(&admin, &sql)).expect("the database goes");
        });
        dropping.join().expect("the database is gone");
    }
}
