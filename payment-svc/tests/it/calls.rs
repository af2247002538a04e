//! What is made of the gateway's answers: final words, words that are not, refusals, trouble; and that nothing is called
//! twice or too late.

use engine::breaker::{Breakers, State};
use engine::service::{Outcome, Try};
use events::id::OrderId;
use payment_svc::domain::{Input as Rule, Report};
use payment_svc::gateway::{Gateway, Http};
use payment_svc::processor::{Input, Payments};
use serde_json::json;
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::gateway_stand::{
    ASK_AFTER, EARLY, GatewayStand, PAY_BY, again, calling, first, given_up, perform, refunding, requested, usd, word,
};

fn is_pending(outcome: &Outcome<Input>) -> bool {
    matches!(outcome, Outcome::Pending { ask_after } if *ask_after == ASK_AFTER)
}

fn too_late(outcome: &Outcome<Input>) -> Option<bool> {
    match outcome {
        Outcome::Answer(Input::Payment(Rule::ChargeTooLate { may_be_charged, .. })) => Some(*may_be_charged),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_charge_is_taken_in_and_asked_for_later() {
    let gateway = GatewayStand::start().await;
    let words = [
        ("pm_ok", Report::Captured(usd(198))),
        ("pm_wrong_amount", Report::Captured(usd(199))),
        ("pm_declined", Report::Declined),
        ("pm_failed", Report::Failed),
        ("pm_nobody_knows", Report::Failed),
    ];
    for ((method, report), order) in words.into_iter().zip(1..) {
        let state = requested(order, method);
        let accepted = gateway.perform(&state, first()).await;
        assert!(is_pending(&accepted), "{method}: a 202 changes nothing: {accepted:?}");
        assert_eq!(word(gateway.perform(&state, again()).await), report, "{method}");
    }
    let silent = requested(9, "pm_never");
    for attempt in [first(), again()] {
        let outcome = gateway.perform(&silent, attempt).await;
        assert!(is_pending(&outcome), "{outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_answer_was_lost_is_not_made_again() {
    let gateway = GatewayStand::start().await;
    gateway.plan("cut_answer", 1).await;
    let state = requested(1, "pm_ok");
    assert!(matches!(gateway.perform(&state, first()).await, Outcome::Unreachable { .. }));
    assert_eq!(word(gateway.perform(&state, again()).await), Report::Captured(usd(198)));
    assert_eq!(gateway.ledger("charges").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_charge_that_never_arrived_is_made_after_all() {
    let gateway = GatewayStand::start().await;
    gateway.plan("down", 1).await;
    let state = requested(1, "pm_ok");
    assert!(matches!(gateway.perform(&state, first()).await, Outcome::Unreachable { .. }));
    assert_eq!(gateway.ledger("charges").await.len(), 0);
    assert!(is_pending(&gateway.perform(&state, again()).await));
    assert_eq!(gateway.ledger("charges").await[0]["key"], "charge:1");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_charged_from_pay_by_on() {
    let gateway = GatewayStand::start().await;
    let state = requested(1, "pm_ok");
    let late = Try { now: PAY_BY, ..first() };
    assert_eq!(too_late(&gateway.perform(&state, late).await), Some(false), "nobody ever called");
    let late = Try { now: PAY_BY, ..again() };
    assert_eq!(too_late(&gateway.perform(&state, late).await), Some(true), "a call may still be on its way");
    assert_eq!(gateway.ledger("charges").await.len(), 0);
    // What was called in time counts, however late it is asked for; what is still open then is given up.
    let silent = requested(2, "pm_never");
    for open in [&state, &silent] {
        gateway.perform(open, first()).await;
    }
    assert_eq!(word(gateway.perform(&state, late).await), Report::Captured(usd(198)));
    assert_eq!(too_late(&gateway.perform(&silent, late).await), Some(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn giving_up_is_a_call_with_a_final_answer() {
    let gateway = GatewayStand::start().await;
    let words = [
        ("pm_never", Report::Cancelled),
        ("pm_late", Report::Captured(usd(198))),
        ("pm_ok", Report::Captured(usd(198))),
        ("pm_declined", Report::Declined),
    ];
    for ((method, report), order) in words.into_iter().zip(1..) {
        gateway.perform(&requested(order, method), first()).await;
        for attempt in [first(), again()] {
            assert_eq!(word(gateway.perform(&given_up(order, method), attempt).await), report, "{method}");
        }
    }
    // Of a charge that has not arrived yet it leaves a bar: the charge finds that it was cancelled.
    assert_eq!(word(gateway.perform(&given_up(9, "pm_ok"), first()).await), Report::Cancelled);
    assert_eq!(word(gateway.perform(&requested(9, "pm_ok"), first()).await), Report::Cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_charge_under_a_key_that_is_taken_is_judged_by_what_stands_there() {
    let gateway = GatewayStand::start().await;
    gateway.perform(&requested(1, "pm_wrong_amount"), first()).await;
    let outcome = gateway.perform(&requested(1, "pm_ok"), first()).await;
    assert_eq!(word(outcome), Report::Captured(usd(199)), "money that was taken is never forgotten");
}

#[tokio::test(flavor = "multi_thread")]
async fn money_goes_back_once() {
    let gateway = GatewayStand::start().await;
    gateway.perform(&requested(1, "pm_wrong_amount"), first()).await;
    assert!(is_pending(&gateway.perform(&refunding(1, 199), first()).await));
    for _ in 0..2 {
        assert_eq!(word(gateway.perform(&refunding(1, 199), again()).await), Report::Refunded(usd(199)));
    }
    let refunds = gateway.ledger("refunds").await;
    assert_eq!((refunds.len(), &refunds[0]["key"]), (1, &json!("refund:1")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_whose_answer_was_lost_is_not_asked_for_again() {
    let gateway = GatewayStand::start().await;
    gateway.perform(&requested(1, "pm_ok"), first()).await;
    gateway.plan("cut_answer", 1).await;
    assert!(matches!(gateway.perform(&refunding(1, 198), first()).await, Outcome::Unreachable { .. }));
    assert_eq!(word(gateway.perform(&refunding(1, 198), again()).await), Report::Refunded(usd(198)));
    assert_eq!(gateway.ledger("refunds").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_that_the_gateway_refuses_is_a_final_word() {
    let gateway = GatewayStand::start().await;
    gateway.perform(&requested(1, "pm_declined"), first()).await;
    for (order, code) in [(1, "NOT_CAPTURED"), (2, "UNKNOWN_CHARGE")] {
        let report = word(gateway.perform(&refunding(order, 198), first()).await);
        assert_eq!(report, Report::RefundRefused(code.to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_errs_is_tried_again() {
    let gateway = GatewayStand::start().await;
    gateway.plan("error", 3).await;
    for state in [requested(1, "pm_ok"), given_up(1, "pm_ok"), refunding(1, 198)] {
        let outcome = gateway.perform(&state, first()).await;
        assert!(matches!(outcome, Outcome::Failed { code: "GATEWAY_ERROR", .. }), "{outcome:?}");
    }
}

#[tokio::test]
async fn what_does_not_speak_of_this_request_ends_no_payment() {
    for status in [301, 401, 403, 404, 405, 429, 500, 503] {
        let server = MockServer::start().await;
        let answer = ResponseTemplate::new(status).insert_header("Location", "http://127.0.0.1:9/");
        Mock::given(method("POST")).respond_with(answer).mount(&server).await;
        let service = calling(&server.uri());
        for state in [requested(1, "pm_ok"), given_up(1, "pm_ok"), refunding(1, 198)] {
            let outcome = perform(&service, &state, first()).await;
            assert!(matches!(outcome, Outcome::Failed { .. }), "{status}: {outcome:?}");
        }
    }
}

#[tokio::test]
async fn what_refuses_this_request_is_final() {
    let server = MockServer::start().await;
    let no = ResponseTemplate::new(422).set_body_json(json!({"code": "x".repeat(1_000)}));
    Mock::given(method("POST")).respond_with(no).mount(&server).await;
    let service = calling(&server.uri());
    assert_eq!(word(perform(&service, &requested(1, "pm_ok"), first()).await), Report::Failed);
    let refused = word(perform(&service, &refunding(1, 198), first()).await);
    assert_eq!(refused, Report::RefundRefused("X".repeat(64)), "it goes into an event, so it is bounded");
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_is_no_word() {
    for body in ["", "{}", "not json", r#"{"status":"captured","amount":"198","currency":"USD"}"#] {
        let server = MockServer::start().await;
        let answer = ResponseTemplate::new(200).set_body_string(body);
        Mock::given(method("GET")).and(path("/v1/charges/charge:1")).respond_with(answer).mount(&server).await;
        let outcome = perform(&calling(&server.uri()), &requested(1, "pm_ok"), again()).await;
        assert!(matches!(outcome, Outcome::Failed { .. }), "{body}: {outcome:?}");
    }
    let server = MockServer::start().await;
    let endless = ResponseTemplate::new(200).set_body_string("x".repeat(200_000));
    Mock::given(method("GET")).respond_with(endless).mount(&server).await;
    let outcome = perform(&calling(&server.uri()), &requested(1, "pm_ok"), again()).await;
    assert!(matches!(outcome, Outcome::Failed { .. }), "{outcome:?}");
}

#[tokio::test]
async fn a_gateway_that_is_not_there_uses_up_no_attempt_and_shows_no_password() {
    // Bound and given back: nobody listens there.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let service = calling(&format!("http://user:secret@{free}"));
    for state in [requested(1, "pm_ok"), given_up(1, "pm_ok"), refunding(1, 198)] {
        match perform(&service, &state, again()).await {
            Outcome::Unreachable { message } => assert!(!message.contains("secret"), "{message}"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_gateway_that_has_not_heard_the_request_in_time_uses_up_no_attempt() {
    let server = MockServer::start().await;
    Mock::given(method("GET")).respond_with(ResponseTemplate::new(408)).mount(&server).await;
    let outcome = perform(&calling(&server.uri()), &requested(1, "pm_ok"), again()).await;
    assert!(matches!(outcome, Outcome::Unreachable { .. }), "{outcome:?}");
}

#[tokio::test]
async fn the_adapter_inside_answers_by_the_same_tokens() {
    let inside = Payments { gateway: Gateway::Inside };
    let words = [
        ("pm_ok", Report::Captured(usd(198))),
        ("pm_late_decline", Report::Captured(usd(198))),
        ("pm_wrong_amount", Report::Captured(usd(199))),
        ("pm_declined", Report::Declined),
        ("pm_failed", Report::Failed),
        ("pm_nobody_knows", Report::Failed),
    ];
    for (method, report) in words {
        assert_eq!(word(perform(&inside, &requested(1, method), first()).await), report, "{method}");
    }
    for (method, report) in [("pm_never", Report::Cancelled), ("pm_late", Report::Captured(usd(198)))] {
        let silent = perform(&inside, &requested(1, method), first()).await;
        assert!(matches!(silent, Outcome::Pending { .. }), "{method}: {silent:?}");
        assert_eq!(word(perform(&inside, &given_up(1, method), first()).await), report, "{method}");
    }
    assert_eq!(word(perform(&inside, &refunding(1, 199), first()).await), Report::Refunded(usd(199)));
    let late = Try { now: PAY_BY, ..first() };
    assert_eq!(too_late(&perform(&inside, &requested(1, "pm_ok"), late).await), Some(false));
    assert!(EARLY < PAY_BY);
}

#[test]
fn only_a_hosted_method_has_a_page_to_pay_on() {
    let http = calling("http://pay.test/");
    let at = |method| http.gateway.pay_url(OrderId(7), method);
    assert_eq!(at("pm_checkout").as_deref(), Some("http://pay.test/checkout/charge:7"));
    assert_eq!(at("pm_ok"), None);
    assert_eq!(Gateway::Inside.pay_url(OrderId(7), "pm_checkout"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_away_is_not_called_and_one_that_errs_is_there() {
    let gateway = GatewayStand::start().await;
    let guarded = |url: &str| {
        let breakers = Breakers::default();
        let http = Http::new(url, "http://127.0.0.1:9/".to_owned(), ASK_AFTER).unwrap().guarded(&breakers).unwrap();
        (Payments { gateway: Gateway::Http(http) }, breakers)
    };
    // Bound and given back: nobody listens there.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (service, breakers) = guarded(&format!("http://{free}"));
    let state = requested(1, "pm_ok");
    assert!(matches!(perform(&service, &state, first()).await, Outcome::Unreachable { .. }));
    let (away, vital) = testkit::eventually(std::time::Duration::from_secs(10), async || {
        breakers.away().pop().ok_or_else(|| breakers.dependencies())
    })
    .await;
    assert!(!vital);
    let waits = format!("waiting for the payment gateway at {free} since ");
    assert!(away.to_string().starts_with(&waits), "{away}");
    let outcome = perform(&service, &state, again()).await;
    let Outcome::Unreachable { message } = outcome else { panic!("{outcome:?}") };
    assert!(message.starts_with(&waits), "{message}");

    let (service, breakers) = guarded(&gateway.url);
    gateway.plan("error", 1).await;
    assert!(matches!(perform(&service, &state, first()).await, Outcome::Failed { .. }));
    assert!(is_pending(&perform(&service, &state, first()).await));
    assert_eq!(breakers.dependencies()[0].state, State::Closed);
}
