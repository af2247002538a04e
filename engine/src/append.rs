//! Appending a command: the HTTP side's way into the log.
//!
//! Done means a report with an offset (H1); anything else is unknown, and the caller repeats with the same command ID.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use events::envelope::Headers;
use rdkafka::producer::BaseRecord;
use rdkafka::types::RDKafkaErrorCode;
use tracing::warn;

use crate::breaker::Breaker;
use crate::clock;
use crate::failpoint::{self, Injected};
use crate::kafka::{INPUT_BYTES_MAX, Kafka};
use crate::producer::{Delivered, Outgoing, Producer, owned};

/// A caller waits this long for Kafka.
const TIMEOUT: Duration = Duration::from_secs(5);
const QUEUE_FULL_RETRY: Duration = Duration::from_millis(20);
/// A producer lives at least this long: while Kafka refuses everything, not every caller makes a new one.
const REPLACE_EVERY: Duration = Duration::from_millis(500);
/// Room for the record's own framing below the topic's limit.
const FRAMING_BYTES: usize = 1_024;

/// A command to append.
#[derive(Debug, Clone)]
pub struct NewRecord {
    /// Name without prefix.
    pub topic: &'static str,
    /// Decimal text of the aggregate's ID.
    pub key: String,
    /// CloudEvents headers.
    pub headers: Headers,
    /// Avro in the wire format.
    pub value: Vec<u8>,
}

/// Where it lies now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// As on the broker.
    pub topic: String,
    /// Partition number.
    pub partition: i32,
    /// Kafka's offset.
    pub offset: i64,
}

/// Why it is not known to lie anywhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// No report with an offset in time: it may or may not be in the log.
    #[error("Kafka did not confirm the command in time: {0}")]
    Unavailable(String),
    /// Larger than its topic takes.
    #[error("the command is larger than its topic takes")]
    TooLarge,
}

impl From<Injected> for AppendError {
    fn from(error: Injected) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// The producer of a process' commands.
#[derive(Clone)]
pub struct Appender {
    kafka: Arc<Kafka>,
    producer: Arc<Mutex<Current>>,
    breaker: Breaker,
}

/// The producer in use.
struct Current {
    generation: u64,
    made: Instant,
    producer: Arc<Producer>,
}

impl std::fmt::Debug for Appender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Appender").field("kafka", &self.kafka).finish_non_exhaustive()
    }
}

impl Appender {
    /// Makes the producer; no connection is needed yet.
    ///
    /// # Errors
    /// When librdkafka refuses the settings.
    pub fn new(kafka: Arc<Kafka>) -> anyhow::Result<Self> {
        let producer = Arc::new(Producer::new(&kafka.appender_config())?);
        let current = Current { generation: 0, made: clock::instant(), producer };
        let breaker = Breaker::new("kafka", "Kafka", true);
        Ok(Self { kafka, producer: Arc::new(Mutex::new(current)), breaker })
    }

    /// Tells this breaker what becomes of records. It is not asked: who appends looks at it before anything is written.
    #[must_use]
    pub fn guarded(mut self, breaker: Breaker) -> Self {
        self.breaker = breaker;
        self
    }

    /// Appends a record and waits until Kafka gave it an offset, 5 s at most.
    ///
    /// # Errors
    /// [`AppendError`]; with `Unavailable` the record may be in the log.
    pub async fn append(&self, record: NewRecord) -> Result<Appended, AppendError> {
        let header_bytes = record.headers.bytes() + 8 * record.headers.len();
        if record.value.len() + header_bytes + FRAMING_BYTES > INPUT_BYTES_MAX {
            return Err(AppendError::TooLarge);
        }
        // The record is librdkafka's before the first await, so a caller that goes away cancels nothing half-way.
        let sent = self.breaker.ask(tokio::time::timeout(TIMEOUT, self.send(&record))).await;
        let sent = sent.unwrap_or_else(|_| Err(AppendError::Unavailable("no report within 5 s".to_owned())));
        match &sent {
            Ok(_) => self.breaker.succeeded(),
            Err(AppendError::Unavailable(why)) => self.breaker.failed(why),
            Err(AppendError::TooLarge) => {}
        }
        sent
    }

    async fn send(&self, record: &NewRecord) -> Result<Appended, AppendError> {
        let topic = self.kafka.topic(record.topic);
        let headers = owned(&record.headers);
        let (generation, flight) = loop {
            let (generation, producer) = self.current();
            let outgoing: Outgoing<'_> = BaseRecord::to(&topic)
                .key(record.key.as_bytes())
                .payload(record.value.as_slice())
                .headers(headers.clone());
            match producer.send(outgoing) {
                Ok(flight) => break (generation, flight),
                Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) => {
                    tokio::time::sleep(QUEUE_FULL_RETRY).await;
                }
                Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                    return Err(AppendError::TooLarge);
                }
                Err(error) => {
                    self.replace(generation);
                    return Err(AppendError::Unavailable(error.to_string()));
                }
            }
        };
        failpoint::reach("A4").await?;
        let Some(report) = flight.await.ok().and_then(|reports| reports.into_iter().next()) else {
            return Err(AppendError::Unavailable("the producer was replaced".to_owned()));
        };
        match report {
            Ok(Delivered { partition, offset }) => Ok(Appended { topic, partition, offset }),
            Err(error) if error.code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) => Err(AppendError::TooLarge),
            Err(error) => {
                self.replace(generation);
                Err(AppendError::Unavailable(error.to_string()))
            }
        }
    }

    fn current(&self) -> (u64, Arc<Producer>) {
        let current = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        (current.generation, Arc::clone(&current.producer))
    }

    /// Drops a producer that erred, once; its other records are purged and their callers get "unknown". One that was
    /// made just now stays a little longer: every answer of it is looked at, so that costs tries, never a record.
    fn replace(&self, generation: u64) {
        let mut current = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        if current.generation != generation || current.made.elapsed() < REPLACE_EVERY {
            return;
        }
        match Producer::new(&self.kafka.appender_config()) {
            Ok(producer) => {
                let new = Current { generation: generation + 1, made: clock::instant(), producer: Arc::new(producer) };
                let old = std::mem::replace(&mut *current, new);
                drop(current);
                // Purging blocks, so not on a worker of the runtime.
                tokio::task::spawn_blocking(move || old.producer.purge());
            }
            Err(error) => warn!(%error, "no new producer can be made"),
        }
    }
}
