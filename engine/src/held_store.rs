//! The table of held and dead records: what the letters on retry and dlq say, as rows.
//!
//! Part of the projection, for a fold of the own topics gives it again. One function per statement, as in [`crate::store`].

use std::borrow::Cow;
use std::collections::HashMap;

use events::envelope::Headers;
use events::time::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::clock;
use crate::held::{self, Entry, Row, Source};
use crate::letter::{Class, Flaw};
use crate::record::Record;

/// Bytes of the original that no column has.
#[derive(Serialize, Deserialize)]
struct Original {
    #[serde(with = "serde_bytes")]
    key: Option<Vec<u8>>,
    #[serde(with = "serde_bytes")]
    value: Option<Vec<u8>>,
    headers: Headers,
    timestamp: i64,
}

fn pack(record: &Record) -> Vec<u8> {
    let Record { key, value, headers, timestamp, .. } = record.clone();
    let original = Original { key, value, headers, timestamp: timestamp.0 };
    postcard::to_stdvec(&original).expect("plain structs in memory always serialise")
}

/// The schema ID in a value's first bytes, if they are the Confluent wire format's.
fn schema_of(row: &Row) -> Option<i64> {
    events::codec::schema_id(row.record.value.as_deref()?).ok().map(i64::from)
}

/// Writes rows: new ones whole, of known ones what another attempt changed. One row per record or effect.
pub(crate) async fn save(conn: &mut PgConnection, rows: &[Row]) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO held (partition, topic, source_offset, source_sequence, number, key, event_type, schema_id,
                           class, code, message, dead, attempts, first_at, last_at, record, effect)
         SELECT unnest($1::int[]), unnest($2::text[]), unnest($3::bigint[]), unnest($4::bigint[]), unnest($5::bigint[]),
                unnest($6::bigint[]), unnest($7::text[]), unnest($8::bigint[]), unnest($9::text[]), unnest($10::text[]),
                unnest($11::text[]), unnest($12::bool[]), unnest($13::int[]), unnest($14::timestamptz[]),
                unnest($15::timestamptz[]), unnest($16::bytea[]), unnest($17::text[])
         ON CONFLICT (partition, topic, source_offset, effect) DO UPDATE
         SET class = EXCLUDED.class, code = EXCLUDED.code, message = EXCLUDED.message, dead = EXCLUDED.dead,
             attempts = EXCLUDED.attempts, last_at = EXCLUDED.last_at",
    )
    .bind(column(rows, |row| row.record.partition))
    .bind(column(rows, |row| row.record.topic.to_string()))
    .bind(column(rows, |row| row.record.offset))
    .bind(column(rows, |row| row.source_sequence))
    .bind(column(rows, |row| row.number))
    .bind(column(rows, Row::key))
    .bind(column(rows, |row| held::type_name(&row.record).map(str::to_owned)))
    .bind(column(rows, schema_of))
    .bind(column(rows, |row| row.flaw.class.as_str()))
    .bind(column(rows, |row| row.flaw.code.to_string()))
    .bind(column(rows, |row| row.flaw.message.clone()))
    .bind(column(rows, |row| row.dead))
    .bind(column(rows, |row| i32::try_from(row.attempts).unwrap_or(i32::MAX)))
    .bind(column(rows, |row| clock::to_utc(row.first_at)))
    .bind(column(rows, |row| clock::to_utc(row.last_at)))
    .bind(column(rows, |row| pack(&row.record)))
    .bind(column(rows, |row| row.effect.clone().unwrap_or_default()))
    .execute(conn)
    .await?;
    Ok(())
}

/// Topic on the broker, offset, and the effect that is dead, if not the record itself.
pub(crate) type Place = (String, i64, Option<String>);

/// Forgets records and effects that are through.
pub(crate) async fn settle(conn: &mut PgConnection, partition: i32, settled: &[Place]) -> Result<(), sqlx::Error> {
    if settled.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "DELETE FROM held AS h
         USING (SELECT unnest($2::text[]) AS topic, unnest($3::bigint[]) AS source_offset,
                       unnest($4::text[]) AS effect) AS u
         WHERE h.partition = $1 AND h.topic = u.topic AND h.source_offset = u.source_offset AND h.effect = u.effect",
    )
    .bind(partition)
    .bind(column(settled, |(topic, ..)| topic.clone()))
    .bind(column(settled, |(_, offset, _)| *offset))
    .bind(column(settled, |(.., effect)| effect.clone().unwrap_or_default()))
    .execute(conn)
    .await?;
    Ok(())
}

/// A dead effect's row, without what only the desk wants.
#[derive(Debug, Clone)]
pub(crate) struct DeadRow {
    pub(crate) key: i64,
    pub(crate) effect: String,
    /// Sequence and offset of the event that asked for it.
    pub(crate) sequence: i64,
    pub(crate) offset: i64,
    pub(crate) attempts: u32,
    pub(crate) first_at: Timestamp,
}

/// The dead effects of a processor.
pub(crate) async fn dead_effects(conn: &mut PgConnection, partition: i32) -> Result<Vec<DeadRow>, sqlx::Error> {
    let rows: Vec<(i64, String, i64, i64, i32, OffsetDateTime)> = sqlx::query_as(
        "SELECT key, effect, source_sequence, source_offset, attempts, first_at FROM held
         WHERE partition = $1 AND effect <> ''",
    )
    .bind(partition)
    .fetch_all(conn)
    .await?;
    let dead = |(key, effect, sequence, offset, attempts, first_at): (_, _, _, _, i32, _)| DeadRow {
        key,
        effect,
        sequence,
        offset,
        attempts: u32::try_from(attempts).unwrap_or(0),
        first_at: clock::from_utc(first_at),
    };
    Ok(rows.into_iter().map(dead).collect())
}

/// What keeps keys of a processor waiting. `kind` tells a topic on the broker and a type from which its kind follows;
/// records of topics that this build does not read are left out.
pub(crate) async fn entries(
    conn: &mut PgConnection,
    partition: i32,
    topics: &[String],
    kind: impl Fn(usize, &str) -> Option<&'static str>,
) -> Result<Vec<(i64, Entry)>, sqlx::Error> {
    type Found = (String, i64, i64, i64, Option<String>, String, bool, i32, OffsetDateTime);
    let rows: Vec<Found> = sqlx::query_as(
        "SELECT topic, source_offset, number, key, event_type, class, dead, attempts, last_at FROM held
         WHERE partition = $1 AND key IS NOT NULL",
    )
    .bind(partition)
    .fetch_all(conn)
    .await?;
    let entry = |(topic, offset, number, key, event_type, class, dead, attempts, last_at): Found| {
        let topic = topics.iter().position(|name| *name == topic)?;
        let keeps = Class::parse(&class)?.keeps_key();
        let entry = Entry {
            source: (topic, offset),
            number,
            kind: event_type.and_then(|name| kind(topic, &name)),
            dead,
            attempts: u32::try_from(attempts).unwrap_or(0),
            last_at: clock::from_utc(last_at),
        };
        keeps.then_some((key, entry))
    };
    Ok(rows.into_iter().filter_map(entry).collect())
}

/// A whole row, as Postgres has it.
#[derive(sqlx::FromRow)]
struct Found {
    topic: String,
    source_offset: i64,
    source_sequence: Option<i64>,
    effect: String,
    number: i64,
    class: String,
    code: String,
    message: String,
    dead: bool,
    attempts: i32,
    first_at: OffsetDateTime,
    last_at: OffsetDateTime,
    record: Vec<u8>,
}

/// Whole rows of records, in the order in which they are asked for; one that is gone is missing.
///
/// # Errors
/// Also when a row was written by another build in another format.
pub(crate) async fn read(
    conn: &mut PgConnection,
    partition: i32,
    topics: &[String],
    sources: &[Source],
) -> Result<Vec<(Source, Row)>, sqlx::Error> {
    let found: Vec<Found> = sqlx::query_as(
        "SELECT h.topic, h.source_offset, h.source_sequence, h.effect, h.number, h.class, h.code, h.message, h.dead,
                h.attempts, h.first_at, h.last_at, h.record
         FROM (SELECT unnest($2::text[]) AS topic, unnest($3::bigint[]) AS source_offset) AS u
         JOIN held AS h ON h.partition = $1 AND h.topic = u.topic AND h.source_offset = u.source_offset
              AND h.effect = ''",
    )
    .bind(partition)
    .bind(column(sources, |source| topics[source.0].clone()))
    .bind(column(sources, |source| source.1))
    .fetch_all(conn)
    .await?;
    let found: HashMap<_, _> = found.iter().map(|found| ((found.topic.as_str(), found.source_offset), found)).collect();
    let there = sources.iter().filter_map(|source| Some((source, found.get(&(topics[source.0].as_str(), source.1))?)));
    there.map(|(source, found)| Ok((*source, row(partition, found)?))).collect()
}

/// A whole row, whatever it is about.
///
/// # Errors
/// As [`read`].
pub(crate) async fn read_one(
    conn: &mut PgConnection,
    partition: i32,
    place: &Place,
) -> Result<Option<Row>, sqlx::Error> {
    let found: Option<Found> = sqlx::query_as(
        "SELECT topic, source_offset, source_sequence, effect, number, class, code, message, dead, attempts, first_at,
                last_at, record
         FROM held WHERE partition = $1 AND topic = $2 AND source_offset = $3 AND effect = $4",
    )
    .bind(partition)
    .bind(&place.0)
    .bind(place.1)
    .bind(place.2.as_deref().unwrap_or_default())
    .fetch_optional(conn)
    .await?;
    found.as_ref().map(|found| row(partition, found)).transpose()
}

fn row(partition: i32, found: &Found) -> Result<Row, sqlx::Error> {
    let strange = |what: String| sqlx::Error::Decode(what.into());
    let original: Original =
        postcard::from_bytes(&found.record).map_err(|error| strange(format!("a held record: {error}")))?;
    let class = Class::parse(&found.class).ok_or_else(|| strange(format!("class {}", found.class)))?;
    Ok(Row {
        record: Record {
            topic: found.topic.as_str().into(),
            partition,
            offset: found.source_offset,
            timestamp: Timestamp(original.timestamp),
            key: original.key,
            value: original.value,
            headers: original.headers,
        },
        source_sequence: found.source_sequence,
        effect: Some(found.effect.clone()).filter(|effect| !effect.is_empty()),
        number: found.number,
        dead: found.dead,
        flaw: Flaw { class, code: Cow::Owned(found.code.clone()), message: found.message.clone() },
        attempts: u32::try_from(found.attempts).unwrap_or(0),
        first_at: clock::from_utc(found.first_at),
        last_at: clock::from_utc(found.last_at),
    })
}

fn column<'a, R, T>(rows: &'a [R], field: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(field).collect()
}
