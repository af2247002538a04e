//! Records that nobody sent: copies of past ones, as producers and operators make them, and bytes of strangers.
//!
//! All are written down in `injected.ndjson` with their offsets. A stranger's record never has a valid sequence: with one it
//! would be no stranger's on a broker without ACLs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use engine::kafka::{INPUT_BYTES_MAX, Kafka};
use engine::own_log::{Partition, Reader, watermarks};
use engine::record::Record;
use events::envelope::{self, Headers};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};

use crate::evidence::{self, lines::Lines};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A copy comes so much later, at most.
const LATER_MAX: Duration = Duration::from_secs(8);
const REPEATED: f64 = 0.01;
const STRANGE: f64 = 0.001;
/// With fewer records a run would see none.
const STRANGE_AT_LEAST: usize = 8;
const REPORT_WITHIN: Duration = Duration::from_secs(60);
const MARKED: &str = "repeat";
/// In the folder of the evidence.
pub(super) const FILE: &str = "injected.ndjson";

/// Appends until it is ended.
pub(super) struct Injector {
    kafka: Kafka,
    random: StdRng,
    lines: Lines,
    producer: FutureProducer,
    next: BTreeMap<Partition, i64>,
    /// Topic, partition and offset of what was injected: that is not copied again.
    own: BTreeSet<(String, i32, i64)>,
    waiting: Vec<(Instant, Injection)>,
    done: Injected,
}

/// What was appended, and what nobody knows of.
#[derive(Debug, Default)]
pub(super) struct Injected {
    pub(super) repeats: usize,
    pub(super) strange: usize,
    pub(super) unknown: Vec<Injection>,
}

/// A record to be appended.
#[derive(Debug)]
pub(super) struct Injection {
    class: &'static str,
    topic: String,
    partition: i32,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Headers,
}

impl Injector {
    pub(super) fn new(kafka: Kafka, seed: u64, lines: Lines) -> anyhow::Result<Self> {
        let producer = kafka.publisher_config().create()?;
        let topics = evidence::topics();
        let places =
            topics.iter().flat_map(|topic| (0..kafka.partitions).map(|partition| (kafka.topic(topic), partition)));
        let next = places.map(|place| (place, 0)).collect();
        let random = StdRng::seed_from_u64(seed);
        Ok(Self {
            kafka,
            random,
            lines,
            producer,
            next,
            own: BTreeSet::new(),
            waiting: Vec::new(),
            done: Injected::default(),
        })
    }

    /// Runs until `over` is set; what waits then is dropped.
    pub(super) async fn run(mut self, over: Arc<AtomicBool>) -> anyhow::Result<Injected> {
        while !over.load(Ordering::Relaxed) {
            let records = self.fresh().await;
            for record in records {
                self.think_of(&record);
            }
            let now = Instant::now();
            let (due, waiting) = std::mem::take(&mut self.waiting).into_iter().partition(|(at, _)| *at <= now);
            self.waiting = waiting;
            for (_, injection) in due {
                self.append(injection).await?;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(self.done)
    }

    /// What came since the last look; nothing when the broker does not answer.
    async fn fresh(&mut self) -> Vec<Record> {
        let (kafka, next) = (self.kafka.clone(), self.next.clone());
        let read = move || -> anyhow::Result<(BTreeMap<Partition, i64>, Vec<Record>)> {
            let places: Vec<_> = next.keys().cloned().collect();
            let ends: Vec<_> = places.iter().cloned().zip(watermarks(&kafka, &places)?).collect();
            let ranges: Vec<_> = ends.iter().map(|(place, (_, high))| (place.clone(), next[place], *high)).collect();
            let (mut reader, mut records) = (Reader::open(&kafka, &ranges)?, Vec::new());
            while let Some(record) = reader.next()? {
                records.push(record);
            }
            Ok((ends.into_iter().map(|(place, (_, high))| (place, high)).collect(), records))
        };
        match tokio::task::spawn_blocking(read).await {
            Ok(Ok((ends, records))) => {
                self.next.extend(ends);
                records
            }
            _ => Vec::new(),
        }
    }

    fn think_of(&mut self, record: &Record) {
        let topic = record.topic.strip_prefix(&self.kafka.topic_prefix).unwrap_or(&record.topic).to_owned();
        if self.own.contains(&(topic.clone(), record.partition, record.offset)) {
            return;
        }
        let later = Instant::now() + LATER_MAX.mul_f64(self.random.random::<f64>());
        let copy = Injection {
            class: MARKED,
            topic,
            partition: record.partition,
            key: record.key.clone(),
            value: record.value.clone(),
            headers: record.headers.clone(),
        };
        let few = self.done.strange < STRANGE_AT_LEAST && self.random.random_bool(0.02);
        if few || self.random.random_bool(STRANGE) {
            self.done.strange += 1;
            let strange = strange(&copy, &mut self.random);
            self.waiting.push((later, strange));
        }
        if self.random.random_bool(REPEATED) {
            self.done.repeats += 1;
            self.waiting.push((later, copy));
        }
    }

    async fn append(&mut self, injection: Injection) -> anyhow::Result<()> {
        let name = self.kafka.topic(&injection.topic);
        let mut headers = OwnedHeaders::new_with_capacity(injection.headers.len());
        for (key, value) in injection.headers.iter() {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        let mut record = FutureRecord::<[u8], [u8]>::to(&name).partition(injection.partition).headers(headers);
        record.key = injection.key.as_deref();
        record.payload = injection.value.as_deref();
        match self.producer.send(record, REPORT_WITHIN).await {
            // A report without an offset is none (H1).
            Ok(delivery) if delivery.offset >= 0 => {
                self.own.insert((injection.topic.clone(), injection.partition, delivery.offset));
                self.lines.append(&injection.at(delivery.offset))
            }
            _ => {
                self.done.unknown.push(injection);
                self.producer = self.kafka.publisher_config().create()?;
                Ok(())
            }
        }
    }
}

impl Injection {
    fn at(&self, offset: i64) -> evidence::Injected {
        let (topic, class, value) = (self.topic.clone(), self.class.to_owned(), self.value.clone());
        evidence::Injected { topic, partition: self.partition, offset, class, value }
    }
}

/// Looks for what nobody knew of among the collected records, and writes down what is there. Copies are left out: nobody can
/// tell them from those of producers, and need not.
///
/// # Errors
/// When the folder cannot be read or written.
pub(super) fn resolve(unknown: &[Injection], folder: &Path) -> anyhow::Result<()> {
    let strange: Vec<&Injection> = unknown.iter().filter(|one| one.class != MARKED).collect();
    if strange.is_empty() {
        return Ok(());
    }
    let (evidence, lines) = (evidence::Folder::read(folder)?, Lines::open(folder, FILE)?);
    for one in strange {
        let is_it = |entry: &&evidence::Entry| {
            let same = entry.key == one.key && entry.value == one.value && entry.headers == one.headers;
            same && entry.partition == one.partition
        };
        if let Some(entry) = evidence.topic(&one.topic).iter().find(is_it) {
            lines.append(&one.at(entry.offset))?;
        }
    }
    Ok(())
}

/// What a stranger might send instead of this record: what makes it strange is not its place alone.
fn strange(like: &Injection, random: &mut StdRng) -> Injection {
    let value = like.value.clone().unwrap_or_default();
    let mut key = like.key.clone();
    let (class, value) = match random.random_range(0..7) {
        0 => ("bad_magic", Some([&[7], value.get(1..).unwrap_or_default()].concat())),
        // No registry has so many schemas.
        1 => ("unknown_schema", Some([&[0, 0x7f, 0xff, 0xff, 9], value.get(5..).unwrap_or_default()].concat())),
        2 => ("truncated", Some(value[..value.len().min(6)].to_vec())),
        3 => ("trailing_garbage", Some([&value[..], b"garbage"].concat())),
        4 => ("null_value", None),
        5 => {
            key = Some(random.random_range(1..i64::MAX).to_string().into_bytes());
            ("wrong_key", Some(value))
        }
        _ => {
            let mut value = vec![0xee; INPUT_BYTES_MAX - 1_000];
            random.fill(&mut value[1..]);
            ("large", Some(value))
        }
    };
    // What is large leaves no room for headers.
    let kept = |name: &str| name != envelope::name::SEQUENCE && class != "large";
    let headers = like.headers.iter().filter(|(name, _)| kept(name)).collect();
    Injection { class, topic: like.topic.clone(), partition: like.partition, key, value, headers }
}
