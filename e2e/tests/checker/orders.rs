//! What clients, operators and customers are promised: I1 to I7.

use e2e::history::Class;
use events::inventory::InventoryEvent;
use events::payment::PaymentEvent;
use serde_json::{Value, json};

use crate::world::{At, BEGAN, PRODUCT, World, hash, operation, read};
use crate::{charge, column, placing, reencode_order, sees};

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
        let at = At {
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
