//! A producer of librdkafka with a thread of its own, which hands delivery reports to whoever waits for them.
//!
//! In place of rdkafka's FutureProducer, whose thread polls 100 ms at a time and spins through the last, started
//! millisecond of each: one per cent of a core for every producer, and a service has seven. What is sent, in which order
//! and what a report means are the publisher's and the appender's.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use events::envelope::Headers;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext, PurgeConfig};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, ClientContext};
use tokio::sync::oneshot;
use tracing::{debug, error};

use crate::mutant;

/// One turn of the thread; it spins for up to a millisecond at the end of each. A dropped producer is gone after this.
const TURN: Duration = Duration::from_secs(1);

/// Where Kafka says that a record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Delivered {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
}

/// Why it is not known that Kafka has a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotDelivered {
    #[error(transparent)]
    Error(#[from] KafkaError),
    /// librdkafka says so of records that are nowhere (DESIGN §9, H1).
    #[error("delivered without an offset")]
    NoOffset,
}

impl NotDelivered {
    pub(crate) fn code(&self) -> Option<RDKafkaErrorCode> {
        match self {
            Self::Error(error) => error.rdkafka_error_code(),
            Self::NoOffset => None,
        }
    }
}

/// A report on one record.
pub(crate) type Report = Result<Delivered, NotDelivered>;

/// The reports on records that were sent together, in their order, up to the first that errs or is not there yet. Errs when
/// the producer was dropped before it knew.
pub(crate) type Flight = oneshot::Receiver<Vec<Report>>;

/// Records that were sent together: whoever waits for them is woken once, not for each.
struct Together(Mutex<Gathered>);

struct Gathered {
    /// By place.
    reports: Vec<Option<Report>>,
    missing: usize,
    /// None once it is answered.
    reply: Option<oneshot::Sender<Vec<Report>>>,
}

impl Together {
    fn new(count: usize) -> (Arc<Self>, Flight) {
        let (reply, flight) = oneshot::channel();
        let gathered = Gathered { reports: vec![None; count], missing: count, reply: Some(reply) };
        (Arc::new(Self(Mutex::new(gathered))), flight)
    }

    fn gathered(&self) -> MutexGuard<'_, Gathered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, place: usize, report: Report) {
        let mut gathered = self.gathered();
        if gathered.reply.is_none() {
            return;
        }
        let failed = report.is_err();
        gathered.reports[place] = Some(report);
        gathered.missing -= 1;
        gathered.answer(failed);
    }

    /// No more than these were taken.
    fn shorten(&self, count: usize) {
        let mut gathered = self.gathered();
        gathered.missing -= gathered.reports.len() - count;
        gathered.reports.truncate(count);
        gathered.answer(false);
    }
}

impl Gathered {
    /// Answers when all are there, or at the first that failed: what follows it may wait for ever.
    fn answer(&mut self, failed: bool) {
        if (failed || self.missing == 0)
            && let Some(reply) = self.reply.take()
        {
            let mut reports: Vec<Report> =
                std::mem::take(&mut self.reports).into_iter().map_while(|report| report).collect();
            if let Some(first) = reports.iter().position(Result::is_err) {
                reports.truncate(first + 1);
            }
            // Whoever asked may have given up.
            drop(reply.send(reports));
        }
    }
}

/// Which of them a record is.
struct Seat {
    together: Arc<Together>,
    place: usize,
}

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
    type DeliveryOpaque = Box<Seat>;

    fn delivery(&self, result: &DeliveryResult<'_>, seat: Box<Seat>) {
        let report = match result {
            Ok(message) if message.offset() < 0 && !mutant::is("report-without-offset-counts") => {
                Err(NotDelivered::NoOffset)
            }
            Ok(message) => Ok(Delivered { partition: message.partition(), offset: message.offset() }),
            Err((error, _)) => Err(error.clone().into()),
        };
        seat.together.note(seat.place, report);
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
        match self.send_all([record]) {
            (_, _, Some(error)) => Err(error),
            (flight, _, None) => Ok(flight),
        }
    }

    /// Hands records to librdkafka, until it refuses one. Returns how many it took, and why not all.
    pub(crate) fn send_all<'a>(
        &self,
        records: impl IntoIterator<Item = Outgoing<'a>, IntoIter: ExactSizeIterator>,
    ) -> (Flight, usize, Option<KafkaError>) {
        let records = records.into_iter();
        let count = records.len();
        let (together, flight) = Together::new(count);
        for (place, record) in records.enumerate() {
            let record = BaseRecord {
                topic: record.topic,
                partition: record.partition,
                payload: record.payload,
                key: record.key,
                timestamp: record.timestamp,
                headers: record.headers,
                delivery_opaque: Box::new(Seat { together: Arc::clone(&together), place }),
            };
            if let Err((error, _)) = self.producer.send(record) {
                together.shorten(place);
                return (flight, place, Some(error));
            }
        }
        (flight, count, None)
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
