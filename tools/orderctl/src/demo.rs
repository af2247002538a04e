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
/// Without a record for so long, what came is shown.
const QUIET: Duration = Duration::from_millis(250);

/// One step of the order's way.
#[derive(Debug, Clone, Serialize)]
struct Step {
    at: Timestamp,
    /// Since the first step, in milliseconds.
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
    let notices = notices(settings, order).await?;
    if out.json {
        print(&line(&json!({ "order_id": order.to_string(), "steps": steps, "notices": notices })));
    }
    for notice in &notices {
        let text = |name: &str| notice[name].as_str().unwrap_or_default();
        let said = if text("subject").is_empty() { text("body") } else { text("subject") };
        out.say(&format!("  arrived    {} to {}: {}", text("channel"), text("to"), said.trim()));
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

/// Prints the events of the order as they come, until it is final and its notices are sent.
async fn follow(kafka: Kafka, codec: Codec, order: i64, out: Output) -> anyhow::Result<Vec<Step>> {
    let work = move || -> anyhow::Result<Vec<Step>> {
        let key = order.to_string();
        let topics = [OrderEvent::TOPIC, InventoryEvent::TOPIC, PaymentEvent::TOPIC, NotificationEvent::TOPIC];
        let topics = topics.map(|topic| kafka.topic(topic));
        let partition = partition_of(key.as_bytes(), kafka.partitions);
        let starts = ranges(&kafka, &topics, Some(partition), Start::Beginning)?;
        let follower = Follower::open(&kafka, starts.into_iter().map(|(place, from, _)| (place, from)))?;
        let started = Instant::now();
        out.say(&format!("  ACCEPTED   order {order}: POST /v1/orders answered 202"));
        let mut way = Way::default();
        while started.elapsed() < PATIENCE {
            match follower.poll(QUIET)? {
                Some(record) if record.key.as_deref() == Some(key.as_bytes()) => way.take(&codec, &record),
                Some(_) => {}
                // The four topics are read side by side; when all are quiet, what came is put in its order.
                None => way.show(out),
            }
            if way.is_over() {
                way.show(out);
                return Ok(way.steps);
            }
        }
        way.show(out);
        bail!(
            "order {order} is not at its end after {} s; see `orderctl lag` and `orderctl processors`",
            PATIENCE.as_secs()
        )
    };
    tokio::task::spawn_blocking(work).await.context("following the order")?
}

/// What has been seen of the order's way.
#[derive(Debug, Default)]
struct Way {
    /// In the order of their times once shown.
    steps: Vec<Step>,
    shown: usize,
    final_status: Option<&'static str>,
    /// Channels of the notice about the end, and how many of them are done with.
    channels: Option<usize>,
    notified: usize,
}

impl Way {
    fn take(&mut self, codec: &Codec, record: &Record) {
        let json = decoded::record(codec, record);
        let kind = json["type"].as_str().and_then(|kind| kind.rsplit('.').next()).unwrap_or("?").to_owned();
        let at = json["headers"]["ce_time"].as_str().and_then(|time| Timestamp::parse(time).ok());
        let value = &json["value"];
        let status = status(&kind);
        self.final_status = self.final_status.or(status.filter(|status| *status != "PLACED"));
        if value["kind"].as_str().is_some_and(|kind| kind != "PAYMENT_REMINDER") {
            match kind.as_str() {
                "NotificationScheduled" => self.channels = value["channels"].as_array().map(Vec::len),
                "NotificationSent" | "NotificationFailed" => self.notified += 1,
                "NotificationSkipped" => self.channels = Some(0),
                _ => {}
            }
        }
        let (topic, what) = (record.topic.to_string(), describe(&kind, value));
        self.steps.push(Step { at: at.unwrap_or(record.timestamp), after_ms: 0, status, topic, what });
    }

    /// True when the order is final and its notice is on every channel. A rejected order has no notice.
    fn is_over(&self) -> bool {
        let notified = self.channels.is_some_and(|channels| self.notified >= channels);
        self.final_status == Some("REJECTED") || (self.final_status.is_some() && notified)
    }

    fn show(&mut self, out: Output) {
        let new = &mut self.steps[self.shown..];
        new.sort_by_key(|step| step.at);
        let begun = self.steps.first().map_or(Timestamp(0), |step| step.at);
        for step in &mut self.steps[self.shown..] {
            step.after_ms = step.at.0 - begun.0;
            let status = step.status.unwrap_or_default();
            out.say(&format!("  {status:<10} {:>5} ms  {:<20} {}", step.after_ms, step.topic, step.what));
        }
        self.shown = self.steps.len();
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

/// The messages about the order that are at the sink: they were handed over before the log says so.
async fn notices(settings: &Settings, order: i64) -> anyhow::Result<Vec<Value>> {
    let url = format!("{}/messages?order={order}", settings.sink()?);
    let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().context("making an HTTP client")?;
    let page: Value = http.get(&url).send().await.context("asking the sink for messages")?.json().await?;
    let notices = page["items"].as_array().cloned().unwrap_or_default();
    if notices.is_empty() {
        bail!("no notice about order {order} arrived at {url}");
    }
    Ok(notices)
}

#[cfg(test)]
mod tests {
    use events::envelope::Headers;

    use super::*;

    #[test]
    fn the_order_is_of_the_catalogue() {
        let last = FIRST_PRODUCT + i64::try_from(CATALOGUE.len()).unwrap();
        assert!(LINES.iter().all(|(product, quantity)| (FIRST_PRODUCT..last).contains(product) && *quantity > 0));
    }

    fn record(kind: &str, value: Option<Vec<u8>>, at: i64) -> Record {
        Record {
            topic: "notification.events".into(),
            partition: 0,
            offset: 0,
            timestamp: Timestamp(at),
            key: Some(b"7".to_vec()),
            value,
            headers: Headers::from_iter([("ce_type", kind), ("ce_time", &Timestamp(at).to_string())]),
        }
    }

    fn notice<T: serde::de::DeserializeOwned>(json: Value) -> T {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn the_way_is_over_when_every_channel_is_done_whatever_is_read_first() {
        let codec = Codec::numbered();
        let scheduled: events::notification::NotificationScheduled =
            notice(json!({"order_id": "7", "customer_id": "a",
            "kind": "ORDER_CONFIRMED", "due_at": "2025-01-01T00:00:00.000Z", "channels": ["EMAIL", "SMS"],
            "total": null, "reason": null, "pay_by": null, "pay_url": null}));
        let scheduled = NotificationEvent::from(scheduled).encode(&codec).unwrap();
        let sent = |channel: &str| {
            let sent: events::notification::NotificationSent = notice(
                json!({"order_id": "7", "customer_id": "a", "kind": "ORDER_CONFIRMED", "channel": channel, "message_id": "m"}),
            );
            NotificationEvent::from(sent).encode(&codec).unwrap()
        };
        let name = |short: &str| format!("orderlog.notification.{short}");
        let mut way = Way::default();
        way.take(&codec, &record(&name("NotificationScheduled"), Some(scheduled), 3));
        way.take(&codec, &record(&name("NotificationSent"), Some(sent("SMS")), 5));
        way.take(&codec, &record(&name("NotificationSent"), Some(sent("EMAIL")), 4));
        assert!(!way.is_over(), "the end of the order is not read yet");
        way.take(&codec, &record("orderlog.order.OrderConfirmed", None, 1));
        assert!(way.is_over());
        way.show(Output::new(true));
        let times: Vec<i64> = way.steps.iter().map(|step| step.after_ms).collect();
        assert_eq!(times, [0, 2, 3, 4]);
    }

    #[test]
    fn a_step_says_what_happened() {
        let value = json!({"total": {"amount": 1_019, "currency": "USD"}});
        assert_eq!(describe("OrderPlaced", &value), "OrderPlaced 10.19 USD");
        let value = json!({"kind": "ORDER_CONFIRMED", "channel": "EMAIL"});
        assert_eq!(describe("NotificationSent", &value), "NotificationSent ORDER_CONFIRMED EMAIL");
    }
}
