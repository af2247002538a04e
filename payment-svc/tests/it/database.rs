//! A database of its own for each test, migrated like the service's.
//!
//! It is made in the server that `cargo verify` or `cargo up` has started and goes with that server's data.

use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};

use engine::pool::{PoolOptions, connect};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool};

/// Connections of one test.
const CONNECTIONS: u32 = 3;

/// A pool on a new database with both schemas.
pub(crate) async fn migrated() -> PgPool {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    #[expect(clippy::disallowed_methods, reason = "tests have no configuration of their own")]
    let admin = std::env::var("ORDERLOG_TEST_POSTGRES");
    let admin = admin.expect(
        "ORDERLOG_TEST_POSTGRES names no Postgres: run `cargo verify`, or `cargo up` and take its admin URL from \
         .orderlog/stack.json",
    );
    let options = PgConnectOptions::from_str(&admin).unwrap();
    let mut conn = PgConnection::connect_with(&options).await.unwrap();
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("test_payment_{}_{number}", std::process::id());
    for statement in [format!("DROP DATABASE IF EXISTS {name}"), format!("CREATE DATABASE {name}")] {
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut conn).await.unwrap();
    }
    let url = options.database(&name).to_url_lossy().to_string();
    let pool = connect(&url, PoolOptions::new("tests", CONNECTIONS)).await.unwrap();
    engine::migrate::migrate(&pool, payment_svc::app::MIGRATIONS).await.unwrap();
    pool
}
