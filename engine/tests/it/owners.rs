//! Who owns a processor: instances that come, go, sleep and die.

use crate::child::Process;
use crate::support::{PARTITIONS, eventually};
use crate::toy::Act;
use crate::world::{SOON, World, home, key_of};

/// Commands for keys of both partitions, and what they lead to.
async fn load(world: &World, rounds: i64) -> Vec<(i64, Vec<String>)> {
    let mut keys: Vec<(i64, Vec<String>)> =
        (0..PARTITIONS).flat_map(|partition| [0, 1].map(|n| (key_of(partition, n), Vec::new()))).collect();
    more(world, &mut keys, rounds).await;
    keys
}

async fn more(world: &World, keys: &mut [(i64, Vec<String>)], rounds: i64) {
    for round in 0..rounds {
        for (key, expected) in &mut *keys {
            let id = world.command(*key, Act::Add(round)).await;
            expected.push(format!("command {id}: add {round}"));
        }
    }
}

async fn all_applied(world: &World, keys: &[(i64, Vec<String>)]) {
    for (key, expected) in keys {
        world.applied(*key, &expected.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_share_and_hand_over() {
    let world = World::new().await;
    let first = world.start().await;
    let mut keys = load(&world, 10).await;
    let second = world.launch(world.usual()).await.unwrap();
    more(&world, &mut keys, 20).await;
    first.live(1).await;
    second.live(1).await;
    more(&world, &mut keys, 10).await;
    first.stop().await;
    more(&world, &mut keys, 10).await;
    second.live(PARTITIONS).await;
    all_applied(&world, &keys).await;
    let third = world.launch(world.usual()).await.unwrap();
    more(&world, &mut keys, 10).await;
    third.live(1).await;
    all_applied(&world, &keys).await;
    second.stop().await;
    third.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_slept_longer_than_its_session_changes_nothing_when_it_wakes() {
    let world = World::new().await;
    let mut sleeper = Process::start(&world, "sleeper", &world.database.url);
    let mut keys = load(&world, 5).await;
    all_applied(&world, &keys).await;
    // Stopped with a batch open: the row it waits for is held.
    let mut blocker = world.pool.begin().await.unwrap();
    sqlx::query("SELECT * FROM entries FOR UPDATE").execute(&mut *blocker).await.unwrap();
    more(&world, &mut keys, 5).await;
    eventually(SOON, async || {
        let waits = world
            .count(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                                 AND application_name = 'toy' AND wait_event_type = 'Lock'",
            )
            .await;
        if waits > 0 { Ok(()) } else { Err("no batch is open") }
    })
    .await;
    sleeper.pause();
    blocker.rollback().await.unwrap();
    let heir = world.launch(world.usual()).await.unwrap();
    heir.live(PARTITIONS).await;
    all_applied(&world, &keys).await;
    let before = world.count("SELECT sum(epoch)::bigint FROM processors").await;
    sleeper.wake();
    more(&world, &mut keys, 5).await;
    // It joins the group again: from then on it owns something, with a later epoch.
    heir.live(1).await;
    all_applied(&world, &keys).await;
    let after = world.count("SELECT sum(epoch)::bigint FROM processors").await;
    assert!(after > before && sleeper.is_running());
    sleeper.kill();
    heir.live(PARTITIONS).await;
    more(&world, &mut keys, 2).await;
    all_applied(&world, &keys).await;
    world.settled().await;
    heir.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_killed_between_acknowledgement_and_delete_sends_nothing_twice_in_effect() {
    let world = World::new().await;
    let mut keys = Vec::new();
    for round in 0..3 {
        let process = Process::start(&world, "doomed", &world.database.url);
        let key = key_of(round % PARTITIONS, 5);
        let id = world.command(key, Act::Add(1)).await;
        // In the log, while the outbox still has the row: the next batch, or half a second of idleness, would delete it.
        eventually(SOON, async || {
            let logged = world.log("toy.events").await.iter().any(|record| {
                record
                    .value
                    .as_ref()
                    .is_some_and(|value| String::from_utf8_lossy(value).contains(&format!("command {id}: add 1")))
            });
            if logged { Ok(()) } else { Err("the event is not in the log") }
        })
        .await;
        process.kill();
        keys.push((key, format!("command {id}: add 1")));
    }
    let heir = world.start().await;
    let last = world.command(keys[0].0, Act::Add(2)).await;
    world.applied_somewhere(keys[0].0, &format!("command {last}: add 2")).await;
    for (key, expected) in &keys {
        let count = world.history(*key).await.iter().filter(|one| *one == expected).count();
        assert_eq!(count, 1, "{expected} on partition {}", home(*key));
    }
    // What the doomed left there is forgotten by their heir, though it did not decide it.
    eventually(SOON, async || {
        let left = world.count("SELECT count(*) FROM outbox").await;
        if left == 0 { Ok(()) } else { Err(left) }
    })
    .await;
    heir.stop().await;
    world.finish().await;
}
