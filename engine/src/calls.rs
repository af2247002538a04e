//! The calls of a processor to the outside: starts what may start, takes in what came of it, keeps what must be stored.
//!
//! When an effect may start is [`crate::effects`]'s; an answer becomes an input of the processor's next batch, and so does
//! an effect whose attempts are used up, with the event that asked for it ([`crate::exhausted`]).

use std::sync::Arc;
use std::time::Duration;

use events::time::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::acts::{Act, Deed};
use crate::effects::{self, Dead, DeadEffect, Effects, Forgotten, Name};
use crate::exhausted::{self, Exhausted};
use crate::held::Queues;
use crate::item::What;
use crate::letter::{Class, Flaw, bounded};
use crate::record::Record;
use crate::service::{EffectMark, Outcome, Service};
use crate::shared::Shared;
use crate::store::OpenTry;

/// Effects read at once.
const READ_MAX: usize = 500;
/// What went wrong is kept up to this length.
const ERROR_BYTES_MAX: usize = 1_024;
/// An effect whose other side is not reachable is tried again after about this.
const UNREACHABLE: Duration = Duration::from_secs(1);

/// What a processor's calls have to tell it.
#[derive(Debug)]
pub(crate) enum Done<I> {
    /// The result of a try.
    Tried(EffectMark, Outcome<I>),
    /// The events of effects whose attempts are used up.
    Exhausted(Vec<(Exhausted, Record)>),
}

/// There is nothing that an act could be about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Void;

/// What the next batch stores about tries: scheduling, outside the fold.
#[derive(Debug, Default)]
pub(crate) struct Scheduling {
    /// Tries without an answer.
    pub(crate) tries: Vec<OpenTry>,
    /// Effects that are through.
    pub(crate) forget: Vec<Forgotten>,
}

impl Scheduling {
    pub(crate) fn is_empty(&self) -> bool {
        self.tries.is_empty() && self.forget.is_empty()
    }
}

type Channel<T> = (mpsc::UnboundedSender<T>, mpsc::UnboundedReceiver<T>);

/// The calls of one processor.
pub(crate) struct Calls<S: Service> {
    shared: Arc<Shared<S>>,
    partition: i32,
    effects: Effects,
    scheduling: Scheduling,
    /// Attempts are used up; their events are to be read back.
    exhausted: Vec<Exhausted>,
    reading: bool,
    /// No call begins once this is cancelled.
    given_back: CancellationToken,
    on_their_way: TaskTracker,
    done: Channel<Done<S::Input>>,
}

impl<S: Service> Calls<S> {
    /// `stale`: what the first batch forgets.
    pub(crate) fn new(
        shared: Arc<Shared<S>>,
        partition: i32,
        effects: Effects,
        stale: Vec<Forgotten>,
        given_back: CancellationToken,
    ) -> Self {
        Self {
            shared,
            partition,
            effects,
            scheduling: Scheduling { forget: stale, ..Scheduling::default() },
            exhausted: Vec::new(),
            reading: false,
            given_back,
            on_their_way: TaskTracker::new(),
            done: mpsc::unbounded_channel(),
        }
    }

    /// How many effects wait for an answer or a try, dead ones aside.
    pub(crate) fn open(&self) -> usize {
        self.effects.len()
    }

    /// Takes in what a batch asked for.
    pub(crate) fn set(&mut self, marks: Vec<EffectMark>) {
        self.effects.set(marks);
    }

    /// The earliest time at which one may start, acknowledgements aside.
    pub(crate) fn next_time(&self) -> Option<Timestamp> {
        self.effects.next_time()
    }

    /// The earliest time that must be behind the horizon, among those due by `now`.
    pub(crate) fn next_not_before(&self, now: Timestamp) -> Option<Timestamp> {
        self.effects.next_not_before(now)
    }

    /// True when a batch must store something.
    pub(crate) fn must_store(&self) -> bool {
        !self.scheduling.is_empty()
    }

    /// The batch did not commit.
    pub(crate) fn put_back(&mut self, scheduling: Scheduling) {
        self.scheduling.tries.extend(scheduling.tries);
        self.scheduling.forget.extend(scheduling.forget);
    }

    /// Waits until no call is on its way; none may begin any more.
    pub(crate) async fn all_ended(&self) {
        self.on_their_way.close();
        self.on_their_way.wait().await;
    }

    /// Waits for a result.
    pub(crate) async fn result(&mut self) -> Done<S::Input> {
        self.done.1.recv().await.expect("this end keeps a sender")
    }

    /// What has come by now, as inputs.
    pub(crate) fn results(&mut self, now: Timestamp) -> Vec<What<S::Input>> {
        let mut results = Vec::new();
        while let Ok(done) = self.done.1.try_recv() {
            results.extend(self.judge(done, now));
        }
        results
    }

    /// A result as inputs; or the next try is planned. The effect stays open until a batch has taken it in.
    pub(crate) fn judge(&mut self, done: Done<S::Input>, now: Timestamp) -> Vec<What<S::Input>> {
        match done {
            Done::Tried(mark, outcome) => self.tried(mark, outcome, now).into_iter().collect(),
            Done::Exhausted(exhausted) => {
                self.reading = false;
                let whats = exhausted.into_iter().map(|(one, event)| What::Exhausted(Box::new(one), Box::new(event)));
                whats.collect()
            }
        }
    }

    fn tried(&mut self, mark: EffectMark, outcome: Outcome<S::Input>, now: Timestamp) -> Option<What<S::Input>> {
        let name = (mark.key, mark.kind);
        if !self.effects.is_current(&mark) {
            return None;
        }
        match outcome {
            Outcome::Answer(input) => return Some(What::Answer(input, mark)),
            Outcome::Pending { ask_after } => self.again(name, now.plus(ask_after), Some((true, None))),
            Outcome::Failed { code, message } => self.failed(mark, code, &message, now),
            Outcome::Unreachable { message } => {
                debug!(effect = mark.kind, message, "the other side of an effect is not reachable");
                let wait = UNREACHABLE.mul_f64(0.5 + rand::random::<f64>());
                self.again(name, now.plus(wait), None);
            }
        }
        None
    }

    /// A try erred, or what it answered cannot be applied: the next one comes after a while, if there is one.
    pub(crate) fn failed(&mut self, mark: EffectMark, code: &str, message: &str, now: Timestamp) {
        if !self.effects.is_current(&mark) {
            return;
        }
        let name = (mark.key, mark.kind);
        let Some((attempts, first_at)) = self.effects.failed(name, now) else { return };
        warn!(effect = mark.kind, key = mark.key, number = attempts, code, message, "an effect failed");
        // What was dead already had its one more try.
        let delays = if self.effects.is_dead(&mark) { &[][..] } else { &self.shared.settings.effect_delays };
        match effects::delay(delays, attempts, rand::random()) {
            Some(wait) => {
                let error = bounded(&format!("{code}: {message}"), ERROR_BYTES_MAX);
                self.again(name, now.plus(wait), Some((false, Some(error))));
            }
            None => {
                let flaw = Flaw { class: Class::Effect, code: code.to_owned().into(), message: message.to_owned() };
                self.exhausted.push(Exhausted { mark, attempts, first_at, flaw });
            }
        }
    }

    /// Reads the events back whose effects have used up their attempts.
    fn read_back(&mut self) {
        if !self.reading && !self.exhausted.is_empty() {
            self.reading = true;
            let (shared, done) = (Arc::clone(&self.shared), self.done.0.clone());
            let exhausted = std::mem::take(&mut self.exhausted);
            tokio::spawn(exhausted::read_back(shared, self.partition, exhausted, done));
        }
    }

    /// Plans the next try; one that is stored says whether it is pending, and what went wrong.
    fn again(&mut self, name: Name, next_try_at: Timestamp, stored: Option<(bool, Option<String>)>) {
        let Some((attempts, failed_at)) = self.effects.again(name, next_try_at, stored.is_some()) else { return };
        if let Some((pending, error)) = stored {
            let attempts = i32::try_from(attempts).unwrap_or(i32::MAX);
            let open = OpenTry { key: name.0, kind: name.1, attempts, next_try_at, pending, failed_at, error };
            self.scheduling.tries.retain(|earlier| (earlier.key, earlier.kind) != name);
            self.scheduling.forget.retain(|(key, kind)| (*key, &**kind) != name);
            self.scheduling.tries.push(open);
        }
    }

    /// What a batch that takes the ends of these effects in must forget beside what waits.
    pub(crate) fn scheduling_with(&mut self, ended: impl Iterator<Item = EffectMark>) -> Scheduling {
        let mut scheduling = std::mem::take(&mut self.scheduling);
        for mark in ended {
            let name = (mark.key, mark.kind);
            scheduling.tries.retain(|earlier| (earlier.key, earlier.kind) != name);
            let is_new = scheduling.forget.iter().all(|(key, kind)| (*key, &**kind) != name);
            if self.effects.is_stored(&mark) && is_new {
                scheduling.forget.push((name.0, name.1.into()));
            }
        }
        scheduling
    }

    /// A batch has taken in its answer, or that its attempts are used up: it is through, unless it is dead.
    pub(crate) fn ended(&mut self, mark: &EffectMark) {
        let name = (mark.key, mark.kind);
        if self.effects.is_dead(mark) {
            self.effects.rest(name);
        } else if self.effects.is_current(mark) {
            self.effects.finish(name);
        }
    }

    /// The dead effects, as a batch sees them.
    pub(crate) fn dead(&self) -> Arc<Dead> {
        Arc::clone(self.effects.dead())
    }

    /// Takes in which effects are dead by now, of the keys where that changed.
    pub(crate) fn bury(&mut self, changed: Dead) {
        for (key, dead) in changed {
            for mark in self.effects.bury(key, dead) {
                self.finish((mark.key, mark.kind));
            }
        }
    }

    /// Acts that are under way.
    pub(crate) fn acts(&self) -> Vec<i64> {
        self.effects.dead().values().flatten().filter_map(|DeadEffect { act, .. }| Some(act.as_ref()?.id)).collect()
    }

    /// An operator wants this of the dead effect that the event at this offset asked for: it is tried once more, or what
    /// discards it is an input. `Err` when there is nothing to be done.
    pub(crate) fn wanted(
        &mut self,
        offset: i64,
        kind: &str,
        act: Act,
        now: Timestamp,
    ) -> Result<Option<What<S::Input>>, Void> {
        let mark = self.effects.dead_at(offset, kind).ok_or(Void)?;
        let what = match act.deed {
            Deed::Redrive => {
                self.effects.redrive(&mark, now);
                None
            }
            Deed::Discard => {
                let input = self.shared.service.discard_effect(mark.key, mark.kind).ok_or(Void)?;
                Some(What::Answer(input, mark))
            }
        };
        self.effects.want(&mark, act);
        Ok(what)
    }

    /// Nothing of this key is held any more: its effects may start.
    pub(crate) fn release(&mut self, key: i64, now: Timestamp) {
        self.effects.release(key, now);
    }

    /// The effect is no longer asked for; a try that waits to be stored must not outlive it.
    fn finish(&mut self, name: Name) {
        self.scheduling.tries.retain(|earlier| (earlier.key, earlier.kind) != name);
        if self.effects.finish(name) {
            self.scheduling.forget.push((name.0, name.1.into()));
        }
    }

    /// Starts the effects that may start: their events are acknowledged up to `acked`, what must be read is read up to
    /// `horizon`, and nothing of their key is held.
    ///
    /// # Errors
    /// When the database does not answer; they are tried again.
    pub(crate) async fn start(
        &mut self,
        acked: i64,
        now: Timestamp,
        horizon: Timestamp,
        held: &Queues,
    ) -> Result<(), sqlx::Error> {
        self.read_back();
        let marks = self.effects.start(acked, now, horizon, READ_MAX, |key| held.rests(key));
        if marks.is_empty() {
            return Ok(());
        }
        let (shared, partition, wanted) = (Arc::clone(&self.shared), self.partition, marks.clone());
        let read = tokio::spawn(async move {
            let mut conn = shared.pool.acquire().await?;
            shared.service.effects_read(&mut conn, partition, &wanted).await
        });
        let found = match read.await.expect("reading effects does not panic") {
            Ok(found) => found,
            Err(error) => {
                for mark in marks {
                    self.effects.again((mark.key, mark.kind), now.plus(UNREACHABLE), false);
                }
                return Err(error);
            }
        };
        for mark in &marks {
            if !found.iter().any(|(asked, _)| asked.key == mark.key && asked.kind == mark.kind) {
                self.finish((mark.key, mark.kind));
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
        let (done, given_back) = (self.done.0.clone(), self.given_back.clone());
        self.on_their_way.spawn(async move {
            let permit = tokio::select! {
                biased;
                () = given_back.cancelled() => return,
                permit = Arc::clone(&shared.effects).acquire_owned() => permit.expect("never closed"),
            };
            shared.meters.effect_tries.inc();
            let call = tokio::spawn(async move { shared.service.perform(&effect, attempt).await });
            let outcome =
                call.await.unwrap_or_else(|error| Outcome::Failed { code: "PANIC", message: error.to_string() });
            drop(permit);
            // The processor may have ended: its successor asks the other side.
            drop(done.send(Done::Tried(mark, outcome)));
        });
    }
}
