//! The load of the crash matrix, of crashes and of accidents: orders of every kind, asked for until they are taken.
//!
//! The chaos run has a load of its own, by the plan of its seed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::client::{Client, order, stocked_product};
use crate::history::{Class, History, Request};
use crate::stack::Stack;

const CUSTOMERS: usize = 10;
/// Orders come in bursts, so that batches hold more than one input: some boundaries lie between two of them.
const BURST: usize = 10;
const EVERY: Duration = Duration::from_millis(2_500);
/// A client that hears nothing for so long asks again.
const PATIENCE: Duration = Duration::from_secs(4);
const AGAIN_AFTER: Duration = Duration::from_millis(300);
const CHANGES_MIND_AFTER: Duration = Duration::from_millis(500);
/// Most orders are paid by then, also where a service is killed every few seconds.
const PAYS_WITHIN: Duration = Duration::from_secs(3);
/// Every so-many-th order ID cannot be confirmed while that is broken; its cancellation waits behind the confirmation.
pub const BROKEN: i64 = 7;

/// What is asked for.
#[derive(Debug)]
pub struct Load {
    history: Arc<History>,
    customers: Vec<Client>,
    orders: String,
    product: String,
    over: AtomicBool,
}

impl Load {
    /// A product with enough stock, and customers, of whom some can be written to.
    ///
    /// # Errors
    /// When a service refuses.
    pub async fn open(stack: &Stack, history: Arc<History>) -> anyhow::Result<Arc<Self>> {
        let product = stocked_product(stack, 100, 1_000_000).await?;
        let customers = (0..CUSTOMERS).map(|number| Client::customer(stack, &format!("load-{number}")));
        let customers: Vec<Client> = customers.collect::<Result<_, _>>()?;
        for customer in &customers[..CUSTOMERS / 2] {
            let url = format!("{}/v1/contacts/{}", stack.http("notify-svc", 0), customer.sub());
            let body = json!({"email": format!("{}@example.com", customer.sub()), "phone": "+4915112345678"});
            let request = Request { op: "put_contact", key: None, body: &body, url: &url, method: &Method::PUT };
            let answer = history.send(customer, request, |more| more).await?.context("a contact")?;
            ensure!(answer.status.is_success(), "{answer:?}");
        }
        let orders = format!("{}/v1/orders", stack.http("order-svc", 0));
        Ok(Arc::new(Self { history, customers, orders, product, over: AtomicBool::new(false) }))
    }

    /// Nobody comes any more.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// The product that all orders are about.
    #[must_use]
    pub fn product(&self) -> &str {
        &self.product
    }

    /// Places orders until it is ended, and waits until the last of them is taken.
    ///
    /// # Errors
    /// When a request is refused for what it asks.
    pub async fn run(self: Arc<Self>) -> anyhow::Result<()> {
        let (mut clients, mut ticks) = (JoinSet::new(), tokio::time::interval(EVERY));
        for number in 0.. {
            ticks.tick().await;
            if self.over.load(Ordering::Relaxed) {
                break;
            }
            for number in number * BURST..(number + 1) * BURST {
                let load = Arc::clone(&self);
                clients.spawn(async move { load.visit(number).await });
            }
        }
        while let Some(gone) = clients.join_next().await {
            gone??;
        }
        Ok(())
    }

    async fn visit(&self, number: usize) -> anyhow::Result<()> {
        let customer = &self.customers[number % CUSTOMERS];
        let method = match number % 10 {
            3 => "pm_declined",
            // Nobody answers for it: it is given up, and its charge is cancelled by its key.
            6 => "pm_never",
            _ => "pm_ok",
        };
        let placed = self.insist(customer, "place_order", &self.orders, &order(&[(&self.product, 1)], method)).await?;
        let id = placed["order_id"].as_str().context("an order's ID")?;
        let is_broken = id.parse::<i64>()? % BROKEN == 0;
        if number % 20 == 9 || is_broken {
            tokio::time::sleep(if is_broken { PAYS_WITHIN } else { CHANGES_MIND_AFTER }).await;
            let url = format!("{}/{id}/cancel", self.orders);
            self.insist(customer, "cancel", &url, &json!({"reason": "CHANGED_MIND"})).await?;
        }
        Ok(())
    }

    /// Asks under one key until there is a clear answer, which is yes, or that it comes too late.
    async fn insist(&self, customer: &Client, op: &str, url: &str, body: &Value) -> anyhow::Result<Value> {
        let key = uuid::Uuid::new_v4().to_string();
        let request = Request { op, key: Some(&key), body, url, method: &Method::POST };
        loop {
            if let Some(answer) = self.history.send(customer, request, |request| request.timeout(PATIENCE)).await? {
                match Class::of(answer.status.as_u16()) {
                    Class::Ok => return Ok(answer.body),
                    Class::Info if answer.body["code"] == "ORDER_NOT_PLACED" => return Ok(answer.body),
                    Class::Fail => anyhow::bail!("{op}: {answer:?}"),
                    Class::Info => {}
                }
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }
}
