//! Finds strange records: records on a service's topics that no processor wrote, and commands that no service would
//! take.
//!
//! They change nothing and make no verification fail; they are listed because somebody wrote them.

use engine::kafka::Kafka;
use events::codec::Codec;
use events::envelope::{self, name};
use events::partition::partition_of;
use serde::Serialize;

use engine::own_log::Reader;
use engine::record::Record;

use crate::decoded;
use crate::log::{Start, ranges};

/// More are counted, not listed.
const LISTED_MAX: usize = 1_000;

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Strange {
    /// Name on the broker.
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) why: String,
}

/// What was found.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Found {
    /// The first thousand.
    pub(crate) records: Vec<Strange>,
    pub(crate) count: usize,
    pub(crate) records_read: u64,
}

/// Reads all these topics. `own` topics are written by processors, `commands` by HTTP.
///
/// # Errors
/// When Kafka fails.
pub(crate) fn scan(
    kafka: &Kafka,
    codec: &Codec,
    own: &[String],
    commands: &[String],
    progress: impl Fn(u64, u64),
) -> anyhow::Result<Found> {
    let topics: Vec<String> = own.iter().chain(commands).map(|topic| kafka.topic(topic)).collect();
    let commands: Vec<String> = commands.iter().map(|topic| kafka.topic(topic)).collect();
    let ranges = ranges(kafka, &topics, None, Start::Beginning)?;
    let total = ranges.iter().map(|(_, from, end)| u64::try_from(end - from).unwrap_or(0)).sum();
    let mut found = Found::default();
    let mut reader = Reader::open(kafka, &ranges)?;
    while let Some(record) = reader.next()? {
        found.records_read += 1;
        if found.records_read % 1_000 == 0 {
            progress(found.records_read, total);
        }
        let why = if commands.iter().any(|topic| **topic == *record.topic) {
            strange_command(kafka, codec, &record)
        } else {
            strange_own(&record)
        };
        if let Some(why) = why {
            found.count += 1;
            if found.records.len() < LISTED_MAX {
                let Record { topic, partition, offset, .. } = record;
                found.records.push(Strange { topic: topic.to_string(), partition, offset, why });
            }
        }
    }
    progress(found.records_read, total);
    Ok(found)
}

fn strange_own(record: &Record) -> Option<String> {
    let why = match envelope::text(&record.headers, name::SEQUENCE) {
        _ if envelope::sequence(&record.headers).is_some() => return None,
        None => "it has no ce_sequence",
        Some(_) => "its ce_sequence is not 19 digits",
    };
    Some(why.to_owned())
}

fn strange_command(kafka: &Kafka, codec: &Codec, record: &Record) -> Option<String> {
    let Some(value) = &record.value else {
        return Some("its value is null".to_owned());
    };
    let decoded = match decoded::value(codec, value) {
        Ok(decoded) => decoded,
        Err(error) => return Some(error.to_string()),
    };
    if kafka.topic(decoded.topic) != *record.topic {
        return Some(format!("{} does not belong on this topic", decoded.type_name));
    }
    let key = record.key.as_deref().unwrap_or_default();
    let subject = decoded.data["order_id"].as_str().or(decoded.data["product_id"].as_str()).unwrap_or_default();
    if key != subject.as_bytes() {
        return Some(format!("its key is not {subject}, whom it is about"));
    }
    let right = partition_of(key, kafka.partitions);
    (right != record.partition).then(|| format!("its key belongs on partition {right}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use events::id::{CommandId, OrderId};
    use events::order::{CancelOrder, OrderCommand};
    use events::time::Timestamp;

    use events::envelope::Headers;

    use super::*;

    fn kafka() -> Kafka {
        Kafka {
            bootstrap: "127.0.0.1:1".to_owned(),
            topic_prefix: "t.".to_owned(),
            partitions: 6,
            session_timeout: Duration::from_secs(6),
        }
    }

    fn record(topic: &str, partition: i32, key: &str, value: Option<Vec<u8>>) -> Record {
        Record {
            topic: format!("t.{topic}").into(),
            partition,
            offset: 0,
            timestamp: Timestamp(0),
            key: Some(key.as_bytes().to_vec()),
            value,
            headers: Headers::default(),
        }
    }

    #[test]
    fn an_own_record_needs_a_sequence() {
        let mut own = record("order-svc.dlq", 0, "1", None);
        assert_eq!(strange_own(&own).as_deref(), Some("it has no ce_sequence"));
        own.headers.put(name::SEQUENCE, 7);
        assert_eq!(strange_own(&own).as_deref(), Some("its ce_sequence is not 19 digits"));
        own.headers = Headers::from_iter([(name::SEQUENCE, "0000000000000000007")]);
        assert_eq!(strange_own(&own), None);
    }

    #[test]
    fn a_command_needs_its_own_key_topic_and_partition() {
        let codec = Codec::numbered();
        let command = CancelOrder {
            order_id: OrderId(7),
            reason: events::code::CustomerReason::Other,
            expected_version: None,
            command_id: CommandId(8),
            caller: None,
            key_hash: None,
            fingerprint: None,
        };
        let value = OrderCommand::from(command).encode(&codec).unwrap();
        let right = partition_of(b"7", 6);
        let why = |record| strange_command(&kafka(), &codec, &record);
        assert_eq!(why(record("order.commands", right, "7", Some(value.clone()))), None);
        assert!(why(record("order.commands", right, "8", Some(value.clone()))).unwrap().contains("not 7"));
        let wrong = (right + 1) % 6;
        assert!(why(record("order.commands", wrong, "7", Some(value.clone()))).unwrap().contains("partition"));
        assert!(why(record("payment.commands", right, "7", Some(value))).unwrap().contains("does not belong"));
        assert!(why(record("order.commands", right, "7", None)).is_some());
        assert!(why(record("order.commands", right, "7", Some(b"x".to_vec()))).is_some());
    }
}
