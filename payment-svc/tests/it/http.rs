//! What clients and the gateway can ask, over real HTTP; the log alone is in memory.

use edge::token::Role;
use engine::wait::Decided;
use events::code::{GatewayResult, OperatorRefundReason};
use events::id::{CommandId, EventId, OrderId};
use events::money::{Currency, Money};
use events::payment::PaymentCommand;
use events::record::SetBy;
use events::time::Timestamp;
use payment_svc::state::{Payment, State, Terms};
use serde_json::{Value, json};

use crate::site::{Stand, answer};

const MARK: SetBy = SetBy { event_id: EventId(1), sequence: 1 };
const PAY_URL: &str = "http://pay.test/checkout/charge:7";

fn usd(amount: i64) -> Money {
    Money::new(amount, Currency::USD)
}

fn payment() -> Payment {
    Payment { order_id: OrderId(7), customer_id: "ann".to_owned(), total: usd(198) }
}

fn terms() -> Terms {
    let pay_url = Some(PAY_URL.to_owned());
    Terms { payment_method: "pm_checkout".to_owned(), pay_by: Timestamp(1_767_225_600_000), pay_url }
}

fn requested() -> State {
    State::Requested { payment: payment(), terms: terms(), charge: MARK }
}

fn captured() -> State {
    State::Captured { payment: payment(), taken: usd(198) }
}

/// Each status with what clients see of it: status, amount, refunded.
fn shown() -> Vec<(State, &'static str, i64, i64)> {
    let taken = usd(199);
    vec![
        (requested(), "REQUESTED", 198, 0),
        (State::CancelRequested { payment: payment(), terms: terms(), cancel: MARK }, "REQUESTED", 198, 0),
        (State::Cancelled(payment()), "CANCELLED", 198, 0),
        (State::Declined(payment()), "DECLINED", 198, 0),
        (State::Failed(payment()), "FAILED", 198, 0),
        (captured(), "CAPTURED", 198, 0),
        (State::Refunding { payment: payment(), taken, refund: MARK }, "REFUNDING", 199, 0),
        (State::RefundFailed { payment: payment(), taken }, "CAPTURED", 199, 0),
        (State::Refunded { payment: payment(), taken }, "REFUNDED", 199, 199),
    ]
}

fn event(id: &str, kind: &str, key: &str) -> Value {
    json!({
        "event_id": id, "type": kind, "key": key, "amount": 198, "currency": "USD",
        "occurred_at": "2026-01-01T00:00:00.000Z",
    })
}

#[actix_web::test]
async fn a_payment_is_shown_to_its_customer_and_to_operators() {
    let stand = Stand::start().await;
    for (state, status, amount, refunded) in shown() {
        stand.save(&state).await;
        let expected = json!({
            "order_id": "7", "status": status, "amount": {"amount": amount, "currency": "USD"},
            "refunded": {"amount": refunded, "currency": "USD"}, "pay_url": null,
        });
        for (sub, role) in [("ann", Role::Customer), ("op", Role::Operator)] {
            assert_eq!(stand.get("/v1/payments/7", sub, role).await, (200, expected.clone()));
        }
    }
}

#[actix_web::test]
async fn a_hosted_page_is_shown_while_the_gateway_waits_for_the_payer() {
    let stand = Stand::start().await;
    stand.save(&requested()).await;
    sqlx::query(
        "INSERT INTO effects (partition, key, kind, attempts, next_try_at, pending)
         VALUES (0, 7, 'charge', 0, now(), true)",
    )
    .execute(&*stand.pool)
    .await
    .unwrap();
    let (_, view) = stand.get("/v1/payments/7", "ann", Role::Customer).await;
    assert_eq!((&view["status"], &view["pay_url"]), (&json!("PENDING"), &json!(PAY_URL)));
    // What the gateway says afterwards counts more than a try that is still remembered.
    stand.save(&captured()).await;
    let (_, view) = stand.get("/v1/payments/7", "ann", Role::Customer).await;
    assert_eq!((&view["status"], &view["pay_url"]), (&json!("CAPTURED"), &Value::Null));
}

#[actix_web::test]
async fn another_customers_payment_looks_like_none() {
    let stand = Stand::start().await;
    stand.save(&captured()).await;
    for path in ["/v1/payments/7", "/v1/payments/8", "/v1/payments/x", "/v1/payments/07"] {
        let (status, problem) = stand.get(path, "bob", Role::Customer).await;
        assert_eq!((status, &problem["code"]), (404, &json!("NOT_FOUND")), "{path}");
    }
}

#[actix_web::test]
async fn a_refund_becomes_one_command() {
    let stand = Stand::start().await;
    stand.save(&captured()).await;
    let first = answer(stand.refund(7, "key-of-the-refund")).await;
    assert_eq!(first, (202, json!({"order_id": "7", "status": "ACCEPTED"})));
    assert_eq!(answer(stand.refund(7, "key-of-the-refund")).await, first, "a repeat is the same answer");
    let reason = stand.refund(7, "another-key").body(r#"{"reason":"FRAUD"}"#);
    assert_eq!(answer(reason).await.0, 202);
    let reasons: Vec<_> = stand
        .commands()
        .into_iter()
        .map(|command| match command {
            PaymentCommand::RefundPayment(command) => (command.order_id, command.reason, command.caller),
            other @ PaymentCommand::RecordGatewayResult(_) => panic!("{other:?}"),
        })
        .collect();
    let by = Some("op".to_owned());
    let expected = [OperatorRefundReason::Other, OperatorRefundReason::Fraud].map(|why| (OrderId(7), why, by.clone()));
    assert_eq!(reasons, expected);
}

#[actix_web::test]
async fn what_cannot_be_refunded_any_more_is_refused_at_once() {
    let stand = Stand::start().await;
    for (state, ..) in shown() {
        stand.save(&state).await;
        let refused = match state {
            State::Refunding { .. } => Some("ALREADY_REFUNDING"),
            State::Refunded { .. } => Some("ALREADY_REFUNDED"),
            State::Cancelled(_) | State::Declined(_) | State::Failed(_) => Some("NOT_CAPTURED"),
            _ => None,
        };
        let key = format!("{:?}", state.status());
        let (status, body) = answer(stand.refund(7, &key)).await;
        match refused {
            Some(code) => assert_eq!((status, &body["code"]), (409, &json!(code)), "{body}"),
            None => assert_eq!(status, 202, "{body}"),
        }
    }
    assert_eq!(answer(stand.refund(8, "an-unknown-order")).await.0, 404);
}

#[actix_web::test]
async fn who_waits_for_a_refund_learns_what_was_decided() {
    let stand = Stand::start().await;
    stand.save(&captured()).await;
    let decide = |refused: Option<&str>| {
        *stand.log.decided.lock().unwrap() = Some(Decided {
            command_id: CommandId(1),
            event_type: "orderlog.payment.RefundRequested".to_owned(),
            refused: refused.map(str::to_owned),
            subject: 7,
            partition: 0,
            sequence: 1,
        });
    };
    decide(Some("NOT_CAPTURED"));
    let (status, problem) = answer(stand.refund(7, "refused-refund").header("Prefer", "wait=5")).await;
    assert_eq!((status, &problem["code"]), (409, &json!("NOT_CAPTURED")));
    decide(None);
    let (status, view) = answer(stand.refund(7, "granted-refund").header("Prefer", "wait=5")).await;
    assert_eq!((status, &view["order_id"]), (200, &json!("7")));
}

#[actix_web::test]
async fn a_wrong_refund_is_refused_before_it_is_a_command() {
    let stand = Stand::start().await;
    stand.save(&captured()).await;
    for (body, status, pointer) in [
        (r#"{"reason":"BORED"}"#, 422, "/reason"),
        (r#"{"amount":1}"#, 422, "/amount"),
        ("[]", 422, ""),
        ("{", 400, ""),
    ] {
        let (found, problem) = answer(stand.refund(7, "wrong-refund").body(body)).await;
        assert_eq!(found, status, "{problem}");
        if status == 422 {
            assert_eq!(problem["errors"][0]["pointer"], pointer);
        }
    }
    let url = stand.url("/v1/payments/7/refunds");
    let customer = crate::site::token("ann", Role::Customer);
    let request = stand.client.post(&url).bearer_auth(customer).header("Idempotency-Key", "12345678");
    assert_eq!(answer(request.json(&json!({}))).await.0, 403);
    assert_eq!(stand.commands(), []);
}

#[actix_web::test]
async fn a_callback_becomes_one_command_however_often_it_comes() {
    let stand = Stand::start().await;
    let kinds = [
        ("charge.captured", GatewayResult::Captured, "charge:7"),
        ("charge.declined", GatewayResult::Declined, "charge:7"),
        ("charge.failed", GatewayResult::Failed, "charge:7"),
        ("charge.cancelled", GatewayResult::Cancelled, "charge:7"),
        ("refund.succeeded", GatewayResult::Refunded, "refund:7"),
    ];
    for (n, (kind, _, key)) in (1..).zip(kinds) {
        // An ID of one character is an ID too.
        for _ in 0..2 {
            assert_eq!(stand.callback(&event(&format!("{n}"), kind, key)).await.0, 200, "{kind}");
        }
    }
    let commands = stand.commands();
    assert_eq!(commands.len(), kinds.len());
    for (command, (_, result, key)) in commands.into_iter().zip(kinds) {
        let PaymentCommand::RecordGatewayResult(command) = command else { panic!("{command:?}") };
        assert_eq!((command.order_id, command.result, command.gateway_key.as_str()), (OrderId(7), result, key));
        assert_eq!((command.amount, command.caller.as_deref()), (usd(198), Some("gateway")));
        assert!(command.key_hash.is_some() && command.fingerprint.is_some());
    }
}

#[actix_web::test]
async fn a_callback_without_its_signature_is_nothing() {
    let stand = Stand::start().await;
    let body = event("evt_1", "charge.captured", "charge:7").to_string();
    for signature in ["", "t=1,v1=00", "t=1767225600,v1=00ff"] {
        let (status, problem) = stand.signed(&body, signature).await;
        assert_eq!((status, &problem["code"]), (401, &json!("BAD_SIGNATURE")), "{signature}");
    }
    assert_eq!(stand.commands(), []);
}

#[actix_web::test]
async fn a_wrong_callback_is_named_field_by_field() {
    let stand = Stand::start().await;
    for (field, wrong) in [
        ("event_id", json!("")),
        ("event_id", json!("with space")),
        ("type", json!("charge.pending")),
        ("key", json!("charge:x")),
        ("key", json!("7")),
        ("amount", json!(-1)),
        ("amount", json!("198")),
        ("currency", json!("usd")),
        ("occurred_at", json!("yesterday")),
        ("more", json!(1)),
    ] {
        let mut body = event("evt_1", "charge.captured", "charge:7");
        body[field] = wrong.clone();
        let (status, problem) = stand.callback(&body).await;
        assert_eq!(
            (status, &problem["errors"][0]["pointer"]),
            (422, &json!(format!("/{field}"))),
            "{wrong}: {problem}"
        );
    }
    assert_eq!(stand.commands(), []);
}

#[actix_web::test]
async fn every_route_is_documented() {
    let stand = Stand::start().await;
    let (status, api) = stand.get("/openapi.json", "ann", Role::Customer).await;
    assert_eq!(status, 200);
    for (method, path) in [
        ("get", "/v1/payments/{order_id}"),
        ("post", "/v1/payments/{order_id}/refunds"),
        ("post", "/v1/callbacks/gateway"),
    ] {
        assert!(api["paths"][path][method].is_object(), "{method} {path}");
    }
}
