//! A gateway in this process on a free port, with a client that speaks its API.

use std::path::Path;

use reqwest::{Client, Response};
use serde_json::{Value, json};
use simulators::config::{GatewayConfig, Secret};
use simulators::gateway::Gateway;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::merchant::SECRET;

pub(crate) struct GatewayStand {
    pub(crate) api: Api,
    shutdown: CancellationToken,
    running: JoinHandle<anyhow::Result<()>>,
}

impl GatewayStand {
    pub(crate) async fn start(data_dir: &Path) -> Self {
        let config = GatewayConfig {
            addr: ([127, 0, 0, 1], 0).into(),
            secret: Secret::new(SECRET),
            data_dir: data_dir.to_owned(),
            public_url: None,
        };
        let gateway = Gateway::build(config).await.unwrap();
        let api = Api::new(format!("http://{}", gateway.addr()));
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(gateway.run(shutdown.clone()));
        Self { api, shutdown, running }
    }

    /// With a folder of its own, which must be kept.
    pub(crate) async fn fresh() -> (Self, TempDir) {
        let dir = tempfile::tempdir().unwrap();
        (Self::start(dir.path()).await, dir)
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.running.await.unwrap().unwrap();
    }
}

/// A client of the gateway.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) url: String,
    pub(crate) client: Client,
}

impl Api {
    pub(crate) fn new(url: String) -> Self {
        let client = Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { url, client }
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        answer(self.send(path, body).await.unwrap()).await
    }

    pub(crate) async fn send(&self, path: &str, body: &Value) -> reqwest::Result<Response> {
        self.client.post(format!("{}{path}", self.url)).json(body).send().await
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        answer(self.client.get(format!("{}{path}", self.url)).send().await.unwrap()).await
    }

    /// Charges 1,000 USD cents; the answer must be 202.
    pub(crate) async fn charge(&self, key: &str, payment_method: &str, callback_url: &str) -> Value {
        let (status, charge) = self.post("/v1/charges", &charge_body(key, payment_method, callback_url)).await;
        assert_eq!(status, 202, "{charge}");
        charge
    }

    pub(crate) async fn refund(&self, key: &str, charge_key: &str, amount: i64) -> (u16, Value) {
        self.post("/v1/refunds", &json!({"key": key, "charge_key": charge_key, "amount": amount})).await
    }

    pub(crate) async fn cancel(&self, key: &str) -> Value {
        let (status, charge) = self.post(&format!("/v1/charges/{key}/cancel"), &json!({})).await;
        assert_eq!(status, 200, "{charge}");
        charge
    }

    pub(crate) async fn status(&self, key: &str) -> String {
        let (status, charge) = self.get(&format!("/v1/charges/{key}")).await;
        assert_eq!(status, 200, "{charge}");
        charge["status"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn plan(&self, plan: Value) {
        let (status, answer) = self.post("/admin/plan", &plan).await;
        assert_eq!(status, 200, "{answer}");
    }
}

pub(crate) fn charge_body(key: &str, payment_method: &str, callback_url: &str) -> Value {
    json!({
        "key": key, "amount": 1000, "currency": "USD",
        "payment_method": payment_method, "callback_url": callback_url,
    })
}

async fn answer(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let bytes = response.bytes().await.unwrap();
    (status, if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() })
}
