//! The publisher of one processor: sends what its batches decided, in the order of decision, until Kafka has it.
//!
//! One request in flight; before the topic changes, everything sent is acknowledged; a report without an offset is no
//! acknowledgement (DESIGN §2 and H1, H11, H12). Outbox rows are deleted by the batches, not here.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rdkafka::ClientConfig;
use rdkafka::producer::BaseRecord;
use rdkafka::types::RDKafkaErrorCode;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::breaker::Breaker;
use crate::failpoint::{Injected, reach};
use crate::kafka::Kafka;
use crate::mutant;
use crate::outbox::{Left, Load, Progress, Row};
use crate::own_log;
use crate::producer::{Flight, Outgoing, Producer, owned};
use crate::record::{OutRecord, Output};
use crate::store::OutputState;

/// At most this many records are on their way at once.
const CHUNK_RECORDS_MAX: usize = 2_000;
const CHUNK_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Decided but not yet acknowledged: beyond either of these the processor takes nothing in until Kafka has caught up.
const UNSENT_MAX: Load = Load { records: 20_000, bytes: 64 * 1024 * 1024 };
/// A processor that ends waits this long for what Kafka has not acknowledged; a successor sends the rest again.
const FLUSH_WITHIN: Duration = Duration::from_secs(2);

/// The handle that the processor keeps.
#[derive(Debug)]
pub(crate) struct Publisher {
    rows: mpsc::UnboundedSender<Row>,
    handed: Load,
    pub(crate) progress: watch::Receiver<Progress>,
}

impl Publisher {
    /// Starts sending behind these ends, leftovers of the outbox first.
    pub(crate) fn start(
        kafka: Arc<Kafka>,
        config: ClientConfig,
        partition: i32,
        topics: [String; 3],
        left: Left,
        breaker: Breaker,
        stop: CancellationToken,
    ) -> Self {
        let Left { ends, rows: leftovers, acked_batch } = left;
        let acked = ends.map(|end| OutputState {
            sequence: end.sequence,
            acked_sequence: end.sequence,
            acked_offset: end.offset,
        });
        let progress = Progress { acked_batch, acked, through: Load::default(), forked: None };
        let (report, watch) = watch::channel(progress.clone());
        let (rows, inbox) = mpsc::unbounded_channel();
        let next_offsets = ends.map(|end| end.next_offset);
        let mut sender = Sender {
            kafka,
            config,
            partition,
            topics,
            next_offsets,
            progress,
            report,
            breaker,
            queue: VecDeque::new(),
            producer: None,
            known: [false; 3],
        };
        let mut handed = Load::default();
        for row in leftovers {
            row.records.iter().for_each(|record| handed.add(record));
            sender.enqueue(row);
        }
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = sender.run(inbox) => {}
            }
        });
        Self { rows, handed, progress: watch }
    }

    /// Hands over the row of a committed batch.
    pub(crate) fn send(&mut self, row: Row) {
        row.records.iter().for_each(|record| self.handed.add(record));
        // A stopped publisher takes nothing more; the outbox keeps the row for the next owner.
        drop(self.rows.send(row));
    }

    /// True while more may be decided.
    pub(crate) fn has_room(&self, progress: &Progress) -> bool {
        self.handed.records - progress.through.records < UNSENT_MAX.records
            && self.handed.bytes - progress.through.bytes < UNSENT_MAX.bytes
    }

    /// True when Kafka has everything that was handed over.
    pub(crate) fn all_acknowledged(&self, progress: &Progress) -> bool {
        self.handed == progress.through
    }

    /// Takes nothing more, and waits until everything is acknowledged, for a while.
    pub(crate) async fn finish(self) {
        let Self { rows, mut progress, .. } = self;
        drop(rows);
        let ended = async { while progress.changed().await.is_ok() {} };
        if tokio::time::timeout(FLUSH_WITHIN, ended).await.is_err() {
            info!("what is not acknowledged stays in the outbox");
        }
    }

    /// True when nothing more will be sent.
    pub(crate) fn has_ended(&self) -> bool {
        self.progress.has_changed().is_err()
    }
}

struct Queued {
    batch: i64,
    records: Arc<Vec<OutRecord>>,
    index: usize,
}

impl Queued {
    fn record(&self) -> &OutRecord {
        &self.records[self.index]
    }
}

struct Sender {
    kafka: Arc<Kafka>,
    config: ClientConfig,
    partition: i32,
    topics: [String; 3],
    next_offsets: [i64; 3],
    progress: Progress,
    report: watch::Sender<Progress>,
    breaker: Breaker,
    queue: VecDeque<Queued>,
    producer: Option<Producer>,
    /// Topics whose broker knows this producer: from then on it refuses what follows a gap. Before, it takes anything
    /// (KAFKA-15591), and a request that librdkafka has prepared behind a refused one is sent.
    known: [bool; 3],
}

impl Sender {
    async fn run(&mut self, mut inbox: mpsc::UnboundedReceiver<Row>) {
        // A fresh idempotent producer takes up to a second to get its ID: before the first record, not with it.
        match Producer::new(&self.config) {
            Ok(producer) => self.producer = Some(producer),
            Err(error) => warn!(%error, "no producer can be made yet"),
        }
        loop {
            if self.queue.is_empty() {
                match inbox.recv().await {
                    Some(row) => self.enqueue(row),
                    None => return,
                }
            }
            while let Ok(row) = inbox.try_recv() {
                self.enqueue(row);
            }
            match self.send_chunk().await {
                Ok(()) => self.breaker.succeeded(),
                Err(Trouble::Retry(error)) => {
                    warn!(kafka.partition = self.partition, error, "publishing failed; a new producer sends again");
                    self.discard_producer();
                    self.breaker.failed(error);
                    self.breaker.settled().await;
                }
                Err(Trouble::Forked(reason)) => {
                    self.progress.forked = Some(reason);
                    self.report.send_replace(self.progress.clone());
                    return;
                }
            }
        }
    }

    /// Queues a row, without the records that the log already holds.
    fn enqueue(&mut self, row: Row) {
        let before = self.queue.len();
        for (index, record) in row.records.iter().enumerate() {
            if record.sequence > self.progress.acked[record.output.place()].acked_sequence {
                self.queue.push_back(Queued { batch: row.batch, records: Arc::clone(&row.records), index });
            } else {
                self.progress.through.add(record);
            }
        }
        if self.queue.len() == before && before == 0 {
            self.progress.acked_batch = row.batch;
            self.report.send_replace(self.progress.clone());
        }
    }

    /// The leading records of one topic, as many as may be on their way at once: one alone to a broker that does not
    /// know the producer yet.
    fn chunk_length(&self) -> usize {
        let output = self.queue[0].record().output;
        if !self.known[output.place()] {
            return 1;
        }
        let mut bytes = 0;
        let fits = |queued: &&Queued| {
            let record = queued.record();
            bytes += record.value.as_ref().map_or(0, Vec::len) + 512;
            record.output == output && bytes <= CHUNK_BYTES_MAX
        };
        self.queue.iter().take(CHUNK_RECORDS_MAX).take_while(fits).count().max(1)
    }

    async fn send_chunk(&mut self) -> Result<(), Trouble> {
        if self.queue.is_empty() {
            return Ok(());
        }
        reach("R1").await?;
        let length = self.chunk_length();
        let output = self.queue[0].record().output;
        let (flight, count) = self.launch(length)?;
        reach("R2").await?;
        if mutant::is("two-topics-in-flight") {
            self.send_next_topic(count);
        }
        let Ok(reports) = flight.await else {
            return Err(Trouble::Retry("the producer dropped the records".to_owned()));
        };
        reach("R5").await?;
        let offsets: Vec<i64> = reports.iter().flatten().map(|delivered| delivered.offset).collect();
        let trouble = match reports.last() {
            Some(Err(error)) => Some(error.to_string()),
            _ if reports.len() < count => Some("a record behind it failed first".to_owned()),
            _ => None,
        };
        if !offsets.is_empty() {
            self.check_offsets(output, &offsets).await?;
            self.acknowledge(output, &offsets);
            match self.queue.front() {
                None => reach("R3").await?,
                Some(next) if next.record().output != output => reach("R4").await?,
                Some(_) => {}
            }
            if output == Output::Retry {
                reach("D2").await?;
            }
        }
        trouble.map_or(Ok(()), |error| Err(Trouble::Retry(error)))
    }

    /// Hands the leading records to librdkafka; fewer when its queue is full. All are made before the first is handed over:
    /// librdkafka's thread wakes up for each that it finds alone.
    fn launch(&mut self, length: usize) -> Result<(Flight, usize), Trouble> {
        let producer = match self.producer.take() {
            Some(producer) => producer,
            None => Producer::new(&self.config).map_err(|error| Trouble::Retry(format!("{error:#}")))?,
        };
        let records: Vec<Outgoing<'_>> =
            self.queue.iter().take(length).map(|queued| self.outgoing(queued.record())).collect();
        let (flight, count, refused) = producer.send_all(records);
        match refused {
            Some(error) if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) || count == 0 => {
                return Err(Trouble::Retry(error.to_string()));
            }
            _ => {}
        }
        self.producer = Some(producer);
        Ok((flight, count))
    }

    /// A bug: the next topic is begun before this one is through.
    fn send_next_topic(&self, from: usize) {
        if let (Some(producer), Some(next)) = (&self.producer, self.queue.get(from)) {
            drop(producer.send(self.outgoing(next.record())));
        }
    }

    fn outgoing<'a>(&'a self, record: &'a OutRecord) -> Outgoing<'a> {
        BaseRecord {
            topic: &self.topics[record.output.place()],
            partition: Some(self.partition),
            payload: record.value.as_deref(),
            key: record.key.as_deref(),
            timestamp: None,
            headers: Some(owned(&record.headers)),
            delivery_opaque: (),
        }
    }

    /// Offsets that do not follow the known end mean that somebody else wrote: harmless when it is a former owner's
    /// repeat, a fork of the sequence otherwise (H12).
    async fn check_offsets(&mut self, output: Output, offsets: &[i64]) -> Result<(), Trouble> {
        let from = self.next_offsets[output.place()];
        let last = *offsets.last().expect("not empty");
        let follows = offsets.iter().zip(from..).all(|(offset, expected)| *offset == expected);
        self.next_offsets[output.place()] = last + 1;
        if follows {
            return Ok(());
        }
        let topic = self.topics[output.place()].clone();
        info!(kafka.topic = topic, kafka.partition = self.partition, from, last, "reading what others wrote between");
        let kafka = Arc::clone(&self.kafka);
        let partition = self.partition;
        let read_topic = topic.clone();
        let read = move || own_log::read_range(&kafka, &read_topic, partition, from, last + 1);
        let between = tokio::task::spawn_blocking(read)
            .await
            .context("reading the own topic")
            .and_then(std::convert::identity)
            .map_err(|error| Trouble::Retry(format!("{error:#}")))?;
        let acked = self.progress.acked[output.place()].acked_sequence;
        let ours = |sequence| {
            self.queue.iter().map(Queued::record).find(|mine| mine.output == output && mine.sequence == sequence)
        };
        for record in between {
            let Some(sequence) = events::envelope::sequence(&record.headers) else {
                continue;
            };
            let id = events::envelope::text(&record.headers, events::envelope::name::ID);
            if sequence > acked && ours(sequence).is_none_or(|mine| mine.id() != id) {
                return Err(Trouble::Forked(format!(
                    "{topic}/{partition} holds another record under sequence {sequence} at offset {}: two databases \
                     wrote this topic",
                    record.offset
                )));
            }
        }
        Ok(())
    }

    fn acknowledge(&mut self, output: Output, offsets: &[i64]) {
        self.known[output.place()] = true;
        for offset in offsets {
            let queued = self.queue.pop_front().expect("one record per offset");
            let acked = &mut self.progress.acked[output.place()];
            acked.acked_sequence = queued.record().sequence;
            acked.acked_offset = *offset;
            self.progress.through.add(queued.record());
            if self.queue.front().is_none_or(|next| next.batch != queued.batch) {
                self.progress.acked_batch = queued.batch;
            }
        }
        self.report.send_replace(self.progress.clone());
    }

    /// Purging blocks, so not on a worker of the runtime.
    fn discard_producer(&mut self) {
        self.known = [false; 3];
        if let Some(producer) = self.producer.take() {
            tokio::task::spawn_blocking(move || producer.purge());
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if let Some(producer) = self.producer.take() {
            std::thread::spawn(move || producer.purge());
        }
    }
}

enum Trouble {
    Retry(String),
    Forked(String),
}

impl From<Injected> for Trouble {
    fn from(error: Injected) -> Self {
        Self::Retry(error.to_string())
    }
}
