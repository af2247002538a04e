//! Processors of one process commit together, and each bears its own trouble alone (ADR 6).

use std::time::Duration;

use engine::Settings;
use sqlx::Executor;

use crate::support::PARTITIONS;
use crate::toy::Act;
use crate::world::{Instance, Launch, World, key_of};

const KEYS: usize = 60;

/// An instance that takes one record at a time of each partition, so that its processors are always ready together.
async fn one_at_a_time(world: &World) -> Instance {
    let usual = world.usual();
    let settings = Settings { batch_max: 1, ..usual.settings.clone() };
    world.launch(Launch { settings, ..usual }).await.unwrap()
}

/// A backlog of one event per key, the keys of both partitions in turns.
async fn backlog(world: &World) -> Vec<(i64, String)> {
    let mut expected = Vec::new();
    for n in 0..KEYS {
        for partition in [0, 1] {
            let key = key_of(partition, n);
            expected.push((key, format!("news {}: add 1", world.news(key, Act::Add(1)).await)));
        }
    }
    expected
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processors_that_are_ready_share_a_transaction() {
    let world = World::new().await;
    let instance = one_at_a_time(&world).await;
    instance.live(PARTITIONS).await;
    // Neither may be through before the other begins: both wait for their row until the whole backlog is there.
    let mut held = world.pool.begin().await.unwrap();
    held.execute("SELECT 1 FROM processors FOR UPDATE").await.unwrap();
    let expected = backlog(&world).await;
    held.rollback().await.unwrap();
    for (key, news) in &expected {
        world.applied(*key, &[news]).await;
    }
    let transactions = world.count("SELECT count(DISTINCT xmin::text) FROM entries").await;
    let batches = i64::try_from(expected.len()).unwrap();
    assert!(transactions < batches, "{batches} batches in {transactions} transactions: none is shared");
    world.settled().await;
    instance.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_postgres_refuses_is_held_and_the_others_are_applied_once() {
    let world = World::new().await;
    world.refuse_666(true).await;
    let mut expected = backlog(&world).await;
    let refused = key_of(0, KEYS);
    let fails = world.news(refused, Act::Add(666)).await;
    for n in 0..KEYS / 2 {
        for partition in [0, 1] {
            let key = key_of(partition, n + KEYS + 1);
            expected.push((key, format!("news {}: add 2", world.news(key, Act::Add(2)).await)));
        }
    }
    let instance = one_at_a_time(&world).await;
    for (key, news) in &expected {
        world.applied(*key, &[news]).await;
    }
    assert_eq!(world.history(refused).await, Vec::<String>::new());
    assert_eq!(world.count("SELECT count(*) FROM held").await, 1);
    // Those behind it went by steps. Each of them is loaded twice, first for the locks of the whole transaction.
    assert!(world.outside.loaded() > expected.len() + KEYS / 3, "a step takes locks that its transaction has not");
    world.refuse_666(false).await;
    world.applied(refused, &[&format!("news {fails}: add 666")]).await;
    world.settled().await;
    instance.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_processor_that_is_fenced_leaves_the_others_their_transaction() {
    let world = World::new().await;
    let expected = backlog(&world).await;
    let instance = one_at_a_time(&world).await;
    let epoch = "SELECT epoch FROM processors WHERE partition = 0";
    let of_the_other = "SELECT epoch FROM processors WHERE partition = 1";
    world.applied(expected[0].0, &[&expected[0].1]).await;
    let other = world.count(of_the_other).await;
    for round in 0..3 {
        world.applied(expected[round * KEYS / 2].0, &[&expected[round * KEYS / 2].1]).await;
        world.pool.execute("UPDATE processors SET epoch = epoch + 1 WHERE partition = 0").await.unwrap();
        let taken = world.count(epoch).await;
        crate::support::eventually(Duration::from_secs(30), async || {
            let now = world.count(epoch).await;
            if now > taken { Ok(()) } else { Err("it is not assigned anew") }
        })
        .await;
    }
    for (key, news) in &expected {
        world.applied(*key, &[news]).await;
    }
    assert_eq!(world.count(of_the_other).await, other, "the other went on all the time");
    world.settled().await;
    instance.stop().await;
    world.finish().await;
}
