//! What a restart keeps: the ledger, outcomes still to come, callbacks not yet delivered, recorded calls.

use crate::gateway_stand::GatewayStand;
use crate::merchant::Merchant;

#[actix_web::test]
async fn charges_refunds_and_calls_are_kept() {
    let (gateway, dir) = GatewayStand::fresh().await;
    let merchant = Merchant::open();
    gateway.api.charge("charge:1", "pm_ok", &merchant.url()).await;
    gateway.api.refund("refund:1", "charge:1", 300).await;
    gateway.api.cancel("charge:2").await;
    merchant.wait_for("charge:1", 1).await;
    merchant.wait_for("refund:1", 1).await;
    let lists = async |gateway: &GatewayStand| {
        let mut pages = Vec::new();
        for path in ["/v1/charges/charge:1", "/v1/charges/charge:2", "/v1/refunds/refund:1"] {
            pages.push(gateway.api.get(path).await);
        }
        pages
    };
    let before = lists(&gateway).await;
    let (_, calls) = gateway.api.get("/admin/calls").await;
    gateway.stop().await;

    let gateway = GatewayStand::start(dir.path()).await;
    assert_eq!(lists(&gateway).await, before);
    assert_eq!(gateway.api.charge("charge:1", "pm_ok", &merchant.url()).await["refunded"], 300);
    let (_, calls_after) = gateway.api.get("/admin/calls").await;
    let (old, new) = (calls["items"].as_array().unwrap(), calls_after["items"].as_array().unwrap());
    assert_eq!(new[..old.len()], old[..]);
    assert_eq!(merchant.received().len(), 2);
}

#[actix_web::test]
async fn an_outcome_due_meanwhile_is_reached_after_the_restart() {
    let (gateway, dir) = GatewayStand::fresh().await;
    let merchant = Merchant::open();
    gateway.api.charge("charge:1", "pm_slow", &merchant.url()).await;
    gateway.stop().await;
    let gateway = GatewayStand::start(dir.path()).await;
    assert_eq!(gateway.api.status("charge:1").await, "requested");
    assert_eq!(merchant.wait_for("charge:1", 1).await[0].kind(), "charge.captured");
    assert_eq!(gateway.api.status("charge:1").await, "captured");
}

#[actix_web::test]
async fn a_callback_that_nobody_took_is_delivered_after_the_restart() {
    let (gateway, dir) = GatewayStand::fresh().await;
    let merchant = Merchant::open();
    let url = merchant.url();
    let addr = merchant.close().await;
    gateway.api.charge("charge:1", "pm_late_decline", &url).await;
    gateway.stop().await;
    let merchant = Merchant::open_at(addr);
    let _gateway = GatewayStand::start(dir.path()).await;
    let told = merchant.wait_for("charge:1", 2).await;
    assert_eq!([told[0].kind(), told[1].kind()], ["charge.captured", "charge.declined"]);
}
