//! An honest run in memory: a few orders of each kind, something strange, a repeat, a held and a dead record, all of it as the
//! system would have left it. Tests of the checker change one thing in it.
//!
//! Written as data, in the order of the log; it decides nothing.

mod flows;
mod servers;

use std::collections::BTreeMap;

use e2e::evidence::{Entry, Folder, Row, Run};
use e2e::history::{Class, Operation};
use events::codec::Codec;
use events::envelope::{Envelope, Headers};
use events::inventory::InventoryEvent;
use events::notification::NotificationEvent;
use events::order::OrderEvent;
use events::partition::partition_of;
use events::payment::PaymentEvent;
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
