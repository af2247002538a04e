//! The yardstick: pgbench on the same Postgres server, one transaction per order with the same writes, eight clients,
//! prepared statements. Every figure of the bench is a ratio to it.
//!
//! It works in a database of its own, `bench_baseline`, which is made anew for each run and dropped afterwards.

use std::path::PathBuf;
use std::process::Stdio;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};
use tokio::process::Command;

use crate::target::{PRODUCTS, Target};

const DATABASE: &str = "bench_baseline";
const CLIENTS: &str = "8";
const THREADS: &str = "2";
const WARM_UP_SECONDS: u64 = 2;

/// What an order leaves in the four databases: an idempotency row, the order and its two lines, the guarded stock of two
/// products, the payment, the notice. No foreign keys, as there.
const TABLES: &str = "
CREATE TABLE idempotency (caller text, key_hash text, fingerprint text NOT NULL, order_id bigint NOT NULL,
    command_id bigint NOT NULL, command bytea NOT NULL, answered_at timestamptz, PRIMARY KEY (caller, key_hash));
CREATE TABLE orders (order_id bigint PRIMARY KEY, customer_id text NOT NULL, status text NOT NULL, version bigint NOT NULL,
    total bigint NOT NULL, currency text NOT NULL, payment_method text NOT NULL, pay_by timestamptz NOT NULL,
    placed_at timestamptz NOT NULL, updated_at timestamptz NOT NULL);
CREATE INDEX orders_by_customer ON orders (customer_id, order_id);
CREATE TABLE order_lines (order_id bigint, product_id bigint, quantity bigint NOT NULL, unit_price bigint NOT NULL,
    PRIMARY KEY (order_id, product_id));
CREATE TABLE products (product_id bigint PRIMARY KEY, on_hand bigint NOT NULL, reserved bigint NOT NULL,
    sold bigint NOT NULL) WITH (fillfactor = 50);
CREATE TABLE payments (order_id bigint PRIMARY KEY, status text NOT NULL, amount bigint NOT NULL, currency text NOT NULL,
    refunded bigint NOT NULL, updated_at timestamptz NOT NULL);
CREATE TABLE notices (order_id bigint, kind text, channel text, status text NOT NULL, due_at timestamptz NOT NULL,
    PRIMARY KEY (order_id, kind, channel));";

/// One order. Products in ascending order, so that no two clients lock each other.
const SCRIPT: &str = r"\set id random(1, 9000000000000000000)
\set a random(1, :half)
\set b random(:half + 1, :products)
\set qa random(1, 3)
\set qb random(1, 3)
\set total 250 * (:qa + :qb)
BEGIN;
INSERT INTO idempotency VALUES ('bench-' || (:id::bigint % 100), (:id::bigint)::text, 'fingerprint of the body', :id, :id, '\x00000000010203040506070809', now());
INSERT INTO orders VALUES (:id, 'bench-' || (:id::bigint % 100), 'CONFIRMED', 2, :total, 'USD', 'pm_ok', now() + interval '15 min', now(), now());
INSERT INTO order_lines VALUES (:id, :a, :qa, 250), (:id, :b, :qb, 250);
UPDATE products SET on_hand = on_hand - :qa, sold = sold + :qa WHERE product_id = :a AND on_hand - reserved >= :qa;
UPDATE products SET on_hand = on_hand - :qb, sold = sold + :qb WHERE product_id = :b AND on_hand - reserved >= :qb;
INSERT INTO payments VALUES (:id, 'CAPTURED', :total, 'USD', 0, now());
INSERT INTO notices VALUES (:id, 'ORDER_CONFIRMED', 'EMAIL', 'SENT', now());
END;
";

/// What the server promises while it is measured.
#[derive(Debug, Clone)]
pub(crate) struct Durability {
    pub(crate) version: String,
    pub(crate) fsync: String,
    pub(crate) synchronous_commit: String,
    pub(crate) full_page_writes: String,
}

/// Asks the server for what makes a figure honest.
///
/// # Errors
/// When the superuser cannot connect.
pub(crate) async fn durability(target: &Target) -> anyhow::Result<Durability> {
    let mut conn = connect(target, None).await?;
    let (version, fsync, synchronous_commit, full_page_writes) = sqlx::query_as(
        "SELECT current_setting('server_version'), current_setting('fsync'), current_setting('synchronous_commit'),
                current_setting('full_page_writes')",
    )
    .fetch_one(&mut conn)
    .await?;
    conn.close().await?;
    Ok(Durability { version, fsync, synchronous_commit, full_page_writes })
}

/// Orders per second of the baseline.
///
/// # Errors
/// When pgbench is not there or fails.
pub(crate) async fn measure(target: &Target, duration: Duration) -> anyhow::Result<f64> {
    let pgbench = pgbench(target)?;
    prepare(target).await.context("preparing the baseline's database")?;
    let measured = async {
        run(&pgbench, target, WARM_UP_SECONDS).await?;
        run(&pgbench, target, duration.as_secs().max(1)).await
    };
    let measured = measured.await;
    drop_database(target).await.context("dropping the baseline's database")?;
    measured
}

async fn connect(target: &Target, database: Option<&str>) -> anyhow::Result<PgConnection> {
    let mut options = PgConnectOptions::from_str(&target.postgres_admin).context("the superuser's Postgres URL")?;
    if let Some(database) = database {
        options = options.database(database);
    }
    PgConnection::connect_with(&options).await.context("connecting to Postgres as its superuser")
}

async fn drop_database(target: &Target) -> anyhow::Result<()> {
    let mut conn = connect(target, None).await?;
    conn.execute(AssertSqlSafe(format!("DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)"))).await?;
    conn.close().await?;
    Ok(())
}

async fn prepare(target: &Target) -> anyhow::Result<()> {
    drop_database(target).await?;
    let mut conn = connect(target, None).await?;
    conn.execute(AssertSqlSafe(format!("CREATE DATABASE {DATABASE}"))).await?;
    conn.close().await?;
    let mut conn = connect(target, Some(DATABASE)).await?;
    conn.execute(TABLES).await?;
    sqlx::query("INSERT INTO products SELECT id, 1000000000, 0, 0 FROM generate_series(1, $1) AS id")
        .bind(PRODUCTS)
        .execute(&mut conn)
        .await?;
    // The other tables are left unanalysed: on empty ones that gives plans for empty tables (PITFALLS, traps met).
    conn.execute("VACUUM ANALYZE products").await?;
    conn.execute("CHECKPOINT").await?;
    conn.close().await?;
    Ok(())
}

async fn run(pgbench: &PathBuf, target: &Target, seconds: u64) -> anyhow::Result<f64> {
    let options = PgConnectOptions::from_str(&target.postgres_admin).context("the superuser's Postgres URL")?;
    let url = options.to_url_lossy();
    let script = std::env::temp_dir().join(format!("orderlog-bench-{}.sql", std::process::id()));
    std::fs::write(&script, SCRIPT).with_context(|| format!("writing {}", script.display()))?;
    let output = Command::new(pgbench)
        .args(["-n", "-M", "prepared", "-c", CLIENTS, "-j", THREADS, "-T", &seconds.to_string()])
        .args(["-D", &format!("products={PRODUCTS}"), "-D", &format!("half={}", PRODUCTS / 2)])
        .arg("-f")
        .arg(&script)
        .args(["-h", options.get_host(), "-p", &options.get_port().to_string(), "-U", options.get_username()])
        .arg(DATABASE)
        // The password is in no command line.
        .env("PGPASSWORD", percent_decoded(url.password().unwrap_or_default()))
        .stdin(Stdio::null())
        .output()
        .await;
    drop(std::fs::remove_file(&script));
    let output = output.with_context(|| format!("starting {}", pgbench.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    match parse_tps(&text) {
        Some(tps) if output.status.success() => Ok(tps),
        _ => bail!("pgbench failed: {}", String::from_utf8_lossy(&output.stderr).trim()),
    }
}

/// Passwords of this stack are hexadecimal digits; others may be escaped in the URL.
fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        let hex = (bytes[index] == b'%').then(|| text.get(index + 1..index + 3)).flatten();
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                index += 3;
            }
            None => {
                decoded.push(bytes[index]);
                index += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn parse_tps(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("tps = "))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// pgbench lies beside the running server, or on PATH.
fn pgbench(target: &Target) -> anyhow::Result<PathBuf> {
    let beside = target.processes.get("postgres").and_then(|pid| {
        let server = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        Some(server.with_file_name("pgbench"))
    });
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join("pgbench"));
    let found = beside.into_iter().chain(on_path).find(|path| path.is_file());
    found.context("pgbench is not here: install it (Debian: postgresql-contrib), or leave it out: --baseline-seconds 0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tps_is_read_from_pgbenchs_report() {
        let text = "number of failed transactions: 0 (0.000%)\nlatency average = 2.1 ms\ninitial connection time = 9 ms\n\
            tps = 3712.561 (without initial connection time)\n";
        assert_eq!(parse_tps(text), Some(3712.561));
        assert_eq!(parse_tps("no figure"), None);
    }

    #[test]
    fn an_escaped_password_is_plain_again() {
        assert_eq!(percent_decoded("p%40ss%"), "p@ss%");
        assert_eq!(percent_decoded("00ff"), "00ff");
    }

    #[test]
    fn an_order_of_the_baseline_writes_what_an_order_writes() {
        let writes = |verb: &str| SCRIPT.lines().filter(|line| line.starts_with(verb)).count();
        assert_eq!((writes("INSERT"), writes("UPDATE"), writes("BEGIN"), writes("END")), (5, 2, 1, 1));
        for table in ["idempotency", "orders", "order_lines", "products", "payments", "notices"] {
            assert!(TABLES.contains(&format!("CREATE TABLE {table} ")), "{table}");
        }
    }
}
