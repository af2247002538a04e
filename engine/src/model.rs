//! Read models of a foreign topic: folds of that topic alone, brought to its end before any processor begins (N5).
//!
//! Live, processors fold the facts of their own partition as they pass; this is for a first start and a recovery.

use std::sync::Arc;

use anyhow::{Context, bail};
use events::codec::Codec;
use events::envelope;
use sqlx::{Connection, PgConnection, PgPool};
use tracing::info;

use crate::clock;
use crate::intake::{self, Place, Verdict};
use crate::kafka::Kafka;
use crate::own_log::{self, Reader};
use crate::record::Record;
use crate::service::{Description, Homes, InputTopic, Service};
use crate::shared::Shared;
use crate::store;

/// Facts folded in one transaction.
const CHUNK: usize = 2_000;

/// Folds the read model to its topic's end unless it has been folded before.
pub(crate) async fn first_start<S: Service>(shared: &Arc<Shared<S>>) -> anyhow::Result<()> {
    let Some(input) = read_model(&shared.description) else {
        return Ok(());
    };
    let mut conn = shared.pool.acquire().await?;
    if store::has_read_model(&mut conn, input.name).await? {
        return Ok(());
    }
    drop(conn);
    let started = clock::instant();
    let facts = fold(&shared.service, &shared.kafka, &shared.codec, &shared.pool, |_| {}).await?;
    info!(facts, seconds = started.elapsed().as_secs_f64(), "the read model is folded to the end of its topic");
    Ok(())
}

fn read_model(description: &Description) -> Option<InputTopic> {
    let name = description.read_model?;
    description.inputs.iter().copied().find(|input| input.name == name)
}

/// Folds all partitions of the read model's topic to their ends. Returns the number of facts.
///
/// # Errors
/// When Kafka or Postgres fails, or the topic has a hole.
pub(crate) async fn fold<S: Service>(
    service: &Arc<S>,
    kafka: &Arc<Kafka>,
    codec: &Arc<Codec>,
    pool: &PgPool,
    progress: impl Fn(u64),
) -> anyhow::Result<u64> {
    let Some(input) = read_model(&service.describe()) else {
        return Ok(0);
    };
    let topic = kafka.topic(input.name);
    let mut facts = 0;
    for partition in 0..kafka.partitions {
        let place = (topic.clone(), partition);
        let (low, high) = blocking(kafka, move |kafka| own_log::watermarks(kafka, &[place])).await?[0];
        let range = ((topic.clone(), partition), low, high);
        let mut reader = blocking(kafka, move |kafka| Reader::open(kafka, &[range])).await?;
        let mut at = Place { next_offset: low, last_sequence: 0 };
        mark(pool, input, partition, at).await?;
        loop {
            let (back, records) = chunk(reader).await?;
            reader = back;
            if records.is_empty() {
                break;
            }
            facts += records.len() as u64;
            at = apply(service, kafka, codec, pool, input, partition, at, records).await?;
            progress(facts);
        }
    }
    Ok(facts)
}

async fn blocking<T: Send + 'static>(
    kafka: &Arc<Kafka>,
    work: impl FnOnce(&Kafka) -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let kafka = Arc::clone(kafka);
    tokio::task::spawn_blocking(move || work(&kafka)).await.context("reading the log")?
}

/// The next records of a reader, read on a blocking thread; empty at the end.
pub(crate) async fn chunk(mut reader: Reader) -> anyhow::Result<(Reader, Vec<Record>)> {
    let read = move || -> anyhow::Result<(Reader, Vec<Record>)> {
        let mut records = Vec::new();
        while records.len() < CHUNK
            && let Some(record) = reader.next()?
        {
            records.push(record);
        }
        Ok((reader, records))
    };
    tokio::task::spawn_blocking(read).await.context("reading the log")?
}

#[expect(clippy::too_many_arguments, reason = "one step of one loop, split off for its length")]
async fn apply<S: Service>(
    service: &Arc<S>,
    kafka: &Kafka,
    codec: &Codec,
    pool: &PgPool,
    input: InputTopic,
    partition: i32,
    mut at: Place,
    records: Vec<Record>,
) -> anyhow::Result<Place> {
    let mut inputs = Vec::new();
    for record in records {
        if envelope::sequence(&record.headers).is_none() {
            at.next_offset = record.offset + 1;
            continue;
        }
        let (verdict, moved) = intake::judge(service.as_ref(), codec, input, kafka.partitions, at, &record);
        match verdict {
            Verdict::Input(meaning) => inputs.push(meaning.of(record).input),
            Verdict::Passed | Verdict::Repeat | Verdict::Dead(_) | Verdict::Undecodable(_) => {}
            Verdict::Stop(reason) => bail!(reason),
            Verdict::Unknown { schema, .. } => bail!("schema {schema} is not known to this build"),
        }
        at = moved;
    }
    let mut conn = pool.acquire().await?;
    let mut tx = conn.begin().await?;
    observe(service.as_ref(), &mut tx, Homes { partitions: kafka.partitions }, &inputs).await?;
    store::save_read_model(&mut tx, input.name, partition, at).await?;
    tx.commit().await?;
    Ok(at)
}

/// Remembers that the read model of this partition was folded, also when there was nothing to fold.
async fn mark(pool: &PgPool, input: InputTopic, partition: i32, at: Place) -> Result<(), sqlx::Error> {
    let mut conn = pool.acquire().await?;
    store::save_read_model(&mut conn, input.name, partition, at).await
}

async fn observe<S: Service>(
    service: &S,
    conn: &mut PgConnection,
    homes: Homes,
    facts: &[S::Input],
) -> Result<(), sqlx::Error> {
    if facts.is_empty() {
        return Ok(());
    }
    let wanted: Vec<&S::Input> = facts.iter().collect();
    let mut states = service.load(conn, &wanted, &[]).await?;
    for fact in facts {
        service.observe(&mut states, fact);
    }
    service.save(conn, homes, &states).await
}
