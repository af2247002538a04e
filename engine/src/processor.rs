//! The loop of a processor: gather, commit a batch, publish, start effects, answer timers; again.
//!
//! It never sleeps while there is something to do, and holds nothing that a new owner could not read from Postgres.
//! Who owns which processor is [`crate::assignment`]'s; the transaction itself is [`crate::batch`]'s.

mod commit;
mod giving_back;
mod trouble;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use events::time::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::batch::Batch;
use crate::calls::{Calls, Done};
use crate::effects::{Effects, Forgotten};
use crate::failpoint;
use crate::feed::Feed;
use crate::held::{Queues, Source};
use crate::inbox::Inbox;
use crate::intake::Place;
use crate::item::What;
use crate::outbox::Progress;
use crate::publisher::Publisher;
use crate::service::{Service, Window};
use crate::shared::Shared;
use crate::status::State;
use crate::store::{self, OutputState, Owned};
use crate::storm::Storm;
use crate::timers::{Clock, Ends, Rests, Timers};
use crate::turns::{Returning, Turn};

/// An idle processor forgets acknowledged outbox rows after this.
const FORGET_AFTER: Duration = Duration::from_millis(500);
/// Longest sleep of an idle processor.
const IDLE_MAX: Duration = Duration::from_secs(1);

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

/// A processor that owns its partition.
pub(crate) struct Processor<S: Service> {
    shared: Arc<Shared<S>>,
    owned: Owned,
    stop: CancellationToken,
    publisher: Publisher,
    calls: Calls<S>,
    timers: Timers,
    clock: Clock,
    /// Where it stands, committed, by topic name on the broker.
    places: HashMap<String, Place>,
    sequences: [i64; 3],
    model: Place,
    inbox: Inbox<S>,
    held: Queues,
    /// Held records that are among the items of the inbox.
    trying: HashSet<Source>,
    /// Acts of operators about records that are gone.
    void_acts: Vec<i64>,
    /// Answers whose key waits for a held record.
    put_off: HashMap<i64, Vec<What<S::Input>>>,
    /// Timers that cannot be applied.
    rests: Rests,
    storm: Storm,
    limit: usize,
    forgotten_batch: i64,
    /// What Kafka has of the own topics, as far as that is written.
    acked: [OutputState; 3],
    ends: (mpsc::UnboundedSender<Option<Ends>>, mpsc::UnboundedReceiver<Option<Ends>>),
    last_commit: Instant,
    /// Its batch has just ended, and it has not looked yet whether there is another.
    returning: Option<Returning>,
}

/// What preparing found.
pub(crate) struct Prepared {
    pub(crate) owned: Owned,
    pub(crate) places: HashMap<String, Place>,
    pub(crate) publisher: Publisher,
    pub(crate) effects: Effects,
    /// Effects that nobody asks for any more, with tries in the table.
    pub(crate) stale: Vec<Forgotten>,
    pub(crate) held: Queues,
    pub(crate) timers: Timers,
    pub(crate) clock: Clock,
    pub(crate) sequences: [i64; 3],
    /// What the database says of the own topics.
    pub(crate) acked: [OutputState; 3],
    pub(crate) model: Place,
}

impl<S: Service> Processor<S> {
    pub(crate) fn new(shared: Arc<Shared<S>>, prepared: Prepared, feed: Feed, stop: CancellationToken) -> Self {
        let inbox = Inbox::new(Arc::clone(&shared), prepared.owned.partition, feed, &prepared.places);
        let limit = shared.settings.batch_max;
        Self {
            owned: prepared.owned,
            stop: stop.clone(),
            publisher: prepared.publisher,
            calls: Calls::new(Arc::clone(&shared), prepared.owned.partition, prepared.effects, prepared.stale, stop),
            timers: prepared.timers,
            clock: prepared.clock,
            places: prepared.places,
            sequences: prepared.sequences,
            model: prepared.model,
            inbox,
            held: prepared.held,
            trying: HashSet::new(),
            void_acts: Vec::new(),
            put_off: HashMap::new(),
            rests: Rests::default(),
            storm: Storm::default(),
            limit,
            // What an earlier owner left, or did not come to forget, goes with the first batch.
            forgotten_batch: 0,
            acked: prepared.acked,
            ends: mpsc::unbounded_channel(),
            last_commit: Instant::now(),
            returning: None,
            shared,
        }
    }

    /// Works until it is revoked, must be assigned anew, or stops.
    pub(crate) async fn run(mut self) -> Ended {
        let ended = self.work().await;
        if ended == Ended::Revoked {
            self.give_back().await;
        }
        self.publisher.finish().await;
        ended
    }

    async fn work(&mut self) -> Ended {
        let partition = self.owned.partition;
        self.shared.status.set(partition, State::Live, None);
        if let Err(error) = failpoint::reach("E3").await {
            return Ended::Again(error.to_string());
        }
        loop {
            if self.stop.is_cancelled() {
                return Ended::Revoked;
            }
            let ended = self.publisher.has_ended();
            let progress = self.publisher.progress.borrow_and_update().clone();
            if let Some(reason) = progress.forked {
                return self.forked(&reason).await;
            }
            if ended {
                return Ended::Again("its publisher has ended".to_owned());
            }
            self.acknowledged(&progress);
            let now = self.clock.now();
            self.collect(now);
            if self.shared.resume.take(partition) {
                self.storm.resume();
            }
            if let Err(ended) = self.try_held(now).await {
                return ended;
            }
            if self.rests.end(now) {
                self.timers.look(now);
            }
            let takes = self.takes_in(&progress);
            if takes {
                self.inbox.judge(self.limit, true).await;
            }
            self.ask_for_ends(now);
            let (acked, horizon) = (progress.events_sequence(), self.timers.horizon());
            if let Err(error) = self.calls.start(acked, now, horizon, &self.held).await {
                debug!(%error, kafka.partition = partition, "effects wait for the database");
            }
            let window = self.timers.window(now).filter(|_| takes && !self.inbox.is_blocked());
            if self.has_work(window, &progress) {
                let turn = self.turn().await;
                // What has come while it waited goes along.
                if takes {
                    self.inbox.judge(self.limit, false).await;
                }
                if let Err(ended) = self.commit(window, &progress, turn).await {
                    return ended;
                }
            } else if let Some(reason) = self.inbox.fatal() {
                return Ended::Stopped(reason.to_owned());
            } else {
                self.idle(&progress).await;
            }
        }
    }

    /// Another writer was found on an own topic: a successor whom this owner has not noticed yet, or a second database.
    async fn forked(&self, reason: &str) -> Ended {
        let (shared, partition) = (Arc::clone(&self.shared), self.owned.partition);
        let read = tokio::spawn(async move {
            let mut conn = shared.pool.acquire().await?;
            store::epoch(&mut conn, partition).await
        });
        match read.await.expect("reading does not panic") {
            Ok(epoch) if epoch == Some(self.owned.epoch) => {
                Ended::Stopped(format!("{reason}; run `{}`", self.shared.rebuild_hint()))
            }
            Ok(_) => Ended::Again("another owner got ahead".to_owned()),
            // The next assignment compares log and database before anything else.
            Err(error) => Ended::Again(format!("{reason}; who owns it is not known: {error}")),
        }
    }

    fn acknowledged(&mut self, progress: &Progress) {
        self.shared.acked.set(self.owned.partition, progress.events_sequence());
        // Batches that decided nothing have nothing to wait for.
        let all = self.publisher.all_acknowledged(progress);
        let batch = if all { self.owned.batch } else { progress.acked_batch };
        self.inbox.feed.acknowledged(batch, self.owned.batch, &self.places);
    }

    /// True while further records may be taken in; timers rest with them.
    fn takes_in(&self, progress: &Progress) -> bool {
        let full = self.held.full();
        if full.is_some() {
            self.shared.status.set(self.owned.partition, State::Waiting, full.clone());
        }
        full.is_none() && !self.storm.is_paused() && self.publisher.has_room(progress)
    }

    /// Turns results of effects into inputs, and takes in the ends that were asked for.
    fn collect(&mut self, now: Timestamp) {
        for what in self.calls.results(now) {
            self.answer(what);
        }
        while let Ok(ends) = self.ends.1.try_recv() {
            self.timers.answer(ends);
        }
    }

    fn has_work(&self, window: Option<Window>, progress: &Progress) -> bool {
        if let Some(trial) = self.storm.next_trial() {
            return trial <= Instant::now() && !self.inbox.is_empty();
        }
        let forgettable = progress.acked_batch > self.forgotten_batch && self.last_commit.elapsed() >= FORGET_AFTER;
        let due = self.inbox.due(self.limit).is_some_and(|due| due <= Instant::now());
        due || window.is_some() || self.calls.must_store() || !self.void_acts.is_empty() || forgettable
    }

    async fn turn(&mut self) -> Turn<S::Input> {
        let returning = self.returning.take();
        self.shared.turns.take(returning).await
    }

    fn tell(&self) {
        let now = self.clock.now();
        self.shared.status.update(self.owned.partition, |status| {
            status.held = self.held.len();
            if self.inbox.is_open() && !self.storm.is_paused() && self.held.full().is_none() {
                status.state = State::Live;
                status.reason = None;
            }
            status.epoch = self.owned.epoch;
            status.batch = self.owned.batch;
            status.positions = self.places.iter().map(|(topic, place)| (topic.clone(), place.next_offset)).collect();
            status.sequence = self.sequences[0];
            status.acked_sequence = self.publisher.progress.borrow().events_sequence();
            status.open_effects = self.calls.open();
            status.oldest_timer_seconds = self.timers.overdue_since(now).map_or(0, |since| (now.0 - since.0) / 1_000);
        });
    }

    fn put_back(&mut self, batch: Batch<S::Input>) {
        self.inbox.put_back(batch.items);
        self.calls.put_back(batch.scheduling);
        self.void_acts.extend(batch.void_acts);
    }

    async fn wait_out(&mut self, reason: &str) {
        self.returning = None;
        warn!(reason, kafka.partition = self.owned.partition, "the database does not take the batch; it is kept");
        self.shared.meters.outages.inc();
        self.shared.breakers.postgres.failed(reason);
        let reason = format!("the database is not available: {reason}");
        self.shared.status.set(self.owned.partition, State::Waiting, Some(reason));
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.shared.breakers.postgres.settled() => {}
        }
    }

    fn take(&mut self, done: Done<S::Input>) {
        let now = self.clock.now();
        for what in self.calls.judge(done, now) {
            self.answer(what);
        }
    }

    /// Asks for the ends of the inputs when something is due that lies beyond what is known to be read.
    fn ask_for_ends(&mut self, now: Timestamp) {
        self.timers.reach(&self.places);
        let timed = self.calls.next_not_before(now);
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
        self.returning = None;
        self.tell();
        let mut wait = IDLE_MAX;
        let now = self.clock.now();
        let rests = self.rests.next_time();
        let held = self.held.next_time().filter(|_| self.trying.is_empty());
        for time in [self.timers.next_time(), self.calls.next_time(), held, rests].into_iter().flatten() {
            let millis = u64::try_from(time.0.saturating_sub(now.0)).unwrap_or(0);
            // Something due that waits for ends or acknowledgements is looked at again soon, not at once.
            wait = wait.min(Duration::from_millis(millis.max(20)));
        }
        if progress.acked_batch > self.forgotten_batch {
            wait = wait.min(FORGET_AFTER.saturating_sub(self.last_commit.elapsed()));
        }
        if let Some(due) = self.inbox.due(self.limit) {
            wait = wait.min(due.saturating_duration_since(Instant::now()));
        }
        if let Some(trial) = self.storm.next_trial() {
            wait = wait.min(trial.saturating_duration_since(Instant::now()));
        }
        let open = self.inbox.is_open() && self.takes_in(progress);
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.inbox.wait(), if open => {}
            done = self.calls.result() => self.take(done),
            ends = self.ends.1.recv() => if let Some(ends) = ends { self.timers.answer(ends) },
            // An error is a publisher that ended: the loop sees to it.
            _ = self.publisher.progress.changed() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}
