//! The calls of a processor to the outside: starts what may start, takes in what came of it, keeps what must be stored.
//!
//! When an effect may start is [`crate::effects`]'s; an answer becomes an input of the processor's next batch.

use std::sync::Arc;
use std::time::Duration;

use events::record::SetBy;
use events::time::Timestamp;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::effects::{self, Effects, Name};
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

    pub(crate) fn take_scheduling(&mut self) -> Scheduling {
        std::mem::take(&mut self.scheduling)
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
    pub(crate) fn answers(&mut self, now: Timestamp) -> Vec<(S::Input, SetBy)> {
        let mut answers = Vec::new();
        while let Ok(done) = self.done.1.try_recv() {
            answers.extend(self.judge(done, now));
        }
        answers
    }

    /// The answer of a result, as an input; or the next try is planned.
    pub(crate) fn judge(&mut self, done: Done<S::Input>, now: Timestamp) -> Option<(S::Input, SetBy)> {
        let name = (done.mark.key, done.mark.kind);
        if !self.effects.is_current(&done.mark) {
            return None;
        }
        let (after, failed, pending, error) = match done.outcome {
            Outcome::Answer(input) => {
                self.finish(name);
                return Some((input, done.mark.set_by));
            }
            Outcome::Pending { ask_after } => (ask_after, false, true, None),
            Outcome::Failed { code, message } => {
                let number = self.effects.attempt(name, now).map_or(1, |attempt| attempt.number);
                warn!(effect = done.mark.kind, key = done.mark.key, number, code, message, "an effect failed");
                let wait = effects::delay(number, rand::random());
                (wait, true, false, Some(format!("{code}: {message}")))
            }
            Outcome::Unreachable { message } => {
                debug!(effect = done.mark.kind, message, "the other side of an effect is not reachable");
                (UNREACHABLE.mul_f64(0.5 + rand::random::<f64>()), false, false, None)
            }
        };
        let next_try_at = now.plus(after);
        let stored = pending || failed;
        let attempts = self.effects.again(name, next_try_at, failed, stored);
        if stored {
            let attempts = i32::try_from(attempts).unwrap_or(i32::MAX);
            let open = OpenTry { key: name.0, kind: name.1, attempts, next_try_at, pending, error };
            self.scheduling.tries.retain(|earlier| (earlier.key, earlier.kind) != name);
            self.scheduling.tries.push(open);
        }
        None
    }

    /// The effect is answered or no longer asked for; a try that waits to be stored must not outlive it.
    fn finish(&mut self, name: Name) {
        self.scheduling.tries.retain(|earlier| (earlier.key, earlier.kind) != name);
        if self.effects.finish(name) {
            self.scheduling.forget.push(name);
        }
    }

    /// Starts the effects that may start: their events are acknowledged up to `acked`, and what must be read is read up
    /// to `horizon`.
    ///
    /// # Errors
    /// When the database does not answer; they are tried again.
    pub(crate) async fn start(&mut self, acked: i64, now: Timestamp, horizon: Timestamp) -> Result<(), sqlx::Error> {
        let marks = self.effects.start(acked, now, horizon, READ_MAX);
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
