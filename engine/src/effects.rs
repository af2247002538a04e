//! Which effects of a processor may start, and when they are tried again.
//!
//! Pure bookkeeping: no call is made here and nothing is read. An effect starts only when the event that asked for it is
//! acknowledged (DESIGN §2, H10); tries and their times are scheduling, outside the fold.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use events::time::Timestamp;

use crate::mutant;
use crate::service::{EffectMark, Try};
use crate::store::StoredTry;

/// Tries that a reached but failing other side is given before the delays stop growing.
const DELAY_MIN: Duration = Duration::from_secs(1);
const DELAY_MAX: Duration = Duration::from_secs(300);

/// Names an effect within a processor.
pub(crate) type Name = (i64, &'static str);

#[derive(Debug, Clone, Copy)]
struct Open {
    mark: EffectMark,
    attempts: u32,
    /// True unless this owner committed the event and has not called yet.
    may_have_called: bool,
    running: bool,
    /// A row in `effects` remembers it.
    stored: bool,
}

/// The open effects of a processor.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    open: HashMap<Name, Open>,
    /// Set by this owner, not yet acknowledged; in order of sequence.
    unacknowledged: VecDeque<(i64, Name)>,
    /// Everything that waits for a time.
    timed: BTreeSet<(Timestamp, Name)>,
    /// What would start but for something held of its key.
    resting: HashMap<i64, Vec<Name>>,
}

/// How long until the next try, `jitter` in [0, 1): full jitter over a doubling delay.
pub(crate) fn delay(attempts: u32, jitter: f64) -> Duration {
    let ceiling = DELAY_MIN.saturating_mul(1 << attempts.saturating_sub(1).min(16)).min(DELAY_MAX);
    ceiling.mul_f64(jitter).max(Duration::from_millis(50))
}

impl Effects {
    /// What the states ask for at an assignment: a first try can be excluded for none of them.
    pub(crate) fn restored(marks: Vec<EffectMark>, tries: &[StoredTry]) -> Self {
        let mut effects = Self::default();
        for mark in marks {
            let stored = tries.iter().find(|stored| stored.key == mark.key && stored.kind == mark.kind);
            let attempts = stored.map_or(0, |stored| u32::try_from(stored.attempts).unwrap_or(0));
            let name = (mark.key, mark.kind);
            let open = Open { mark, attempts, may_have_called: true, running: false, stored: stored.is_some() };
            effects.open.insert(name, open);
            let not_before = mark.not_before.unwrap_or(Timestamp(i64::MIN));
            match stored {
                Some(stored) => drop(effects.timed.insert((stored.next_try_at.max(not_before), name))),
                None if mark.not_before.is_some() => drop(effects.timed.insert((not_before, name))),
                None => effects.unacknowledged.push_back((mark.set_by.sequence, name)),
            }
        }
        effects.unacknowledged.make_contiguous().sort_unstable();
        effects
    }

    /// Takes in what a batch asked for.
    pub(crate) fn set(&mut self, marks: Vec<EffectMark>) {
        let mut named: Vec<_> = marks.into_iter().map(|mark| (mark.set_by.sequence, mark)).collect();
        named.sort_unstable_by_key(|(sequence, _)| *sequence);
        for (sequence, mark) in named {
            let name = (mark.key, mark.kind);
            let open = Open { mark, attempts: 0, may_have_called: false, running: false, stored: false };
            self.open.insert(name, open);
            self.unacknowledged.push_back((sequence, name));
        }
    }

    /// The effects that may start now; they count as running. `horizon`: up to when all inputs are read. `rests` tells the
    /// keys whose effects wait for a release.
    pub(crate) fn start(
        &mut self,
        acked: i64,
        now: Timestamp,
        horizon: Timestamp,
        most: usize,
        rests: impl Fn(i64) -> bool,
    ) -> Vec<EffectMark> {
        let acked = if mutant::is("effect-before-its-acknowledgement") { i64::MAX } else { acked };
        while let Some((sequence, name)) = self.unacknowledged.front().copied()
            && sequence <= acked
        {
            self.unacknowledged.pop_front();
            if let Some(open) = self.open.get(&name) {
                self.timed.insert((open.mark.not_before.unwrap_or(Timestamp(i64::MIN)), name));
            }
        }
        let mut started = Vec::new();
        let mut later = Vec::new();
        while started.len() < most {
            let Some((time, name)) = self.timed.first().copied().filter(|(time, _)| *time <= now) else {
                break;
            };
            self.timed.pop_first();
            let Some(open) = self.open.get_mut(&name).filter(|open| !open.running) else {
                continue;
            };
            if rests(name.0) {
                self.resting.entry(name.0).or_default().push(name);
            } else if open.mark.not_before.is_some_and(|not_before| not_before > horizon) {
                later.push((time, name));
            } else if open.mark.set_by.sequence > acked {
                self.unacknowledged.push_back((open.mark.set_by.sequence, name));
            } else {
                open.running = true;
                started.push(open.mark);
            }
        }
        self.timed.extend(later);
        started
    }

    /// Effects of this key that rested may start.
    pub(crate) fn release(&mut self, key: i64, now: Timestamp) {
        let names = self.resting.remove(&key).unwrap_or_default();
        self.timed.extend(names.into_iter().map(|name| (now, name)));
    }

    /// True when a row remembers the tries of an effect as it is asked for now.
    pub(crate) fn is_stored(&self, mark: &EffectMark) -> bool {
        self.is_current(mark) && self.open.get(&(mark.key, mark.kind)).is_some_and(|open| open.stored)
    }

    /// The facts of the next try of a running effect.
    pub(crate) fn attempt(&self, name: Name, now: Timestamp) -> Option<Try> {
        let open = self.open.get(&name)?;
        Some(Try { number: open.attempts + 1, may_have_called: open.may_have_called, now })
    }

    /// True when a result belongs to the effect as it is asked for now.
    pub(crate) fn is_current(&self, mark: &EffectMark) -> bool {
        self.open.get(&(mark.key, mark.kind)).is_some_and(|open| open.mark.set_by == mark.set_by)
    }

    /// The effect is through or no longer asked for. True when a stored try must be forgotten.
    pub(crate) fn finish(&mut self, name: Name) -> bool {
        self.open.remove(&name).is_some_and(|open| open.stored)
    }

    /// Plans another try. Returns the attempts used up.
    pub(crate) fn again(&mut self, name: Name, at: Timestamp, failed: bool, stored: bool) -> u32 {
        let Some(open) = self.open.get_mut(&name) else {
            return 0;
        };
        open.running = false;
        open.may_have_called = true;
        open.attempts += u32::from(failed);
        open.stored |= stored;
        self.timed.insert((at, name));
        open.attempts
    }

    /// The earliest time at which one may start, acknowledgements aside.
    pub(crate) fn next_time(&self) -> Option<Timestamp> {
        self.timed.first().map(|(time, _)| *time)
    }

    /// The earliest time that must be behind the horizon, among those due by `now`.
    pub(crate) fn next_not_before(&self, now: Timestamp) -> Option<Timestamp> {
        let due = self.timed.iter().take_while(|(time, _)| *time <= now).take(1_000);
        due.filter_map(|(_, name)| self.open.get(name)?.mark.not_before).min()
    }

    /// How many are open.
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }
}

#[cfg(test)]
mod tests {
    use events::id::EventId;
    use events::record::SetBy;

    use super::*;

    const NOW: Timestamp = Timestamp(1_000);

    fn mark(key: i64, sequence: i64) -> EffectMark {
        EffectMark { key, kind: "charge", set_by: SetBy { event_id: EventId(key), sequence }, not_before: None }
    }

    #[test]
    fn nothing_starts_before_its_event_is_acknowledged() {
        let mut effects = Effects::default();
        effects.set(vec![mark(1, 5), mark(2, 6)]);
        assert_eq!(effects.start(4, NOW, NOW, 10, |_| false), vec![]);
        assert_eq!(effects.start(5, NOW, NOW, 10, |_| false), vec![mark(1, 5)]);
        assert_eq!(effects.start(9, NOW, NOW, 10, |_| false), vec![mark(2, 6)]);
        assert_eq!(effects.start(9, NOW, NOW, 10, |_| false), vec![], "started once");
    }

    #[test]
    fn only_this_owners_first_try_excludes_an_earlier_call() {
        let mut effects = Effects::default();
        effects.set(vec![mark(1, 1)]);
        effects.start(1, NOW, NOW, 10, |_| false);
        assert!(!effects.attempt((1, "charge"), NOW).unwrap().may_have_called);
        effects.again((1, "charge"), NOW, true, true);
        let second = effects.attempt((1, "charge"), NOW).unwrap();
        assert!(second.may_have_called && second.number == 2);

        let restored = Effects::restored(vec![mark(1, 1)], &[]);
        assert!(restored.attempt((1, "charge"), NOW).unwrap().may_have_called);
    }

    #[test]
    fn restored_effects_wait_for_their_event_and_their_time() {
        let stored = StoredTry { key: 2, kind: "charge".to_owned(), attempts: 3, next_try_at: Timestamp(5_000) };
        let mut effects = Effects::restored(vec![mark(1, 9), mark(2, 1)], &[stored]);
        assert_eq!(effects.start(8, NOW, NOW, 10, |_| false), vec![]);
        assert_eq!(effects.start(9, NOW, NOW, 10, |_| false), vec![mark(1, 9)]);
        assert_eq!(effects.start(9, Timestamp(5_000), NOW, 10, |_| false), vec![mark(2, 1)]);
        assert_eq!(effects.attempt((2, "charge"), NOW).unwrap().number, 4);
    }

    #[test]
    fn a_timed_effect_waits_until_everything_before_its_time_is_read() {
        let timed = EffectMark { not_before: Some(Timestamp(500)), ..mark(1, 1) };
        let mut effects = Effects::default();
        effects.set(vec![timed]);
        assert_eq!(effects.start(1, NOW, Timestamp(499), 10, |_| false), vec![]);
        assert_eq!(effects.next_not_before(NOW), Some(Timestamp(500)));
        assert_eq!(effects.start(1, NOW, Timestamp(500), 10, |_| false), vec![timed]);
    }

    #[test]
    fn effects_of_a_held_key_rest_until_its_release() {
        let mut effects = Effects::default();
        effects.set(vec![mark(1, 1), mark(2, 2)]);
        assert_eq!(effects.start(2, NOW, NOW, 10, |key| key == 1), vec![mark(2, 2)]);
        assert_eq!(effects.next_time(), None);
        effects.release(1, NOW);
        assert_eq!(effects.start(2, NOW, NOW, 10, |_| false), vec![mark(1, 1)]);
    }

    #[test]
    fn a_result_for_an_effect_that_was_asked_for_again_is_not_current() {
        let mut effects = Effects::default();
        effects.set(vec![mark(1, 1)]);
        effects.set(vec![mark(1, 2)]);
        assert!(!effects.is_current(&mark(1, 1)));
        assert!(effects.is_current(&mark(1, 2)));
    }

    #[test]
    fn delays_double_up_to_five_minutes() {
        assert_eq!(delay(1, 1.0), Duration::from_secs(1));
        assert_eq!(delay(4, 1.0), Duration::from_secs(8));
        assert_eq!(delay(40, 1.0), DELAY_MAX);
        assert!(delay(4, 0.0) > Duration::ZERO);
    }
}
