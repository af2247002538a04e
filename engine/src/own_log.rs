//! Reads a service's own topics: at an assignment to compare log and database, in the publisher to see what others
//! wrote, in a rebuild and a verification to fold them.
//!
//! Blocking, with consumers that join no group: call it from a blocking thread.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use events::envelope;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use crate::kafka::Kafka;
use crate::outbox::End;
use crate::record::Record;
use crate::store::OutputState;

/// A broker that answers nothing for this long is down.
const SILENCE_MAX: Duration = Duration::from_secs(30);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);
/// So many records are rather read over than looked for.
const NEAR: i64 = 2_000;

/// A topic partition as a reader names it.
pub type Partition = (String, i32);

/// Reads partitions from given offsets up to given ends, in order within each.
pub struct Reader {
    consumer: BaseConsumer,
    /// Of the topics that are read.
    names: Vec<Arc<str>>,
    /// Where each partition stands and where it ends.
    open: HashMap<(Arc<str>, i32), (i64, i64)>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("open", &self.open).finish_non_exhaustive()
    }
}

impl Reader {
    /// A reader of these ranges `[from, end)`. Empty ranges are left out.
    ///
    /// # Errors
    /// When the client cannot be made.
    pub fn open(kafka: &Kafka, ranges: &[(Partition, i64, i64)]) -> anyhow::Result<Self> {
        let consumer: BaseConsumer = kafka.reader_config().create().context("making a reader")?;
        let mut list = TopicPartitionList::new();
        let (mut names, mut open) = (Vec::<Arc<str>>::new(), HashMap::new());
        for ((topic, partition), from, end) in ranges {
            if from < end {
                list.add_partition_offset(topic, *partition, Offset::Offset(*from))?;
                let known = names.iter().find(|name| ***name == **topic).cloned();
                let name = known.unwrap_or_else(|| {
                    names.push(topic.as_str().into());
                    Arc::clone(&names[names.len() - 1])
                });
                open.insert((name, *partition), (*from, *end));
            }
        }
        consumer.assign(&list)?;
        Ok(Self { consumer, names, open })
    }

    /// The next record of any partition; `None` when all ends are reached.
    ///
    /// # Errors
    /// When a partition cannot be read, or the broker is silent for 30 s.
    #[expect(clippy::should_implement_trait, reason = "no iterator: it blocks, and its end may be an error")]
    pub fn next(&mut self) -> anyhow::Result<Option<Record>> {
        let started = Instant::now();
        while !self.open.is_empty() {
            match self.consumer.poll(POLL) {
                None if started.elapsed() > SILENCE_MAX => {
                    bail!("Kafka sent nothing for {} s", SILENCE_MAX.as_secs())
                }
                // An end of partition: markers or cut off records may lie before the watermark.
                Some(Err(KafkaError::PartitionEOF(_))) => self.drop_finished()?,
                None => {}
                Some(Err(error)) => return Err(error).context("reading the log"),
                Some(Ok(message)) => {
                    let record = Record::copy(&message, &self.names);
                    drop(message);
                    let place = (Arc::clone(&record.topic), record.partition);
                    let Some((next, end)) = self.open.get_mut(&place) else {
                        continue;
                    };
                    if record.offset >= *end {
                        self.open.remove(&place);
                        continue;
                    }
                    *next = record.offset + 1;
                    if *next >= *end {
                        self.open.remove(&place);
                    }
                    return Ok(Some(record));
                }
            }
        }
        Ok(None)
    }

    fn drop_finished(&mut self) -> anyhow::Result<()> {
        for element in self.consumer.position()?.elements() {
            let place = (element.topic().into(), element.partition());
            if let (Offset::Offset(position), Some((_, end))) = (element.offset(), self.open.get(&place))
                && position >= *end
            {
                self.open.remove(&place);
            }
        }
        Ok(())
    }
}

/// Start and end of a partition.
///
/// # Errors
/// When Kafka does not answer within 10 s.
pub fn watermarks(kafka: &Kafka, partitions: &[Partition]) -> anyhow::Result<Vec<(i64, i64)>> {
    let consumer: BaseConsumer = kafka.reader_config().create().context("making a reader")?;
    let read = |(topic, partition): &Partition| {
        consumer
            .fetch_watermarks(topic, *partition, REQUEST_TIMEOUT)
            .with_context(|| format!("asking for the ends of {topic}/{partition}"))
    };
    partitions.iter().map(read).collect()
}

/// The records of one partition in `[from, end)`.
///
/// # Errors
/// As [`Reader::next`].
pub(crate) fn read_range(
    kafka: &Kafka,
    topic: &str,
    partition: i32,
    from: i64,
    end: i64,
) -> anyhow::Result<Vec<Record>> {
    let mut reader = Reader::open(kafka, &[((topic.to_owned(), partition), from, end)])?;
    let mut records = Vec::new();
    while let Some(record) = reader.next()? {
        records.push(record);
    }
    Ok(records)
}

/// The highest sequence of an input partition in `[from, end)`; 0 where there is none.
pub(crate) fn highest_sequence(kafka: &Kafka, topic: &str, partition: i32, from: i64, end: i64) -> anyhow::Result<i64> {
    let (low, _) = watermarks(kafka, &[(topic.to_owned(), partition)])?[0];
    let mut reader = Reader::open(kafka, &[((topic.to_owned(), partition), from.max(low), end)])?;
    let mut highest = 0;
    while let Some(record) = reader.next()? {
        highest = envelope::sequence(&record.headers).unwrap_or(0).max(highest);
    }
    Ok(highest)
}

/// Own events of one partition by sequence, from these sequences and IDs in ascending order.
///
/// Every sequence takes an offset at least, so none lies before the offset that it would have without repeats and strange
/// records.
///
/// # Errors
/// As [`Reader::next`], and when one of them is not there.
pub(crate) fn find(
    kafka: &Kafka,
    topic: &str,
    partition: i32,
    wanted: &[(i64, i64)],
) -> anyhow::Result<HashMap<i64, Record>> {
    let (low, high) = watermarks(kafka, &[(topic.to_owned(), partition)])?[0];
    let mut found = HashMap::new();
    // Those that lie near each other are read in one go.
    for near in wanted.chunk_by(|one, next| next.0 - one.0 <= NEAR) {
        let mut left = near.iter().peekable();
        let from = left.peek().map_or(low, |(sequence, _)| low.max(sequence - 1));
        let mut reader = Reader::open(kafka, &[((topic.to_owned(), partition), from, high)])?;
        while let Some((sequence, id)) = left.peek().copied().copied() {
            let Some(record) = reader.next()? else {
                bail!("{topic}/{partition} does not hold event {id} under sequence {sequence}");
            };
            let said = envelope::text(&record.headers, envelope::name::ID).and_then(|text| text.parse().ok());
            if envelope::sequence(&record.headers) == Some(sequence) && said == Some(id) {
                found.insert(sequence, record);
                left.next();
            }
        }
    }
    Ok(found)
}

/// What comparing log and database gives.
#[derive(Debug)]
pub(crate) enum Comparison {
    /// They fit; the log ends here.
    Fits([End; 3]),
    /// They do not: only a rebuild helps.
    Differs(String),
}

/// Compares what the database says of the own topics with what the log holds (DESIGN §2, Assignment).
pub(crate) fn compare(
    kafka: &Kafka,
    partition: i32,
    topics: &[String; 3],
    states: [OutputState; 3],
) -> anyhow::Result<Comparison> {
    let places = topics.clone().map(|topic| (topic, partition));
    let marks = watermarks(kafka, &places)?;
    let mut ranges = Vec::new();
    for ((place, (low, high)), state) in places.iter().zip(&marks).zip(&states) {
        if state.acked_sequence > 0 && (state.acked_offset < *low || state.acked_offset >= *high) {
            let (topic, _) = place;
            return Ok(Comparison::Differs(format!(
                "{topic}/{partition} ends at offset {high}, but offset {} was acknowledged for sequence {}",
                state.acked_offset, state.acked_sequence
            )));
        }
        ranges.push((place.clone(), state.acked_offset.max(*low), *high));
    }
    let mut ends: [End; 3] = [End::default(); 3];
    for (index, end) in ends.iter_mut().enumerate() {
        *end = End { sequence: 0, offset: -1, next_offset: marks[index].1 };
    }
    let mut reader = Reader::open(kafka, &ranges)?;
    while let Some(record) = reader.next()? {
        let index = topics.iter().position(|topic| **topic == *record.topic).expect("only own topics are read");
        let sequence = envelope::sequence(&record.headers);
        let state = states[index];
        if record.offset == state.acked_offset && sequence != Some(state.acked_sequence) {
            return Ok(Comparison::Differs(format!(
                "{}/{partition} holds another record at offset {} than sequence {}",
                record.topic, record.offset, state.acked_sequence
            )));
        }
        let Some(sequence) = sequence.filter(|sequence| *sequence > ends[index].sequence) else {
            continue;
        };
        ends[index].sequence = sequence;
        ends[index].offset = record.offset;
    }
    for (index, state) in states.iter().enumerate() {
        if ends[index].sequence < state.acked_sequence {
            return Ok(Comparison::Differs(format!(
                "{}/{partition} lacks sequence {}, which was acknowledged at offset {}",
                topics[index], state.acked_sequence, state.acked_offset
            )));
        }
        if ends[index].sequence > state.sequence {
            return Ok(Comparison::Differs(format!(
                "{}/{partition} is ahead of the database: it holds sequence {}, the database decided {}",
                topics[index], ends[index].sequence, state.sequence
            )));
        }
    }
    Ok(Comparison::Fits(ends))
}

/// Says whether a stored position lies outside what its input partition holds: records were cut off, or the topic was
/// made anew.
pub(crate) fn misplaced(
    kafka: &Kafka,
    partition: i32,
    places: &HashMap<String, crate::intake::Place>,
) -> anyhow::Result<Option<String>> {
    let inputs: Vec<(Partition, i64)> =
        places.iter().map(|(topic, place)| ((topic.clone(), partition), place.next_offset)).collect();
    let names: Vec<Partition> = inputs.iter().map(|(place, _)| place.clone()).collect();
    for (((topic, _), next), (low, high)) in inputs.into_iter().zip(watermarks(kafka, &names)?) {
        if next < low {
            return Ok(Some(format!(
                "{topic}/{partition} starts at offset {low}, but the records from offset {next} on are not applied yet"
            )));
        }
        if next > high {
            return Ok(Some(format!(
                "{topic}/{partition} ends at offset {high}, but {next} is the next one to read: the topic was cut off \
                 or made anew"
            )));
        }
    }
    Ok(None)
}
