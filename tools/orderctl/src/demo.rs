//! `orderctl demo`: a small catalogue, one order, and its way through the four services as the log tells it.
//!
//! All keys are fixed: a second run places nothing and shows the same order again.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use engine::kafka::Kafka;
use engine::record::Record;
use events::codec::Codec;
use events::inventory::InventoryEvent;
use events::notification::NotificationEvent;
use events::order::OrderEvent;
use events::partition::partition_of;
use events::payment::PaymentEvent;
use events::time::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::{Client, Request, Who};
use crate::log::{Follower, Start, ranges};
use crate::output::{Output, line, money, print};
use crate::plan::Product;
use crate::progress::Progress;
use crate::services::ServiceName;
use crate::settings::Settings;
use crate::shop::{Shop, import_id};
use crate::{decoded, outcomes::Outcomes};

const CUSTOMER: &str = "demo";
/// Well below every Snowflake ID, and no product of the import.
const FIRST_PRODUCT: i64 = 101;
const CATALOGUE: [(&str, i64); 8] = [
    ("BANANAS", 99),
    ("WHOLE MILK 1 GAL", 349),
    ("SOURDOUGH BREAD", 425),
    ("EGGS, DOZEN", 379),
    ("GROUND COFFEE 12 OZ", 899),
    ("CHEDDAR 8 OZ", 465),
    ("TOMATOES 1 LB", 249),
    ("DARK CHOCOLATE", 315),
];
const PIECES: i64 = 1_000;
const LINES: [(i64, i64); 2] = [(FIRST_PRODUCT, 6), (FIRST_PRODUCT + 2, 1)];
/// Much longer than it takes, also on a machine that just started.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// One step of the order's way.
#[derive(Debug, Clone, Serialize)]
struct Step {
    at: String,
    /// Since the order was accepted, in milliseconds.
    after_ms: i64,
    status: Option<&'static str>,
    topic: String,
    what: String,
}

pub(crate) async fn run(settings: &Settings, out: Output) -> anyhow::Result<ExitCode> {
    let client = Client::new(settings, PATIENCE)?;
    let kafka = settings.kafka_answers().await?;
    let codec = settings.registry()?.codec_without_memory().await?;
    stock_up(settings, &client, out).await?;
    let order = place(&client).await?;
    let steps = follow(kafka, codec, order, out).await?;
    let notice = notice(settings, order).await?;
    if out.json {
        print(&line(&json!({ "order_id": order.to_string(), "steps": steps, "notice": notice })));
    } else {
        let text = |name: &str| notice[name].as_str().unwrap_or_default().to_owned();
        print(&format!("  {:<36} {} to {}: {}", "a notice arrived", text("channel"), text("to"), text("subject")));
    }
    Ok(ExitCode::SUCCESS)
}

/// The catalogue, its stock, and where notices go.
async fn stock_up(settings: &Settings, client: &Client, out: Output) -> anyhow::Result<()> {
    let product = |(id, (name, price)): (i64, &(&str, i64))| Product {
        id,
        name: (*name).to_owned(),
        price: *price,
        stock: PIECES,
    };
    let products: Vec<Product> = (FIRST_PRODUCT..).zip(&CATALOGUE).map(product).collect();
    let shop = Shop { client, import: import_id("demo"), in_flight: products.len(), patience: PATIENCE };
    let bar = Progress::new(out).bar("catalogue", products.len());
    let undecided = shop.list(&products, "first", &bar).await?;
    if !undecided.is_empty() {
        let codec = settings.registry()?.codec_without_memory().await?;
        shop.received(&undecided, &Outcomes::follow(settings.kafka()?, codec)).await?;
    }
    shop.known(&products, &bar).await?;
    bar.finish_and_clear();
    let contact = json!({ "email": format!("{CUSTOMER}@example.test"), "phone": "+15550100" });
    let path = format!("/v1/contacts/{CUSTOMER}");
    let request = Request::put(ServiceName::Notify, Who::Customer(CUSTOMER), path, contact);
    client.persist(&request).await?.success().context("putting the contact")?;
    out.say(&format!("  {} products are listed, {PIECES} pieces of each", products.len()));
    Ok(())
}

/// Places the order; returns its ID.
async fn place(client: &Client) -> anyhow::Result<i64> {
    let lines: Vec<Value> = LINES
        .iter()
        .map(|(product, quantity)| json!({ "product_id": product.to_string(), "quantity": quantity }))
        .collect();
    let body = json!({ "lines": lines, "payment_method": "pm_ok" });
    let key = Uuid::new_v5(&import_id("demo"), b"order:1").to_string();
    let request = Request::post(ServiceName::Order, Who::Customer(CUSTOMER), "/v1/orders", key, body);
    let answer = client.persist(&request).await?.success().context("placing the demo order")?;
    let order = answer["order_id"].as_str().and_then(|id| id.parse().ok());
    order.context("the answer to POST /v1/orders has no order_id")
}

/// Prints each event of the order as it comes, until it is final and the notice is on its way.
async fn follow(kafka: Kafka, codec: Codec, order: i64, out: Output) -> anyhow::Result<Vec<Step>> {
    let work = move || -> anyhow::Result<Vec<Step>> {
        let key = order.to_string();
        let topics = [OrderEvent::TOPIC, InventoryEvent::TOPIC, PaymentEvent::TOPIC, NotificationEvent::TOPIC];
        let topics = topics.map(|topic| kafka.topic(topic));
        let partition = partition_of(key.as_bytes(), kafka.partitions);
        let starts = ranges(&kafka, &topics, Some(partition), Start::Beginning)?;
        let follower = Follower::open(&kafka, starts.into_iter().map(|(place, from, _)| (place, from)))?;
        let started = Instant::now();
        let mut way = Way { codec: &codec, out, begun: None, steps: Vec::new() };
        way.accepted(order);
        while started.elapsed() < PATIENCE {
            if let Some(record) = follower.poll(LOOK_EVERY)?
                && record.key.as_deref() == Some(key.as_bytes())
                && way.take(&record)
            {
                return Ok(way.steps);
            }
        }
        bail!("order {order} is not final after {} s; see `orderctl lag` and `orderctl processors`", PATIENCE.as_secs())
    };
    tokio::task::spawn_blocking(work).await.context("following the order")?
}

/// What has been seen of the order's way.
struct Way<'a> {
    codec: &'a Codec,
    out: Output,
    /// When it was placed.
    begun: Option<Timestamp>,
    steps: Vec<Step>,
}

impl Way<'_> {
    fn accepted(&mut self, order: i64) {
        self.out.say(&format!("  ACCEPTED   order {order}, answered 202 by POST /v1/orders"));
    }

    /// Notes and prints a step; true when the order's notice was sent, or it ended otherwise.
    fn take(&mut self, record: &Record) -> bool {
        let json = decoded::record(self.codec, record);
        let kind = json["type"].as_str().and_then(|kind| kind.rsplit('.').next()).unwrap_or("?").to_owned();
        let at = json["headers"]["ce_time"].as_str().and_then(|time| Timestamp::parse(time).ok());
        let at = at.unwrap_or(record.timestamp);
        let begun = *self.begun.get_or_insert(at);
        let step = Step {
            at: at.to_string(),
            after_ms: at.0 - begun.0,
            status: status(&kind),
            topic: record.topic.clone(),
            what: describe(&kind, &json["value"]),
        };
        self.out.say(&format!(
            "  {:<10} {:>5} ms  {:<19} {}",
            step.status.unwrap_or(""),
            step.after_ms,
            step.topic,
            step.what
        ));
        self.steps.push(step);
        matches!(kind.as_str(), "NotificationSent" | "NotificationSkipped" | "NotificationFailed")
            && self.steps.iter().any(|step| matches!(step.status, Some("CONFIRMED" | "CANCELLED" | "EXPIRED")))
            || kind == "OrderRejected"
    }
}

fn status(kind: &str) -> Option<&'static str> {
    match kind {
        "OrderPlaced" => Some("PLACED"),
        "OrderConfirmed" => Some("CONFIRMED"),
        "OrderCancelled" => Some("CANCELLED"),
        "OrderExpired" => Some("EXPIRED"),
        "OrderRejected" => Some("REJECTED"),
        _ => None,
    }
}

fn describe(kind: &str, value: &Value) -> String {
    let mut text = kind.to_owned();
    for name in ["reason", "kind", "channel"] {
        if let Some(word) = value[name].as_str() {
            text.push_str(&format!(" {word}"));
        }
    }
    for name in ["total", "amount"] {
        if value[name].is_object() {
            text.push_str(&format!(" {}", money(&value[name])));
        }
    }
    text
}

/// The first message about the order that arrived at the sink.
async fn notice(settings: &Settings, order: i64) -> anyhow::Result<Value> {
    let url = format!("{}/messages?order={order}", settings.sink()?);
    let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?;
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        let page: Value = http.get(&url).send().await.context("asking the sink for messages")?.json().await?;
        if let Some(message) = page["items"].get(0) {
            return Ok(message.clone());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    bail!("no notice about order {order} arrived at {url}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_of_the_catalogue() {
        let last = FIRST_PRODUCT + i64::try_from(CATALOGUE.len()).unwrap();
        assert!(LINES.iter().all(|(product, quantity)| (FIRST_PRODUCT..last).contains(product) && *quantity > 0));
    }

    #[test]
    fn a_step_says_what_happened() {
        let value = json!({"total": {"amount": 1_019, "currency": "USD"}});
        assert_eq!(describe("OrderPlaced", &value), "OrderPlaced 10.19 USD");
        let value = json!({"kind": "ORDER_CONFIRMED", "channel": "EMAIL"});
        assert_eq!(describe("NotificationSent", &value), "NotificationSent ORDER_CONFIRMED EMAIL");
    }
}
