//! What became of orders and receipts, read from the log itself: the one place that also knows while services are down.
//!
//! The readers' rule holds: a record without a valid sequence or with one that was seen is passed over. Nothing is kept
//! on disk; each import reads the two topics from their start.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::bail;
use engine::kafka::Kafka;
use engine::own_log::Partition;
use engine::record::Record;
use events::codec::Codec;
use events::envelope;
use events::inventory::InventoryEvent;
use events::order::OrderEvent;

use crate::log::{Follower, Start, ranges};

const POLL: Duration = Duration::from_millis(100);

/// Where an order stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Placed,
    Confirmed,
    Cancelled(String),
    Rejected(String),
    Expired,
}

#[derive(Debug, Default)]
struct Board {
    orders: HashMap<i64, Outcome>,
    /// Pieces received by product, over all time.
    received: HashMap<i64, i64>,
    sequences: HashMap<Partition, i64>,
    /// When something was last learnt.
    moved: Option<Instant>,
    failed: Option<String>,
    caught_up: bool,
}

/// A reader of order.events and inventory.events that runs until it is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Outcomes(Arc<Mutex<Board>>);

impl Outcomes {
    /// Starts reading on a thread of its own.
    pub(crate) fn follow(kafka: Kafka, codec: Codec) -> Self {
        let board = Arc::new(Mutex::new(Board::default()));
        let weak = Arc::downgrade(&board);
        std::thread::spawn(move || {
            let work = || -> anyhow::Result<()> {
                let topics = [kafka.topic(OrderEvent::TOPIC), kafka.topic(InventoryEvent::TOPIC)];
                let starts = ranges(&kafka, &topics, None, Start::Beginning)?;
                let follower = Follower::open(&kafka, starts.iter().map(|(place, from, _)| (place.clone(), *from)))?;
                // What the log held when reading began.
                let mut behind: HashMap<Partition, i64> = starts
                    .into_iter()
                    .filter(|(_, from, end)| from < end)
                    .map(|(place, _, end)| (place, end))
                    .collect();
                while let Some(board) = weak.upgrade() {
                    let record = follower.poll(POLL)?;
                    let mut board = lock(&board);
                    if let Some(record) = record {
                        let place = (record.topic.to_string(), record.partition);
                        if behind.get(&place).is_some_and(|end| record.offset + 1 >= *end) {
                            behind.remove(&place);
                        }
                        board.take(&codec, &kafka, &record);
                    }
                    board.caught_up = behind.is_empty();
                }
                Ok(())
            };
            if let Err(error) = work()
                && let Some(board) = weak.upgrade()
            {
                lock(&board).failed = Some(format!("{error:#}"));
            }
        });
        Self(board)
    }

    /// Looks up orders: those that are known, by ID.
    ///
    /// # Errors
    /// When the log can no longer be read.
    pub(crate) fn of(&self, orders: &[i64]) -> anyhow::Result<Vec<Option<Outcome>>> {
        let board = self.board()?;
        Ok(orders.iter().map(|order| board.orders.get(order).cloned()).collect())
    }

    /// How many of these orders are final.
    ///
    /// # Errors
    /// When the log can no longer be read.
    pub(crate) fn settled(&self, orders: &[i64]) -> anyhow::Result<usize> {
        let board = self.board()?;
        let is_final = |order: &&i64| board.orders.get(order).is_some_and(|outcome| *outcome != Outcome::Placed);
        Ok(orders.iter().filter(is_final).count())
    }

    /// Those of these products of which fewer pieces than this were received.
    ///
    /// # Errors
    /// When the log can no longer be read.
    pub(crate) fn lacking(&self, products: &[(i64, i64)]) -> anyhow::Result<Vec<i64>> {
        let board = self.board()?;
        let lacks = |(product, pieces): &&(i64, i64)| board.received.get(product).copied().unwrap_or(0) < *pieces;
        Ok(products.iter().filter(lacks).map(|(product, _)| *product).collect())
    }

    /// Waits until everything has been read that the log held when reading began.
    ///
    /// # Errors
    /// When that takes longer than `most`, or the log cannot be read.
    pub(crate) async fn caught_up(&self, most: Duration) -> anyhow::Result<()> {
        let started = Instant::now();
        while !self.board()?.caught_up {
            if started.elapsed() > most {
                bail!("the log is not read to its end after {} s", most.as_secs());
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// How long ago the log said something new.
    pub(crate) fn silent_for(&self) -> Duration {
        lock(&self.0).moved.map_or(Duration::MAX, |moved| moved.elapsed())
    }

    fn board(&self) -> anyhow::Result<MutexGuard<'_, Board>> {
        let board = lock(&self.0);
        if let Some(why) = &board.failed {
            bail!("the log can no longer be read: {why}");
        }
        Ok(board)
    }
}

fn lock(board: &Mutex<Board>) -> MutexGuard<'_, Board> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Board {
    fn take(&mut self, codec: &Codec, kafka: &Kafka, record: &Record) {
        let Some(sequence) = envelope::sequence(&record.headers) else {
            return;
        };
        let last = self.sequences.entry((record.topic.to_string(), record.partition)).or_default();
        if sequence <= *last {
            return;
        }
        *last = sequence;
        let value = record.value.as_deref().unwrap_or_default();
        if *record.topic == kafka.topic(OrderEvent::TOPIC) {
            // A record that this build cannot decode is nothing that an import asks about.
            if let Ok(event) = OrderEvent::decode(codec, value) {
                self.note(&event);
            }
        } else if let Ok(InventoryEvent::StockReceived(event)) = InventoryEvent::decode(codec, value) {
            *self.received.entry(event.product_id.0).or_default() += event.quantity;
            self.moved = Some(Instant::now());
        }
    }

    fn note(&mut self, event: &OrderEvent) {
        let outcome = match event {
            OrderEvent::OrderPlaced(_) => Outcome::Placed,
            OrderEvent::OrderConfirmed(_) => Outcome::Confirmed,
            OrderEvent::OrderCancelled(event) => Outcome::Cancelled(code(&event.reason)),
            OrderEvent::OrderRejected(event) => Outcome::Rejected(code(&event.reason)),
            OrderEvent::OrderExpired(_) => Outcome::Expired,
            OrderEvent::CommandRefused(_) => return,
        };
        self.orders.insert(event.order_id().0, outcome);
        self.moved = Some(Instant::now());
    }
}

/// A reason as the log spells it.
fn code<T: serde::Serialize>(reason: &T) -> String {
    let json = serde_json::to_value(reason).unwrap_or_default();
    json.as_str().unwrap_or("UNKNOWN").to_owned()
}

#[cfg(test)]
mod tests {
    use events::envelope::name;
    use events::time::Timestamp;
    use serde_json::json;

    use events::envelope::Headers;

    use super::*;

    fn kafka() -> Kafka {
        Kafka {
            bootstrap: "127.0.0.1:1".to_owned(),
            topic_prefix: "t.".to_owned(),
            partitions: 1,
            session_timeout: Duration::from_secs(6),
        }
    }

    fn record(topic: &str, sequence: i64, value: Vec<u8>) -> Record {
        Record {
            topic: format!("t.{topic}").into(),
            partition: 0,
            offset: sequence,
            timestamp: Timestamp(0),
            key: None,
            value: Some(value),
            headers: Headers::from_iter([(name::SEQUENCE, format!("{sequence:019}"))]),
        }
    }

    #[test]
    fn a_repeat_counts_once_and_a_strange_record_not_at_all() {
        let codec = Codec::numbered();
        let received = json!({"product_id": "7", "quantity": 5, "command_id": "1", "caller": null, "key_hash": null,
            "fingerprint": null});
        let received: events::inventory::StockReceived = serde_json::from_value(received).unwrap();
        let value = InventoryEvent::from(received).encode(&codec).unwrap();
        let mut board = Board::default();
        for sequence in [1, 1, 2] {
            board.take(&codec, &kafka(), &record("inventory.events", sequence, value.clone()));
        }
        let mut strange = record("inventory.events", 3, value);
        strange.headers = Headers::default();
        board.take(&codec, &kafka(), &strange);
        assert_eq!(board.received[&7], 10);
        let outcomes = Outcomes(Arc::new(Mutex::new(board)));
        assert_eq!(outcomes.lacking(&[(7, 10), (8, 0), (9, 1)]).unwrap(), [9]);
    }

    #[test]
    fn the_last_event_of_an_order_says_where_it_stands() {
        let codec = Codec::numbered();
        let money = json!({"amount": 1, "currency": "USD"});
        let cancelled = json!({"order_id": "5", "version": 2, "customer_id": "a", "lines": [], "total": money,
            "reason": "OUT_OF_STOCK", "customer_reason": null, "command_id": null, "caller": null, "key_hash": null,
            "fingerprint": null});
        let cancelled: events::order::OrderCancelled = serde_json::from_value(cancelled).unwrap();
        let mut board = Board::default();
        board.orders.insert(5, Outcome::Placed);
        let value = OrderEvent::from(cancelled).encode(&codec).unwrap();
        board.take(&codec, &kafka(), &record("order.events", 1, value));
        let outcomes = Outcomes(Arc::new(Mutex::new(board)));
        assert_eq!(outcomes.of(&[5, 6]).unwrap(), [Some(Outcome::Cancelled("OUT_OF_STOCK".to_owned())), None]);
        assert_eq!(outcomes.settled(&[5, 6]).unwrap(), 1);
    }
}
