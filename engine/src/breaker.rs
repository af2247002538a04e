//! Breakers: what is known of a dependency, and whoever needs it fails at once or waits while it is away (ADR 8).
//!
//! A failure of a caller is only a doubt: a probe follows at once, one at a time, and when that fails too the breaker
//! opens. From then on probes alone knock, with full jitter between them, and the first answer closes it. So a lock
//! time-out, a full pool or an answer that says no opens nothing. How a dependency is probed is [`crate::probe`]'s; which
//! error is a failure is for those to say who call it.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use events::time::Timestamp;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::clock;

/// A probe that takes longer has failed.
const PROBE_MAX: Duration = Duration::from_millis(1_500);
/// Between two probes at most this; doubling up to the second, with full jitter. Together with [`PROBE_MAX`] a return is
/// noticed within 3 s.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_millis(1_500);
/// A call without an answer for so long is a doubt already: its own time-out may be far away.
const SLOW: Duration = Duration::from_secs(2);
/// An error is shown as one line of this length at most.
const ERROR_CHARS_MAX: usize = 300;

/// How a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Calls go through.
    Closed,
    /// The dependency is away; nobody calls it.
    Open,
    /// The same, and a probe is under way.
    HalfOpen,
}

/// A dependency, as `/readyz` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dependency {
    /// `postgres`, `kafka`, …
    pub name: &'static str,
    /// How its breaker stands.
    pub state: State,
    /// Since when it is away.
    pub since: Option<Timestamp>,
    /// What the last probe saw, as one line.
    pub error: Option<String>,
    /// When the next one comes; none while one is under way.
    pub next_probe: Option<Timestamp>,
}

/// A dependency that is away.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("waiting for {what} since {since}: {error}")]
pub struct Away {
    what: Arc<str>,
    since: Timestamp,
    error: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Closed,
    /// A caller failed; a probe is under way, or has succeeded and the caller's next try has to wait a little.
    Doubted,
    Open {
        next_probe: Timestamp,
    },
    HalfOpen,
}

#[derive(Debug, Clone)]
struct Now {
    phase: Phase,
    since: Timestamp,
    error: String,
    /// Doubts since a caller last succeeded.
    failures: u32,
}

type Probe = Box<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

struct Inner {
    name: &'static str,
    what: Arc<str>,
    vital: bool,
    now: watch::Sender<Now>,
    probe: OnceLock<(Handle, Probe)>,
    up: Gauge,
    openings: Counter,
}

/// The breaker of one dependency of this process; cheap to clone. Without [`Breaker::watch`] it never opens.
#[derive(Clone)]
pub struct Breaker(Arc<Inner>);

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Breaker({}: {:?})", self.0.name, self.0.now.borrow().phase)
    }
}

impl Breaker {
    /// A closed one. `what` names the dependency in a sentence, without any password; `vital`: without it the process is
    /// not ready.
    #[must_use]
    pub fn new(name: &'static str, what: impl Into<Arc<str>>, vital: bool) -> Self {
        Self::counted(name, what.into(), vital, Gauge::default(), Counter::default())
    }

    fn counted(name: &'static str, what: Arc<str>, vital: bool, up: Gauge, openings: Counter) -> Self {
        let now = Now { phase: Phase::Closed, since: Timestamp(0), error: String::new(), failures: 0 };
        up.set(1);
        let (now, probe) = (watch::Sender::new(now), OnceLock::new());
        Self(Arc::new(Inner { name, what, vital, now, probe, up, openings }))
    }

    /// From now on a caller's failure makes this probe look, on the current runtime.
    pub fn watch<F>(&self, probe: impl Fn() -> F + Send + Sync + 'static)
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let probe: Probe = Box::new(move || probe().boxed());
        if self.0.probe.set((Handle::current(), probe)).is_err() {
            warn!(dependency = self.0.name, "it is watched already");
        }
    }

    /// Errs at once while the dependency is away.
    ///
    /// # Errors
    /// [`Away`], a sentence for people.
    pub fn check(&self) -> Result<(), Away> {
        let now = self.0.now.borrow();
        match now.phase {
            Phase::Closed | Phase::Doubted => Ok(()),
            Phase::Open { .. } | Phase::HalfOpen => {
                Err(Away { what: Arc::clone(&self.0.what), since: now.since, error: now.error.clone() })
            }
        }
    }

    /// The dependency did what a caller wanted.
    pub fn succeeded(&self) {
        if self.0.now.borrow().failures > 0 {
            self.close(true);
        }
    }

    /// A caller did not reach the dependency, or not in time. Any thread may tell.
    pub fn failed(&self, error: impl fmt::Display) {
        let doubted = self.0.now.send_if_modified(|now| {
            let closed = now.phase == Phase::Closed;
            if closed {
                now.failures = now.failures.saturating_add(1);
                now.error = one_line(&error.to_string());
                now.phase = if self.0.probe.get().is_some() { Phase::Doubted } else { Phase::Closed };
            }
            closed
        });
        if doubted && let Some((runtime, _)) = self.0.probe.get() {
            runtime.spawn(self.clone().find_out());
        }
    }

    /// Waits for the answer to a call; that it takes long makes a probe look, no more.
    pub async fn ask<T>(&self, call: impl Future<Output = T>) -> T {
        let mut call = std::pin::pin!(call);
        match tokio::time::timeout(SLOW, &mut call).await {
            Ok(answer) => answer,
            Err(_) => {
                self.failed(format!("no answer within {} s", SLOW.as_secs()));
                call.await
            }
        }
    }

    /// Waits until a call may be tried again after one that failed: the dependency answers, and a pause is over that
    /// grows while nobody succeeds.
    pub async fn settled(&self) {
        if self.0.probe.get().is_none() {
            tokio::time::sleep(self.pause()).await;
        }
        // An error would mean that this breaker is gone.
        drop(self.0.now.subscribe().wait_for(|now| now.phase == Phase::Closed).await);
    }

    /// True when [`Breaker::settled`] would not wait.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.0.now.borrow().phase == Phase::Closed
    }

    /// Waits until the dependency has been away for this long without a break.
    pub async fn away_for(&self, time: Duration) {
        let is_away = |now: &Now| matches!(now.phase, Phase::Open { .. } | Phase::HalfOpen);
        let mut now = self.0.now.subscribe();
        loop {
            if now.wait_for(is_away).await.is_err() {
                std::future::pending::<()>().await;
            }
            if tokio::time::timeout(time, now.wait_for(|now| !is_away(now))).await.is_err() {
                return;
            }
        }
    }

    /// What `/readyz` shows.
    #[must_use]
    pub fn dependency(&self) -> Dependency {
        let now = self.0.now.borrow();
        let (state, next_probe) = match now.phase {
            Phase::Closed | Phase::Doubted => (State::Closed, None),
            Phase::Open { next_probe } => (State::Open, Some(next_probe)),
            Phase::HalfOpen => (State::HalfOpen, None),
        };
        let away = state != State::Closed;
        let (since, error) = (away.then_some(now.since), away.then(|| now.error.clone()));
        Dependency { name: self.0.name, state, since, error, next_probe }
    }

    /// Probes until the dependency answers, or a caller has succeeded.
    async fn find_out(self) {
        let Some((_, probe)) = self.0.probe.get() else { return };
        let mut ceiling = PAUSE_MIN;
        loop {
            let seen = tokio::time::timeout(PROBE_MAX, probe()).await;
            let seen = seen.unwrap_or_else(|_| Err(format!("no answer within {} ms", PROBE_MAX.as_millis())));
            match seen {
                Ok(()) if self.check().is_ok() => {
                    // What failed was something else. It may fail at once again.
                    tokio::time::sleep(self.pause()).await;
                    return self.close(false);
                }
                Ok(()) => return self.close(false),
                Err(error) => {
                    let pause = ceiling.mul_f64(rand::random());
                    if !self.open(&error, pause) {
                        return;
                    }
                    ceiling = (ceiling * 2).min(PAUSE_MAX);
                    if tokio::time::timeout(pause, self.settled()).await.is_ok() || !self.half_open() {
                        return;
                    }
                }
            }
        }
    }

    fn pause(&self) -> Duration {
        let doublings = self.0.now.borrow().failures.saturating_sub(1).min(16);
        PAUSE_MIN.saturating_mul(1 << doublings).min(PAUSE_MAX).mul_f64(rand::random())
    }

    /// False when a caller has closed it meanwhile.
    fn open(&self, error: &str, pause: Duration) -> bool {
        let mut opened = false;
        let next_probe = clock::wall().plus(pause);
        let is_away = self.0.now.send_if_modified(|now| {
            if now.phase == Phase::Closed {
                return false;
            }
            opened = now.phase == Phase::Doubted;
            if opened {
                now.since = clock::wall();
            }
            now.phase = Phase::Open { next_probe };
            now.error = one_line(error);
            true
        });
        if opened {
            self.0.openings.inc();
            self.0.up.set(0);
            warn!(dependency = self.0.name, error = one_line(error), "{} is away", self.0.what);
        }
        is_away
    }

    fn half_open(&self) -> bool {
        self.0.now.send_if_modified(|now| {
            let open = matches!(now.phase, Phase::Open { .. });
            if open {
                now.phase = Phase::HalfOpen;
            }
            open
        })
    }

    fn close(&self, by_caller: bool) {
        let mut away_since = None;
        self.0.now.send_modify(|now| {
            if matches!(now.phase, Phase::Open { .. } | Phase::HalfOpen) {
                away_since = Some(now.since);
            }
            now.phase = Phase::Closed;
            if by_caller {
                now.failures = 0;
            }
        });
        if let Some(since) = away_since {
            self.0.up.set(1);
            let seconds = (clock::wall().0 - since.0) / 1_000;
            info!(dependency = self.0.name, seconds, "{} is back", self.0.what);
        }
    }
}

fn one_line(error: &str) -> String {
    let words: Vec<&str> = error.split_whitespace().collect();
    words.join(" ").chars().take(ERROR_CHARS_MAX).collect()
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Label {
    dependency: &'static str,
}

/// All breakers of a process; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Breakers {
    all: Arc<Mutex<Vec<Breaker>>>,
    up: Family<Label, Gauge>,
    openings: Family<Label, Counter>,
}

impl Breakers {
    /// None yet; what is added is counted in this registry.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let breakers = Self::default();
        let ours = registry.sub_registry_with_prefix("orderlog");
        ours.register("dependency_up", "1 while calls to the dependency go through", breakers.up.clone());
        let help = "How often the dependency was found to be away";
        ours.register("dependency_openings", help, breakers.openings.clone());
        breakers
    }

    /// A new breaker; see [`Breaker::new`].
    #[must_use]
    pub fn add(&self, name: &'static str, what: impl Into<Arc<str>>, vital: bool) -> Breaker {
        let label = Label { dependency: name };
        let (up, openings) = (self.up.get_or_create(&label).clone(), self.openings.get_or_create(&label).clone());
        let breaker = Breaker::counted(name, what.into(), vital, up, openings);
        self.all.lock().unwrap_or_else(PoisonError::into_inner).push(breaker.clone());
        breaker
    }

    /// All of them, as `/readyz` shows them.
    #[must_use]
    pub fn dependencies(&self) -> Vec<Dependency> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(Breaker::dependency).collect()
    }

    /// What the process waits for, and whether it is vital.
    #[must_use]
    pub fn away(&self) -> Vec<(Away, bool)> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter_map(|breaker| Some((breaker.check().err()?, breaker.0.vital))).collect()
    }
}

#[cfg(test)]
mod tests;
