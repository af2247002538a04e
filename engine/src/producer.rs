//! A producer of librdkafka with a thread of its own, which hands delivery reports to whoever waits for them.
//!
//! In place of rdkafka's FutureProducer, whose thread polls 100 ms at a time and spins through the last, started
//! millisecond of each: one per cent of a core for every producer, and a service has seven. What is sent, in which order
//! and what a report means are the publisher's and the appender's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use events::envelope::Headers;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext, PurgeConfig};
use rdkafka::{ClientConfig, ClientContext};
use tokio::sync::oneshot;
use tracing::{debug, error};

/// One turn of the thread; it spins for up to a millisecond at the end of each. A dropped producer is gone after this.
const TURN: Duration = Duration::from_secs(1);

/// Where Kafka says that a record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Delivered {
    pub(crate) partition: i32,
    /// Negative in a report that is none (DESIGN §9, H1).
    pub(crate) offset: i64,
}

/// Errs when the producer was dropped before it knew.
pub(crate) type Flight = oneshot::Receiver<Result<Delivered, KafkaError>>;

type Reply = Box<oneshot::Sender<Result<Delivered, KafkaError>>>;

/// A record to send; a partition is given, or follows from the key.
pub(crate) type Outgoing<'a> = BaseRecord<'a, [u8], [u8], ()>;

/// Headers in librdkafka's form.
pub(crate) fn owned(headers: &Headers) -> OwnedHeaders {
    headers.iter().fold(OwnedHeaders::new_with_capacity(headers.len()), |owned, (key, value)| {
        owned.insert(Header { key, value: Some(value) })
    })
}

struct Reports;

impl ClientContext for Reports {
    /// Its warnings are about settings that are meant; what cannot be done is an error.
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                error!(facility, message, "librdkafka");
            }
            RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
                debug!(facility, message, "librdkafka");
            }
        }
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Reply;

    fn delivery(&self, result: &DeliveryResult<'_>, reply: Reply) {
        let report = match result {
            Ok(message) => Ok(Delivered { partition: message.partition(), offset: message.offset() }),
            Err((error, _)) => Err(error.clone()),
        };
        // Whoever asked may have given up.
        drop(reply.send(report));
    }
}

/// A producer; dropping it ends its thread, which then purges what is not acknowledged.
pub(crate) struct Producer {
    producer: Arc<BaseProducer<Reports>>,
    dropped: Arc<AtomicBool>,
}

impl Producer {
    /// Makes the producer; no connection is needed yet.
    pub(crate) fn new(config: &ClientConfig) -> anyhow::Result<Self> {
        let producer = Arc::new(BaseProducer::from_config_and_context(config, Reports)?);
        let dropped = Arc::new(AtomicBool::new(false));
        let (served, ended) = (Arc::clone(&producer), Arc::clone(&dropped));
        let serve = move || {
            while !ended.load(Ordering::Acquire) {
                served.poll(TURN);
            }
        };
        std::thread::Builder::new().name("reports".to_owned()).spawn(serve).context("starting a producer's thread")?;
        Ok(Self { producer, dropped })
    }

    /// Hands a record to librdkafka.
    pub(crate) fn send(&self, record: Outgoing<'_>) -> Result<Flight, KafkaError> {
        let (reply, flight) = oneshot::channel();
        let record = BaseRecord {
            topic: record.topic,
            partition: record.partition,
            payload: record.payload,
            key: record.key,
            timestamp: record.timestamp,
            headers: record.headers,
            delivery_opaque: Box::new(reply),
        };
        self.producer.send(record).map(|()| flight).map_err(|(error, _)| error)
    }

    /// Forgets everything that is not acknowledged; blocks for a moment.
    pub(crate) fn purge(&self) {
        self.producer.purge(PurgeConfig::default().queue().inflight());
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.dropped.store(true, Ordering::Release);
    }
}
