//! Kafka or Postgres goes away and comes back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::breaker::{Breaker, State};
use engine::kafka::Kafka;
use engine::probe;
use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use testkit::Proxy;

use crate::held::{DLQ, RETRY};
use crate::support::{PARTITIONS, eventually, registry_url};
use crate::toy::{Act, COMMANDS, EVENTS, FOREIGN};
use crate::world::{Launch, SOON, World, key_of};

/// All goes on within this time after a return.
const BACK_WITHIN: Duration = Duration::from_secs(5);

/// A usual launch through proxies, whose breakers are watched as a service's are.
async fn watched(world: &World) -> (Launch, Proxy, Proxy) {
    let kafka = Proxy::of_kafka(&world.kafka.bootstrap).await.unwrap();
    let postgres = Proxy::of_url(&world.database.url).await.unwrap();
    let mut launch = world.usual();
    launch.kafka = Arc::new(Kafka { bootstrap: kafka.address(), ..(*world.kafka).clone() });
    launch.url = postgres.url(&world.database.url);
    let options: sqlx::postgres::PgConnectOptions = launch.url.parse().unwrap();
    launch.breakers.postgres.watch(move || {
        let options = options.clone();
        async move { probe::postgres(&options).await }
    });
    let probed = Arc::clone(&launch.kafka);
    launch.breakers.kafka.watch(move || probe::kafka(Arc::clone(&probed)));
    (launch, kafka, postgres)
}

async fn stands(breaker: &Breaker, open: bool, within: Duration) {
    eventually(within, async || {
        let shown = breaker.dependency();
        if (shown.state != State::Closed) == open { Ok(()) } else { Err(shown) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_arrived_while_the_broker_was_out_of_reach_is_applied_once_when_it_is_back() {
    let world = World::new().await;
    let (key, timed) = (key_of(0, 0), key_of(1, 0));
    let proxy = Proxy::of_kafka(&world.kafka.bootstrap).await.unwrap();
    let mut launch = world.usual();
    launch.kafka = Arc::new(Kafka { bootstrap: proxy.address(), ..(*world.kafka).clone() });
    let instance = world.launch(launch).await.unwrap();
    instance.live(PARTITIONS).await;
    let mut expected = vec![format!("news {}: add 1", world.news(key, Act::Add(1)).await)];
    world.applied_any_order(key, &expected).await;
    world.news(timed, Act::Remind(1_000)).await;
    world.applied(timed, &["remind"]).await;

    proxy.down();
    for _ in 0..5 {
        expected.push(format!("news {}: add 2", world.news(key, Act::Add(2)).await));
    }
    // The payment that the timer must wait for: it is in the log before the timer is due, out of this service's reach.
    world.news(timed, Act::Settle).await;
    eventually(SOON, async || {
        let overdue = instance.engine.readiness().processors.iter().map(|one| one.oldest_timer_seconds).max();
        if overdue >= Some(1) { Ok(()) } else { Err(overdue) }
    })
    .await;
    assert_eq!(world.history(timed).await, ["remind"], "a timer waits for what may lie in the log");
    proxy.up();
    world.applied_any_order(key, &expected).await;
    world.applied(timed, &["remind", "settle"]).await;
    instance.live(PARTITIONS).await;
    world.settled().await;
    instance.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_goes_away_and_comes_back_costs_nothing() {
    let world = World::new().await;
    let key = key_of(0, 0);
    let proxy = Proxy::of_url(&world.database.url).await.unwrap();
    let mut launch = world.usual();
    launch.url = proxy.url(&world.database.url);
    let instance = world.launch(launch).await.unwrap();
    instance.live(PARTITIONS).await;
    let mut expected = vec![format!("news {}: add 1", world.news(key, Act::Add(1)).await)];
    world.applied_any_order(key, &expected).await;
    proxy.down();
    for _ in 0..5 {
        expected.push(format!("news {}: add 2", world.news(key, Act::Add(2)).await));
    }
    instance.says("the database").await;
    // Longer than the marks of the IDs are raised ahead.
    let away = std::time::Instant::now();
    eventually(SOON, async || if away.elapsed() > Duration::from_secs(12) { Ok(()) } else { Err(away.elapsed()) })
        .await;
    proxy.up();
    world.applied_any_order(key, &expected).await;
    instance.live(PARTITIONS).await;
    world.settled().await;
    instance.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_assignment_waits_for_the_database() {
    let world = World::new().await;
    let key = key_of(1, 0);
    let proxy = Proxy::of_url(&world.database.url).await.unwrap();
    let mut launch = world.usual();
    launch.url = proxy.url(&world.database.url);
    let instance = world.launch(launch).await.unwrap();
    proxy.down();
    instance.says("waits for the database").await;
    let number = world.news(key, Act::Add(1)).await;
    proxy.up();
    instance.live(PARTITIONS).await;
    world.applied(key, &[&format!("news {number}: add 1")]).await;
    world.settled().await;
    instance.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_that_the_log_no_longer_reaches_is_refused() {
    let world = World::new().await;
    let key = key_of(0, 0);
    let instance = world.start().await;
    let number = world.news(key, Act::Add(1)).await;
    world.applied(key, &[&format!("news {number}: add 1")]).await;
    world.settled().await;
    instance.stop().await;
    sqlx::query("UPDATE positions SET next_offset = 9 WHERE topic = $1 AND partition = 0")
        .bind(world.kafka.topic(FOREIGN))
        .execute(&world.pool)
        .await
        .unwrap();
    let instance = world.launch(world.usual()).await.unwrap();
    instance.says("ends at offset 1, but 9 is the next one to read").await;
    instance.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_falls_silent_is_given_up_and_taken_up_at_once_when_it_is_back() {
    let world = World::new().await;
    let key = key_of(0, 0);
    let (launch, _, proxy) = watched(&world).await;
    let breaker = launch.breakers.postgres.clone();
    let instance = world.launch(launch).await.unwrap();
    instance.live(PARTITIONS).await;
    let mut expected = vec![format!("news {}: add 1", world.news(key, Act::Add(1)).await)];
    world.applied_any_order(key, &expected).await;
    proxy.change(|faults| (faults.up.hold, faults.down.hold) = (true, true));
    for _ in 0..5 {
        expected.push(format!("news {}: add 2", world.news(key, Act::Add(2)).await));
    }
    stands(&breaker, true, SOON).await;
    // What was under way hears nothing any more, also not later: its connection is another one's by then.
    instance.says("the database is not available").await;
    proxy.reset();
    proxy.heal();
    let back = Instant::now();
    world.applied_any_order(key, &expected).await;
    assert!(back.elapsed() < BACK_WITHIN, "{:?}", back.elapsed());
    stands(&breaker, false, BACK_WITHIN).await;
    instance.live(PARTITIONS).await;
    world.settled().await;
    instance.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_away_is_told_and_its_return_is_noticed() {
    for silent in [false, true] {
        let world = World::new().await;
        let key = key_of(1, 0);
        let (launch, proxy, _) = watched(&world).await;
        let (kafka, postgres) = (launch.breakers.kafka.clone(), launch.breakers.postgres.clone());
        let instance = world.launch(launch).await.unwrap();
        instance.live(PARTITIONS).await;
        match silent {
            true => proxy.change(|faults| (faults.up.hold, faults.down.hold) = (true, true)),
            false => proxy.down(),
        }
        stands(&kafka, true, SOON).await;
        assert_eq!(postgres.dependency().state, State::Closed);
        let number = world.news(key, Act::Add(1)).await;
        proxy.heal();
        let back = Instant::now();
        world.applied(key, &[&format!("news {number}: add 1")]).await;
        assert!(silent || back.elapsed() < BACK_WITHIN, "{:?}", back.elapsed());
        stands(&kafka, false, BACK_WITHIN).await;
        world.settled().await;
        instance.stop().await;
        world.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_of_an_unknown_schema_waits_while_the_registry_is_away() {
    let mut world = World::new().await;
    let proxy = Proxy::of_url(&registry_url()).await.unwrap();
    world.registry = proxy.url(&registry_url());
    proxy.down();
    let (launch, ..) = watched(&world).await;
    let breaker = launch.breakers.registry.clone();
    let probe = probe::Http::new(&world.registry).unwrap();
    breaker.watch(move || probe.look());
    let instance = world.launch(launch).await.unwrap();
    instance.live(PARTITIONS).await;
    let key = key_of(0, 0);
    world.news_bytes(key, &[0, 0x7f, 0xff, 0xff, 0xfe, 1, 2]).await;
    stands(&breaker, true, SOON).await;
    instance.says("waiting for the schema registry since").await;
    assert_eq!(world.count("SELECT count(*) FROM held").await, 0, "nothing is dead for it");
    proxy.up();
    let back = Instant::now();
    stands(&breaker, false, BACK_WITHIN).await;
    eventually(BACK_WITHIN, async || match world.count("SELECT count(*) FROM held").await {
        1 => Ok(()),
        held => Err(held),
    })
    .await;
    assert!(back.elapsed() < BACK_WITHIN, "{:?}", back.elapsed());
    instance.stop().await;
    world.finish().await;
}

/// As a broker answers whose log was cut off behind a reader. The mock keeps nothing and is no stand-in for one: here only
/// what the reader makes of the answer is tested.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_whose_log_is_cut_off_says_so_and_jumps_nowhere() {
    let world = World::new().await;
    let mock = MockCluster::new(1).unwrap();
    let kafka = Kafka { bootstrap: mock.bootstrap_servers(), topic_prefix: String::new(), ..(*world.kafka).clone() };
    for topic in [COMMANDS, FOREIGN, EVENTS, RETRY, DLQ] {
        mock.create_topic(topic, PARTITIONS, 1).unwrap();
    }
    let instance = world.launch(Launch { kafka: Arc::new(kafka), ..world.usual() }).await.unwrap();
    instance.live(PARTITIONS).await;
    mock.request_errors(RDKafkaApiKey::Fetch, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE; 8]);
    instance.says("does not reach to the stored position any more").await;
    instance.stop().await;
    world.finish().await;
}
