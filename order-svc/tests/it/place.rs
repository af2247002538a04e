//! `POST /v1/orders`.

use reqwest::Method;
use serde_json::json;

use crate::batch::listed;
use crate::shop::{Shop, answer, pears};

#[tokio::test]
async fn who_waits_gets_the_order() {
    let shop = Shop::open().await;
    let body = json!({"lines": [{"product_id": "7", "quantity": 2}, {"product_id": "8", "quantity": 1}],
                      "payment_method": "pm_ok", "expected_total": {"amount": 203, "currency": "USD"}});
    let placed = shop.post("anna", "/v1/orders", &body).await;
    let id = placed.body["order_id"].as_str().unwrap();
    assert_eq!((placed.status, placed.header("ETag")), (201, Some("\"1\"")));
    assert_eq!(placed.header("Location"), Some(format!("/v1/orders/{id}").as_str()));
    let usd = |amount: i64| json!({"amount": amount, "currency": "USD"});
    let expected = json!({
        "order_id": id, "customer_id": "anna", "status": "PLACED", "reason": null, "customer_reason": null, "version": 1,
        "lines": [{"product_id": "7", "quantity": 2, "unit_price": usd(99)},
                  {"product_id": "8", "quantity": 1, "unit_price": usd(5)}],
        "total": usd(203), "placed_at": "2026-01-01T00:00:00.000Z", "updated_at": "2026-01-01T00:00:00.000Z",
        "pay_by": "2026-01-01T00:15:00.000Z",
    });
    assert_eq!(placed.body, expected);
    assert_eq!(shop.get("anna", &format!("/v1/orders/{id}")).await.body, expected);
    shop.close().await;
}

#[tokio::test]
async fn who_does_not_wait_gets_the_same_202_for_ever() {
    let shop = Shop::open().await;
    let first = answer(shop.keyed("anna", "/v1/orders", &pears(1), "key-of-anna")).await;
    let id = first.body["order_id"].as_str().unwrap();
    assert_eq!((first.status, first.text.as_str()), (202, &*format!(r#"{{"order_id":"{id}","status":"ACCEPTED"}}"#)));
    assert_eq!(first.header("Location"), Some(format!("/v1/orders/{id}").as_str()));
    let again = shop.keyed("anna", "/v1/orders", &pears(1), "\"key-of-anna\"").header("Prefer", "wait=5");
    let again = answer(again).await;
    assert_eq!((again.status, &again.text), (202, &first.text));
    assert_eq!(again.header("Idempotency-Replayed"), Some("true"));
    let other = answer(shop.keyed("anna", "/v1/orders", &pears(2), "key-of-anna")).await;
    assert_eq!((other.status, &other.body["code"]), (422, &json!("IDEMPOTENCY_KEY_REUSED")));
    let bert = answer(shop.keyed("bert", "/v1/orders", &pears(1), "key-of-anna")).await;
    assert_ne!(bert.text, first.text, "a key is its caller's");
    shop.close().await;
}

#[tokio::test]
async fn an_accepted_order_reads_as_accepted_to_its_customer() {
    let shop = Shop::open().await;
    shop.log.decide(false);
    let accepted = shop.post("anna", "/v1/orders", &pears(1)).await;
    assert_eq!(accepted.status, 202, "nobody decides: after the time-out the 202");
    let path = format!("/v1/orders/{}", accepted.body["order_id"].as_str().unwrap());
    for who in ["anna", "operator"] {
        let seen = shop.get(who, &path).await;
        assert_eq!((seen.status, seen.header("ETag")), (200, Some("\"0\"")));
        assert_eq!((&seen.body["status"], &seen.body["customer_id"]), (&json!("ACCEPTED"), &json!("anna")));
        assert_eq!((&seen.body["version"], &seen.body["lines"]), (&json!(0), &json!([])));
    }
    assert_eq!(shop.get("bert", &path).await.status, 404);
    assert_eq!(shop.get("anna", &format!("{path}/events")).await.body, json!({"items": [], "next_cursor": null}));
    // It can be cancelled already: the command lies behind its own in the log.
    assert_eq!(shop.post("anna", &format!("{path}/cancel"), &json!({})).await.status, 202);
    assert_eq!(shop.post("bert", &format!("{path}/cancel"), &json!({})).await.status, 404);
    assert_eq!(shop.get("bert", &path).await.status, 404);
    shop.close().await;
}

#[tokio::test]
async fn every_wrong_field_has_its_pointer() {
    let shop = Shop::open().await;
    let line = |product: &str, quantity: serde_json::Value| json!({"product_id": product, "quantity": quantity});
    let order = |lines: serde_json::Value| json!({"lines": lines, "payment_method": "pm_ok"});
    let many: Vec<_> = (1..=201).map(|n| line(&n.to_string(), json!(1))).collect();
    for (body, errors) in [
        (json!({}), &["/lines is missing", "/payment_method is missing"][..]),
        (order(json!([])), &["/lines must have 1 to 200 items"]),
        (order(json!(many)), &["/lines must have 1 to 200 items"]),
        (order(json!([line("7", json!(0))])), &["/lines/0/quantity must be a positive integer"]),
        (order(json!([line("7", json!(1.5))])), &["/lines/0/quantity must be a positive integer"]),
        (order(json!([line("7", json!("1"))])), &["/lines/0/quantity must be a positive integer"]),
        (order(json!([line("7", json!(1_000_001))])), &["/lines/0/quantity must be at most 1000000"]),
        (order(json!([{"product_id": 7, "quantity": 1}])), &["/lines/0/product_id must be a string"]),
        (
            order(json!([line("-7", json!(1))])),
            &["/lines/0/product_id must be the decimal text of a positive 64-bit integer"],
        ),
        (
            order(json!([line("7", json!(1)), line("8", json!(1)), line("7", json!(1))])),
            &["/lines/2/product_id is in the order already"],
        ),
        (
            order(json!([line("9", json!(1)), line("7", json!(1)), line("10", json!(1))])),
            &["/lines/0/product_id is not in the catalogue", "/lines/2/product_id is not in the catalogue"],
        ),
        (
            json!({"lines": [{"product_id": "7", "quantity": 1, "unit_price": 1}], "payment_method": "a b", "x": 1}),
            &[
                "/lines/0/unit_price is not a known field",
                "/payment_method must be 1 to 64 visible ASCII characters",
                "/x is not a known field",
            ],
        ),
        (
            json!({"lines": [line("7", json!(1))], "payment_method": "pm_ok",
                   "expected_total": {"amount": -1, "currency": "usd"}}),
            &[
                "/expected_total/amount must be at least 0",
                "/expected_total/currency must be an ISO 4217 code such as USD",
            ],
        ),
    ] {
        let seen = shop.post("anna", "/v1/orders", &body).await;
        assert_eq!((seen.status, seen.header("Content-Type")), (422, Some("application/problem+json")), "{body}");
        assert_eq!(seen.errors(), errors, "{body}");
    }
    let not_json = shop.request("anna", Method::POST, "/v1/orders").header("Idempotency-Key", "12345678");
    let not_json = answer(not_json.header("Content-Type", "application/json").body("{")).await;
    assert_eq!((not_json.status, &not_json.body["code"]), (400, &json!("NOT_JSON")));
    shop.close().await;
}

#[tokio::test]
async fn an_unknown_product_pins_nothing() {
    let shop = Shop::open().await;
    let body = json!({"lines": [{"product_id": "9", "quantity": 1}], "payment_method": "pm_ok"});
    assert_eq!(answer(shop.keyed("anna", "/v1/orders", &body, "the-same-key")).await.status, 422);
    shop.fold(&[listed(9, 1)]).await;
    assert_eq!(answer(shop.keyed("anna", "/v1/orders", &body, "the-same-key")).await.status, 202);
    shop.close().await;
}

#[tokio::test]
async fn another_total_than_expected_is_a_conflict_and_an_order() {
    let shop = Shop::open().await;
    let mut body = pears(2);
    body["expected_total"] = json!({"amount": 197, "currency": "USD"});
    let refused = shop.post("anna", "/v1/orders", &body).await;
    assert_eq!((refused.status, &refused.body["code"]), (409, &json!("PRICE_CHANGED")));
    assert_eq!(refused.body["order_status"], "REJECTED");
    let path = format!("/v1/orders/{}", refused.body["order_id"].as_str().unwrap());
    let seen = shop.get("anna", &path).await.body;
    assert_eq!((&seen["status"], &seen["reason"]), (&json!("REJECTED"), &json!("PRICE_CHANGED")));
    assert_eq!(seen["lines"], json!([{"product_id": "7", "quantity": 2, "unit_price": null}]));
    assert_eq!((&seen["total"], &seen["pay_by"], &seen["version"]), (&json!(null), &json!(null), &json!(1)));
    let cancelled = shop.post("anna", &format!("{path}/cancel"), &json!({})).await;
    assert_eq!((cancelled.status, &cancelled.body["order_status"]), (409, &json!("REJECTED")));
    shop.close().await;
}

#[tokio::test]
async fn a_total_beyond_64_bits_is_refused() {
    let shop = Shop::open().await;
    shop.fold(&[listed(9, i64::MAX)]).await;
    let body = json!({"lines": [{"product_id": "9", "quantity": 2}], "payment_method": "pm_ok"});
    let refused = shop.post("anna", "/v1/orders", &body).await;
    assert_eq!((refused.status, &refused.body["code"]), (422, &json!("TOTAL_TOO_LARGE")));
    assert_eq!(refused.body["order_status"], "REJECTED");
    shop.close().await;
}

#[tokio::test]
async fn only_customers_order() {
    let shop = Shop::open().await;
    assert_eq!(shop.post("", "/v1/orders", &pears(1)).await.status, 401);
    assert_eq!(shop.post("operator", "/v1/orders", &pears(1)).await.status, 403);
    let without_key = answer(shop.request("anna", Method::POST, "/v1/orders").json(&pears(1))).await;
    assert_eq!((without_key.status, &without_key.body["code"]), (400, &json!("IDEMPOTENCY_KEY_MISSING")));
    shop.close().await;
}
