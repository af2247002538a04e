//! Calls to the outside: when they start, what happens when they fail, what a successor knows of them.

use std::time::Duration;

use crate::outside::Reply;
use crate::support::{PARTITIONS, eventually};
use crate::toy::Act;
use crate::world::{Launch, SOON, World, key_of};

/// Waits until so many calls arrived; returns (number, may have called) of each.
async fn calls(world: &World, count: usize) -> Vec<(u32, bool)> {
    eventually(SOON, async || {
        let calls = world.outside.calls();
        if calls.len() >= count { Ok(()) } else { Err(calls) }
    })
    .await;
    world.outside.calls().iter().map(|call| (call.number, call.may_have_called)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_effect_starts_only_when_its_event_is_in_the_log() {
    let world = World::new().await;
    let keys = [key_of(0, 0), key_of(1, 0), key_of(0, 1)];
    let instance = world.start().await;
    world.refuse_events(true).await;
    for key in keys {
        world.command(key, Act::Call).await;
        world.applied(key, &["call"]).await;
    }
    assert_eq!(world.count("SELECT count(*) FROM outbox").await, 3, "decided, not published");
    assert_eq!(world.outside.calls(), []);
    world.refuse_events(false).await;
    for key in keys {
        world.applied(key, &["call", "answer yes"]).await;
    }
    let calls = world.outside.calls();
    assert_eq!(calls.len(), 3);
    for call in calls {
        assert!(call.logged >= 1, "{call:?} before its event was in the log");
        assert!(!call.may_have_called, "this owner committed it and had not called");
    }
    instance.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_asks_first() {
    let world = World::new().await;
    let key = key_of(0, 0);
    world.outside.script([Reply::Silence]);
    let first = world.start().await;
    world.command(key, Act::Call).await;
    assert_eq!(calls(&world, 1).await, [(1, false)]);
    first.stop().await;
    let second = world.start().await;
    world.applied(key, &["call", "answer yes"]).await;
    assert_eq!(calls(&world, 2).await, [(1, false), (1, true)]);
    second.stop().await;
    let third = world.start().await;
    let id = world.command(key, Act::Add(1)).await;
    world.applied(key, &["call", "answer yes", &format!("command {id}: add 1")]).await;
    assert_eq!(world.outside.calls().len(), 2, "an answered effect is not called again");
    third.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_on_its_way_at_the_end_of_its_owner_is_not_made_again() {
    let world = World::new().await;
    let keys: Vec<i64> = (0..100).map(|n| key_of(0, n)).collect();
    world.outside.script(keys.iter().map(|_| Reply::Late(Duration::from_millis(500))));
    let first = world.start().await;
    for key in &keys {
        world.command(*key, Act::Call).await;
    }
    calls(&world, 1).await;
    first.stop().await;
    let second = world.start().await;
    for key in &keys {
        world.applied(*key, &["call", "answer yes"]).await;
    }
    assert_eq!(world.outside.calls().len(), keys.len(), "none was made twice");
    second.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tries_of_what_nobody_asks_for_any_more_are_forgotten_by_the_next_owner() {
    let world = World::new().await;
    let keys = [key_of(0, 0), key_of(1, 0)];
    world.outside.script([Reply::Failed, Reply::Failed, Reply::Silence, Reply::Silence]);
    let first = world.start().await;
    for key in keys {
        world.command(key, Act::Call).await;
    }
    calls(&world, 4).await;
    first.stop().await;
    assert_eq!(world.count("SELECT count(*) FROM effects").await, 2);
    // By hand, so that the check at the end would find it.
    sqlx::query("UPDATE entries SET call_event = NULL, call_sequence = NULL WHERE key = $1")
        .bind(keys[0])
        .execute(&world.pool)
        .await
        .unwrap();
    let second = world.start().await;
    world.applied(keys[1], &["call", "answer yes"]).await;
    eventually(SOON, async || {
        let left = world.count("SELECT count(*) FROM effects").await;
        if left == 0 { Ok(()) } else { Err(left) }
    })
    .await;
    assert_eq!(calls(&world, 5).await.len(), 5);
    second.stop().await;
    world.abandon().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_use_up_attempts_and_silence_does_not() {
    let world = World::new().await;
    let key = key_of(1, 0);
    world.outside.script([Reply::Unreachable, Reply::Pending, Reply::Failed, Reply::Failed]);
    let instance = world.start().await;
    world.command(key, Act::Call).await;
    world.applied(key, &["call", "answer yes"]).await;
    let expected = [(1, false), (1, true), (1, true), (2, true), (3, true)];
    assert_eq!(calls(&world, 5).await, expected);
    eventually(SOON, async || {
        let left = world.count("SELECT count(*) FROM effects").await;
        if left == 0 { Ok(()) } else { Err(left) }
    })
    .await;
    instance.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_are_remembered_across_owners() {
    let world = World::new().await;
    let key = key_of(0, 0);
    world.outside.script([Reply::Failed, Reply::Silence]);
    let first = world.start().await;
    world.command(key, Act::Call).await;
    calls(&world, 2).await;
    eventually(SOON, async || {
        let attempts = world.count("SELECT coalesce(max(attempts), 0)::bigint FROM effects").await;
        if attempts == 1 { Ok(()) } else { Err(attempts) }
    })
    .await;
    first.stop().await;
    let second = world.start().await;
    world.applied(key, &["call", "answer yes"]).await;
    assert_eq!(calls(&world, 3).await, [(1, false), (2, true), (2, true)]);
    second.stop().await;
    world.finish().await;
}

/// Whatever reads effects gives its connection back: timers, assignments and IDs need one too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_open_effects_at_a_start_leave_connections_for_others() {
    let world = World::new().await;
    let keys: Vec<i64> = (0..PARTITIONS).flat_map(|partition| (1..20).map(move |n| key_of(partition, n))).collect();
    world.outside.script(keys.iter().map(|_| Reply::Silence));
    let first = world.start().await;
    for key in &keys {
        world.command(*key, Act::Call).await;
    }
    calls(&world, keys.len()).await;
    first.stop().await;
    let connections = PARTITIONS.cast_unsigned();
    let second = world.launch(Launch { connections, ..world.usual() }).await.unwrap();
    for key in &keys {
        world.applied(*key, &["call", "answer yes"]).await;
    }
    for partition in 0..PARTITIONS {
        let key = key_of(partition, 0);
        world.command(key, Act::Remind(100)).await;
        world.applied(key, &["remind", "reminded"]).await;
    }
    second.stop().await;
    world.finish().await;
}
