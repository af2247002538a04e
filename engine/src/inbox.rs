//! The inbox of a processor: records in the order of their partitions, judged, and waiting for a batch.
//!
//! Takes no more out of the feed than a batch can hold. What a record becomes is [`crate::intake`]'s to say; a record
//! that must wait, or that stops the processor, keeps everything behind it where it is.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::feed::Feed;
use crate::intake::{self, Place, Verdict};
use crate::item::{Item, What};
use crate::letter::{Class, Flaw};
use crate::record::Record;
use crate::registry::Known;
use crate::service::Service;
use crate::shared::Shared;
use crate::status::State;

/// Bytes of the records that one batch takes in; a single larger record is a batch of its own.
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How long a record waits whose schema is not known here.
const BLOCKED: Duration = Duration::from_secs(2);
/// How long records that change nothing wait for a batch that something else needs. Their positions are all that would
/// be written; after a crash they are read and passed over again.
const PASSED_WAIT: Duration = Duration::from_millis(100);

/// What waits for a batch.
pub(crate) struct Inbox<S: Service> {
    shared: Arc<Shared<S>>,
    partition: i32,
    pub(crate) feed: Feed,
    ready: VecDeque<Item<S::Input>>,
    ready_bytes: usize,
    /// Those of `ready` that may change something.
    pressing: usize,
    /// Since when `ready` is not empty.
    waiting_since: Option<Instant>,
    /// Where the processor stands once all of `ready` is committed, by input topic.
    reading: Vec<Place>,
    /// A record that was taken from the feed but is not judged yet.
    peeked: Option<Record>,
    blocked_until: Option<Instant>,
    /// Set when a record stops the processor: everything before it is committed first.
    fatal: Option<String>,
}

impl<S: Service> Inbox<S> {
    pub(crate) fn new(shared: Arc<Shared<S>>, partition: i32, feed: Feed, places: &HashMap<String, Place>) -> Self {
        let start = Place { next_offset: 0, last_sequence: 0 };
        let reading = shared.inputs.iter().map(|topic| places.get(topic).copied().unwrap_or(start)).collect();
        Self {
            shared,
            partition,
            feed,
            ready: VecDeque::new(),
            ready_bytes: 0,
            pressing: 0,
            waiting_since: None,
            reading,
            peeked: None,
            blocked_until: None,
            fatal: None,
        }
    }

    /// When a batch should take what is ready: at once if something in it may change something.
    pub(crate) fn due(&self, limit: usize) -> Option<Instant> {
        let since = self.waiting_since?;
        let full = self.ready.len() >= limit || self.ready_bytes >= BATCH_BYTES_MAX;
        let presses = self.pressing > 0 || full || self.fatal.is_some();
        Some(if presses { since } else { since + PASSED_WAIT })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    /// True while a record waits whose schema is not known here.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked_until.is_some()
    }

    /// True when further records may be taken in.
    pub(crate) fn is_open(&self) -> bool {
        self.fatal.is_none() && !self.is_blocked()
    }

    /// Why the processor must stop once what is ready is committed.
    pub(crate) fn fatal(&self) -> Option<&str> {
        self.fatal.as_deref()
    }

    /// Adds an answer behind the records.
    pub(crate) fn push(&mut self, item: Item<S::Input>) {
        self.count_in(&item);
        self.ready.push_back(item);
    }

    fn count_in(&mut self, item: &Item<S::Input>) {
        self.ready_bytes += item.bytes;
        self.pressing += usize::from(!item.what.is_passed());
        self.waiting_since.get_or_insert_with(Instant::now);
    }

    /// Puts an item before all others.
    pub(crate) fn put_first(&mut self, item: Item<S::Input>) {
        self.count_in(&item);
        self.ready.push_front(item);
    }

    /// The next items, at most so many.
    pub(crate) fn take(&mut self, most: usize) -> Vec<Item<S::Input>> {
        let items: Vec<_> = self.ready.drain(..most.min(self.ready.len())).collect();
        self.ready_bytes -= items.iter().map(|item| item.bytes).sum::<usize>();
        self.pressing -= items.iter().filter(|item| !item.what.is_passed()).count();
        self.waiting_since = (!self.ready.is_empty()).then(Instant::now);
        items
    }

    /// Keeps the ends of effects only: records are read again by the next owner.
    pub(crate) fn leave_records(&mut self) {
        let kept: Vec<_> = self.ready.drain(..).filter(|item| item.what.ended().is_some()).collect();
        (self.ready_bytes, self.pressing, self.waiting_since) = (0, 0, None);
        kept.into_iter().for_each(|item| self.push(item));
    }

    /// Their batch did not commit.
    pub(crate) fn put_back(&mut self, items: Vec<Item<S::Input>>) {
        for item in items.into_iter().rev() {
            self.put_first(item);
        }
    }

    /// Waits for the next record.
    pub(crate) async fn wait(&mut self) {
        if self.peeked.is_none() {
            self.peeked = self.feed.next().await;
        }
    }

    /// Takes records from the feed and says what becomes of them, until `limit` items are ready. Asks the registry about
    /// unknown schemas if it may take the time; otherwise such a record waits for the next call.
    pub(crate) async fn judge(&mut self, limit: usize, may_ask: bool) {
        if self.fatal.is_some() || self.blocked_until.is_some_and(|until| until > Instant::now()) {
            return;
        }
        while self.ready.len() < limit && self.ready_bytes < BATCH_BYTES_MAX {
            let Some(record) = self.peeked.take().or_else(|| self.feed.try_next()) else {
                return;
            };
            if !self.take_in(record, may_ask).await {
                return;
            }
        }
    }

    /// False when this record keeps everything behind it.
    async fn take_in(&mut self, record: Record, may_ask: bool) -> bool {
        let Some(topic) = self.shared.inputs.iter().position(|name| **name == *record.topic) else {
            return true;
        };
        let place = self.reading[topic];
        if record.offset < place.next_offset {
            return true;
        }
        let bytes = record.bytes();
        let input = self.shared.description.inputs[topic];
        let partitions = self.shared.kafka.partitions;
        let service = self.shared.service.as_ref();
        let (verdict, moved) = intake::judge(service, &self.shared.codec, input, partitions, place, &record);
        let what = match verdict {
            Verdict::Input(meaning) => What::Record(Box::new(meaning.of(record))),
            Verdict::Passed => What::Passed,
            Verdict::Repeat => {
                self.shared.meters.repeats.inc();
                What::Passed
            }
            Verdict::Dead(flaw) | Verdict::Undecodable(flaw) => flawed(record, flaw),
            Verdict::Stop(reason) => {
                self.fatal = Some(reason);
                return false;
            }
            Verdict::Unknown { .. } if !may_ask => {
                self.peeked = Some(record);
                return false;
            }
            Verdict::Unknown { schema, denied } => match self.unknown(schema, denied, record).await {
                Some(what) => what,
                None => return false,
            },
        };
        self.blocked_until = None;
        self.reading[topic] = moved;
        self.push(Item { what, place: Some((topic, moved)), bytes });
        true
    }

    /// Asks the registry about a schema that this build does not know. `None`: the record waits.
    async fn unknown(&mut self, schema: u32, denied: Flaw, record: Record) -> Option<What<S::Input>> {
        let registry = &self.shared.breakers.registry;
        let known = match registry.check() {
            Ok(()) => self.shared.registry.known(schema).await,
            Err(away) => Known::Unavailable(away.to_string()),
        };
        match &known {
            Known::Yes { .. } | Known::No => registry.succeeded(),
            Known::Unavailable(why) => registry.failed(why),
        }
        let waits = match known {
            Known::No => return Some(flawed(record, denied)),
            Known::Yes { subject } => {
                format!("schema {schema} ({subject}) is newer than this build: upgrade me")
            }
            Known::Unavailable(why) => {
                format!("the schema registry does not answer about schema {schema}: {why}")
            }
        };
        self.shared.status.set(self.partition, State::Waiting, Some(waits));
        self.blocked_until = Some(Instant::now() + BLOCKED);
        self.peeked = Some(record);
        None
    }
}

fn flawed<I>(record: Record, flaw: Flaw) -> What<I> {
    match flaw.class {
        Class::Strange | Class::Poison => What::Dead(Box::new(record), flaw),
        Class::Undecodable | Class::Failed | Class::Waiting | Class::Effect => {
            What::Undecodable(Box::new(record), flaw)
        }
    }
}
