//! A test build: the bugs that are more than another condition.

use std::sync::OnceLock;

use rdkafka::producer::BaseRecord;
use sqlx::{AssertSqlSafe, PgConnection, PgPool};

use super::ALL;
use crate::intake::Place;
use crate::producer::{Producer, owned};
use crate::record::{OutRecord, Output};
use crate::service::Service;
use crate::shared::Shared;

/// Whether this process has this bug.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "a test build's variable, read once")]
pub fn is(name: &'static str) -> bool {
    static CHOSEN: OnceLock<Option<String>> = OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| {
        let chosen = std::env::var("MUTANT").ok()?;
        assert!(ALL.contains(&chosen.as_str()), "MUTANT: `{chosen}` is none of {ALL:?}");
        Some(chosen)
    });
    debug_assert!(ALL.contains(&name), "{name} is not in the list");
    chosen.as_deref() == Some(name)
}

/// Whether this build is too old for this record type.
#[expect(clippy::disallowed_methods, reason = "a test build's variable, read once")]
pub(crate) fn lacks(type_name: &str) -> bool {
    static LACKED: OnceLock<String> = OnceLock::new();
    let lacked = LACKED.get_or_init(|| std::env::var("LACKS").unwrap_or_default());
    lacked.split(',').any(|name| name == type_name)
}

/// Whether this build reads what another has written wrongly.
#[expect(clippy::disallowed_methods, reason = "a test build's variable, read once")]
pub(crate) fn is_mended() -> bool {
    static MENDED: OnceLock<bool> = OnceLock::new();
    *MENDED.get_or_init(|| std::env::var("MENDED").is_ok())
}

/// A batch's statements without what tells an owner from a former one, or a batch from the next.
pub(crate) fn fence(statement: &'static str) -> AssertSqlSafe<String> {
    let mut statement = statement.to_owned();
    if is("fence-without-epoch") {
        statement = statement.replace("p.epoch = u.epoch", "u.epoch IS NOT NULL");
    }
    if is("unknown-commit-tried-again-without-batch-number") {
        statement = statement.replace("p.batch = u.batch", "u.batch IS NOT NULL");
    }
    AssertSqlSafe(statement)
}

/// The outbox as a statement sees it that then waits for the processors' rows.
pub(crate) async fn outbox_before(
    conn: &mut PgConnection,
    partitions: &[i32],
) -> Result<Option<Vec<(i32, i64)>>, sqlx::Error> {
    if !is("epoch-bump-and-reads-in-one-statement") {
        return Ok(None);
    }
    let last = "SELECT u, (SELECT coalesce(max(batch), 0) FROM outbox WHERE partition = u) FROM unnest($1::int[]) AS u";
    sqlx::query_as(last).bind(partitions).fetch_all(conn).await.map(Some)
}

/// What came into the outbox while it waited is not seen.
pub(crate) async fn miss_outbox_behind(
    conn: &mut PgConnection,
    seen: Option<Vec<(i32, i64)>>,
) -> Result<(), sqlx::Error> {
    for (partition, batch) in seen.unwrap_or_default() {
        let miss = sqlx::query("DELETE FROM outbox WHERE partition = $1 AND batch > $2");
        miss.bind(partition).bind(batch).execute(&mut *conn).await?;
    }
    Ok(())
}

/// The positions of a batch, before and without it.
pub(crate) async fn move_positions(
    pool: &PgPool,
    places: impl Iterator<Item = (i32, Vec<(String, Place)>)>,
) -> Result<(), sqlx::Error> {
    let places: Vec<_> = places.flat_map(|(partition, all)| all.into_iter().map(move |at| (partition, at))).collect();
    for (partition, (topic, place)) in places {
        sqlx::query(
            "INSERT INTO positions (partition, topic, next_offset, last_sequence) VALUES ($1, $2, $3, $4)
             ON CONFLICT (partition, topic) DO UPDATE
             SET next_offset = EXCLUDED.next_offset, last_sequence = EXCLUDED.last_sequence",
        )
        .bind(partition)
        .bind(topic)
        .bind(place.next_offset)
        .bind(place.last_sequence)
        .execute(pool)
        .await?;
    }
    Ok(())
}

/// Sends dead letters at once, whatever becomes of the batch, and leaves the rest.
pub(crate) fn publish_beside<S: Service>(shared: &Shared<S>, records: &mut Vec<OutRecord>) {
    let (dead, rest): (Vec<_>, Vec<_>) =
        std::mem::take(records).into_iter().partition(|record| record.output == Output::Dlq);
    *records = rest;
    if dead.is_empty() {
        return;
    }
    let producer = Producer::new(&shared.kafka.publisher_config()).expect("a producer can be made");
    let topic = shared.outputs[Output::Dlq.place()].clone();
    let flights: Vec<_> = dead
        .iter()
        .map(|record| {
            let key: i64 =
                record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok()?.parse().ok()).unwrap_or(0);
            producer.send(BaseRecord {
                topic: &topic,
                partition: Some(shared.homes().of(key)),
                payload: record.value.as_deref(),
                key: record.key.as_deref(),
                timestamp: None,
                headers: Some(owned(&record.headers)),
                delivery_opaque: (),
            })
        })
        .collect();
    tokio::spawn(async move {
        for flight in flights.into_iter().flatten() {
            drop(flight.await);
        }
        drop(producer);
    });
}
