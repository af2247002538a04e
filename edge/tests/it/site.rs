//! A toy service over real HTTP: parcels are made, changed and looked at.

use std::sync::Arc;

use actix_web::{HttpResponse, web};
use edge::answer::{Answer, Ids};
use edge::auth::{Access, Caller};
use edge::commands::{Commands, Draft, Intent};
use edge::config::Secret;
use edge::facts::{Facts, IdempotencyKey};
use edge::fields::{Body, Object};
use edge::health::{Admin, Health, Report, Stopping};
use edge::json::Json;
use edge::lists::{Asked, Page};
use edge::metrics::HttpMetrics;
use edge::problem::Problem;
use edge::processors::Processors;
use edge::rotation::Rotating;
use edge::routes::Routes;
use edge::server::{self, Running, Site};
use edge::signature::{Gate, Secrets, Signed};
use edge::token::{Keys, Role};
use engine::breaker::Breaker;
use engine::desk::DeadLetters;
use engine::status::ProcessorStatus;
use engine::wait::Decided;
use events::id::{OrderId, ProductId};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use prometheus_client::registry::Registry;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use sqlx::PgPool;
use testkit::Database;

use crate::support::{FakeLog, PUBLIC_KEY, database, token};

pub(crate) const GATEWAY_SECRET: &str = "a-secret-of-the-gateway";

/// What a parcel holds.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) items: Vec<(ProductId, i64)>,
    pub(crate) note: Option<String>,
    pub(crate) express: Option<bool>,
}

impl Body for Parcel {
    fn read(body: &Object<'_>) -> Option<Self> {
        let items = body.field("items").list(1, 200, |item| {
            item.object(|item| {
                let product = item.field("product_id").parsed();
                let quantity = item.field("quantity").integer(1, 1_000_000);
                Some((product?, quantity?))
            })
        });
        let note = body.field("note").optional(|note| note.text(1, 100));
        let express = body.field("express").optional(|express| express.boolean());
        Some(Self { items: items?, note: note?, express: express? })
    }
}

impl Parcel {
    fn draft(&self) -> Draft {
        let items: Vec<_> = self.items.iter().map(|(product, quantity)| json!([product, quantity])).collect();
        let value = json!([items, self.note, self.express]).to_string().into_bytes();
        Draft { type_name: "orderlog.toy.MakeParcel", value }
    }
}

struct Notice {
    event_id: String,
}

impl Body for Notice {
    fn read(body: &Object<'_>) -> Option<Self> {
        let event_id = body.field("event_id").text(8, 255);
        Some(Self { event_id: event_id? })
    }
}

/// What the toy's handlers find in the application.
pub(crate) struct Toy {
    pub(crate) commands: Commands,
    pub(crate) sold_out: std::sync::Mutex<bool>,
}

fn accepted(ids: Ids) -> Answer {
    let id = OrderId(ids.subject);
    Answer::new(format!("/v1/parcels/{id}"), &json!({"parcel_id": id, "status": "ACCEPTED"}))
}

fn shown(ids: Ids, decided: Decided) -> Result<HttpResponse, Problem> {
    let id = OrderId(ids.subject).to_string();
    match decided.refused {
        None => Ok(HttpResponse::Created().json(json!({"parcel_id": id, "status": "MADE"}))),
        Some(reason) => Err(Problem::conflict(reason, "It was refused.").with("parcel_id", id)),
    }
}

async fn make(
    caller: Caller,
    facts: Facts,
    toy: web::Data<Toy>,
    parcel: Json<Parcel>,
) -> Result<HttpResponse, Problem> {
    let intent =
        Intent { facts: &facts, caller: &caller.subject, body: parcel.canonical()?, subject: None, answer: accepted };
    let accepted = toy.commands.submit(intent, async |_, _| {
        if *toy.sold_out.lock().unwrap() {
            return Err(Problem::unprocessable("SOLD_OUT", "There is none left."));
        }
        Ok(parcel.value.draft())
    });
    let accepted = accepted.await?;
    toy.commands.reply(accepted, &facts, async |ids, decided| shown(ids, decided)).await
}

async fn change(
    caller: Caller,
    facts: Facts,
    toy: web::Data<Toy>,
    id: web::Path<OrderId>,
    parcel: Json<Parcel>,
) -> Result<HttpResponse, Problem> {
    let intent = Intent {
        facts: &facts,
        caller: &caller.subject,
        body: parcel.canonical()?,
        subject: Some(id.0),
        answer: accepted,
    };
    Ok(toy.commands.submit_unkeyed(intent, async |_, _| Ok(parcel.value.draft())).await?.response())
}

async fn look(caller: Caller, id: web::Path<OrderId>) -> Result<HttpResponse, Problem> {
    if !caller.may_see("anna") {
        return Err(Problem::not_found());
    }
    Ok(HttpResponse::Ok().insert_header(edge::facts::etag(2)).json(json!({"parcel_id": *id})))
}

async fn list(_: Caller, page: Asked<Page<OrderId>>) -> HttpResponse {
    HttpResponse::Ok().json(json!({"items": [], "next_cursor": null, "limit": page.0.limit}))
}

async fn told(facts: Facts, toy: web::Data<Toy>, notice: Signed<Notice>) -> Result<HttpResponse, Problem> {
    let Signed(notice) = notice;
    let facts = facts.with_key(IdempotencyKey::parse(&notice.value.event_id)?);
    let intent =
        Intent { facts: &facts, caller: "gateway", body: notice.canonical()?, subject: Some(7), answer: accepted };
    let value = notice.value.event_id.clone().into_bytes();
    toy.commands.submit(intent, async |_, _| Ok(Draft { type_name: "orderlog.toy.Told", value })).await?;
    Ok(HttpResponse::Ok().finish())
}

async fn burst() -> HttpResponse {
    panic!("a handler that panics at secret/path.rs")
}

async fn broken() -> Result<HttpResponse, Problem> {
    Err(sqlx::Error::Protocol("the relation engine.secret".into()).into())
}

pub(crate) fn routes(toy: Arc<Toy>, gate: Arc<Gate>) -> Routes {
    Routes::new()
        .data(toy)
        .data(gate)
        .post("/v1/parcels", Access::Customer, make)
        .get("/v1/parcels", Access::AnyRole, list)
        .get("/v1/parcels/{id}", Access::AnyRole, look)
        .put("/v1/parcels/{id}", Access::Operator, change)
        .post("/v1/told", Access::Open, told)
        .get("/v1/burst", Access::Operator, burst)
        .get("/v1/broken", Access::Operator, broken)
}

struct Healthy(bool);

impl Health for Healthy {
    fn report(&self) -> BoxFuture<'_, Report> {
        let reasons = if self.0 { Vec::new() } else { vec!["orderctl rebuild toy-svc".to_owned()] };
        let report =
            Report { ready: self.0, reasons, processors: vec![json!({"partition": 0})], dependencies: Vec::new() };
        async move { report }.boxed()
    }
}

impl Processors for Healthy {
    fn processors(&self) -> Option<Vec<ProcessorStatus>> {
        None
    }

    fn dead_letters(&self) -> Option<Arc<dyn DeadLetters>> {
        None
    }

    fn resume(&self, _partition: i32) {}
}

/// A running toy service and a client of it.
pub(crate) struct Service {
    pub(crate) toy: Arc<Toy>,
    pub(crate) log: Arc<FakeLog>,
    pub(crate) pool: PgPool,
    pub(crate) base: String,
    pub(crate) admin: String,
    pub(crate) stopping: Stopping,
    /// What all public routes need.
    pub(crate) needed: Breaker,
    pub(crate) client: reqwest::Client,
    running: Vec<Running>,
    /// Of the first process on it.
    _database: Option<Database>,
}

#[derive(utoipa::OpenApi)]
#[openapi(info(title = "toy"))]
struct Api;

impl Service {
    pub(crate) async fn start() -> Self {
        let (database, pool) = database().await.into_parts();
        Self { _database: Some(database), ..Self::with(pool, 1_000, 512, true).await }
    }

    /// Another process of the same service on the same database.
    pub(crate) async fn with(pool: PgPool, first_id: i64, in_flight_max: usize, healthy: bool) -> Self {
        let log = Arc::new(FakeLog::new(first_id));
        let mut registry = Registry::default();
        let metrics = HttpMetrics::register(&mut registry);
        let commands = Commands::start(pool.clone(), log.clone(), "toy-svc", "toy.commands", metrics.clone());
        let toy = Arc::new(Toy { commands, sold_out: std::sync::Mutex::new(false) });
        let keys = Arc::new(Rotating::new(&Secret::new(PUBLIC_KEY), str::parse::<Keys>).unwrap());
        let secrets = Rotating::new(&Secret::new(GATEWAY_SECRET), str::parse::<Secrets>).unwrap();
        let gate = Arc::new(Gate { secrets: Arc::new(secrets), metrics: metrics.clone() });
        let bind = || server::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let site = Site::new(bind(), keys.clone(), metrics.clone()).in_flight_max(in_flight_max);
        let api = <Api as utoipa::OpenApi>::openapi();
        let shared = toy.clone();
        let needed = Breaker::new("postgres", "Postgres", true);
        let site = site.needs(needed.clone());
        let public = site.documented(api).start(move || routes(shared.clone(), gate.clone())).unwrap();
        let stopping = Stopping::default();
        let healthy = Arc::new(Healthy(healthy));
        let admin = Admin {
            health: healthy.clone(),
            processors: healthy,
            registry: Arc::new(registry),
            stopping: stopping.clone(),
        };
        let admin = Site::new(bind(), keys, metrics).start(move || admin.routes()).unwrap();
        Self {
            toy,
            log,
            pool,
            base: format!("http://{}", public.address()),
            admin: format!("http://{}", admin.address()),
            stopping,
            needed,
            client: reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap(),
            running: vec![public, admin],
            _database: None,
        }
    }

    pub(crate) async fn stop(self) {
        for site in self.running {
            site.stop().await;
        }
        self.toy.commands.finish().await;
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    pub(crate) fn as_role(&self, method: Method, path: &str, subject: &str, role: Role) -> RequestBuilder {
        self.request(method, path).bearer_auth(token(subject, role))
    }

    /// A POST of a parcel as the customer anna.
    pub(crate) fn make(&self, key: &str, body: &Value) -> RequestBuilder {
        self.as_role(Method::POST, "/v1/parcels", "anna", Role::Customer).header("Idempotency-Key", key).json(body)
    }

    /// The same with bytes that may be no JSON.
    pub(crate) fn make_raw(&self, key: &str, body: impl Into<reqwest::Body>) -> RequestBuilder {
        let request = self.as_role(Method::POST, "/v1/parcels", "anna", Role::Customer);
        request.header("Idempotency-Key", key).header("Content-Type", "application/json").body(body)
    }
}

pub(crate) fn parcel(quantity: i64) -> Value {
    json!({"items": [{"product_id": "1082185", "quantity": quantity}]})
}

/// Checks that a response is a problem document of this status and code, and returns it.
pub(crate) async fn problem(response: Response, status: u16, code: &str) -> Value {
    let (got, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.unwrap();
    assert_eq!(got, status, "{text}");
    assert_eq!(headers["content-type"], "application/problem+json", "{text}");
    assert!(headers.contains_key("x-request-id"), "{text}");
    for inside in ["sqlx", "panicked", "rdkafka", ".rs", "engine.", "toy.commands", "postgres"] {
        assert!(!text.contains(inside), "{inside} is in {text}");
    }
    let problem: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(problem["status"], status, "{problem}");
    assert_eq!(problem["code"], code, "{problem}");
    let kind = format!("/problems/{}", code.to_lowercase().replace('_', "-"));
    assert_eq!(problem["type"], kind.as_str());
    problem
}
