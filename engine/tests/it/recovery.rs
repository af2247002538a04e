//! Databases that are older than the log, empty, or gone; what a rebuild gives back; what verification sees.

use events::envelope::Headers;
use std::collections::BTreeMap;

use engine::barriers::Barriers;
use engine::migrate;
use sqlx::{Executor, PgPool};

use crate::support::{Database, PARTITIONS, eventually};
use crate::toy::{Act, EVENTS, FOREIGN, MIGRATIONS};
use crate::world::{SOON, World, home, key_of};

const ROWS: &str = "SELECT 'entries ' || to_jsonb(e)::text FROM entries AS e
                    UNION ALL SELECT 'commands ' || to_jsonb(c)::text FROM commands AS c ORDER BY 1";

async fn rows(pool: &PgPool) -> Vec<String> {
    let rows: Vec<(String,)> = sqlx::query_as(ROWS).fetch_all(pool).await.unwrap();
    rows.into_iter().map(|(row,)| row).collect()
}

/// Everything that a toy can live through, in both partitions.
async fn live_through(world: &World) {
    let keys: Vec<i64> = (0..PARTITIONS).flat_map(|partition| [0, 1, 2].map(|n| key_of(partition, n))).collect();
    for (round, act) in [Act::Add(1), Act::Refuse, Act::Call, Act::Add(2), Act::Remind(3_600_000)].iter().enumerate() {
        for key in &keys {
            world.command(*key, act.clone()).await;
            world.news(*key, if round % 2 == 0 { Act::Add(5) } else { Act::Ignore }).await;
        }
    }
    world.raw(FOREIGN, 0, Some(b"1"), Some(b"strange"), &Headers::default()).await;
    world.raw("toy.commands", 1, Some(b"1"), None, &Headers::default()).await;
    let last = key_of(0, 0);
    world.news(last, Act::Add(100)).await;
    for key in &keys {
        world.applied_somewhere(*key, "answer yes").await;
        world.applied_somewhere(*key, "remind").await;
    }
    eventually(SOON, async || {
        let history = world.history(last).await;
        if history.iter().any(|one| one.ends_with("add 100")) { Ok(()) } else { Err(history) }
    })
    .await;
    world.settled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_rebuilt_from_the_log_is_what_was_live_row_for_row() {
    let world = World::new().await;
    let instance = world.start().await;
    live_through(&world).await;
    instance.stop().await;
    let live = rows(&world.pool).await;
    assert!(live.len() > 20);
    for batch in [1, 7, 500] {
        let report = world.rebuild(&world.pool, batch).await.unwrap();
        assert_eq!(rows(&world.pool).await, live, "in batches of {batch}");
        assert_eq!(report.events, u64::try_from(world.log(EVENTS).await.len()).unwrap());
    }
    let calls = world.outside.calls().len();
    let instance = world.start().await;
    let key = key_of(1, 1);
    let id = world.command(key, Act::Add(9)).await;
    world.applied_somewhere(key, &format!("command {id}: add 9")).await;
    assert_eq!(world.outside.calls().len(), calls, "nothing is called again");
    instance.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_database_is_refused_until_it_is_rebuilt() {
    let mut world = World::new().await;
    let key = key_of(0, 0);
    let instance = world.start().await;
    let mut expected = vec![format!("news {}: add 1", world.news(key, Act::Add(1)).await)];
    world.applied_any_order(key, &expected).await;
    world.settled().await;
    instance.stop().await;
    world.pool.close().await;
    let backup = eventually(SOON, async || Ok::<_, ()>(world.database.copy().await)).await;
    world.pool = world.database.pool(2).await;
    let instance = world.start().await;
    expected.push(format!("news {}: add 2", world.news(key, Act::Add(2)).await));
    world.applied_any_order(key, &expected).await;
    world.settled().await;
    let before = rows(&world.pool).await;
    instance.stop().await;

    world.pool = backup.pool(2).await;
    world.database = backup;
    let instance = world.launch(world.usual()).await.unwrap();
    let topic = world.kafka.topic(EVENTS);
    instance.says(&format!("{topic}/0 is ahead of the database: it holds sequence 2, the database decided 1")).await;
    instance.says("run `cargo orderctl rebuild toy-svc`").await;
    let running = world.rebuild(&world.pool, 500).await.unwrap_err().to_string();
    assert!(running.contains("running; stop all of them first"), "{running}");
    instance.stop().await;
    world.rebuild(&world.pool, 500).await.unwrap();
    assert_eq!(rows(&world.pool).await, before);
    let instance = world.start().await;
    expected.push(format!("news {}: add 3", world.news(key, Act::Add(3)).await));
    world.applied_any_order(key, &expected).await;
    instance.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_database_under_a_running_log_is_refused_until_it_is_rebuilt() {
    let mut world = World::new().await;
    let instance = world.start().await;
    live_through(&world).await;
    instance.stop().await;
    let before = rows(&world.pool).await;
    let calls = world.outside.calls().len();

    world.database = Database::empty().await;
    world.pool = world.database.pool(2).await;
    migrate::migrate(&world.pool, &MIGRATIONS).await.unwrap();
    let instance = world.launch(world.usual()).await.unwrap();
    instance.says("run `cargo orderctl rebuild toy-svc`").await;
    assert_eq!(world.count("SELECT count(*) FROM entries").await, 0);
    instance.stop().await;
    world.rebuild(&world.pool, 7).await.unwrap();
    assert_eq!(rows(&world.pool).await, before);
    let instance = world.start().await;
    let key = key_of(0, 1);
    let id = world.command(key, Act::Add(3)).await;
    world.applied_somewhere(key, &format!("command {id}: add 3")).await;
    assert_eq!(world.outside.calls().len(), calls);
    instance.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_lacks_what_it_acknowledged_is_refused() {
    let world = World::new().await;
    let key = key_of(0, 0);
    let instance = world.start().await;
    let number = world.news(key, Act::Add(1)).await;
    world.applied(key, &[&format!("news {number}: add 1")]).await;
    world.settled().await;
    eventually(SOON, async || {
        let acked = world.count("SELECT max(acked_sequence) FROM outputs").await;
        if acked == 1 { Ok(()) } else { Err(acked) }
    })
    .await;
    instance.stop().await;
    world.pool.execute("UPDATE outputs SET sequence = 5, acked_sequence = 5, acked_offset = 7").await.unwrap();
    let instance = world.launch(world.usual()).await.unwrap();
    instance.says("ends at offset 1, but offset 7 was acknowledged for sequence 5").await;
    instance.stop().await;
    world.abandon().await;
}

/// What led to nothing before a dead letter has no own record; its sequence must not become a hole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strange_record_behind_ignored_ones_leaves_no_hole_after_a_rebuild() {
    let world = World::new().await;
    let key = key_of(0, 0);
    let instance = world.start().await;
    world.news(key, Act::Add(1)).await;
    world.news(key, Act::Ignore).await;
    world.news(key, Act::Ignore).await;
    world.raw(FOREIGN, 0, None, Some(b"strange"), &Headers::default()).await;
    eventually(SOON, async || {
        let letters = world.log("toy-svc.dlq").await.len();
        if letters == 1 { Ok(()) } else { Err(letters) }
    })
    .await;
    world.settled().await;
    instance.stop().await;
    world.rebuild(&world.pool, 500).await.unwrap();
    let instance = world.start().await;
    let number = world.news(key, Act::Add(2)).await;
    world.applied(key, &["news 1: add 1", &format!("news {number}: add 2")]).await;
    assert_eq!(world.log("toy-svc.dlq").await.len(), 1, "a dead letter is not written again");
    instance.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_in_the_log_was_not_decided() {
    let world = World::new().await;
    let key = key_of(0, 0);
    let instance = world.start().await;
    let first = world.command(key, Act::Add(1)).await;
    world.applied(key, &[&format!("command {first}: add 1")]).await;
    world.settled().await;
    world.refuse_events(true).await;
    let second = world.command(key, Act::Add(2)).await;
    world.applied_somewhere(key, &format!("command {second}: add 2")).await;
    instance.stop().await;
    assert!(world.count("SELECT count(*) FROM outbox").await > 0);
    world.rebuild(&world.pool, 500).await.unwrap();
    world.refuse_events(false).await;
    world.applied(key, &[&format!("command {first}: add 1")]).await;
    let barriers = Barriers::watch(world.pool.clone());
    assert!(barriers.closed().is_some(), "the second command is in the log and not decided");
    let instance = world.start().await;
    world.applied(key, &[&format!("command {first}: add 1"), &format!("command {second}: add 2")]).await;
    eventually(SOON, async || barriers.closed().map_or(Ok(()), Err)).await;
    world.settled().await;
    assert_eq!(world.log(EVENTS).await.len(), 2, "one event per command");
    instance.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_process_starts_on_an_unfinished_rebuild() {
    let world = World::new().await;
    world.pool.execute("INSERT INTO engine.facts VALUES ('recovery', 'unfinished')").await.unwrap();
    let refused = world.launch(world.usual()).await.err().unwrap().to_string();
    assert_eq!(refused, "a rebuild of toy-svc was not finished; run `cargo orderctl rebuild toy-svc`");
    world.rebuild(&world.pool, 500).await.unwrap();
    let instance = world.start().await;
    instance.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verification_names_the_first_row_that_differs() {
    let world = World::new().await;
    let key = key_of(0, 0);
    let instance = world.start().await;
    let number = world.news(key, Act::Add(1)).await;
    world.applied(key, &[&format!("news {number}: add 1")]).await;
    world.settled().await;
    assert!(world.verdict().await.equal);
    world.pool.execute("UPDATE entries SET total = 2").await.unwrap();
    let verdict = world.verdict().await;
    assert!(!verdict.equal);
    let tables: BTreeMap<_, _> =
        verdict.tables.iter().map(|table| (table.table.as_str(), table.difference.is_some())).collect();
    assert_eq!(tables, BTreeMap::from([("commands", false), ("entries", true), ("held", false)]));
    let difference = verdict.tables.iter().find_map(|table| table.difference.clone()).unwrap();
    assert!(difference.live.unwrap().contains(r#""total": 2"#));
    assert!(difference.folded.unwrap().contains(r#""total": 1"#));
    instance.stop().await;
    world.abandon().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_record_under_an_own_sequence_stops_the_processor() {
    let world = World::new().await;
    let key = key_of(0, 0);
    let instance = world.start().await;
    let number = world.news(key, Act::Add(1)).await;
    world.applied(key, &[&format!("news {number}: add 1")]).await;
    world.settled().await;
    let forged = Headers::from_iter([("ce_id", "4711"), ("ce_sequence", "0000000000000000002")]);
    world.raw(EVENTS, home(key), Some(b"1"), Some(b"{}"), &forged).await;
    world.news(key, Act::Add(2)).await;
    instance.says("holds another record under sequence 2 at offset 1: two databases wrote this topic").await;
    instance.says("run `cargo orderctl rebuild toy-svc`").await;
    instance.stop().await;
    world.abandon().await;
}
