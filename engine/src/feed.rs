//! The way of records from the consumer's thread to a processor: a queue with a level that pauses its partitions.
//!
//! Also carries positions back, so that ordinary lag tools see them in Kafka; nothing reads them from there.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use crate::intake::Place;
use crate::record::Record;

/// A processor's queue is full above either of these; its partitions are paused.
const RECORDS_HIGH: usize = 5_000;
const BYTES_HIGH: usize = 16 * 1024 * 1024;
/// And resumed below both of these: pausing throws away what librdkafka has fetched, so not too often.
const RECORDS_LOW: usize = 1_000;
const BYTES_LOW: usize = 4 * 1024 * 1024;
/// Positions are told at most this often.
const TELL_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(crate) struct Level {
    records: AtomicUsize,
    bytes: AtomicUsize,
}

impl Level {
    pub(crate) fn is_high(&self) -> bool {
        self.records.load(Ordering::Relaxed) > RECORDS_HIGH || self.bytes.load(Ordering::Relaxed) > BYTES_HIGH
    }

    pub(crate) fn is_low(&self) -> bool {
        self.records.load(Ordering::Relaxed) < RECORDS_LOW && self.bytes.load(Ordering::Relaxed) < BYTES_LOW
    }
}

/// What processors ask of the consumer's thread.
#[derive(Debug)]
pub(crate) enum Control {
    /// Read this processor's partitions anew from these places; the reply is its new feed.
    Seek { partition: i32, places: HashMap<String, Place>, reply: oneshot::Sender<Result<Feed, String>> },
    /// Tell Kafka how far a processor got.
    Positions { partition: i32, places: HashMap<String, Place> },
    /// Leave the group and end the thread.
    Leave,
}

pub(crate) type ControlSender = std::sync::mpsc::Sender<Control>;

/// The end that fills a feed.
#[derive(Debug, Clone)]
pub(crate) struct Pipe {
    records: mpsc::UnboundedSender<Record>,
    pub(crate) level: Arc<Level>,
}

impl Pipe {
    pub(crate) fn push(&self, record: Record) {
        self.level.records.fetch_add(1, Ordering::Relaxed);
        self.level.bytes.fetch_add(record.bytes(), Ordering::Relaxed);
        // A processor that ended reads nothing more; its successor gets a new feed from its own position.
        drop(self.records.send(record));
    }
}

/// The end that a processor reads.
#[derive(Debug)]
pub(crate) struct Feed {
    records: mpsc::UnboundedReceiver<Record>,
    level: Arc<Level>,
    control: ControlSender,
    partition: i32,
    /// Positions of a batch that Kafka has not acknowledged yet.
    snapshot: Option<(i64, HashMap<String, Place>)>,
    /// Positions moved after that.
    moved: bool,
    told: Instant,
}

impl Feed {
    pub(crate) fn new(partition: i32, control: ControlSender) -> (Pipe, Self) {
        let (sender, records) = mpsc::unbounded_channel();
        let level = Arc::new(Level::default());
        let pipe = Pipe { records: sender, level: Arc::clone(&level) };
        (pipe, Self { records, level, control, partition, snapshot: None, moved: false, told: Instant::now() })
    }

    fn taken(&self, record: Record) -> Record {
        self.level.records.fetch_sub(1, Ordering::Relaxed);
        self.level.bytes.fetch_sub(record.bytes(), Ordering::Relaxed);
        record
    }

    pub(crate) fn try_next(&mut self) -> Option<Record> {
        let record = self.records.try_recv().ok()?;
        Some(self.taken(record))
    }

    /// The next record; waits for ever once the other end is gone.
    pub(crate) async fn next(&mut self) -> Option<Record> {
        match self.records.recv().await {
            Some(record) => Some(self.taken(record)),
            None => std::future::pending().await,
        }
    }

    /// A batch committed: its positions may be told once everything it decided is acknowledged.
    pub(crate) fn committed(&mut self, batch: i64, places: &HashMap<String, Place>) {
        self.moved = true;
        self.look(batch, places);
    }

    /// Kafka has everything that batches decided up to `acked`; `batch` is the last one, which left these places.
    pub(crate) fn acknowledged(&mut self, acked: i64, batch: i64, places: &HashMap<String, Place>) {
        self.look(batch, places);
        if let Some((_, places)) = self.snapshot.take_if(|(decided, _)| *decided <= acked) {
            self.told = Instant::now();
            drop(self.control.send(Control::Positions { partition: self.partition, places }));
        }
    }

    fn look(&mut self, batch: i64, places: &HashMap<String, Place>) {
        if self.moved && self.snapshot.is_none() && self.told.elapsed() >= TELL_EVERY {
            self.snapshot = Some((batch, places.clone()));
            self.moved = false;
        }
    }
}
