//! Clients who order, pay badly, ask twice, change their minds and never give up asking; operators who fill the shelves.
//!
//! What they do follows from the seed; when it arrives does not. Every request is in the history.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::plan::INSTANCES;
use super::shop::{self, Shop};
use crate::client::{Answer, Client};
use crate::history::{Class, History, Request};
use crate::stack::Stack;

const CUSTOMERS: usize = 50;
/// A client that hears nothing for so long asks again.
const PATIENCE: Duration = Duration::from_secs(6);
/// One that gets no clear answer for so long gives up.
const GIVES_UP_AFTER: Duration = Duration::from_secs(90);
/// How long it waits before it asks again: first, and at most.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(8);
/// Orders under way at once; above, a client goes elsewhere.
const UNDER_WAY_MAX: usize = 400;

/// What came of it so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) begun: AtomicUsize,
    pub(super) accepted: AtomicUsize,
    pub(super) ok: AtomicUsize,
    pub(super) fail: AtomicUsize,
    pub(super) info: AtomicUsize,
    /// Clients who went elsewhere.
    pub(super) gone: AtomicUsize,
}

/// The load of a run.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) history: History,
    pub(super) tally: Tally,
    shop: Shop,
    customers: Vec<Client>,
    operator: Client,
    order: Vec<String>,
    inventory: Vec<String>,
    payment: Vec<String>,
    notify: Vec<String>,
    rate: f64,
    times: AtomicU32,
    over: AtomicBool,
}

fn add(counter: &AtomicUsize) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Load {
    pub(super) fn new(stack: &Stack, history: History, shop: Shop, rate: f64) -> anyhow::Result<Self> {
        let customers = (0..CUSTOMERS).map(|number| Client::customer(stack, &format!("chaos-{number}")));
        let of = |service: &str| (0..INSTANCES).map(|number| stack.http(service, number).to_owned()).collect();
        Ok(Self {
            history,
            tally: Tally::default(),
            shop,
            customers: customers.collect::<Result<_, _>>()?,
            operator: Client::operator(stack)?,
            order: of("order-svc"),
            inventory: of("inventory-svc"),
            payment: of("payment-svc"),
            notify: of("notify-svc"),
            rate,
            times: AtomicU32::new(1),
            over: AtomicBool::new(false),
        })
    }

    /// So many times the usual load.
    pub(super) fn times(&self, times: u32) {
        self.times.store(times, Ordering::Relaxed);
    }

    /// Nobody comes any more, and who is there does not ask again.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Lists all products, fills the shelves, and gives most customers an address.
    pub(super) async fn open_shop(self: &Arc<Self>) -> anyhow::Result<()> {
        let mut opening = JoinSet::new();
        for place in 0..4 {
            let load = Arc::clone(self);
            opening.spawn(async move { load.open_part(place, 4).await });
        }
        while let Some(part) = opening.join_next().await {
            part??;
        }
        Ok(())
    }

    async fn open_part(&self, place: usize, of: usize) -> anyhow::Result<()> {
        let base = format!("{}/v1/products", self.inventory[0]);
        for (id, price, stock) in self.shop.products.iter().skip(place).step_by(of) {
            let product = json!({"product_id": id.to_string(), "name": format!("PRODUCT {id}"),
                "price": {"amount": price, "currency": "USD"}});
            self.must("list_product", &base, &product).await?;
            self.must("receive_stock", &format!("{base}/{id}/receipts"), &json!({"quantity": stock})).await?;
        }
        for customer in self.customers.iter().skip(place).step_by(of).filter(|customer| !customer.sub().ends_with('7'))
        {
            let url = format!("{}/v1/contacts/{}", self.notify[0], customer.sub());
            let body = json!({"email": format!("{}@example.test", customer.sub()), "phone": "+4915112345678"});
            let put = Request { op: "put_contact", key: None, body: &body, url: &url, method: &Method::PUT };
            self.send(customer, put).await?;
        }
        Ok(())
    }

    async fn must(&self, op: &str, url: &str, body: &Value) -> anyhow::Result<()> {
        let key = uuid::Uuid::new_v4().to_string();
        let request = Request { op, key: Some(&key), body, url, method: &Method::POST };
        let answer = self.history.send(&self.operator, request, |request| request.header("Prefer", "wait=10")).await?;
        let answer = answer.with_context(|| format!("{op}: no answer"))?;
        ensure!(answer.status.is_success(), "{op}: {answer:?}");
        Ok(())
    }

    /// One request, whatever becomes of it.
    async fn send(&self, client: &Client, request: Request<'_>) -> anyhow::Result<(Class, Option<Answer>)> {
        let answer = self.history.send(client, request, |request| request.timeout(PATIENCE)).await?;
        let class = answer.as_ref().map_or(Class::Info, |answer| Class::of(answer.status.as_u16()));
        if let Some(answer) = answer.as_ref().filter(|answer| answer.body["code"] == "VALIDATION") {
            // Nobody would notice that a kind of request is never taken.
            bail!("this load asks for what nobody can have: {answer:?}");
        }
        add(match class {
            Class::Ok => &self.tally.ok,
            Class::Fail => &self.tally.fail,
            Class::Info => &self.tally.info,
        });
        Ok((class, answer))
    }

    /// Asks under one key until there is a clear answer, at either instance.
    async fn insist(
        &self,
        random: &mut StdRng,
        client: &Client,
        (op, key, body): (&str, &str, &Value),
        (instances, path): (&[String], &str),
    ) -> anyhow::Result<Option<Answer>> {
        let (began, mut pause) = (Instant::now(), AGAIN_AFTER);
        loop {
            let url = format!("{}{path}", instances[random.random_range(0..instances.len())]);
            let request = Request { op, key: Some(key), body, url: &url, method: &Method::POST };
            let (class, answer) = self.send(client, request).await?;
            if class != Class::Info || self.is_over() || began.elapsed() > GIVES_UP_AFTER {
                return Ok(answer.filter(|_| class == Class::Ok));
            }
            tokio::time::sleep(pause.mul_f64(0.5 + random.random::<f64>())).await;
            pause = (pause * 2).min(AGAIN_AFTER_MAX);
        }
    }

    /// Lets clients come until the load is ended, and waits until the last one has gone.
    pub(super) async fn run(self: Arc<Self>, seed: u64) -> anyhow::Result<()> {
        let mut arrivals = StdRng::seed_from_u64(seed);
        let (mut clients, mut number) = (JoinSet::new(), 0_u64);
        while !self.is_over() {
            let rate = self.rate * f64::from(self.times.load(Ordering::Relaxed));
            // Exponential: arrivals know nothing of each other.
            let pause = -(1.0 - arrivals.random::<f64>()).ln() / rate;
            tokio::time::sleep(Duration::from_secs_f64(pause.min(5.0))).await;
            while let Some(gone) = clients.try_join_next() {
                gone??;
            }
            if clients.len() >= UNDER_WAY_MAX {
                add(&self.tally.gone);
                continue;
            }
            number += 1;
            let (load, random) = (Arc::clone(&self), StdRng::seed_from_u64(seed.wrapping_add(number)));
            clients.spawn(async move { load.visit(random).await });
        }
        while let Some(gone) = clients.join_next().await {
            gone??;
        }
        Ok(())
    }

    async fn visit(&self, mut random: StdRng) -> anyhow::Result<()> {
        let random = &mut random;
        if random.random_bool(0.03) {
            return self.tend(random).await;
        }
        let customer = &self.customers[random.random_range(0..self.customers.len())];
        let key = uuid::Uuid::from_u128(random.random()).to_string();
        let method = shop::payment_method(random);
        let body = self.shop.order(random, method);
        let (repeats, other, cancels, refunds) =
            (random.random_bool(0.10), random.random_bool(0.05), random.random_bool(0.01), random.random_bool(0.005));
        add(&self.tally.begun);
        let placing = ("place_order", key.as_str(), &body);
        let Some(placed) = self.insist(random, customer, placing, (&self.order, "/v1/orders")).await? else {
            return Ok(());
        };
        add(&self.tally.accepted);
        let id = placed.body["order_id"].as_str().context("an accepted order has an ID")?.to_owned();
        if repeats {
            self.insist(random, customer, placing, (&self.order, "/v1/orders")).await?;
        }
        if other {
            let body = self.shop.order(random, "pm_failed");
            self.insist(random, customer, ("place_order", &key, &body), (&self.order, "/v1/orders")).await?;
        }
        let next = uuid::Uuid::from_u128(random.random()).to_string();
        if cancels {
            // The payment is on its way.
            tokio::time::sleep(Duration::from_millis(random.random_range(0..600))).await;
            let (path, body) = (format!("/v1/orders/{id}/cancel"), json!({"reason": "CHANGED_MIND"}));
            self.insist(random, customer, ("cancel", &next, &body), (&self.order, &path)).await?;
        } else if refunds {
            tokio::time::sleep(Duration::from_millis(random.random_range(500..4_000))).await;
            let (path, body) = (format!("/v1/payments/{id}/refunds"), json!({"reason": "REQUESTED_BY_CUSTOMER"}));
            self.insist(random, &self.operator, ("refund", &next, &body), (&self.payment, &path)).await?;
        }
        Ok(())
    }

    /// An operator adds stock, or finds some of it spoilt.
    async fn tend(&self, random: &mut StdRng) -> anyhow::Result<()> {
        let (product, key) = (self.shop.pick(random), uuid::Uuid::from_u128(random.random()).to_string());
        let (op, path, body) = if random.random_bool(0.7) {
            ("receive_stock", "receipts", json!({"quantity": random.random_range(1..20)}))
        } else {
            ("adjust_stock", "adjustments", json!({"delta": -random.random_range(1..4), "reason": "DAMAGED"}))
        };
        let path = format!("/v1/products/{product}/{path}");
        self.insist(random, &self.operator, (op, &key, &body), (&self.inventory, &path)).await.map(drop)
    }

    /// Places an order that can be confirmed; its ID when it was taken.
    pub(super) async fn probe(&self) -> anyhow::Result<Option<String>> {
        let body = crate::client::order(&[(&shop::PROBE.to_string(), 1)], "pm_ok");
        let (key, url) = (uuid::Uuid::new_v4().to_string(), format!("{}/v1/orders", self.order[0]));
        let request = Request { op: "place_order", key: Some(&key), body: &body, url: &url, method: &Method::POST };
        let (_, answer) = self.send(&self.customers[0], request).await?;
        Ok(answer.and_then(|answer| answer.body["order_id"].as_str().map(str::to_owned)))
    }

    /// What an order's status is, if it can be had.
    pub(super) async fn status(&self, order: &str) -> Option<String> {
        let answer = self.customers[0].get(&format!("{}/v1/orders/{order}", self.order[0])).await.ok()?;
        answer.body["status"].as_str().map(str::to_owned)
    }
}
