//! `POST /v1/orders/{id}/cancel`.

use serde_json::json;

use crate::batch::captured;
use crate::shop::{Shop, answer};

#[tokio::test]
async fn a_placed_order_is_cancelled_once() {
    let shop = Shop::open().await;
    let path = format!("/v1/orders/{}", shop.placed("anna").await);
    let done = shop.post("anna", &format!("{path}/cancel"), &json!({"reason": "FOUND_CHEAPER"})).await;
    assert_eq!((done.status, done.header("ETag")), (200, Some("\"2\"")));
    assert_eq!((&done.body["status"], &done.body["reason"]), (&json!("CANCELLED"), &json!("CUSTOMER")));
    assert_eq!((&done.body["customer_reason"], &done.body["version"]), (&json!("FOUND_CHEAPER"), &json!(2)));
    assert!(done.body["pay_by"].is_string(), "it had to be paid by then");
    let again = shop.post("anna", &format!("{path}/cancel"), &json!({})).await;
    assert_eq!((again.status, &again.body["code"]), (409, &json!("ORDER_NOT_PLACED")));
    assert_eq!(again.body["order_status"], "CANCELLED");
    assert_eq!(path, format!("/v1/orders/{}", again.body["order_id"].as_str().unwrap()));
    shop.close().await;
}

#[tokio::test]
async fn a_confirmed_order_is_not_cancelled_also_by_who_does_not_wait() {
    let shop = Shop::open().await;
    let id = shop.placed("anna").await;
    shop.fold(&[captured(id.parse().unwrap(), false).unwrap()]).await;
    let request = shop.keyed("anna", &format!("/v1/orders/{id}/cancel"), &json!({}), "12345678");
    let refused = answer(request).await;
    assert_eq!((refused.status, &refused.body["order_status"]), (409, &json!("CONFIRMED")));
    shop.close().await;
}

#[tokio::test]
async fn a_cancel_that_was_accepted_is_replayed_after_the_order_is_final() {
    let shop = Shop::open().await;
    let path = format!("/v1/orders/{}/cancel", shop.placed("anna").await);
    let first = answer(shop.keyed("anna", &path, &json!({}), "12345678")).await;
    let again = answer(shop.keyed("anna", &path, &json!({}), "12345678")).await;
    assert_eq!((first.status, again.status, &first.text), (202, 202, &again.text));
    assert_eq!(again.header("Idempotency-Replayed"), Some("true"));
    shop.close().await;
}

#[tokio::test]
async fn the_version_must_be_the_current_one() {
    let shop = Shop::open().await;
    let path = format!("/v1/orders/{}/cancel", shop.placed("anna").await);
    let body = json!({});
    let with = |version: &'static str, key: &'static str| {
        shop.keyed("anna", &path, &body, key).header("If-Match", version).header("Prefer", "wait=5")
    };
    let malformed = answer(with("1", "key-number-1")).await;
    assert_eq!((malformed.status, &malformed.body["code"]), (400, &json!("IF_MATCH_MALFORMED")));
    for (version, key) in [("\"0\"", "key-number-2"), ("\"2\"", "key-number-3")] {
        let refused = answer(with(version, key)).await;
        assert_eq!((refused.status, &refused.body["code"]), (412, &json!("VERSION_MISMATCH")), "{version}");
        assert_eq!(refused.body["order_status"], "PLACED");
    }
    assert_eq!(answer(with("\"1\"", "key-number-4")).await.status, 200);
    // Final, and another version: the version is what the caller must learn first.
    assert_eq!(answer(with("\"1\"", "key-number-5")).await.status, 412);
    assert_eq!(answer(with("\"2\"", "key-number-6")).await.status, 409);
    shop.close().await;
}

#[tokio::test]
async fn only_ones_own_order_is_cancelled_except_by_operators() {
    let shop = Shop::open().await;
    let path = format!("/v1/orders/{}/cancel", shop.placed("anna").await);
    assert_eq!(shop.post("", &path, &json!({})).await.status, 401);
    assert_eq!(shop.post("bert", &path, &json!({})).await.status, 404);
    assert_eq!(shop.post("anna", "/v1/orders/5/cancel", &json!({})).await.status, 404);
    assert_eq!(shop.post("anna", "/v1/orders/x/cancel", &json!({})).await.status, 404);
    let wrong = shop.post("anna", &path, &json!({"reason": "BORED", "why": 1})).await;
    let codes = "/reason must be one of CHANGED_MIND, ORDERED_BY_MISTAKE, FOUND_CHEAPER, OTHER";
    assert_eq!(wrong.errors(), [codes, "/why is not a known field"]);
    assert_eq!(shop.post("operator", &path, &json!({})).await.status, 200);
    shop.close().await;
}
