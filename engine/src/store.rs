//! What the engine keeps in Postgres: owners, positions, sequences, the outbox, tries of effects, taken commands.
//!
//! One function per statement; the caller owns the transaction. Names are unqualified: `search_path` leads to the
//! schemas `engine` and `projection`.

use std::collections::{HashMap, HashSet};

use events::id::CommandId;
use events::time::Timestamp;
use sqlx::{PgConnection, Row};
use time::OffsetDateTime;

use crate::clock;
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
}

/// A command that an event of this batch settles.
#[derive(Debug, Clone)]
pub(crate) struct TakenCommand {
    pub(crate) command: events::record::CommandRef,
    pub(crate) partition: i32,
    pub(crate) sequence: i64,
    pub(crate) outcome: Option<String>,
    pub(crate) event_type: &'static str,
    pub(crate) subject: i64,
    pub(crate) at: Timestamp,
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

/// The first statement of a batch: fences, moves the positions, and forgets what Kafka has. Returns Postgres' clock, or
/// `None` when another owner, or another batch of this one, got ahead.
pub(crate) async fn fence(
    conn: &mut PgConnection,
    owned: Owned,
    places: &[(String, Place)],
    acked: &[(String, OutputState)],
    acked_batch: i64,
) -> Result<Option<Timestamp>, sqlx::Error> {
    let topics: Vec<&str> = places.iter().map(|(topic, _)| topic.as_str()).collect();
    let offsets: Vec<i64> = places.iter().map(|(_, place)| place.next_offset).collect();
    let sequences: Vec<i64> = places.iter().map(|(_, place)| place.last_sequence).collect();
    let own: Vec<&str> = acked.iter().map(|(topic, _)| topic.as_str()).collect();
    let own_sequences: Vec<i64> = acked.iter().map(|(_, state)| state.acked_sequence).collect();
    let own_offsets: Vec<i64> = acked.iter().map(|(_, state)| state.acked_offset).collect();
    let row: (i64, OffsetDateTime) = sqlx::query_as(
        "WITH fenced AS (
             UPDATE processors SET batch = batch + 1 WHERE partition = $1 AND epoch = $2 AND batch = $3
             RETURNING partition),
         moved AS (
             INSERT INTO positions AS p (partition, topic, next_offset, last_sequence)
             SELECT $1, u.topic, u.next_offset, u.last_sequence
             FROM UNNEST($4::text[], $5::bigint[], $6::bigint[]) AS u (topic, next_offset, last_sequence), fenced
             ON CONFLICT (partition, topic) DO UPDATE
             SET next_offset = EXCLUDED.next_offset, last_sequence = EXCLUDED.last_sequence),
         acked AS (
             INSERT INTO outputs AS o (partition, topic, sequence, acked_sequence, acked_offset)
             SELECT $1, u.topic, u.sequence, u.sequence, u.position
             FROM UNNEST($7::text[], $8::bigint[], $9::bigint[]) AS u (topic, sequence, position), fenced
             ON CONFLICT (partition, topic) DO UPDATE
             SET acked_sequence = EXCLUDED.acked_sequence, acked_offset = EXCLUDED.acked_offset),
         forgotten AS (
             DELETE FROM outbox WHERE partition = $1 AND batch <= $10 AND EXISTS (SELECT FROM fenced))
         SELECT (SELECT count(*) FROM fenced), clock_timestamp()",
    )
    .bind(owned.partition)
    .bind(owned.epoch)
    .bind(owned.batch)
    .bind(topics)
    .bind(offsets)
    .bind(sequences)
    .bind(own)
    .bind(own_sequences)
    .bind(own_offsets)
    .bind(acked_batch)
    .fetch_one(conn)
    .await?;
    Ok((row.0 == 1).then(|| clock::from_utc(row.1)))
}

/// Which of these commands were taken already.
pub(crate) async fn taken_commands(
    conn: &mut PgConnection,
    commands: &[i64],
) -> Result<HashSet<CommandId>, sqlx::Error> {
    let rows: Vec<(i64,)> = sqlx::query_as("SELECT command_id FROM commands WHERE command_id = ANY($1)")
        .bind(commands)
        .fetch_all(conn)
        .await?;
    Ok(rows.into_iter().map(|(id,)| CommandId(id)).collect())
}

/// Remembers commands for ever. Live and in a fold alike: a command's first event counts.
pub(crate) async fn save_commands(conn: &mut PgConnection, taken: &[TakenCommand]) -> Result<(), sqlx::Error> {
    if taken.is_empty() {
        return Ok(());
    }
    let mut sorted: Vec<&TakenCommand> = taken.iter().collect();
    sorted.sort_by_key(|taken| taken.command.command_id);
    let column = |field: fn(&TakenCommand) -> Option<&str>| -> Vec<Option<String>> {
        sorted.iter().map(|taken| field(taken).map(str::to_owned)).collect()
    };
    sqlx::query(
        "INSERT INTO commands (command_id, caller, key_hash, fingerprint, partition, sequence, outcome, event_type,
                               subject, at)
         SELECT * FROM UNNEST($1::bigint[], $2::text[], $3::text[], $4::text[], $5::int[], $6::bigint[], $7::text[],
                              $8::text[], $9::bigint[], $10::timestamptz[])
         ON CONFLICT (command_id) DO NOTHING",
    )
    .bind(sorted.iter().map(|taken| taken.command.command_id.0).collect::<Vec<_>>())
    .bind(column(|taken| taken.command.caller.as_deref()))
    .bind(column(|taken| taken.command.key_hash.as_deref()))
    .bind(column(|taken| taken.command.fingerprint.as_deref()))
    .bind(sorted.iter().map(|taken| taken.partition).collect::<Vec<_>>())
    .bind(sorted.iter().map(|taken| taken.sequence).collect::<Vec<_>>())
    .bind(column(|taken| taken.outcome.as_deref()))
    .bind(sorted.iter().map(|taken| taken.event_type).collect::<Vec<_>>())
    .bind(sorted.iter().map(|taken| taken.subject).collect::<Vec<_>>())
    .bind(sorted.iter().map(|taken| clock::to_utc(taken.at)).collect::<Vec<_>>())
    .execute(conn)
    .await?;
    Ok(())
}

/// The last write of a batch: its records as one outbox row, and the sequences they took.
pub(crate) async fn save_output(
    conn: &mut PgConnection,
    owned: Owned,
    records: &[u8],
    sequences: &[(String, i64)],
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "WITH counted AS (
             INSERT INTO outputs AS o (partition, topic, sequence, acked_sequence, acked_offset)
             SELECT $1, u.topic, u.sequence, 0, -1 FROM UNNEST($4::text[], $5::bigint[]) AS u (topic, sequence)
             ON CONFLICT (partition, topic) DO UPDATE SET sequence = EXCLUDED.sequence)
         INSERT INTO outbox (partition, batch, records) VALUES ($1, $2, $3)",
    )
    .bind(owned.partition)
    .bind(owned.batch + 1)
    .bind(records)
    .bind(sequences.iter().map(|(topic, _)| topic.as_str()).collect::<Vec<_>>())
    .bind(sequences.iter().map(|(_, sequence)| *sequence).collect::<Vec<_>>())
    .execute(conn)
    .await?;
    Ok(())
}

/// The stored tries of a processor's effects.
pub(crate) async fn tries(conn: &mut PgConnection, partition: i32) -> Result<Vec<StoredTry>, sqlx::Error> {
    let rows = sqlx::query("SELECT key, kind, attempts, next_try_at FROM effects WHERE partition = $1")
        .bind(partition)
        .fetch_all(conn)
        .await?;
    let stored = |row: &sqlx::postgres::PgRow| {
        Ok(StoredTry {
            key: row.try_get(0)?,
            kind: row.try_get(1)?,
            attempts: row.try_get(2)?,
            next_try_at: clock::from_utc(row.try_get(3)?),
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
    pub(crate) error: Option<String>,
}

/// Remembers tries without an answer. Scheduling, outside the fold.
pub(crate) async fn save_tries(conn: &mut PgConnection, partition: i32, tries: &[OpenTry]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO effects AS e (partition, key, kind, attempts, next_try_at, pending, first_error, last_error)
         SELECT $1, u.key, u.kind, u.attempts, u.next_try_at, u.pending, u.error, u.error
         FROM UNNEST($2::bigint[], $3::text[], $4::int[], $5::timestamptz[], $6::bool[], $7::text[])
              AS u (key, kind, attempts, next_try_at, pending, error)
         ON CONFLICT (partition, key, kind) DO UPDATE
         SET attempts = EXCLUDED.attempts, next_try_at = EXCLUDED.next_try_at, pending = EXCLUDED.pending,
             first_error = COALESCE(e.first_error, EXCLUDED.first_error),
             last_error = COALESCE(EXCLUDED.last_error, e.last_error)",
    )
    .bind(partition)
    .bind(tries.iter().map(|open| open.key).collect::<Vec<_>>())
    .bind(tries.iter().map(|open| open.kind).collect::<Vec<_>>())
    .bind(tries.iter().map(|open| open.attempts).collect::<Vec<_>>())
    .bind(tries.iter().map(|open| clock::to_utc(open.next_try_at)).collect::<Vec<_>>())
    .bind(tries.iter().map(|open| open.pending).collect::<Vec<_>>())
    .bind(tries.iter().map(|open| open.error.clone()).collect::<Vec<_>>())
    .execute(conn)
    .await?;
    Ok(())
}

/// Forgets the tries of effects that are answered or no longer asked for.
pub(crate) async fn forget_tries(
    conn: &mut PgConnection,
    partition: i32,
    done: &[(i64, &'static str)],
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "DELETE FROM effects AS e USING UNNEST($2::bigint[], $3::text[]) AS u (key, kind)
         WHERE e.partition = $1 AND e.key = u.key AND e.kind = u.kind",
    )
    .bind(partition)
    .bind(done.iter().map(|(key, _)| *key).collect::<Vec<_>>())
    .bind(done.iter().map(|(_, kind)| *kind).collect::<Vec<_>>())
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
