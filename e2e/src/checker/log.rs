//! The log of a run as any reader has to read it: what is a repeat, what is strange, and what the rest says.
//!
//! Nothing is required of it here: a hole or damaged bytes are what the checks look for.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::ensure;
use events::codec::Codec;
use events::envelope::{Cause, name};
use events::id::CommandId;
use events::inventory::{InventoryCommand, InventoryEvent, Subject};
use events::notification::NotificationEvent;
use events::order::{OrderCommand, OrderEvent};
use events::partition::partition_of;
use events::payment::{PaymentCommand, PaymentEvent};
use events::record::CommandRef;
use events::schema::SCHEMAS;
use events::time::Timestamp;
use serde_json::{Value, json};

use super::letters::Letter;
use super::witness::Witness;
use crate::evidence::{Entry, Folder, Row};

/// A service: what it reads and what it writes.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) name: &'static str,
    pub(super) number: i64,
    pub(super) events: &'static str,
    pub(super) inputs: &'static [&'static str],
}

/// The four of them.
pub(super) const SERVICES: [Service; 4] = [
    Service {
        name: "order-svc",
        number: 1,
        events: "order.events",
        inputs: &["order.commands", "inventory.events", "payment.events"],
    },
    Service {
        name: "inventory-svc",
        number: 2,
        events: "inventory.events",
        inputs: &["inventory.commands", "order.events"],
    },
    Service {
        name: "payment-svc",
        number: 3,
        events: "payment.events",
        inputs: &["payment.commands", "order.events", "inventory.events"],
    },
    Service {
        name: "notify-svc",
        number: 4,
        events: "notification.events",
        inputs: &["order.events", "payment.events"],
    },
];

/// Every service's own topics.
pub(super) fn own_topics(service: &Service) -> [String; 3] {
    [service.events.to_owned(), format!("{}.retry", service.name), format!("{}.dlq", service.name)]
}

pub(super) fn is_commands(topic: &str) -> bool {
    topic.ends_with(".commands")
}

/// What an event says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    Order(OrderEvent),
    Inventory(InventoryEvent),
    Payment(PaymentEvent),
    Notification(NotificationEvent),
}

impl Event {
    fn decode(codec: &Codec, topic: &str, value: &[u8]) -> Option<Self> {
        match topic {
            OrderEvent::TOPIC => OrderEvent::decode(codec, value).ok().map(Self::Order),
            InventoryEvent::TOPIC => InventoryEvent::decode(codec, value).ok().map(Self::Inventory),
            PaymentEvent::TOPIC => PaymentEvent::decode(codec, value).ok().map(Self::Payment),
            NotificationEvent::TOPIC => NotificationEvent::decode(codec, value).ok().map(Self::Notification),
            _ => None,
        }
    }

    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Order(event) => event.type_name(),
            Self::Inventory(event) => event.type_name(),
            Self::Payment(event) => event.type_name(),
            Self::Notification(event) => event.type_name(),
        }
    }

    /// Without namespace.
    pub(super) fn short(&self) -> &'static str {
        self.type_name().rsplit('.').next().unwrap_or_default()
    }

    /// The aggregate's number, and whether it is a product's.
    pub(super) fn key(&self) -> (i64, bool) {
        match self {
            Self::Order(event) => (event.order_id().0, false),
            Self::Inventory(event) => (event.subject().number(), matches!(event.subject(), Subject::Product(_))),
            Self::Payment(event) => (event.order_id().0, false),
            Self::Notification(event) => (event.order_id().0, false),
        }
    }

    pub(super) fn command(&self) -> Option<CommandRef> {
        match self {
            Self::Order(event) => event.command_ref(),
            Self::Inventory(event) => event.command_ref(),
            Self::Payment(event) => event.command_ref(),
            Self::Notification(_) => None,
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::Order(event) => event.to_json(),
            Self::Inventory(event) => event.to_json(),
            Self::Payment(event) => event.to_json(),
            Self::Notification(event) => event.to_json(),
        }
    }
}

/// An event that counts: the first record with its sequence.
#[derive(Debug)]
pub(super) struct Fact<'a> {
    pub(super) topic: &'a str,
    pub(super) entry: &'a Entry,
    pub(super) sequence: i64,
    pub(super) at: Option<Timestamp>,
    pub(super) cause: Option<Cause>,
    pub(super) event: Event,
}

/// A command that can be read.
#[derive(Debug)]
pub(super) struct Command<'a> {
    pub(super) topic: &'a str,
    pub(super) entry: &'a Entry,
    pub(super) id: CommandId,
    pub(super) key: i64,
}

/// What a record is to any reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Own topic: the next sequence. Commands topic: a command's first copy.
    First,
    /// Seen before: the record at this index of the topic is the first one.
    Repeat(usize),
    /// No processor wrote it; on a commands topic no process of ours.
    Strange,
    /// The next sequence, but it says nothing.
    Damaged,
}

/// Where a record lies: topic without prefix, partition, offset.
pub(super) type Place = (String, i32, i64);

/// The log of a run, read.
#[derive(Debug)]
pub(super) struct Log<'a> {
    pub(super) folder: &'a Folder,
    pub(super) facts: Vec<Fact<'a>>,
    pub(super) commands: Vec<Command<'a>>,
    pub(super) letters: Vec<Letter<'a>>,
    /// Beside each record of a topic.
    pub(super) kinds: BTreeMap<&'a str, Vec<Kind>>,
    codec: Codec,
}

impl<'a> Log<'a> {
    pub(super) fn read(folder: &'a Folder) -> anyhow::Result<Self> {
        let codec = codec(folder);
        ensure!(!folder.topics.is_empty(), "there are no topics");
        let mut log = Self { folder, facts: vec![], commands: vec![], letters: vec![], kinds: BTreeMap::new(), codec };
        for (topic, entries) in &folder.topics {
            let kinds =
                if is_commands(topic) { log.read_commands(topic, entries) } else { log.read_own(topic, entries) };
            log.kinds.insert(topic, kinds);
        }
        Ok(log)
    }

    fn read_own(&mut self, topic: &'a str, entries: &'a [Entry]) -> Vec<Kind> {
        let mut seen: HashMap<i32, (i64, HashMap<i64, usize>)> = HashMap::new();
        let mut kinds = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            let Some(sequence) = entry.sequence() else {
                kinds.push(Kind::Strange);
                continue;
            };
            let (last, first) = seen.entry(entry.partition).or_default();
            if sequence <= *last {
                // A sequence that fell into a hole has no first record; then the record itself stands for it.
                kinds.push(Kind::Repeat(first.get(&sequence).copied().unwrap_or(index)));
                continue;
            }
            *last = sequence;
            first.insert(sequence, index);
            kinds.push(self.read_first(topic, entry, sequence));
        }
        kinds
    }

    fn read_first(&mut self, topic: &'a str, entry: &'a Entry, sequence: i64) -> Kind {
        if let Some((service, ending)) = topic.rsplit_once('.')
            && matches!(ending, "retry" | "dlq")
        {
            return match Letter::read(service, ending == "dlq", entry, &self.folder.run.prefix) {
                Some(letter) => {
                    self.letters.push(letter);
                    Kind::First
                }
                None => Kind::Damaged,
            };
        }
        let Some(event) = Event::decode(&self.codec, topic, entry.value.as_deref().unwrap_or_default()) else {
            return Kind::Damaged;
        };
        if entry.text(name::TYPE).is_some_and(|said| said != event.type_name())
            || entry.key_text() != event.key().0.to_string()
        {
            return Kind::Damaged;
        }
        let at = entry.text(name::TIME).and_then(|text| Timestamp::parse(text).ok());
        let cause = entry.text(name::CAUSE).and_then(|text| text.parse().ok());
        self.facts.push(Fact { topic, entry, sequence, at, cause, event });
        Kind::First
    }

    fn read_commands(&mut self, topic: &'a str, entries: &'a [Entry]) -> Vec<Kind> {
        let mut first: HashMap<CommandId, usize> = HashMap::new();
        let mut kinds = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            let Some((id, key)) = self.command(topic, entry) else {
                kinds.push(Kind::Strange);
                continue;
            };
            match first.get(&id) {
                Some(index) => kinds.push(Kind::Repeat(*index)),
                None => {
                    first.insert(id, index);
                    self.commands.push(Command { topic, entry, id, key });
                    kinds.push(Kind::First);
                }
            }
        }
        kinds
    }

    /// A command with its aggregate; `None` when it is none, or lies where its key does not belong.
    fn command(&self, topic: &str, entry: &Entry) -> Option<(CommandId, i64)> {
        let value = entry.value.as_deref()?;
        let (key, type_name, id) = match topic {
            OrderCommand::TOPIC => {
                let command = OrderCommand::decode(&self.codec, value).ok()?;
                let id = match &command {
                    OrderCommand::PlaceOrder(command) => command.command_id,
                    OrderCommand::CancelOrder(command) => command.command_id,
                };
                (command.order_id().0, command.type_name(), id)
            }
            InventoryCommand::TOPIC => {
                let command = InventoryCommand::decode(&self.codec, value).ok()?;
                let id = match &command {
                    InventoryCommand::ListProduct(command) => command.command_id,
                    InventoryCommand::RepriceProduct(command) => command.command_id,
                    InventoryCommand::DelistProduct(command) => command.command_id,
                    InventoryCommand::ReceiveStock(command) => command.command_id,
                    InventoryCommand::AdjustStock(command) => command.command_id,
                };
                (command.product_id().0, command.type_name(), id)
            }
            PaymentCommand::TOPIC => {
                let command = PaymentCommand::decode(&self.codec, value).ok()?;
                let id = match &command {
                    PaymentCommand::RecordGatewayResult(command) => command.command_id,
                    PaymentCommand::RefundPayment(command) => command.command_id,
                };
                (command.order_id().0, command.type_name(), id)
            }
            _ => return None,
        };
        let home = partition_of(key.to_string().as_bytes(), self.folder.run.partitions);
        let said = entry.text(name::TYPE).is_none_or(|said| said == type_name);
        (said && entry.key_text() == key.to_string() && home == entry.partition).then_some((id, key))
    }

    /// A name on the broker without the run's prefix.
    pub(super) fn bare<'b>(&self, topic: &'b str) -> &'b str {
        topic.strip_prefix(self.folder.run.prefix.as_str()).unwrap_or(topic)
    }

    /// Records by place.
    pub(super) fn places(&self) -> HashMap<(&'a str, i32, i64), (usize, &'a Entry)> {
        let topics = self.folder.topics.iter();
        let of = |(topic, entries): (&'a String, &'a Vec<Entry>)| {
            entries.iter().enumerate().map(|(index, entry)| {
                let place = (topic.as_str(), entry.partition, entry.offset);
                (place, (index, entry))
            })
        };
        topics.flat_map(of).collect()
    }

    /// A record, for a reader.
    pub(super) fn show(&self, topic: &str, entry: &Entry) -> Value {
        let value = entry.value.as_deref().unwrap_or_default();
        let fields = Event::decode(&self.codec, topic, value).map(|event| event.json());
        let said = |name| entry.text(name).unwrap_or("-").to_owned();
        json!({
            "at": format!("{topic}/{}/{}", entry.partition, entry.offset),
            "sequence": entry.sequence(),
            "type": said(name::TYPE).rsplit('.').next(),
            "key": entry.key_text(),
            "id": said(name::ID),
            "cause": said(name::CAUSE),
            "fields": fields.unwrap_or_else(|| json!(format!("{} bytes", value.len()))),
        })
    }

    /// All that is known of an order, or of a product.
    pub(super) fn about(&self, key: i64) -> Witness {
        let text = key.to_string();
        let named = |value: &Value| value.as_str() == Some(&text) || value.as_i64() == Some(key);
        let history = self.folder.history.iter().filter(|operation| {
            let answer = operation.answer.as_ref();
            let of_answer = ["order_id", "product_id"].map(|field| answer.is_some_and(|answer| named(&answer[field])));
            of_answer.contains(&true) || operation.path.split('/').any(|part| part == text)
        });
        let mut log = Vec::new();
        for (topic, entries) in &self.folder.topics {
            log.extend(entries.iter().filter(|entry| entry.key_text() == text).map(|entry| self.show(topic, entry)));
        }
        let outside = self.folder.charges.iter().filter(|charge| {
            charge["key"].as_str().and_then(|key| key.split_once(':')).is_some_and(|(_, order)| order == text)
        });
        Witness {
            history: history.filter_map(|operation| serde_json::to_value(operation).ok()).collect(),
            log,
            rows: self.rows_about(key),
            outside: outside.cloned().collect(),
        }
    }

    fn rows_about(&self, key: i64) -> Vec<Value> {
        let mut rows = Vec::new();
        for (service, tables) in &self.folder.tables {
            for (table, all) in tables {
                let is = |row: &&Row| {
                    ["order_id", "product_id", "key"].iter().any(|column| number(row, column) == Some(key))
                };
                rows.extend(all.iter().filter(is).map(|row| shown(service, table, row)));
            }
        }
        rows
    }
}

/// A row with where it stands.
pub(super) fn shown(service: &str, table: &str, row: &Row) -> Value {
    json!({"table": format!("{service}/{table}"), "row": row})
}

/// A number of a row.
pub(super) fn number(row: &Row, column: &str) -> Option<i64> {
    row.get(column).and_then(Value::as_i64)
}

/// A text of a row.
pub(super) fn text<'r>(row: &'r Row, column: &str) -> Option<&'r str> {
    row.get(column).and_then(Value::as_str)
}

/// The schema IDs that the services remember, and the same in reverse, as a run may have had them written.
fn codec(folder: &Folder) -> Codec {
    let mut ids = HashSet::new();
    for service in folder.tables.keys() {
        for row in folder.table(service, "engine.schema_ids") {
            let found = SCHEMAS.iter().position(|def| {
                text(row, "subject") == Some(def.subject().as_str())
                    && number(row, "version") == Some(i64::from(def.version))
            });
            ids.extend(found.zip(number(row, "id").and_then(|id| u32::try_from(id).ok())));
        }
    }
    let both = |(index, id): (usize, u32)| [id, id.swap_bytes()].map(|id| (&SCHEMAS[index], id));
    Codec::new(&ids.into_iter().flat_map(both).collect::<Vec<_>>())
}
