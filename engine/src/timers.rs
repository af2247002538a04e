//! When the timers of a processor may fire: due, and everything that was in the inputs by then is read (H5, N12).
//!
//! Pure: Postgres' clock and the ends of the inputs come from outside. An outage must not expire orders that were paid.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use events::time::Timestamp;

use crate::intake::Place;
use crate::mutant;
use crate::service::Window;

/// Timers of one batch.
const TIMERS_MAX: i64 = 500;
/// The start of time.
const ALWAYS: Timestamp = Timestamp(i64::MIN);
/// When nothing fired although something seemed due, look again after this.
const REST: Duration = Duration::from_secs(1);

/// Ends of the input partitions, fetched after a moment.
#[derive(Debug, Clone)]
pub(crate) struct Ends {
    /// The moment, by Postgres' clock.
    pub(crate) at: Timestamp,
    /// End offset per input topic.
    pub(crate) ends: HashMap<String, i64>,
}

/// Keys whose timer could not be applied: it rests for a while.
#[derive(Debug, Default)]
pub(crate) struct Rests(HashMap<i64, Rest>);

#[derive(Debug, Default)]
struct Rest {
    /// How often in a row it failed.
    failures: usize,
    /// `None` while it may fire again.
    until: Option<Timestamp>,
}

impl Rests {
    /// The timer of a key failed; the delays are those of held records, and the last one stays.
    pub(crate) fn failed(&mut self, key: i64, now: Timestamp, delays: &[Duration]) {
        let rest = self.0.entry(key).or_default();
        rest.until = Some(now.plus(delays.get(rest.failures).or(delays.last()).copied().unwrap_or(REST)));
        rest.failures += 1;
    }

    /// Timers fired, and only those that rest did not.
    pub(crate) fn fired(&mut self) {
        self.0.retain(|_, rest| rest.until.is_some());
    }

    /// True when a rest has ended since it was asked last.
    pub(crate) fn end(&mut self, now: Timestamp) -> bool {
        let over = self.0.values_mut().filter(|rest| rest.until.is_some_and(|until| until <= now));
        over.map(|rest| rest.until = None).count() > 0
    }

    /// The keys that rest.
    pub(crate) fn resting(&self) -> impl Iterator<Item = i64> {
        self.0.iter().filter(|(_, rest)| rest.until.is_some()).map(|(key, _)| *key)
    }

    /// When a rest ends next.
    pub(crate) fn next_time(&self) -> Option<Timestamp> {
        self.0.values().filter_map(|rest| rest.until).min()
    }
}

/// Postgres' clock, carried on by a monotonic one between batches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    read: Timestamp,
    at: Instant,
}

impl Clock {
    pub(crate) fn new(read: Timestamp) -> Self {
        Self { read, at: Instant::now() }
    }

    pub(crate) fn now(self) -> Timestamp {
        self.read.plus(self.at.elapsed())
    }
}

/// The timers of one processor.
#[derive(Debug)]
pub(crate) struct Timers {
    /// Not later than the earliest timer there is.
    next: Option<Timestamp>,
    /// Up to here every input is read.
    horizon: Timestamp,
    /// Ends that are still to be reached. Kept until then, so that a busy log cannot move them away.
    goal: Option<Ends>,
    asking: bool,
    assigned_at: Timestamp,
    grace: Duration,
    resting_until: Option<Timestamp>,
}

impl Timers {
    pub(crate) fn new(assigned_at: Timestamp, grace: Duration, next: Option<Timestamp>) -> Self {
        Self { next, horizon: ALWAYS, goal: None, asking: false, assigned_at, grace, resting_until: None }
    }

    pub(crate) fn horizon(&self) -> Timestamp {
        self.horizon
    }

    /// A timer that rested may fire again: look what there is.
    pub(crate) fn look(&mut self, now: Timestamp) {
        self.set(Some(now));
        self.resting_until = None;
    }

    /// A batch set a timer.
    pub(crate) fn set(&mut self, at: Option<Timestamp>) {
        if let Some(at) = at {
            self.next = Some(self.next.map_or(at, |next| next.min(at)));
        }
    }

    /// A batch took timers in.
    pub(crate) fn fired(&mut self, count: usize, next: Option<Timestamp>, now: Timestamp) {
        self.next = next;
        self.resting_until = (count == 0).then(|| now.plus(REST));
    }

    fn is_due(&self, now: Timestamp) -> bool {
        self.next.is_some_and(|next| next <= now) && self.resting_until.is_none_or(|until| until <= now)
    }

    /// The window to take in now, if any timer may fire.
    pub(crate) fn window(&self, now: Timestamp) -> Option<Window> {
        let horizon = if mutant::is("timer-before-catch-up") { now } else { self.horizon };
        if !self.is_due(now) || self.next.is_none_or(|next| next > horizon) {
            return None;
        }
        let graceful = now < self.assigned_at.plus(self.grace);
        let from = if graceful { self.assigned_at.minus(self.grace) } else { ALWAYS };
        Some(Window { from, until: horizon.min(now), limit: TIMERS_MAX })
    }

    /// True when the ends must be asked for: something is due (or `also` is) that lies beyond the horizon.
    pub(crate) fn must_ask(&mut self, now: Timestamp, also: Option<Timestamp>) -> bool {
        let beyond = |time: Option<Timestamp>| time.is_some_and(|time| time <= now && time > self.horizon);
        let timer = self.is_due(now) && beyond(self.next);
        let ask = (timer || beyond(also)) && self.goal.is_none() && !self.asking;
        self.asking |= ask;
        ask
    }

    /// The ends that were asked for; `None` when they could not be had.
    pub(crate) fn answer(&mut self, ends: Option<Ends>) {
        self.asking = false;
        self.goal = ends;
    }

    /// Moves the horizon when the ends are reached.
    pub(crate) fn reach(&mut self, places: &HashMap<String, Place>) {
        let Some(goal) = &self.goal else { return };
        let reached = |(topic, end): (&String, &i64)| {
            *end == 0 || places.get(topic).is_some_and(|place| place.next_offset >= *end)
        };
        if goal.ends.iter().all(reached) {
            self.horizon = self.horizon.max(goal.at);
            self.goal = None;
        }
    }

    /// The next moment at which something may have to be done.
    pub(crate) fn next_time(&self) -> Option<Timestamp> {
        let next = self.next?;
        Some(self.resting_until.map_or(next, |until| until.max(next)))
    }

    /// The earliest timer that is overdue, for readiness.
    pub(crate) fn overdue_since(&self, now: Timestamp) -> Option<Timestamp> {
        self.next.filter(|next| *next <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUE: Timestamp = Timestamp(1_000_000);
    const GRACE: Duration = Duration::from_secs(60);

    fn places(next_offset: i64) -> HashMap<String, Place> {
        HashMap::from([("t".to_owned(), Place { next_offset, last_sequence: 0 })])
    }

    fn ends(at: i64, end: i64) -> Option<Ends> {
        Some(Ends { at: Timestamp(at), ends: HashMap::from([("t".to_owned(), end)]) })
    }

    #[test]
    fn a_timer_that_fails_rests_longer_each_time() {
        let (mut rests, delays) = (Rests::default(), [5, 30].map(Duration::from_secs));
        let after = |seconds| DUE.plus(Duration::from_secs(seconds));
        rests.failed(7, DUE, &delays);
        assert!(!rests.end(after(4)));
        assert_eq!(rests.resting().collect::<Vec<_>>(), [7]);
        assert!(rests.end(after(5)));
        assert_eq!((rests.resting().count(), rests.next_time()), (0, None));
        rests.failed(7, after(5), &delays);
        assert_eq!(rests.next_time(), Some(after(35)));
        assert!(rests.end(after(35)));
        rests.fired();
        rests.failed(7, after(35), &delays);
        assert_eq!(rests.next_time(), Some(after(40)), "it had fired");
    }

    #[test]
    fn a_due_timer_waits_until_the_backlog_is_read() {
        let mut timers = Timers::new(Timestamp(990_000), GRACE, Some(DUE));
        let now = Timestamp(1_000_500);
        assert_eq!(timers.window(now), None);
        assert!(timers.must_ask(now, None));
        assert!(!timers.must_ask(now, None), "asked once");
        timers.answer(ends(1_000_500, 10));
        timers.reach(&places(9));
        assert_eq!(timers.window(now), None);
        timers.reach(&places(10));
        assert_eq!(timers.window(now).unwrap().until, now);
    }

    #[test]
    fn ends_fetched_before_the_due_time_do_not_count() {
        let mut timers = Timers::new(Timestamp(0), GRACE, Some(DUE));
        timers.answer(ends(999_999, 0));
        timers.reach(&places(0));
        assert_eq!(timers.window(Timestamp(1_000_500)), None);
    }

    #[test]
    fn a_timer_long_overdue_rests_through_the_grace() {
        let assigned = DUE.plus(Duration::from_secs(600));
        let mut timers = Timers::new(assigned, GRACE, Some(DUE));
        timers.answer(ends(assigned.0 + 1, 0));
        timers.reach(&places(0));
        let window = timers.window(assigned.plus(Duration::from_secs(1))).unwrap();
        assert!(window.from > DUE, "it is left out");
        timers.fired(0, Some(DUE), assigned.plus(Duration::from_secs(1)));
        assert_eq!(timers.window(assigned.plus(Duration::from_millis(1_500))), None, "no busy loop");
        let window = timers.window(assigned.plus(Duration::from_secs(61))).unwrap();
        assert!(window.from < DUE);
    }

    #[test]
    fn an_unanswered_question_is_asked_again() {
        let mut timers = Timers::new(Timestamp(0), GRACE, Some(DUE));
        assert!(timers.must_ask(DUE, None));
        timers.answer(None);
        assert!(timers.must_ask(DUE, None));
    }

    #[test]
    fn a_timer_set_earlier_comes_first() {
        let mut timers = Timers::new(Timestamp(0), GRACE, Some(DUE));
        timers.set(Some(Timestamp(5)));
        assert_eq!(timers.next_time(), Some(Timestamp(5)));
    }
}
