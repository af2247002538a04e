//! Whether Postgres has refused a record lately: then it is likely to refuse another, and transactions go step by step
//! (`batch/steps.rs`).

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::clock;

const LATELY: Duration = Duration::from_secs(10);

/// The last refusal of a process.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<Option<Instant>>);

impl Refusals {
    pub(crate) fn met(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(clock::instant());
    }

    pub(crate) fn are_likely(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|last| last.elapsed() < LATELY)
    }
}
