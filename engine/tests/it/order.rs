//! In order per key, once, whatever comes twice; and what stops a reader.

use events::envelope::{self, Headers};
use std::time::{Duration, Instant};

use crate::support::{PARTITIONS, eventually};
use crate::toy::{Act, COMMAND, COMMANDS, FOREIGN, NAME, NEWS};
use crate::world::{SOON, World, home, key_of};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_a_key_are_applied_in_the_order_of_their_topic() {
    let world = World::new().await;
    let (left, right) = (key_of(0, 0), key_of(1, 0));
    let mut expected = [Vec::new(), Vec::new()];
    for amount in 1..=40 {
        for (key, expected) in [left, right].into_iter().zip(&mut expected) {
            let id = world.command(key, Act::Add(amount)).await;
            expected.push(format!("command {id}: add {amount}"));
        }
    }
    let instance = world.start().await;
    for (key, expected) in [left, right].into_iter().zip(&expected) {
        world.applied(key, &expected.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    instance.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_applied_once_across_restarts() {
    let world = World::new().await;
    let key = key_of(0, 0);
    let mut expected = Vec::new();
    for round in 0..3 {
        let instance = world.start().await;
        for _ in 0..5 {
            let id = world.command(key, Act::Add(round)).await;
            expected.push(format!("command {id}: add {round}"));
            let number = world.news(key, Act::Add(10)).await;
            world.applied_somewhere(key, &format!("news {number}: add 10")).await;
            expected.push(format!("news {number}: add 10"));
        }
        world.applied_any_order(key, &expected).await;
        instance.stop().await;
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_comes_twice_yields_one_event() {
    let world = World::new().await;
    let key = key_of(0, 0);
    let id = world.command(key, Act::Add(1)).await;
    world.command_again(key, id, Act::Add(1)).await;
    let instance = world.start().await;
    world.command_again(key, id, Act::Add(1)).await;
    let last = world.command(key, Act::Add(2)).await;
    world.applied(key, &[&format!("command {id}: add 1"), &format!("command {last}: add 2")]).await;
    instance.stop().await;
    let again = world.start().await;
    world.command_again(key, id, Act::Add(1)).await;
    let end = world.command(key, Act::Refuse).await;
    let all = [format!("command {id}: add 1"), format!("command {last}: add 2"), format!("command {end}: no")];
    world.applied(key, &all.each_ref().map(String::as_str)).await;
    let refused = world.count("SELECT count(*) FROM commands WHERE outcome = 'NO'").await;
    assert_eq!(refused, 1, "a refused command is an event too");
    again.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeats_of_a_foreign_event_are_dropped() {
    let world = World::new().await;
    let key = key_of(1, 0);
    let instance = world.start().await;
    for _ in 0..3 {
        world.news(key, Act::Add(1)).await;
    }
    for sequence in [1, 3, 2, 3] {
        world.news_again(key, sequence, Act::Add(1)).await;
    }
    world.news(key, Act::Add(5)).await;
    world.applied(key, &["news 1: add 1", "news 2: add 1", "news 3: add 1", "news 4: add 5"]).await;
    instance.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_change_nothing_wait_for_company() {
    let world = World::new().await;
    let key = key_of(0, 0);
    let instance = world.start().await;
    world.news(key, Act::Add(1)).await;
    world.applied(key, &["news 1: add 1"]).await;
    let batches = "SELECT batch FROM processors WHERE partition = 0";
    let (before, begun) = (world.count(batches).await, Instant::now());
    let mut last = 0;
    for _ in 0..50 {
        last = world.news_again(key, 1, Act::Add(1)).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    eventually(SOON, async || {
        let next = world.count("SELECT next_offset FROM positions WHERE partition = 0 AND topic LIKE '%other.events'");
        let next = next.await;
        if next == last + 1 { Ok(()) } else { Err(format!("read up to {next} of {}", last + 1)) }
    })
    .await;
    let most = i64::try_from(begun.elapsed().as_millis()).unwrap() / 100 + 2;
    let batches = world.count(batches).await - before;
    assert!(batches <= most, "{batches} batches for 50 repeats, at most {most}");
    instance.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hole_in_a_foreign_sequence_stops_its_reader_and_no_other() {
    let world = World::new().await;
    let (key, other) = (key_of(0, 0), key_of(1, 0));
    let instance = world.start().await;
    world.news(key, Act::Add(1)).await;
    world.applied(key, &["news 1: add 1"]).await;
    // A wish from before the stop is none for it: the processor is not assigned anew.
    instance.engine.resume(home(key));
    let epoch = "SELECT epoch FROM processors WHERE partition = 0";
    let before = world.count(epoch).await;
    world.news_again(key, 3, Act::Add(3)).await;
    let topic = world.kafka.topic(FOREIGN);
    instance.says(&format!("a hole in {topic}/0: sequence 3 follows 1 at offset 1")).await;
    world.news(other, Act::Add(7)).await;
    world.applied(other, &["news 1: add 7"]).await;
    world.applied(key, &["news 1: add 1"]).await;
    assert_eq!(world.count(epoch).await, before);

    // An operator who resumes it too early learns the same again.
    instance.engine.resume(home(key));
    eventually(SOON, async || {
        let now = world.count(epoch).await;
        if now > before { Ok(()) } else { Err("it is not assigned anew") }
    })
    .await;
    instance.says("sequence 3 follows 1").await;
    instance.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_processor_is_not_taken() {
    let world = World::new().await;
    // A member of the same group that reads one of the two topics only, as an older build would.
    let mut config = world.kafka.consumer_config(NAME);
    config.set("auto.offset.reset", "earliest");
    let member: rdkafka::consumer::StreamConsumer = config.create().unwrap();
    rdkafka::consumer::Consumer::subscribe(&member, &[&world.kafka.topic(COMMANDS)]).unwrap();
    let polling = tokio::spawn(async move {
        while let Ok(message) = member.recv().await {
            drop(message);
        }
    });
    let instance = world.launch(world.usual()).await.unwrap();
    instance.says("only some of the input partitions").await;
    let readiness = eventually(SOON, async || {
        let readiness = instance.engine.readiness();
        if readiness.processors.len() < usize::try_from(PARTITIONS).unwrap() { Ok(readiness) } else { Err(readiness) }
    })
    .await;
    let whole: Vec<i32> = readiness.processors.iter().map(|processor| processor.partition).collect();
    let half = (0..PARTITIONS).find(|partition| !whole.contains(partition)).unwrap();
    world.news(key_of(half, 0), Act::Add(1)).await;
    for partition in whole {
        let key = key_of(partition, 0);
        world.news(key, Act::Add(2)).await;
        world.applied(key, &["news 1: add 2"]).await;
    }
    assert_eq!(world.history(key_of(half, 0)).await, Vec::<String>::new());
    polling.abort();
    instance.live(PARTITIONS).await;
    world.applied(key_of(half, 0), &["news 1: add 1"]).await;
    instance.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ordinary_lag_tools_see_positions_in_kafka() {
    let world = World::new().await;
    let key = key_of(0, 0);
    let instance = world.start().await;
    for _ in 0..20 {
        world.news(key, Act::Add(1)).await;
    }
    // The last ones lead to nothing: they too must be seen.
    for _ in 0..3 {
        world.news(key, Act::Ignore).await;
    }
    let committed = world.kafka.clone();
    eventually(SOON, async || {
        let (kafka, topic) = (committed.clone(), world.kafka.topic(FOREIGN));
        let ask = move || {
            let consumer: rdkafka::consumer::BaseConsumer = kafka.consumer_config(NAME).create().unwrap();
            let mut list = rdkafka::TopicPartitionList::new();
            list.add_partition(&topic, 0);
            let list = rdkafka::consumer::Consumer::committed_offsets(&consumer, list, SOON).unwrap();
            list.elements()[0].offset()
        };
        let offset = tokio::task::spawn_blocking(ask).await.unwrap();
        if offset == rdkafka::Offset::Offset(23) { Ok(()) } else { Err(offset) }
    })
    .await;
    instance.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_model_is_folded_to_its_end_before_any_processor_begins() {
    let mut world = World::new().await;
    world.with_model = true;
    for partition in 0..PARTITIONS {
        for n in 0..3 {
            world.news(key_of(partition, n), Act::Ignore).await;
        }
    }
    let instance = world.launch(world.usual()).await.unwrap();
    assert_eq!(world.count("SELECT count(*) FROM news").await, 6, "before the group gave anything");
    instance.live(PARTITIONS).await;
    let key = key_of(0, 0);
    world.news(key, Act::Ignore).await;
    let number = world.news(key, Act::Add(1)).await;
    world.applied(key, &[&format!("news {number}: add 1")]).await;
    let (last,): (i64,) =
        sqlx::query_as("SELECT last FROM news WHERE key = $1").bind(key).fetch_one(&world.pool).await.unwrap();
    assert_eq!(last, number);
    instance.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_says_it_is_another_type_is_not_applied() {
    let world = World::new().await;
    let (key, other) = (key_of(0, 0), key_of(1, 0));
    let instance = world.start().await;
    let value = format!(r#"{{"type":"{COMMAND}","key":{key},"id":77,"act":{{"add":1}}}}"#);
    let said = Headers::from_iter([("ce_type", "toy.Else")]);
    world.raw(COMMANDS, 0, Some(key.to_string().as_bytes()), Some(value.as_bytes()), &said).await;
    let id = world.command(key, Act::Add(2)).await;
    world.applied(key, &[&format!("command {id}: add 2")]).await;
    world.settled().await;
    assert_eq!(world.log("toy-svc.dlq").await.len(), 1);

    let value = format!(r#"{{"type":"{NEWS}","key":{other},"id":1,"act":{{"add":1}}}}"#);
    let said = Headers::from_iter([("ce_type", "other.Else"), ("ce_sequence", "0000000000000000001")]);
    world.raw(FOREIGN, 1, Some(other.to_string().as_bytes()), Some(value.as_bytes()), &said).await;
    eventually(SOON, async || {
        let letters = world.log("toy-svc.dlq").await;
        let codes = letters.iter().filter_map(|letter| envelope::text(&letter.headers, "failure-code"));
        let codes: Vec<_> = codes.collect();
        if codes == ["WRONG_TYPE"; 2] { Ok(()) } else { Err(format!("{codes:?}")) }
    })
    .await;
    assert_eq!(world.history(other).await, Vec::<String>::new());
    instance.stop().await;
    world.finish().await;
}
