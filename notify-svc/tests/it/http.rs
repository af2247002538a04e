//! What clients can ask, over real HTTP: notices of orders, and contacts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use edge::config::Secret;
use edge::metrics::HttpMetrics;
use edge::rotation::Rotating;
use edge::server::{self, Running, Site};
use edge::token::{Identity, Keys, Role, sign};
use events::code::{Channel, NoticeKind, SkipReason};
use events::id::{EventId, OrderId};
use events::record::SetBy;
use events::time::Timestamp;
use notify_svc::contact::Contact;
use notify_svc::http;
use notify_svc::state::{Delivery, Fate, Letter, Notice};
use notify_svc::store;
use prometheus_client::registry::Registry;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use testkit::Migrated;

use crate::batch::HOMES;
use crate::database;

/// The example key of RFC 8410 §10.3, and its public half.
const PRIVATE_KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
const PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";

struct Stand {
    pool: Migrated,
    site: Running,
    client: Client,
}

impl Stand {
    async fn start() -> Self {
        let pool = database::migrated().await;
        let keys = Rotating::new(&Secret::new(PUBLIC_KEY), str::parse::<Keys>).unwrap();
        let metrics = HttpMetrics::register(&mut Registry::default());
        let listener = server::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let site = Site::new(listener, Arc::new(keys), metrics).documented(http::api());
        let site = site.start(http::routes_on(pool.clone())).unwrap();
        Self { pool, site, client: Client::new() }
    }

    /// Status and body of one request.
    async fn ask(&self, method: Method, path: &str, sub: &str, role: Role, body: Option<Value>) -> (u16, Value) {
        let identity = Identity { subject: sub.to_owned(), role };
        let token = sign(PRIVATE_KEY, &identity, Duration::from_secs(600)).unwrap();
        let url = format!("http://{}{path}", self.site.address());
        let mut request = self.client.request(method, url).bearer_auth(token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or(Value::Null))
    }

    async fn notices(&self, query: &str, sub: &str, role: Role) -> (u16, Value) {
        self.ask(Method::GET, &format!("/v1/notifications{query}"), sub, role, None).await
    }

    async fn contact(&self, customer: &str) -> Option<Contact> {
        let mut conn = self.pool.acquire().await.unwrap();
        store::load_contacts(&mut conn, &[customer]).await.unwrap().remove(customer)
    }

    /// Order 7 of ann: confirmed by mail, its reminder skipped.
    async fn with_notices() -> Self {
        let stand = Self::start().await;
        let notice = |fate| Notice { customer_id: "ann".to_owned(), fate, updated_at: Timestamp(1_767_225_600_000) };
        let sent = notice(Fate::Scheduled {
            letter: Letter::default(),
            due_at: Timestamp(1_767_225_600_000),
            set_by: SetBy { event_id: EventId(1), sequence: 1 },
            channels: BTreeMap::from([(Channel::Email, Delivery::Sent)]),
        });
        let skipped = notice(Fate::Skipped(SkipReason::Settled));
        let rows = BTreeMap::from([
            ((OrderId(7), NoticeKind::OrderConfirmed), &sent),
            ((OrderId(7), NoticeKind::PaymentReminder), &skipped),
        ]);
        let mut conn = stand.pool.acquire().await.unwrap();
        store::insert_notices(&mut conn, HOMES, &rows).await.unwrap();
        stand
    }
}

#[actix_web::test]
async fn the_notices_of_an_order_are_listed() {
    let stand = Stand::with_notices().await;
    for (sub, role) in [("ann", Role::Customer), ("op", Role::Operator)] {
        let (status, page) = stand.notices("?order=7", sub, role).await;
        assert_eq!((status, &page["next_cursor"]), (200, &Value::Null), "{page}");
        let seen: Vec<_> =
            page["items"].as_array().unwrap().iter().map(|item| (&item["kind"], &item["status"])).collect();
        let expected = [(json!("ORDER_CONFIRMED"), json!("SENT")), (json!("PAYMENT_REMINDER"), json!("SKIPPED"))];
        assert_eq!(seen, expected.iter().map(|(kind, status)| (kind, status)).collect::<Vec<_>>());
        assert_eq!(page["items"][0]["channels"][0]["message_id"], "7.ORDER_CONFIRMED.EMAIL@orderlog");
    }
}

#[actix_web::test]
async fn a_list_is_read_page_by_page() {
    let stand = Stand::with_notices().await;
    let (_, first) = stand.notices("?order=7&limit=1", "ann", Role::Customer).await;
    assert_eq!(first["items"][0]["kind"], "ORDER_CONFIRMED");
    let cursor = first["next_cursor"].as_str().unwrap();
    let (_, second) = stand.notices(&format!("?order=7&limit=1&cursor={cursor}"), "ann", Role::Customer).await;
    assert_eq!((&second["items"][0]["kind"], &second["next_cursor"]), (&json!("PAYMENT_REMINDER"), &Value::Null));
}

#[actix_web::test]
async fn another_customers_order_looks_like_none() {
    let stand = Stand::with_notices().await;
    let (status, theirs) = stand.notices("?order=7", "bob", Role::Customer).await;
    let (_, none) = stand.notices("?order=8", "bob", Role::Customer).await;
    assert_eq!((status, &theirs["code"], &theirs["detail"]), (404, &none["code"], &none["detail"]));
    let (status, page) = stand.notices("?order=8", "op", Role::Operator).await;
    assert_eq!((status, page), (200, json!({"items": [], "next_cursor": null})));
}

#[actix_web::test]
async fn a_wrong_query_is_named() {
    let stand = Stand::with_notices().await;
    for (query, pointer) in [
        ("", "/order"),
        ("?order=x", "/order"),
        ("?order=7&limit=0", "/limit"),
        ("?order=7&cursor=x", "/cursor"),
        ("?order=7&x=1", "/x"),
    ] {
        let (status, problem) = stand.notices(query, "ann", Role::Customer).await;
        assert_eq!((status, &problem["errors"][0]["pointer"]), (422, &json!(pointer)), "{query}: {problem}");
    }
}

#[actix_web::test]
async fn a_contact_is_put_by_its_customer_or_an_operator() {
    let stand = Stand::start().await;
    let both = json!({"email": "ann@example.test", "phone": "+4930123456"});
    let (status, view) = stand.ask(Method::PUT, "/v1/contacts/ann", "ann", Role::Customer, Some(both)).await;
    let shown = json!({"customer_id": "ann", "email": "ann@example.test", "phone": "+4930123456"});
    assert_eq!((status, view), (200, shown));
    let phone = json!({"phone": "+4930123456"});
    let (status, view) = stand.ask(Method::PUT, "/v1/contacts/ann", "op", Role::Operator, Some(phone)).await;
    assert_eq!((status, &view["email"]), (200, &Value::Null), "what is missing is no longer there");
    let stored = Contact { email: None, phone: Some("+4930123456".to_owned()) };
    assert_eq!(stand.contact("ann").await, Some(stored));
    for _ in 0..2 {
        let (status, _) = stand.ask(Method::DELETE, "/v1/contacts/ann", "ann", Role::Customer, None).await;
        assert_eq!(status, 204);
        assert_eq!(stand.contact("ann").await, None);
    }
}

#[actix_web::test]
async fn somebody_elses_contact_is_forbidden_and_no_customer_is_none() {
    let stand = Stand::start().await;
    for (path, expected) in [("/v1/contacts/ann", 403), ("/v1/contacts/no%20sub", 404), ("/v1/contacts/", 404)] {
        for (method, body) in [(Method::PUT, Some(json!({}))), (Method::DELETE, None)] {
            let (status, problem) = stand.ask(method, path, "bob", Role::Customer, body).await;
            assert_eq!(status, expected, "{path}: {problem}");
        }
    }
    assert_eq!(stand.contact("ann").await, None);
}

#[actix_web::test]
async fn a_wrong_contact_is_refused_whole() {
    let stand = Stand::start().await;
    for (body, pointers) in [
        (json!({"email": "ann", "phone": "12"}), vec!["/email", "/phone"]),
        (json!({"email": 7}), vec!["/email"]),
        (json!({"email": "ann@example.test", "fax": "1"}), vec!["/fax"]),
        (json!([]), vec![""]),
    ] {
        let (status, problem) = stand.ask(Method::PUT, "/v1/contacts/ann", "ann", Role::Customer, Some(body)).await;
        let errors = problem["errors"].as_array().unwrap();
        let named: Vec<_> = errors.iter().map(|error| error["pointer"].as_str().unwrap()).collect();
        assert_eq!((status, named), (422, pointers), "{problem}");
    }
    assert_eq!(stand.contact("ann").await, None);
}

#[actix_web::test]
async fn every_route_is_documented_and_takes_a_token() {
    let stand = Stand::start().await;
    let (status, api) = stand.ask(Method::GET, "/openapi.json", "ann", Role::Customer, None).await;
    assert_eq!(status, 200);
    for listed in http::routes_on(stand.pool.clone())().table() {
        let (path, method) = (listed.path, listed.method.as_str().to_lowercase());
        assert!(api["paths"][path][&method].is_object(), "{method} {path}");
        let url = format!("http://{}{path}", stand.site.address());
        let bare = stand.client.request(listed.method.as_str().parse().unwrap(), url).send().await.unwrap();
        assert_eq!(bare.status().as_u16(), 401, "{method} {path}");
    }
}
