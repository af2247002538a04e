//! A database of its own for each test, migrated like the service's.
//!
//! It is made in the server that `cargo verify` or `cargo up` has started, and goes with its test unless that failed.

use std::ops::Deref;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};

use engine::pool::{PoolOptions, connect};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, PgPool};

/// Connections of one test.
const CONNECTIONS: u32 = 3;

/// A pool on a database that is dropped with it.
#[derive(Debug)]
pub(crate) struct Database {
    pool: PgPool,
    name: String,
    admin: PgConnectOptions,
}

impl Deref for Database {
    type Target = PgPool;

    fn deref(&self) -> &PgPool {
        &self.pool
    }
}

/// A new database with both schemas.
pub(crate) async fn migrated() -> Database {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    #[expect(clippy::disallowed_methods, reason = "tests have no configuration of their own")]
    let admin = std::env::var("ORDERLOG_TEST_POSTGRES");
    let admin = admin.expect(
        "ORDERLOG_TEST_POSTGRES names no Postgres: run `cargo verify`, or `cargo up` and take its admin URL from \
         .orderlog/stack.json",
    );
    let admin = PgConnectOptions::from_str(&admin).unwrap();
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("test_order_{}_{number}", std::process::id());
    execute(&admin, format!("CREATE DATABASE {name}")).await.unwrap();
    let url = admin.clone().database(&name).to_url_lossy().to_string();
    let pool = connect(&url, PoolOptions::new("tests", CONNECTIONS)).await.unwrap();
    engine::migrate::migrate(&pool, order_svc::app::MIGRATIONS).await.unwrap();
    Database { pool, name, admin }
}

async fn execute(admin: &PgConnectOptions, statement: String) -> Result<(), sqlx::Error> {
    let mut conn = PgConnection::connect_with(admin).await?;
    // The name of a database cannot be bound; it is made of letters and digits above.
    sqlx::query(AssertSqlSafe(statement)).execute(&mut conn).await?;
    conn.close().await
}

impl Drop for Database {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let (admin, statement) = (self.admin.clone(), format!("DROP DATABASE {} WITH (FORCE)", self.name));
        // Of its own: the test's runtime may be ending.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(execute(&admin, statement)).unwrap();
        });
        dropping.join().unwrap();
    }
}
