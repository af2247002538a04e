//! Who gets in: every route of the table with every kind of caller (S14, S17, S19, S44), on both sites (S45).

use edge::auth::Access;
use edge::token::Role;
use reqwest::{Method, StatusCode};

use crate::site::{Service, parcel, problem, routes};
use crate::support::token;

#[actix_web::test]
async fn every_route_of_the_table_keeps_its_rule() {
    let service = Service::start().await;
    let secrets = edge::rotation::Rotating::new(&edge::config::Secret::new(crate::site::GATEWAY_SECRET), str::parse);
    let mut registry = prometheus_client::registry::Registry::default();
    let metrics = edge::metrics::HttpMetrics::register(&mut registry);
    let gate = edge::signature::Gate { secrets: std::sync::Arc::new(secrets.unwrap()), metrics };
    let table = routes(service.toy.clone(), std::sync::Arc::new(gate)).table();
    assert_eq!(table.len(), 7);
    for route in table {
        let (method, path) =
            (Method::from_bytes(route.method.as_str().as_bytes()).unwrap(), route.path.replace("{id}", "7"));
        let none = service.request(method.clone(), &path).send().await.unwrap();
        if route.access == Access::Open {
            continue;
        }
        assert_eq!(none.headers()["www-authenticate"], "Bearer realm=\"orderlog\"");
        problem(none, 401, "UNAUTHENTICATED").await;
        for role in [Role::Customer, Role::Operator] {
            let response = service.as_role(method.clone(), &path, "anna", role).send().await.unwrap();
            let admitted = match route.access {
                Access::Customer => role == Role::Customer,
                Access::Operator => role == Role::Operator,
                Access::Open | Access::AnyRole => true,
            };
            if admitted {
                assert!(
                    !matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN),
                    "{route:?} {role}"
                );
            } else {
                problem(response, 403, "FORBIDDEN").await;
            }
        }
    }
    service.stop().await;
}

#[actix_web::test]
async fn what_is_no_token_is_401_before_anything_is_read() {
    let service = Service::start().await;
    let good = token("anna", Role::Customer);
    for bad in ["", "Bearer", "Bearer ", "Basic YW5uYTp4", &good, &format!("Bearer {good}x"), "Bearer a.b.c"] {
        let request = service.request(Method::POST, "/v1/parcels").header("Authorization", bad);
        problem(request.body("not JSON").send().await.unwrap(), 401, "UNAUTHENTICATED").await;
    }
    let twice = service.request(Method::GET, "/v1/parcels").bearer_auth(&good).bearer_auth(&good);
    problem(twice.send().await.unwrap(), 401, "UNAUTHENTICATED").await;
    let lower = service.request(Method::GET, "/v1/parcels").header("Authorization", format!("bearer {good}"));
    assert_eq!(lower.send().await.unwrap().status(), 200);
    let metrics = service.client.get(format!("{}/metrics", service.admin)).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains(r#"http_refused_total{kind="authentication"} 8"#), "{metrics}");
    assert!(metrics.contains(r#"http_requests_total{method="POST",route="/v1/parcels",status="401"} 7"#), "{metrics}");
    service.stop().await;
}

#[actix_web::test]
async fn somebody_elses_an_unknown_and_a_malformed_one_look_the_same() {
    let service = Service::start().await;
    let mut seen = Vec::new();
    for (subject, id) in [
        ("ben", "7"),
        ("ben", "8"),
        ("anna", "x"),
        ("anna", "0"),
        ("anna", "07"),
        ("anna", "-7"),
        ("anna", "9223372036854775808"),
        ("anna", "7%00"),
        ("anna", "%ff"),
    ] {
        let response =
            service.as_role(Method::GET, &format!("/v1/parcels/{id}"), subject, Role::Customer).send().await.unwrap();
        seen.push(problem(response, 404, "NOT_FOUND").await);
    }
    seen.dedup();
    assert_eq!(seen.len(), 1);
    let own = service.as_role(Method::GET, "/v1/parcels/7", "anna", Role::Customer).send().await.unwrap();
    assert_eq!((own.status().as_u16(), own.headers()["etag"].to_str().unwrap()), (200, "\"2\""));
    service.stop().await;
}

#[actix_web::test]
async fn operators_do_not_order_and_customers_do_not_operate() {
    let service = Service::start().await;
    let order =
        service.as_role(Method::POST, "/v1/parcels", "olga", Role::Operator).header("Idempotency-Key", "operators");
    problem(order.json(&parcel(1)).send().await.unwrap(), 403, "FORBIDDEN").await;
    let put = service.as_role(Method::PUT, "/v1/parcels/7", "anna", Role::Customer).json(&parcel(1));
    problem(put.send().await.unwrap(), 403, "FORBIDDEN").await;
    assert!(service.log.records().is_empty());
    service.stop().await;
}

#[actix_web::test]
async fn the_admin_routes_are_not_on_the_public_site() {
    let service = Service::start().await;
    for path in ["/healthz", "/readyz", "/metrics", "/admin/processors"] {
        problem(service.request(Method::GET, path).send().await.unwrap(), 404, "NOT_FOUND").await;
    }
    service.stop().await;
}
