//! What Postgres refuses: found within its transaction, and held; nothing else pays for it (ADR 9).

use std::time::Duration;

use engine::Settings;
use sqlx::Executor;

use crate::held::{RETRY, add, held, letters, texts, with_delays};
use crate::support::{PARTITIONS, eventually};
use crate::toy::Act;
use crate::world::{Launch, SOON, World, key_of};

/// Several batches in each partition.
const KEYS: usize = 400;
/// Inputs of a step, and here also of a batch.
const STEP: usize = 100;

/// Counts rows that are written, those of lost transactions among them: a sequence never goes back.
const COUNTING: &str = "CREATE SEQUENCE written;
    CREATE FUNCTION count_written() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM nextval('written'); RETURN NEW; END $$;
    CREATE TRIGGER a_count BEFORE INSERT OR UPDATE ON projection.entries FOR EACH ROW EXECUTE FUNCTION count_written();";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_costs_its_step_again_and_only_the_first_one_a_transaction() {
    let world = World::new().await;
    world.pool.execute(COUNTING).await.unwrap();
    world.refuse_666(true).await;
    let (mut expected, mut refused) = (Vec::new(), Vec::new());
    for n in 0..KEYS {
        for partition in 0..PARTITIONS {
            let key = key_of(partition, n);
            if n % 150 == 70 {
                let fails = world.news(key, Act::Add(666)).await;
                refused.push((key, [add("news", fails, 666), add("news", world.news(key, Act::Add(1)).await, 1)]));
            } else {
                expected.push((key, add("news", world.news(key, Act::Add(1)).await, 1)));
            }
        }
    }
    let usual = world.usual();
    let retry_delays = [Duration::from_secs(600)].into();
    let settings = Settings { retry_delays, batch_max: STEP, ..usual.settings };
    let instance = world.launch(Launch { settings, ..usual }).await.unwrap();
    for (key, news) in &expected {
        world.applied(*key, &[news]).await;
    }
    held(&world, i64::try_from(2 * refused.len()).unwrap()).await;
    let written = usize::try_from(world.count("SELECT last_value FROM written").await).unwrap();
    let (all, both) = (expected.len() + refused.len(), 2 * STEP);
    let enough = all + both + refused.len() * 2 * STEP;
    assert!(written <= enough, "{written} rows were written for {all} records, {} of them refused", refused.len());
    let told = letters(&world, RETRY).await;
    assert_eq!(told.iter().filter(|letter| letter.starts_with("RecordHeld failed P0001 1 ")).count(), refused.len());
    assert_eq!(told.iter().filter(|letter| letter.starts_with("RecordHeld waiting WAITS 0 ")).count(), refused.len());
    instance.stop().await;
    world.refuse_666(false).await;
    let instance = with_delays(&world, &[50]).await;
    for (key, news) in &refused {
        world.applied(*key, &texts(news)).await;
    }
    world.settled().await;
    instance.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_a_deferred_constraint_refuses_is_found_too() {
    let world = World::new().await;
    let refusing = "CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF array_to_string(NEW.history, ' ') LIKE '%add 667%' THEN RAISE EXCEPTION 'never' USING ERRCODE = '23514'; END IF;
             RETURN NULL;
         END $$;
         CREATE CONSTRAINT TRIGGER late AFTER INSERT OR UPDATE ON projection.entries DEFERRABLE INITIALLY DEFERRED
         FOR EACH ROW EXECUTE FUNCTION late();";
    world.pool.execute(refusing).await.unwrap();
    let (bad, good) = (key_of(0, 0), key_of(0, 1));
    let mut expected = vec![add("news", world.news(good, Act::Add(1)).await, 1)];
    let fails = world.news(bad, Act::Add(667)).await;
    expected.push(add("news", world.news(good, Act::Add(2)).await, 2));
    let instance = world.start().await;
    world.applied(good, &texts(&expected)).await;
    held(&world, 1).await;
    world.pool.execute("DROP TRIGGER late ON projection.entries").await.unwrap();
    world.applied(bad, &[&add("news", fails, 667)]).await;
    held(&world, 0).await;
    instance.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_cannot_be_remembered_is_held_like_any_other() {
    let world = World::new().await;
    let key = key_of(0, 0);
    let instance = world.start().await;
    let first = world.command(key, Act::Add(1)).await;
    let mut expected = vec![add("command", first, 1)];
    world.applied(key, &texts(&expected)).await;
    let check = format!("ALTER TABLE commands ADD CONSTRAINT odd CHECK (command_id <> {})", first + 1);
    world.pool.execute(sqlx::AssertSqlSafe(check)).await.unwrap();
    let refused = world.command(key_of(0, 1), Act::Add(2)).await;
    expected.push(add("command", world.command(key, Act::Add(3)).await, 3));
    world.applied(key, &texts(&expected)).await;
    held(&world, 1).await;
    world.pool.execute("ALTER TABLE commands DROP CONSTRAINT odd").await.unwrap();
    world.applied(key_of(0, 1), &[&add("command", refused, 2)]).await;
    held(&world, 0).await;
    instance.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_timers_and_answers_back_off_while_others_go_on() {
    let world = World::new().await;
    let refusing = "ALTER TABLE projection.entries ADD CONSTRAINT odd CHECK
         (NOT (history @> ARRAY['reminded'] OR history @> ARRAY['answer yes']))";
    world.pool.execute(refusing).await.unwrap();
    let (timed, called, other) = (key_of(0, 0), key_of(0, 1), key_of(0, 2));
    let instance = world.start().await;
    world.news(timed, Act::Remind(50)).await;
    world.news(called, Act::Call).await;
    eventually(SOON, async || {
        let calls = world.outside.calls().len();
        if calls > 2 { Ok(()) } else { Err(calls) }
    })
    .await;
    let beside = world.news(other, Act::Add(1)).await;
    world.applied(other, &[&add("news", beside, 1)]).await;
    world.applied(timed, &["remind"]).await;
    world.pool.execute("ALTER TABLE projection.entries DROP CONSTRAINT odd").await.unwrap();
    world.applied(timed, &["remind", "reminded"]).await;
    world.applied(called, &["call", "answer yes"]).await;
    assert_eq!(letters(&world, RETRY).await, Vec::<String>::new());
    instance.stop().await;
    world.finish().await;
}
