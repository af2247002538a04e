//! Which effects of a processor may start, when they are tried again, and which are dead letters.
//!
//! Pure bookkeeping: no call is made here and nothing is read. An effect starts only when the event that asked for it is
//! acknowledged (DESIGN §2, H10); tries and their times are scheduling, outside the fold. That an effect is dead is
//! part of it ([`crate::decision`]).

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use events::time::Timestamp;

use crate::acts::Act;
use crate::held_store::DeadRow;
use crate::mutant;
use crate::service::{EffectMark, Try};
use crate::store::StoredTry;

/// No try follows another one faster.
const DELAY_MIN: Duration = Duration::from_millis(50);

/// Names an effect within a processor.
pub(crate) type Name = (i64, &'static str);
/// Names one whose tries are to be forgotten; a row may name a kind of another build.
pub(crate) type Forgotten = (i64, Cow<'static, str>);

#[derive(Debug, Clone, Copy)]
struct Open {
    mark: EffectMark,
    attempts: u32,
    /// When it failed first.
    failed_at: Option<Timestamp>,
    /// True unless this owner committed the event and has not called yet.
    may_have_called: bool,
    running: bool,
    /// A row in `effects` remembers it.
    stored: bool,
}

/// An effect that is a dead letter: it rests until an operator wants something of it, or nobody asks for it any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeadEffect {
    pub(crate) mark: EffectMark,
    /// Offset of the event that asked for it.
    pub(crate) offset: i64,
    /// What an operator wants of it, until that is done.
    pub(crate) act: Option<Act>,
}

impl DeadEffect {
    /// True when it is this effect, asked for by the same event.
    pub(crate) fn is(&self, mark: &EffectMark) -> bool {
        (self.mark.key, self.mark.kind, self.mark.set_by) == (mark.key, mark.kind, mark.set_by)
    }
}

/// Dead effects by key.
pub(crate) type Dead = HashMap<i64, Vec<DeadEffect>>;

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
    /// Batches look into it too.
    dead: Arc<Dead>,
}

/// How long until the next try, `jitter` in [0, 1): full jitter over the delay of so many attempts. `None` when they are
/// used up.
pub(crate) fn delay(delays: &[Duration], attempts: u32, jitter: f64) -> Option<Duration> {
    let delay = delays.get((attempts as usize).saturating_sub(1))?;
    Some(delay.mul_f64(jitter).max(DELAY_MIN))
}

/// The stored tries of effects that nobody asks for any more: a callback or a command has settled them, and their owner
/// ended before it noticed.
pub(crate) fn stale(marks: &[EffectMark], tries: &[StoredTry]) -> Vec<Forgotten> {
    let asked: HashSet<(i64, &str)> = marks.iter().map(|mark| (mark.key, mark.kind)).collect();
    let stale = tries.iter().filter(|stored| !asked.contains(&(stored.key, stored.kind.as_str())));
    stale.map(|stored| (stored.key, stored.kind.clone().into())).collect()
}

impl Effects {
    /// What the states ask for at an assignment: a first try can be excluded for none of them.
    pub(crate) fn restored(marks: Vec<EffectMark>, tries: &[StoredTry], dead: &[DeadRow]) -> Self {
        let mut effects = Self::default();
        let tries: HashMap<_, _> = tries.iter().map(|stored| ((stored.key, stored.kind.as_str()), stored)).collect();
        let dead: HashMap<_, _> = dead.iter().map(|row| ((row.key, row.effect.as_str(), row.sequence), row)).collect();
        let (mut open, mut graves) = (HashMap::new(), Dead::new());
        for mark in marks {
            let name = (mark.key, mark.kind);
            let stored = tries.get(&name).copied();
            let dead = dead.get(&(mark.key, mark.kind, mark.set_by.sequence));
            let attempts = stored.map_or(0, |stored| u32::try_from(stored.attempts).unwrap_or(0));
            let one = Open {
                mark,
                attempts: attempts.max(dead.map_or(0, |row| row.attempts)),
                failed_at: dead.map(|row| row.first_at).or(stored.and_then(|stored| stored.failed_at)),
                may_have_called: true,
                running: false,
                stored: stored.is_some(),
            };
            open.insert(name, one);
            if let Some(row) = dead {
                graves.entry(mark.key).or_default().push(DeadEffect { mark, offset: row.offset, act: None });
                continue;
            }
            let not_before = mark.not_before.unwrap_or(Timestamp(i64::MIN));
            match stored {
                Some(stored) => drop(effects.timed.insert((stored.next_try_at.max(not_before), name))),
                None if mark.not_before.is_some() => drop(effects.timed.insert((not_before, name))),
                None => effects.unacknowledged.push_back((mark.set_by.sequence, name)),
            }
        }
        effects.unacknowledged.make_contiguous().sort_unstable();
        (effects.open, effects.dead) = (open, Arc::new(graves));
        effects
    }

    /// Takes in what a batch asked for.
    pub(crate) fn set(&mut self, marks: Vec<EffectMark>) {
        let mut named: Vec<_> = marks.into_iter().map(|mark| (mark.set_by.sequence, mark)).collect();
        named.sort_unstable_by_key(|(sequence, _)| *sequence);
        for (sequence, mark) in named {
            let name = (mark.key, mark.kind);
            let (may_have_called, running, stored) = (false, false, false);
            let open = Open { mark, attempts: 0, failed_at: None, may_have_called, running, stored };
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

    /// Counts a try that failed. Returns how many there were, and when the first of them was.
    pub(crate) fn failed(&mut self, name: Name, now: Timestamp) -> Option<(u32, Timestamp)> {
        let open = self.open.get_mut(&name)?;
        open.attempts += 1;
        open.may_have_called = true;
        Some((open.attempts, *open.failed_at.get_or_insert(now)))
    }

    /// Plans another try. Returns the attempts used up, and when the first of them failed.
    pub(crate) fn again(&mut self, name: Name, at: Timestamp, stored: bool) -> Option<(u32, Option<Timestamp>)> {
        let open = self.open.get_mut(&name)?;
        open.running = false;
        open.may_have_called = true;
        open.stored |= stored;
        self.timed.insert((at, name));
        Some((open.attempts, open.failed_at))
    }

    /// The dead ones.
    pub(crate) fn dead(&self) -> &Arc<Dead> {
        &self.dead
    }

    /// True when the effect as it is asked for now is dead.
    pub(crate) fn is_dead(&self, mark: &EffectMark) -> bool {
        self.dead.get(&mark.key).is_some_and(|dead| dead.iter().any(|dead| dead.is(mark)))
    }

    /// Takes in which effects of a key are dead by now. Returns those that were and that nobody asks for any more.
    pub(crate) fn bury(&mut self, key: i64, dead: Vec<DeadEffect>) -> Vec<EffectMark> {
        let all = Arc::make_mut(&mut self.dead);
        let mut before = all.remove(&key).unwrap_or_default();
        before.retain(|one| !dead.iter().any(|dead| dead.is(&one.mark)));
        if !dead.is_empty() {
            all.insert(key, dead);
        }
        before.into_iter().map(|one| one.mark).filter(|mark| self.is_current(mark)).collect()
    }

    /// A batch has taken in that its attempts are used up: it rests.
    pub(crate) fn rest(&mut self, name: Name) {
        if let Some(open) = self.open.get_mut(&name) {
            (open.running, open.stored) = (false, false);
        }
    }

    /// The dead effect of this name that the event at this offset asked for.
    pub(crate) fn dead_at(&self, offset: i64, kind: &str) -> Option<EffectMark> {
        let mut dead = self.dead.values().flatten();
        dead.find(|dead| dead.offset == offset && dead.mark.kind == kind).map(|dead| dead.mark)
    }

    /// An operator wants something of a dead effect.
    pub(crate) fn want(&mut self, mark: &EffectMark, act: Act) {
        let dead = Arc::make_mut(&mut self.dead).get_mut(&mark.key).into_iter().flatten();
        dead.filter(|dead| dead.is(mark)).for_each(|dead| dead.act = Some(act.clone()));
    }

    /// A dead one is tried once more.
    pub(crate) fn redrive(&mut self, mark: &EffectMark, now: Timestamp) {
        self.timed.insert((now, (mark.key, mark.kind)));
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

    /// How many are open and not dead.
    pub(crate) fn len(&self) -> usize {
        self.open.len() - self.dead.values().map(Vec::len).sum::<usize>().min(self.open.len())
    }
}
