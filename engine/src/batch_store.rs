//! The two statements that every batch has beside its service's own: the fence, and the last write.
//!
//! Each costs a question to Postgres and its answer, which is most of what a small batch costs (ADR 6): so the fence also
//! reads, and everything that the engine writes goes in one statement, for all processors of the transaction. The caller
//! owns it. Why arrays are unnested in select lists, and compared by `= ANY (ARRAY[…])`: ADR 6.

use std::collections::HashSet;

use events::id::CommandId;
use events::record::CommandRef;
use events::time::Timestamp;
use sqlx::postgres::PgArguments;
use sqlx::{Arguments as _, Encode, PgConnection, Postgres, Type};
use time::OffsetDateTime;

use crate::clock;
use crate::intake::Place;
use crate::mutant;
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

/// The clock is read when the rows are locked: a select list is worked out from left to right.
macro_rules! fence {
    ($taken:literal) => {
        concat!(
            "SELECT ARRAY(
                 SELECT p.partition FROM processors AS p,
                        (SELECT unnest($1::int[]) AS partition, unnest($2::bigint[]) AS epoch,
                                unnest($3::bigint[]) AS batch) AS u
                 WHERE p.partition = ANY (ARRAY[u.partition]) AND p.epoch = u.epoch AND p.batch = u.batch
                 ORDER BY p.partition FOR NO KEY UPDATE OF p),
             clock_timestamp(), ",
            $taken
        )
    };
}

/// What the fence found.
#[derive(Debug)]
pub(crate) struct Fenced {
    /// Postgres' clock.
    pub(crate) now: Timestamp,
    /// The processors that are still these owners' at these batches. Another owner got ahead of the others, or another
    /// batch of their own.
    pub(crate) held: HashSet<i32>,
    /// Which of the commands were taken already.
    pub(crate) taken: HashSet<CommandId>,
}

/// The first statement of a batch: takes the processors' rows in the order of their numbers, as far as they are still
/// these owners', and says which of these commands were taken already.
///
/// One snapshot for both is enough: whoever wrote a command of a partition before has changed its row, and then it is not
/// held.
pub(crate) async fn fence(conn: &mut PgConnection, owners: &[Owned], commands: &[i64]) -> Result<Fenced, sqlx::Error> {
    // Nothing is asked about commands where there are none, as nearly everywhere.
    let statement = if commands.is_empty() {
        fence!("'{}'::bigint[]")
    } else {
        fence!("ARRAY(SELECT command_id FROM commands WHERE command_id = ANY($4))")
    };
    let query = sqlx::query_as(mutant::fence(statement))
        .bind(column(owners, |owned| owned.partition))
        .bind(column(owners, |owned| owned.epoch))
        .bind(column(owners, |owned| owned.batch));
    let query = if commands.is_empty() { query } else { query.bind(commands) };
    let (held, now, taken): (Vec<i32>, OffsetDateTime, Vec<i64>) = query.fetch_one(conn).await?;
    Ok(Fenced {
        now: clock::from_utc(now),
        held: held.into_iter().collect(),
        taken: taken.into_iter().map(CommandId).collect(),
    })
}

/// Inserts commands whose columns are these parameters. Live and in a fold alike: a command's first event counts.
macro_rules! insert_commands {
    ($id:literal, $caller:literal, $key_hash:literal, $fingerprint:literal, $partition:literal, $sequence:literal,
     $outcome:literal, $event_type:literal, $subject:literal, $at:literal) => {
        concat!(
            "INSERT INTO commands (command_id, caller, key_hash, fingerprint, partition, sequence, outcome, event_type, ",
            "subject, at) SELECT unnest(", $id, "::bigint[]), unnest(", $caller, "::text[]), unnest(", $key_hash,
            "::text[]), unnest(", $fingerprint, "::text[]), unnest(", $partition, "::int[]), unnest(", $sequence,
            "::bigint[]), unnest(", $outcome, "::text[]), unnest(", $event_type, "::text[]), unnest(", $subject,
            "::bigint[]), unnest(", $at, "::timestamptz[]) ",
            "ON CONFLICT (command_id) DO NOTHING"
        )
    };
}

/// The last write of a batch: moves the positions, counts what it decided, keeps that in the outbox, and forgets what
/// Kafka has. What was forgotten before is not looked at again: dead rows lie there until the next vacuum.
macro_rules! finish {
    ($($commands:expr)?) => {
        concat!(
            "WITH owned AS MATERIALIZED (
                 SELECT unnest($1::int[]) AS partition, unnest($2::bigint[]) AS epoch, unnest($3::bigint[]) AS batch,
                        unnest($4::bigint[]) AS acked_before, unnest($5::bigint[]) AS acked_batch),
             fenced AS (
                 UPDATE processors AS p SET batch = p.batch + 1 FROM owned AS u
                 WHERE p.partition = ANY (ARRAY[u.partition]) AND p.epoch = u.epoch AND p.batch = u.batch
                 RETURNING 1),
             forgotten AS (
                 DELETE FROM outbox AS o USING owned AS u
                 WHERE o.partition = ANY (ARRAY[u.partition]) AND o.batch > u.acked_before
                       AND o.batch <= u.acked_batch),
             moved AS (
                 INSERT INTO positions AS p (partition, topic, next_offset, last_sequence)
                 SELECT unnest($6::int[]), unnest($7::text[]), unnest($8::bigint[]), unnest($9::bigint[])
                 ON CONFLICT (partition, topic) DO UPDATE
                 SET next_offset = EXCLUDED.next_offset, last_sequence = EXCLUDED.last_sequence),
             counted AS (
                 INSERT INTO outputs AS o (partition, topic, sequence, acked_sequence, acked_offset)
                 SELECT unnest($10::int[]), unnest($11::text[]), unnest($12::bigint[]), unnest($13::bigint[]),
                        unnest($14::bigint[])
                 ON CONFLICT (partition, topic) DO UPDATE
                 SET sequence = EXCLUDED.sequence, acked_sequence = EXCLUDED.acked_sequence,
                     acked_offset = EXCLUDED.acked_offset),
             kept AS (
                 INSERT INTO outbox (partition, batch, records)
                 SELECT unnest($15::int[]), unnest($16::bigint[]), unnest($17::bytea[]))",
            $(", taken AS (", $commands, ")",)?
            " SELECT count(*) FROM fenced"
        )
    };
}

/// What the last write says of one processor.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) owned: Owned,
    /// Where it stands, per input topic that moved.
    pub(crate) places: Vec<(String, Place)>,
    /// How far the own topics got, by their place in the list of them, as far as that changed.
    pub(crate) outputs: Vec<(usize, OutputState)>,
    /// Outbox rows up to this batch are in Kafka; up to the former that was known before.
    pub(crate) acked_before: i64,
    pub(crate) acked_batch: i64,
    /// The batch's own outbox row, if it decided anything.
    pub(crate) records: Option<Vec<u8>>,
}

/// Ends a batch but for its COMMIT. Returns how many processors were still held, which behind [`fence`] are all.
pub(crate) async fn finish(
    conn: &mut PgConnection,
    topics: &[String; 3],
    finished: &[Finished],
    taken: &[&TakenCommand],
) -> Result<usize, sqlx::Error> {
    let statement = if taken.is_empty() {
        finish!()
    } else {
        finish!(insert_commands!("$18", "$19", "$20", "$21", "$22", "$23", "$24", "$25", "$26", "$27"))
    };
    let of = |finished: &Finished| finished.owned.partition;
    let places: Vec<_> = finished.iter().flat_map(|all| all.places.iter().map(move |place| (of(all), place))).collect();
    let outputs: Vec<_> = finished.iter().flat_map(|all| all.outputs.iter().map(move |at| (of(all), at))).collect();
    let kept: Vec<_> = finished.iter().filter_map(|all| Some((all.owned, all.records.as_deref()?))).collect();
    let mut arguments = PgArguments::default();
    add(&mut arguments, column(finished, of))?;
    add(&mut arguments, column(finished, |all| all.owned.epoch))?;
    add(&mut arguments, column(finished, |all| all.owned.batch))?;
    add(&mut arguments, column(finished, |all| all.acked_before))?;
    add(&mut arguments, column(finished, |all| all.acked_batch))?;
    add(&mut arguments, column(&places, |(partition, _)| *partition))?;
    add(&mut arguments, column(&places, |(_, (topic, _))| topic.as_str()))?;
    add(&mut arguments, column(&places, |(_, (_, place))| place.next_offset))?;
    add(&mut arguments, column(&places, |(_, (_, place))| place.last_sequence))?;
    add(&mut arguments, column(&outputs, |(partition, _)| *partition))?;
    add(&mut arguments, column(&outputs, |(_, (at, _))| topics[*at].as_str()))?;
    add(&mut arguments, column(&outputs, |(_, (_, state))| state.sequence))?;
    add(&mut arguments, column(&outputs, |(_, (_, state))| state.acked_sequence))?;
    add(&mut arguments, column(&outputs, |(_, (_, state))| state.acked_offset))?;
    add(&mut arguments, column(&kept, |(owned, _)| owned.partition))?;
    add(&mut arguments, column(&kept, |(owned, _)| owned.batch + 1))?;
    add(&mut arguments, column(&kept, |(_, records)| *records))?;
    if !taken.is_empty() {
        add_commands(&mut arguments, taken)?;
    }
    let (fenced,): (i64,) = sqlx::query_as_with(mutant::fence(statement), arguments).fetch_one(conn).await?;
    Ok(usize::try_from(fenced).unwrap_or_default())
}

/// Remembers commands for ever, in a fold.
pub(crate) async fn save_commands(conn: &mut PgConnection, taken: &[TakenCommand]) -> Result<(), sqlx::Error> {
    if taken.is_empty() {
        return Ok(());
    }
    let statement = insert_commands!("$1", "$2", "$3", "$4", "$5", "$6", "$7", "$8", "$9", "$10");
    let mut arguments = PgArguments::default();
    add_commands(&mut arguments, &taken.iter().collect::<Vec<_>>())?;
    sqlx::query_with(statement, arguments).execute(conn).await?;
    Ok(())
}

/// In the order of their IDs, for which the index is grateful.
fn add_commands(arguments: &mut PgArguments, taken: &[&TakenCommand]) -> Result<(), sqlx::Error> {
    let mut sorted = taken.to_vec();
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
