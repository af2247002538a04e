//! The checker sees: an honest run is valid, and of each thing that is changed in it exactly the invariants speak that it
//! breaks, with a witness that names whom it is about.
//!
//! No server: the run is made in memory ([`world`]).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod log;
mod orders;
mod run;
mod world;

use e2e::checker::{Report, judge};
use e2e::evidence::{Folder, lines, write_json};
use events::order::OrderEvent;
use serde_json::Value;
use world::{World, read, set};

fn judged(world: &World) -> Report {
    judge(&world.folder).unwrap()
}

/// What every violation says, for a failing test.
fn said(report: &Report) -> String {
    let all = report.checks.iter().flat_map(|checked| &checked.violations);
    all.map(|one| format!("{}: {}\n", one.invariant, one.what)).collect()
}

/// Changes one thing in an honest run: these invariants are violated and no other, and the first one's witness, or the sentence
/// above it, names these words.
fn sees(name: &str, change: impl FnOnce(&mut World), invariants: &[&str], words: &[&str]) {
    let mut world = World::honest();
    change(&mut world);
    let report = judged(&world);
    assert_eq!(report.violated(), invariants, "{name}:\n{}", said(&report));
    assert!(!report.valid);
    let first = report.checks.iter().find(|checked| checked.violated > 0).unwrap();
    let shown = serde_json::to_string(&first.violations[0]).unwrap();
    for word in words {
        let word = world.orders.get(word).map_or_else(|| (*word).to_owned(), i64::to_string);
        assert!(shown.contains(&word), "{name}: no `{word}` in {shown}");
    }
    assert!(first.violations[0].witness.size() > 0 || invariants == ["I16"], "{name}: a witness");
}

fn reencode_order(world: &mut World, short: &str, order: &str, change: impl FnOnce(&mut Value)) {
    let codec = events::codec::Codec::numbered();
    let key = world.orders[order];
    let entry = world.last("order.events", short, key);
    let event = OrderEvent::decode(&codec, entry.value.as_deref().unwrap()).unwrap();
    let mut fields = event.to_json();
    change(&mut fields);
    let event = match event {
        OrderEvent::OrderConfirmed(_) => OrderEvent::OrderConfirmed(read(&fields)),
        OrderEvent::OrderPlaced(_) => OrderEvent::OrderPlaced(read(&fields)),
        OrderEvent::OrderCancelled(_) => OrderEvent::OrderCancelled(read(&fields)),
        other => panic!("{other:?}"),
    };
    entry.value = Some(event.encode(&codec).unwrap());
}

fn column(world: &mut World, (service, table): (&str, &str), order: &str, name: &str, value: Value) {
    let id = world.orders[order];
    let row = world.rows(service, table).iter_mut().find(|row| row["order_id"] == id).unwrap();
    row.insert(name.to_owned(), value);
}

fn header(world: &mut World, topic: &str, short: &str, order: &str, name: &str, value: &str) {
    let key = world.orders.get(order).copied().unwrap_or(0);
    let entry = world.last(topic, short, key);
    entry.headers = set(&entry.headers, name, value);
}

fn charge<'w>(world: &'w mut World, order: &str) -> &'w mut Value {
    let key = format!("charge:{}", world.orders[order]);
    world.folder.charges.iter_mut().find(|charge| charge["key"] == key).unwrap()
}

/// The first operation about an order: the one that placed it.
fn placing<'w>(world: &'w mut World, order: &str) -> &'w mut e2e::history::Operation {
    let id = world.orders[order].to_string();
    world.folder.history.iter_mut().find(|one| one.answer.as_ref().unwrap()["order_id"] == id).unwrap()
}

#[test]
fn an_honest_run_is_valid() {
    let world = World::honest();
    let report = judged(&world);
    assert!(report.valid, "{}", said(&report));
    let looked_at = |id: &str, what: &str| {
        let checked = report.checks.iter().find(|checked| checked.invariant == id).unwrap();
        checked.looked_at.iter().find(|(name, _)| *name == what).map_or(0, |(_, count)| *count)
    };
    assert_eq!(looked_at("I7", "orders"), 7);
    assert_eq!((looked_at("I9", "repeats"), looked_at("I12", "repeats")), (3, 6), "each at each reader");
    assert_eq!((looked_at("I12", "dead"), looked_at("I12", "injected")), (4, 2));
    assert_eq!(report.left_out, ["I14"]);
}

#[test]
fn a_folder_reads_back_and_is_judged_alike() {
    let World { folder, .. } = World::honest();
    let path = tempfile::tempdir().unwrap();
    let into = path.path();
    lines::write(into, "history.ndjson", &folder.history).unwrap();
    lines::write(into, "injected.ndjson", &folder.injected).unwrap();
    for (topic, entries) in &folder.topics {
        lines::write(into, &format!("topics/{topic}.ndjson"), entries).unwrap();
    }
    for (service, tables) in &folder.tables {
        for (table, rows) in tables {
            lines::write(into, &format!("tables/{service}/{table}.ndjson"), rows).unwrap();
        }
    }
    write_json(into, "gateway.json", &folder.charges).unwrap();
    write_json(into, "gateway_calls.json", &folder.calls).unwrap();
    write_json(into, "messages.json", &folder.messages).unwrap();
    assert!(Folder::read(into).unwrap_err().to_string().contains("run.json"), "it says what is missing");
    write_json(into, "run.json", &folder.run).unwrap();
    let read = Folder::read(into).unwrap();
    assert_eq!(read, folder);
    assert!(judge(&read).unwrap().valid);
}
