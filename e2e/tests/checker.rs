//! The checker sees: an honest run is valid, and of each thing that is changed in it exactly the invariants speak that it breaks,
//! with a witness that names whom it is about.
//!
//! No server: the run is made in memory (`checker/world.rs`).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "checker/world.rs"]
mod world;

use e2e::checker::{Report, judge};
use e2e::evidence::{Fault, Folder, Injected, Sample, lines, write_json};
use e2e::history::Class;
use events::inventory::InventoryEvent;
use events::order::{OrderCommand, OrderEvent};
use events::payment::PaymentEvent;
use serde_json::{Value, json};
use world::{BEGAN, PRODUCT, World, hash, operation, read, set};

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

#[test]
fn i1_lost_accepted_commands() {
    let lost = |world: &mut World, op: &str, path: &str, answer: Value| {
        let at = world.time();
        world.folder.history.push(operation(op, "ann", path, "lost-key", &json!({}), &answer, at));
    };
    let answer = json!({"order_id": "77", "status": "ACCEPTED"});
    sees("an order", |world| lost(world, "place_order", "/v1/orders", answer.clone()), &["I1"], &["77"]);
    sees(
        "a cancellation",
        |world| lost(world, "cancel", "/v1/orders/77/cancel", answer.clone()),
        &["I1"],
        &["lost-key"],
    );
    sees("a failure that was done", |world| placing(world, "held").class = Class::Fail, &["I1"], &["held"]);
    let forget = |world: &mut World| {
        let id = world.orders["held"].to_string();
        world.folder.history.retain(|one| one.answer.as_ref().unwrap()["order_id"] != id);
    };
    sees("an order that nobody asked for", forget, &["I1"], &["held", "nobody"]);
}

#[test]
fn i2_keys() {
    let again = |world: &mut World, change: fn(&mut World, &mut e2e::history::Operation)| {
        let mut one = placing(world, "held").clone();
        change(world, &mut one);
        world.folder.history.push(one);
    };
    let differ = |_: &mut World, one: &mut e2e::history::Operation| one.answer_hash = Some(hash("other"));
    sees("answers differ", |world| again(world, differ), &["I2"], &["held", "2 different answers"]);
    let body = |_: &mut World, one: &mut e2e::history::Operation| one.body = json!({"another": 1});
    sees("two bodies", |world| again(world, body), &["I2"], &["two bodies"]);
    let other = |world: &mut World, one: &mut e2e::history::Operation| {
        one.status = Some(201);
        one.answer = Some(json!({"order_id": world.orders["confirmed"].to_string()}));
    };
    sees("two orders in the answers", |world| again(world, other), &["I2"], &["confirmed"]);
    let row = |world: &mut World| {
        world.rows("order-svc", "engine.idempotency")[0].insert("subject".to_owned(), json!(5));
    };
    sees("a key remembered for another order", row, &["I2"], &["idempotency"]);
    let two_orders = |world: &mut World| {
        let mut hashes = Vec::new();
        for order in ["confirmed", "held"] {
            let one = placing(world, order);
            hashes.push(hash(&format!("POST\n/v1/orders\n{}", one.key.as_ref().unwrap())));
        }
        reencode_order(world, "OrderPlaced", "held", |fields| fields["key_hash"] = json!(hashes[0]));
        for table in ["projection.commands", "engine.idempotency"] {
            for row in world.rows("order-svc", table).iter_mut().filter(|row| row["key_hash"] == hashes[1]) {
                row.insert("key_hash".to_owned(), json!(hashes[0]));
            }
        }
        // The row of the first order would name another command than the second one's.
        world.rows("order-svc", "engine.idempotency").clear();
        world.folder.history.retain(|one| one.op != "place_order");
        world.folder.run.whole_history = false;
    };
    sees("two orders of one key", two_orders, &["I2"], &["confirmed", "held"]);
}

#[test]
fn i3_stock() {
    let product = |world: &mut World, name: &str, value: i64| {
        world.rows("inventory-svc", "projection.products")[0].insert(name.to_owned(), json!(value));
    };
    sees("a sum that differs", |world| product(world, "on_hand", 95), &["I3"], &[&PRODUCT.to_string(), "95"]);
    let short = |world: &mut World| {
        let codec = &events::codec::Codec::numbered();
        let entry = world.last("inventory.events", "StockReceived", PRODUCT);
        let mut fields = InventoryEvent::decode(codec, entry.value.as_deref().unwrap()).unwrap().to_json();
        fields["quantity"] = json!(1);
        entry.value = Some(InventoryEvent::StockReceived(read(&fields)).encode(codec).unwrap());
    };
    sees("more sold than there was", short, &["I3"], &["-3 on hand", "StockReceived"]);
    let version = |world: &mut World| {
        world.row(
            "inventory-svc",
            "audit.products",
            json!({"id": 2, "op": "UPDATE", "product_id": PRODUCT, "on_hand": 1,
            "reserved": 2, "sold": 0}),
        );
    };
    sees("a live version that was short", version, &["I3"], &["live version"]);
}

#[test]
fn i4_money() {
    let second = |world: &mut World| {
        let again = charge(world, "held").clone();
        world.folder.charges.push(again);
    };
    sees("a second charge", second, &["I4"], &["held", "2 charges"]);
    sees("a fresh key", |world| charge(world, "held")["key"] = json!("charge-2:1"), &["I4"], &["charge-2:1"]);
    let kept = |world: &mut World| charge(world, "cancelled")["status"] = json!("captured");
    sees("money of a cancelled order kept", kept, &["I4"], &["cancelled", "nets 99, 0 is due"]);
    sees(
        "a refund that was not made",
        |world| charge(world, "refunded")["refunded"] = json!(0),
        &["I4"],
        &["refunded"],
    );
    sees("another amount", |world| charge(world, "held")["amount"] = json!(98), &["I4"], &["held", "98"]);
    let call = |world: &mut World| {
        let key = format!("charge:{}", world.orders["short"]);
        let call = json!({"method": "POST", "path": "/v1/charges", "key": key});
        world.folder.calls.as_mut().unwrap().push(call);
    };
    sees("a call that the log does not ask for", call, &["I4"], &["short"]);
    let capture = |world: &mut World| {
        let order = world.orders["held"];
        let entry = world.last("payment.events", "PaymentCaptured", order).clone();
        let at = world::At {
            topic: "payment.events".to_owned(),
            partition: entry.partition,
            offset: entry.offset,
            sequence: entry.sequence(),
            id: entry.text("ce_id").unwrap().parse().unwrap(),
        };
        let mut fields = PaymentEvent::decode(&world.codec, entry.value.as_deref().unwrap()).unwrap().to_json();
        // As if it were to be given back: order-svc passes over it.
        fields["refund_due"] = json!(true);
        world.payment_event(&PaymentEvent::PaymentCaptured(read(&fields)), &at, "effect");
        world.settle();
    };
    sees("a second capture", capture, &["I4", "I7"], &["held", "2 times PaymentCaptured"]);
}

#[test]
fn i5_notices() {
    let repeat = |world: &mut World| {
        let message = world.folder.messages[0].clone();
        world.folder.messages.push(message);
    };
    sees("a message twice without a fault", repeat, &["I5"], &["ORDER_CONFIRMED"]);
    let foreign = |world: &mut World| world.folder.messages.push(json!({"message_id": "7.ORDER_EXPIRED.SMS@orderlog"}));
    sees("a message of no notice", foreign, &["I5"], &["7.ORDER_EXPIRED.SMS"]);
    sees("a message that never came", |world| drop(world.folder.messages.remove(0)), &["I5"], &["confirmed"]);
}

#[test]
fn i6_ends() {
    let stuck = |world: &mut World| {
        let (order, placed) = world.place("stuck", 1);
        world.reserve(order, &placed);
        world.end(order, &placed, ("PLACED", None), "RESERVED", ("REQUESTED", None));
        let product = &mut world.rows("inventory-svc", "projection.products")[0];
        product.insert("reserved".to_owned(), json!(1));
        world.settle();
    };
    sees("an order left PLACED", stuck, &["I6"], &["stuck", "is PLACED"]);
    let unsent = |world: &mut World| world.row("order-svc", "engine.outbox", json!({"partition": 0, "batch": 7}));
    sees("a row not sent", unsent, &["I6"], &["engine.outbox"]);
    let call = |world: &mut World| {
        column(world, ("payment-svc", "projection.payments"), "held", "call_kind", json!("charge"));
    };
    sees("a call not made", call, &["I6"], &["held", "call"]);
    let late = |world: &mut World| world.folder.run.converged_at = Some((BEGAN + 200_000) * 1_000);
    sees("too late", late, &["I6"], &["converge"]);
}

#[test]
fn i7_histories() {
    let version = |world: &mut World| {
        reencode_order(world, "OrderConfirmed", "held", |fields| fields["version"] = json!(3));
        column(world, ("order-svc", "projection.orders"), "held", "version", json!(3));
    };
    sees("a version left out", version, &["I7"], &["held", "version 3"]);
    let total = |world: &mut World| {
        reencode_order(world, "OrderConfirmed", "held", |fields| fields["total"]["amount"] = json!(98));
    };
    sees("another total", total, &["I7"], &["held", "another total"]);
    let reason = |world: &mut World| {
        reencode_order(world, "OrderCancelled", "declined", |fields| fields["reason"] = json!("PAYMENT_FAILED"));
        column(world, ("order-svc", "projection.orders"), "declined", "reason", json!("PAYMENT_FAILED"));
    };
    sees("a reason that nothing gives", reason, &["I7"], &["declined", "did not fail"]);
    let lines = |world: &mut World| {
        reencode_order(world, "OrderPlaced", "held", |fields| fields["total"]["amount"] = json!(98));
    };
    // Everything that was right by the former total is wrong now.
    sees("lines that cost something else", lines, &["I4", "I7", "I11"], &["held"]);
}

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

#[test]
fn i15_vacuity() {
    let hits = |world: &mut World| {
        world.folder.run.expects.failpoints.insert("C5".to_owned(), 1);
    };
    sees("a failpoint not hit", hits, &["I15"], &["C5"]);
    let faults = |world: &mut World| {
        world.folder.run.expects.faults.insert("kill".to_owned(), 1);
    };
    sees("a fault not done", faults, &["I15"], &["kill"]);
    let felt = |world: &mut World| {
        let (at, kind, target) = ((BEGAN + 59_000) * 1_000, "kill".to_owned(), "order-svc".to_owned());
        world.folder.faults.push(Fault { at, kind, target, detail: Value::Null, felt: Some(false) });
        world.folder.run.expects.felt.push("kill".to_owned());
    };
    sees("a fault not felt", felt, &["I15"], &["felt"]);
    let unserved = |world: &mut World| {
        let all = world.folder.history.len();
        let info = world.folder.history.iter_mut().take(all / 2);
        info.for_each(|one| one.class = Class::Info);
    };
    sees("clients not served", unserved, &["I15"], &["percent"]);
    let rare = |world: &mut World| {
        world.folder.run.expects.counters.insert("held_released".to_owned(), 9);
    };
    sees("a rare path not taken", rare, &["I15"], &["held_released", "2"]);
    let expired = |world: &mut World| {
        world.folder.run.expects.statuses.insert("EXPIRED".to_owned(), 1);
    };
    sees("no order expired", expired, &["I15"], &["EXPIRED"]);
}

#[test]
fn i16_resources() {
    let sample = |outbox_bytes| {
        let service = "order-svc".to_owned();
        let (rss_bytes, db_connections) = (Some(80_000_000), Some(10));
        Sample { at: 0, service, instance: 0, rss_bytes, db_connections, outbox_bytes: Some(outbox_bytes) }
    };
    let mut world = World::honest();
    world.folder.run.limits.outbox_bytes.insert("*".to_owned(), 1_000);
    world.folder.resources.push(sample(1_000));
    assert!(judged(&world).valid);
    let large = |world: &mut World| {
        world.folder.run.limits.outbox_bytes.insert("*".to_owned(), 1_000);
        world.folder.resources.push(sample(1_001));
    };
    sees("an outbox too large", large, &["I16"], &["order-svc", "1001"]);
    let unmeasured = |world: &mut World| {
        world.folder.run.limits.rss_bytes.insert("*".to_owned(), 1);
    };
    sees("nothing measured", unmeasured, &["I16"], &["nothing was measured"]);
}
