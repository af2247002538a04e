//! The script of each `pm_…` token, end to end: call, callback, what the gateway answers when asked.

use std::time::{Duration, Instant};

use crate::gateway_stand::GatewayStand;
use crate::merchant::Merchant;

const KEY: &str = "charge:1";

#[actix_web::test]
async fn ok_is_answered_at_once_and_captured_by_callback() {
    let (gateway, _dir) = GatewayStand::fresh().await;
    let merchant = Merchant::open();
    let charge = gateway.api.charge(KEY, "pm_ok", &merchant.url()).await;
    assert_eq!(charge["status"], "requested");
    let told = merchant.wait_for(KEY, 1).await;
    let event = &told[0].event;
    assert_eq!(event["type"], "charge.captured");
    assert_eq!((event["amount"].as_i64(), event["currency"].as_str()), (Some(1000), Some("USD")));
    assert!(event["occurred_at"].as_str().unwrap().ends_with('Z'));
    let (_, charge) = gateway.api.get("/v1/charges/charge:1").await;
    let expected =
        serde_json::json!({"key": KEY, "status": "captured", "amount": 1000, "currency": "USD", "refunded": 0});
    assert_eq!(charge, expected);
}

#[actix_web::test]
async fn declined_and_failed_tell_so() {
    let (gateway, _dir) = GatewayStand::fresh().await;
    let merchant = Merchant::open();
    for (token, kind) in
        [("pm_declined", "charge.declined"), ("pm_failed", "charge.failed"), ("pm_unheard_of", "charge.failed")]
    {
        gateway.api.charge(token, token, &merchant.url()).await;
        assert_eq!(merchant.wait_for(token, 1).await[0].kind(), kind);
        assert_eq!(format!("charge.{}", gateway.api.status(token).await), kind);
    }
}

#[actix_web::test]
async fn slow_is_captured_after_three_seconds() {
    let (gateway, _dir) = GatewayStand::fresh().await;
    let merchant = Merchant::open();
    let started = Instant::now();
    gateway.api.charge(KEY, "pm_slow", &merchant.url()).await;
    assert_eq!(gateway.api.status(KEY).await, "requested");
    let told = merchant.wait_for(KEY, 1).await;
    let took = told[0].at - started;
    assert!((3_000..4_500).contains(&took.as_millis()), "{took:?}");
    assert_eq!(gateway.api.status(KEY).await, "captured");
}

#[actix_web::test]
async fn never_stays_pending_until_cancelled_and_tells_nothing() {
    let (gateway, _dir) = GatewayStand::fresh().await;
    let merchant = Merchant::open();
    let charge = gateway.api.charge(KEY, "pm_never", &merchant.url()).await;
    assert_eq!(charge["status"], "pending");
    assert_eq!(gateway.api.status(KEY).await, "pending");
    assert_eq!(gateway.api.cancel(KEY).await["status"], "cancelled");
    assert_eq!(gateway.api.cancel(KEY).await["status"], "cancelled");
    nothing_more_than(&gateway, &merchant, 0).await;
}

#[actix_web::test]
async fn twice_delivers_one_event_two_times() {
    let (gateway, _dir) = GatewayStand::fresh().await;
    let merchant = Merchant::open();
    gateway.api.charge(KEY, "pm_twice", &merchant.url()).await;
    let told = merchant.wait_for(KEY, 2).await;
    assert_eq!(told[0].raw, told[1].raw);
    nothing_more_than(&gateway, &merchant, 2).await;
}

#[actix_web::test]
async fn early_tells_before_it_answers() {
    let (gateway, _dir) = GatewayStand::fresh().await;
    let merchant = Merchant::open();
    gateway.api.charge(KEY, "pm_early", &merchant.url()).await;
    assert_eq!(merchant.about(KEY).len(), 1);
}

#[actix_web::test]
async fn early_is_answered_although_nobody_hears_the_callback() {
    let (gateway, _dir) = GatewayStand::fresh().await;
    let merchant = Merchant::open();
    let url = merchant.url();
    merchant.close().await;
    let charge = gateway.api.charge(KEY, "pm_early", &url).await;
    assert_eq!(charge["status"], "requested");
}

#[actix_web::test]
async fn late_is_silent_and_found_captured_when_cancelled_and_can_be_refunded() {
    let (gateway, _dir) = GatewayStand::fresh().await;
    let merchant = Merchant::open();
    gateway.api.charge(KEY, "pm_late", &merchant.url()).await;
    assert_eq!(gateway.api.status(KEY).await, "pending");
    assert_eq!(gateway.api.cancel(KEY).await["status"], "captured");
    let (status, refund) = gateway.api.refund("refund:1", KEY, 1000).await;
    assert_eq!((status, refund["status"].as_str()), (202, Some("pending")));
    assert_eq!(merchant.wait_for("refund:1", 1).await[0].kind(), "refund.succeeded");
    assert!(merchant.about(KEY).is_empty());
    let (_, charge) = gateway.api.get("/v1/charges/charge:1").await;
    assert_eq!(charge["refunded"], 1000);
    let (_, refund) = gateway.api.get("/v1/refunds/refund:1").await;
    assert_eq!((refund["status"].as_str(), refund["refunded"].as_i64()), (Some("succeeded"), Some(1000)));
}

#[actix_web::test]
async fn late_decline_contradicts_the_capture_with_another_event() {
    let (gateway, _dir) = GatewayStand::fresh().await;
    let merchant = Merchant::open();
    gateway.api.charge(KEY, "pm_late_decline", &merchant.url()).await;
    let told = merchant.wait_for(KEY, 2).await;
    assert_eq!([told[0].kind(), told[1].kind()], ["charge.captured", "charge.declined"]);
    assert_ne!(told[0].event_id(), told[1].event_id());
    assert!(told[1].at - told[0].at >= Duration::from_millis(250));
    assert_eq!(gateway.api.status(KEY).await, "captured");
}

#[actix_web::test]
async fn wrong_amount_takes_one_unit_too_much() {
    let (gateway, _dir) = GatewayStand::fresh().await;
    let merchant = Merchant::open();
    gateway.api.charge(KEY, "pm_wrong_amount", &merchant.url()).await;
    assert_eq!(merchant.wait_for(KEY, 1).await[0].event["amount"], 1001);
    let (_, charge) = gateway.api.get("/v1/charges/charge:1").await;
    assert_eq!(charge["amount"], 1001);
    assert_eq!(gateway.api.refund("refund:1", KEY, 1001).await.0, 202);
}

#[actix_web::test]
async fn checkout_waits_for_a_button_on_the_page() {
    let (gateway, _dir) = GatewayStand::fresh().await;
    let merchant = Merchant::open();
    for (key, button, kind) in [("charge:1", "pay", "charge.captured"), ("charge:2", "decline", "charge.declined")] {
        let charge = gateway.api.charge(key, "pm_checkout", &merchant.url()).await;
        assert_eq!(charge["status"], "pending");
        let page = page(&gateway, key).await;
        assert_eq!(page.matches("<form method=\"post\"").count(), 2, "{page}");
        let action = format!("/checkout/{key}/{button}");
        assert!(page.contains(&format!("action=\"{action}\"")), "{page}");
        for _ in 0..2 {
            let pressed = gateway.api.client.post(format!("{}{action}", gateway.api.url)).send().await.unwrap();
            assert_eq!(pressed.status(), 303);
            assert_eq!(pressed.headers()["location"], format!("/checkout/{key}").as_str());
        }
        assert_eq!(merchant.wait_for(key, 1).await[0].kind(), kind);
        assert!(!self::page(&gateway, key).await.contains("<form"));
    }
    nothing_more_than(&gateway, &merchant, 2).await;
}

#[actix_web::test]
async fn the_page_is_closed_for_what_cannot_be_paid_there() {
    let (gateway, _dir) = GatewayStand::fresh().await;
    let merchant = Merchant::open();
    gateway.api.charge("charge:1", "pm_never", &merchant.url()).await;
    gateway.api.charge("charge:2", "pm_checkout", &merchant.url()).await;
    gateway.api.cancel("charge:2").await;
    let press = async |key: &str| {
        let url = format!("{}/checkout/{key}/pay", gateway.api.url);
        gateway.api.client.post(url).send().await.unwrap().status().as_u16()
    };
    assert_eq!(press("charge:1").await, 409);
    assert_eq!(press("charge:2").await, 409);
    assert_eq!(press("charge:3").await, 404);
    assert_eq!(gateway.api.status("charge:2").await, "cancelled");
}

async fn page(gateway: &GatewayStand, key: &str) -> String {
    let response = gateway.api.client.get(format!("{}/checkout/{key}", gateway.api.url)).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/html"));
    response.text().await.unwrap()
}

/// A later charge has been told, so callbacks that were to come before it have come.
async fn nothing_more_than(gateway: &GatewayStand, merchant: &Merchant, count: usize) {
    gateway.api.charge("charge:last", "pm_twice", &merchant.url()).await;
    merchant.wait_for("charge:last", 2).await;
    let others = merchant.received().iter().filter(|received| received.event["key"] != "charge:last").count();
    assert_eq!(others, count);
}
