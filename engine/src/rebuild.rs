//! Recovery of a service from its own topics: from an emptied projection, from an older database, from none (DESIGN §7).
//!
//! Offline: every instance of the service is stopped. The outbox is emptied, never sent: what is not in the log was not
//! decided (N1). An interrupted recovery leaves a mark, and no processor starts until it is run again.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use events::snowflake;
use rdkafka::consumer::{BaseConsumer, Consumer};
use sqlx::{Connection, PgConnection};

use crate::failpoint;
use crate::fold::{Fold, Folded, FoldedPartition, Progress};
use crate::intake::Place;
use crate::kafka::Kafka;
use crate::model;
use crate::own_log;
use crate::record::Output;
use crate::recovery_store;
use crate::service::{Service, TopicKind};
use crate::store;

/// The ends of the own topics must stand still this long: a killed process' request may still land (N2).
pub const SETTLE: Duration = Duration::from_secs(10);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const MARK: &str = "recovery";

/// How a recovery is going.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Waits until the group is empty and the ends stand still.
    Settling,
    /// Empties what will be filled.
    Emptying,
    /// Folds own records.
    Folding,
    /// Folds the read model.
    ReadModel,
    /// Sets positions, sequences, epochs, marks and barriers.
    Finishing,
}

/// What a recovery did.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Report {
    /// Own events folded.
    pub events: u64,
    /// Facts of the read model read.
    pub facts: u64,
    /// Strange records on own topics, passed over.
    pub strange: usize,
    /// Last event sequence per partition.
    pub sequences: std::collections::BTreeMap<i32, i64>,
}

/// Rebuilds a service's database from the log.
///
/// # Errors
/// When an instance still runs, the log has a hole, or Kafka or Postgres fails. It may be run again.
pub async fn rebuild<S: Service>(
    fold: &Fold<'_, S>,
    settle: Duration,
    stage: &(dyn Fn(Stage) + Sync),
    progress: Progress<'_>,
) -> anyhow::Result<Report> {
    stage(Stage::Settling);
    let description = fold.service.describe();
    wait_for_empty_group(fold.kafka, description.name).await?;
    let mut conn = fold.pool.acquire().await?;
    // From here on no former owner commits, and no process starts.
    let all: Vec<i32> = (0..fold.kafka.partitions).collect();
    store::bump_epochs(&mut conn, &all, "rebuild").await?;
    recovery_store::set_fact(&mut conn, MARK, "unfinished").await?;
    wait_for_still_ends(fold, settle).await?;
    stage(Stage::Emptying);
    let mut tx = conn.begin().await?;
    recovery_store::empty_all(&mut tx).await?;
    tx.commit().await?;
    drop(conn);
    stage(Stage::Folding);
    let folded = fold.run(None, progress).await?;
    stage(Stage::ReadModel);
    let facts = model::fold(fold.service, fold.kafka, fold.codec, fold.pool, |_| {}).await?;
    stage(Stage::Finishing);
    failpoint::reach("B2").await?;
    finish(fold, &folded).await?;
    Ok(Report {
        events: folded.events,
        facts,
        strange: folded.strange.len(),
        sequences: folded.partitions.iter().map(|(p, state)| (*p, state.outputs[0].sequence)).collect(),
    })
}

/// Refuses to work on a database whose recovery was interrupted.
///
/// # Errors
/// The sentence that says what to run.
pub async fn check_finished(conn: &mut PgConnection, service: &str) -> anyhow::Result<()> {
    if recovery_store::fact(conn, MARK).await?.is_some() {
        bail!("a rebuild of {service} was not finished; run `cargo orderctl rebuild {service}`");
    }
    Ok(())
}

async fn wait_for_empty_group(kafka: &Kafka, group: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + kafka.session_timeout + Duration::from_secs(5);
    loop {
        let members = group_members(kafka, group).await?;
        if members == 0 {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!(
                "{members} instance(s) of {group} are running; stop all of them first (`cargo down`, or kill them), \
                 then rebuild"
            );
        }
        // A killed instance stays a member until its session time-out.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Members of a service's consumer group, dead ones within their session time-out included.
///
/// # Errors
/// When Kafka does not answer.
pub async fn group_members(kafka: &Kafka, group: &str) -> anyhow::Result<usize> {
    let consumer: BaseConsumer = kafka.reader_config().create().context("making a client")?;
    let name = kafka.topic(group);
    let ask = move || -> anyhow::Result<usize> {
        let list = consumer.fetch_group_list(Some(&name), REQUEST_TIMEOUT).context("asking for the group")?;
        Ok(list.groups().iter().map(|group| group.members().len()).sum())
    };
    tokio::task::spawn_blocking(ask).await.context("asking for the group")?
}

async fn wait_for_still_ends<S: Service>(fold: &Fold<'_, S>, settle: Duration) -> anyhow::Result<()> {
    let mut ends = fold.ends().await?;
    let mut since = Instant::now();
    while since.elapsed() < settle {
        tokio::time::sleep(Duration::from_millis(500).min(settle)).await;
        let now = fold.ends().await?;
        if now != ends {
            ends = now;
            since = Instant::now();
        }
    }
    Ok(())
}

async fn finish<S: Service>(fold: &Fold<'_, S>, folded: &Folded) -> anyhow::Result<()> {
    let description = fold.service.describe();
    let outputs = Output::ALL.map(|output| store::output_topic(fold.kafka, &description, output));
    let barriers = command_ends(fold).await?;
    let mut all = HashMap::new();
    for (partition, state) in &folded.partitions {
        all.insert(*partition, input_places(fold, *partition, state).await?);
    }
    let mut conn = fold.pool.acquire().await?;
    let mut tx = conn.begin().await?;
    for (partition, state) in &folded.partitions {
        let mut places = all.remove(partition).unwrap_or_default();
        for ((topic, number), (low, _)) in &barriers {
            if number == partition {
                let start = Place { next_offset: *low, last_sequence: 0 };
                let place = places.entry(topic.clone()).or_insert(start);
                place.next_offset = place.next_offset.max(*low);
            }
        }
        recovery_store::restore(&mut tx, *partition, &places, &outputs, state.outputs).await?;
    }
    let partitions: Vec<i32> = folded.partitions.keys().copied().collect();
    store::bump_epochs(&mut tx, &partitions, "rebuild").await?;
    for (instance, millis) in &folded.id_marks {
        let mark = i64::try_from(*millis).context("an ID's time")? + 1 + snowflake::EPOCH_MS;
        recovery_store::raise_lease(&mut tx, description.number, *instance, mark).await?;
    }
    for ((topic, partition), (_, high)) in &barriers {
        recovery_store::save_barrier(&mut tx, topic, *partition, *high).await?;
    }
    recovery_store::clear_fact(&mut tx, MARK).await?;
    failpoint::reach("B3").await?;
    tx.commit().await?;
    Ok(())
}

/// Where a processor goes on reading. A dead letter names a strange record, which has no sequence: the last sequence
/// before it is that of a record which led to nothing, and is read from the input itself.
async fn input_places<S: Service>(
    fold: &Fold<'_, S>,
    partition: i32,
    state: &FoldedPartition,
) -> anyhow::Result<HashMap<String, Place>> {
    let mut places = state.places.clone();
    let description = fold.service.describe();
    for input in description.inputs.iter().filter(|input| input.kind == TopicKind::Events) {
        let topic = fold.kafka.topic(input.name);
        let Some(place) = places.get_mut(&topic) else { continue };
        let from = state.sequenced.get(&topic).copied().unwrap_or(0);
        let (kafka, end) = (std::sync::Arc::clone(fold.kafka), place.next_offset);
        if from < end {
            let read = move || own_log::highest_sequence(&kafka, &topic, partition, from, end);
            let highest = tokio::task::spawn_blocking(read).await.context("reading an input")??;
            place.last_sequence = place.last_sequence.max(highest);
        }
    }
    Ok(places)
}

type Ends = HashMap<own_log::Partition, (i64, i64)>;

/// Start and end of every partition of the service's commands topics.
async fn command_ends<S: Service>(fold: &Fold<'_, S>) -> anyhow::Result<Ends> {
    let description = fold.service.describe();
    let commands = description.inputs.iter().filter(|input| input.kind == TopicKind::Commands);
    let topics: Vec<String> = commands.map(|input| fold.kafka.topic(input.name)).collect();
    let all = |topic: &String| (0..fold.kafka.partitions).map(|p| (topic.clone(), p)).collect::<Vec<_>>();
    let places: Vec<own_log::Partition> = topics.iter().flat_map(all).collect();
    let kafka = std::sync::Arc::clone(fold.kafka);
    let ask = move || -> anyhow::Result<Ends> {
        let marks = own_log::watermarks(&kafka, &places)?;
        Ok(places.into_iter().zip(marks).collect())
    };
    tokio::task::spawn_blocking(ask).await.context("asking for ends")?
}
