//! Held records of a processor: which keys wait, which of their records is tried next, and when (DESIGN §5).
//!
//! Pure bookkeeping of what the table `held` says; its statements are [`crate::held_store`]'s, what a batch makes of a held
//! record is [`crate::decision`]'s. A record that failed keeps the later records of its aggregate waiting in the order of the
//! log; other keys flow.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use events::time::Timestamp;

use crate::acts::Act;
use crate::intake::Input;
use crate::letter::{Class, Flaw, Step, Told};
use crate::mutant;
use crate::record::Record;
use crate::service::Service;
use crate::shared::Shared;

/// A longer type is none of ours.
const TYPE_BYTES_MAX: usize = 128;
/// Records of one key that one batch tries, the head and what waits behind it.
const CHAIN_MAX: usize = 100;
/// Records of one key, or of one partition, that may be held; at the limit the partition pauses.
const KEY_MAX: usize = 1_000;
const PARTITION_MAX: usize = 10_000;

/// Where a held record lies: its input topic, by its place in the service's list, and its offset.
pub(crate) type Source = (usize, i64);

/// A row of the table.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// The original record, as far as its letters hold it.
    pub(crate) record: Record,
    pub(crate) source_sequence: Option<i64>,
    /// The effect that is dead; none when the record itself is held or dead.
    pub(crate) effect: Option<String>,
    /// The order within a key: the sequence of the letter that held it; 0 when it was dead at once.
    pub(crate) number: i64,
    /// Not tried again unless an operator wants it.
    pub(crate) dead: bool,
    pub(crate) flaw: Flaw,
    /// How often it was tried.
    pub(crate) attempts: u32,
    pub(crate) first_at: Timestamp,
    pub(crate) last_at: Timestamp,
}

impl Row {
    /// What the letter of this sequence leaves; `None` when it settles its record.
    pub(crate) fn told(told: Told, sequence: i64) -> Option<Self> {
        let Told { step, record, source_sequence, effect, flaw, attempts, first_at, last_at } = told;
        let (dead, number) = match step {
            Step::Settled => return None,
            Step::Held => (false, sequence),
            Step::Failed => (false, 0),
            Step::Died => (true, 0),
        };
        Some(Self { record, source_sequence, effect, number, dead, flaw, attempts, first_at, last_at })
    }

    /// The number that the record has as its key.
    pub(crate) fn key(&self) -> Option<i64> {
        key_number(&self.record)
    }
}

/// The number that a record has as its key; `None` when it is no aggregate's ID.
pub(crate) fn key_number(record: &Record) -> Option<i64> {
    std::str::from_utf8(record.key.as_deref()?).ok()?.parse().ok()
}

/// The type that a record says it has, if that can be a name: it is shown to people.
pub(crate) fn type_name(record: &Record) -> Option<&str> {
    let text = events::envelope::text(&record.headers, events::envelope::name::TYPE)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (text.len() <= TYPE_BYTES_MAX && text.bytes().all(plain)).then_some(text)
}

/// Which kind of aggregate a record is about, as far as its headers tell.
pub(crate) fn kind_of<S: Service>(shared: &Shared<S>, record: &Record) -> Option<&'static str> {
    let topic = shared.inputs.iter().position(|name| **name == *record.topic)?;
    let type_name = type_name(record)?;
    shared.service.kind(shared.description.inputs[topic].name, type_name)
}

/// A held or dead record that is tried again, or discarded.
#[derive(Debug)]
pub(crate) struct Retry<I> {
    pub(crate) source: Source,
    pub(crate) row: Row,
    /// The operator who wants it; none when it is due by itself.
    pub(crate) act: Option<Act>,
    /// What it is by now; `None` when this service has no interest in it.
    pub(crate) judged: Result<Option<Box<Input<I>>>, Flaw>,
}

/// What is kept in memory of a row that keeps its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) source: Source,
    pub(crate) number: i64,
    /// `None` stands before all kinds of its key.
    pub(crate) kind: Option<&'static str>,
    pub(crate) dead: bool,
    pub(crate) attempts: u32,
    pub(crate) last_at: Timestamp,
}

impl Entry {
    /// True when the two may not overtake each other.
    pub(crate) fn meets(&self, kind: Option<&'static str>) -> bool {
        self.kind.is_none() || kind.is_none() || self.kind == kind
    }
}

/// True when a record of this kind must wait behind something of its key's queue.
pub(crate) fn keeps(queue: &[Entry], kind: Option<&'static str>) -> bool {
    queue.iter().any(|entry| entry.meets(kind))
}

/// The held records of a processor that keep their keys waiting.
#[derive(Debug)]
pub(crate) struct Queues {
    /// By key, each in the order of the log.
    keys: HashMap<i64, Vec<Entry>>,
    /// When each key's next head is tried.
    due: BTreeSet<(Timestamp, i64)>,
    delays: Arc<[Duration]>,
    records: usize,
    /// Keys whose queue is as long as one may be.
    long: BTreeSet<i64>,
}

impl Queues {
    pub(crate) fn new(delays: Arc<[Duration]>, entries: Vec<(i64, Entry)>) -> Self {
        let mut queues = Self { keys: HashMap::new(), due: BTreeSet::new(), delays, records: 0, long: BTreeSet::new() };
        let mut keys = HashMap::<i64, Vec<Entry>>::new();
        for (key, entry) in entries {
            keys.entry(key).or_default().push(entry);
        }
        for (key, mut queue) in keys {
            queue.sort_unstable_by_key(|entry| (entry.number, entry.source));
            queues.replace(key, queue);
        }
        queues
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// How many records wait.
    pub(crate) fn len(&self) -> usize {
        self.records
    }

    /// The queue of a key; empty when nothing of it is held.
    pub(crate) fn queue(&self, key: i64) -> &[Entry] {
        self.keys.get(&key).map_or(&[], Vec::as_slice)
    }

    /// True when something of this key is held: its timers and effects rest.
    pub(crate) fn rests(&self, key: i64) -> bool {
        self.keys.contains_key(&key) && !mutant::is("held-key-does-not-rest")
    }

    /// All keys of which something is held.
    pub(crate) fn resting(&self) -> impl Iterator<Item = i64> {
        self.keys.keys().copied().filter(|key| self.rests(*key))
    }

    /// Takes in what a batch left of a key's queue. True when the key is free again.
    pub(crate) fn replace(&mut self, key: i64, queue: Vec<Entry>) -> bool {
        let before = self.keys.remove(&key).unwrap_or_default();
        self.records -= before.len();
        if let Some(time) = self.next_of(&before) {
            self.due.remove(&(time, key));
        }
        self.long.remove(&key);
        if queue.is_empty() {
            return !before.is_empty();
        }
        self.records += queue.len();
        if queue.len() >= KEY_MAX {
            self.long.insert(key);
        }
        if let Some(time) = self.next_of(&queue) {
            self.due.insert((time, key));
        }
        self.keys.insert(key, queue);
        false
    }

    /// When the next head of a queue is tried, if one is.
    fn next_of(&self, queue: &[Entry]) -> Option<Timestamp> {
        let heads = queue.iter().enumerate().filter(|(at, entry)| !keeps(&queue[..*at], entry.kind));
        heads.filter_map(|(_, entry)| self.time_of(entry)).min()
    }

    fn time_of(&self, entry: &Entry) -> Option<Timestamp> {
        if entry.dead {
            return None;
        }
        let Some(failed) = entry.attempts.checked_sub(1) else { return Some(Timestamp(i64::MIN)) };
        let delay = self.delays.get(failed as usize).or(self.delays.last()).copied().unwrap_or_default();
        Some(entry.last_at.plus(delay))
    }

    /// When a head must be tried next.
    pub(crate) fn next_time(&self) -> Option<Timestamp> {
        self.due.first().map(|(time, _)| *time)
    }

    /// The records to try now, each behind those that it waits for.
    pub(crate) fn due(&self, now: Timestamp, most: usize) -> Vec<Source> {
        let mut due = Vec::new();
        for (_, key) in self.due.iter().take_while(|(time, _)| *time <= now) {
            let queue = &self.keys[key];
            let mut left_out: Vec<Entry> = Vec::new();
            for (at, entry) in queue.iter().enumerate().take(CHAIN_MAX) {
                let is_head = !keeps(&queue[..at], entry.kind);
                let time = self.time_of(entry).filter(|time| !is_head || *time <= now);
                if time.is_none() || keeps(&left_out, entry.kind) {
                    left_out.push(*entry);
                } else {
                    due.push(entry.source);
                }
            }
            if due.len() >= most {
                break;
            }
        }
        due
    }

    /// Why nothing more may be taken in, if it may not.
    pub(crate) fn full(&self) -> Option<String> {
        if let Some(key) = self.long.first() {
            return Some(format!(
                "{} records of key {key} wait behind one that cannot be applied",
                self.queue(*key).len()
            ));
        }
        (self.records >= PARTITION_MAX).then(|| format!("{} records are held, as many as may be", self.records))
    }
}

/// What becomes of a held record whose attempt failed. Whatever it fails of now, one that keeps its key goes on keeping it,
/// and one that nothing waited for keeps nobody.
pub(crate) fn relapse(row: &Row, flaw: &Flaw, delays: &[Duration]) -> (Step, Class, u32) {
    let attempts = row.attempts + 1;
    let class = match (row.flaw.class.keeps_key(), flaw.class.keeps_key()) {
        (true, false) => Class::Undecodable,
        (false, true) => row.flaw.class,
        (true, true) | (false, false) => flaw.class,
    };
    let hopeless = row.dead || class != Class::Failed || attempts as usize > delays.len();
    (if hopeless { Step::Died } else { Step::Failed }, class, attempts)
}
