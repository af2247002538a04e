//! Which held record is tried next, and when.

use std::sync::Arc;
use std::time::Duration;

use events::time::Timestamp;

use crate::held::*;
use crate::letter::{Class, Flaw, Step};
use crate::record::Record;

const NOW: Timestamp = Timestamp(1_000_000);
const ORDER: Option<&str> = Some("order");
const PRODUCT: Option<&str> = Some("product");

fn record() -> Record {
    Record {
        topic: "t".into(),
        partition: 0,
        offset: 0,
        timestamp: NOW,
        key: None,
        value: None,
        headers: events::envelope::Headers::default(),
    }
}

fn delays() -> Arc<[Duration]> {
    [5, 30].map(Duration::from_secs).into()
}

fn entry(number: i64, kind: Option<&'static str>) -> Entry {
    Entry { source: (0, number), number, kind, dead: false, attempts: 0, last_at: NOW }
}

fn failed(attempts: u32, entry: Entry) -> Entry {
    Entry { attempts, ..entry }
}

fn numbers(queues: &Queues, now: Timestamp) -> Vec<i64> {
    queues.due(now, 500).into_iter().map(|(_, number)| number).collect()
}

#[test]
fn only_what_can_be_a_type_is_one() {
    let of = |name: &[u8]| {
        let headers = events::envelope::Headers::from_iter([("ce_type", name)]);
        type_name(&Record { headers, ..record() }).map(str::to_owned)
    };
    assert_eq!(of(b"orderlog.other.Happened").as_deref(), Some("orderlog.other.Happened"));
    for no_type in [&b"a b"[..], b"\x1b[2J", b"\xff", &[b'x'; 129]] {
        assert_eq!(of(no_type), None);
    }
    assert_eq!(type_name(&record()), None);
}

#[test]
fn a_head_is_tried_when_its_delay_is_over_with_all_that_wait_behind_it() {
    let queue = [failed(1, entry(1, ORDER)), entry(2, ORDER), entry(3, ORDER)];
    let queues = Queues::new(delays(), queue.iter().rev().map(|entry| (7, *entry)).collect());
    assert_eq!(queues.next_time(), Some(NOW.plus(Duration::from_secs(5))));
    assert_eq!(numbers(&queues, NOW.plus(Duration::from_millis(4_999))), Vec::<i64>::new());
    assert_eq!(numbers(&queues, NOW.plus(Duration::from_secs(5))), [1, 2, 3]);
}

#[test]
fn delays_follow_the_attempts_and_the_last_one_stays() {
    for (attempts, seconds) in [(1, 5), (2, 30), (3, 30)] {
        let queues = Queues::new(delays(), vec![(7, failed(attempts, entry(1, ORDER)))]);
        assert_eq!(queues.next_time(), Some(NOW.plus(Duration::from_secs(seconds))), "{attempts}");
    }
}

#[test]
fn a_follower_whose_head_is_through_is_tried_at_once() {
    let queues = Queues::new(delays(), vec![(7, entry(2, ORDER))]);
    assert_eq!(numbers(&queues, NOW), [2]);
}

#[test]
fn nothing_passes_a_dead_head() {
    let dead = Entry { dead: true, ..failed(5, entry(1, ORDER)) };
    let queues = Queues::new(delays(), vec![(7, dead), (7, entry(2, ORDER)), (7, entry(3, PRODUCT))]);
    assert_eq!(numbers(&queues, NOW), [3], "another aggregate with the same number");
    assert!(keeps(queues.queue(7), ORDER));
    let dead = Entry { kind: None, ..dead };
    let queues = Queues::new(delays(), vec![(7, dead), (7, entry(2, ORDER)), (7, entry(3, PRODUCT))]);
    assert_eq!(numbers(&queues, NOW), Vec::<i64>::new());
    assert_eq!(queues.next_time(), None);
}

#[test]
fn a_record_of_an_unknown_kind_waits_for_all_kinds() {
    let queue = [failed(1, entry(1, ORDER)), entry(2, PRODUCT), entry(3, None), entry(4, PRODUCT)];
    let queues = Queues::new(delays(), queue.iter().map(|entry| (7, *entry)).collect());
    assert_eq!(numbers(&queues, NOW), [2]);
    assert_eq!(numbers(&queues, NOW.plus(Duration::from_secs(5))), [1, 2, 3, 4]);
}

#[test]
fn a_key_is_free_when_its_queue_is_through() {
    let mut queues = Queues::new(delays(), vec![(7, entry(1, ORDER)), (7, entry(2, ORDER)), (8, entry(3, ORDER))]);
    assert_eq!(queues.len(), 3);
    assert!(!queues.replace(7, vec![entry(2, ORDER)]));
    assert!(queues.rests(7));
    assert!(queues.replace(7, Vec::new()));
    assert!(!queues.rests(7));
    assert!(!queues.replace(7, Vec::new()), "it was free before");
    assert_eq!((queues.len(), numbers(&queues, NOW)), (1, vec![3]));
}

#[test]
fn too_many_records_say_so() {
    let of_one_key = (0..1_000).map(|number| (7, failed(1, entry(number, ORDER)))).collect();
    assert!(Queues::new(delays(), of_one_key).full().unwrap().contains("key 7"));
    let of_many = |count| (0..count).map(|number| (number, failed(1, entry(number, ORDER)))).collect();
    assert_eq!(Queues::new(delays(), of_many(9_999)).full(), None);
    assert!(Queues::new(delays(), of_many(10_000)).full().is_some());
}

#[test]
fn attempts_end_after_the_last_delay() {
    let flaw = |class| Flaw { class, code: "X".into(), message: String::new() };
    let row = |class, attempts, dead| Row {
        record: record(),
        source_sequence: None,
        effect: None,
        number: 1,
        dead,
        flaw: flaw(class),
        attempts,
        first_at: NOW,
        last_at: NOW,
    };
    let of = |class, attempts, dead, now| relapse(&row(class, attempts, dead), &flaw(now), &delays());
    use Class::{Failed, Poison, Strange, Undecodable, Waiting};
    assert_eq!(of(Waiting, 0, false, Failed), (Step::Failed, Failed, 1));
    assert_eq!(of(Failed, 1, false, Failed), (Step::Failed, Failed, 2));
    assert_eq!(of(Failed, 2, false, Failed), (Step::Died, Failed, 3));
    assert_eq!(of(Failed, 3, true, Failed), (Step::Died, Failed, 4), "a dead one stays dead");
    assert_eq!(of(Waiting, 0, false, Undecodable), (Step::Died, Undecodable, 1));
    assert_eq!(of(Failed, 1, false, Poison), (Step::Died, Undecodable, 2), "its key waits on");
    assert_eq!(of(Strange, 1, true, Failed), (Step::Died, Strange, 2), "nothing waits for it");
}
