//! Timers fire once, when everything that was in the log by then is read.

use std::time::Duration;

use crate::support::{PARTITIONS, eventually};
use crate::toy::Act;
use crate::world::{Launch, SOON, World, key_of};

fn with_grace(world: &World, grace: Duration, batch_max: usize) -> Launch {
    let mut launch = world.usual();
    launch.settings.timer_grace = grace;
    launch.settings.batch_max = batch_max;
    launch
}

/// Waits until the timer of a key is overdue by so much, by Postgres' clock.
async fn overdue(world: &World, key: i64, by: Duration) {
    let by = i64::try_from(by.as_millis()).unwrap();
    eventually(SOON, async || {
        let (left,): (i64,) = sqlx::query_as(
            "SELECT due_at + $2 - (EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::bigint FROM entries WHERE key = $1",
        )
        .bind(key)
        .bind(by)
        .fetch_one(&world.pool)
        .await
        .unwrap();
        if left < 0 { Ok(()) } else { Err(left) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timer_fires_once_and_not_before_it_is_due() {
    let world = World::new().await;
    let instance = world.start().await;
    let keys: Vec<i64> = (0..PARTITIONS).flat_map(|partition| [0, 1, 2].map(|n| key_of(partition, n))).collect();
    for key in &keys {
        world.command(*key, Act::Remind(500)).await;
    }
    for key in &keys {
        world.applied(*key, &["remind", "reminded"]).await;
    }
    world.settled().await;
    let mut at = std::collections::BTreeMap::new();
    for record in world.log("toy.events").await {
        let time = events::envelope::text(&record.headers, "ce_time").unwrap();
        let cause = events::envelope::text(&record.headers, "ce_cause").unwrap();
        let time = events::time::Timestamp::parse(time).unwrap();
        if cause == "timer" {
            assert!(time.0 - at[&record.key] >= 500, "too early");
        } else {
            at.insert(record.key, time.0);
        }
    }
    instance.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timer_waits_for_the_backlog() {
    let world = World::new().await;
    let (key, busy) = (key_of(0, 0), key_of(0, 1));
    let instance = world.start().await;
    world.news(key, Act::Remind(300)).await;
    world.applied(key, &["remind"]).await;
    instance.stop().await;
    for _ in 0..300 {
        world.news(busy, Act::Add(1)).await;
    }
    world.news(key, Act::Settle).await;
    overdue(&world, key, Duration::from_millis(200)).await;
    let instance = world.launch(with_grace(&world, Duration::ZERO, 10)).await.unwrap();
    world.applied(key, &["remind", "settle"]).await;
    instance.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timer_long_overdue_rests_through_the_grace_of_an_assignment() {
    let world = World::new().await;
    let (settled, fired, fresh) = (key_of(0, 0), key_of(0, 1), key_of(1, 0));
    let instance = world.start().await;
    for key in [settled, fired] {
        world.news(key, Act::Remind(200)).await;
        world.applied_somewhere(key, "remind").await;
    }
    instance.stop().await;
    let grace = Duration::from_secs(3);
    overdue(&world, fired, grace + Duration::from_millis(100)).await;
    assert_eq!(world.history(fired).await, ["remind"], "the instance had ended before it was due");
    let instance = world.launch(with_grace(&world, grace, 500)).await.unwrap();
    instance.live(PARTITIONS).await;
    // What settles it lay one service away.
    world.news(settled, Act::Settle).await;
    world.news(fresh, Act::Remind(100)).await;
    world.applied(fresh, &["remind", "reminded"]).await;
    world.applied(fired, &["remind", "reminded"]).await;
    world.applied(settled, &["remind", "settle"]).await;
    instance.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timer_that_is_settled_in_its_own_batch_does_not_fire() {
    let world = World::new().await;
    let key = key_of(0, 0);
    let instance = world.start().await;
    // Each round: due at once, and settled by the record behind it.
    for _ in 0..30 {
        world.news(key, Act::Remind(0)).await;
        world.news(key, Act::Settle).await;
    }
    let last = world.news(key, Act::Add(1)).await;
    world.applied_somewhere(key, &format!("news {last}: add 1")).await;
    instance.live(PARTITIONS).await;
    assert_eq!(world.count("SELECT count(*) FROM entries WHERE due_at IS NOT NULL").await, 0);
    instance.stop().await;
    world.finish().await;
}
