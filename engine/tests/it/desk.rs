//! What operators see of held and dead records, and what becomes of what they ask for.

use std::sync::Arc;

use engine::desk::{Address, By, DeadLetters, Deed, Desk, Selection, Standing, Which};
use events::codec::Codec;
use events::envelope::{self, Headers};

use crate::held::{DLQ, RETRY, add, dead, held, letters, texts, with_delays};
use crate::support::eventually;
use crate::toy::{Act, COMMANDS, EVENTS, FOREIGN, Toy};
use crate::world::{SOON, World, key_of};

pub(crate) const BY: By<'static> = By { sub: "olga", reason: "mended in 1.2" };

pub(crate) fn desk(world: &World) -> impl DeadLetters {
    Desk {
        service: Arc::new(Toy { outside: Arc::clone(&world.outside), with_model: false }),
        kafka: Arc::clone(&world.kafka),
        codec: Arc::new(Codec::default()),
        pool: world.pool.clone(),
    }
}

pub(crate) fn of(which: Which<'_>) -> Selection<'_> {
    Selection { which, failed_before: None, limit: 100 }
}

pub(crate) async fn done(desk: &impl DeadLetters, records: &[Address], expected: Standing) {
    eventually(SOON, async || {
        let standing = desk.standing(records).await.unwrap();
        if standing == expected { Ok(()) } else { Err(standing) }
    })
    .await;
}

/// Records of a topic that an operator caused: type without its package, who, why.
pub(crate) async fn signed(world: &World, topic: &str) -> Vec<String> {
    let records = world.log(topic).await;
    let told = |record: &engine::record::Record| {
        let text = |name: &str| envelope::text(&record.headers, name).map(str::to_owned);
        let kind = text("ce_type")?.rsplit('.').next()?.to_owned();
        Some(format!("{kind} {} {}", text("operator-sub")?, text("operator-reason")?))
    };
    records.iter().filter_map(told).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_record_that_is_redriven_goes_before_its_followers() {
    let world = World::new().await;
    let desk = desk(&world);
    let key = key_of(0, 0);
    let fails = world.news(key, Act::Fail).await;
    let behind = world.news(key, Act::Add(1)).await;
    let instance = with_delays(&world, &[50]).await;
    dead(&world, 1).await;

    // While its cause is not mended it dies again.
    let asked = desk.ask(Deed::Redrive, of(Which::All), BY).await.unwrap().records;
    assert_eq!(asked, [Address { topic: world.kafka.topic(FOREIGN), partition: 0, offset: 0, effect: None }]);
    done(&desk, &asked, Standing { kept: 1, ..Standing::default() }).await;
    assert_eq!(world.history(key).await, Vec::<String>::new());
    let forecast = desk.forecast(of(Which::All)).await.unwrap();
    assert_eq!((forecast[0].applied, forecast[0].outcome.as_str()), (Some(false), "BAD: it cannot be applied"));

    // What has died again is left out by who began earlier.
    let began = desk.list(of(Which::All), true).await.unwrap()[0].last_at;
    let since = Selection { failed_before: Some(began), ..of(Which::All) };
    assert_eq!(desk.ask(Deed::Redrive, since, BY).await.unwrap().records, []);

    world.outside.mend();
    let forecast = desk.forecast(of(Which::Key(key))).await.unwrap();
    assert_eq!((forecast[0].applied, forecast[0].outcome.as_str()), (Some(true), "toy.Happened"));
    assert_eq!(world.history(key).await, Vec::<String>::new(), "a forecast changes nothing");
    let asked = desk.ask(Deed::Redrive, of(Which::One(&asked[0])), BY).await.unwrap().records;
    done(&desk, &asked, Standing { settled: 1, ..Standing::default() }).await;
    world.applied(key, &texts(&[format!("news {fails}: mended"), add("news", behind, 1)])).await;
    held(&world, 0).await;
    world.settled().await;
    assert_eq!(letters(&world, DLQ).await, ["RecordDied failed BAD 2 0", "RecordDied failed BAD 3 0"]);
    assert_eq!(signed(&world, DLQ).await, ["RecordDied olga mended in 1.2"]);
    assert_eq!(signed(&world, EVENTS).await, ["Happened olga mended in 1.2"]);
    instance.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_discarded_is_settled_and_a_command_is_refused() {
    let world = World::new().await;
    let desk = desk(&world);
    let (key, commanded) = (key_of(0, 0), key_of(1, 0));
    world.refuse_666(true).await;
    world.news(key, Act::Fail).await;
    let behind = world.news(key, Act::Add(1)).await;
    let command = world.command(commanded, Act::Add(666)).await;
    let after = world.command(commanded, Act::Add(2)).await;
    let instance = with_delays(&world, &[50]).await;
    dead(&world, 2).await;
    let asked = desk.ask(Deed::Discard, of(Which::All), BY).await.unwrap().records;
    assert_eq!(asked.len(), 2);
    let again = desk.ask(Deed::Redrive, of(Which::All), BY).await.unwrap().records;
    assert_eq!(again, [], "what is asked for is not asked for twice");
    done(&desk, &asked, Standing { settled: 2, ..Standing::default() }).await;
    world.applied(key, &[&add("news", behind, 1)]).await;
    world
        .applied(commanded, &texts(&[format!("command {command}: DISCARDED by olga"), add("command", after, 2)]))
        .await;
    world.settled().await;
    assert_eq!(signed(&world, RETRY).await, ["RecordSettled olga mended in 1.2"]);
    assert_eq!(signed(&world, EVENTS).await, ["Happened olga mended in 1.2"]);
    // Neither comes back with a rebuild.
    instance.stop().await;
    world.rebuild(&world.pool, 500).await.unwrap();
    held(&world, 0).await;
    let instance = world.start().await;
    let last = world.news(key, Act::Add(3)).await;
    world.applied(key, &texts(&[add("news", behind, 1), add("news", last, 3)])).await;
    instance.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_desk_groups_what_fails_alike_and_shows_each() {
    let world = World::new().await;
    let desk = desk(&world);
    let key = key_of(0, 0);
    let instance = with_delays(&world, &[50]).await;
    for n in 0..3 {
        world.news(key_of(0, n), Act::Fail).await;
    }
    world.news(key, Act::Add(1)).await;
    let headers = Headers::from_iter([("x", &[0xff, b'y'][..])]);
    world.raw(COMMANDS, 0, Some(b"8"), Some(b"no bytes of ours"), &headers).await;
    dead(&world, 4).await;
    let groups = desk.groups().await.unwrap();
    let told: Vec<_> = groups.iter().map(|group| (&*group.class, &*group.code, group.count, group.waiting)).collect();
    assert_eq!(told, [("failed", "BAD", 3, 1), ("poison", "NOT_AVRO", 1, 0)]);
    assert_eq!(desk.list(Selection { limit: 2, ..of(Which::Group(&groups[0].group)) }, true).await.unwrap().len(), 2);
    let waiting = desk.list(of(Which::All), false).await.unwrap();
    assert_eq!(waiting.iter().map(|kept| (kept.state, kept.address.offset)).collect::<Vec<_>>(), [("waiting", 3)]);

    let shown = desk.show(&groups[1].sample).await.unwrap().unwrap();
    assert_eq!(shown.value_hex.as_deref(), Some(hex::encode("no bytes of ours").as_str()));
    assert_eq!(shown.headers, [("x".to_owned(), "\u{fffd}y".to_owned())]);
    let head = Address { topic: world.kafka.topic(FOREIGN), partition: 0, offset: 0, effect: None };
    let shown = desk.show(&head).await.unwrap().unwrap();
    assert_eq!((shown.kept.state, shown.sequence), ("dead", Some(1)));
    assert_eq!(shown.behind.iter().map(|address| address.offset).collect::<Vec<_>>(), [3]);
    assert!(desk.show(&Address { offset: 99, ..head }).await.unwrap().is_none());

    // Poison stays poison when it is tried again, and keeps nobody waiting.
    let asked = desk.ask(Deed::Redrive, of(Which::Group(&groups[1].group)), BY).await.unwrap().records;
    done(&desk, &asked, Standing { kept: 1, ..Standing::default() }).await;
    let asked = desk.ask(Deed::Discard, of(Which::Group(&groups[1].group)), BY).await.unwrap().records;
    done(&desk, &asked, Standing { settled: 1, ..Standing::default() }).await;
    instance.stop().await;
    world.finish().await;
}
