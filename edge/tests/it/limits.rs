//! What every request goes through: IDs, headers, methods, panics, overload, documents, health (S12, S13, S26, S27, S30,
//! S32).

use std::time::Duration;

use edge::token::Role;
use reqwest::Method;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::site::{Service, parcel, problem};
use crate::support::{Mood, database, eventually};

#[actix_web::test]
async fn every_response_has_a_request_id_and_safe_headers() {
    let service = Service::start().await;
    let anna = |path: &str| service.as_role(Method::GET, path, "anna", Role::Customer);
    let operator = |path: &str| service.as_role(Method::GET, path, "olga", Role::Operator);
    let requests = [
        anna("/v1/parcels"),
        anna("/v1/parcels/x"),
        anna("/nowhere"),
        operator("/v1/burst"),
        service.request(Method::GET, "/v1/parcels"),
        service.request(Method::PATCH, "/v1/parcels"),
        service.request(Method::GET, "/openapi.json"),
        service.request(Method::GET, "/docs/"),
        service.client.get(format!("{}/healthz", service.admin)),
    ];
    for request in requests {
        let theirs = request.try_clone().unwrap().header("X-Request-Id", "trace-7.a_b").send().await.unwrap();
        let headers = theirs.headers();
        assert_eq!(headers["x-request-id"], "trace-7.a_b", "{}", theirs.url());
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!(headers["cache-control"], "no-store");
        assert_eq!(headers["content-security-policy"], "frame-ancestors 'none'");
        assert!(
            headers.contains_key("strict-transport-security") && !headers.contains_key("access-control-allow-origin")
        );
        let ours = request.header("X-Request-Id", "forged\u{7f}").send().await;
        if let Ok(ours) = ours {
            assert_eq!(ours.headers()["x-request-id"].len(), 32);
        }
    }
    service.stop().await;
}

#[actix_web::test]
async fn unknown_routes_and_methods_are_problems() {
    let service = Service::start().await;
    for path in ["/", "/v1", "/v1/parcels/", "/v1/parcels/7/x", "/v1/../etc/passwd", "/docs/no-such-file", "/%00"] {
        let response = service.as_role(Method::GET, path, "anna", Role::Customer).send().await.unwrap();
        problem(response, 404, "NOT_FOUND").await;
    }
    for method in ["PATCH", "DELETE", "OPTIONS", "TRACE", "HEAD", "BREW"] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let response = service.as_role(method.clone(), "/v1/parcels", "anna", Role::Customer).send().await.unwrap();
        assert_eq!(response.headers()["allow"], "POST, GET");
        if method == Method::HEAD {
            assert_eq!(response.status(), 405);
        } else {
            problem(response, 405, "METHOD_NOT_ALLOWED").await;
        }
    }
    // GET on a route that only writes.
    problem(service.request(Method::GET, "/v1/told").send().await.unwrap(), 405, "METHOD_NOT_ALLOWED").await;
    service.stop().await;
}

#[actix_web::test]
async fn a_wrong_query_is_named() {
    let service = Service::start().await;
    let list =
        |query: &str| service.as_role(Method::GET, &format!("/v1/parcels?{query}"), "anna", Role::Customer).send();
    for (query, pointer) in
        [("limit=0", "/limit"), ("limit=201", "/limit"), ("cursor=%20", "/cursor"), ("page=1", "/page")]
    {
        let problem = problem(list(query).await.unwrap(), 422, "VALIDATION").await;
        assert_eq!(problem["errors"][0]["pointer"], pointer);
    }
    let page: Value = list("limit=200").await.unwrap().json().await.unwrap();
    assert_eq!(page["limit"], 200);
    service.stop().await;
}

#[actix_web::test]
async fn a_panic_is_a_500_without_its_words_and_the_process_lives() {
    let service = Service::start().await;
    for _ in 0..20 {
        let response = service.as_role(Method::GET, "/v1/burst", "olga", Role::Operator).send().await.unwrap();
        problem(response, 500, "INTERNAL").await;
    }
    let response = service.as_role(Method::GET, "/v1/broken", "olga", Role::Operator).send().await.unwrap();
    problem(response, 503, "UNAVAILABLE").await;
    assert_eq!(service.make("still-alive", &parcel(1)).send().await.unwrap().status(), 202);
    service.stop().await;
}

#[actix_web::test]
async fn what_is_above_the_room_is_turned_away_at_once() {
    let (_database, pool) = database().await.into_parts();
    let service = Service::with(pool, 1_000, 4, true).await;
    service.log.set(Mood::Slow);
    let running: Vec<_> =
        (0..4).map(|n| tokio::spawn(service.make(&format!("running-{n}"), &parcel(1)).send())).collect();
    let refused = eventually("no room", async || {
        let response = service.as_role(Method::GET, "/v1/parcels", "anna", Role::Customer).send().await.unwrap();
        (response.status() == 503).then_some(response)
    });
    let refused = refused.await;
    assert!(refused.headers().contains_key("retry-after"));
    problem(refused, 503, "UNAVAILABLE").await;
    service.log.set(Mood::Kind);
    for request in running {
        assert_eq!(request.await.unwrap().unwrap().status(), 202);
    }
    service.stop().await;
}

#[actix_web::test]
async fn a_database_that_is_away_is_503_and_pins_nothing() {
    let service = Service::start().await;
    service.pool.close().await;
    let response = service.make("no-database", &parcel(1)).send().await.unwrap();
    assert!(response.headers().contains_key("retry-after"));
    problem(response, 503, "UNAVAILABLE").await;
    assert!(service.log.records().is_empty());
    service.stop().await;
}

/// Sends raw bytes and returns the status line of the first answer.
pub(crate) async fn raw(service: &Service, bytes: &str) -> String {
    let address = service.base.trim_start_matches("http://");
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    socket.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(8), socket.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "the connection stayed open after {bytes:?}");
    String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
}

#[actix_web::test]
async fn ambiguous_requests_are_refused_and_closed() {
    let service = Service::start().await;
    let head = "POST /v1/parcels HTTP/1.1\r\nHost: x\r\n";
    for ambiguous in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "X-Folded: a\r\n b\r\n\r\n",
        "Transfer-Encoding: chunked, identity\r\n\r\n",
        "Content-Length: +5\r\n\r\nhello",
    ] {
        let status = raw(&service, &format!("{head}{ambiguous}")).await;
        assert!(status.starts_with("HTTP/1.1 400"), "{ambiguous:?}: {status}");
    }
    // A head that never ends is given up.
    let slow = raw(&service, head).await;
    assert!(slow.is_empty() || slow.starts_with("HTTP/1.1 408"), "{slow}");
    service.stop().await;
}

#[actix_web::test]
async fn the_document_and_its_page_are_served_from_the_binary() {
    let service = Service::start().await;
    let document: Value = service.request(Method::GET, "/openapi.json").send().await.unwrap().json().await.unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    assert!(document["components"]["schemas"]["Problem"]["properties"]["code"].is_object(), "{document}");
    assert!(document["components"]["securitySchemes"]["bearer"].is_object());
    let page = service.request(Method::GET, "/docs/").send().await.unwrap();
    assert!(page.headers()["content-type"].to_str().unwrap().starts_with("text/html"));
    assert!(page.text().await.unwrap().contains("swagger-ui"));
    let moved = service.request(Method::GET, "/docs").send().await.unwrap();
    assert_eq!((moved.status().as_u16(), moved.headers()["location"].to_str().unwrap()), (308, "/docs/"));
    service.stop().await;
}

#[actix_web::test]
async fn readiness_says_why_not() {
    let service = Service::start().await;
    let ask = |path: &str| service.client.get(format!("{}{path}", service.admin)).send();
    assert_eq!(ask("/healthz").await.unwrap().status(), 200);
    let ready = ask("/readyz").await.unwrap();
    assert_eq!(ready.status(), 200);
    assert_eq!(
        ready.json::<Value>().await.unwrap(),
        serde_json::json!({"ready": true, "reasons": [], "processors": [{"partition": 0}], "dependencies": []})
    );
    service.stopping.begin();
    let stopping = ask("/readyz").await.unwrap();
    assert_eq!(stopping.status(), 503);
    assert_eq!(stopping.json::<Value>().await.unwrap()["reasons"][0], "the process is stopping");
    let ill = Service::with(service.pool.clone(), 1_000, 512, false).await;
    let response = ill.client.get(format!("{}/readyz", ill.admin)).send().await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(response.json::<Value>().await.unwrap()["reasons"][0], "orderctl rebuild toy-svc");
    ill.stop().await;
    service.stop().await;
}

#[actix_web::test]
async fn while_the_database_is_away_requests_are_turned_away_at_once_and_the_rest_is_served() {
    let service = Service::start().await;
    service.needed.watch(|| std::future::ready(Err("connection refused".to_owned())));
    service.needed.failed("a query got no answer");
    service.needed.away_for(Duration::ZERO).await;
    let began = std::time::Instant::now();
    for request in [
        service.as_role(Method::GET, "/v1/parcels", "anna", Role::Customer),
        service.as_role(Method::GET, "/v1/parcels/7", "anna", Role::Customer),
        service.make("key-0001", &parcel(1)),
        service.request(Method::POST, "/v1/told").body("{}"),
    ] {
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["retry-after"], "2");
        problem(response, 503, "UNAVAILABLE").await;
    }
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(service.log.records().len(), 0);
    // Who may not ask is told so all the same, and what needs no database is served.
    problem(service.request(Method::GET, "/v1/parcels").send().await.unwrap(), 401, "UNAUTHENTICATED").await;
    assert_eq!(service.request(Method::GET, "/openapi.json").send().await.unwrap().status(), 200);
    let healthz = format!("{}/healthz", service.admin);
    assert_eq!(service.client.get(healthz).send().await.unwrap().status(), 200);
    let metrics = service.client.get(format!("{}/metrics", service.admin)).send().await.unwrap().text().await.unwrap();
    let counted = r#"http_requests_total{method="POST",route="/v1/told",status="503"} 1"#;
    assert!(metrics.contains(counted), "{metrics}");
    service.stop().await;
}
