//! The fold of a service's own topics into a projection: what a rebuild and a verification share.
//!
//! The readers' rule: the next sequence is taken, repeats and strange records are passed over, a hole stops. Nothing is
//! decided, published or called. Only events change the projection; retry and dlq records are carriers of their causes.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context, bail};
use events::codec::Codec;
use events::envelope::{self, Cause, name};
use events::id::EventId;
use events::record::Recorded;
use events::snowflake;
use events::time::Timestamp;
use sqlx::{Connection, PgConnection, PgPool};

use crate::batch_store::{self, TakenCommand};
use crate::intake::Place;
use crate::kafka::Kafka;
use crate::model;
use crate::own_log::{self, Partition, Reader};
use crate::record::{Output, Record};
use crate::service::{Homes, Service};
use crate::store::{self, OutputState};

/// What a fold reads from and writes to.
#[derive(Debug)]
pub struct Fold<'a, S> {
    /// The service whose events are folded.
    pub service: &'a Arc<S>,
    /// Where the topics are.
    pub kafka: &'a Arc<Kafka>,
    /// With the IDs of every schema in the log.
    pub codec: &'a Arc<Codec>,
    /// Its `search_path` names the schemas that are filled.
    pub pool: &'a PgPool,
    /// Events per transaction.
    pub batch_max: usize,
}

/// Progress of long work: records done, of how many.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) + Sync);

/// What the log said about one partition number.
#[derive(Debug, Clone, Default)]
pub struct FoldedPartition {
    /// Last sequence and its offset, per own topic in the order of [`Output::ALL`].
    pub outputs: [OutputState; 3],
    /// Behind the highest cause, per input topic on the broker.
    pub places: HashMap<String, Place>,
    /// Behind the highest cause that has a sequence. Between the two lie records whose sequences nothing names.
    pub sequenced: HashMap<String, i64>,
}

/// What the log said.
#[derive(Debug, Default)]
pub struct Folded {
    /// By partition number.
    pub partitions: HashMap<i32, FoldedPartition>,
    /// Highest time of an ID, in milliseconds since the IDs' epoch, per instance number of this service.
    pub id_marks: HashMap<u8, u64>,
    /// Own events folded.
    pub events: u64,
    /// Records without a valid sequence: topic, partition, offset.
    pub strange: Vec<(String, i32, i64)>,
}

impl<S: Service> Fold<'_, S> {
    fn topics(&self) -> [String; 3] {
        let description = self.service.describe();
        Output::ALL.map(|output| store::output_topic(self.kafka, &description, output))
    }

    fn places(&self) -> Vec<Partition> {
        let all = |topic: &String| (0..self.kafka.partitions).map(|p| (topic.clone(), p)).collect::<Vec<_>>();
        self.topics().iter().flat_map(all).collect()
    }

    /// The ends of all own partitions.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub async fn ends(&self) -> anyhow::Result<HashMap<Partition, (i64, i64)>> {
        let (kafka, places) = (Arc::clone(self.kafka), self.places());
        let ask = move || -> anyhow::Result<_> {
            let marks = own_log::watermarks(&kafka, &places)?;
            Ok(places.into_iter().zip(marks).collect())
        };
        tokio::task::spawn_blocking(ask).await.context("asking for ends")?
    }

    /// Folds everything up to the present ends, or per partition up to these sequences of the events topic.
    ///
    /// # Errors
    /// When the log has a hole or cannot be read, an event cannot be decoded, or Postgres fails.
    pub async fn run(&self, upto: Option<&HashMap<i32, i64>>, progress: Progress<'_>) -> anyhow::Result<Folded> {
        let ends = self.ends().await?;
        let total = ends.values().map(|(low, high)| u64::try_from(high - low).unwrap_or(0)).sum();
        let mut folded = Folded::default();
        let mut done = 0;
        for partition in 0..self.kafka.partitions {
            folded.partitions.entry(partition).or_default();
            let own = ends.iter().filter(|((_, number), _)| *number == partition);
            let ranges: Vec<_> = own.map(|(place, (low, high))| (place.clone(), *low, *high)).collect();
            let kafka = Arc::clone(self.kafka);
            let open = move || Reader::open(&kafka, &ranges);
            let mut reader = tokio::task::spawn_blocking(open).await.context("opening the log")??;
            loop {
                let (back, records) = model::chunk(reader).await?;
                reader = back;
                if records.is_empty() {
                    break;
                }
                done += records.len() as u64;
                let most = upto.map_or(i64::MAX, |upto| upto.get(&partition).copied().unwrap_or(0));
                self.take(&mut folded, partition, records, most).await?;
                progress(done, total);
            }
        }
        Ok(folded)
    }

    async fn take(&self, folded: &mut Folded, partition: i32, records: Vec<Record>, most: i64) -> anyhow::Result<()> {
        let topics = self.topics();
        let mut events = Vec::new();
        for record in records {
            let index = topics.iter().position(|topic| **topic == *record.topic).context("a foreign topic")?;
            let Some(sequence) = envelope::sequence(&record.headers) else {
                folded.strange.push((record.topic.to_string(), record.partition, record.offset));
                continue;
            };
            let state = folded.partitions.entry(partition).or_default();
            let output = &mut state.outputs[index];
            if sequence <= output.sequence || (index == 0 && sequence > most) {
                continue;
            }
            if sequence != output.sequence + 1 {
                bail!(
                    "a hole in {}/{partition}: sequence {sequence} follows {} at offset {}; restore the topic first",
                    record.topic,
                    output.sequence,
                    record.offset
                );
            }
            *output = OutputState { sequence, acked_sequence: sequence, acked_offset: record.offset };
            note_cause(state, &record);
            note_id(&mut folded.id_marks, &record);
            if index == 0 {
                events.push(self.decode(&record, sequence)?);
            }
        }
        folded.events += events.len() as u64;
        let mut rest = events;
        while !rest.is_empty() {
            let tail = rest.split_off(rest.len().min(self.batch_max));
            self.apply(partition, rest).await?;
            rest = tail;
        }
        Ok(())
    }

    fn decode(&self, record: &Record, sequence: i64) -> anyhow::Result<Recorded<S::Event>> {
        let at = || format!("{}/{} offset {}", record.topic, record.partition, record.offset);
        let value = record.value.as_deref().with_context(|| format!("{} has no value", at()))?;
        let event = self.service.decode_own(self.codec, value).with_context(at)?;
        let (said, found) = (envelope::text(&record.headers, name::TYPE), self.service.about(&event).type_name);
        if said != Some(found) {
            bail!("{} says that it is a {}, but holds a {found}", at(), said.unwrap_or("nothing"));
        }
        let text = |name| envelope::text(&record.headers, name);
        let id = text(name::ID).and_then(|id| id.parse().ok()).with_context(|| format!("{} has no ce_id", at()))?;
        let time = text(name::TIME).and_then(|time| Timestamp::parse(time).ok());
        let time = time.with_context(|| format!("{} has no ce_time", at()))?;
        Ok(Recorded { event, id: EventId(id), sequence, at: time })
    }

    /// One transaction of the fold: load, evolve, save.
    async fn apply(&self, partition: i32, events: Vec<Recorded<S::Event>>) -> anyhow::Result<()> {
        let mut conn = self.pool.acquire().await?;
        let mut tx = conn.begin().await?;
        let homes = Homes { partitions: self.kafka.partitions };
        evolve(self.service.as_ref(), &mut tx, (homes, partition), &events).await?;
        tx.commit().await?;
        Ok(())
    }
}

async fn evolve<S: Service>(
    service: &S,
    conn: &mut PgConnection,
    (homes, partition): (Homes, i32),
    events: &[Recorded<S::Event>],
) -> Result<(), sqlx::Error> {
    let wanted: Vec<&S::Event> = events.iter().map(|recorded| &recorded.event).collect();
    let mut states = service.load(conn, &[], &wanted).await?;
    let mut taken = Vec::new();
    for recorded in events {
        let about = service.about(&recorded.event);
        if let Some(command) = about.command {
            taken.push(TakenCommand {
                command,
                partition,
                sequence: recorded.sequence,
                outcome: about.refused,
                event_type: about.type_name,
                subject: about.key,
                at: recorded.at,
            });
        }
        service.evolve(&mut states, recorded);
    }
    service.save(conn, homes, &states).await?;
    batch_store::save_commands(conn, &taken).await
}

/// A record is applied, refused or dead: whichever own record names it as its cause, it is not read again.
fn note_cause(state: &mut FoldedPartition, record: &Record) {
    let cause = envelope::text(&record.headers, name::CAUSE).and_then(|text| text.parse().ok());
    if let Some(Cause::Record(position)) = cause {
        if let Some(sequence) = position.sequence {
            let behind = state.sequenced.entry(position.topic.to_string()).or_insert(0);
            *behind = (*behind).max(position.offset + 1);
            move_place(&mut state.places, position.topic.to_string(), position.offset, sequence);
        } else {
            move_place(&mut state.places, position.topic.to_string(), position.offset, 0);
        }
    }
}

fn move_place(places: &mut HashMap<String, Place>, topic: String, offset: i64, sequence: i64) {
    let place = places.entry(topic).or_insert(Place { next_offset: 0, last_sequence: 0 });
    place.next_offset = place.next_offset.max(offset + 1);
    place.last_sequence = place.last_sequence.max(sequence);
}

fn note_id(marks: &mut HashMap<u8, u64>, record: &Record) {
    let id = envelope::text(&record.headers, name::ID).and_then(|text| text.parse().ok());
    if let Some(parts) = id.and_then(snowflake::unpack) {
        let mark = marks.entry(parts.instance).or_insert(parts.millis);
        *mark = (*mark).max(parts.millis);
    }
}

#[cfg(test)]
mod tests {
    use events::envelope::Headers;

    use super::*;

    fn record(cause: &str, id: i64) -> Record {
        Record {
            topic: "order.events".into(),
            partition: 0,
            offset: 0,
            timestamp: Timestamp(0),
            key: None,
            value: None,
            headers: Headers::from_iter([(name::CAUSE, cause), (name::ID, &id.to_string())]),
        }
    }

    #[test]
    fn the_position_lies_behind_the_highest_cause() {
        let mut state = FoldedPartition::default();
        for cause in ["a/0/5/3", "a/0/9/4", "a/0/12/", "b/0/0/", "timer"] {
            note_cause(&mut state, &record(cause, 1));
        }
        assert_eq!(state.places["a"], Place { next_offset: 13, last_sequence: 4 });
        assert_eq!(state.places["b"], Place { next_offset: 1, last_sequence: 0 });
        assert_eq!(state.sequenced, HashMap::from([("a".to_owned(), 10)]));
    }

    #[test]
    fn id_marks_are_the_highest_times() {
        let id =
            |millis, instance| snowflake::pack(snowflake::Parts { millis, service: 1, instance, sequence: 0 }).unwrap();
        let mut marks = HashMap::new();
        for id in [id(5, 0), id(9, 0), id(7, 1)] {
            note_id(&mut marks, &record("timer", id));
        }
        assert_eq!(marks, HashMap::from([(0, 9), (1, 7)]));
    }
}
