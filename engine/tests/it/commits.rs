//! What becomes of a batch whose COMMIT fails, or of which nobody knows the outcome.

use sqlx::Executor;
use testkit::Proxy;

use crate::support::eventually;
use crate::toy::Act;
use crate::world::{SOON, World, key_of};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_whose_commit_fails_is_done_again() {
    let world = World::new().await;
    let key = key_of(0, 0);
    // A sequence is not rolled back, so that only the first three tries fail.
    world
        .pool
        .execute(
            "CREATE SEQUENCE tries;
             CREATE FUNCTION fail_thrice() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 IF nextval('tries') <= 3 THEN RAISE EXCEPTION 'not now' USING ERRCODE = '40001'; END IF;
                 RETURN NULL;
             END $$;
             CREATE CONSTRAINT TRIGGER fail_thrice AFTER INSERT OR UPDATE ON projection.entries
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fail_thrice();",
        )
        .await
        .unwrap();
    let instance = world.start().await;
    let id = world.command(key, Act::Add(1)).await;
    let number = world.news(key, Act::Add(2)).await;
    let expected = [format!("command {id}: add 1"), format!("news {number}: add 2")];
    world.applied_any_order(key, &expected).await;
    assert!(world.count("SELECT last_value FROM tries").await > 3, "three tries failed");
    world.settled().await;
    instance.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_whose_connection_is_ended_is_done_again() {
    let world = World::new().await;
    let key = key_of(0, 0);
    let instance = world.start().await;
    // Holds the batch in the middle: it waits for this row.
    let first = world.command(key, Act::Add(1)).await;
    world.applied(key, &[&format!("command {first}: add 1")]).await;
    let mut blocker = world.pool.begin().await.unwrap();
    blocker.execute("SELECT * FROM entries FOR UPDATE").await.unwrap();
    let second = world.command(key, Act::Add(2)).await;
    eventually(SOON, async || {
        let ended: Vec<(bool,)> = sqlx::query_as(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name = 'toy' AND wait_event_type = 'Lock'",
        )
        .fetch_all(&world.pool)
        .await
        .unwrap();
        if ended.is_empty() { Err("no batch waits for the row") } else { Ok(()) }
    })
    .await;
    blocker.rollback().await.unwrap();
    world.applied(key, &[&format!("command {first}: add 1"), &format!("command {second}: add 2")]).await;
    instance.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_reply_is_lost_counts_once() {
    let world = World::new().await;
    let key = key_of(0, 0);
    let proxy = Proxy::of_url(&world.database.url).await.unwrap();
    let mut launch = world.usual();
    launch.url = proxy.url(&world.database.url);
    let instance = world.launch(launch).await.unwrap();
    instance.live(2).await;
    proxy.lose_commit_of(": add 11");
    let id = world.command(key, Act::Add(11)).await;
    let number = world.news(key, Act::Add(12)).await;
    world.applied_any_order(key, &[format!("command {id}: add 11"), format!("news {number}: add 12")]).await;
    assert_eq!(proxy.counts().lost, 1, "the reply was lost");
    instance.live(2).await;
    let last = world.news(key, Act::Add(13)).await;
    world.applied_somewhere(key, &format!("news {last}: add 13")).await;
    instance.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_of_timers_whose_commit_reply_is_lost_counts_once() {
    let world = World::new().await;
    let key = key_of(0, 0);
    let proxy = Proxy::of_url(&world.database.url).await.unwrap();
    let mut launch = world.usual();
    launch.url = proxy.url(&world.database.url);
    let instance = world.launch(launch).await.unwrap();
    instance.live(2).await;
    proxy.lose_commit_of("reminded");
    world.command(key, Act::Remind(300)).await;
    world.applied(key, &["remind", "reminded"]).await;
    eventually(SOON, async || if proxy.counts().lost == 1 { Ok(()) } else { Err(proxy.counts().lost) }).await;
    instance.live(2).await;
    world.news(key, Act::Settle).await;
    world.applied(key, &["remind", "reminded", "settle"]).await;
    instance.stop().await;
    world.finish().await;
}
