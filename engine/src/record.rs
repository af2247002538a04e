//! A record as it was read from Kafka, owned; and a record that is about to be written.
//!
//! Nothing is decoded here. A header without a value is read as an empty one.

use std::sync::Arc;

use events::envelope::Headers;
use events::headers::USUAL_BYTES;
use events::time::Timestamp;
use rdkafka::Message;
use rdkafka::message::{BorrowedMessage, Headers as _};
use serde::{Deserialize, Serialize};

/// A record of an input topic or of an own one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Name on the broker, prefix included.
    pub topic: Arc<str>,
    /// Partition number.
    pub partition: i32,
    /// Kafka's offset.
    pub offset: i64,
    /// Kafka's time stamp; 0 when it has none.
    pub timestamp: Timestamp,
    /// The key, if it has one.
    pub key: Option<Vec<u8>>,
    /// The value, if it is not null.
    pub value: Option<Vec<u8>>,
    /// All headers, in order.
    pub headers: Headers,
}

impl Record {
    /// Copies a message out of librdkafka's memory. A topic among `names` shares its name.
    #[must_use]
    pub fn copy(message: &BorrowedMessage<'_>, names: &[Arc<str>]) -> Self {
        let mut headers = Headers::default();
        if let Some(theirs) = message.headers() {
            headers = Headers::with_capacity(theirs.count(), USUAL_BYTES);
            for header in theirs.iter() {
                headers.push(header.key, header.value.unwrap_or_default());
            }
        }
        let topic = message.topic();
        let known = names.iter().find(|name| &***name == topic);
        Self {
            topic: known.map_or_else(|| topic.into(), Arc::clone),
            partition: message.partition(),
            offset: message.offset(),
            timestamp: Timestamp(message.timestamp().to_millis().unwrap_or(0)),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers,
        }
    }

    /// Bytes it keeps in memory, roughly.
    pub(crate) fn bytes(&self) -> usize {
        let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        length(&self.key) + length(&self.value) + self.headers.bytes().max(USUAL_BYTES) + 8 * self.headers.len() + 192
    }
}

/// Which of a service's own topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Output {
    /// `<word>.events`
    Events,
    /// `<crate>.retry`
    Retry,
    /// `<crate>.dlq`
    Dlq,
}

impl Output {
    /// All of them, in a fixed order.
    pub const ALL: [Self; 3] = [Self::Events, Self::Retry, Self::Dlq];

    /// Its place in [`Self::ALL`].
    pub(crate) fn place(self) -> usize {
        match self {
            Self::Events => 0,
            Self::Retry => 1,
            Self::Dlq => 2,
        }
    }

    /// The topic's name without prefix.
    #[must_use]
    pub fn topic(self, service: &crate::service::Description) -> String {
        match self {
            Self::Events => service.events_topic.to_owned(),
            Self::Retry => format!("{}.retry", service.name),
            Self::Dlq => format!("{}.dlq", service.name),
        }
    }
}

/// A record that a batch decided to write. Its outbox row keeps it until Kafka has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutRecord {
    /// Where it goes.
    pub output: Output,
    /// Its `ce_sequence` there.
    pub sequence: i64,
    /// The key.
    #[serde(with = "serde_bytes")]
    pub key: Option<Vec<u8>>,
    /// The value; null only for a dead letter whose original was null.
    #[serde(with = "serde_bytes")]
    pub value: Option<Vec<u8>>,
    /// All headers.
    pub headers: Headers,
}

impl OutRecord {
    /// Bytes it takes in a request to Kafka, at most.
    pub(crate) fn bytes(&self) -> usize {
        let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        length(&self.key) + length(&self.value) + self.headers.bytes() + 10 * self.headers.len() + 32
    }

    /// `ce_id`, by which two records under one sequence are told apart.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        events::envelope::text(&self.headers, events::envelope::name::ID)
    }
}

/// The bytes of an outbox row.
pub(crate) fn pack(records: &[OutRecord]) -> Vec<u8> {
    postcard::to_stdvec(records).expect("plain structs in memory always serialise")
}

/// The records of an outbox row.
///
/// # Errors
/// When another build wrote another format: outboxes are emptied by a full stop before such an upgrade.
pub(crate) fn unpack(bytes: &[u8]) -> Result<Vec<OutRecord>, postcard::Error> {
    postcard::from_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outbox_row_reads_back() {
        let record = OutRecord {
            output: Output::Dlq,
            sequence: 7,
            key: Some(b"1".to_vec()),
            value: None,
            headers: Headers::from_iter([("ce_id", "42")]),
        };
        let row = vec![record.clone(), OutRecord { output: Output::Events, value: Some(vec![0; 300]), ..record }];
        assert_eq!(unpack(&pack(&row)).unwrap(), row);
        assert_eq!(row[0].id(), Some("42"));
    }
}
