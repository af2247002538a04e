//! The fold of a service's own topics into a projection: what a rebuild and a verification share.
//!
//! The readers' rule: the next sequence is taken, repeats and strange records are passed over, a hole stops. Nothing is
//! decided, published or called. Events change the projection; letters on retry and dlq say what is held and dead, and the
//! events then say what of that is through; a dead effect is through when its state asks for it no more. All of them are
//! carriers of their causes.

use std::collections::{HashMap, HashSet};
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
use crate::failpoint;
use crate::held::Row;
use crate::held_store;
use crate::intake::Place;
use crate::kafka::Kafka;
use crate::letter;
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

/// Records that letters of one partition number name: topic and offset.
#[derive(Debug, Default)]
struct Held {
    /// Not settled yet.
    open: HashSet<(String, i64)>,
    settled: HashSet<(String, i64)>,
    /// Some letter is about an effect.
    effects: bool,
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

    /// Folds everything up to the present ends, or per partition up to these sequences of the own topics.
    ///
    /// # Errors
    /// When the log has a hole or cannot be read, an event cannot be decoded, or Postgres fails.
    pub async fn run(&self, upto: Option<&HashMap<i32, [i64; 3]>>, progress: Progress<'_>) -> anyhow::Result<Folded> {
        let ends = self.ends().await?;
        let total = ends.values().map(|(low, high)| u64::try_from(high - low).unwrap_or(0)).sum();
        let mut folded = Folded::default();
        let mut done = 0;
        for partition in 0..self.kafka.partitions {
            folded.partitions.entry(partition).or_default();
            let most = upto.map_or([i64::MAX; 3], |upto| upto.get(&partition).copied().unwrap_or_default());
            let mut held = Held::default();
            // Letters first: which of their records are through is then known from the events.
            for output in [Output::Retry, Output::Dlq, Output::Events] {
                let place = (self.topics()[output.place()].clone(), partition);
                let (low, high) = ends[&place];
                if low == high {
                    continue;
                }
                let (kafka, range) = (Arc::clone(self.kafka), [(place, low, high)]);
                let open = move || Reader::open(&kafka, &range);
                let mut reader = tokio::task::spawn_blocking(open).await.context("opening the log")??;
                loop {
                    let (back, records) = model::chunk(reader).await?;
                    reader = back;
                    if records.is_empty() {
                        break;
                    }
                    done += records.len() as u64;
                    let records = next_ones(&mut folded, output, records, most[output.place()])?;
                    match output {
                        Output::Events => self.events(&mut folded, &mut held, partition, records).await?,
                        Output::Retry | Output::Dlq => self.letters(&mut held, partition, records).await?,
                    }
                    failpoint::reach("B1").await?;
                    progress(done, total);
                }
            }
            self.settle(partition, held).await?;
        }
        Ok(folded)
    }

    /// Letters of one topic, in order.
    async fn letters(&self, held: &mut Held, partition: i32, records: Vec<(i64, Record)>) -> anyhow::Result<()> {
        let mut rows = Vec::<Row>::new();
        let mut at = HashMap::new();
        for (sequence, record) in records {
            let place = || format!("{}/{partition} offset {}", record.topic, record.offset);
            let told = letter::read(&record.headers, record.key.as_ref(), record.value.as_ref());
            let told = told.with_context(|| format!("{} is no letter of this build", place()))?;
            let source = (told.record.topic.to_string(), told.record.offset);
            let effect = told.effect.clone();
            held.effects |= effect.is_some();
            let Some(row) = Row::told(told, sequence) else {
                held.open.remove(&source);
                held.settled.insert(source);
                continue;
            };
            if held.settled.contains(&source) {
                continue;
            }
            // One row per record, and the number is that of its first letter.
            match at.get(&(source.clone(), effect.clone())) {
                Some(known) => {
                    let known: &mut Row = &mut rows[*known];
                    *known = Row { number: known.number, first_at: known.first_at, ..row };
                }
                None => {
                    at.insert((source.clone(), effect.clone()), rows.len());
                    rows.push(row);
                }
            }
            if effect.is_none() {
                held.open.insert(source);
            }
        }
        let mut conn = self.pool.acquire().await?;
        let mut tx = conn.begin().await?;
        for rows in rows.chunks(self.batch_max) {
            held_store::save(&mut tx, rows).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// Forgets what is through: records that are settled, and effects that no state asks for any more.
    async fn settle(&self, partition: i32, held: Held) -> anyhow::Result<()> {
        let mut conn = self.pool.acquire().await?;
        let mut settled: Vec<_> = held.settled.into_iter().map(|(topic, offset)| (topic, offset, None)).collect();
        if held.effects {
            let asked = self.service.effects_due(&mut conn, partition).await?;
            let asked: HashSet<_> = asked.iter().map(|mark| (mark.key, mark.kind, mark.set_by.sequence)).collect();
            let topic = &self.topics()[Output::Events.place()];
            for row in held_store::dead_effects(&mut conn, partition).await? {
                if !asked.contains(&(row.key, row.effect.as_str(), row.sequence)) {
                    settled.push((topic.clone(), row.offset, Some(row.effect)));
                }
            }
        }
        held_store::settle(&mut conn, partition, &settled).await?;
        Ok(())
    }

    async fn events(
        &self,
        folded: &mut Folded,
        held: &mut Held,
        partition: i32,
        records: Vec<(i64, Record)>,
    ) -> anyhow::Result<()> {
        let mut events = Vec::with_capacity(records.len());
        for (sequence, record) in records {
            if let Some(Cause::Record(cause)) = cause_of(&record) {
                let source = (cause.topic.to_string(), cause.offset);
                if held.open.remove(&source) {
                    held.settled.insert(source);
                }
            }
            events.push(self.decode(&record, sequence)?);
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

/// Those of the records that a reader takes, with their sequences; what they say of their causes and IDs is noted.
fn next_ones(
    folded: &mut Folded,
    output: Output,
    records: Vec<Record>,
    most: i64,
) -> anyhow::Result<Vec<(i64, Record)>> {
    let mut taken = Vec::with_capacity(records.len());
    for record in records {
        let Some(sequence) = envelope::sequence(&record.headers) else {
            folded.strange.push((record.topic.to_string(), record.partition, record.offset));
            continue;
        };
        let state = folded.partitions.entry(record.partition).or_default();
        let reached = &mut state.outputs[output.place()];
        if sequence <= reached.sequence || sequence > most {
            continue;
        }
        if sequence != reached.sequence + 1 {
            bail!(
                "a hole in {}/{}: sequence {sequence} follows {} at offset {}; restore the topic first",
                record.topic,
                record.partition,
                reached.sequence,
                record.offset
            );
        }
        *reached = OutputState { sequence, acked_sequence: sequence, acked_offset: record.offset };
        note_cause(state, &record);
        note_id(&mut folded.id_marks, &record);
        taken.push((sequence, record));
    }
    Ok(taken)
}

fn cause_of(record: &Record) -> Option<Cause> {
    envelope::text(&record.headers, name::CAUSE)?.parse().ok()
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
    if let Some(Cause::Record(position)) = cause_of(record) {
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
