//! What the toy service calls: remembers each call and what the log held then, and answers as it is told.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use engine::kafka::Kafka;
use engine::own_log;
use engine::service::{Outcome, Try};
use events::partition::partition_of;

use crate::support::PARTITIONS;
use crate::toy;

/// Key and effect.
pub(crate) type Name = (i64, &'static str);

/// One call that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) key: i64,
    pub(crate) effect: &'static str,
    pub(crate) number: u32,
    pub(crate) may_have_called: bool,
    /// Records of the key's partition of the events topic at that moment.
    pub(crate) logged: i64,
}

/// How a call ends.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    Yes,
    /// Yes, after a while.
    Late(Duration),
    Failed,
    Unreachable,
    /// Ask again at once.
    Pending,
    /// Never.
    Silence,
}

impl Reply {
    pub(crate) fn map_answer<I>(self, answer: impl FnOnce(String) -> I) -> Outcome<I> {
        match self {
            Self::Yes | Self::Late(_) | Self::Silence => Outcome::Answer(answer("yes".to_owned())),
            Self::Failed => Outcome::Failed { code: "500", message: "it erred".to_owned() },
            Self::Unreachable => Outcome::Unreachable { message: "it is away".to_owned() },
            Self::Pending => Outcome::Pending { ask_after: Duration::from_millis(50) },
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Outside {
    mended: AtomicBool,
    timers_refused: AtomicUsize,
    answers_refused: AtomicUsize,
    calls: Mutex<Vec<Call>>,
    loaded: AtomicUsize,
    replies: Mutex<VecDeque<Reply>>,
    failing: Mutex<BTreeSet<Name>>,
    kafka: Option<Arc<Kafka>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

/// True, and one less, while any is left.
fn one_less(count: &AtomicUsize) -> bool {
    count.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1)).is_ok()
}

impl Outside {
    pub(crate) fn new(kafka: Arc<Kafka>) -> Self {
        Self { kafka: Some(kafka), ..Self::default() }
    }

    /// From now on inputs that fail are applied.
    pub(crate) fn mend(&self) {
        self.mended.store(true, Ordering::Release);
    }

    /// They fail again.
    pub(crate) fn break_again(&self) {
        self.mended.store(false, Ordering::Release);
    }

    pub(crate) fn is_mended(&self) -> bool {
        self.mended.load(Ordering::Acquire)
    }

    /// So many inputs are loaded.
    pub(crate) fn load(&self, inputs: usize) {
        self.loaded.fetch_add(inputs, Ordering::Relaxed);
    }

    /// How many inputs were loaded, each as often as it was.
    pub(crate) fn loaded(&self) -> usize {
        self.loaded.load(Ordering::Relaxed)
    }

    /// The next timers, and the next answers, cannot be decided on.
    pub(crate) fn refuse(&self, timers: usize, answers: usize) {
        self.timers_refused.store(timers, Ordering::Release);
        self.answers_refused.store(answers, Ordering::Release);
    }

    pub(crate) fn refuses_timers(&self) -> bool {
        one_less(&self.timers_refused)
    }

    pub(crate) fn refuses_answers(&self) -> bool {
        one_less(&self.answers_refused)
    }

    /// The next calls end like this; those behind them with yes.
    pub(crate) fn script(&self, replies: impl IntoIterator<Item = Reply>) {
        locked(&self.replies).extend(replies);
    }

    /// From now on this effect always fails.
    pub(crate) fn fail(&self, name: Name) {
        locked(&self.failing).insert(name);
    }

    /// It fails no more.
    pub(crate) fn heal(&self, name: Name) {
        locked(&self.failing).remove(&name);
    }

    /// Numbers of the tries of an effect.
    pub(crate) fn tries(&self, name: Name) -> Vec<u32> {
        self.calls().iter().filter(|call| (call.key, call.effect) == name).map(|call| call.number).collect()
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        locked(&self.calls).clone()
    }

    pub(crate) async fn call(&self, (key, effect): Name, attempt: Try) -> Reply {
        let logged = match self.kafka.clone() {
            Some(kafka) => {
                let place = (kafka.topic(toy::EVENTS), partition_of(key.to_string().as_bytes(), PARTITIONS));
                let ask = move || own_log::watermarks(&kafka, &[place]).unwrap()[0].1;
                tokio::task::spawn_blocking(ask).await.unwrap()
            }
            None => 0,
        };
        let Try { number, may_have_called, .. } = attempt;
        locked(&self.calls).push(Call { key, effect, number, may_have_called, logged });
        if locked(&self.failing).contains(&(key, effect)) {
            return Reply::Failed;
        }
        let reply = locked(&self.replies).pop_front().unwrap_or(Reply::Yes);
        match reply {
            Reply::Silence => std::future::pending().await,
            Reply::Late(after) => tokio::time::sleep(after).await,
            Reply::Yes | Reply::Failed | Reply::Unreachable | Reply::Pending => {}
        }
        reply
    }
}
