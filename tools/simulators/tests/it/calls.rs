//! Calls of the gateway: idempotent by key, refused with a problem, listed, recorded.

use std::time::Duration;

use serde_json::{Value, json};

use crate::gateway_stand::{GatewayStand, charge_body};
use crate::merchant::Merchant;

#[actix_web::test]
async fn the_same_key_and_parameters_are_one_charge() {
    let (gateway, _dir) = GatewayStand::fresh().await;
    let merchant = Merchant::open();
    let url = merchant.url();
    let twins = (0..20).map(|_| gateway.api.charge("charge:1", "pm_ok", &url));
    futures_util::future::join_all(twins).await;
    merchant.wait_for("charge:1", 1).await;
    assert_eq!(gateway.api.charge("charge:1", "pm_ok", "http://127.0.0.1:1/other").await["status"], "captured");
    let (_, list) = gateway.api.get("/v1/charges").await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    assert_eq!(merchant.about("charge:1").len(), 1);
}

#[actix_web::test]
async fn a_key_with_other_parameters_is_a_conflict() {
    let (gateway, _dir) = GatewayStand::fresh().await;
    let body = charge_body("charge:1", "pm_ok", "http://127.0.0.1:1/");
    assert_eq!(gateway.api.post("/v1/charges", &body).await.0, 202);
    for (field, other) in [("amount", json!(1)), ("currency", json!("EUR")), ("payment_method", json!("pm_slow"))] {
        let mut changed = body.clone();
        changed[field] = other;
        let (status, problem) = gateway.api.post("/v1/charges", &changed).await;
        assert_eq!((status, problem["code"].as_str()), (409, Some("key_reused")), "{field}");
    }
    assert_eq!(gateway.api.refund("refund:1", "charge:1", 400).await.0, 202);
    assert_eq!(gateway.api.refund("refund:1", "charge:1", 400).await.1["status"], "succeeded");
    assert_eq!(gateway.api.refund("refund:1", "charge:1", 401).await.0, 409);
    let (status, problem) = gateway.api.refund("refund:2", "charge:1", 601).await;
    assert_eq!((status, problem["code"].as_str()), (422, Some("exceeds_captured")));
}

#[actix_web::test]
async fn a_cancelled_key_bars_the_charge_that_comes_later() {
    let (gateway, _dir) = GatewayStand::fresh().await;
    assert_eq!(gateway.api.get("/v1/charges/charge:1").await.0, 404);
    assert_eq!(gateway.api.cancel("charge:1").await["status"], "cancelled");
    let body = charge_body("charge:1", "pm_ok", "http://127.0.0.1:1/");
    let (status, problem) = gateway.api.post("/v1/charges", &body).await;
    assert_eq!((status, problem["code"].as_str()), (409, Some("charge_cancelled")));
    assert_eq!(gateway.api.status("charge:1").await, "cancelled");
}

#[actix_web::test]
async fn bad_input_is_refused_with_a_problem() {
    let (gateway, _dir) = GatewayStand::fresh().await;
    let good = charge_body("charge:1", "pm_ok", "http://127.0.0.1:1/");
    let with = |field: &str, value: Value| {
        let mut body = good.clone();
        body[field] = value;
        body
    };
    for body in [
        json!({}),
        json!([]),
        with("amount", json!(0)),
        with("amount", json!(-5)),
        with("amount", json!(1.5)),
        with("amount", json!("1000")),
        with("amount", json!(i64::MAX)),
        with("currency", json!("usd")),
        with("currency", json!("DOLLAR")),
        with("key", json!("")),
        with("key", json!("a/b")),
        with("key", json!("k".repeat(256))),
        with("payment_method", json!("")),
        with("callback_url", json!("file:///etc/passwd")),
        with("surprise", json!(1)),
    ] {
        let (status, problem) = gateway.api.post("/v1/charges", &body).await;
        assert_eq!((status, problem["status"].as_u64()), (422, Some(422)), "{body} {problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{problem}");
    }
    let raw = async |content_type: &str, body: String| {
        let post = gateway.api.client.post(format!("{}/v1/charges", gateway.api.url));
        let answer = post.header("content-type", content_type).body(body).send().await.unwrap();
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        answer.status().as_u16()
    };
    assert_eq!(raw("application/json", "{".to_owned()).await, 400);
    assert_eq!(raw("text/plain", good.to_string()).await, 415);
    assert_eq!(raw("application/json", " ".repeat(70_000)).await, 413);
    assert_eq!(gateway.api.get("/v1/nothing").await.0, 404);
    assert_eq!(gateway.api.get("/v1/charges/charge:1/cancel").await.0, 405);
    assert_eq!(gateway.api.get("/v1/charges?limit=0").await.1["code"], "validation");
    assert_eq!(gateway.api.get("/v1/charges?limit=1&limit=2").await.0, 422);
    assert_eq!(gateway.api.refund("refund:1", "charge:9", 1).await.0, 404);
    assert_eq!(gateway.api.get("/v1/refunds/refund:1").await.0, 404);
    let (_, list) = gateway.api.get("/v1/charges").await;
    assert_eq!(list["items"], json!([]));
}

#[actix_web::test]
async fn lists_are_paged_in_the_order_of_arrival() {
    let (gateway, _dir) = GatewayStand::fresh().await;
    for n in 1..=5 {
        gateway
            .api
            .post(
                "/v1/charges",
                &json!({"key": format!("charge:{n}"), "amount": n, "currency": "EUR", "payment_method": "pm_ok"}),
            )
            .await;
        gateway.api.refund(&format!("refund:{n}"), &format!("charge:{n}"), n).await;
    }
    for list in ["charge", "refund"] {
        let mut keys = Vec::new();
        let mut path = format!("/v1/{list}s?limit=2");
        loop {
            let (_, page) = gateway.api.get(&path).await;
            keys.extend(page["items"].as_array().unwrap().iter().map(|item| item["key"].as_str().unwrap().to_owned()));
            let Some(cursor) = page["next_cursor"].as_str() else {
                break;
            };
            path = format!("/v1/{list}s?limit=2&cursor={cursor}");
        }
        assert_eq!(keys, (1..=5).map(|n| format!("{list}:{n}")).collect::<Vec<_>>());
    }
}

#[actix_web::test]
async fn every_call_is_recorded_even_when_refused() {
    let (gateway, _dir) = GatewayStand::fresh().await;
    let body = charge_body("charge:1", "pm_never", "http://127.0.0.1:1/");
    for _ in 0..2 {
        gateway.api.post("/v1/charges", &body).await;
    }
    gateway.api.get("/v1/charges/charge:2").await;
    gateway.api.cancel("charge:1").await;
    gateway.api.post("/v1/charges", &json!({})).await;
    let (_, calls) = gateway.api.get("/admin/calls?key=charge:1").await;
    let seen: Vec<_> = calls["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|call| (call["method"].as_str().unwrap(), call["path"].as_str().unwrap()))
        .collect();
    let expected = [("POST", "/v1/charges"), ("POST", "/v1/charges"), ("POST", "/v1/charges/charge:1/cancel")];
    assert_eq!(seen, expected);
    let (_, all) = gateway.api.get("/admin/calls").await;
    assert_eq!(all["items"].as_array().unwrap().len(), 5);
    assert_eq!(all["items"][4]["key"], Value::Null);
}

#[actix_web::test]
async fn a_refused_callback_is_repeated_with_the_same_event() {
    let (gateway, _dir) = GatewayStand::fresh().await;
    let merchant = Merchant::open();
    merchant.refuse(2);
    gateway.api.charge("charge:1", "pm_ok", &merchant.url()).await;
    let told = merchant.wait_for("charge:1", 3).await;
    assert!(told.iter().all(|received| received.raw == told[0].raw));
    assert!(told[2].at - told[0].at >= Duration::from_millis(700));
}
