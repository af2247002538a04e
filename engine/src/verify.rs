//! Verification: the live projection against a fresh fold of the log at the same sequences, row for row.
//!
//! Nothing live is written. The fold fills a schema of its own beside the live one, which is dropped afterwards; the
//! live rows are read in one snapshot that is taken before the fold starts.

use std::collections::{BTreeMap, HashMap};

use anyhow::Context;
use futures_util::TryStreamExt;
use serde::Serialize;
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool};

use crate::fold::{Fold, Progress};
use crate::model;
use crate::record::Output;
use crate::service::{Service, Table};
use crate::store;

/// Tables of the projection that the engine folds for every service.
const ENGINE_TABLES: [Table; 2] = [
    Table { name: "commands", key: "command_id", read_model: false },
    Table { name: "held", key: "partition, topic, source_offset, effect", read_model: false },
];

/// The snapshot rests while the log is folded, and tables are read row by row.
const PATIENT: &str = "SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL statement_timeout = 0";

/// One table, compared.
#[derive(Debug, Clone, Serialize)]
pub struct Compared {
    /// Its name.
    pub table: String,
    /// Rows in the live one.
    pub rows: u64,
    /// SHA-256 of the live rows in key order.
    pub live: String,
    /// SHA-256 of the folded rows.
    pub folded: String,
    /// The first row that differs.
    pub difference: Option<Difference>,
}

/// The first row that differs.
#[derive(Debug, Clone, Serialize)]
pub struct Difference {
    /// The live row as JSON; none when it is missing.
    pub live: Option<String>,
    /// The folded row.
    pub folded: Option<String>,
}

/// What a verification found.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// True when every table is equal.
    pub equal: bool,
    /// Own events folded.
    pub events: u64,
    /// The sequences at which both were compared.
    pub sequences: BTreeMap<i32, i64>,
    /// Each table.
    pub tables: Vec<Compared>,
    /// Strange records on own topics: topic, partition, offset.
    pub strange: Vec<(String, i32, i64)>,
}

/// Compares the projection behind `live` with a fold into the schema that `fold.pool` leads to.
///
/// # Errors
/// When the log cannot be folded, does not yet hold what was decided, or Postgres fails.
pub async fn verify<S: Service>(fold: &Fold<'_, S>, live: &PgPool, progress: Progress<'_>) -> anyhow::Result<Verdict> {
    let description = fold.service.describe();
    let mut conn = live.acquire().await?;
    let mut snapshot = conn.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY").await?;
    snapshot.execute(PATIENT).await?;
    let decided: Vec<(i32, String, i64)> =
        sqlx::query_as("SELECT partition, topic, sequence FROM outputs").fetch_all(&mut *snapshot).await?;
    let topics = Output::ALL.map(|output| store::output_topic(fold.kafka, &description, output));
    let mut upto = HashMap::<i32, [i64; 3]>::new();
    for (partition, topic, sequence) in decided {
        if let Some(place) = topics.iter().position(|name| *name == topic) {
            upto.entry(partition).or_default()[place] = sequence;
        }
    }
    let folded = fold.run(Some(&upto), progress).await?;
    for (partition, decided) in &upto {
        for (place, decided) in decided.iter().enumerate() {
            let reached = folded.partitions.get(partition).map_or(0, |state| state.outputs[place].sequence);
            anyhow::ensure!(
                reached == *decided,
                "{}/{partition} holds {reached} of {decided} decided records; wait for the publisher, or run \
                 `cargo orderctl rebuild {}`",
                topics[place],
                description.name
            );
        }
    }
    let sequences: BTreeMap<i32, i64> = upto.iter().map(|(partition, decided)| (*partition, decided[0])).collect();
    let with_model = description.read_model.is_some() && model_stands_still(fold, &mut snapshot).await?;
    let mut tables = Vec::new();
    let mut conn = fold.pool.acquire().await?;
    let mut other = conn.begin().await?;
    other.execute(PATIENT).await?;
    for table in ENGINE_TABLES.iter().chain(description.tables) {
        if !table.read_model || with_model {
            tables.push(compare(table, &mut snapshot, &mut other).await?);
        }
    }
    Ok(Verdict {
        equal: tables.iter().all(|table| table.difference.is_none()),
        events: folded.events,
        sequences,
        tables,
        strange: folded.strange,
    })
}

/// Folds the read model and says whether it ends where the live one stood; a live one that moved on cannot be compared.
async fn model_stands_still<S: Service>(fold: &Fold<'_, S>, snapshot: &mut PgConnection) -> anyhow::Result<bool> {
    model::fold(fold.service, fold.kafka, fold.codec, fold.pool, |_| {}).await.context("folding the read model")?;
    let query = "SELECT partition, last_sequence FROM read_models ORDER BY partition, topic";
    let live: Vec<(i32, i64)> = sqlx::query_as(query).fetch_all(snapshot).await?;
    let mut conn = fold.pool.acquire().await?;
    let folded: Vec<(i32, i64)> = sqlx::query_as(query).fetch_all(&mut *conn).await?;
    // The live one only moves on facts that concern it, the folded one on all: it may stand behind, never ahead.
    Ok(live.iter().zip(&folded).all(|(live, folded)| live.0 == folded.0 && live.1 <= folded.1))
}

async fn compare(table: &Table, live: &mut PgConnection, folded: &mut PgConnection) -> anyhow::Result<Compared> {
    // Names of tables and columns cannot be bound; they are constants of this build (`Description::tables`).
    let key: Vec<String> = table.key.split(',').map(|column| format!("t.{} ", column.trim())).collect();
    let sql = format!("SELECT to_jsonb(t)::text FROM {} AS t ORDER BY {}", table.name, key.join(", "));
    let mut left = sqlx::query_as::<_, (String,)>(AssertSqlSafe(sql.clone())).fetch(live);
    let mut right = sqlx::query_as::<_, (String,)>(AssertSqlSafe(sql)).fetch(folded);
    let (mut left_hash, mut right_hash) = (Sha256::new(), Sha256::new());
    let mut difference = None;
    let mut rows = 0;
    loop {
        let (one, other) = (left.try_next().await?, right.try_next().await?);
        if let Some((row,)) = &one {
            rows += 1;
            left_hash.update(row.as_bytes());
            left_hash.update(b"\n");
        }
        if let Some((row,)) = &other {
            right_hash.update(row.as_bytes());
            right_hash.update(b"\n");
        }
        if one != other && difference.is_none() {
            difference =
                Some(Difference { live: one.clone().map(|(row,)| row), folded: other.clone().map(|(row,)| row) });
        }
        if one.is_none() && other.is_none() {
            break;
        }
    }
    Ok(Compared {
        table: table.name.to_owned(),
        rows,
        live: hex::encode(left_hash.finalize()),
        folded: hex::encode(right_hash.finalize()),
        difference,
    })
}
