//! Effects whose attempts are used up: dead letters that keep nobody waiting, until an operator wants something of them or
//! nobody asks for them any more.

use std::time::Duration;

use engine::Settings;
use engine::desk::{Address, DeadLetters, Deed, Standing, Which};
use engine::record::Record;
use events::envelope;

use crate::desk::{BY, desk, done, of, signed};
use crate::held::{DLQ, RETRY, dead, held, letters, rows};
use crate::outside::Reply;
use crate::support::eventually;
use crate::toy::{Act, EVENTS};
use crate::world::{Instance, Launch, SOON, World, key_of};

const CALL: &str = "call";
const TEXT: &str = "text";

/// An instance that gives an effect up after three tries.
async fn three_tries(world: &World) -> Instance {
    let usual = world.usual();
    let effect_delays = [50, 50].map(Duration::from_millis).into();
    world.launch(Launch { settings: Settings { effect_delays, ..usual.settings }, ..usual }).await.unwrap()
}

async fn is_zero(world: &World, sql: &'static str) {
    eventually(SOON, async || {
        let left = world.count(sql).await;
        if left == 0 { Ok(()) } else { Err(left) }
    })
    .await;
}

/// The own event of a key, by its place among them.
async fn event(world: &World, key: i64, number: usize) -> Record {
    let key = key.to_string();
    let events = world.log(EVENTS).await.into_iter();
    events.filter(|event| event.key.as_deref() == Some(key.as_bytes())).nth(number).unwrap()
}

fn at(event: &Record, effect: &str) -> Address {
    let effect = Some(effect.to_owned());
    Address { topic: event.topic.to_string(), partition: event.partition, offset: event.offset, effect }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_effect_that_never_succeeds_dies_and_keeps_nobody_waiting() {
    let world = World::new().await;
    let (key, other) = (key_of(0, 0), key_of(0, 1));
    world.outside.fail((key, CALL));
    let instance = three_tries(&world).await;
    // Its event is not the first one of the partition.
    let before = world.command(key, Act::Add(1)).await;
    world.command(key, Act::Call).await;
    dead(&world, 1).await;
    assert_eq!(world.outside.tries((key, CALL)), [1, 2, 3]);
    let after = world.command(key, Act::Add(2)).await;
    world.command(other, Act::Call).await;
    world.applied(other, &["call", "answer yes"]).await;
    let all = [format!("command {before}: add 1"), "call".to_owned(), format!("command {after}: add 2")];
    world.applied(key, &all.each_ref().map(String::as_str)).await;
    is_zero(&world, "SELECT count(*) FROM effects").await;

    world.settled().await;
    let asked = event(&world, key, 1).await;
    assert_eq!(letters(&world, DLQ).await, [format!("RecordDied effect 500 3 {}", asked.offset)]);
    assert_eq!(letters(&world, RETRY).await, Vec::<String>::new());
    let letter = world.log(DLQ).await.remove(0);
    let text = |name| envelope::text(&letter.headers, name);
    assert_eq!((letter.key, letter.value), (asked.key, asked.value));
    assert_eq!((text("failure-effect"), text("ce_cause")), (Some(CALL), Some("effect")));
    assert_eq!(text("failure-topic"), Some(&*asked.topic));
    assert_eq!(text("ce_causationid"), envelope::text(&asked.headers, "ce_id"));
    assert_eq!(text("original-ce_sequence"), envelope::text(&asked.headers, "ce_sequence"));
    assert_eq!(text("failure-message"), Some("it erred"));
    assert!(text("failure-first-at") < text("failure-last-at"), "RFC 3339, so in order");
    let open: usize = instance.engine.readiness().processors.iter().map(|one| one.open_effects).sum();
    assert_eq!(open, 0, "it waits for nothing but an operator");
    instance.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_effect_is_called_again_when_an_operator_wants_it_and_by_no_new_owner() {
    let world = World::new().await;
    let desk = desk(&world);
    let (key, other) = (key_of(0, 0), key_of(0, 1));
    world.outside.fail((key, CALL));
    let first = three_tries(&world).await;
    world.command(key, Act::Call).await;
    dead(&world, 1).await;
    first.stop().await;
    // This one would try longer, but what was dead is tried once.
    let second = world.start().await;
    world.command(other, Act::Call).await;
    world.applied(other, &["call", "answer yes"]).await;
    assert_eq!(world.outside.tries((key, CALL)), [1, 2, 3]);

    // While its cause is not mended it dies again, after one more try.
    let address = at(&event(&world, key, 0).await, CALL);
    let forecast = desk.forecast(of(Which::All)).await.unwrap();
    assert_eq!((forecast[0].applied, &forecast[0].address), (None, &address), "a call cannot be rolled back");
    let asked = desk.ask(Deed::Redrive, of(Which::All), BY).await.unwrap().records;
    assert_eq!(asked, std::slice::from_ref(&address));
    done(&desk, &asked, Standing { kept: 1, ..Standing::default() }).await;
    assert_eq!(world.outside.tries((key, CALL)), [1, 2, 3, 4]);
    let shown = desk.show(&address).await.unwrap().unwrap();
    assert_eq!((shown.kept.state, &*shown.kept.class, shown.kept.attempts), ("dead", "effect", 4));
    assert!(desk.show(&Address { effect: None, ..address.clone() }).await.unwrap().is_none());
    second.stop().await;

    // The next owner goes on counting.
    let third = three_tries(&world).await;
    world.outside.heal((key, CALL));
    let asked = desk.ask(Deed::Redrive, of(Which::One(&address)), BY).await.unwrap().records;
    done(&desk, &asked, Standing { settled: 1, ..Standing::default() }).await;
    world.applied(key, &["call", "answer yes"]).await;
    assert_eq!(world.outside.tries((key, CALL)), [1, 2, 3, 4, 5]);
    is_zero(&world, "SELECT count(*) FROM acts").await;
    world.settled().await;
    let told: Vec<_> = letters(&world, DLQ).await;
    assert_eq!(told, ["RecordDied effect 500 3 0", "RecordDied effect 500 4 0"]);
    assert_eq!(signed(&world, DLQ).await, ["RecordDied olga mended in 1.2"]);
    assert_eq!(signed(&world, EVENTS).await, ["Happened olga mended in 1.2"]);
    third.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_operator_wants_outlives_its_owner() {
    let world = World::new().await;
    let desk = desk(&world);
    let key = key_of(0, 0);
    world.outside.fail((key, CALL));
    let first = three_tries(&world).await;
    world.command(key, Act::Call).await;
    dead(&world, 1).await;
    world.outside.heal((key, CALL));
    world.outside.script([Reply::Unreachable, Reply::Silence]);
    let asked = desk.ask(Deed::Redrive, of(Which::All), BY).await.unwrap().records;
    eventually(SOON, async || {
        let tries = world.outside.tries((key, CALL));
        if tries == [1, 2, 3, 4, 4] { Ok(()) } else { Err(tries) }
    })
    .await;
    assert_eq!(desk.standing(&asked).await.unwrap(), Standing { asked: 1, ..Standing::default() });
    first.stop().await;
    let second = three_tries(&world).await;
    done(&desk, &asked, Standing { settled: 1, ..Standing::default() }).await;
    assert_eq!(world.outside.tries((key, CALL)), [1, 2, 3, 4, 4, 4], "no try failed");
    world.applied(key, &["call", "answer yes"]).await;
    second.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_effects_of_one_event_die_each_for_itself_and_a_discard_is_an_answer() {
    let world = World::new().await;
    let desk = desk(&world);
    let (key, given_up) = (key_of(0, 0), key_of(1, 0));
    for name in [(key, CALL), (key, TEXT), (given_up, CALL), (given_up, TEXT)] {
        world.outside.fail(name);
    }
    let instance = three_tries(&world).await;
    for key in [key, given_up] {
        world.command(key, Act::CallTwice).await;
    }
    dead(&world, 4).await;
    let groups = desk.groups().await.unwrap();
    let told: Vec<_> = groups.iter().map(|group| (&*group.class, &*group.code, group.count, group.keys)).collect();
    assert_eq!(told, [("effect", "500", 4, 2)]);
    assert!(groups[0].sample.effect.is_some());

    world.settled().await;
    let asked = event(&world, key, 0).await;
    world.outside.heal((key, TEXT));
    let wanted = desk.ask(Deed::Redrive, of(Which::One(&at(&asked, TEXT))), BY).await.unwrap().records;
    done(&desk, &wanted, Standing { settled: 1, ..Standing::default() }).await;
    world.applied(key, &["call twice", "text yes"]).await;
    assert_eq!(world.outside.tries((key, CALL)), [1, 2, 3], "the other one rests");

    // Only the second kind may be discarded.
    let wanted = desk.ask(Deed::Discard, of(Which::All), BY).await.unwrap().records;
    assert_eq!(wanted, [at(&event(&world, given_up, 0).await, TEXT)]);
    done(&desk, &wanted, Standing { settled: 1, ..Standing::default() }).await;
    world.applied(given_up, &["call twice", "text discarded"]).await;
    assert_eq!(world.outside.tries((given_up, TEXT)), [1, 2, 3], "an operator's word needs no call");
    world.settled().await;
    let last = event(&world, given_up, 1).await;
    assert_eq!(envelope::text(&last.headers, "ce_cause"), Some("operator"));
    assert_eq!(envelope::text(&last.headers, "operator-sub"), Some("olga"));
    dead(&world, 2).await;
    instance.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_effect_goes_when_its_state_asks_for_it_no_more() {
    let world = World::new().await;
    let desk = desk(&world);
    let key = key_of(0, 0);
    world.outside.fail((key, CALL));
    let instance = three_tries(&world).await;
    world.command(key, Act::Call).await;
    dead(&world, 1).await;
    world.outside.heal((key, CALL));
    // Another event asks, so the first one does no more.
    world.command(key, Act::Call).await;
    world.applied(key, &["call", "call", "answer yes"]).await;
    held(&world, 0).await;
    assert_eq!(world.outside.tries((key, CALL)), [1, 2, 3, 1]);
    assert_eq!(desk.ask(Deed::Redrive, of(Which::All), BY).await.unwrap().records, []);
    instance.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_effects_come_back_with_a_rebuild_and_settled_ones_do_not() {
    let world = World::new().await;
    let desk = desk(&world);
    let [once, twice, settled, again] = [0, 1, 2, 3].map(|n| key_of(0, n));
    let names = [once, twice, settled, again].map(|key| (key, CALL));
    names.into_iter().for_each(|name| world.outside.fail(name));
    let instance = three_tries(&world).await;
    for key in [once, twice, settled, again] {
        world.command(key, Act::Call).await;
    }
    dead(&world, 4).await;
    let redrive = async |key: i64, expected: Standing| {
        let asked = desk.ask(Deed::Redrive, of(Which::Key(key)), BY).await.unwrap().records;
        done(&desk, &asked, expected).await;
    };
    let kept = Standing { kept: 1, ..Standing::default() };
    let through = Standing { settled: 1, ..Standing::default() };
    redrive(twice, kept).await;
    for key in [settled, again] {
        redrive(key, kept).await;
        world.outside.heal((key, CALL));
        redrive(key, through).await;
    }
    // It dies once more, of another event.
    world.outside.fail((again, CALL));
    world.command(again, Act::Call).await;
    dead(&world, 3).await;
    instance.stop().await;
    world.settled().await;
    let live = rows(&world).await;
    for batch_max in [1, 7, 500] {
        world.rebuild(&world.pool, batch_max).await.unwrap();
        assert_eq!(rows(&world).await, live, "in batches of {batch_max}");
    }
    // They go on resting, and counting.
    let instance = three_tries(&world).await;
    world.outside.heal((twice, CALL));
    redrive(twice, through).await;
    assert_eq!(world.outside.tries((twice, CALL)), [1, 2, 3, 4, 5]);
    assert_eq!(world.outside.tries((once, CALL)), [1, 2, 3]);
    instance.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_the_other_side_uses_up_no_attempt_however_long_it_lasts() {
    let world = World::new().await;
    let key = key_of(0, 0);
    // More often than there are attempts.
    let away = std::iter::repeat_n(Reply::Unreachable, 4);
    world.outside.script(away.chain([Reply::Failed, Reply::Unreachable, Reply::Failed]));
    let instance = three_tries(&world).await;
    world.command(key, Act::Call).await;
    world.applied(key, &["call", "answer yes"]).await;
    assert_eq!(world.outside.tries((key, CALL)), [1, 1, 1, 1, 1, 2, 2, 3]);
    held(&world, 0).await;
    instance.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_can_never_be_applied_is_a_dead_letter_too() {
    let world = World::new().await;
    let desk = desk(&world);
    let key = key_of(0, 0);
    world.outside.refuse(0, 3);
    let instance = three_tries(&world).await;
    world.command(key, Act::Call).await;
    dead(&world, 1).await;
    let groups = desk.groups().await.unwrap();
    assert_eq!((&*groups[0].class, &*groups[0].code), ("effect", "ODD"));
    let asked = desk.ask(Deed::Redrive, of(Which::All), BY).await.unwrap().records;
    done(&desk, &asked, Standing { settled: 1, ..Standing::default() }).await;
    world.applied(key, &["call", "answer yes"]).await;
    instance.stop().await;
    world.finish().await;
}
