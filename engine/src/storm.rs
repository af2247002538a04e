//! The storm guard: when most records fail, the cause is no record, and a partition pauses instead of moving its topic into
//! the dead letters (DESIGN §5).
//!
//! Pure: counts what was taken in and what failed during the last minute. Pausing is the processor's.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(60);
/// Fewer failures than this are no storm, whatever their share.
const FAILED_MIN: u64 = 20;
/// A paused partition tries its next record this often.
pub(crate) const TRIAL_EVERY: Duration = Duration::from_secs(30);

/// Records taken in, and how many of them failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) taken: u64,
    pub(crate) failed: u64,
    /// A paused partition tries one record: if that fails too, it is kept where it is.
    pub(crate) trial: bool,
}

impl Tally {
    /// Counts another record that was taken in.
    pub(crate) fn took(&mut self) {
        self.taken += 1;
    }

    /// Counts a failure of one that was taken in. False when it makes a storm.
    #[must_use]
    pub(crate) fn may_fail(&mut self) -> bool {
        self.failed += 1;
        let many = self.failed >= FAILED_MIN && self.failed * 2 > self.taken;
        !self.trial && !many
    }
}

/// The last minute of a processor.
#[derive(Debug, Default)]
pub(crate) struct Storm {
    batches: VecDeque<(Instant, u64, u64)>,
    taken: u64,
    failed: u64,
    paused: Option<Instant>,
}

impl Storm {
    /// What the next batch starts from.
    pub(crate) fn tally(&mut self, now: Instant) -> Tally {
        while let Some((at, taken, failed)) = self.batches.front().copied()
            && now.duration_since(at) > WINDOW
        {
            self.batches.pop_front();
            self.taken -= taken;
            self.failed -= failed;
        }
        Tally { taken: self.taken, failed: self.failed, trial: self.paused.is_some() }
    }

    /// A batch that started from this tally committed. True when that ends a pause.
    pub(crate) fn committed(&mut self, before: Tally, after: Tally, now: Instant) -> bool {
        let (taken, failed) = (after.taken - before.taken, after.failed - before.failed);
        if taken == 0 {
            return false;
        }
        if self.paused.is_some() {
            self.resume();
            return true;
        }
        self.taken += taken;
        self.failed += failed;
        match self.batches.back_mut() {
            // One entry per second is fine enough, and bounds how many there are.
            Some(last) if now.duration_since(last.0) < Duration::from_secs(1) => {
                last.1 += taken;
                last.2 += failed;
            }
            _ => self.batches.push_back((now, taken, failed)),
        }
        false
    }

    /// The next record failed too: it is tried again later.
    pub(crate) fn pause(&mut self, now: Instant) {
        self.paused = Some(now + TRIAL_EVERY);
    }

    /// Counts from nothing again.
    pub(crate) fn resume(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused.is_some()
    }

    /// When a paused partition tries its next record.
    pub(crate) fn next_trial(&self) -> Option<Instant> {
        self.paused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes in records that fail or not, as one batch; true when they make no storm.
    fn batch(storm: &mut Storm, now: Instant, failures: &[bool]) -> bool {
        let before = storm.tally(now);
        let mut tally = before;
        for failed in failures {
            tally.took();
            if *failed && !tally.may_fail() {
                return false;
            }
        }
        storm.committed(before, tally, now);
        true
    }

    #[test]
    fn fewer_than_twenty_failures_are_no_storm() {
        let (mut storm, now) = (Storm::default(), Instant::now());
        assert!(batch(&mut storm, now, &[true; 19]));
        assert!(!batch(&mut storm, now, &[true]));
    }

    #[test]
    fn many_failures_among_more_records_are_no_storm() {
        let (mut storm, now) = (Storm::default(), Instant::now());
        for _ in 0..100 {
            assert!(batch(&mut storm, now, &[false, true, false]));
        }
        assert!(!batch(&mut storm, now, &[true; 200]));
    }

    #[test]
    fn failures_are_forgotten_after_a_minute() {
        let (mut storm, now) = (Storm::default(), Instant::now());
        assert!(batch(&mut storm, now, &[true; 19]));
        assert!(batch(&mut storm, now + Duration::from_secs(61), &[true; 19]));
        assert_eq!(storm.tally(now + Duration::from_secs(61)).failed, 19);
    }

    #[test]
    fn a_pause_ends_with_the_first_record_that_is_applied() {
        let (mut storm, now) = (Storm::default(), Instant::now());
        storm.pause(now);
        assert_eq!(storm.next_trial(), Some(now + TRIAL_EVERY));
        assert!(!batch(&mut storm, now, &[true]), "one is enough while it is paused");
        assert!(storm.is_paused());
        assert!(batch(&mut storm, now, &[false]));
        assert!(!storm.is_paused());
    }
}
