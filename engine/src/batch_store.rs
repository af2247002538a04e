//! The two statements that every batch has beside its service's own: the fence, and the last write.
//!
//! Each costs a question to Postgres and its answer, which is most of what a small batch costs (ADR 5): so the fence also
//! reads, and everything that the engine writes goes in one statement. The caller owns the transaction.

use std::collections::HashSet;

use events::id::CommandId;
use events::record::CommandRef;
use events::time::Timestamp;
use sqlx::postgres::PgArguments;
use sqlx::{Arguments as _, Encode, PgConnection, Postgres, Type};
use time::OffsetDateTime;

use crate::clock;
use crate::intake::Place;
use crate::store::{OutputState, Owned};

/// A command that an event of this batch settles.
#[derive(Debug, Clone)]
pub(crate) struct TakenCommand {
    pub(crate) command: CommandRef,
    pub(crate) partition: i32,
    pub(crate) sequence: i64,
    pub(crate) outcome: Option<String>,
    pub(crate) event_type: &'static str,
    pub(crate) subject: i64,
    pub(crate) at: Timestamp,
}

/// The first statement of a batch: takes the processor's row, if it is still this owner's at this batch, and says which of
/// these commands were taken already. `None` when another owner, or another batch of this one, got ahead.
///
/// One snapshot for both is enough: whoever wrote a command of this partition before has changed the row, and then it is
/// not found.
pub(crate) async fn fence(
    conn: &mut PgConnection,
    owned: Owned,
    commands: &[i64],
) -> Result<Option<(Timestamp, HashSet<CommandId>)>, sqlx::Error> {
    // Nothing is asked about commands where there are none, as nearly everywhere.
    let query = if commands.is_empty() {
        sqlx::query_as(
            "SELECT clock_timestamp(), '{}'::bigint[] FROM processors
             WHERE partition = $1 AND epoch = $2 AND batch = $3 FOR NO KEY UPDATE",
        )
    } else {
        sqlx::query_as(
            "SELECT clock_timestamp(), ARRAY(SELECT command_id FROM commands WHERE command_id = ANY($4))
             FROM processors WHERE partition = $1 AND epoch = $2 AND batch = $3 FOR NO KEY UPDATE",
        )
    };
    let query = query.bind(owned.partition).bind(owned.epoch).bind(owned.batch);
    let query = if commands.is_empty() { query } else { query.bind(commands) };
    let row: Option<(OffsetDateTime, Vec<i64>)> = query
        .fetch_optional(conn)
        .await?;
    Ok(row.map(|(now, taken)| (clock::from_utc(now), taken.into_iter().map(CommandId).collect())))
}

/// Inserts commands whose columns are these parameters. Live and in a fold alike: a command's first event counts.
macro_rules! insert_commands {
    ($id:literal, $caller:literal, $key_hash:literal, $fingerprint:literal, $partition:literal, $sequence:literal,
     $outcome:literal, $event_type:literal, $subject:literal, $at:literal) => {
        concat!(
            "INSERT INTO commands (command_id, caller, key_hash, fingerprint, partition, sequence, outcome, event_type, ",
            "subject, at) SELECT * FROM UNNEST(", $id, "::bigint[], ", $caller, "::text[], ", $key_hash, "::text[], ",
            $fingerprint, "::text[], ", $partition, "::int[], ", $sequence, "::bigint[], ", $outcome, "::text[], ",
            $event_type, "::text[], ", $subject, "::bigint[], ", $at, "::timestamptz[]) ",
            "ON CONFLICT (command_id) DO NOTHING"
        )
    };
}

/// The last write of a batch: moves the positions, counts what it decided, keeps that in the outbox, and forgets what
/// Kafka has.
macro_rules! finish {
    ($($commands:expr)?) => {
        concat!(
            "WITH fenced AS (
                 UPDATE processors SET batch = batch + 1 WHERE partition = $1 AND epoch = $2 AND batch = $3
                 RETURNING batch),
             moved AS (
                 INSERT INTO positions AS p (partition, topic, next_offset, last_sequence)
                 SELECT $1, u.topic, u.next_offset, u.last_sequence
                 FROM UNNEST($4::text[], $5::bigint[], $6::bigint[]) AS u (topic, next_offset, last_sequence)
                 ON CONFLICT (partition, topic) DO UPDATE
                 SET next_offset = EXCLUDED.next_offset, last_sequence = EXCLUDED.last_sequence),
             counted AS (
                 INSERT INTO outputs AS o (partition, topic, sequence, acked_sequence, acked_offset)
                 SELECT $1, u.topic, u.sequence, u.acked_sequence, u.acked_offset
                 FROM UNNEST($7::text[], $8::bigint[], $9::bigint[], $10::bigint[])
                      AS u (topic, sequence, acked_sequence, acked_offset)
                 ON CONFLICT (partition, topic) DO UPDATE
                 SET sequence = EXCLUDED.sequence, acked_sequence = EXCLUDED.acked_sequence,
                     acked_offset = EXCLUDED.acked_offset),
             forgotten AS (
                 DELETE FROM outbox WHERE partition = $1 AND batch <= $11),
             kept AS (
                 INSERT INTO outbox (partition, batch, records)
                 SELECT $1, batch, $12 FROM fenced WHERE $12::bytea IS NOT NULL)",
            $(", taken AS (", $commands, ")",)?
            " SELECT count(*) FROM fenced"
        )
    };
}

/// What the last write of a batch says, beside what it decided on.
#[derive(Debug)]
pub(crate) struct Finish<'a> {
    /// Where the processor stands, per input topic that moved.
    pub(crate) places: &'a [(String, Place)],
    /// How far the own topics got, as far as that changed.
    pub(crate) outputs: &'a [(String, OutputState)],
    /// Outbox rows up to this batch are in Kafka.
    pub(crate) acked_batch: i64,
    /// The batch's own outbox row, if it decided anything.
    pub(crate) records: Option<Vec<u8>>,
    /// The commands that it settled.
    pub(crate) taken: &'a [TakenCommand],
}

/// Ends a batch but for its COMMIT. False when the fence did not hold, which cannot be behind [`fence`].
pub(crate) async fn finish(conn: &mut PgConnection, owned: Owned, finish: Finish<'_>) -> Result<bool, sqlx::Error> {
    let Finish { places, outputs, acked_batch, records, taken } = finish;
    let statement = if taken.is_empty() {
        finish!()
    } else {
        finish!(insert_commands!("$13", "$14", "$15", "$16", "$17", "$18", "$19", "$20", "$21", "$22"))
    };
    let mut arguments = PgArguments::default();
    add(&mut arguments, owned.partition)?;
    add(&mut arguments, owned.epoch)?;
    add(&mut arguments, owned.batch)?;
    add(&mut arguments, column(places, |(topic, _)| topic.as_str()))?;
    add(&mut arguments, column(places, |(_, place)| place.next_offset))?;
    add(&mut arguments, column(places, |(_, place)| place.last_sequence))?;
    add(&mut arguments, column(outputs, |(topic, _)| topic.as_str()))?;
    add(&mut arguments, column(outputs, |(_, state)| state.sequence))?;
    add(&mut arguments, column(outputs, |(_, state)| state.acked_sequence))?;
    add(&mut arguments, column(outputs, |(_, state)| state.acked_offset))?;
    add(&mut arguments, acked_batch)?;
    add(&mut arguments, records)?;
    if !taken.is_empty() {
        add_commands(&mut arguments, taken)?;
    }
    let (fenced,): (i64,) = sqlx::query_as_with(statement, arguments).fetch_one(conn).await?;
    Ok(fenced == 1)
}

/// Remembers commands for ever, in a fold.
pub(crate) async fn save_commands(conn: &mut PgConnection, taken: &[TakenCommand]) -> Result<(), sqlx::Error> {
    if taken.is_empty() {
        return Ok(());
    }
    let statement = insert_commands!("$1", "$2", "$3", "$4", "$5", "$6", "$7", "$8", "$9", "$10");
    let mut arguments = PgArguments::default();
    add_commands(&mut arguments, taken)?;
    sqlx::query_with(statement, arguments).execute(conn).await?;
    Ok(())
}

/// In the order of their IDs, for which the index is grateful.
fn add_commands(arguments: &mut PgArguments, taken: &[TakenCommand]) -> Result<(), sqlx::Error> {
    let mut sorted: Vec<&TakenCommand> = taken.iter().collect();
    sorted.sort_by_key(|taken| taken.command.command_id);
    add(arguments, column(&sorted, |taken| taken.command.command_id.0))?;
    add(arguments, column(&sorted, |taken| taken.command.caller.as_deref()))?;
    add(arguments, column(&sorted, |taken| taken.command.key_hash.as_deref()))?;
    add(arguments, column(&sorted, |taken| taken.command.fingerprint.as_deref()))?;
    add(arguments, column(&sorted, |taken| taken.partition))?;
    add(arguments, column(&sorted, |taken| taken.sequence))?;
    add(arguments, column(&sorted, |taken| taken.outcome.as_deref()))?;
    add(arguments, column(&sorted, |taken| taken.event_type))?;
    add(arguments, column(&sorted, |taken| taken.subject))?;
    add(arguments, column(&sorted, |taken| clock::to_utc(taken.at)))
}

fn add<'q, T>(arguments: &mut PgArguments, value: T) -> Result<(), sqlx::Error>
where
    T: Encode<'q, Postgres> + Type<Postgres>,
{
    arguments.add(value).map_err(sqlx::Error::Encode)
}

fn column<'a, R, T>(rows: &'a [R], field: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(field).collect()
}
