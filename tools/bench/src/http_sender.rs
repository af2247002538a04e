//! Starts orders by `POST /v1/orders`, on connections that are kept, with real tokens and a key per order.
//!
//! An answer other than 202 is an error of the run: a bench that counts refusals measures something else.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, bail};
use events::order::OrderLine;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::target::{Target, customer, customers};

/// Requests at once; also the number of connections that are kept.
pub(crate) const CONNECTIONS: usize = 256;
const TIMEOUT: Duration = Duration::from_secs(30);

/// POSTs.
#[derive(Debug)]
pub(crate) struct HttpSender {
    http: reqwest::Client,
    urls: Vec<String>,
    tokens: HashMap<String, String>,
    connections: Semaphore,
    /// Tells the keys of this run from those of others.
    run: String,
}

#[derive(Debug, Deserialize)]
struct Accepted {
    order_id: String,
}

impl HttpSender {
    /// Signs the customers' tokens.
    ///
    /// # Errors
    /// When the key is none.
    pub(crate) fn start(target: &Target) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .pool_max_idle_per_host(CONNECTIONS)
            .pool_idle_timeout(None)
            .tcp_nodelay(true)
            .timeout(TIMEOUT)
            .no_proxy()
            .build()
            .context("making an HTTP client")?;
        let mut tokens = HashMap::new();
        for customer in customers() {
            let token = (target.token)(&customer)?;
            tokens.insert(customer, token);
        }
        Ok(Self {
            http,
            urls: target.order_urls.iter().map(|url| format!("{url}/v1/orders")).collect(),
            tokens,
            connections: Semaphore::new(CONNECTIONS),
            run: format!("{:016x}", rand::random::<u64>()),
        })
    }

    /// Places an order; returns its ID once it is accepted.
    ///
    /// # Errors
    /// When it is not accepted.
    pub(crate) async fn place(&self, number: usize, lines: &[OrderLine]) -> anyhow::Result<i64> {
        let _connection = self.connections.acquire().await.context("the connections are closed")?;
        let url = &self.urls[number % self.urls.len()];
        let request = self
            .http
            .post(url)
            .bearer_auth(&self.tokens[&customer(number)])
            .header("idempotency-key", format!("bench-{}-{number}", self.run))
            .json(&json!({ "lines": lines, "payment_method": "pm_ok" }));
        let answer = request.send().await.with_context(|| format!("POST {url}"))?;
        let status = answer.status();
        if status != reqwest::StatusCode::ACCEPTED {
            bail!("POST {url} answered {status}: {}", answer.text().await.unwrap_or_default());
        }
        let accepted: Accepted = answer.json().await.context("reading the answer")?;
        accepted.order_id.parse().context("an order's ID")
    }
}
