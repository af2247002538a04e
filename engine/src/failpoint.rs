//! Where a test build can be made to fail: the boundaries between two steps of which only one may have happened.
//!
//! A normal build has none of it: reaching a boundary does nothing and cannot err. With the feature `failpoints` each can
//! be armed, by the variable `FAILPOINTS` or on the admin port, in the language of the crate `fail`
//! (`2*off->1*return(sigkill)->off`: at the third time). What `return` is given is ours, because that crate's own
//! `panic` ends a task only, and its `sleep` a worker:
//!
//! - `sigkill`: this process is gone at once; no destructor runs.
//! - `stop`: this process stands still, heartbeats included, until somebody sends SIGCONT.
//! - `err`: the step behind the boundary errs; where its outcome can be unknown, that.
//! - `delay:MS`: only this step waits, for so many milliseconds.
//!
//! A test build's wall clock can be put forward and back, too, and it can write events with the bytes of their schema IDs in
//! reverse, as a writer with a bug would. Who has `MENDED` reads those ([`crate::mutant`]).

/// A boundary: its label in the reliability plan, and what lies before and behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Boundary {
    /// As the plan names it.
    pub label: &'static str,
    /// What has happened and what not.
    pub what: &'static str,
}

/// All boundaries. A1, the one-time token, comes with the tokens.
pub const ALL: [Boundary; 35] = {
    const fn at(label: &'static str, what: &'static str) -> Boundary {
        Boundary { label, what }
    }
    [
        at("A2", "the idempotency row is committed, nothing else"),
        at("A3", "before the append"),
        at("A4", "the command is handed to Kafka, no report yet"),
        at("A5", "the command has an offset, its answer is not stored"),
        at("A6", "the answer is stored, not sent"),
        at("E1", "the epoch is bumped, nothing is read"),
        at("E2", "what the last owner left is read, not compared with the log"),
        at("E3", "ready, no batch begun"),
        at("C1", "inputs are taken, before BEGIN"),
        at("C2", "fenced, the rows are locked"),
        at("C3", "the states are saved, nothing else"),
        at("C4", "everything is written, before COMMIT"),
        at("C5", "COMMIT is done, its reply is lost"),
        at("C6", "committed, the processor does not know it yet"),
        at("C7", "the group takes the processors away, a batch may be open"),
        at("R1", "the publisher has a row, nothing is sent"),
        at("R2", "records are handed to Kafka, no report yet"),
        at("R3", "all is acknowledged, the outbox row is still there"),
        at("R4", "one topic is through, the next not begun"),
        at("R5", "the reports are there, not taken in"),
        at("G1", "the event that asks for a call is committed, not acknowledged"),
        at("G2", "it is acknowledged, the gateway is not called"),
        at("G3", "the gateway was called, its reply is lost"),
        at("G4", "its reply is read, the result is not committed"),
        at("G5", "the gateway was told to cancel, its reply is lost"),
        at("N1", "a notice may be sent and is not"),
        at("N2", "it is sent, the reply is lost"),
        at("N3", "it is sent, the result is not committed"),
        at("D1", "a record is held, not committed"),
        at("D2", "its letter is on the log, the outbox row is still there"),
        at("D3", "a held record is applied and committed, those behind it are not"),
        at("D4", "a dead letter is in the outbox row, not committed"),
        at("B1", "a rebuild in the middle of the fold"),
        at("B2", "everything is folded, the positions are not set"),
        at("B3", "the positions are set, not committed"),
    ]
};

pub use build::{Injected, pass, reach};
#[cfg(feature = "failpoints")]
pub use build::{arm, hits, miswrite, step_clock};
pub(crate) use build::{clock_ahead_ms, spoil};

#[cfg(not(feature = "failpoints"))]
mod build {
    /// Never made.
    #[derive(Debug, thiserror::Error)]
    pub enum Injected {}

    /// Nothing.
    ///
    /// # Errors
    /// Never.
    pub async fn reach(_label: &'static str) -> Result<(), Injected> {
        Ok(())
    }

    /// Nothing.
    ///
    /// # Errors
    /// Never.
    pub fn pass(_label: &'static str) -> Result<(), Injected> {
        Ok(())
    }

    pub(crate) const fn clock_ahead_ms() -> i64 {
        0
    }

    pub(crate) const fn spoil(_value: &mut [u8]) {}
}

#[cfg(feature = "failpoints")]
mod build {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
    use std::sync::{Mutex, Once, PoisonError};
    use std::time::Duration;

    use anyhow::Context as _;
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    use super::ALL;

    static HITS: Mutex<BTreeMap<&'static str, u64>> = Mutex::new(BTreeMap::new());
    static ENVIRONMENT: Once = Once::new();
    static CLOCK_AHEAD_MS: AtomicI64 = AtomicI64::new(0);
    static TO_MISWRITE: AtomicU64 = AtomicU64::new(0);
    static MISWRITTEN: AtomicU64 = AtomicU64::new(0);

    /// An armed boundary erred.
    #[derive(Debug, thiserror::Error)]
    #[error("failpoint {0}")]
    pub struct Injected(&'static str);

    /// Does what this boundary is armed for.
    ///
    /// # Errors
    /// When it is armed with `err`.
    pub async fn reach(label: &'static str) -> Result<(), Injected> {
        let Some(action) = act(label) else { return Ok(()) };
        match delay(&action) {
            Some(delay) => {
                tokio::time::sleep(delay).await;
                Ok(())
            }
            None => done_at_once(label, &action),
        }
    }

    /// [`reach`] where nothing can be awaited; `delay` blocks the thread.
    ///
    /// # Errors
    /// When it is armed with `err`.
    pub fn pass(label: &'static str) -> Result<(), Injected> {
        let Some(action) = act(label) else { return Ok(()) };
        match delay(&action) {
            Some(delay) => {
                std::thread::sleep(delay);
                Ok(())
            }
            None => done_at_once(label, &action),
        }
    }

    fn delay(action: &str) -> Option<Duration> {
        action.strip_prefix("delay:")?.parse().ok().map(Duration::from_millis)
    }

    fn done_at_once(label: &'static str, action: &str) -> Result<(), Injected> {
        let this = Pid::this();
        match action {
            "sigkill" => {
                kill(this, Signal::SIGKILL).expect("a process may kill itself");
                loop {
                    std::thread::park();
                }
            }
            "stop" => {
                kill(this, Signal::SIGSTOP).expect("a process may stop itself");
                Ok(())
            }
            "err" => Err(Injected(label)),
            other => panic!("failpoint {label}: sigkill, stop, err or delay:MS, not `{other}`"),
        }
    }

    /// What the variable arms stays armed to the end of the process.
    fn take_environment() {
        ENVIRONMENT.call_once(|| std::mem::forget(fail::FailScenario::setup()));
    }

    /// Counts, and says what the boundary is armed for now.
    fn act(label: &'static str) -> Option<String> {
        take_environment();
        debug_assert!(ALL.iter().any(|boundary| boundary.label == label), "{label} is not in the list");
        *HITS.lock().unwrap_or_else(PoisonError::into_inner).entry(label).or_default() += 1;
        let action = armed(label)?;
        tracing::warn!(label, action, "failpoint");
        Some(action)
    }

    fn armed(label: &str) -> Option<String> {
        fail::fail_point!(label, |action| action);
        None
    }

    /// Arms a boundary from now on; `off` disarms it.
    ///
    /// # Errors
    /// When there is no such boundary, or `fail` does not understand the actions.
    pub fn arm(label: &str, actions: &str) -> anyhow::Result<()> {
        take_environment();
        let boundary = ALL.iter().find(|boundary| boundary.label == label).context("no such boundary")?;
        fail::cfg(boundary.label, actions).map_err(anyhow::Error::msg)
    }

    /// How far this process' wall clock is ahead of the machine's.
    pub(crate) fn clock_ahead_ms() -> i64 {
        CLOCK_AHEAD_MS.load(Ordering::Relaxed)
    }

    /// For so long this process' wall clock is so far ahead of the machine's, or behind.
    pub fn step_clock(ahead_ms: i64, lasts: Duration) {
        tracing::warn!(ahead_ms, ?lasts, "the wall clock is not the machine's");
        CLOCK_AHEAD_MS.store(ahead_ms, Ordering::Relaxed);
        tokio::spawn(async move {
            tokio::time::sleep(lasts).await;
            CLOCK_AHEAD_MS.store(0, Ordering::Relaxed);
        });
    }

    /// An event on its way into the outbox: its schema ID comes out in reverse while [`miswrite`] says so.
    pub(crate) fn spoil(value: &mut [u8]) {
        let less = |left: u64| left.checked_sub(1);
        let does = TO_MISWRITE.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok();
        if does && let Some(id) = value.get_mut(1..5) {
            id.reverse();
            MISWRITTEN.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// So many of the next events are written with their schema IDs in reverse. Returns how many were so far.
    pub fn miswrite(events: u64) -> u64 {
        TO_MISWRITE.store(events, Ordering::Relaxed);
        MISWRITTEN.load(Ordering::Relaxed)
    }

    /// How often each boundary was reached in this process, armed or not.
    #[must_use]
    pub fn hits() -> BTreeMap<&'static str, u64> {
        HITS.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What an injected error looks like to code that talks to Postgres: an outage.
impl From<Injected> for sqlx::Error {
    fn from(error: Injected) -> Self {
        Self::Protocol(error.to_string())
    }
}

#[cfg(all(test, feature = "failpoints"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_boundary_errs_when_it_is_armed_and_counts_always() {
        assert!(reach("C1").await.is_ok());
        arm("C1", "1*off->1*return(err)->off").unwrap();
        assert!(reach("C1").await.is_ok());
        assert_eq!(reach("C1").await.unwrap_err().to_string(), "failpoint C1");
        assert!(pass("C1").is_ok());
        assert_eq!(hits()["C1"], 4);
    }

    #[test]
    fn only_boundaries_of_the_list_can_be_armed() {
        assert!(arm("C9", "return(err)").is_err());
        assert!(arm("C1", "nonsense(").is_err());
    }
}
