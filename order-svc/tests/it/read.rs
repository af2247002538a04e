//! The routes that only read, and the document of all of them.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::shop::{Shop, answer};

fn ids(body: &Value, name: &str) -> Vec<String> {
    body["items"].as_array().unwrap().iter().map(|item| item[name].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn an_order_is_seen_by_its_customer_and_by_operators() {
    let shop = Shop::open().await;
    let path = format!("/v1/orders/{}", shop.placed("anna").await);
    for (who, status) in [("anna", 200), ("operator", 200), ("bert", 404), ("", 401)] {
        assert_eq!(shop.get(who, &path).await.status, status, "{who}");
    }
    for id in ["1", "0", "-1", "x", "99999999999999999999"] {
        let seen = shop.get("anna", &format!("/v1/orders/{id}")).await;
        assert_eq!((seen.status, &seen.body["code"]), (404, &json!("NOT_FOUND")), "{id}");
    }
    shop.close().await;
}

#[tokio::test]
async fn a_list_is_read_page_by_page() {
    let shop = Shop::open().await;
    let mut placed = Vec::new();
    for who in ["anna", "bert", "anna", "anna"] {
        placed.push(shop.placed(who).await);
    }
    let cancel = format!("/v1/orders/{}/cancel", placed[2]);
    assert_eq!(shop.post("anna", &cancel, &json!({})).await.status, 200);

    let first = shop.get("anna", "/v1/orders?limit=2").await.body;
    assert_eq!(ids(&first, "order_id"), [placed[3].as_str(), &placed[2]]);
    let next = first["next_cursor"].as_str().unwrap();
    let second = shop.get("anna", &format!("/v1/orders?limit=2&cursor={next}")).await.body;
    assert_eq!((ids(&second, "order_id"), &second["next_cursor"]), (vec![placed[0].clone()], &json!(null)));
    assert_eq!(ids(&shop.get("operator", "/v1/orders").await.body, "order_id").len(), 4);
    let cancelled = shop.get("operator", "/v1/orders?status=CANCELLED").await.body;
    assert_eq!(ids(&cancelled, "order_id"), [placed[2].as_str()]);
    assert_eq!(cancelled["items"][0], shop.get("anna", &format!("/v1/orders/{}", placed[2])).await.body);
    assert_eq!(shop.get("bert", "/v1/orders?status=CONFIRMED").await.body, json!({"items": [], "next_cursor": null}));

    for query in ["limit=0", "limit=201", "cursor=x", "status=ACCEPTED", "status=placed", "page=2"] {
        let wrong = shop.get("anna", &format!("/v1/orders?{query}")).await;
        assert_eq!((wrong.status, wrong.errors().len()), (422, 1), "{query}");
    }
    shop.close().await;
}

#[tokio::test]
async fn the_catalogue_is_read_by_any_role() {
    let shop = Shop::open().await;
    let product = |id: &str, amount: i64| json!({"product_id": id, "name": "PEAR", "price": {"amount": amount, "currency": "USD"}});
    for who in ["anna", "operator"] {
        let page = shop.get(who, "/v1/products?limit=1").await.body;
        assert_eq!(page["items"], json!([product("7", 99)]));
        let next = format!("/v1/products?limit=1&cursor={}", page["next_cursor"].as_str().unwrap());
        assert_eq!(shop.get(who, &next).await.body, json!({"items": [product("8", 5)], "next_cursor": null}));
    }
    assert_eq!(shop.get("", "/v1/products").await.status, 401);
    assert_eq!(
        shop.get("anna", "/v1/products?cursor=LTE").await.errors(),
        ["/cursor must be a next_cursor of this list"]
    );
    shop.close().await;
}

#[tokio::test]
async fn events_need_the_log() {
    let shop = Shop::open().await;
    let path = format!("/v1/orders/{}/events", shop.placed("anna").await);
    let seen = shop.get("anna", &path).await;
    assert_eq!((seen.status, seen.header("Retry-After")), (503, Some("2")), "no Kafka answers here");
    assert_eq!(shop.get("bert", &path).await.status, 404);
    shop.close().await;
}

#[tokio::test]
async fn every_route_is_in_the_document_and_no_other() {
    let shop = Shop::open().await;
    let api = shop.get("", "/openapi.json").await.body;
    let mut documented = BTreeSet::new();
    for (path, methods) in api["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            documented.insert(format!("{} {path}", method.to_uppercase()));
            assert!(operation["summary"].is_string(), "{method} {path} says what it does");
            let statuses = operation["responses"].as_object().unwrap();
            assert!(statuses.contains_key("401") && statuses.contains_key("503"), "{method} {path}: {statuses:?}");
        }
    }
    let routes = [
        "GET /v1/orders",
        "GET /v1/orders/{id}",
        "GET /v1/orders/{id}/events",
        "GET /v1/products",
        "POST /v1/orders",
        "POST /v1/orders/{id}/cancel",
    ];
    assert_eq!(documented, routes.map(str::to_owned).into());
    let unknown = shop.get("anna", "/v1/nothing").await;
    assert_eq!((unknown.status, unknown.header("Content-Type")), (404, Some("application/problem+json")));
    let method = answer(shop.request("anna", Method::DELETE, "/v1/orders")).await;
    assert_eq!((method.status, &method.body["code"]), (405, &json!("METHOD_NOT_ALLOWED")));
    shop.close().await;
}
