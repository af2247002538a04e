//! Installs the audit of a test stack: triggers that keep every version of processors, positions and product rows.
//!
//! Only for tests: it doubles what a batch writes.

use anyhow::Context;
use sqlx::{Connection, Executor, PgConnection};

const SQL: &str = include_str!("audit.sql");

/// Installs it in a service's database, which may be in use.
///
/// # Errors
/// When the service has not made its tables yet, or it is installed already.
pub async fn install(database_url: &str) -> anyhow::Result<()> {
    let mut conn = PgConnection::connect(database_url).await?;
    conn.execute(SQL).await.context("installing the audit")?;
    conn.close().await?;
    Ok(())
}
