//! A client of the HTTP APIs, written from the contract.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use edge::token::{Identity, Role};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::stack::Stack;

const TIMEOUT: Duration = Duration::from_secs(20);

/// An answer: status, headers and body.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// All headers.
    pub headers: reqwest::header::HeaderMap,
    /// The body; null when it is none.
    pub body: Value,
}

/// Somebody with a token.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    token: String,
    sub: String,
}

impl Client {
    /// A customer with this ID.
    ///
    /// # Errors
    /// When the token cannot be signed.
    pub fn customer(stack: &Stack, sub: &str) -> anyhow::Result<Self> {
        Self::new(stack, sub, Role::Customer)
    }

    /// An operator.
    ///
    /// # Errors
    /// When the token cannot be signed.
    pub fn operator(stack: &Stack) -> anyhow::Result<Self> {
        Self::new(stack, "e2e-operator", Role::Operator)
    }

    fn new(stack: &Stack, sub: &str, role: Role) -> anyhow::Result<Self> {
        let identity = Identity { subject: sub.to_owned(), role };
        let token = edge::token::sign(&stack.signing_key, &identity, Duration::from_secs(3_600))?;
        let http = reqwest::Client::builder().timeout(TIMEOUT).build()?;
        Ok(Self { http, token, sub: sub.to_owned() })
    }

    /// Who it is.
    #[must_use]
    pub fn sub(&self) -> &str {
        &self.sub
    }

    /// A request with the token.
    pub fn request(&self, method: Method, url: &str) -> RequestBuilder {
        self.http.request(method, url).bearer_auth(&self.token)
    }

    /// GET.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn get(&self, url: &str) -> anyhow::Result<Answer> {
        answer(self.request(Method::GET, url)).await
    }

    /// POST with a fresh idempotency key, waiting for the decision.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn post(&self, url: &str, body: &Value) -> anyhow::Result<Answer> {
        let key = uuid::Uuid::new_v4().to_string();
        let request = self.request(Method::POST, url).header("Idempotency-Key", key).header("Prefer", "wait=10");
        answer(request.json(body)).await
    }

    /// PUT.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn put(&self, url: &str, body: &Value) -> anyhow::Result<Answer> {
        answer(self.request(Method::PUT, url).header("Prefer", "wait=10").json(body)).await
    }
}

/// Sends a request and reads the answer whole.
///
/// # Errors
/// When there is no answer.
pub async fn answer(request: RequestBuilder) -> anyhow::Result<Answer> {
    let response = request.send().await?;
    let (status, headers) = (response.status(), response.headers().clone());
    let text = response.text().await?;
    let body = serde_json::from_str(&text).unwrap_or(Value::Null);
    Ok(Answer { status, headers, body })
}

/// Lists a product and puts stock on its shelf; returns its ID.
///
/// # Errors
/// When the service refuses.
pub async fn stocked_product(stack: &Stack, price: i64, quantity: i64) -> anyhow::Result<String> {
    let operator = Client::operator(stack)?;
    let base = format!("{}/v1/products", stack.http("inventory-svc", 0));
    let body = json!({"name": "BANANAS", "price": {"amount": price, "currency": "USD"}});
    let listed = operator.post(&base, &body).await?;
    let id = listed.body["product_id"].as_str().with_context(|| format!("listing: {listed:?}"))?.to_owned();
    if quantity > 0 {
        let received = operator.post(&format!("{base}/{id}/receipts"), &json!({"quantity": quantity})).await?;
        if !received.status.is_success() {
            bail!("receiving: {received:?}");
        }
    }
    // order-svc learns of it through the log.
    let customer = Client::customer(stack, "e2e-browser")?;
    let catalogue = format!("{}/v1/products?limit=200", stack.http("order-svc", 0));
    eventually("the product in the catalogue", Duration::from_secs(20), async || {
        let seen = customer.get(&catalogue).await?;
        let items = seen.body["items"].as_array().cloned().unwrap_or_default();
        let found = items.iter().any(|item| item["product_id"] == id.as_str());
        Ok(if found { Ok(()) } else { Err(format!("{seen:?}")) })
    })
    .await?;
    Ok(id)
}

/// The body of an order with these lines.
#[must_use]
pub fn order(lines: &[(&str, i64)], payment_method: &str) -> Value {
    let lines: Vec<_> = lines.iter().map(|(id, quantity)| json!({"product_id": id, "quantity": quantity})).collect();
    json!({"lines": lines, "payment_method": payment_method})
}

/// Places an order and returns its ID.
///
/// # Errors
/// When it is refused.
pub async fn place(stack: &Stack, customer: &Client, body: &Value) -> anyhow::Result<String> {
    let placed = customer.post(&format!("{}/v1/orders", stack.http("order-svc", 0)), body).await?;
    let id = placed.body["order_id"].as_str().with_context(|| format!("placing: {placed:?}"))?;
    Ok(id.to_owned())
}

/// Waits until an order has this status and returns it.
///
/// # Errors
/// After 60 s, with what it was last.
pub async fn wait_for_status(stack: &Stack, customer: &Client, order: &str, status: &str) -> anyhow::Result<Value> {
    let url = format!("{}/v1/orders/{order}", stack.http("order-svc", 0));
    let what = format!("order {order} {status}");
    eventually(&what, Duration::from_secs(60), async || {
        let seen = customer.get(&url).await?;
        Ok(if seen.body["status"] == status { Ok(seen.body) } else { Err(format!("{seen:?}")) })
    })
    .await
}

/// Tries until it succeeds; what it last saw is in the error.
///
/// # Errors
/// After the deadline.
pub async fn eventually<T>(
    what: &str,
    within: Duration,
    mut attempt: impl AsyncFnMut() -> anyhow::Result<Result<T, String>>,
) -> anyhow::Result<T> {
    let started = Instant::now();
    loop {
        let seen = match attempt().await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(seen)) => seen,
            Err(error) => format!("{error:#}"),
        };
        if started.elapsed() > within {
            bail!("{what} did not come about within {} s; last seen: {seen}", within.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
