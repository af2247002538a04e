//! The rules of the money by example: given inputs, when another one comes, then an event or a refusal.
//!
//! Rules that hold for all sequences of inputs are in `domain_properties`.

use events::code::{CancelReason, GatewayResult, GiveUpReason, OperatorRefundReason, RefundReason};
use events::id::{CommandId, EventId, OrderId};
use events::money::{Currency, Money};
use events::order::{OrderCancelled, OrderConfirmed, OrderEvent, OrderExpired};
use events::payment::{
    CommandRefused, PaymentCancelRequested, PaymentCancelled, PaymentEvent, PaymentRequested, RecordGatewayResult,
    RefundPayment, RefundRequested,
};
use events::record::{Recorded, SetBy};
use events::time::Timestamp;

use crate::domain::{
    Call, Ending, Input, Payment, Refusal, Report, State, Status, Terms, charge_key, decide, evolve, judge, refund_key,
};

pub(crate) const ORDER: OrderId = OrderId(7);
pub(crate) const PAY_BY: Timestamp = Timestamp(900_000);
const BEFORE: Timestamp = Timestamp(PAY_BY.0 - 1);

pub(crate) fn usd(amount: i64) -> Money {
    Money::new(amount, Currency::USD)
}

pub(crate) fn payment() -> Payment {
    Payment { order_id: ORDER, customer_id: "c-1".to_owned(), total: usd(198) }
}

fn terms() -> Terms {
    Terms { payment_method: "pm_ok".to_owned(), pay_by: PAY_BY, pay_url: None }
}

pub(crate) fn reserved_at(now: Timestamp) -> Input {
    Input::Reserved { payment: payment(), terms: terms(), now }
}

pub(crate) fn reserved() -> Input {
    reserved_at(BEFORE)
}

pub(crate) fn given_up(ending: Ending) -> Input {
    Input::GivenUp { payment: payment(), ending }
}

pub(crate) fn answer(report: Report) -> Input {
    Input::Answer { order_id: ORDER, report }
}

pub(crate) fn too_late(may_be_charged: bool) -> Input {
    Input::ChargeTooLate { order_id: ORDER, may_be_charged }
}

pub(crate) fn callback(command: i64, result: GatewayResult, amount: Money) -> Input {
    Input::GatewayResult(RecordGatewayResult {
        order_id: ORDER,
        gateway_event_id: format!("evt_{command}"),
        result,
        gateway_key: if result == GatewayResult::Refunded { refund_key(ORDER) } else { charge_key(ORDER) },
        amount,
        occurred_at: BEFORE,
        command_id: CommandId(command),
        caller: Some("gateway".to_owned()),
        key_hash: Some("aa".to_owned()),
        fingerprint: Some("bb".to_owned()),
    })
}

pub(crate) fn refund(command: i64) -> Input {
    Input::Refund(RefundPayment {
        order_id: ORDER,
        reason: OperatorRefundReason::Fraud,
        command_id: CommandId(command),
        caller: Some("op".to_owned()),
        key_hash: Some("cc".to_owned()),
        fingerprint: Some("dd".to_owned()),
    })
}

/// The event as the log would have it: the n-th, a second after the one before.
pub(crate) fn recorded(event: PaymentEvent, n: i64) -> Recorded<PaymentEvent> {
    Recorded { event, id: EventId(100 + n), sequence: n, at: Timestamp(n * 1_000) }
}

/// The state after these inputs, each of which must be taken.
pub(crate) fn given(inputs: &[Input]) -> State {
    let mut state = State::Unknown;
    for (n, input) in (1..).zip(inputs) {
        let event = decide(&state, input).expect("each of them is taken").expect("each of them says something");
        state = evolve(state, &recorded(event, n));
    }
    state
}

/// Each way a payment gets into each status.
fn ways() -> Vec<(Status, Vec<Input>)> {
    let captured = || answer(Report::Captured(usd(198)));
    let asked = |then: &[Input]| [&[reserved()], then].concat();
    let refunding = asked(&[captured(), refund(1)]);
    let refused = [refunding.clone(), vec![answer(Report::RefundRefused("NO".to_owned()))]].concat();
    vec![
        (Status::Requested, asked(&[])),
        (Status::CancelRequested, asked(&[given_up(Ending::Expired)])),
        (Status::CancelRequested, asked(&[too_late(true)])),
        (Status::Cancelled, vec![given_up(Ending::Cancelled)]),
        (Status::Cancelled, vec![reserved_at(PAY_BY)]),
        (Status::Cancelled, asked(&[too_late(false)])),
        (Status::Cancelled, asked(&[given_up(Ending::Cancelled), answer(Report::Cancelled)])),
        (Status::Declined, asked(&[answer(Report::Declined)])),
        (Status::Failed, asked(&[answer(Report::Failed)])),
        (Status::Captured, asked(&[captured()])),
        (Status::Refunding, refunding.clone()),
        (Status::Refunding, asked(&[answer(Report::Captured(usd(199)))])),
        (Status::RefundFailed, refused),
        (Status::Refunded, [refunding, vec![answer(Report::Refunded(usd(198)))]].concat()),
    ]
}

pub(crate) fn all() -> Vec<(Status, State)> {
    ways().into_iter().map(|(status, inputs)| (status, given(&inputs))).collect()
}

pub(crate) fn in_status(wanted: Status) -> State {
    all().into_iter().find(|(status, _)| *status == wanted).expect("every status has a way").1
}

pub(crate) fn cancelled() -> PaymentEvent {
    let (order_id, customer_id, total) = (ORDER, "c-1".to_owned(), usd(198));
    let (command_id, caller, key_hash, fingerprint) = (None, None, None, None);
    PaymentEvent::from(PaymentCancelled { order_id, customer_id, total, command_id, caller, key_hash, fingerprint })
}

fn cancel_requested(reason: GiveUpReason) -> PaymentEvent {
    PaymentEvent::from(PaymentCancelRequested {
        order_id: ORDER,
        customer_id: "c-1".to_owned(),
        total: usd(198),
        reason,
    })
}

#[test]
fn every_way_leads_to_its_status_and_call() {
    assert_eq!(State::Unknown.status(), None);
    for (status, state) in all() {
        assert_eq!(state.status(), Some(status));
        assert_eq!(state.call().map(|(call, _)| call), status.call());
        assert_eq!(state.payment(), Some(&payment()));
        assert_eq!(Status::parse(status.as_str()), Some(status));
    }
}

// Happy path

#[test]
fn a_reservation_asks_for_the_charge() {
    let then = PaymentEvent::from(PaymentRequested {
        order_id: ORDER,
        customer_id: "c-1".to_owned(),
        total: usd(198),
        payment_method: "pm_ok".to_owned(),
        pay_by: PAY_BY,
        pay_url: None,
    });
    assert_eq!(decide(&State::Unknown, &reserved()), Ok(Some(then)));
    let set_by = SetBy { event_id: EventId(101), sequence: 1 };
    assert_eq!(given(&[reserved()]).call(), Some((Call::Charge, set_by)));
}

#[test]
fn a_second_reservation_changes_nothing() {
    for (status, state) in all() {
        assert_eq!(decide(&state, &reserved()), Ok(None), "{status:?}");
    }
}

// Compensation: nothing is taken

#[test]
fn a_reservation_from_pay_by_on_is_not_charged() {
    for now in [PAY_BY, Timestamp(PAY_BY.0 + 1)] {
        assert_eq!(decide(&State::Unknown, &reserved_at(now)), Ok(Some(cancelled())));
    }
}

#[test]
fn an_order_that_ended_first_is_remembered_and_not_charged() {
    for ending in [Ending::Cancelled, Ending::Expired] {
        assert_eq!(decide(&State::Unknown, &given_up(ending)), Ok(Some(cancelled())));
        assert_eq!(decide(&given(&[given_up(ending)]), &reserved()), Ok(None));
    }
}

#[test]
fn an_order_that_ends_before_the_capture_gives_the_charge_up() {
    let state = given(&[reserved()]);
    let reasons = [(Ending::Cancelled, GiveUpReason::OrderCancelled), (Ending::Expired, GiveUpReason::OrderExpired)];
    for (ending, reason) in reasons {
        assert_eq!(decide(&state, &given_up(ending)), Ok(Some(cancel_requested(reason))));
    }
    let set_by = SetBy { event_id: EventId(102), sequence: 2 };
    assert_eq!(given(&[reserved(), given_up(Ending::Expired)]).call(), Some((Call::Cancel, set_by)));
}

#[test]
fn a_charge_that_comes_too_late_is_given_up() {
    let state = given(&[reserved()]);
    let asks = cancel_requested(GiveUpReason::TooLate);
    assert_eq!(decide(&state, &too_late(true)), Ok(Some(asks)), "an earlier call cannot be excluded");
    assert_eq!(decide(&state, &too_late(false)), Ok(Some(cancelled())), "nobody ever called");
    assert_eq!(decide(&State::Unknown, &too_late(true)), Err(Refusal::UnknownPayment));
    for (status, state) in all().into_iter().filter(|(status, _)| *status != Status::Requested) {
        assert_eq!(decide(&state, &too_late(true)), Ok(None), "{status:?}");
        assert_eq!(decide(&state, &too_late(false)), Ok(None), "{status:?}");
    }
}

#[test]
fn what_ends_an_order_without_money_moves_none() {
    for (status, state) in all() {
        if !matches!(status, Status::Requested | Status::Captured) {
            assert_eq!(decide(&state, &given_up(Ending::Cancelled)), Ok(None), "{status:?}");
        }
    }
}

// Compensation: money goes back

#[test]
fn an_order_that_ends_after_the_capture_gets_its_money_back() {
    let state = in_status(Status::Captured);
    let reasons = [(Ending::Cancelled, RefundReason::OrderCancelled), (Ending::Expired, RefundReason::OrderExpired)];
    for (ending, reason) in reasons {
        let Ok(Some(PaymentEvent::RefundRequested(event))) = decide(&state, &given_up(ending)) else {
            panic!("must ask for the refund");
        };
        assert_eq!((event.amount, event.reason, event.command_id), (usd(198), reason, None));
    }
}

#[test]
fn an_operator_refunds_captured_money_once() {
    let then = PaymentEvent::from(RefundRequested {
        order_id: ORDER,
        customer_id: "c-1".to_owned(),
        amount: usd(198),
        reason: RefundReason::Fraud,
        command_id: Some(CommandId(9)),
        caller: Some("op".to_owned()),
        key_hash: Some("cc".to_owned()),
        fingerprint: Some("dd".to_owned()),
    });
    assert_eq!(decide(&in_status(Status::Captured), &refund(9)), Ok(Some(then.clone())));
    assert_eq!(decide(&in_status(Status::RefundFailed), &refund(9)), Ok(Some(then)), "they may try again");
    assert_eq!(decide(&State::Unknown, &refund(9)), Err(Refusal::UnknownPayment));
    for (status, state) in all() {
        let refusal = match status {
            Status::Captured | Status::RefundFailed => continue,
            Status::Refunding => Refusal::AlreadyRefunding,
            Status::Refunded => Refusal::AlreadyRefunded,
            _ => Refusal::NotCaptured,
        };
        assert_eq!(decide(&state, &refund(9)), Err(refusal), "{status:?}");
    }
}

// Repeats, contradictions, strangers

#[test]
fn a_refused_command_is_an_event_that_changes_nothing() {
    let state = in_status(Status::Captured);
    let then = PaymentEvent::from(CommandRefused {
        order_id: ORDER,
        command_type: "RecordGatewayResult".to_owned(),
        reason: "ALREADY_CAPTURED".to_owned(),
        command_id: CommandId(9),
        caller: Some("gateway".to_owned()),
        key_hash: Some("aa".to_owned()),
        fingerprint: Some("bb".to_owned()),
    });
    assert_eq!(judge(&state, &callback(9, GatewayResult::Declined, usd(198))), Ok(Some(then.clone())));
    assert_eq!(evolve(state.clone(), &recorded(then, 9)), state);
    let Ok(Some(PaymentEvent::CommandRefused(event))) = judge(&State::Unknown, &refund(9)) else {
        panic!("must be refused");
    };
    assert_eq!((event.command_type.as_str(), event.reason.as_str()), ("RefundPayment", "UNKNOWN_PAYMENT"));
}

#[test]
fn only_a_customer_or_the_clock_ends_an_order_against_the_money() {
    let cancelled = |reason| {
        Input::from_order(OrderEvent::from(OrderCancelled {
            order_id: ORDER,
            version: 2,
            customer_id: "c-1".to_owned(),
            lines: Vec::new(),
            total: usd(198),
            reason,
            customer_reason: None,
            command_id: None,
            caller: None,
            key_hash: None,
            fingerprint: None,
        }))
    };
    assert_eq!(cancelled(CancelReason::Customer), Some(given_up(Ending::Cancelled)));
    for reason in [CancelReason::OutOfStock, CancelReason::PaymentDeclined, CancelReason::PaymentFailed] {
        assert_eq!(cancelled(reason), None, "{reason}");
    }
    let (order_id, version, customer_id, lines, total) = (ORDER, 2, "c-1".to_owned(), Vec::new(), usd(198));
    let confirmed = OrderConfirmed { order_id, version, customer_id: customer_id.clone(), lines: lines.clone(), total };
    assert_eq!(Input::from_order(OrderEvent::from(confirmed)), None);
    let expired = OrderExpired { order_id, version, customer_id, lines, total, pay_by: PAY_BY };
    assert_eq!(Input::from_order(OrderEvent::from(expired)), Some(given_up(Ending::Expired)));
}
