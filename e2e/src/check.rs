//! What must hold at the end of every run, whatever happened in it: computed from the raw topics, the gateway's ledger
//! and the sink, with no rule of the services.
//!
//! The invariants are numbered as in the reliability plan (I3 stock, I4 money, I5 notices, I6 ends, I7 histories,
//! I8 sequences, I11 rebuild = live).

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use anyhow::{Context, ensure};
use engine::kafka::Kafka;
use engine::own_log::{Reader, watermarks};
use engine::record::Record;
use engine::registry::Registry;
use events::codec::Codec;
use events::envelope;
use events::inventory::InventoryEvent;
use events::order::OrderEvent;
use events::partition::partition_of;
use events::payment::PaymentEvent;
use serde_json::Value;

use crate::client::{Client, eventually};
use crate::stack::{PARTITIONS, SERVICES, Stack};

/// Topics of the services with their events, and their retry and dead-letter topics.
const EVENTS: [&str; 4] = ["order.events", "inventory.events", "payment.events", "notification.events"];

/// The log of one stack, in order per partition, repeats and strange records left out.
#[derive(Debug)]
pub struct Log {
    codec: Codec,
    topics: BTreeMap<String, Vec<Record>>,
}

/// Reads all own topics and checks their sequences (I8) and partitions.
///
/// # Errors
/// When a sequence has a hole, a key lies on a wrong partition, or Kafka fails.
pub async fn read(stack: &Stack) -> anyhow::Result<Log> {
    let kafka = Kafka {
        bootstrap: stack.kafka.clone(),
        topic_prefix: stack.prefix.clone(),
        partitions: PARTITIONS,
        session_timeout: Duration::from_secs(6),
    };
    let codec = Registry::new(&stack.registry)?.codec_without_memory().await?;
    let own = SERVICES.iter().flat_map(|service| [format!("{service}.retry"), format!("{service}.dlq")]);
    let names: Vec<String> = EVENTS.iter().map(|name| (*name).to_owned()).chain(own).collect();
    let read = move || -> anyhow::Result<BTreeMap<String, Vec<Record>>> {
        let mut topics = BTreeMap::new();
        for name in names {
            let records = read_topic(&kafka, &name)?;
            topics.insert(name, records);
        }
        Ok(topics)
    };
    let topics = tokio::task::spawn_blocking(read).await??;
    Ok(Log { codec, topics })
}

fn read_topic(kafka: &Kafka, name: &str) -> anyhow::Result<Vec<Record>> {
    let places: Vec<_> = (0..PARTITIONS).map(|partition| (kafka.topic(name), partition)).collect();
    let marks = watermarks(kafka, &places)?;
    let ranges: Vec<_> = places.into_iter().zip(marks).map(|(place, (low, high))| (place, low, high)).collect();
    let mut reader = Reader::open(kafka, &ranges)?;
    let mut last: HashMap<i32, i64> = HashMap::new();
    let mut records = Vec::new();
    while let Some(record) = reader.next()? {
        let Some(sequence) = envelope::sequence(&record.headers) else { continue };
        let last = last.entry(record.partition).or_insert(0);
        if sequence <= *last {
            continue;
        }
        let at = format!("{name}/{} offset {}", record.partition, record.offset);
        ensure!(sequence == *last + 1, "I8: {at}: sequence {sequence} follows {last}");
        let key = record.key.as_deref().unwrap_or_default();
        let home = partition_of(key, PARTITIONS);
        ensure!(!name.ends_with(".events") || home == record.partition, "{at}: its key belongs on partition {home}");
        *last = sequence;
        records.push(record);
    }
    Ok(records)
}

impl Log {
    fn records(&self, topic: &str) -> &[Record] {
        self.topics.get(topic).map_or(&[], Vec::as_slice)
    }

    /// All events of orders.
    ///
    /// # Errors
    /// When one does not decode.
    pub fn orders(&self) -> anyhow::Result<Vec<OrderEvent>> {
        let decode = |record: &Record| {
            OrderEvent::decode(&self.codec, record.value.as_deref().unwrap_or_default()).context("order.events")
        };
        self.records("order.events").iter().map(decode).collect()
    }

    /// All events of products, stock and reservations.
    ///
    /// # Errors
    /// When one does not decode.
    pub fn inventory(&self) -> anyhow::Result<Vec<InventoryEvent>> {
        let decode = |record: &Record| {
            InventoryEvent::decode(&self.codec, record.value.as_deref().unwrap_or_default()).context("inventory.events")
        };
        self.records("inventory.events").iter().map(decode).collect()
    }

    /// All events of payments.
    ///
    /// # Errors
    /// When one does not decode.
    pub fn payments(&self) -> anyhow::Result<Vec<PaymentEvent>> {
        let decode = |record: &Record| {
            PaymentEvent::decode(&self.codec, record.value.as_deref().unwrap_or_default()).context("payment.events")
        };
        self.records("payment.events").iter().map(decode).collect()
    }

    /// The types of one order's events on a topic, in order.
    #[must_use]
    pub fn story(&self, topic: &str, order: &str) -> Vec<String> {
        let of_order = self.records(topic).iter().filter(|record| record.key.as_deref() == Some(order.as_bytes()));
        let short = |record: &Record| {
            let full = envelope::text(&record.headers, envelope::name::TYPE).unwrap_or_default();
            full.rsplit('.').next().unwrap_or_default().to_owned()
        };
        of_order.map(short).collect()
    }

    /// The dead letters of a service, in order per partition.
    #[must_use]
    pub fn letters(&self, service: &str) -> &[Record] {
        self.records(&format!("{service}.dlq"))
    }

    /// Records on dead-letter topics.
    #[must_use]
    pub fn dead(&self) -> usize {
        self.topics.iter().filter(|(name, _)| name.ends_with(".dlq")).map(|(_, records)| records.len()).sum()
    }
}

/// Waits until every order is final and nothing is under way, then checks everything.
///
/// # Errors
/// The first invariant that does not hold, with what breaks it.
pub async fn everything(stack: &Stack) -> anyhow::Result<Log> {
    let log = eventually("every order final and every refund made", Duration::from_secs(90), async || {
        let log = read(stack).await?;
        Ok(match open(&log)? {
            None => Ok(log),
            Some(what) => Err(what),
        })
    })
    .await?;
    histories(&log)?;
    stock(stack, &log).await?;
    money(stack, &log).await?;
    notices(stack).await?;
    // I11, and with it that every own record can be folded.
    stack.orderctl(&["verify", "--all", "--json"])?;
    Ok(log)
}

/// Something that is not at its end yet (I6).
fn open(log: &Log) -> anyhow::Result<Option<String>> {
    let mut statuses: HashMap<i64, &'static str> = HashMap::new();
    for event in log.orders()? {
        let order = event.order_id().0;
        match event {
            OrderEvent::OrderPlaced(_) => drop(statuses.insert(order, "PLACED")),
            OrderEvent::CommandRefused(_) => {}
            OrderEvent::OrderRejected(_)
            | OrderEvent::OrderConfirmed(_)
            | OrderEvent::OrderCancelled(_)
            | OrderEvent::OrderExpired(_) => drop(statuses.insert(order, "final")),
        }
    }
    if let Some((order, _)) = statuses.iter().find(|(_, status)| **status == "PLACED") {
        return Ok(Some(format!("order {order} is PLACED")));
    }
    let mut reserved: HashMap<i64, bool> = HashMap::new();
    for event in log.inventory()? {
        match event {
            InventoryEvent::StockReserved(event) => drop(reserved.insert(event.order_id.0, true)),
            InventoryEvent::StockReleased(event) => drop(reserved.insert(event.order_id.0, false)),
            InventoryEvent::StockSold(event) => drop(reserved.insert(event.order_id.0, false)),
            _ => {}
        }
    }
    if let Some((order, _)) = reserved.iter().find(|(_, open)| **open) {
        return Ok(Some(format!("stock of order {order} is still reserved")));
    }
    let mut payments: HashMap<i64, bool> = HashMap::new();
    for event in log.payments()? {
        let order = event.order_id().0;
        let open = match event {
            PaymentEvent::PaymentRequested(_)
            | PaymentEvent::PaymentCancelRequested(_)
            | PaymentEvent::RefundRequested(_) => true,
            PaymentEvent::PaymentCaptured(event) => event.refund_due,
            PaymentEvent::PaymentDeclined(event) => event.refund_due,
            PaymentEvent::CommandRefused(_) => continue,
            _ => false,
        };
        payments.insert(order, open);
    }
    Ok(payments.iter().find(|(_, open)| **open).map(|(order, _)| format!("the payment of order {order} is open")))
}

/// I7: the first event places or rejects, at most one ends, versions count 1, 2.
fn histories(log: &Log) -> anyhow::Result<()> {
    let mut versions: HashMap<i64, i64> = HashMap::new();
    for event in log.orders()? {
        let order = event.order_id();
        let version = match &event {
            OrderEvent::OrderPlaced(event) => event.version,
            OrderEvent::OrderRejected(event) => event.version,
            OrderEvent::OrderConfirmed(event) => event.version,
            OrderEvent::OrderCancelled(event) => event.version,
            OrderEvent::OrderExpired(event) => event.version,
            OrderEvent::CommandRefused(_) => continue,
        };
        let last = versions.entry(order.0).or_insert(0);
        ensure!(version == *last + 1, "I7: order {order}: version {version} follows {last}");
        let first = matches!(event, OrderEvent::OrderPlaced(_) | OrderEvent::OrderRejected(_));
        ensure!(
            first == (version == 1) && version <= 2,
            "I7: order {order}: {} as version {version}",
            event.short_name()
        );
        *last = version;
    }
    Ok(())
}

/// I3: what the log adds up to is what the service says, and nothing is negative.
async fn stock(stack: &Stack, log: &Log) -> anyhow::Result<()> {
    let mut sums: BTreeMap<i64, [i64; 3]> = BTreeMap::new();
    for event in log.inventory()? {
        let mut add = |product: i64, index: usize, quantity: i64| sums.entry(product).or_default()[index] += quantity;
        match event {
            InventoryEvent::StockReceived(event) => add(event.product_id.0, 0, event.quantity),
            InventoryEvent::StockAdjusted(event) => add(event.product_id.0, 0, event.delta),
            InventoryEvent::StockReserved(event) => {
                event.lines.iter().for_each(|line| add(line.product_id.0, 1, line.quantity));
            }
            InventoryEvent::StockReleased(event) => {
                event.lines.iter().for_each(|line| add(line.product_id.0, 1, -line.quantity));
            }
            InventoryEvent::StockSold(event) => event.lines.iter().for_each(|line| {
                add(line.product_id.0, 0, -line.quantity);
                add(line.product_id.0, 1, -line.quantity);
                add(line.product_id.0, 2, line.quantity);
            }),
            _ => {}
        }
        for (product, [on_hand, reserved, _]) in &sums {
            // Per partition the log is in order; across partitions a reservation may be read before its receipt.
            ensure!(*reserved >= 0 || *on_hand >= 0, "I3: product {product}: {on_hand} on hand, {reserved} reserved");
        }
    }
    let operator = Client::operator(stack)?;
    for (product, [on_hand, reserved, sold]) in sums {
        ensure!(0 <= reserved && reserved <= on_hand, "I3: product {product}: {on_hand} on hand, {reserved} reserved");
        let url = format!("{}/v1/products/{product}/stock", stack.http("inventory-svc", 0));
        let said = operator.get(&url).await?.body;
        let same = said["on_hand"] == on_hand && said["reserved"] == reserved && said["sold"] == sold;
        ensure!(same, "I3: product {product}: the log says {on_hand}, {reserved}, {sold}, the service {said}");
    }
    Ok(())
}

/// I4: one capture at most per order, every order that is not confirmed nets zero, every confirmed one its total.
async fn money(stack: &Stack, log: &Log) -> anyhow::Result<()> {
    let mut due: BTreeMap<String, i64> = BTreeMap::new();
    for event in log.orders()? {
        if let OrderEvent::OrderConfirmed(event) = event {
            due.insert(format!("charge:{}", event.order_id), event.total.amount);
        }
    }
    for event in log.payments()? {
        if let PaymentEvent::PaymentRefunded(event) = event {
            due.insert(format!("charge:{}", event.order_id), 0);
        }
    }
    let ledger = all(&format!("{}/v1/charges", stack.gateway)).await?;
    let mut seen = BTreeMap::new();
    for charge in &ledger {
        let key = charge["key"].as_str().unwrap_or_default().to_owned();
        let captured = if charge["status"] == "captured" { charge["amount"].as_i64().unwrap_or(0) } else { 0 };
        // pm_wrong_amount takes another amount than asked; the ledger says what it gave back.
        let net = if charge["refunded"].as_i64().unwrap_or(0) > 0 { 0 } else { captured };
        ensure!(seen.insert(key.clone(), net).is_none(), "I4: two charges under {key}");
    }
    for (key, net) in &seen {
        let due = due.get(key).copied().unwrap_or(0);
        ensure!(*net == due, "I4: {key} nets {net}, but {due} is due: {:?}", ledger.iter().find(|c| c["key"] == *key));
    }
    for (key, due) in due.iter().filter(|(_, due)| **due > 0) {
        ensure!(
            seen.contains_key(key) || !stack.charges_outside(),
            "I4: {due} is due for {key}, but was never charged"
        );
    }
    Ok(())
}

/// I5: one message per Message-ID.
async fn notices(stack: &Stack) -> anyhow::Result<()> {
    let mut seen = HashMap::new();
    for message in all(&format!("{}/messages", stack.sink)).await? {
        let id = message["message_id"].as_str().unwrap_or_default().to_owned();
        *seen.entry(id).or_insert(0) += 1;
    }
    // Mail is at least once: the window is one crash between send and commit.
    let repeated = seen.values().filter(|count| **count > 1).count();
    ensure!(repeated <= 2, "I5: {repeated} notices were sent more than once");
    Ok(())
}

/// All items of a list with cursors.
///
/// # Errors
/// When there is no answer.
pub async fn all(url: &str) -> anyhow::Result<Vec<Value>> {
    let client = reqwest::Client::new();
    let (mut items, mut cursor) = (Vec::new(), String::new());
    loop {
        let request = client.get(format!("{url}?limit=200{cursor}"));
        let page: Value = request.send().await?.error_for_status()?.json().await?;
        items.extend(page["items"].as_array().cloned().unwrap_or_default());
        match page["next_cursor"].as_str() {
            // Cursors of all lists here are URL-safe.
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(items),
        }
    }
}
