//! When an order was final: a reader of order.events of its own, on a thread of its own.
//!
//! The ID of an order that was POSTed may be known only after its last event arrived, so both sides are kept and joined
//! here. Only headers and keys are looked at; a repeat is passed over because its order is final already.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use engine::kafka::Kafka;
use engine::own_log::{self, Partition};
use events::order::OrderEvent;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers};
use rdkafka::{Message, Offset, TopicPartitionList};
use tokio::sync::OwnedSemaphorePermit;

const POLL: Duration = Duration::from_millis(50);

/// How an order ended, and when that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct End {
    at: Instant,
    confirmed: bool,
}

/// An order of the bench.
#[derive(Debug)]
struct Start {
    intended: Instant,
    /// Held until the order is final, so that a closed loop goes on.
    permit: Option<OwnedSemaphorePermit>,
    end: Option<End>,
}

#[derive(Debug, Default)]
struct Board {
    starts: HashMap<i64, Start>,
    /// Ends of orders whose ID is not known yet.
    early: HashMap<i64, End>,
    final_count: usize,
    failed: Option<String>,
}

/// The orders of a run, started and final.
#[derive(Debug, Clone)]
pub(crate) struct Arrivals {
    board: Arc<Mutex<Board>>,
    stop: Arc<AtomicBool>,
}

/// What became of all orders.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Latencies of confirmed orders.
    pub(crate) latencies: Vec<Duration>,
    pub(crate) first_start: Option<Instant>,
    pub(crate) last_confirmed: Option<Instant>,
    /// Ended otherwise.
    pub(crate) not_confirmed: usize,
    /// Not ended.
    pub(crate) open: usize,
}

impl Arrivals {
    /// Starts reading at the present ends; returns when the reader stands there.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub(crate) async fn follow(kafka: Arc<Kafka>) -> anyhow::Result<Self> {
        let this = Self { board: Arc::default(), stop: Arc::default() };
        let open = move || -> anyhow::Result<BaseConsumer> {
            let topic = kafka.topic(OrderEvent::TOPIC);
            let places: Vec<Partition> = (0..kafka.partitions).map(|number| (topic.clone(), number)).collect();
            let mut config = kafka.reader_config();
            // The moment of arrival is what is measured: nothing may gather.
            config.set("fetch.wait.max.ms", "100").set("fetch.min.bytes", "1");
            let consumer: BaseConsumer = config.create().context("making a reader")?;
            let mut list = TopicPartitionList::new();
            for ((topic, partition), (_, end)) in places.iter().zip(own_log::watermarks(&kafka, &places)?) {
                list.add_partition_offset(topic, *partition, Offset::Offset(end))?;
            }
            consumer.assign(&list)?;
            Ok(consumer)
        };
        let consumer = tokio::task::spawn_blocking(open).await.context("opening order.events")??;
        let reader = this.clone();
        std::thread::spawn(move || {
            if let Err(error) = reader.read(&consumer) {
                reader.lock().failed = Some(format!("{error:#}"));
            }
        });
        Ok(this)
    }

    fn read(&self, consumer: &BaseConsumer) -> anyhow::Result<()> {
        while !self.stop.load(Ordering::Acquire) {
            match consumer.poll(POLL) {
                None | Some(Err(KafkaError::PartitionEOF(_))) => {}
                Some(Err(error)) => return Err(error).context("reading order.events"),
                Some(Ok(message)) => {
                    let at = Instant::now();
                    if let Some((order, confirmed)) = end_of(&message) {
                        self.ended(order, End { at, confirmed });
                    }
                }
            }
        }
        Ok(())
    }

    /// Notes an order that was started.
    pub(crate) fn started(&self, order: i64, intended: Instant, permit: OwnedSemaphorePermit) {
        let mut board = self.lock();
        let early = board.early.remove(&order);
        let permit = early.is_none().then_some(permit);
        board.final_count += usize::from(early.is_some());
        board.starts.insert(order, Start { intended, permit, end: early });
    }

    fn ended(&self, order: i64, end: End) {
        let mut board = self.lock();
        let Some(start) = board.starts.get_mut(&order) else {
            board.early.entry(order).or_insert(end);
            return;
        };
        if start.end.is_none() {
            start.end = Some(end);
            start.permit = None;
            board.final_count += 1;
        }
    }

    /// How many orders are final.
    ///
    /// # Errors
    /// When the log can no longer be read.
    pub(crate) fn count(&self) -> anyhow::Result<usize> {
        let board = self.lock();
        match &board.failed {
            Some(why) => bail!("order.events can no longer be read: {why}"),
            None => Ok(board.final_count),
        }
    }

    /// Ends the reader and joins starts and ends.
    pub(crate) fn finish(self) -> Outcome {
        self.stop.store(true, Ordering::Release);
        let mut outcome = Outcome::default();
        for start in self.lock().starts.values() {
            outcome.first_start = Some(outcome.first_start.map_or(start.intended, |first| first.min(start.intended)));
            match start.end {
                None => outcome.open += 1,
                Some(end) if end.confirmed => {
                    outcome.latencies.push(end.at.saturating_duration_since(start.intended));
                    outcome.last_confirmed = outcome.last_confirmed.max(Some(end.at));
                }
                Some(_) => outcome.not_confirmed += 1,
            }
        }
        outcome
    }

    fn lock(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The order that this record ends, and whether by a confirmation.
fn end_of(message: &BorrowedMessage<'_>) -> Option<(i64, bool)> {
    let header = message.headers()?.iter().find(|header| header.key == events::envelope::name::TYPE)?;
    let confirmed = is_confirmation(header.value?)?;
    let order = std::str::from_utf8(message.key()?).ok()?.parse().ok()?;
    Some((order, confirmed))
}

/// `None` for a type that ends no order.
fn is_confirmation(type_name: &[u8]) -> Option<bool> {
    match type_name {
        b"orderlog.order.OrderConfirmed" => Some(true),
        b"orderlog.order.OrderCancelled" | b"orderlog.order.OrderExpired" | b"orderlog.order.OrderRejected" => {
            Some(false)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;

    async fn permit(slots: &Arc<Semaphore>) -> OwnedSemaphorePermit {
        Arc::clone(slots).acquire_owned().await.unwrap()
    }

    #[tokio::test]
    async fn starts_and_ends_are_joined_in_either_order() {
        let arrivals = Arrivals { board: Arc::default(), stop: Arc::default() };
        let slots = Arc::new(Semaphore::new(3));
        let t0 = Instant::now();
        let end = |millis, confirmed| End { at: t0 + Duration::from_millis(millis), confirmed };
        arrivals.ended(2, end(30, true));
        arrivals.ended(99, end(1, true));
        for order in [1, 2, 3] {
            arrivals.started(order, t0, permit(&slots).await);
        }
        assert_eq!(slots.available_permits(), 1, "an order that is final holds no place");
        arrivals.ended(1, end(10, true));
        arrivals.ended(1, end(50, true));
        arrivals.ended(3, end(20, false));
        assert_eq!(slots.available_permits(), 3);
        assert_eq!(arrivals.count().unwrap(), 3);
        let mut outcome = arrivals.finish();
        outcome.latencies.sort();
        assert_eq!(outcome.latencies, [Duration::from_millis(10), Duration::from_millis(30)]);
        assert_eq!((outcome.not_confirmed, outcome.open), (1, 0));
        assert_eq!(outcome.last_confirmed, Some(t0 + Duration::from_millis(30)));
        assert_eq!(outcome.first_start, Some(t0));
    }

    #[test]
    fn every_final_type_is_known() {
        assert_eq!(is_confirmation(b"orderlog.order.OrderConfirmed"), Some(true));
        assert_eq!(is_confirmation(b"orderlog.order.OrderRejected"), Some(false));
        assert_eq!(is_confirmation(b"orderlog.order.OrderPlaced"), None);
        let all = OrderEvent::TYPES.iter().filter(|name| is_confirmation(name.as_bytes()).is_some());
        assert_eq!(all.count(), 4);
    }
}
