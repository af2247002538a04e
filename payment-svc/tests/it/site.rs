//! The service's public site over a log in memory, whose records its test reads and whose decisions its test makes.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use edge::commands::Commands;
use edge::config::Secret;
use edge::log::Log;
use edge::metrics::HttpMetrics;
use edge::rotation::Rotating;
use edge::server::{self, Running, Site};
use edge::signature::{HEADER, Secrets, sign as sign_body};
use edge::token::{Identity, Keys, Role, sign};
use engine::Servers;
use engine::append::{AppendError, Appended, NewRecord};
use engine::breaker::Breakers;
use engine::clock;
use engine::kafka::Kafka;
use engine::lease::IdIssuer;
use engine::wait::Decided;
use events::codec::Codec;
use events::id::CommandId;
use events::payment::PaymentCommand;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use host::{Base, Ready};
use payment_svc::processor::DESCRIPTION;
use payment_svc::state::State;
use payment_svc::{app, http, store};
use prometheus_client::registry::Registry;
use reqwest::{Client, RequestBuilder};
use serde_json::Value;
use testkit::Migrated;

use crate::batch::HOMES;
use crate::database;

/// The example key of RFC 8410 §10.3, and its public half.
const PRIVATE_KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
const PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
const GATEWAY_SECRET: &str = "a-secret-of-the-gateway";

/// A log in memory.
#[derive(Debug, Default)]
pub(crate) struct MemoryLog {
    next_id: AtomicI64,
    records: Mutex<Vec<NewRecord>>,
    /// What a waiting caller is told.
    pub(crate) decided: Mutex<Option<Decided>>,
}

impl Log for MemoryLog {
    fn refuses(&self) -> Option<String> {
        None
    }

    fn issue(&self) -> BoxFuture<'_, i64> {
        async { self.next_id.fetch_add(1, Ordering::Relaxed) + 1_000 }.boxed()
    }

    fn append(&self, record: NewRecord) -> BoxFuture<'_, Result<Appended, AppendError>> {
        async {
            let mut records = self.records.lock().unwrap();
            records.push(record);
            let offset = i64::try_from(records.len()).unwrap();
            Ok(Appended { topic: "payment.commands".to_owned(), partition: 0, offset })
        }
        .boxed()
    }

    fn wait(&self, command_id: CommandId, _timeout: Duration) -> BoxFuture<'_, Option<Decided>> {
        async move { self.decided.lock().unwrap().clone().map(|decided| Decided { command_id, ..decided }) }.boxed()
    }
}

pub(crate) struct Stand {
    pub(crate) pool: Migrated,
    pub(crate) log: Arc<MemoryLog>,
    pub(crate) client: Client,
    site: Running,
}

impl Stand {
    pub(crate) async fn start() -> Self {
        let pool = database::migrated().await;
        let log = Arc::new(MemoryLog::default());
        let metrics = HttpMetrics::register(&mut Registry::default());
        let kafka = Kafka {
            bootstrap: "127.0.0.1:9".to_owned(),
            topic_prefix: String::new(),
            partitions: 2,
            session_timeout: Duration::from_secs(6),
        };
        let base = Base {
            kafka: Arc::new(kafka),
            pool: pool.clone(),
            codec: Arc::new(Codec::numbered()),
            ids: IdIssuer::start(pool.clone(), DESCRIPTION.number, "test").await.unwrap(),
            servers: Servers::default(),
            breakers: Breakers::default(),
        };
        let commands = Commands::start(
            pool.clone(),
            Arc::clone(&log) as _,
            DESCRIPTION.name,
            PaymentCommand::TOPIC,
            metrics.clone(),
        );
        let ready =
            Ready { base, service: Arc::new(app::replay()), commands: Some(commands), metrics: metrics.clone() };
        let secrets = Rotating::new(&Secret::new(GATEWAY_SECRET), str::parse::<Secrets>).unwrap();
        let keys = Rotating::new(&Secret::new(PUBLIC_KEY), str::parse::<Keys>).unwrap();
        let listener = server::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let site = Site::new(listener, Arc::new(keys), metrics).documented(http::api());
        let site = site.start(http::routes(ready, Arc::new(secrets))).unwrap();
        Self { pool, log, client: Client::new(), site }
    }

    /// Puts a payment there, as the processor would.
    pub(crate) async fn save(&self, state: &State) {
        let mut conn = self.pool.acquire().await.unwrap();
        let order_id = state.payment().unwrap().order_id.0;
        let known = store::load_payments(&mut conn, &[order_id]).await.unwrap();
        match known.is_empty() {
            true => store::insert_payments(&mut conn, HOMES, &[state]).await.unwrap(),
            false => store::update_payments(&mut conn, &[state]).await.unwrap(),
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.site.address())
    }

    pub(crate) async fn get(&self, path: &str, sub: &str, role: Role) -> (u16, Value) {
        answer(self.client.get(self.url(path)).bearer_auth(token(sub, role))).await
    }

    /// An operator's refund.
    pub(crate) fn refund(&self, order: i64, key: &str) -> RequestBuilder {
        let url = self.url(&format!("/v1/payments/{order}/refunds"));
        let request = self.client.post(url).bearer_auth(token("op", Role::Operator));
        request.header("Idempotency-Key", key).header("Content-Type", "application/json").body("{}")
    }

    /// A callback, signed now.
    pub(crate) async fn callback(&self, body: &Value) -> (u16, Value) {
        let body = body.to_string();
        let now = u64::try_from(clock::wall().0 / 1_000).unwrap();
        self.signed(&body, &sign_body(&Secret::new(GATEWAY_SECRET), now, body.as_bytes())).await
    }

    pub(crate) async fn signed(&self, body: &str, signature: &str) -> (u16, Value) {
        let request = self.client.post(self.url("/v1/callbacks/gateway")).header(HEADER, signature);
        answer(request.header("Content-Type", "application/json").body(body.to_owned())).await
    }

    /// The commands that were appended.
    pub(crate) fn commands(&self) -> Vec<PaymentCommand> {
        let records = self.log.records.lock().unwrap();
        let decode = |record: &NewRecord| PaymentCommand::decode(&Codec::numbered(), &record.value).unwrap();
        records.iter().map(decode).collect()
    }
}

pub(crate) fn token(sub: &str, role: Role) -> String {
    let identity = Identity { subject: sub.to_owned(), role };
    sign(PRIVATE_KEY, &identity, Duration::from_secs(600)).unwrap()
}

pub(crate) async fn answer(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or(Value::Null))
}
