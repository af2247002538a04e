//! The loop of a processor: gather, commit a batch, publish, start effects, answer timers; again.
//!
//! It never sleeps while there is something to do, and holds nothing that a new owner could not read from Postgres.
//! Who owns which processor is [`crate::assignment`]'s; the transaction itself is [`crate::batch`]'s.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use events::time::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use crate::batch::{self, Batch, BatchError, Committed, Item, What};
use crate::effects::{self, Effects, Name};
use crate::feed::Feed;
use crate::intake::{self, Denied, Place, Verdict};
use crate::publisher::{Progress, Publisher, Row};
use crate::record::Record;
use crate::registry::Known;
use crate::service::{EffectMark, Outcome, Service, Window};
use crate::shared::Shared;
use crate::status::State;
use crate::store::{OpenTry, Owned};
use crate::timers::{Clock, Ends, Timers};

/// Records decided but not yet acknowledged, before the processor waits for Kafka.
const UNSENT_RECORDS_MAX: u64 = 20_000;
/// An idle processor forgets acknowledged outbox rows after this.
const FORGET_AFTER: Duration = Duration::from_millis(100);
/// Longest sleep of an idle processor.
const IDLE_MAX: Duration = Duration::from_secs(1);
/// How long a record waits whose schema is not known here.
const BLOCKED: Duration = Duration::from_secs(2);
/// Effects read at once.
const EFFECTS_READ_MAX: usize = 500;
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(3);
/// An effect whose other side is not reachable is tried again after about this.
const UNREACHABLE: Duration = Duration::from_secs(1);

/// Why a processor ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It is no longer assigned here.
    Revoked,
    /// It must be assigned anew, with a new epoch.
    Again(String),
    /// It will not go on by itself.
    Stopped(String),
}

/// The result of a try.
#[derive(Debug)]
pub(crate) struct Done<I> {
    mark: EffectMark,
    outcome: Outcome<I>,
}

/// A processor that owns its partition.
pub(crate) struct Processor<S: Service> {
    pub(crate) shared: Arc<Shared<S>>,
    pub(crate) owned: Owned,
    pub(crate) stop: CancellationToken,
    pub(crate) feed: Feed,
    pub(crate) publisher: Publisher,
    pub(crate) effects: Effects,
    pub(crate) timers: Timers,
    pub(crate) clock: Clock,
    /// Where it stands, committed, by topic name on the broker.
    pub(crate) places: HashMap<String, Place>,
    pub(crate) sequences: [i64; 3],
    pub(crate) model: Place,
    /// Judged and waiting for a batch.
    ready: VecDeque<Item<S::Input>>,
    /// Where it stands once all of `ready` is committed, by input topic.
    reading: Vec<Place>,
    /// A record that was taken from the feed but could not be judged yet.
    peeked: Option<Record>,
    blocked_until: Option<Instant>,
    /// Set when a record stops the processor: everything before it is committed first.
    fatal: Option<String>,
    limit: usize,
    backoff: Duration,
    sent: u64,
    forgotten_batch: i64,
    tries: Vec<OpenTry>,
    forget: Vec<Name>,
    done: (mpsc::UnboundedSender<Done<S::Input>>, mpsc::UnboundedReceiver<Done<S::Input>>),
    ends: (mpsc::UnboundedSender<Option<Ends>>, mpsc::UnboundedReceiver<Option<Ends>>),
    last_commit: Instant,
}

/// What preparing found.
pub(crate) struct Prepared {
    pub(crate) owned: Owned,
    pub(crate) places: HashMap<String, Place>,
    pub(crate) publisher: Publisher,
    pub(crate) effects: Effects,
    pub(crate) timers: Timers,
    pub(crate) clock: Clock,
    pub(crate) sequences: [i64; 3],
    pub(crate) model: Place,
}

impl<S: Service> Processor<S> {
    pub(crate) fn new(shared: Arc<Shared<S>>, prepared: Prepared, feed: Feed, stop: CancellationToken) -> Self {
        let start = Place { next_offset: 0, last_sequence: 0 };
        let reading = shared.inputs.iter().map(|topic| prepared.places.get(topic).copied().unwrap_or(start)).collect();
        let limit = shared.settings.batch_max;
        Self {
            owned: prepared.owned,
            stop,
            feed,
            publisher: prepared.publisher,
            effects: prepared.effects,
            timers: prepared.timers,
            clock: prepared.clock,
            places: prepared.places,
            sequences: prepared.sequences,
            model: prepared.model,
            ready: VecDeque::new(),
            reading,
            peeked: None,
            blocked_until: None,
            fatal: None,
            limit,
            backoff: BACKOFF_MIN,
            sent: 0,
            forgotten_batch: prepared.owned.batch,
            tries: Vec::new(),
            forget: Vec::new(),
            done: mpsc::unbounded_channel(),
            ends: mpsc::unbounded_channel(),
            last_commit: Instant::now(),
            shared,
        }
    }

    /// Works until it is revoked, must be assigned anew, or stops.
    pub(crate) async fn run(mut self) -> Ended {
        let partition = self.owned.partition;
        self.shared.status.set(partition, State::Live, None);
        loop {
            if self.stop.is_cancelled() {
                return Ended::Revoked;
            }
            let progress = self.publisher.progress.borrow_and_update().clone();
            if let Some(reason) = progress.forked {
                return Ended::Stopped(format!("{reason}; run `{}`", self.shared.rebuild_hint()));
            }
            self.shared.acked.set(partition, progress.events_sequence());
            self.feed.acknowledged(progress.acked_batch);
            self.collect_done();
            if self.sent.saturating_sub(progress.records) < UNSENT_RECORDS_MAX {
                self.judge().await;
            }
            let now = self.clock.now();
            self.ask_for_ends(now);
            if let Err(error) = self.start_effects(&progress, now).await {
                debug!(%error, kafka.partition = partition, "effects wait for the database");
            }
            let window = self.timers.window(now).filter(|_| self.blocked_until.is_none());
            let worked = self.has_work(window, &progress);
            if worked {
                if let Err(ended) = self.commit(window, &progress).await {
                    return ended;
                }
            } else if let Some(reason) = self.fatal.take() {
                return Ended::Stopped(reason);
            } else {
                self.idle(&progress).await;
            }
        }
    }

    fn has_work(&self, window: Option<Window>, progress: &Progress) -> bool {
        let forgettable = progress.acked_batch > self.forgotten_batch && self.last_commit.elapsed() >= FORGET_AFTER;
        let scheduling = !self.tries.is_empty() || !self.forget.is_empty();
        !self.ready.is_empty() || window.is_some() || scheduling || forgettable
    }

    /// Takes records from the feed and says what becomes of them, up to the size of a batch.
    async fn judge(&mut self) {
        if self.fatal.is_some() || self.blocked_until.is_some_and(|until| until > Instant::now()) {
            return;
        }
        while self.ready.len() < self.limit {
            let Some(record) = self.peeked.take().or_else(|| self.feed.try_next()) else {
                return;
            };
            let Some(topic) = self.shared.inputs.iter().position(|name| *name == record.topic) else {
                continue;
            };
            let input = self.shared.description.inputs[topic];
            let place = self.reading[topic];
            if record.offset < place.next_offset {
                continue;
            }
            let partitions = self.shared.kafka.partitions;
            let service = self.shared.service.as_ref();
            let (verdict, moved) = intake::judge(service, &self.shared.codec, input, partitions, place, &record);
            let what = match verdict {
                Verdict::Input(input) => What::Record(input),
                Verdict::Passed => What::Passed,
                Verdict::Repeat => {
                    self.shared.meters.repeats.inc();
                    What::Passed
                }
                Verdict::Dead(death) => What::Dead(Box::new(record), death),
                Verdict::Stop(reason) => {
                    self.fatal = Some(reason);
                    return;
                }
                Verdict::Unknown { schema, denied } => {
                    let Some(what) = self.unknown(schema, denied, record).await else {
                        return;
                    };
                    what
                }
            };
            self.reading[topic] = moved;
            self.ready.push_back(Item { what, place: Some((topic, moved)) });
        }
    }

    /// Asks the registry about a schema that this build does not know. `None`: the record waits.
    async fn unknown(&mut self, schema: u32, denied: Denied, record: Record) -> Option<What<S::Input>> {
        let waits = match self.shared.registry.known(schema).await {
            Known::No => match denied {
                Denied::Dead(death) => return Some(What::Dead(Box::new(record), death)),
                Denied::Stop(reason) => {
                    self.fatal = Some(reason);
                    return None;
                }
            },
            Known::Yes { subject } => {
                format!("schema {schema} ({subject}) is newer than this build: upgrade me")
            }
            Known::Unavailable(why) => {
                format!("the schema registry does not answer about schema {schema}: {why}")
            }
        };
        self.shared.status.set(self.owned.partition, State::Waiting, Some(waits));
        self.blocked_until = Some(Instant::now() + BLOCKED);
        self.peeked = Some(record);
        None
    }

    async fn commit(&mut self, window: Option<Window>, progress: &Progress) -> Result<(), Ended> {
        let count = self.ready.len().min(self.limit);
        let batch = Batch {
            items: self.ready.drain(..count).collect(),
            window,
            sequences: self.sequences,
            model: self.model,
            acked: progress.acked,
            acked_batch: progress.acked_batch,
            tries: std::mem::take(&mut self.tries),
            forget: std::mem::take(&mut self.forget),
        };
        let started = Instant::now();
        let (batch, result) = batch::run(&self.shared, self.owned, batch).await;
        match result {
            Ok(committed) => {
                self.committed(&batch, committed, started);
                Ok(())
            }
            Err(BatchError::Fenced) => {
                self.shared.meters.refused_fences.inc();
                Err(Ended::Again("another owner got ahead".to_owned()))
            }
            Err(BatchError::Unknown(error)) => Err(Ended::Again(format!("a COMMIT has no known outcome: {error}"))),
            Err(BatchError::Broken(reason)) => Err(Ended::Stopped(reason)),
            Err(BatchError::Outage(error)) => {
                self.put_back(batch);
                self.wait_out(&error).await;
                Ok(())
            }
            Err(BatchError::Fault(error)) => self.narrow(batch, 0, format!("Postgres refuses it: {error}")),
            Err(BatchError::Failure(index, failure)) => self.narrow(batch, index, failure.to_string()),
        }
    }

    fn committed(&mut self, batch: &Batch<S::Input>, committed: Committed, started: Instant) {
        let shared = Arc::clone(&self.shared);
        self.owned.batch += 1;
        self.sequences = committed.sequences;
        self.model = committed.model;
        self.places.extend(shared.places(&batch.items));
        self.forgotten_batch = batch.acked_batch;
        self.clock = Clock::new(committed.now);
        self.timers.set(committed.timer_set);
        if batch.window.is_some() {
            self.timers.fired(committed.timers_fired, committed.next_timer, committed.now);
        }
        self.effects.set(committed.effects_set);
        let meters = &shared.meters;
        meters.batches.inc();
        meters.inputs.inc_by(batch.items.len() as u64);
        meters.timers.inc_by(committed.timers_fired as u64);
        meters.events.inc_by(committed.records.len() as u64);
        meters.batch_seconds.observe(started.elapsed().as_secs_f64());
        if !batch.items.is_empty() {
            #[expect(clippy::cast_precision_loss, reason = "a batch has at most a few hundred inputs")]
            meters.batch_inputs.observe(batch.items.len() as f64);
        }
        if !committed.records.is_empty() {
            self.sent += committed.records.len() as u64;
            self.publisher.send(Row { batch: self.owned.batch, records: Arc::new(committed.records) });
        }
        self.feed.committed(self.owned.batch, &self.places);
        self.backoff = BACKOFF_MIN;
        self.limit = (self.limit * 2).min(shared.settings.batch_max);
        self.last_commit = Instant::now();
        self.blocked_until = self.blocked_until.filter(|until| *until > Instant::now());
        self.tell();
    }

    fn tell(&self) {
        let now = self.clock.now();
        self.shared.status.update(self.owned.partition, |status| {
            if self.blocked_until.is_none() && self.fatal.is_none() {
                status.state = State::Live;
                status.reason = None;
            }
            status.epoch = self.owned.epoch;
            status.batch = self.owned.batch;
            status.positions = self.places.iter().map(|(topic, place)| (topic.clone(), place.next_offset)).collect();
            status.sequence = self.sequences[0];
            status.acked_sequence = self.publisher.progress.borrow().events_sequence();
            status.open_effects = self.effects.len();
            status.oldest_timer_seconds = self.timers.overdue_since(now).map_or(0, |since| (now.0 - since.0) / 1_000);
        });
    }

    fn put_back(&mut self, batch: Batch<S::Input>) {
        for item in batch.items.into_iter().rev() {
            self.ready.push_front(item);
        }
        self.tries.extend(batch.tries);
        self.forget.extend(batch.forget);
    }

    /// Something in the batch is at fault: commit what stands before it, then stop at it. Nothing is lost.
    fn narrow(&mut self, batch: Batch<S::Input>, index: usize, reason: String) -> Result<(), Ended> {
        let count = batch.items.len();
        let single = count <= 1 || (index == 0 && self.limit == 1);
        let culprit = batch.items.get(index).map_or_else(|| "a timer".to_owned(), |item| item.what.describe());
        self.put_back(batch);
        if single {
            error!(kafka.partition = self.owned.partition, reason, "{culprit} cannot be applied");
            return Err(Ended::Stopped(format!("{culprit} cannot be applied: {reason}")));
        }
        self.limit = if index > 0 { index } else { count / 2 };
        Ok(())
    }

    async fn wait_out(&mut self, error: &sqlx::Error) {
        warn!(%error, kafka.partition = self.owned.partition, "the database does not take the batch; it is kept");
        self.shared.meters.outages.inc();
        let reason = format!("the database is not available: {error}");
        self.shared.status.set(self.owned.partition, State::Waiting, Some(reason));
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep(self.backoff) => {}
        }
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
    }

    /// Turns results of tries into inputs, or plans the next try.
    fn collect_done(&mut self) {
        while let Ok(done) = self.done.1.try_recv() {
            self.take_done(done);
        }
        while let Ok(ends) = self.ends.1.try_recv() {
            self.timers.answer(ends);
        }
    }

    fn take_done(&mut self, done: Done<S::Input>) {
        let name = (done.mark.key, done.mark.kind);
        if !self.effects.is_current(&done.mark) {
            return;
        }
        let (after, failed, pending, error) = match done.outcome {
            Outcome::Answer(input) => {
                if self.effects.finish(name) {
                    self.forget.push(name);
                }
                self.ready.push_back(Item { what: What::Answer(input, done.mark.set_by), place: None });
                return;
            }
            Outcome::Pending { ask_after } => (ask_after, false, true, None),
            Outcome::Failed { code, message } => {
                let number = self.effects.attempt(name, self.clock.now()).map_or(1, |attempt| attempt.number);
                warn!(effect = done.mark.kind, key = done.mark.key, number, code, message, "an effect failed");
                let wait = effects::delay(number, rand::random());
                (wait, true, false, Some(format!("{code}: {message}")))
            }
            Outcome::Unreachable { message } => {
                debug!(effect = done.mark.kind, message, "the other side of an effect is not reachable");
                (UNREACHABLE.mul_f64(0.5 + rand::random::<f64>()), false, false, None)
            }
        };
        let next_try_at = self.clock.now().plus(after);
        let stored = pending || failed;
        let attempts = self.effects.again(name, next_try_at, failed, stored);
        if stored {
            let attempts = i32::try_from(attempts).unwrap_or(i32::MAX);
            self.tries.push(OpenTry { key: name.0, kind: name.1, attempts, next_try_at, pending, error });
        }
    }

    async fn start_effects(&mut self, progress: &Progress, now: Timestamp) -> Result<(), sqlx::Error> {
        let acked = progress.events_sequence();
        let marks = self.effects.start(acked, now, self.timers.horizon(), EFFECTS_READ_MAX);
        if marks.is_empty() {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        let partition = self.owned.partition;
        let wanted = marks.clone();
        let read = tokio::spawn(async move {
            let mut conn = shared.pool.acquire().await?;
            shared.service.effects_read(&mut conn, partition, &wanted).await
        });
        let found = match read.await.expect("reading effects does not panic") {
            Ok(found) => found,
            Err(error) => {
                for mark in marks {
                    self.effects.again((mark.key, mark.kind), now.plus(UNREACHABLE), false, false);
                }
                return Err(error);
            }
        };
        for mark in &marks {
            let asked = found.iter().any(|(asked, _)| asked.key == mark.key && asked.kind == mark.kind);
            let name = (mark.key, mark.kind);
            if !asked && self.effects.finish(name) {
                self.forget.push(name);
            }
        }
        for (mark, effect) in found {
            self.perform(mark, effect, now);
        }
        Ok(())
    }

    fn perform(&self, mark: EffectMark, effect: S::Effect, now: Timestamp) {
        let Some(attempt) = self.effects.attempt((mark.key, mark.kind), now) else {
            return;
        };
        let shared = Arc::clone(&self.shared);
        let done = self.done.0.clone();
        tokio::spawn(async move {
            let permit = Arc::clone(&shared.effects).acquire_owned().await.expect("never closed");
            shared.meters.effect_tries.inc();
            let call = tokio::spawn(async move { shared.service.perform(&effect, attempt).await });
            let outcome =
                call.await.unwrap_or_else(|error| Outcome::Failed { code: "PANIC", message: error.to_string() });
            drop(permit);
            // The processor may have ended: its successor asks the other side.
            drop(done.send(Done { mark, outcome }));
        });
    }

    /// Asks for the ends of the inputs when something is due that lies beyond what is known to be read.
    fn ask_for_ends(&mut self, now: Timestamp) {
        self.timers.reach(&self.places);
        let timed = self.effects.next_not_before(now);
        if self.timers.must_ask(now, timed) {
            let (shared, partition, reply) = (Arc::clone(&self.shared), self.owned.partition, self.ends.0.clone());
            tokio::spawn(async move {
                let ends = shared.input_ends(partition).await;
                if let Err(error) = &ends {
                    debug!(%error, "the ends of the inputs are not known; timers rest");
                    tokio::time::sleep(IDLE_MAX).await;
                }
                drop(reply.send(ends.ok()));
            });
        }
    }

    /// Waits for whatever comes first.
    async fn idle(&mut self, progress: &Progress) {
        let mut wait = IDLE_MAX;
        let now = self.clock.now();
        for time in [self.timers.next_time(), self.effects.next_time()].into_iter().flatten() {
            let millis = u64::try_from(time.0.saturating_sub(now.0)).unwrap_or(0);
            // Something due that waits for ends or acknowledgements is looked at again soon, not at once.
            wait = wait.min(Duration::from_millis(millis.max(20)));
        }
        if progress.acked_batch > self.forgotten_batch {
            wait = wait.min(FORGET_AFTER.saturating_sub(self.last_commit.elapsed()));
        }
        let open = self.peeked.is_none() && self.fatal.is_none() && self.sent - progress.records < UNSENT_RECORDS_MAX;
        tokio::select! {
            () = self.stop.cancelled() => {}
            record = self.feed.next(), if open => self.peeked = record,
            done = self.done.1.recv() => if let Some(done) = done { self.take_done(done) },
            ends = self.ends.1.recv() => if let Some(ends) = ends { self.timers.answer(ends) },
            changed = self.publisher.progress.changed() => {
                if changed.is_err() {
                    tokio::time::sleep(wait).await;
                }
            }
            () = tokio::time::sleep(wait) => {}
        }
        if self.blocked_until.is_some_and(|until| until <= Instant::now()) {
            self.blocked_until = None;
        }
    }
}

impl<I> What<I> {
    fn describe(&self) -> String {
        match self {
            Self::Record(input) => {
                let at = &input.position;
                format!("the record at {}/{} offset {}", at.topic, at.partition, at.offset)
            }
            Self::Dead(record, _) => {
                format!("the record at {}/{} offset {}", record.topic, record.partition, record.offset)
            }
            Self::Answer(_, set_by) => {
                format!("the answer to the effect set by event {}", set_by.event_id)
            }
            Self::Passed => "a record that was passed over".to_owned(),
        }
    }
}
