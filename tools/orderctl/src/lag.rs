//! `orderctl lag`: how far each processor is behind its input topics, in events and in seconds.
//!
//! Positions are the processors' own (`/readyz`); of a service that does not answer, the offsets that it committed to
//! Kafka for tools like this one. Seconds are the age of the oldest record that is not taken in.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use engine::clock;
use engine::kafka::Kafka;
use engine::own_log::{self, Partition, Reader};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use serde::Serialize;

use crate::output::{Output, table};
use crate::processors::{self, Seen};
use crate::services::{ServiceName, describe};
use crate::settings::Settings;

/// The source of a position that only Kafka knows.
const COMMITTED: &str = "kafka";
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// One processor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Lag {
    service: &'static str,
    partition: i32,
    /// Whose position this is: `processor`, `kafka` or `nobody`.
    source: &'static str,
    events: i64,
    /// Age of the oldest record that is not taken in; 0 when there is none.
    seconds: i64,
    /// By topic without prefix.
    topics: BTreeMap<String, i64>,
}

pub(crate) async fn run(settings: &Settings, out: Output) -> anyhow::Result<ExitCode> {
    let kafka = settings.kafka_answers().await?;
    // A stack that is gone altogether still has its log.
    let seen = processors::look(settings).await.unwrap_or_default();
    let lags = tokio::task::spawn_blocking(move || measure(&kafka, &seen)).await.context("measuring")??;
    out.show(&lags, |lags| {
        let total: i64 = lags.iter().map(|lag| lag.events).sum();
        let header = ["SERVICE", "PARTITION", "EVENTS", "SECONDS", "BEHIND ON", "POSITION OF"];
        format!("{}\n{total} events behind in all", table(header, lags.iter().map(row)))
    });
    Ok(ExitCode::SUCCESS)
}

fn row(lag: &Lag) -> [String; 6] {
    let topics = lag.topics.iter().filter(|(_, events)| **events > 0);
    let topics: Vec<String> = topics.map(|(topic, events)| format!("{topic} {events}")).collect();
    [
        lag.service.to_owned(),
        lag.partition.to_string(),
        lag.events.to_string(),
        lag.seconds.to_string(),
        topics.join(", "),
        lag.source.to_owned(),
    ]
}

fn measure(kafka: &Kafka, seen: &[Seen]) -> anyhow::Result<Vec<Lag>> {
    let mut lags = Vec::new();
    for name in ServiceName::ALL {
        let inputs: Vec<&'static str> = describe(name).inputs.iter().map(|input| input.name).collect();
        let committed = committed(kafka, name.as_str(), &inputs)?;
        for partition in 0..kafka.partitions {
            let lag = match live(seen, name.as_str(), partition) {
                Some(positions) => one(kafka, name.as_str(), partition, &inputs, "processor", &positions)?,
                None => one(kafka, name.as_str(), partition, &inputs, COMMITTED, &committed)?,
            };
            lags.push(lag);
        }
    }
    Ok(lags)
}

/// Positions that a live processor tells; `None` where no instance has it.
fn live(seen: &[Seen], service: &str, partition: i32) -> Option<BTreeMap<Partition, i64>> {
    let instances = seen.iter().filter(|one| one.service == service);
    let mut processors = instances.flat_map(|one| &one.processors);
    let processor = processors.find(|one| one.partition == partition)?;
    Some(processor.positions.iter().map(|(topic, next)| ((topic.clone(), partition), *next)).collect())
}

fn one(
    kafka: &Kafka,
    service: &'static str,
    partition: i32,
    inputs: &[&'static str],
    source: &'static str,
    known: &BTreeMap<Partition, i64>,
) -> anyhow::Result<Lag> {
    let places: Vec<Partition> = inputs.iter().map(|topic| (kafka.topic(topic), partition)).collect();
    let marks = own_log::watermarks(kafka, &places)?;
    // A processor without a position has read nothing; without a processor and a commit nobody knows.
    let source = if source == COMMITTED && known.is_empty() { "nobody" } else { source };
    let mut lag = Lag { service, partition, source, events: 0, seconds: 0, topics: BTreeMap::new() };
    for ((topic, place), (low, high)) in inputs.iter().zip(&places).zip(marks) {
        let next = known.get(place).copied().unwrap_or(low).clamp(low, high);
        lag.events += high - next;
        lag.topics.insert((*topic).to_owned(), high - next);
        if next < high {
            lag.seconds = lag.seconds.max(age_seconds(kafka, place, next)?);
        }
    }
    Ok(lag)
}

/// Age of a record by its time stamp in Kafka.
fn age_seconds(kafka: &Kafka, place: &Partition, offset: i64) -> anyhow::Result<i64> {
    let mut reader = Reader::open(kafka, &[(place.clone(), offset, offset + 1)])?;
    let at = reader.next()?.map(|record| record.timestamp.0);
    Ok(at.map_or(0, |at| ((clock::wall().0 - at) / 1_000).max(0)))
}

/// What the service committed to Kafka.
fn committed(kafka: &Kafka, service: &str, inputs: &[&'static str]) -> anyhow::Result<BTreeMap<Partition, i64>> {
    let mut config = kafka.reader_config();
    config.set("group.id", kafka.topic(service));
    let consumer: BaseConsumer = config.create().context("making a client")?;
    let mut list = TopicPartitionList::new();
    for topic in inputs {
        list.add_partition_range(&kafka.topic(topic), 0, kafka.partitions - 1);
    }
    let found = consumer.committed_offsets(list, REQUEST_TIMEOUT).context("asking for committed offsets")?;
    let offset = |element: rdkafka::topic_partition_list::TopicPartitionListElem<'_>| match element.offset() {
        Offset::Offset(offset) => Some(((element.topic().to_owned(), element.partition()), offset)),
        _ => None,
    };
    Ok(found.elements().into_iter().filter_map(offset).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processors::Processor;

    #[test]
    fn the_instance_that_has_the_processor_tells_its_positions() {
        let processor = Processor {
            partition: 3,
            state: "live".to_owned(),
            reason: None,
            epoch: 1,
            batch: 2,
            positions: BTreeMap::from([("t.order.events".to_owned(), 42)]),
            lag: 0,
            sequence: 1,
            acked_sequence: 1,
            open_effects: 0,
            held: 0,
            oldest_timer_seconds: 0,
        };
        let instance = |label: &str, processors| Seen {
            service: "notify-svc".to_owned(),
            instance: label.to_owned(),
            ready: true,
            reasons: Vec::new(),
            processors,
        };
        let seen = [instance("notify-svc", Vec::new()), instance("notify-svc-1", vec![processor])];
        let positions = live(&seen, "notify-svc", 3).unwrap();
        assert_eq!(positions, BTreeMap::from([(("t.order.events".to_owned(), 3), 42)]));
        assert_eq!(live(&seen, "notify-svc", 2), None);
        assert_eq!(live(&seen, "order-svc", 3), None);
    }
}
