//! What the engine keeps in Postgres: owners, positions, sequences, the outbox, tries of effects.
//!
//! What every batch writes is [`crate::batch_store`]'s. One function per statement; the caller owns the transaction. Names are unqualified: `search_path` leads to the
//! schemas `engine` and `projection`.

use std::collections::HashMap;

use events::time::Timestamp;
use sqlx::{PgConnection, Row};
use time::OffsetDateTime;

use crate::clock;
use crate::effects::Forgotten;
use crate::intake::Place;
use crate::record::Output;

/// The owner of a processor, as the fence checks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owned {
    pub(crate) partition: i32,
    pub(crate) epoch: i64,
    /// Number of the last committed batch.
    pub(crate) batch: i64,
}

/// How far an own topic's partition got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputState {
    /// Last sequence assigned; 0 before the first.
    pub sequence: i64,
    /// Last sequence that Kafka acknowledged; 0 before the first.
    pub acked_sequence: i64,
    /// Its offset; -1 before the first.
    pub acked_offset: i64,
}

impl Default for OutputState {
    fn default() -> Self {
        Self { sequence: 0, acked_sequence: 0, acked_offset: -1 }
    }
}

/// A stored try of an effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredTry {
    pub(crate) key: i64,
    pub(crate) kind: String,
    pub(crate) attempts: i32,
    pub(crate) next_try_at: Timestamp,
    pub(crate) failed_at: Option<Timestamp>,
}

/// Becomes the owner of these processors: in a transaction of its own, before anything is read (H3).
pub(crate) async fn bump_epochs(
    conn: &mut PgConnection,
    partitions: &[i32],
    owner: &str,
) -> Result<Vec<Owned>, sqlx::Error> {
    let rows = sqlx::query(
        "INSERT INTO processors AS p (partition, epoch, batch, owner, assigned_at)
         SELECT u, (EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::bigint - $3, 0, $2, clock_timestamp()
         FROM UNNEST($1::int[]) AS u ORDER BY u
         ON CONFLICT (partition) DO UPDATE
         SET epoch = GREATEST(EXCLUDED.epoch, p.epoch + 1), owner = EXCLUDED.owner, assigned_at = EXCLUDED.assigned_at
         RETURNING partition, epoch, batch",
    )
    .bind(partitions)
    .bind(owner)
    .bind(events::snowflake::EPOCH_MS)
    .fetch_all(conn)
    .await?;
    let owned = |row: &sqlx::postgres::PgRow| {
        Ok(Owned { partition: row.try_get(0)?, epoch: row.try_get(1)?, batch: row.try_get(2)? })
    };
    rows.iter().map(owned).collect()
}

/// The present epoch of a processor.
pub(crate) async fn epoch(conn: &mut PgConnection, partition: i32) -> Result<Option<i64>, sqlx::Error> {
    let row: Option<(i64,)> = sqlx::query_as("SELECT epoch FROM processors WHERE partition = $1")
        .bind(partition)
        .fetch_optional(conn)
        .await?;
    Ok(row.map(|(epoch,)| epoch))
}

/// Where these processors stand in their input topics (named as on the broker).
pub(crate) async fn positions(
    conn: &mut PgConnection,
    partitions: &[i32],
) -> Result<HashMap<(i32, String), Place>, sqlx::Error> {
    let rows =
        sqlx::query("SELECT partition, topic, next_offset, last_sequence FROM positions WHERE partition = ANY($1)")
            .bind(partitions)
            .fetch_all(conn)
            .await?;
    let entry = |row: &sqlx::postgres::PgRow| {
        let place = Place { next_offset: row.try_get(2)?, last_sequence: row.try_get(3)? };
        Ok(((row.try_get(0)?, row.try_get(1)?), place))
    };
    rows.iter().map(entry).collect()
}

/// How far the own topics of a processor got, by topic name on the broker.
pub(crate) async fn outputs(
    conn: &mut PgConnection,
    partition: i32,
) -> Result<HashMap<String, OutputState>, sqlx::Error> {
    let rows = sqlx::query("SELECT topic, sequence, acked_sequence, acked_offset FROM outputs WHERE partition = $1")
        .bind(partition)
        .fetch_all(conn)
        .await?;
    let entry = |row: &sqlx::postgres::PgRow| {
        let state =
            OutputState { sequence: row.try_get(1)?, acked_sequence: row.try_get(2)?, acked_offset: row.try_get(3)? };
        Ok((row.try_get(0)?, state))
    };
    rows.iter().map(entry).collect()
}

/// The outbox rows of a processor, oldest first.
pub(crate) async fn outbox(conn: &mut PgConnection, partition: i32) -> Result<Vec<(i64, Vec<u8>)>, sqlx::Error> {
    sqlx::query_as("SELECT batch, records FROM outbox WHERE partition = $1 ORDER BY batch")
        .bind(partition)
        .fetch_all(conn)
        .await
}

/// The sequences that the read models of this service reached, by (topic, partition).
pub(crate) async fn read_model_sequence(
    conn: &mut PgConnection,
    topic: &str,
    partition: i32,
) -> Result<i64, sqlx::Error> {
    let row: Option<(i64,)> =
        sqlx::query_as("SELECT last_sequence FROM read_models WHERE topic = $1 AND partition = $2")
            .bind(topic)
            .bind(partition)
            .fetch_optional(conn)
            .await?;
    Ok(row.map_or(0, |(sequence,)| sequence))
}

/// True when the read model of this topic (without prefix) was folded to its end once.
pub(crate) async fn has_read_model(conn: &mut PgConnection, topic: &str) -> Result<bool, sqlx::Error> {
    let (found,): (bool,) =
        sqlx::query_as("SELECT EXISTS (SELECT FROM read_models WHERE topic = $1)").bind(topic).fetch_one(conn).await?;
    Ok(found)
}

/// Moves a read model on.
pub(crate) async fn save_read_model(
    conn: &mut PgConnection,
    topic: &str,
    partition: i32,
    place: Place,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO read_models AS r (topic, partition, last_sequence, next_offset) VALUES ($1, $2, $3, $4)
         ON CONFLICT (topic, partition) DO UPDATE
         SET last_sequence = GREATEST(r.last_sequence, EXCLUDED.last_sequence),
             next_offset = GREATEST(r.next_offset, EXCLUDED.next_offset)",
    )
    .bind(topic)
    .bind(partition)
    .bind(place.last_sequence)
    .bind(place.next_offset)
    .execute(conn)
    .await?;
    Ok(())
}

/// The stored tries of a processor's effects.
pub(crate) async fn tries(conn: &mut PgConnection, partition: i32) -> Result<Vec<StoredTry>, sqlx::Error> {
    let rows = sqlx::query("SELECT key, kind, attempts, next_try_at, failed_at FROM effects WHERE partition = $1")
        .bind(partition)
        .fetch_all(conn)
        .await?;
    let stored = |row: &sqlx::postgres::PgRow| {
        Ok(StoredTry {
            key: row.try_get(0)?,
            kind: row.try_get(1)?,
            attempts: row.try_get(2)?,
            next_try_at: clock::from_utc(row.try_get(3)?),
            failed_at: row.try_get::<Option<_>, _>(4)?.map(clock::from_utc),
        })
    };
    rows.iter().map(stored).collect()
}

/// A try that gave no answer, to be remembered.
#[derive(Debug, Clone)]
pub(crate) struct OpenTry {
    pub(crate) key: i64,
    pub(crate) kind: &'static str,
    pub(crate) attempts: i32,
    pub(crate) next_try_at: Timestamp,
    pub(crate) pending: bool,
    /// When it failed first.
    pub(crate) failed_at: Option<Timestamp>,
    pub(crate) error: Option<String>,
}

/// Remembers tries without an answer. Scheduling, outside the fold.
pub(crate) async fn save_tries(conn: &mut PgConnection, partition: i32, tries: &[OpenTry]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO effects AS e (partition, key, kind, attempts, next_try_at, pending, failed_at, first_error,
                                   last_error)
         SELECT $1, u.key, u.kind, u.attempts, u.next_try_at, u.pending, u.failed_at, u.error, u.error
         FROM UNNEST($2::bigint[], $3::text[], $4::int[], $5::timestamptz[], $6::bool[], $7::timestamptz[], $8::text[])
              AS u (key, kind, attempts, next_try_at, pending, failed_at, error)
         ON CONFLICT (partition, key, kind) DO UPDATE
         SET attempts = EXCLUDED.attempts, next_try_at = EXCLUDED.next_try_at, pending = EXCLUDED.pending,
             failed_at = EXCLUDED.failed_at,
             first_error = COALESCE(e.first_error, EXCLUDED.first_error),
             last_error = COALESCE(EXCLUDED.last_error, e.last_error)",
    )
    .bind(partition)
    .bind(tries.iter().map(|open| open.key).collect::<Vec<_>>())
    .bind(tries.iter().map(|open| open.kind).collect::<Vec<_>>())
    .bind(tries.iter().map(|open| open.attempts).collect::<Vec<_>>())
    .bind(tries.iter().map(|open| clock::to_utc(open.next_try_at)).collect::<Vec<_>>())
    .bind(tries.iter().map(|open| open.pending).collect::<Vec<_>>())
    .bind(tries.iter().map(|open| open.failed_at.map(clock::to_utc)).collect::<Vec<_>>())
    .bind(tries.iter().map(|open| open.error.clone()).collect::<Vec<_>>())
    .execute(conn)
    .await?;
    Ok(())
}

/// Forgets the tries of effects that are answered or no longer asked for.
pub(crate) async fn forget_tries(
    conn: &mut PgConnection,
    partition: i32,
    done: &[Forgotten],
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "DELETE FROM effects AS e USING UNNEST($2::bigint[], $3::text[]) AS u (key, kind)
         WHERE e.partition = $1 AND e.key = u.key AND e.kind = u.kind",
    )
    .bind(partition)
    .bind(done.iter().map(|(key, _)| *key).collect::<Vec<_>>())
    .bind(done.iter().map(|(_, kind)| &**kind).collect::<Vec<_>>())
    .execute(conn)
    .await?;
    Ok(())
}

/// Postgres' clock, the only one that decisions see.
pub(crate) async fn now(conn: &mut PgConnection) -> Result<Timestamp, sqlx::Error> {
    let (now,): (OffsetDateTime,) = sqlx::query_as("SELECT clock_timestamp()").fetch_one(conn).await?;
    Ok(clock::from_utc(now))
}

/// The output's name on the broker for a service.
pub(crate) fn output_topic(
    kafka: &crate::kafka::Kafka,
    service: &crate::service::Description,
    output: Output,
) -> String {
    kafka.topic(&output.topic(service))
}

/// How many partitions have not been read up to their barrier yet.
pub(crate) async fn open_barriers(conn: &mut PgConnection) -> Result<i64, sqlx::Error> {
    let (open,): (i64,) = sqlx::query_as(
        "SELECT count(*) FROM barriers AS b
         LEFT JOIN positions AS p ON p.partition = b.partition AND p.topic = b.topic
         WHERE COALESCE(p.next_offset, 0) < b.end_offset",
    )
    .fetch_one(conn)
    .await?;
    Ok(open)
}
