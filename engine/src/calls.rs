//! The calls of a processor to the outside: starts what may start, takes in what came of it, keeps what must be stored.
//!
//! When an effect may start is [`crate::effects`]'s; an answer becomes an input of the processor's next batch.

use std::sync::Arc;
use std::time::Duration;

use events::time::Timestamp;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::effects::{self, Effects, Name};
use crate::held::Queues;
use crate::service::{EffectMark, Outcome, Service};
use crate::shared::Shared;
use crate::store::OpenTry;

/// Effects read at once.
const READ_MAX: usize = 500;
/// An effect whose other side is not reachable is tried again after about this.
const UNREACHABLE: Duration = Duration::from_secs(1);

/// The result of a try.
#[derive(Debug)]
pub(crate) struct Done<I> {
    mark: EffectMark,
    outcome: Outcome<I>,
}

/// What the next batch stores about tries: scheduling, outside the fold.
#[derive(Debug, Default)]
pub(crate) struct Scheduling {
    /// Tries without an answer.
    pub(crate) tries: Vec<OpenTry>,
    /// Effects that are through.
    pub(crate) forget: Vec<Name>,
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
    done: Channel<Done<S::Input>>,
}

impl<S: Service> Calls<S> {
    pub(crate) fn new(shared: Arc<Shared<S>>, partition: i32, effects: Effects) -> Self {
        Self { shared, partition, effects, scheduling: Scheduling::default(), done: mpsc::unbounded_channel() }
    }

    /// How many effects wait for an answer or a try.
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

    /// Waits for a result.
    pub(crate) async fn result(&mut self) -> Done<S::Input> {
        self.done.1.recv().await.expect("this end keeps a sender")
    }

    /// The answers that have come.
    pub(crate) fn answers(&mut self, now: Timestamp) -> Vec<(S::Input, EffectMark)> {
        let mut answers = Vec::new();
        while let Ok(done) = self.done.1.try_recv() {
            answers.extend(self.judge(done, now));
        }
        answers
    }

    /// The answer of a result, as an input; or the next try is planned. An answered effect stays open until a batch has
    /// taken the answer in.
    pub(crate) fn judge(&mut self, done: Done<S::Input>, now: Timestamp) -> Option<(S::Input, EffectMark)> {
        let name = (done.mark.key, done.mark.kind);
        if !self.effects.is_current(&done.mark) {
            return None;
        }
        match done.outcome {
            Outcome::Answer(input) => return Some((input, done.mark)),
            Outcome::Pending { ask_after } => self.again(name, now.plus(ask_after), false, Some((true, None))),
            Outcome::Failed { code, message } => self.failed(done.mark, code, &message, now),
            Outcome::Unreachable { message } => {
                debug!(effect = done.mark.kind, message, "the other side of an effect is not reachable");
                let wait = UNREACHABLE.mul_f64(0.5 + rand::random::<f64>());
                self.again(name, now.plus(wait), false, None);
            }
        }
        None
    }

    /// A try erred, or what it answered cannot be applied: the next one comes after a while.
    pub(crate) fn failed(&mut self, mark: EffectMark, code: &str, message: &str, now: Timestamp) {
        if !self.effects.is_current(&mark) {
            return;
        }
        let name = (mark.key, mark.kind);
        let number = self.effects.attempt(name, now).map_or(1, |attempt| attempt.number);
        warn!(effect = mark.kind, key = mark.key, number, code, message, "an effect failed");
        let wait = effects::delay(number, rand::random());
        self.again(name, now.plus(wait), true, Some((false, Some(format!("{code}: {message}")))));
    }

    /// Plans the next try; one that is stored says whether it is pending, and what went wrong.
    fn again(&mut self, name: Name, next_try_at: Timestamp, failed: bool, stored: Option<(bool, Option<String>)>) {
        let attempts = self.effects.again(name, next_try_at, failed, stored.is_some());
        if let Some((pending, error)) = stored {
            let attempts = i32::try_from(attempts).unwrap_or(i32::MAX);
            let open = OpenTry { key: name.0, kind: name.1, attempts, next_try_at, pending, error };
            self.scheduling.tries.retain(|earlier| (earlier.key, earlier.kind) != name);
            self.scheduling.forget.retain(|earlier| *earlier != name);
            self.scheduling.tries.push(open);
        }
    }

    /// What a batch that takes these answers in must forget beside what waits.
    pub(crate) fn scheduling_with(&mut self, answered: impl Iterator<Item = EffectMark>) -> Scheduling {
        let mut scheduling = std::mem::take(&mut self.scheduling);
        for mark in answered {
            let name = (mark.key, mark.kind);
            scheduling.tries.retain(|earlier| (earlier.key, earlier.kind) != name);
            if self.effects.is_stored(&mark) && !scheduling.forget.contains(&name) {
                scheduling.forget.push(name);
            }
        }
        scheduling
    }

    /// A batch has taken the answer in.
    pub(crate) fn answered(&mut self, mark: &EffectMark) {
        if self.effects.is_current(mark) {
            self.effects.finish((mark.key, mark.kind));
        }
    }

    /// Nothing of this key is held any more: its effects may start.
    pub(crate) fn release(&mut self, key: i64, now: Timestamp) {
        self.effects.release(key, now);
    }

    /// The effect is no longer asked for; a try that waits to be stored must not outlive it.
    fn finish(&mut self, name: Name) {
        self.scheduling.tries.retain(|earlier| (earlier.key, earlier.kind) != name);
        if self.effects.finish(name) {
            self.scheduling.forget.push(name);
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
                    self.effects.again((mark.key, mark.kind), now.plus(UNREACHABLE), false, false);
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
}
