//! Asks a service's admin port about held and dead records.
//!
//! Any instance will do: all of them look into the same database, and the owner of a record does what is asked.

use std::time::Duration;

use anyhow::{Context, bail};
use edge::token::{Identity, Role, sign};
use engine::desk::Address;
use reqwest::Method;
use serde_json::{Value, json};

use crate::services::ServiceName;
use crate::settings::Settings;

const TIMEOUT: Duration = Duration::from_secs(30);
const TOKEN_LIFE: Duration = Duration::from_secs(3_600);
/// Records of one request: more do not fit into a body.
pub(crate) const RECORDS_MAX: usize = 500;

/// The desk of one service.
#[derive(Debug)]
pub(crate) struct Desk {
    http: reqwest::Client,
    service: ServiceName,
    bases: Vec<String>,
    token: String,
}

impl Desk {
    pub(crate) fn open(settings: &Settings, service: ServiceName, operator: &str) -> anyhow::Result<Self> {
        let identity = Identity { subject: operator.to_owned(), role: Role::Operator };
        Ok(Self {
            http: reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build().context("making an HTTP client")?,
            service,
            bases: settings.instances(service.as_str())?.iter().map(|instance| instance.admin.clone()).collect(),
            token: sign(&settings.signing_key()?, &identity, TOKEN_LIFE)?,
        })
    }

    pub(crate) fn service(&self) -> ServiceName {
        self.service
    }

    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.ask(Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.ask(Method::POST, path, Some(body)).await
    }

    /// How many of these records are still to be done, through, and kept.
    pub(crate) async fn standing(&self, records: &[Address]) -> anyhow::Result<engine::desk::Standing> {
        let answer = self.post("/admin/dead-letters/standing", &json!({"records": records})).await?;
        serde_json::from_value(answer).context("what the desk answers is not understood")
    }

    /// The first instance that answers; a refusal is the answer of all.
    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let mut silent = String::from("it has no instance");
        for base in &self.bases {
            let mut request = self.http.request(method.clone(), format!("{base}{path}")).bearer_auth(&self.token);
            if let Some(body) = body {
                request = request.json(body);
            }
            let answer = match request.send().await {
                Ok(answer) => answer,
                Err(error) => {
                    silent = error.to_string();
                    continue;
                }
            };
            let status = answer.status();
            let answer: Value = answer.json().await.unwrap_or(Value::Null);
            if status.is_success() {
                return Ok(answer);
            }
            if status == reqwest::StatusCode::SERVICE_UNAVAILABLE {
                silent = answer["detail"].as_str().unwrap_or("503").to_owned();
                continue;
            }
            let detail = answer["detail"].as_str().unwrap_or("no detail");
            let fields: Vec<String> = answer["errors"].as_array().into_iter().flatten().map(field).collect();
            bail!("{} refuses it ({status}): {detail} {}", self.service, fields.join("; "));
        }
        bail!("no instance of {} answers: {silent}; `cargo up --missing` starts what is gone", self.service)
    }
}

fn field(error: &Value) -> String {
    format!("{} {}", error["pointer"].as_str().unwrap_or("?"), error["detail"].as_str().unwrap_or("?"))
}
