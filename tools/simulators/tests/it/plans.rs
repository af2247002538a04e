//! Trouble scripted at run time on the gateway.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::gateway_stand::{GatewayStand, charge_body};
use crate::merchant::Merchant;

#[actix_web::test]
async fn a_plan_is_shown_counted_down_and_reset() {
    let (gateway, _dir) = GatewayStand::fresh().await;
    gateway.api.plan(json!({"mode": "silent", "count": 2})).await;
    gateway.api.charge("charge:1", "pm_ok", "http://127.0.0.1:1/").await;
    gateway.api.charge("charge:1", "pm_ok", "http://127.0.0.1:1/").await;
    let (_, plan) = gateway.api.get("/admin/plan").await;
    assert_eq!(plan, json!({"mode": "silent", "delay_ms": null, "count": 1, "keys": null}));
    let deleted = gateway.api.client.delete(format!("{}/admin/plan", gateway.api.url)).send().await.unwrap();
    assert_eq!(deleted.status(), 204);
    assert_eq!(gateway.api.get("/admin/plan").await.1["mode"], "normal");
    assert_eq!(gateway.api.post("/admin/plan", &json!({"mode": "moody"})).await.0, 422);
    assert_eq!(gateway.api.post("/admin/plan", &json!({"mode": "down", "count": 0})).await.0, 422);
}

#[actix_web::test]
async fn silent_captures_without_a_callback_for_its_keys_only() {
    let (gateway, _dir) = GatewayStand::fresh().await;
    let merchant = Merchant::open();
    gateway.api.plan(json!({"mode": "silent", "keys": ["charge:1"]})).await;
    gateway.api.charge("charge:1", "pm_ok", &merchant.url()).await;
    gateway.api.charge("charge:2", "pm_ok", &merchant.url()).await;
    merchant.wait_for("charge:2", 1).await;
    assert_eq!(gateway.api.status("charge:1").await, "captured");
    assert!(merchant.about("charge:1").is_empty());
}

#[actix_web::test]
async fn slow_delays_outcomes_of_charges_and_refunds() {
    let (gateway, _dir) = GatewayStand::fresh().await;
    let merchant = Merchant::open();
    gateway.api.plan(json!({"mode": "slow", "delay_ms": 400})).await;
    let started = Instant::now();
    gateway.api.charge("charge:1", "pm_ok", &merchant.url()).await;
    assert_eq!(gateway.api.status("charge:1").await, "requested");
    assert!(merchant.wait_for("charge:1", 1).await[0].at - started >= Duration::from_millis(400));
    let started = Instant::now();
    gateway.api.refund("refund:1", "charge:1", 1000).await;
    assert_eq!(gateway.api.get("/v1/refunds/refund:1").await.1["status"], "pending");
    assert!(merchant.wait_for("refund:1", 1).await[0].at - started >= Duration::from_millis(400));
}

#[actix_web::test]
async fn double_tells_the_same_under_two_event_ids() {
    let (gateway, _dir) = GatewayStand::fresh().await;
    let merchant = Merchant::open();
    gateway.api.plan(json!({"mode": "double"})).await;
    gateway.api.charge("charge:1", "pm_ok", &merchant.url()).await;
    let told = merchant.wait_for("charge:1", 2).await;
    assert_eq!(told[0].kind(), told[1].kind());
    assert_ne!(told[0].event_id(), told[1].event_id());
}

#[actix_web::test]
async fn before_answer_holds_the_answer_back() {
    let (gateway, _dir) = GatewayStand::fresh().await;
    let merchant = Merchant::open();
    gateway.api.plan(json!({"mode": "before_answer"})).await;
    gateway.api.charge("charge:1", "pm_declined", &merchant.url()).await;
    assert_eq!(merchant.about("charge:1").len(), 1);
    gateway.api.charge("charge:2", "pm_ok", &merchant.url()).await;
    gateway.api.refund("refund:2", "charge:2", 1).await;
    assert_eq!(merchant.about("refund:2").len(), 1);
}

#[actix_web::test]
async fn out_of_order_sends_the_newest_first() {
    let (gateway, _dir) = GatewayStand::fresh().await;
    let merchant = Merchant::open();
    gateway.api.plan(json!({"mode": "out_of_order", "delay_ms": 500})).await;
    gateway.api.charge("charge:1", "pm_ok", &merchant.url()).await;
    gateway.api.refund("refund:1", "charge:1", 1000).await;
    gateway.api.charge("charge:2", "pm_ok", &merchant.url()).await;
    merchant.wait_for("charge:1", 1).await;
    let keys: Vec<_> = merchant.received().iter().map(|received| received.event["key"].clone()).collect();
    assert_eq!(keys, ["charge:2", "refund:1", "charge:1"]);
}

#[actix_web::test]
async fn wrong_amount_is_scripted_too() {
    let (gateway, _dir) = GatewayStand::fresh().await;
    let merchant = Merchant::open();
    gateway.api.plan(json!({"mode": "wrong_amount", "count": 1})).await;
    gateway.api.charge("charge:1", "pm_ok", &merchant.url()).await;
    gateway.api.charge("charge:2", "pm_ok", &merchant.url()).await;
    assert_eq!(merchant.wait_for("charge:1", 1).await[0].event["amount"], 1001);
    assert_eq!(merchant.wait_for("charge:2", 1).await[0].event["amount"], 1000);
}

#[actix_web::test]
async fn down_and_error_do_nothing_and_are_recorded() {
    let (gateway, _dir) = GatewayStand::fresh().await;
    let body = charge_body("charge:1", "pm_ok", "http://127.0.0.1:1/");
    gateway.api.plan(json!({"mode": "down", "count": 1})).await;
    assert!(gateway.api.send("/v1/charges", &body).await.is_err());
    gateway.api.plan(json!({"mode": "error", "count": 1})).await;
    assert_eq!(gateway.api.post("/v1/charges", &body).await.0, 500);
    assert_eq!(gateway.api.get("/v1/charges/charge:1").await.0, 404);
    let (_, calls) = gateway.api.get("/admin/calls?key=charge:1").await;
    assert_eq!([&calls["items"][0]["plan"], &calls["items"][1]["plan"]], ["down", "error"]);
    assert_eq!(gateway.api.get("/healthz").await.0, 200);
}

#[actix_web::test]
async fn an_answer_comes_late_or_is_cut_after_the_charge_was_made() {
    let (gateway, _dir) = GatewayStand::fresh().await;
    let merchant = Merchant::open();
    gateway.api.plan(json!({"mode": "cut_answer", "count": 1})).await;
    assert!(gateway.api.send("/v1/charges", &charge_body("charge:1", "pm_ok", &merchant.url())).await.is_err());
    merchant.wait_for("charge:1", 1).await;
    assert_eq!(gateway.api.status("charge:1").await, "captured");
    gateway.api.plan(json!({"mode": "slow_answer", "delay_ms": 300, "count": 1})).await;
    let started = Instant::now();
    gateway.api.charge("charge:2", "pm_ok", &merchant.url()).await;
    assert!(started.elapsed() >= Duration::from_millis(300));
}
