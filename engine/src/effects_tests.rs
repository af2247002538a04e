//! When effects start, wait, rest and die.

use std::time::Duration;

use events::id::EventId;
use events::record::SetBy;
use events::time::Timestamp;

use crate::acts::{Act, Deed};
use crate::effects::*;
use crate::held_store::DeadRow;
use crate::service::EffectMark;
use crate::store::StoredTry;

const NOW: Timestamp = Timestamp(1_000);

fn mark(key: i64, sequence: i64) -> EffectMark {
    EffectMark { key, kind: "charge", set_by: SetBy { event_id: EventId(key), sequence }, not_before: None }
}

fn stored(key: i64, attempts: i32) -> StoredTry {
    StoredTry { key, kind: "charge".to_owned(), attempts, next_try_at: Timestamp(5_000), failed_at: None }
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
    effects.failed((1, "charge"), NOW);
    effects.again((1, "charge"), NOW, true);
    let second = effects.attempt((1, "charge"), NOW).unwrap();
    assert!(second.may_have_called && second.number == 2);

    let restored = Effects::restored(vec![mark(1, 1)], &[], &[]);
    assert!(restored.attempt((1, "charge"), NOW).unwrap().may_have_called);
}

#[test]
fn restored_effects_wait_for_their_event_and_their_time() {
    let mut effects = Effects::restored(vec![mark(1, 9), mark(2, 1)], &[stored(2, 3)], &[]);
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
fn delays_end_after_the_last_one() {
    let delays = [1, 2, 4].map(Duration::from_secs);
    let full = |attempts| delay(&delays, attempts, 1.0);
    assert_eq!([1, 2, 3].map(full), delays.map(Some));
    assert_eq!(full(4), None);
    assert!(delay(&delays, 1, 0.0) > Some(Duration::ZERO));
}

fn dead(key: i64, sequence: i64) -> DeadRow {
    DeadRow { key, effect: "charge".to_owned(), sequence, offset: 70, attempts: 8, first_at: Timestamp(5) }
}

fn act() -> Act {
    Act { id: 3, deed: Deed::Redrive, sub: "olga".to_owned(), reason: "mended".to_owned() }
}

#[test]
fn a_dead_effect_rests_until_an_operator_wants_it_and_its_tries_go_on_counting() {
    let mut effects = Effects::restored(vec![mark(1, 1), mark(2, 2)], &[stored(1, 2)], &[dead(1, 1)]);
    assert_eq!(effects.start(9, Timestamp(i64::MAX), NOW, 10, |_| false), vec![mark(2, 2)]);
    assert!(effects.is_dead(&mark(1, 1)) && !effects.is_dead(&mark(2, 2)));
    assert_eq!(effects.len(), 1);
    assert_eq!((effects.dead_at(71, "charge"), effects.dead_at(70, "refund")), (None, None));
    let wanted = effects.dead_at(70, "charge").unwrap();
    effects.want(&wanted, act());
    assert_eq!(effects.dead()[&1][0].act, Some(act()));
    effects.redrive(&wanted, NOW);
    assert_eq!(effects.start(9, NOW, NOW, 10, |_| false), vec![mark(1, 1)]);
    assert_eq!(effects.attempt((1, "charge"), NOW).unwrap().number, 9);
    assert_eq!(effects.failed((1, "charge"), NOW), Some((9, Timestamp(5))));
    effects.rest((1, "charge"));
    assert_eq!(effects.start(9, NOW, NOW, 10, |_| false), vec![]);
}

#[test]
fn an_effect_that_is_asked_for_again_is_not_dead() {
    let mut effects = Effects::restored(vec![mark(1, 2)], &[], &[dead(1, 1)]);
    assert!(!effects.is_dead(&mark(1, 2)));
    assert_eq!(effects.start(2, NOW, NOW, 10, |_| false), vec![mark(1, 2)]);
    assert_eq!(effects.attempt((1, "charge"), NOW).unwrap().number, 1);
}
