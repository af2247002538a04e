//! An honest run in memory: a few orders of each kind, something strange, a repeat, a held and a dead record, all of it as the
//! system would have left it. Tests of the checker change one thing in it.
//!
//! Written as data, in the order of the log; it decides nothing.

use std::collections::BTreeMap;

use e2e::evidence::{Entry, Folder, Injected, Row, Run};
use e2e::history::{Class, Operation};
use events::codec::Codec;
use events::envelope::{Envelope, Headers};
use events::inventory::{InventoryCommand, InventoryEvent};
use events::notification::NotificationEvent;
use events::order::{OrderCommand, OrderEvent};
use events::partition::partition_of;
use events::payment::{PaymentCommand, PaymentEvent};
use events::schema::SCHEMAS;
use events::snowflake::{EPOCH_MS, Parts, pack};
use events::time::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub(crate) const PREFIX: &str = "t.";
pub(crate) const PARTITIONS: i32 = 2;
pub(crate) const PRODUCT: i64 = 1_082_185;
/// Milliseconds since 1970.
pub(crate) const BEGAN: i64 = EPOCH_MS + 28_000_000_000;
const PRICE: i64 = 99;

/// Services with their number and events topic.
pub(crate) const SERVICES: [(&str, u8, &str); 4] = [
    ("order-svc", 1, "order.events"),
    ("inventory-svc", 2, "inventory.events"),
    ("payment-svc", 3, "payment.events"),
    ("notify-svc", 4, "notification.events"),
];
const INPUTS: [(&str, &[&str]); 4] = [
    ("order-svc", &["order.commands", "inventory.events", "payment.events"]),
    ("inventory-svc", &["inventory.commands", "order.events"]),
    ("payment-svc", &["payment.commands", "order.events", "inventory.events"]),
    ("notify-svc", &["order.events", "payment.events"]),
];

/// Where a record lies, and its sequence if it has one.
#[derive(Debug, Clone)]
pub(crate) struct At {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) sequence: Option<i64>,
    pub(crate) id: i64,
}

impl At {
    fn cause(&self) -> String {
        let sequence = self.sequence.map(|sequence| sequence.to_string()).unwrap_or_default();
        format!("{PREFIX}{}/{}/{}/{sequence}", self.topic, self.partition, self.offset)
    }
}

/// How the capture of a payment came to confirm its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    AtOnce,
    Held,
    Redriven,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) folder: Folder,
    pub(crate) codec: Codec,
    /// By name.
    pub(crate) orders: BTreeMap<&'static str, i64>,
    sequences: BTreeMap<(String, i32), i64>,
    issued: u64,
    sold: i64,
}

impl World {
    /// The run itself.
    pub(crate) fn honest() -> Self {
        let run = Run {
            prefix: PREFIX.to_owned(),
            partitions: PARTITIONS,
            services: SERVICES.map(|(name, _, _)| name.to_owned()).to_vec(),
            started_at: BEGAN * 1_000,
            healed_at: Some((BEGAN + 60_000) * 1_000),
            converged_at: Some((BEGAN + 70_000) * 1_000),
            collected_at: Some((BEGAN + 71_000) * 1_000),
            charges_outside: Some(true),
            whole_history: true,
            ..Run::default()
        };
        let folder = Folder { run, calls: Some(Vec::new()), ..Folder::default() };
        let mut world = Self {
            folder,
            codec: Codec::numbered(),
            orders: BTreeMap::new(),
            sequences: BTreeMap::new(),
            issued: 0,
            sold: 0,
        };
        world.shelf();
        world.confirmed("confirmed", Way::AtOnce);
        world.confirmed("held", Way::Held);
        world.confirmed("redriven", Way::Redriven);
        world.confirmed("refunded", Way::AtOnce);
        world.refund("refunded");
        world.declined("declined");
        world.cancelled("cancelled");
        world.out_of_stock("short");
        world.strange();
        world.repeat();
        world.servers();
        world.settle();
        world
    }

    pub(crate) fn time(&self) -> i64 {
        BEGAN + 10 * i64::try_from(self.issued).unwrap()
    }

    pub(crate) fn id(&mut self, service: &str) -> i64 {
        self.issued += 1;
        let number = SERVICES.iter().find(|(name, _, _)| *name == service).map_or(7, |(_, number, _)| *number);
        let millis = u64::try_from(self.time() - EPOCH_MS).unwrap();
        pack(Parts { millis, service: number, instance: 0, sequence: 0 }).unwrap()
    }

    pub(crate) fn row(&mut self, service: &str, table: &str, row: Value) {
        let Value::Object(row) = row else { panic!("a row is an object") };
        self.rows(service, table).push(row);
    }

    pub(crate) fn rows(&mut self, service: &str, table: &str) -> &mut Vec<Row> {
        self.folder.tables.entry(service.to_owned()).or_default().entry(table.to_owned()).or_default()
    }

    pub(crate) fn append(
        &mut self,
        topic: &str,
        partition: i32,
        key: &str,
        value: Option<Vec<u8>>,
        headers: Headers,
    ) -> i64 {
        let timestamp = self.time();
        let entries = self.folder.topics.entry(topic.to_owned()).or_default();
        let offset = entries.iter().filter(|entry| entry.partition == partition).map(|entry| entry.offset + 1).max();
        let offset = offset.unwrap_or(0);
        let key = Some(key.as_bytes().to_vec());
        entries.push(Entry { partition, offset, timestamp, key, value, headers });
        entries.sort_by_key(|entry| (entry.partition, entry.offset));
        offset
    }

    fn next(&mut self, topic: &str, partition: i32) -> i64 {
        let sequence = self.sequences.entry((topic.to_owned(), partition)).or_default();
        *sequence += 1;
        *sequence
    }

    /// A client's request that was accepted; its key's hash.
    pub(crate) fn asked(&mut self, op: &str, caller: &str, path: &str, body: Value, answer: Value) -> String {
        let key = format!("key-{op}-{}", self.folder.history.len());
        self.folder.history.push(operation(op, caller, path, &key, &body, &answer, self.time()));
        hash(&format!("POST\n{path}\n{key}"))
    }

    /// A command in its topic.
    pub(crate) fn command(
        &mut self,
        service: &str,
        topic: &str,
        key: i64,
        id: i64,
        value: Vec<u8>,
        type_name: &str,
    ) -> At {
        let text = key.to_string();
        let headers = envelope(service, id, type_name, &text, self.time(), None, None, None);
        let partition = partition_of(text.as_bytes(), PARTITIONS);
        let offset = self.append(topic, partition, &text, Some(value), headers);
        At { topic: topic.to_owned(), partition, offset, sequence: None, id }
    }

    fn event(&mut self, topic: &str, key: i64, type_name: &str, value: Vec<u8>, cause: &str, by: i64) -> At {
        let service = SERVICES.iter().find(|(_, _, events)| *events == topic).unwrap().0;
        let (id, text) = (self.id(service), key.to_string());
        let partition = partition_of(text.as_bytes(), PARTITIONS);
        let sequence = self.next(topic, partition);
        let headers = envelope(service, id, type_name, &text, self.time(), Some(sequence), Some(cause), Some(by));
        let offset = self.append(topic, partition, &text, Some(value), headers);
        At { topic: topic.to_owned(), partition, offset, sequence: Some(sequence), id }
    }

    pub(crate) fn order_event(&mut self, event: &OrderEvent, cause: &At) -> At {
        let value = event.encode(&self.codec).unwrap();
        let at = self.event("order.events", event.order_id().0, event.type_name(), value, &cause.cause(), cause.id);
        self.remember("order-svc", event.command_ref(), &at, event.type_name(), event.order_id().0);
        at
    }

    pub(crate) fn stock_event(&mut self, event: &InventoryEvent, cause: &At) -> At {
        let (value, key) = (event.encode(&self.codec).unwrap(), event.subject().number());
        let at = self.event("inventory.events", key, event.type_name(), value, &cause.cause(), cause.id);
        self.remember("inventory-svc", event.command_ref(), &at, event.type_name(), key);
        at
    }

    /// `how`: `effect`, or empty for the record itself.
    pub(crate) fn payment_event(&mut self, event: &PaymentEvent, cause: &At, how: &str) -> At {
        let value = event.encode(&self.codec).unwrap();
        let said = if how.is_empty() { cause.cause() } else { how.to_owned() };
        let at = self.event("payment.events", event.order_id().0, event.type_name(), value, &said, cause.id);
        self.remember("payment-svc", event.command_ref(), &at, event.type_name(), event.order_id().0);
        at
    }

    fn notice(&mut self, event: &NotificationEvent, cause: &At, how: &str) -> At {
        let value = event.encode(&self.codec).unwrap();
        let said = if how.is_empty() { cause.cause() } else { how.to_owned() };
        self.event("notification.events", event.order_id().0, event.type_name(), value, &said, cause.id)
    }

    fn remember(
        &mut self,
        service: &str,
        command: Option<events::record::CommandRef>,
        at: &At,
        event_type: &str,
        subject: i64,
    ) {
        let Some(command) = command else { return };
        let id = command.command_id.0;
        let (caller, key_hash) = (command.caller, command.key_hash);
        let row = json!({"command_id": id, "caller": caller, "key_hash": key_hash, "partition": at.partition,
            "sequence": at.sequence, "event_type": event_type, "subject": subject});
        self.row(service, "projection.commands", row);
        let row = json!({"caller": caller, "key_hash": key_hash, "subject": subject, "command_id": id});
        self.row(service, "engine.idempotency", row);
    }

    /// A letter about a record.
    pub(crate) fn letter(&mut self, service: &str, step: &str, class: &str, source: &At, by_operator: bool) {
        let topic = format!("{service}.{}", if step == "RecordDied" { "dlq" } else { "retry" });
        let id = self.id(service);
        let sequence = self.next(&topic, source.partition);
        let entries = &self.folder.topics[&source.topic];
        let original = entries
            .iter()
            .find(|entry| entry.partition == source.partition && entry.offset == source.offset)
            .unwrap()
            .clone();
        let (type_name, key) = (format!("orderlog.engine.{step}"), original.key_text().to_owned());
        let mut headers =
            envelope(service, id, &type_name, &key, self.time(), Some(sequence), Some(&source.cause()), None);
        for (name, value) in [
            ("topic", format!("{PREFIX}{}", source.topic)),
            ("partition", source.partition.to_string()),
            ("offset", source.offset.to_string()),
            ("service", service.to_owned()),
            ("class", class.to_owned()),
            ("code", "CODE".to_owned()),
        ] {
            headers.put(&format!("failure-{name}"), value);
        }
        if by_operator {
            headers.put("operator-sub", "otto");
        }
        for (name, value) in original.headers.iter() {
            headers.push(&format!("original-{name}"), value);
        }
        self.append(&topic, source.partition, &key, original.value, headers);
    }

    fn shelf(&mut self) {
        let listed = json!({"product_id": PRODUCT.to_string(), "name": "BANANAS", "price": money(PRICE)});
        let received = json!({"product_id": PRODUCT.to_string(), "quantity": 100});
        let path = format!("/v1/products/{PRODUCT}/receipts");
        for (op, path, fields, command, event) in [
            ("list_product", "/v1/products", listed, "ListProduct", "ProductListed"),
            ("receive_stock", path.as_str(), received, "ReceiveStock", "StockReceived"),
        ] {
            let key_hash = self.asked(op, "otto", path, json!({}), json!({"product_id": PRODUCT.to_string()}));
            let id = self.id("inventory-svc");
            let fields = commanded(fields, id, "otto", &key_hash);
            let (command, event) = match command {
                "ListProduct" => {
                    (InventoryCommand::ListProduct(read(&fields)), InventoryEvent::ProductListed(read(&fields)))
                }
                _ => (
                    InventoryCommand::ReceiveStock(read(&fields)),
                    match event {
                        "StockReceived" => InventoryEvent::StockReceived(read(&fields)),
                        _ => unreachable!(),
                    },
                ),
            };
            let value = command.encode(&self.codec).unwrap();
            let at = self.command("inventory-svc", "inventory.commands", PRODUCT, id, value, command.type_name());
            self.stock_event(&event, &at);
        }
    }

    /// Up to OrderPlaced.
    pub(crate) fn place(&mut self, name: &'static str, quantity: i64) -> (i64, At) {
        let order = self.id("order-svc");
        self.orders.insert(name, order);
        let answer = json!({"order_id": order.to_string(), "status": "ACCEPTED"});
        let key_hash = self.asked("place_order", "ann", "/v1/orders", json!({"order": name}), answer);
        let id = self.id("order-svc");
        let lines = json!([{"product_id": PRODUCT.to_string(), "quantity": quantity}]);
        let fields = json!({"order_id": order.to_string(), "customer_id": "ann", "lines": lines,
            "payment_method": "pm_ok"});
        let command = OrderCommand::PlaceOrder(read(&commanded(fields, id, "ann", &key_hash)));
        let value = command.encode(&self.codec).unwrap();
        let at = self.command("order-svc", "order.commands", order, id, value, command.type_name());
        let mut fields = self.facts(order, quantity);
        fields["version"] = json!(1);
        fields["payment_method"] = json!("pm_ok");
        let placed = OrderEvent::OrderPlaced(read(&commanded(fields, id, "ann", &key_hash)));
        let at = self.order_event(&placed, &at);
        (order, at)
    }

    /// What every event about an order tells; callers add what theirs has more.
    pub(crate) fn facts(&self, order: i64, quantity: i64) -> Value {
        json!({
            "order_id": order.to_string(), "customer_id": "ann", "total": money(quantity * PRICE),
            "lines": [{"product_id": PRODUCT.to_string(), "quantity": quantity, "unit_price": money(PRICE)}],
            "pay_by": Timestamp(BEGAN + 900_000).to_string(), "payment_method": "pm_ok", "version": 2,
            "amount": money(quantity * PRICE), "refund_due": false, "short": [PRODUCT.to_string()],
        })
    }

    /// Stock set aside, payment asked for, reminder scheduled.
    pub(crate) fn reserve(&mut self, order: i64, placed: &At) -> (At, At) {
        let facts = self.facts(order, 1);
        let reserved = self.stock_event(&InventoryEvent::StockReserved(read(&facts)), placed);
        let requested = self.payment_event(&PaymentEvent::PaymentRequested(read(&facts)), &reserved, "");
        let key = format!("charge:{order}");
        let call = json!({"at": "x", "method": "POST", "path": "/v1/charges", "key": key});
        self.folder.calls.as_mut().unwrap().push(call);
        self.skip(order, "PAYMENT_REMINDER", &requested);
        (reserved, requested)
    }

    fn skip(&mut self, order: i64, kind: &str, cause: &At) {
        let fields = json!({"order_id": order.to_string(), "customer_id": "ann", "kind": kind, "reason": "TOO_OLD"});
        self.notice(&NotificationEvent::NotificationSkipped(read(&fields)), cause, "");
        let row = json!({"order_id": order, "kind": kind, "skip_reason": "TOO_OLD"});
        self.row("notify-svc", "projection.notices", row);
    }

    fn tell(&mut self, order: i64, kind: &str, cause: &At) {
        let due = Timestamp(self.time()).to_string();
        let message_id = format!("{order}.{kind}.EMAIL@orderlog");
        let fields = json!({"order_id": order.to_string(), "customer_id": "ann", "kind": kind, "channels": ["EMAIL"],
            "due_at": due, "channel": "EMAIL", "message_id": message_id});
        let at = self.notice(&NotificationEvent::NotificationScheduled(read(&fields)), cause, "");
        self.notice(&NotificationEvent::NotificationSent(read(&fields)), &at, "effect");
        self.folder.messages.push(json!({"message_id": message_id, "channel": "EMAIL"}));
        let row = json!({"order_id": order, "kind": kind, "skip_reason": null, "email": "SENT", "sms": null});
        self.row("notify-svc", "projection.notices", row);
    }

    fn confirmed(&mut self, name: &'static str, way: Way) {
        let (order, placed) = self.place(name, 1);
        let (_, requested) = self.reserve(order, &placed);
        let facts = self.facts(order, 1);
        let captured = self.payment_event(&PaymentEvent::PaymentCaptured(read(&facts)), &requested, "effect");
        self.charge(order, "captured", 0);
        if way != Way::AtOnce {
            self.letter("order-svc", "RecordHeld", "failed", &captured, false);
            self.letter("order-svc", "AttemptFailed", "failed", &captured, false);
        }
        if way == Way::Redriven {
            self.letter("order-svc", "RecordDied", "failed", &captured, false);
        }
        let confirmed = self.order_event(&OrderEvent::OrderConfirmed(read(&facts)), &captured);
        if way == Way::Redriven {
            self.entry("order.events", &confirmed).headers.put("operator-sub", "otto");
        }
        self.stock_event(&InventoryEvent::StockSold(read(&facts)), &confirmed);
        self.tell(order, "ORDER_CONFIRMED", &confirmed);
        self.sold += 1;
        self.end(order, &confirmed, ("CONFIRMED", None), "SOLD", ("CAPTURED", Some(PRICE)));
    }

    fn refund(&mut self, name: &'static str) {
        let order = self.orders[name];
        let path = format!("/v1/payments/{order}/refunds");
        let key_hash = self.asked("refund", "otto", &path, json!({}), json!({"order_id": order.to_string()}));
        let id = self.id("payment-svc");
        let fields = json!({"order_id": order.to_string(), "customer_id": "ann", "amount": money(PRICE),
            "reason": "OTHER"});
        let fields = commanded(fields, id, "otto", &key_hash);
        let command = PaymentCommand::RefundPayment(read(&fields));
        let value = command.encode(&self.codec).unwrap();
        let at = self.command("payment-svc", "payment.commands", order, id, value, command.type_name());
        let wanted = self.payment_event(&PaymentEvent::RefundRequested(read(&fields)), &at, "");
        let facts = self.facts(order, 1);
        let refunded = self.payment_event(&PaymentEvent::PaymentRefunded(read(&facts)), &wanted, "effect");
        self.tell(order, "PAYMENT_REFUNDED", &refunded);
        let charge = self.folder.charges.iter_mut().find(|charge| charge["key"] == format!("charge:{order}")).unwrap();
        charge["refunded"] = json!(PRICE);
        let rows = self.rows("payment-svc", "projection.payments");
        rows.iter_mut().find(|row| row["order_id"] == order).unwrap()["status"] = json!("REFUNDED");
    }

    fn declined(&mut self, name: &'static str) {
        let (order, placed) = self.place(name, 1);
        let (_, requested) = self.reserve(order, &placed);
        let facts = self.facts(order, 1);
        let mut fields = facts.clone();
        fields["amount"] = Value::Null;
        let declined = self.payment_event(&PaymentEvent::PaymentDeclined(read(&fields)), &requested, "effect");
        self.charge(order, "declined", 0);
        self.give_up(order, &declined, "PAYMENT_DECLINED", &facts, "DECLINED");
    }

    fn give_up(&mut self, order: i64, cause: &At, reason: &str, facts: &Value, payment: &'static str) -> At {
        let mut fields = facts.clone();
        fields["reason"] = json!(reason);
        let cancelled = self.order_event(&OrderEvent::OrderCancelled(read(&fields)), cause);
        self.stock_event(&InventoryEvent::StockReleased(read(facts)), &cancelled);
        self.tell(order, "ORDER_CANCELLED", &cancelled);
        let reason = match reason {
            "CUSTOMER" => "CUSTOMER",
            _ => "PAYMENT_DECLINED",
        };
        self.end(order, &cancelled, ("CANCELLED", Some(reason)), "RELEASED", (payment, None));
        cancelled
    }

    fn cancelled(&mut self, name: &'static str) {
        let (order, placed) = self.place(name, 1);
        self.reserve(order, &placed);
        let at = self.cancel(order);
        let mut facts = self.facts(order, 1);
        let operation = self.folder.history.last().unwrap();
        let key_hash = hash(&format!("POST\n{}\n{}", operation.path, operation.key.as_ref().unwrap()));
        facts = commanded(facts, at.id, "ann", &key_hash);
        let cancelled = self.give_up(order, &at, "CUSTOMER", &facts, "CANCELLED");
        let mut facts = self.facts(order, 1);
        facts["reason"] = json!("ORDER_CANCELLED");
        let wanted = self.payment_event(&PaymentEvent::PaymentCancelRequested(read(&facts)), &cancelled, "");
        self.payment_event(&PaymentEvent::PaymentCancelled(read(&facts)), &wanted, "effect");
        self.charge(order, "cancelled", 0);
        // Once more, and too late.
        let at = self.cancel(order);
        let operation = self.folder.history.last().unwrap();
        let key_hash = hash(&format!("POST\n{}\n{}", operation.path, operation.key.as_ref().unwrap()));
        let fields =
            json!({"order_id": order.to_string(), "command_type": "CancelOrder", "reason": "ORDER_NOT_PLACED"});
        let refused = OrderEvent::CommandRefused(read(&commanded(fields, at.id, "ann", &key_hash)));
        self.order_event(&refused, &at);
    }

    fn cancel(&mut self, order: i64) -> At {
        let path = format!("/v1/orders/{order}/cancel");
        let answer = json!({"order_id": order.to_string(), "status": "ACCEPTED"});
        let key_hash = self.asked("cancel", "ann", &path, json!({}), answer);
        let id = self.id("order-svc");
        let fields = json!({"order_id": order.to_string(), "reason": "OTHER"});
        let command = OrderCommand::CancelOrder(read(&commanded(fields, id, "ann", &key_hash)));
        let value = command.encode(&self.codec).unwrap();
        self.command("order-svc", "order.commands", order, id, value, command.type_name())
    }

    fn out_of_stock(&mut self, name: &'static str) {
        let (order, placed) = self.place(name, 1_000);
        let mut facts = self.facts(order, 1_000);
        let rejected = self.stock_event(&InventoryEvent::StockRejected(read(&facts)), &placed);
        facts["reason"] = json!("OUT_OF_STOCK");
        let cancelled = self.order_event(&OrderEvent::OrderCancelled(read(&facts)), &rejected);
        self.tell(order, "ORDER_CANCELLED", &cancelled);
        self.end(order, &cancelled, ("CANCELLED", Some("OUT_OF_STOCK")), "REJECTED", ("", None));
    }

    fn charge(&mut self, order: i64, status: &str, refunded: i64) {
        let key = format!("charge:{order}");
        self.folder.charges.push(json!({"key": key, "status": status, "amount": PRICE, "refunded": refunded}));
    }

    /// The rows of an order.
    pub(crate) fn end(
        &mut self,
        order: i64,
        last: &At,
        (status, reason): (&str, Option<&str>),
        reservation: &str,
        (payment, taken): (&str, Option<i64>),
    ) {
        let total = if reservation == "REJECTED" { PRICE * 1_000 } else { PRICE };
        let version = if status == "PLACED" { 1 } else { 2 };
        let row = json!({"order_id": order, "status": status, "reason": reason, "version": version,
            "last_sequence": last.sequence, "total_amount": total});
        self.row("order-svc", "projection.orders", row);
        self.row("inventory-svc", "projection.reservations", json!({"order_id": order, "status": reservation}));
        if !payment.is_empty() {
            let row = json!({"order_id": order, "status": payment, "taken_amount": taken, "total_amount": total,
                "call_kind": null});
            self.row("payment-svc", "projection.payments", row);
        }
    }

    /// A stranger on an events topic and one on a commands topic, dead at their readers.
    fn strange(&mut self) {
        for (topic, class, readers) in [
            ("order.events", "strange", &["inventory-svc", "payment-svc", "notify-svc"][..]),
            ("order.commands", "poison", &["order-svc"]),
        ] {
            let value = b"no bytes of ours".to_vec();
            let offset = self.append(topic, 0, "x", Some(value.clone()), Headers::from_iter([("y", "z")]));
            let at = At { topic: topic.to_owned(), partition: 0, offset, sequence: None, id: 0 };
            for reader in readers {
                self.letter(reader, "RecordDied", class, &at, false);
                let row = json!({"topic": format!("{PREFIX}{topic}"), "partition": 0, "source_offset": offset,
                    "key": null, "dead": true, "class": class});
                self.row(reader, "projection.held", row);
            }
            let (topic, class) = (topic.to_owned(), class.to_owned());
            self.folder.injected.push(Injected { topic, partition: 0, offset, class, value: Some(value) });
        }
    }

    /// Some records once more.
    fn repeat(&mut self) {
        let (order, product) = (self.orders["short"], PRODUCT);
        for (topic, short, key) in [
            ("order.events", "OrderPlaced", order),
            ("order.commands", "PlaceOrder", order),
            ("inventory.events", "ProductListed", product),
        ] {
            let entry = self.last(topic, short, key).clone();
            let key = entry.key_text().to_owned();
            self.append(topic, entry.partition, &key, entry.value, entry.headers);
        }
    }

    /// Tables that no order writes.
    fn servers(&mut self) {
        for (def, id) in SCHEMAS.iter().zip(1..) {
            let row = json!({"subject": def.subject(), "version": def.version, "id": id});
            self.row("order-svc", "engine.schema_ids", row);
        }
        let sold = self.sold;
        let row = json!({"product_id": PRODUCT, "on_hand": 100 - sold, "reserved": 0, "sold": sold, "received": 100,
            "adjusted": 0});
        self.row("inventory-svc", "projection.products", row);
        let row = json!({"id": 1, "op": "UPDATE", "product_id": PRODUCT, "on_hand": 100, "reserved": 1, "sold": 0});
        self.row("inventory-svc", "audit.products", row);
        for (service, number, _) in SERVICES {
            let row = json!({"service": number, "instance": 0, "mark_ms": BEGAN + 3_600_000});
            self.row(service, "engine.leases", row);
            // A table without rows is there all the same.
            self.rows(service, "projection.held");
        }
        for (id, op, epoch, batch, tx) in
            [(1, "INSERT", 5, 0, 10), (2, "UPDATE", 5, 1, 11), (3, "UPDATE", 9, 1, 12), (4, "UPDATE", 9, 2, 13)]
        {
            let row = json!({"id": id, "op": op, "partition": 0, "epoch": epoch, "batch": batch, "tx": tx});
            self.row("order-svc", "audit.processors", row);
        }
        for (id, op, old, new, tx) in [(1, "INSERT", None, 2, 11), (2, "UPDATE", Some(2), 5, 13)] {
            let row = json!({"id": id, "op": op, "partition": 0, "topic": "t.payment.events", "old_offset": old,
                "old_sequence": old, "next_offset": new, "last_sequence": new, "tx": tx});
            self.row("order-svc", "audit.positions", row);
        }
    }

    /// Positions and outputs as the topics are now.
    pub(crate) fn settle(&mut self) {
        let ends = |folder: &Folder, topic: &str, partition: i32| {
            let of = folder.topic(topic).iter().filter(|entry| entry.partition == partition);
            let highest = of.clone().filter_map(Entry::sequence).max().unwrap_or(0);
            (of.clone().map(|entry| entry.offset + 1).max().unwrap_or(0), highest)
        };
        for (service, inputs) in INPUTS {
            self.rows(service, "engine.positions").clear();
            self.rows(service, "engine.outputs").clear();
            let events = SERVICES.iter().find(|(name, _, _)| *name == service).unwrap().2;
            let own = [events.to_owned(), format!("{service}.retry"), format!("{service}.dlq")];
            for partition in 0..PARTITIONS {
                for topic in inputs {
                    let (end, highest) = ends(&self.folder, topic, partition);
                    let last = if topic.ends_with(".commands") { 0 } else { highest };
                    let row = json!({"partition": partition, "topic": format!("{PREFIX}{topic}"), "next_offset": end,
                        "last_sequence": last});
                    self.row(service, "engine.positions", row);
                }
                for topic in &own {
                    let (_, highest) = ends(&self.folder, topic, partition);
                    let at = self
                        .folder
                        .topic(topic)
                        .iter()
                        .find(|entry| entry.partition == partition && entry.sequence() == Some(highest));
                    let offset = at.map_or(-1, |entry| entry.offset);
                    let row = json!({"partition": partition, "topic": format!("{PREFIX}{topic}"), "sequence": highest,
                        "acked_sequence": highest, "acked_offset": offset});
                    self.row(service, "engine.outputs", row);
                }
            }
        }
    }

    pub(crate) fn entry(&mut self, topic: &str, at: &At) -> &mut Entry {
        let entries = self.folder.topics.get_mut(topic).unwrap();
        entries.iter_mut().find(|entry| entry.partition == at.partition && entry.offset == at.offset).unwrap()
    }

    /// The last record of a type about a key; any key where it is 0.
    pub(crate) fn last(&mut self, topic: &str, short: &str, key: i64) -> &mut Entry {
        let entries = self.folder.topics.get_mut(topic).unwrap();
        let is = |entry: &&mut Entry| {
            entry.text("ce_type").is_some_and(|said| said.ends_with(&format!(".{short}")))
                && (key == 0 || entry.key_text() == key.to_string())
        };
        entries.iter_mut().rfind(is).unwrap()
    }
}

pub(crate) fn operation(
    op: &str,
    caller: &str,
    path: &str,
    key: &str,
    body: &Value,
    answer: &Value,
    at: i64,
) -> Operation {
    Operation {
        op: op.to_owned(),
        key: Some(key.to_owned()),
        caller: caller.to_owned(),
        body_hash: hash(&body.to_string()),
        body: body.clone(),
        method: "POST".to_owned(),
        path: path.to_owned(),
        invoked_at: at * 1_000,
        completed_at: at * 1_000 + 500,
        status: Some(202),
        answer: Some(answer.clone()),
        answer_hash: Some(hash(&answer.to_string())),
        class: Class::Ok,
    }
}

pub(crate) fn set(headers: &Headers, name: &str, value: &str) -> Headers {
    headers.iter().map(|(known, old)| (known, if known == name { value.as_bytes() } else { old })).collect()
}

fn money(amount: i64) -> Value {
    json!({"amount": amount, "currency": "USD"})
}

pub(crate) fn read<T: serde::de::DeserializeOwned>(fields: &Value) -> T {
    serde_json::from_value(fields.clone()).unwrap()
}

fn commanded(mut fields: Value, id: i64, caller: &str, key_hash: &str) -> Value {
    fields["command_id"] = json!(id.to_string());
    fields["caller"] = json!(caller);
    fields["key_hash"] = json!(key_hash);
    fields["fingerprint"] = json!("f");
    fields
}

pub(crate) fn hash(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}

#[expect(clippy::too_many_arguments, reason = "the attributes of a record")]
fn envelope(
    source: &str,
    id: i64,
    type_name: &str,
    subject: &str,
    at: i64,
    sequence: Option<i64>,
    cause: Option<&str>,
    causation: Option<i64>,
) -> Headers {
    let cause = cause.map(|text| text.parse().unwrap());
    let (time, cause) = (Timestamp(at), cause.as_ref());
    let envelope = Envelope {
        id,
        type_name,
        source,
        subject,
        time,
        sequence,
        correlation: None,
        causation,
        cause,
        traceparent: None,
        avro: true,
    };
    envelope.headers()
}
