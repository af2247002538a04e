//! The routes over real HTTP and a real Postgres, with a log in memory that is decided as a processor would.
//!
//! It can stop deciding, so that orders stay accepted. What the real log does is `engine`'s contract.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use edge::commands::Commands;
use edge::config::Secret;
use edge::log::Log;
use edge::metrics::HttpMetrics;
use edge::rotation::Rotating;
use edge::server::{self, Running, Site};
use edge::token::{Identity, Keys, Role, sign};
use engine::Servers;
use engine::append::{AppendError, Appended, NewRecord};
use engine::breaker::Breakers;
use engine::kafka::Kafka;
use engine::lease::IdIssuer;
use engine::service::Service;
use engine::wait::Decided;
use events::codec::Codec;
use events::id::CommandId;
use events::order::OrderCommand;
use events::time::Timestamp;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use host::{Base, Ready};
use order_svc::processor::{DESCRIPTION, Input};
use prometheus_client::registry::Registry;
use reqwest::{Method, RequestBuilder};
use serde_json::Value;
use sqlx::PgPool;
use testkit::Migrated;

use crate::batch::{P, SERVICE, batch};
use crate::database;

/// The example key of RFC 8410 §10.3, and its public half.
const PRIVATE_KEY: &str = "-----BEGIN PRIVATE KEY-----\n\
     MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
const PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----\n\
     MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";

/// A log whose commands are decided when they are appended.
pub(crate) struct MemoryLog {
    pool: PgPool,
    ids: AtomicI64,
    sequence: AtomicI64,
    decides: AtomicBool,
    decided: Mutex<HashMap<CommandId, Decided>>,
}

impl MemoryLog {
    /// From now on commands stay undecided, or are decided again.
    pub(crate) fn decide(&self, decides: bool) {
        self.decides.store(decides, Ordering::SeqCst);
    }

    async fn take(&self, record: &NewRecord) {
        let codec = Codec::numbered();
        let decoded = SERVICE.decode(&codec, OrderCommand::TOPIC, &record.value, Timestamp(0)).unwrap().unwrap();
        let command = decoded.command.unwrap();
        let mut conn = self.pool.acquire().await.unwrap();
        let log = batch(&mut conn, &[decoded.input], self.sequence.fetch_add(1, Ordering::SeqCst)).await;
        let about = SERVICE.about(&log[0].event);
        sqlx::query(
            "INSERT INTO commands (command_id, caller, key_hash, fingerprint, partition, sequence, outcome, event_type,
                                   subject, at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, now())",
        )
        .bind(command.command_id.0)
        .bind(command.caller)
        .bind(command.key_hash)
        .bind(command.fingerprint)
        .bind(P)
        .bind(log[0].sequence)
        .bind(&about.refused)
        .bind(about.type_name)
        .bind(about.key)
        .execute(&mut *conn)
        .await
        .unwrap();
        let decided = Decided {
            command_id: command.command_id,
            event_type: about.type_name.to_owned(),
            refused: about.refused,
            subject: about.key,
            partition: P,
            sequence: log[0].sequence,
        };
        self.decided.lock().unwrap().insert(command.command_id, decided);
    }
}

impl Log for MemoryLog {
    fn refuses(&self) -> Option<String> {
        None
    }

    fn issue(&self) -> BoxFuture<'_, i64> {
        std::future::ready(self.ids.fetch_add(1, Ordering::SeqCst)).boxed()
    }

    fn append(&self, record: NewRecord) -> BoxFuture<'_, Result<Appended, AppendError>> {
        async move {
            if self.decides.load(Ordering::SeqCst) {
                self.take(&record).await;
            }
            Ok(Appended { topic: record.topic.to_owned(), partition: P, offset: 0 })
        }
        .boxed()
    }

    fn wait(&self, command_id: CommandId, _timeout: Duration) -> BoxFuture<'_, Option<Decided>> {
        std::future::ready(self.decided.lock().unwrap().get(&command_id).cloned()).boxed()
    }
}

/// A running order service without processors.
pub(crate) struct Shop {
    pub(crate) pool: Migrated,
    pub(crate) log: Arc<MemoryLog>,
    base: String,
    client: reqwest::Client,
    running: Running,
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) text: String,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// `/lines/0/quantity must be …` of each wrong field.
    pub(crate) fn errors(&self) -> Vec<String> {
        let errors = self.body["errors"].as_array().cloned().unwrap_or_default();
        let text = |error: &Value, name: &str| error[name].as_str().unwrap().to_owned();
        errors.iter().map(|error| format!("{} {}", text(error, "pointer"), text(error, "detail"))).collect()
    }
}

impl Shop {
    /// Opens with product 7 (a PEAR, 99 cents) and 8 (5 cents) in the catalogue. No Kafka answers.
    pub(crate) async fn open() -> Self {
        let nowhere = Kafka {
            bootstrap: "127.0.0.1:9".to_owned(),
            topic_prefix: String::new(),
            partitions: 2,
            session_timeout: Duration::from_secs(6),
        };
        Self::open_with(nowhere).await
    }

    pub(crate) async fn open_with(kafka: Kafka) -> Self {
        let pool = database::migrated().await;
        let log = Arc::new(MemoryLog {
            pool: pool.clone(),
            ids: AtomicI64::new(1_000),
            sequence: AtomicI64::new(1),
            decides: AtomicBool::new(true),
            decided: Mutex::default(),
        });
        let metrics = HttpMetrics::register(&mut Registry::default());
        let commands = Commands::start(
            pool.clone(),
            Arc::clone(&log) as _,
            DESCRIPTION.name,
            OrderCommand::TOPIC,
            metrics.clone(),
        );
        let base = Base {
            kafka: Arc::new(kafka),
            pool: pool.clone(),
            codec: Arc::new(Codec::numbered()),
            ids: IdIssuer::start(pool.clone(), DESCRIPTION.number, "tests").await.unwrap(),
            servers: Servers::default(),
            breakers: Breakers::default(),
        };
        let ready = Ready { base, service: Arc::new(SERVICE), commands: Some(commands), metrics: metrics.clone() };
        let keys = Arc::new(Rotating::new(&Secret::new(PUBLIC_KEY), str::parse::<Keys>).unwrap());
        let listener = server::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let site = Site::new(listener, keys, metrics).documented(order_svc::http::api());
        let running = site.start(order_svc::http::routes(ready)).unwrap();
        let shop =
            Self { pool, log, base: format!("http://{}", running.address()), client: reqwest::Client::new(), running };
        shop.fold(&[crate::batch::listed(7, 99), crate::batch::listed(8, 5)]).await;
        shop
    }

    /// Inputs other than commands, as the processor would take them.
    pub(crate) async fn fold(&self, inputs: &[Input]) {
        let mut conn = self.pool.acquire().await.unwrap();
        batch(&mut conn, inputs, self.log.sequence.fetch_add(10, Ordering::SeqCst)).await;
    }

    /// A request as this customer, or as an operator when the name is `operator`; nobody when it is empty.
    pub(crate) fn request(&self, who: &str, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        if who.is_empty() {
            return request;
        }
        let role = if who == "operator" { Role::Operator } else { Role::Customer };
        let identity = Identity { subject: who.to_owned(), role };
        request.bearer_auth(sign(PRIVATE_KEY, &identity, Duration::from_secs(60)).unwrap())
    }

    pub(crate) async fn get(&self, who: &str, path: &str) -> Answer {
        answer(self.request(who, Method::GET, path)).await
    }

    /// POST with a key of its own, waiting for the decision.
    pub(crate) async fn post(&self, who: &str, path: &str, body: &Value) -> Answer {
        let key = format!("key-{}", self.log.ids.fetch_add(1, Ordering::SeqCst));
        answer(self.keyed(who, path, body, &key).header("Prefer", "wait=5")).await
    }

    /// POST with this key.
    pub(crate) fn keyed(&self, who: &str, path: &str, body: &Value, key: &str) -> RequestBuilder {
        self.request(who, Method::POST, path).header("Idempotency-Key", key).json(body)
    }

    /// Places an order of two pears and returns its ID.
    pub(crate) async fn placed(&self, who: &str) -> String {
        let answer = self.post(who, "/v1/orders", &pears(2)).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.body["order_id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn close(self) {
        self.running.stop().await;
    }
}

pub(crate) fn pears(quantity: i64) -> Value {
    serde_json::json!({"lines": [{"product_id": "7", "quantity": quantity}], "payment_method": "pm_ok"})
}

pub(crate) async fn answer(request: RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::Null);
    Answer { status, headers, text, body }
}
