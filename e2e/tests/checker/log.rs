//! What the log and the tables must be: I8 to I13.

use e2e::evidence::Injected;
use events::order::OrderCommand;
use serde_json::json;

use crate::world::{At, BEGAN, PREFIX, PRODUCT, World, read, set};
use crate::{column, header, judged, said, sees};

#[test]
fn i8_sequences() {
    let hole = |world: &mut World| {
        let entry = world.folder.topics.get_mut("notification.events").unwrap().last_mut().unwrap();
        let next = format!("{:019}", entry.sequence().unwrap() + 1);
        entry.headers = set(&entry.headers, "ce_sequence", &next);
        world.settle();
    };
    sees("a hole", hole, &["I8"], &["notification.events", "follows"]);
    let source = |world: &mut World| {
        header(world, "notification.events", "NotificationSkipped", "held", "ce_source", "/order-svc");
    };
    sees("another writer", source, &["I8"], &["held", "written by"]);
    let subject =
        |world: &mut World| header(world, "notification.events", "NotificationSkipped", "held", "ce_subject", "7");
    sees("a subject that is not the key", subject, &["I8"], &["held", "subject"]);
    let lost = |world: &mut World| {
        let entries = world.folder.topics.get_mut("payment.events").unwrap();
        entries.remove(0);
    };
    // What was lost was also a cause, a part of a story and of a row.
    let all = ["I4", "I7", "I8", "I9", "I11", "I12"];
    let mut world = World::honest();
    lost(&mut world);
    let report = judged(&world);
    assert!(report.violated().contains(&"I8"), "{}", said(&report));
    assert!(report.violated().iter().all(|id| all.contains(id)), "{}", said(&report));
}

#[test]
fn i9_outbox() {
    let bytes = |world: &mut World| {
        world.last("inventory.events", "ProductListed", PRODUCT).value.as_mut().unwrap().push(0);
    };
    sees("a repeat of other bytes", bytes, &["I9"], &["a repeat of other bytes"]);
    let setter = |world: &mut World| {
        header(world, "payment.events", "PaymentCaptured", "confirmed", "ce_causationid", "5");
    };
    sees("a timer or effect that nothing set", setter, &["I9"], &["confirmed", "nowhere"]);
    let nowhere = |world: &mut World| {
        header(world, "order.events", "OrderConfirmed", "confirmed", "ce_cause", "t.payment.events/0/999/999");
    };
    sees("a cause that is nowhere", nowhere, &["I9", "I12"], &["confirmed"]);
    let twice = |world: &mut World| {
        let order = world.orders["held"];
        let cause = world.last("order.events", "OrderPlaced", order).text("ce_cause").unwrap().to_owned();
        header(world, "order.events", "OrderConfirmed", "held", "ce_cause", &cause);
    };
    sees("one input, two events", twice, &["I9", "I12"], &["held", "made an event before"]);
}

#[test]
fn i10_positions() {
    let behind = |world: &mut World| {
        let row = &mut world.rows("payment-svc", "engine.positions")[1];
        let next = row["next_offset"].as_i64().unwrap() - 1;
        row.insert("next_offset".to_owned(), json!(next));
    };
    sees("a position behind", behind, &["I10"], &["payment-svc", "order.events/0"]);
    let phantom = |world: &mut World| {
        let row = &mut world.rows("payment-svc", "engine.outputs")[0];
        let decided = row["sequence"].as_i64().unwrap() + 1;
        row.insert("sequence".to_owned(), json!(decided));
    };
    sees("decided, but not in the log", phantom, &["I10"], &["payment.events/0"]);
    let owner = |world: &mut World, epoch: i64, batch: i64| {
        let row = json!({"id": 5, "op": "UPDATE", "partition": 0, "epoch": epoch, "batch": batch, "tx": 14});
        world.row("order-svc", "audit.processors", row);
    };
    sees("an epoch back", |world| owner(world, 8, 2), &["I10"], &["epoch 8"]);
    sees("a commit by an older epoch", |world| owner(world, 5, 3), &["I10"], &["epoch 5 batch 3"]);
    sees("a batch left out", |world| owner(world, 9, 4), &["I10"], &["batch 4"]);
    let moved = |world: &mut World, old: i64, new: i64, tx: i64| {
        let row = json!({"id": 3, "op": "UPDATE", "partition": 0, "topic": "t.payment.events", "old_offset": old,
            "old_sequence": old, "next_offset": new, "last_sequence": new, "tx": tx});
        world.row("order-svc", "audit.positions", row);
    };
    sees("a gap between positions", |world| moved(world, 6, 7, 13), &["I10"], &["does not begin"]);
    sees("a position back", |world| moved(world, 5, 4, 13), &["I10"], &["went back"]);
    sees("a position outside a batch", |world| moved(world, 5, 6, 99), &["I10"], &["outside a batch"]);
}

#[test]
fn i11_rows() {
    let status =
        |world: &mut World| column(world, ("order-svc", "projection.orders"), "held", "status", json!("EXPIRED"));
    sees("another status", status, &["I11"], &["held", "EXPIRED"]);
    let sold = |world: &mut World| {
        column(world, ("inventory-svc", "projection.reservations"), "held", "status", json!("RELEASED"));
    };
    sees("another reservation", sold, &["I11"], &["held", "RELEASED"]);
    let taken = |world: &mut World| {
        column(world, ("payment-svc", "projection.payments"), "held", "taken_amount", json!(1));
    };
    sees("another payment", taken, &["I11"], &["held", "taken_amount"]);
    sees(
        "a command forgotten",
        |world| drop(world.rows("payment-svc", "projection.commands").pop()),
        &["I11"],
        &["not remembered"],
    );
    let notice = |world: &mut World| {
        let (id, rows) = (world.orders["held"], "projection.notices");
        world.rows("notify-svc", rows).retain(|row| row["order_id"] != id || row["kind"] != "ORDER_CONFIRMED");
    };
    sees("a notice's row lost", notice, &["I11"], &["held", "ORDER_CONFIRMED"]);
    let foreign =
        |world: &mut World| world.row("order-svc", "projection.orders", json!({"order_id": 9, "status": "PLACED"}));
    sees("a row of no order", foreign, &["I11"], &["order 9"]);
    let verify = |world: &mut World| {
        let service = json!({"service": "order-svc", "equal": false, "differences": [{"table": "orders"}]});
        world.folder.verify = Some(json!({"equal": false, "services": [service]}));
    };
    sees("a fold that differs", verify, &["I11"], &["order-svc", "orders"]);
}

#[test]
fn i12_dead_letters() {
    let value = |world: &mut World| {
        let entry = world.folder.topics.get_mut("order-svc.dlq").unwrap().last_mut().unwrap();
        entry.value = Some(b"something else".to_vec());
    };
    sees("other bytes", value, &["I12"], &["another value", "order-svc.dlq"]);
    let headers = |world: &mut World| {
        let entry = world.folder.topics.get_mut("notify-svc.dlq").unwrap().last_mut().unwrap();
        entry.headers = set(&entry.headers, "original-y", "x");
    };
    sees("other headers", headers, &["I12"], &["other headers"]);
    let place = |world: &mut World| {
        let entry = world.folder.topics.get_mut("notify-svc.dlq").unwrap().last_mut().unwrap();
        entry.headers = set(&entry.headers, "failure-offset", "0");
    };
    sees("another place", place, &["I12"], &["another source"]);
    let missing = |world: &mut World| {
        world.folder.topics.get_mut("notify-svc.dlq").unwrap().clear();
        world.rows("notify-svc", "projection.held").clear();
        world.settle();
    };
    sees("no letter", missing, &["I12"], &["notify-svc", "no dead letter"]);
    let row = |world: &mut World| world.rows("notify-svc", "projection.held").clear();
    sees("dead, but not kept", row, &["I12"], &["notify-svc", "no row"]);
    let swallowed = |world: &mut World| {
        let (order, id) = (world.orders["held"], world.id("order-svc"));
        let fields = json!({"order_id": order.to_string(), "reason": "OTHER", "command_id": id.to_string()});
        let command = OrderCommand::CancelOrder(read(&fields));
        let value = command.encode(&world.codec).unwrap();
        world.command("order-svc", "order.commands", order, id, value, command.type_name());
        world.settle();
    };
    sees("a command passed over", swallowed, &["I12"], &["held", "left nothing"]);
    let unsigned = |world: &mut World| {
        let order = world.orders["redriven"];
        let entry = world.last("order.events", "OrderConfirmed", order);
        entry.headers = entry.headers.iter().filter(|(name, _)| *name != "operator-sub").collect();
    };
    sees("applied after its death", unsigned, &["I12"], &["redriven", "without an operator"]);
    let injected = |world: &mut World| {
        let (topic, class) = ("payment.events".to_owned(), "strange".to_owned());
        world.folder.injected.push(Injected { topic, partition: 0, offset: 0, class, value: Some(b"x".to_vec()) });
    };
    sees("an injected record that is not dead", injected, &["I12"], &["not among the dead"]);
    let unburied = |world: &mut World| effect_dies(world, false);
    sees("a dead effect that nobody keeps", unburied, &["I12"], &["notify-svc", "EMAIL", "nothing ended it"]);
    let unannounced = |world: &mut World| {
        effect_dies(world, true);
        world.folder.topics.get_mut("notify-svc.dlq").unwrap().pop();
        world.settle();
    };
    sees("a dead effect without a letter", unannounced, &["I12"], &["notify-svc", "EMAIL", "no dead letter"]);
    let stranger = |world: &mut World| drop(world.folder.injected.remove(0));
    sees("a strange record that nobody injected", stranger, &["I12"], &["was not injected"]);
    let held = |world: &mut World| {
        let order = world.orders["held"];
        let entry = world.last("order-svc.retry", "RecordHeld", order).clone();
        let source = entry.text("ce_cause").unwrap().to_owned();
        let key = entry.key_text().to_owned();
        // As if the record had never come through: its event has another cause.
        let event = world.last("order.events", "OrderConfirmed", key.parse().unwrap());
        assert_eq!(event.text("ce_cause"), Some(source.as_str()));
        let id = event.text("ce_causationid").unwrap().to_owned();
        event.headers = set(&set(&event.headers, "ce_cause", "effect"), "ce_causationid", &id);
        let source: Vec<&str> = source.split('/').collect();
        let row = json!({"topic": source[0], "partition": source[1].parse::<i32>().unwrap(),
            "source_offset": source[2].parse::<i64>().unwrap(), "key": key.parse::<i64>().unwrap(), "dead": false,
            "class": "failed"});
        world.row("order-svc", "projection.held", row);
    };
    sees("a record still held", held, &["I6", "I12"], &["held"]);
}

/// The letter of an effect, and its row.
fn effect_dies(world: &mut World, is_kept: bool) {
    let (topic, key) = ("notification.events", world.orders["held"]);
    let event = world.last(topic, "NotificationSkipped", key).clone();
    let at = At { topic: topic.to_owned(), partition: event.partition, offset: event.offset, sequence: None, id: 0 };
    world.letter("notify-svc", "RecordDied", "effect", &at, false);
    let id = event.text("ce_id").unwrap().to_owned();
    let letter = world.folder.topics.get_mut("notify-svc.dlq").unwrap().last_mut().unwrap();
    letter.headers = set(&set(&letter.headers, "ce_cause", "effect"), "ce_causationid", &id);
    letter.headers.put("failure-effect", "ORDER_CONFIRMED.EMAIL");
    if is_kept {
        let row = json!({"topic": format!("{PREFIX}{topic}"), "partition": at.partition, "source_offset": at.offset,
            "key": key, "dead": true, "class": "effect", "effect": "ORDER_CONFIRMED.EMAIL"});
        world.row("notify-svc", "projection.held", row);
    }
    world.settle();
}

#[test]
fn a_dead_effect_may_wait_for_an_operator() {
    let mut world = World::honest();
    effect_dies(&mut world, true);
    let report = judged(&world);
    assert!(report.valid, "{}", said(&report));
}

#[test]
fn i13_ids() {
    let twice = |world: &mut World| {
        let id = {
            let order = world.orders["held"];
            world.last("notification.events", "NotificationSkipped", order).text("ce_id").unwrap().to_owned()
        };
        header(world, "notification.events", "NotificationSkipped", "confirmed", "ce_id", &id);
    };
    sees("an ID twice", twice, &["I13"], &["confirmed", "held", "is the ID of"]);
    let mark = |world: &mut World| {
        world.rows("notify-svc", "engine.leases")[0].insert("mark_ms".to_owned(), json!(BEGAN));
    };
    sees("an ID above its mark", mark, &["I13"], &["mark"]);
    let order = |world: &mut World| {
        let id = world.orders["held"].to_string();
        header(world, "notification.events", "NotificationSkipped", "confirmed", "ce_id", &id);
    };
    sees("an order's ID for an event", order, &["I13"], &["held", "an order"]);
}
