//! Postgres as tools need it: pools without the limits that keep services quick, and databases made from nothing.
//!
//! A service's own pool is `engine::pool`'s; a long fold or comparison would run into its time-outs.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, Executor};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECTIONS: u32 = 4;

/// A pool whose unqualified names are looked up in these schemas.
///
/// # Errors
/// When Postgres does not answer, or the database is not there.
pub(crate) async fn pool(url: &str, search_path: &str) -> anyhow::Result<PgPool> {
    let options = PgConnectOptions::from_str(url)
        .context("stack.json holds no Postgres URL")?
        .application_name("orderctl")
        // A snapshot that is compared stays open and idle while the log is folded.
        .options([("search_path", search_path), ("idle_in_transaction_session_timeout", "0")])
        .options([("statement_timeout", "0"), ("lock_timeout", "10000")]);
    let pool = PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(CONNECT_TIMEOUT)
        .connect_with(options.clone())
        .await;
    pool.with_context(|| unreachable_sentence(&options))
}

fn unreachable_sentence(options: &PgConnectOptions) -> String {
    let database = options.get_database().unwrap_or("postgres");
    format!(
        "database {database} at {}:{} cannot be used; `cargo up` starts Postgres, `orderctl rebuild` makes a lost database",
        options.get_host(),
        options.get_port()
    )
}

/// Makes the role and the database that a service's URL names, where they are missing. Returns what was made.
///
/// # Errors
/// When the superuser cannot connect, or refuses.
pub(crate) async fn ensure_database(admin_url: &str, url: &str) -> anyhow::Result<Vec<String>> {
    let wanted = Wanted::parse(url)?;
    let admin = PgConnectOptions::from_str(admin_url).context("ORDERLOG_POSTGRES_ADMIN is no Postgres URL")?;
    let connecting = tokio::time::timeout(CONNECT_TIMEOUT, PgConnection::connect_with(&admin)).await;
    let Ok(connected) = connecting else {
        bail!("{}", unreachable_sentence(&admin));
    };
    let mut conn = connected.with_context(|| unreachable_sentence(&admin))?;
    let mut made = Vec::new();
    if !exists(&mut conn, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", &wanted.role).await? {
        statement(
            &mut conn,
            "SELECT format('CREATE ROLE %I LOGIN PASSWORD %L', $1, $2)",
            &wanted.role,
            &wanted.password,
        )
        .await?;
        made.push(format!("role {}", wanted.role));
    }
    if !exists(&mut conn, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", &wanted.database).await? {
        statement(&mut conn, "SELECT format('CREATE DATABASE %I OWNER %I', $1, $2)", &wanted.database, &wanted.role)
            .await?;
        let revoke = "SELECT format('REVOKE CONNECT, TEMPORARY ON DATABASE %I FROM PUBLIC', $1, $2)";
        statement(&mut conn, revoke, &wanted.database, "").await?;
        made.push(format!("database {}", wanted.database));
    }
    conn.close().await?;
    Ok(made)
}

async fn exists(conn: &mut PgConnection, query: &'static str, name: &str) -> anyhow::Result<bool> {
    let (there,): (bool,) = sqlx::query_as(query).bind(name).fetch_one(conn).await?;
    Ok(there)
}

/// Runs a statement that Postgres itself puts together, so that names and passwords are quoted by its own rules.
async fn statement(conn: &mut PgConnection, format: &'static str, one: &str, two: &str) -> anyhow::Result<()> {
    let (sql,): (String,) = sqlx::query_as(format).bind(one).bind(two).fetch_one(&mut *conn).await?;
    conn.execute(AssertSqlSafe(sql)).await?;
    Ok(())
}

/// What a service's URL asks for.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    role: String,
    password: String,
    database: String,
}

impl Wanted {
    /// From `postgres://role:password@host:port/database`.
    fn parse(url: &str) -> anyhow::Result<Self> {
        let url = reqwest::Url::parse(url).context("stack.json holds no Postgres URL")?;
        let plain = |text: &str| percent_decoded(text).context("a name in a Postgres URL is no text");
        let database = url.path().trim_start_matches('/');
        if url.username().is_empty() || database.is_empty() {
            bail!("the service's Postgres URL names no role or no database");
        }
        Ok(Self {
            role: plain(url.username())?,
            password: plain(url.password().unwrap_or_default())?,
            database: plain(database)?,
        })
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let decoded = match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            other => other,
        };
        bytes.push(decoded);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_role_password_and_database() {
        let wanted = Wanted::parse("postgres://order:p%40ss@127.0.0.1:15432/order_db").unwrap();
        let expected =
            Wanted { role: "order".to_owned(), password: "p@ss".to_owned(), database: "order_db".to_owned() };
        assert_eq!(wanted, expected);
        assert!(Wanted::parse("postgres://127.0.0.1/order").is_err());
        assert!(Wanted::parse("nonsense").is_err());
    }
}
