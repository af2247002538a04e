//! Records that cannot be applied: held, tried again, dead; what waits behind them, and what goes on.

use std::time::Duration;

use engine::Settings;
use events::envelope;

use crate::support::eventually;
use crate::toy::{Act, FOREIGN};
use crate::world::{Instance, Launch, SOON, World, key_of};

pub(crate) const RETRY: &str = "toy-svc.retry";
pub(crate) const DLQ: &str = "toy-svc.dlq";

/// An instance that gives up after as many tries as there are delays, and one.
pub(crate) async fn with_delays(world: &World, delays: &[u64]) -> Instance {
    let usual = world.usual();
    let retry_delays = delays.iter().map(|millis| Duration::from_millis(*millis)).collect();
    let launch = Launch { settings: Settings { retry_delays, ..usual.settings }, ..usual };
    world.launch(launch).await.unwrap()
}

/// Letters of a topic: type without its package, class, code, attempts, offset of the source.
pub(crate) async fn letters(world: &World, topic: &str) -> Vec<String> {
    let told = |record: &engine::record::Record| {
        let text = |name: &str| envelope::text(&record.headers, name).unwrap_or("?").to_owned();
        let kind = text("ce_type").rsplit('.').next().unwrap_or_default().to_owned();
        let failure = ["class", "code", "attempts", "offset"].map(|name| text(&format!("failure-{name}")));
        format!("{kind} {}", failure.join(" "))
    };
    world.log(topic).await.iter().map(told).collect()
}

pub(crate) async fn held(world: &World, rows: i64) {
    eventually(SOON, async || {
        let found = world.count("SELECT count(*) FROM held").await;
        if found == rows { Ok(()) } else { Err(found) }
    })
    .await;
}

pub(crate) async fn dead(world: &World, rows: i64) {
    eventually(SOON, async || {
        let found = world.count("SELECT count(*) FROM held WHERE dead").await;
        if found == rows { Ok(()) } else { Err(found) }
    })
    .await;
}

pub(crate) fn add(from: &str, number: i64, amount: i64) -> String {
    format!("{from} {number}: add {amount}")
}

pub(crate) fn texts(all: &[String]) -> Vec<&str> {
    all.iter().map(String::as_str).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_fails_keeps_its_key_in_order_and_no_other() {
    let world = World::new().await;
    let (key, other) = (key_of(0, 0), key_of(0, 1));
    let first = world.news(key, Act::Add(1)).await;
    let fails = world.news(key, Act::Fail).await;
    let beside = world.news(other, Act::Add(2)).await;
    let behind = world.news(key, Act::Add(3)).await;
    let instance = world.start().await;
    world.applied(other, &[&add("news", beside, 2)]).await;
    held(&world, 2).await;
    // Also what changes nothing waits, and what comes from another topic.
    world.news(key, Act::Ignore).await;
    let command = world.command(key, Act::Add(4)).await;
    held(&world, 4).await;
    assert_eq!(world.history(key).await, [add("news", first, 1)]);
    instance.live(2).await;
    world.settled().await;
    let told = letters(&world, RETRY).await;
    assert_eq!(told[..2], ["RecordHeld failed BAD 1 1", "RecordHeld waiting WAITS 0 3"]);
    world.outside.mend();
    let all =
        [add("news", first, 1), format!("news {fails}: mended"), add("news", behind, 3), add("command", command, 4)];
    world.applied(key, &texts(&all)).await;
    held(&world, 0).await;
    world.settled().await;
    let settled = letters(&world, RETRY).await.into_iter().filter(|letter| letter.starts_with("RecordSettled"));
    assert_eq!(settled.collect::<Vec<_>>(), ["RecordSettled waiting WAITS 1 4"]);
    assert_eq!(letters(&world, DLQ).await, Vec::<String>::new());
    instance.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_never_succeeds_dies_and_its_followers_wait_on() {
    let world = World::new().await;
    let (key, other) = (key_of(0, 0), key_of(0, 1));
    world.news(key, Act::Fail).await;
    let behind = world.news(key, Act::Add(1)).await;
    let instance = with_delays(&world, &[50, 50]).await;
    dead(&world, 1).await;
    world.settled().await;
    let told = letters(&world, RETRY).await;
    let attempts: Vec<&String> = told.iter().filter(|letter| letter.ends_with(" 0")).collect();
    assert_eq!(attempts, ["RecordHeld failed BAD 1 0", "AttemptFailed failed BAD 2 0"]);
    assert_eq!(letters(&world, DLQ).await, ["RecordDied failed BAD 3 0"]);
    // A successor knows it too, and nothing of the key overtakes.
    instance.stop().await;
    world.outside.mend();
    let instance = with_delays(&world, &[50, 50]).await;
    let last = world.news(key, Act::Add(2)).await;
    let beside = world.news(other, Act::Add(3)).await;
    world.applied(other, &[&add("news", beside, 3)]).await;
    held(&world, 3).await;
    assert_eq!(world.history(key).await, Vec::<String>::new(), "{behind} and {last} wait");
    instance.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn held_records_come_back_with_a_rebuild() {
    let world = World::new().await;
    let keys: Vec<i64> = (0..4).map(|n| key_of(n % 2, usize::try_from(n).unwrap())).collect();
    let settled = key_of(0, 9);
    let instance = world.start().await;
    // Held and through again.
    world.news(settled, Act::Fail).await;
    held(&world, 1).await;
    world.outside.mend();
    held(&world, 0).await;
    world.outside.break_again();
    for key in &keys {
        world.news(*key, Act::Add(1)).await;
        world.news(*key, Act::Fail).await;
        world.news(*key, Act::Add(2)).await;
    }
    held(&world, 8).await;
    instance.stop().await;
    world.settled().await;
    let live: Vec<String> = rows(&world).await;
    for batch_max in [1, 7, 500] {
        world.rebuild(&world.pool, batch_max).await.unwrap();
        assert_eq!(rows(&world).await, live, "in batches of {batch_max}");
    }
    // It goes on where it was.
    world.outside.mend();
    let instance = world.start().await;
    for key in keys {
        eventually(SOON, async || {
            let history = world.history(key).await;
            if history.len() == 3 && history[2].ends_with("add 2") { Ok(()) } else { Err(history) }
        })
        .await;
    }
    held(&world, 0).await;
    instance.stop().await;
    world.finish().await;
}

pub(crate) async fn rows(world: &World) -> Vec<String> {
    let rows: Vec<(String,)> =
        sqlx::query_as("SELECT to_jsonb(h)::text FROM held AS h ORDER BY partition, topic, source_offset, effect")
            .fetch_all(&world.pool)
            .await
            .unwrap();
    rows.into_iter().map(|(row,)| row).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_postgres_refuses_is_found_among_others() {
    let world = World::new().await;
    let (bad, good) = (key_of(0, 0), key_of(0, 1));
    world.refuse_666(true).await;
    let mut expected = Vec::new();
    for _ in 0..20 {
        expected.push(add("news", world.news(good, Act::Add(1)).await, 1));
    }
    let fails = world.news(bad, Act::Add(666)).await;
    for _ in 0..20 {
        expected.push(add("news", world.news(good, Act::Add(2)).await, 2));
    }
    let instance = with_delays(&world, &[3_000]).await;
    world.applied(good, &texts(&expected)).await;
    held(&world, 1).await;
    world.settled().await;
    assert_eq!(letters(&world, RETRY).await[0], "RecordHeld failed P0001 1 20");
    world.refuse_666(false).await;
    world.applied(bad, &[&add("news", fails, 666)]).await;
    held(&world, 0).await;
    instance.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_next_record_that_nobody_can_read_is_dead_and_its_key_waits() {
    let world = World::new().await;
    let (key, other) = (key_of(0, 0), key_of(0, 1));
    let damaged = world.news_bytes(key, b"{\"type\":\"other.News\",\"key\":").await;
    let behind = world.news(key, Act::Add(1)).await;
    let beside = world.news(other, Act::Add(2)).await;
    let instance = world.start().await;
    world.applied(other, &[&add("news", beside, 2)]).await;
    held(&world, 2).await;
    world.settled().await;
    let told = letters(&world, DLQ).await;
    assert_eq!(told.len(), 1);
    assert!(told[0].starts_with("RecordDied undecodable DAMAGED 1 0"), "{told:?}");
    assert_eq!(world.history(key).await, Vec::<String>::new(), "{behind} waits for {damaged}");
    instance.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timers_and_effects_of_a_held_key_rest() {
    let world = World::new().await;
    let (key, other) = (key_of(0, 0), key_of(0, 1));
    let instance = with_delays(&world, &[500; 60]).await;
    instance.live(2).await;
    world.refuse_events(true).await;
    world.news(key, Act::Call).await;
    world.news(key, Act::Remind(300)).await;
    let fails = world.news(key, Act::Fail).await;
    world.news(other, Act::Remind(300)).await;
    world.news(other, Act::Call).await;
    held(&world, 1).await;
    world.refuse_events(false).await;
    // What was decided behind it is in the log, and happens.
    world.applied_any_order(other, &["remind", "reminded", "call", "answer yes"].map(str::to_owned)).await;
    assert_eq!(world.history(key).await, ["call", "remind"]);
    assert_eq!(world.outside.calls().iter().map(|call| call.key).collect::<Vec<_>>(), [other]);
    world.outside.mend();
    world.applied_somewhere(key, "answer yes").await;
    world.applied_somewhere(key, "reminded").await;
    assert_eq!(world.history(key).await[..3], ["call", "remind", &format!("news {fails}: mended")]);
    instance.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timers_and_answers_that_fail_back_off_while_others_go_on() {
    let world = World::new().await;
    let (timed, called, other) = (key_of(0, 0), key_of(0, 1), key_of(0, 2));
    world.outside.refuse(2, 2);
    let instance = world.start().await;
    world.news(timed, Act::Remind(50)).await;
    world.news(called, Act::Call).await;
    let beside = world.news(other, Act::Add(1)).await;
    world.applied(other, &[&add("news", beside, 1)]).await;
    world.applied(timed, &["remind", "reminded"]).await;
    world.applied(called, &["call", "answer yes"]).await;
    let numbers: Vec<u32> = world.outside.calls().iter().map(|call| call.number).collect();
    assert_eq!(numbers, [1, 2, 3], "each answer that cannot be applied is a failed try");
    assert_eq!(letters(&world, RETRY).await, Vec::<String>::new());
    instance.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_pauses_the_partition_instead_of_moving_its_topic() {
    let world = World::new().await;
    let keys: Vec<i64> = (0..60).map(|n| key_of(0, n)).collect();
    let other = key_of(1, 0);
    for key in &keys {
        world.news(*key, Act::Fail).await;
    }
    let instance = with_delays(&world, &[60_000]).await;
    instance.says("most records of the last minute fail (BAD: it cannot be applied)").await;
    let beside = world.news(other, Act::Add(1)).await;
    world.applied(other, &[&add("news", beside, 1)]).await;
    held(&world, 19).await;
    world.outside.mend();
    instance.engine.resume(0);
    for (index, key) in keys.iter().enumerate().skip(19) {
        world.applied(*key, &[&format!("news {}: mended", index + 1)]).await;
    }
    instance.live(2).await;
    held(&world, 19).await;
    assert_eq!(world.log(FOREIGN).await.len(), 61);
    instance.stop().await;
    world.finish().await;
}

/// As many records of one key as may be held: `KEY_MAX` of the engine.
const KEY_MAX: usize = 1_000;
/// Inputs of one batch.
const BATCH: usize = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_limit_of_a_key_its_partition_pauses_and_nothing_is_dropped() {
    let world = World::new().await;
    let (key, beyond, other) = (key_of(0, 0), key_of(0, 1), key_of(1, 0));
    let fails = world.news(key, Act::Fail).await;
    let mut expected = vec![format!("news {fails}: mended")];
    for _ in 0..KEY_MAX + BATCH {
        expected.push(add("news", world.news(key, Act::Add(1)).await, 1));
    }
    let behind = world.news(beyond, Act::Add(2)).await;
    let usual = world.usual();
    let retry_delays = std::iter::repeat_n(Duration::from_millis(500), 100).collect();
    let settings = Settings { retry_delays, batch_max: BATCH, ..usual.settings };
    let instance = world.launch(Launch { settings, ..usual }).await.unwrap();
    instance.says(&format!(" records of key {key} wait behind one that cannot be applied")).await;
    let beside = world.news(other, Act::Add(3)).await;
    world.applied(other, &[&add("news", beside, 3)]).await;
    let waiting = usize::try_from(world.count("SELECT count(*) FROM held").await).unwrap();
    assert!((KEY_MAX..KEY_MAX + BATCH).contains(&waiting), "{waiting}: the batch that reaches the limit is the last");
    assert_eq!(world.history(beyond).await, Vec::<String>::new(), "what is not read is not lost");
    world.outside.mend();
    world.applied(key, &texts(&expected)).await;
    world.applied(beyond, &[&add("news", behind, 2)]).await;
    held(&world, 0).await;
    assert_eq!(letters(&world, DLQ).await, Vec::<String>::new());
    instance.stop().await;
    world.finish().await;
}
