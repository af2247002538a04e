//! When an order is started: at its intended time (open loop), or when one of so many in flight is final (closed loop).
//!
//! An intended time never moves: a late start counts into the order's latency.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::target::Load;

/// Orders that an open loop may have started and not seen final; more would only fill memory.
const OPEN_IN_FLIGHT_MAX: usize = 200_000;

/// Gives starts one after another.
#[derive(Debug)]
pub(crate) struct Pace {
    begun: Instant,
    interval: Option<Duration>,
    slots: Arc<Semaphore>,
}

/// An order that may start. Dropping the permit lets the next one of a closed loop start.
#[derive(Debug)]
pub(crate) struct Turn {
    /// When it was meant to start; latency counts from here.
    pub(crate) intended: Instant,
    pub(crate) permit: OwnedSemaphorePermit,
}

impl Pace {
    pub(crate) fn new(load: Load, begun: Instant) -> Self {
        let (slots, interval) = match load {
            Load::Closed { in_flight } => (in_flight, None),
            Load::Open { per_second } => (OPEN_IN_FLIGHT_MAX, Some(Duration::from_secs_f64(1.0 / per_second))),
        };
        Self { begun, interval, slots: Arc::new(Semaphore::new(slots)) }
    }

    /// The intended start of an order of an open loop.
    fn intended(&self, number: usize) -> Option<Instant> {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        Some(self.begun + self.interval? * number)
    }

    /// Waits until the order of this number may start.
    ///
    /// # Errors
    /// Never while the bench runs: nobody closes the slots.
    pub(crate) async fn turn(&self, number: usize) -> anyhow::Result<Turn> {
        let intended = self.intended(number);
        if let Some(at) = intended {
            tokio::time::sleep_until(at.into()).await;
        }
        let permit = Arc::clone(&self.slots).acquire_owned().await.context("the slots are closed")?;
        Ok(Turn { intended: intended.unwrap_or_else(Instant::now), permit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intended_starts_are_evenly_spaced_from_the_beginning() {
        let begun = Instant::now();
        let pace = Pace::new(Load::Open { per_second: 100.0 }, begun);
        assert_eq!(pace.intended(0), Some(begun));
        assert_eq!(pace.intended(250), Some(begun + Duration::from_millis(2_500)));
        assert_eq!(Pace::new(Load::Closed { in_flight: 1 }, begun).intended(3), None);
    }

    #[tokio::test]
    async fn a_closed_loop_waits_for_a_place() {
        let pace = Pace::new(Load::Closed { in_flight: 1 }, Instant::now());
        let first = pace.turn(0).await.unwrap();
        let second = tokio::time::timeout(Duration::from_millis(20), pace.turn(1)).await;
        assert!(second.is_err(), "one is in flight");
        drop(first.permit);
        pace.turn(1).await.unwrap();
    }

    #[tokio::test]
    async fn a_late_start_keeps_its_intended_time() {
        let begun = Instant::now();
        let pace = Pace::new(Load::Open { per_second: 1_000.0 }, begun);
        std::thread::sleep(Duration::from_millis(20));
        let turn = pace.turn(5).await.unwrap();
        assert_eq!(turn.intended, begun + Duration::from_millis(5));
        assert!(turn.intended.elapsed() >= Duration::from_millis(15));
    }
}
