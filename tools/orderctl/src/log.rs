//! Reads topics for people: finite, merged by time over the partitions, or following their ends.
//!
//! No group is joined and nothing is committed. Blocking: call it from a blocking thread.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use anyhow::Context;
use engine::kafka::Kafka;
use engine::own_log::{self, Partition, Reader};
use engine::record::Record;
use events::time::Timestamp;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Where reading starts in every partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    Beginning,
    /// At this offset; where it does not exist any more, at the first one that does.
    Offset(i64),
    /// At the first record whose time stamp is not before this.
    Time(Timestamp),
    End,
}

/// A part of a partition: `[from, end)`.
pub(crate) type Range = (Partition, i64, i64);

/// The ranges from `start` to the present ends of these topics (names on the broker).
///
/// # Errors
/// When Kafka does not answer, or a topic does not exist.
pub(crate) fn ranges(
    kafka: &Kafka,
    topics: &[String],
    partition: Option<i32>,
    start: Start,
) -> anyhow::Result<Vec<Range>> {
    let numbers: Vec<i32> = partition.map_or_else(|| (0..kafka.partitions).collect(), |one| vec![one]);
    let places: Vec<Partition> =
        topics.iter().flat_map(|topic| numbers.iter().map(|number| (topic.clone(), *number))).collect();
    let marks = own_log::watermarks(kafka, &places)?;
    let timed = match start {
        Start::Time(time) => offsets_at(kafka, &places, time)?,
        _ => BTreeMap::new(),
    };
    let range = |(place, (low, high)): (Partition, (i64, i64))| {
        let from = match start {
            Start::Beginning => low,
            Start::Offset(offset) => offset.clamp(low, high),
            Start::Time(_) => timed.get(&place).copied().unwrap_or(high),
            Start::End => high,
        };
        (place, from, high)
    };
    Ok(places.into_iter().zip(marks).map(range).collect())
}

fn offsets_at(kafka: &Kafka, places: &[Partition], time: Timestamp) -> anyhow::Result<BTreeMap<Partition, i64>> {
    let consumer: BaseConsumer = kafka.reader_config().create().context("making a reader")?;
    let mut list = TopicPartitionList::new();
    for (topic, partition) in places {
        list.add_partition_offset(topic, *partition, Offset::Offset(time.0.max(0)))?;
    }
    let found = consumer.offsets_for_times(list, REQUEST_TIMEOUT).context("asking for the offsets at that time")?;
    let offset = |element: rdkafka::topic_partition_list::TopicPartitionListElem<'_>| match element.offset() {
        Offset::Offset(offset) => Some(((element.topic().to_owned(), element.partition()), offset)),
        _ => None,
    };
    Ok(found.elements().into_iter().filter_map(offset).collect())
}

/// Records of ranges in the order of their time stamps; within a partition in the order of their offsets.
#[derive(Debug)]
pub(crate) struct Merged {
    reader: Reader,
    /// By partition: what was read and not yet given, and whether more will come.
    queues: BTreeMap<Partition, (VecDeque<Record>, bool)>,
    ends: BTreeMap<Partition, i64>,
}

impl Merged {
    pub(crate) fn open(kafka: &Kafka, ranges: &[Range]) -> anyhow::Result<Self> {
        let filled = ranges.iter().filter(|(_, from, end)| from < end);
        let ends: BTreeMap<Partition, i64> = filled.map(|(place, _, end)| (place.clone(), *end)).collect();
        let queues = ends.keys().map(|place| (place.clone(), (VecDeque::new(), true))).collect();
        Ok(Self { reader: Reader::open(kafka, ranges)?, queues, ends })
    }

    /// The next record; `None` when all ends are reached.
    ///
    /// # Errors
    /// When a partition cannot be read, or the broker is silent for 30 s.
    pub(crate) fn next(&mut self) -> anyhow::Result<Option<Record>> {
        while self.queues.values().any(|(queue, open)| *open && queue.is_empty()) {
            let Some(record) = self.reader.next()? else {
                self.queues.values_mut().for_each(|(_, open)| *open = false);
                break;
            };
            let place = (record.topic.to_string(), record.partition);
            let last = self.ends.get(&place).is_some_and(|end| record.offset + 1 >= *end);
            if let Some((queue, open)) = self.queues.get_mut(&place) {
                *open = !last;
                queue.push_back(record);
            }
        }
        Ok(pop_earliest(&mut self.queues))
    }
}

fn pop_earliest(queues: &mut BTreeMap<Partition, (VecDeque<Record>, bool)>) -> Option<Record> {
    let heads = queues.iter().filter_map(|(place, (queue, _))| Some((queue.front()?.timestamp, place.clone())));
    let (_, place) = heads.min()?;
    queues.get_mut(&place)?.0.pop_front()
}

/// Follows partitions beyond their ends.
pub(crate) struct Follower(BaseConsumer);

impl Follower {
    /// A follower that begins at these offsets.
    pub(crate) fn open(kafka: &Kafka, starts: impl IntoIterator<Item = (Partition, i64)>) -> anyhow::Result<Self> {
        let consumer: BaseConsumer = kafka.reader_config().create().context("making a reader")?;
        let mut list = TopicPartitionList::new();
        for ((topic, partition), offset) in starts {
            list.add_partition_offset(&topic, partition, Offset::Offset(offset))?;
        }
        consumer.assign(&list)?;
        Ok(Self(consumer))
    }

    /// The next record, if one comes within `wait`. An outage of the broker is waited out.
    ///
    /// # Errors
    /// When a partition cannot be read any more, such as a topic that was cut off.
    pub(crate) fn poll(&self, wait: Duration) -> anyhow::Result<Option<Record>> {
        match self.0.poll(wait) {
            None | Some(Err(KafkaError::PartitionEOF(_))) => Ok(None),
            Some(Ok(message)) => Ok(Some(Record::copy(&message, &[]))),
            Some(Err(error)) if is_outage(&error) => Ok(None),
            Some(Err(error)) => Err(error).context("reading the log"),
        }
    }
}

fn is_outage(error: &KafkaError) -> bool {
    use rdkafka::types::RDKafkaErrorCode as Code;
    let code = error.rdkafka_error_code();
    matches!(code, Some(Code::AllBrokersDown | Code::BrokerTransportFailure | Code::OperationTimedOut | Code::Resolve))
}

#[cfg(test)]
mod tests {
    use events::envelope::Headers;

    use super::*;

    fn record(partition: i32, at: i64) -> Record {
        Record {
            topic: "t".into(),
            partition,
            offset: at,
            timestamp: Timestamp(at),
            key: None,
            value: None,
            headers: Headers::default(),
        }
    }

    #[test]
    fn partitions_are_merged_by_time_and_keep_their_own_order() {
        let place = |number| ("t".to_owned(), number);
        let mut queues = BTreeMap::from([
            (place(0), (VecDeque::from([record(0, 5), record(0, 4), record(0, 9)]), false)),
            (place(1), (VecDeque::from([record(1, 1), record(1, 7)]), false)),
        ]);
        let taken: Vec<i64> = std::iter::from_fn(|| pop_earliest(&mut queues)).map(|record| record.offset).collect();
        assert_eq!(taken, [1, 5, 4, 7, 9]);
    }
}
