//! Writes down what is left at the end of a run: topics, tables, the gateway's ledger, the sink's messages.
//!
//! Reads only. Whoever collects while something is still moving gets parts that do not fit together.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use engine::kafka::Kafka;
use engine::own_log::{Reader, watermarks};
use engine::record::Record;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::{Entry, Run, lines, write_json};
use crate::check;
use crate::stack::{PARTITIONS, SERVICES, Stack};

/// Topics that are no service's alone.
const SHARED: [&str; 7] = [
    "order.commands",
    "order.events",
    "inventory.commands",
    "inventory.events",
    "payment.commands",
    "payment.events",
    "notification.events",
];

/// Every topic of the system, without prefix.
#[must_use]
pub fn topics() -> Vec<String> {
    let own = SERVICES.iter().flat_map(|service| [format!("{service}.retry"), format!("{service}.dlq")]);
    SHARED.into_iter().map(str::to_owned).chain(own).collect()
}

/// Collects everything that the servers know, and completes `run` with what the stack knows.
///
/// # Errors
/// When a server does not answer, or the folder cannot be written.
pub async fn collect(stack: &Stack, folder: &Path, run: &Run) -> anyhow::Result<()> {
    let run = Run {
        prefix: stack.prefix.clone(),
        services: SERVICES.map(str::to_owned).to_vec(),
        partitions: PARTITIONS,
        charges_outside: Some(stack.charges_outside()),
        collected_at: Some(engine::clock::wall().0.saturating_mul(1_000)),
        ..run.clone()
    };
    write_json(folder, "run.json", &run)?;
    let kafka = Kafka {
        bootstrap: stack.kafka.clone(),
        topic_prefix: stack.prefix.clone(),
        partitions: PARTITIONS,
        session_timeout: Duration::from_secs(6),
    };
    let into = folder.to_owned();
    tokio::task::spawn_blocking(move || dump_topics(&kafka, &into)).await??;
    for (service, url) in &stack.databases {
        dump_tables(service, url, folder).await.with_context(|| format!("the tables of {service}"))?;
    }
    write_json(folder, "gateway.json", &check::all(&format!("{}/v1/charges", stack.gateway)).await?)?;
    write_json(folder, "gateway_calls.json", &check::all(&format!("{}/admin/calls", stack.gateway)).await?)?;
    write_json(folder, "messages.json", &check::all(&format!("{}/messages", stack.sink)).await?)?;
    Ok(())
}

/// Asks `orderctl verify` and keeps what it says (I11).
///
/// # Errors
/// When it cannot be started. A difference is no error here: it is in the file.
pub fn verify(stack: &Stack, folder: &Path) -> anyhow::Result<()> {
    let (_, printed, said) = stack.try_orderctl(&["--json", "verify", "--all"])?;
    let last = printed.lines().last().with_context(|| format!("orderctl verify printed nothing: {said}"))?;
    write_json(folder, "verify.json", &serde_json::from_str::<Value>(last)?)
}

fn dump_topics(kafka: &Kafka, folder: &Path) -> anyhow::Result<()> {
    let names = topics();
    let partitions = 0..kafka.partitions;
    let places: Vec<_> =
        names.iter().flat_map(|name| partitions.clone().map(|partition| (kafka.topic(name), partition))).collect();
    let marks = watermarks(kafka, &places)?;
    let ranges: Vec<_> = places.into_iter().zip(marks).map(|(place, (low, high))| (place, low, high)).collect();
    let mut reader = Reader::open(kafka, &ranges)?;
    let mut found: BTreeMap<String, Vec<Entry>> = names.into_iter().map(|name| (name, Vec::new())).collect();
    while let Some(record) = reader.next()? {
        let name = record.topic.strip_prefix(kafka.topic_prefix.as_str()).context("a topic of this run")?.to_owned();
        found.entry(name).or_default().push(entry(record));
    }
    for (name, mut entries) in found {
        entries.sort_by_key(|entry| (entry.partition, entry.offset));
        lines::write(folder, &format!("topics/{name}.ndjson"), entries)?;
    }
    Ok(())
}

fn entry(record: Record) -> Entry {
    let Record { partition, offset, timestamp, key, value, headers, .. } = record;
    Entry { partition, offset, timestamp: timestamp.0, key, value, headers }
}

/// All tables of both schemas, and of the audit's if it is there.
async fn dump_tables(service: &str, url: &str, folder: &Path) -> anyhow::Result<()> {
    let mut conn = PgConnection::connect(url).await?;
    let tables: Vec<(String, String, Option<String>)> = sqlx::query_as(
        "SELECT t.schemaname::text, t.tablename::text,
                (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY k.place)
                 FROM pg_index AS i, unnest(i.indkey) WITH ORDINALITY AS k (number, place), pg_attribute AS a
                 WHERE i.indisprimary AND a.attrelid = i.indrelid AND a.attnum = k.number
                       AND i.indrelid = format('%I.%I', t.schemaname, t.tablename)::regclass)
         FROM pg_tables AS t WHERE t.schemaname IN ('engine', 'projection', 'audit')
         ORDER BY t.schemaname, t.tablename",
    )
    .fetch_all(&mut conn)
    .await?;
    // One snapshot of all tables.
    let mut tx = conn.begin().await?;
    sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY").execute(&mut *tx).await?;
    // Times as text in UTC, whatever the server's zone.
    sqlx::query("SET LOCAL TIME ZONE 'UTC'").execute(&mut *tx).await?;
    for (schema, table, key) in tables {
        let order = key.unwrap_or_else(|| "t::text".to_owned());
        // Names that the catalogue gave; they cannot be bound.
        let statement = format!("SELECT to_jsonb(t)::text FROM {schema}.{table} AS t ORDER BY {order}");
        let rows: Vec<(String,)> = sqlx::query_as(AssertSqlSafe(statement)).fetch_all(&mut *tx).await?;
        let rows = rows.iter().map(|(row,)| serde_json::from_str(row)).collect::<Result<Vec<Value>, _>>()?;
        lines::write(folder, &format!("tables/{service}/{schema}.{table}.ndjson"), rows)?;
    }
    tx.commit().await?;
    conn.close().await?;
    Ok(())
}
