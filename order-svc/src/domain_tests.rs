//! The rules of an order by example: given events, when an input comes, then an event or a refusal.
//!
//! Rules that hold for all sequences of inputs are in `domain_properties`.

use std::collections::BTreeMap;

use events::code::{CancelReason, CustomerReason, RejectReason};
use events::id::{CommandId, EventId, OrderId, ProductId};
use events::money::{Currency, Money};
use events::order::{
    CancelOrder, CommandRefused, OrderCancelled, OrderConfirmed, OrderEvent, OrderExpired, OrderLine, OrderPlaced,
    OrderRejected, PlaceOrder, PricedLine,
};
use events::record::{Recorded, SetBy};
use events::time::Timestamp;

use crate::domain::{Input, Refusal, State, Status, Timer, decide, evolve, flaw, given_up, judge};

pub(crate) const ORDER: OrderId = OrderId(7);
const APPLE: ProductId = ProductId(1);
pub(crate) const PAY_BY: Timestamp = Timestamp(900_000);

fn usd(amount: i64) -> Money {
    Money::new(amount, Currency::USD)
}

pub(crate) fn place(command: i64) -> Input {
    Input::Place {
        command: PlaceOrder {
            order_id: ORDER,
            customer_id: "c-1".to_owned(),
            lines: vec![OrderLine { product_id: APPLE, quantity: 2 }],
            payment_method: "pm_ok".to_owned(),
            expected_total: None,
            command_id: CommandId(command),
            caller: Some("c-1".to_owned()),
            key_hash: Some("aa".to_owned()),
            fingerprint: Some("bb".to_owned()),
        },
        prices: BTreeMap::from([(APPLE, usd(99))]),
        pay_by: PAY_BY,
    }
}

pub(crate) fn cancel_at(command: i64, expected_version: Option<i64>) -> Input {
    Input::Cancel(CancelOrder {
        order_id: ORDER,
        reason: CustomerReason::ChangedMind,
        expected_version,
        command_id: CommandId(command),
        caller: Some("c-1".to_owned()),
        key_hash: Some("cc".to_owned()),
        fingerprint: Some("dd".to_owned()),
    })
}

fn cancel(command: i64) -> Input {
    cancel_at(command, None)
}

/// The event as the log would have it: the n-th, a second after the one before.
pub(crate) fn recorded(event: OrderEvent, n: i64) -> Recorded<OrderEvent> {
    Recorded { event, id: EventId(100 + n), sequence: n, at: Timestamp(n * 1_000) }
}

/// The state after these inputs, each of which must be taken.
fn given(inputs: &[Input]) -> State {
    let mut state = State::Unknown;
    for (n, input) in (1..).zip(inputs) {
        let event = decide(&state, input).unwrap().expect("each of them says something");
        state = evolve(state, &recorded(event, n));
    }
    state
}

fn priced() -> Vec<PricedLine> {
    vec![PricedLine { product_id: APPLE, quantity: 2, unit_price: usd(99) }]
}

fn cancelled(reason: CancelReason) -> OrderEvent {
    OrderEvent::from(OrderCancelled {
        order_id: ORDER,
        version: 2,
        customer_id: "c-1".to_owned(),
        lines: priced(),
        total: usd(198),
        reason,
        customer_reason: None,
        command_id: None,
        caller: None,
        key_hash: None,
        fingerprint: None,
    })
}

/// Each way an order ends.
fn ends() -> [(Status, Input); 6] {
    [
        (Status::Confirmed, Input::PaymentCaptured(ORDER)),
        (Status::Cancelled, Input::StockRejected(ORDER)),
        (Status::Cancelled, Input::PaymentDeclined(ORDER)),
        (Status::Cancelled, Input::PaymentFailed(ORDER)),
        (Status::Cancelled, cancel(2)),
        (Status::Expired, Input::PayByPassed(ORDER)),
    ]
}

fn rejected_order() -> State {
    let Input::Place { command, pay_by, .. } = place(1) else { unreachable!("it places") };
    given(&[Input::Place { command, prices: BTreeMap::new(), pay_by }])
}

// Happy path

#[test]
fn an_order_is_placed_at_the_catalogues_prices() {
    let then = OrderEvent::from(OrderPlaced {
        order_id: ORDER,
        version: 1,
        customer_id: "c-1".to_owned(),
        lines: priced(),
        total: usd(198),
        payment_method: "pm_ok".to_owned(),
        pay_by: PAY_BY,
        command_id: CommandId(1),
        caller: Some("c-1".to_owned()),
        key_hash: Some("aa".to_owned()),
        fingerprint: Some("bb".to_owned()),
    });
    assert_eq!(decide(&State::Unknown, &place(1)), Ok(Some(then)));
}

#[test]
fn a_placed_order_waits_until_pay_by() {
    let State::Placed { order, timer } = given(&[place(1)]) else { panic!("not placed") };
    let set_by = SetBy { event_id: EventId(101), sequence: 1 };
    assert_eq!(timer, Timer { due_at: PAY_BY, set_by });
    assert_eq!((order.placed_at, order.updated_at), (Timestamp(1_000), Timestamp(1_000)));
    assert_eq!((order.version, order.pay_by, order.total), (1, PAY_BY, usd(198)));
}

#[test]
fn a_captured_payment_confirms() {
    let then = OrderEvent::from(OrderConfirmed {
        order_id: ORDER,
        version: 2,
        customer_id: "c-1".to_owned(),
        lines: priced(),
        total: usd(198),
    });
    assert_eq!(decide(&given(&[place(1)]), &Input::PaymentCaptured(ORDER)), Ok(Some(then)));
}

// Compensation

#[test]
fn an_order_of_an_unknown_product_is_rejected_with_its_lines() {
    let Input::Place { command, pay_by, .. } = place(1) else { unreachable!("it places") };
    let input = Input::Place { command, prices: BTreeMap::new(), pay_by };
    let then = OrderEvent::from(OrderRejected {
        order_id: ORDER,
        version: 1,
        customer_id: "c-1".to_owned(),
        lines: vec![OrderLine { product_id: APPLE, quantity: 2 }],
        payment_method: "pm_ok".to_owned(),
        reason: RejectReason::UnknownProduct,
        command_id: CommandId(1),
        caller: Some("c-1".to_owned()),
        key_hash: Some("aa".to_owned()),
        fingerprint: Some("bb".to_owned()),
        discarded_by: None,
    });
    assert_eq!(decide(&State::Unknown, &input), Ok(Some(then)));
}

#[test]
fn an_order_at_another_total_is_rejected() {
    let Input::Place { mut command, prices, pay_by } = place(1) else { unreachable!("it places") };
    command.expected_total = Some(usd(197));
    let then = decide(&State::Unknown, &Input::Place { command, prices, pay_by });
    let Ok(Some(OrderEvent::OrderRejected(rejected))) = then else { panic!("{then:?}") };
    assert_eq!(rejected.reason, RejectReason::PriceChanged);
}

#[test]
fn an_order_that_an_operator_gives_up_is_rejected_unless_it_exists() {
    let Input::Place { command, .. } = place(1) else { unreachable!("it places") };
    let then = given_up(&State::Unknown, &command, "DISCARDED", "gerd");
    let OrderEvent::OrderRejected(rejected) = &then else { panic!("{then:?}") };
    assert_eq!((rejected.reason, rejected.version, rejected.command_id), (RejectReason::Discarded, 1, CommandId(1)));
    assert_eq!(rejected.discarded_by.as_deref(), Some("gerd"));
    let state = evolve(State::Unknown, &recorded(then, 1));
    assert_eq!(state.status(), Some(Status::Rejected));
    assert_eq!(decide(&state, &cancel(2)), Err(Refusal::OrderNotPlaced(Status::Rejected)), "what waited behind it");

    let then = given_up(&given(&[place(1)]), &command, "DISCARDED", "gerd");
    let OrderEvent::CommandRefused(refused) = &then else { panic!("{then:?}") };
    assert_eq!((refused.reason.as_str(), refused.command_type.as_str()), ("DISCARDED", "PlaceOrder"));
}

#[test]
fn what_goes_wrong_with_stock_or_payment_cancels() {
    let placed = given(&[place(1)]);
    for (input, reason) in [
        (Input::StockRejected(ORDER), CancelReason::OutOfStock),
        (Input::PaymentDeclined(ORDER), CancelReason::PaymentDeclined),
        (Input::PaymentFailed(ORDER), CancelReason::PaymentFailed),
    ] {
        assert_eq!(decide(&placed, &input), Ok(Some(cancelled(reason))), "{input:?}");
    }
}

#[test]
fn a_customer_cancels_with_their_reason() {
    let then = decide(&given(&[place(1)]), &cancel_at(2, Some(1)));
    let Ok(Some(OrderEvent::OrderCancelled(event))) = then else { panic!("{then:?}") };
    assert_eq!(event.reason, CancelReason::Customer);
    assert_eq!(event.customer_reason, Some(CustomerReason::ChangedMind));
    assert_eq!((event.command_id, event.key_hash), (Some(CommandId(2)), Some("cc".to_owned())));
}

#[test]
fn an_unpaid_order_expires() {
    let then = OrderEvent::from(OrderExpired {
        order_id: ORDER,
        version: 2,
        customer_id: "c-1".to_owned(),
        lines: priced(),
        total: usd(198),
        pay_by: PAY_BY,
    });
    assert_eq!(decide(&given(&[place(1)]), &Input::PayByPassed(ORDER)), Ok(Some(then)));
}

#[test]
fn every_end_clears_the_timer_and_counts_a_version() {
    for (status, end) in ends() {
        let state = given(&[place(1), end.clone()]);
        assert_eq!((state.status(), state.timer()), (Some(status), None), "{end:?}");
        assert_eq!(state.version(), Some(2), "{end:?}");
    }
}

// Twice and too late

#[test]
fn placing_an_order_that_exists_is_refused() {
    assert_eq!(decide(&given(&[place(1)]), &place(2)), Err(Refusal::OrderExists));
    assert_eq!(decide(&rejected_order(), &place(2)), Err(Refusal::OrderExists));
    for (_, end) in ends() {
        assert_eq!(decide(&given(&[place(1), end]), &place(2)), Err(Refusal::OrderExists));
    }
}

#[test]
fn what_comes_after_the_end_changes_nothing() {
    for (_, end) in ends() {
        let state = given(&[place(1), end.clone()]);
        for late in [
            Input::PaymentCaptured(ORDER),
            Input::PaymentDeclined(ORDER),
            Input::PaymentFailed(ORDER),
            Input::StockRejected(ORDER),
            Input::PayByPassed(ORDER),
        ] {
            assert_eq!(decide(&state, &late), Ok(None), "{late:?} after {end:?}");
        }
    }
}

#[test]
fn cancelling_a_final_order_is_refused() {
    for (status, end) in ends() {
        let then = decide(&given(&[place(1), end]), &cancel(3));
        assert_eq!(then, Err(Refusal::OrderNotPlaced(status)));
    }
    let then = decide(&rejected_order(), &cancel(3));
    assert_eq!(then, Err(Refusal::OrderNotPlaced(Status::Rejected)));
}

#[test]
fn cancelling_another_version_is_refused_before_the_status_is_looked_at() {
    let placed = given(&[place(1)]);
    let mismatch = |expected, current| Err(Refusal::VersionMismatch { expected, current });
    assert_eq!(decide(&placed, &cancel_at(2, Some(2))), mismatch(2, 1));
    let confirmed = given(&[place(1), Input::PaymentCaptured(ORDER)]);
    assert_eq!(decide(&confirmed, &cancel_at(2, Some(1))), mismatch(1, 2));
}

#[test]
fn cancelling_an_unknown_order_is_refused() {
    assert_eq!(decide(&State::Unknown, &cancel(1)), Err(Refusal::UnknownOrder));
    assert_eq!(decide(&State::Unknown, &cancel_at(1, Some(1))), Err(Refusal::UnknownOrder));
}

#[test]
fn others_cannot_speak_of_an_order_that_was_never_placed() {
    for state in [State::Unknown, rejected_order()] {
        for (_, input) in ends().into_iter().filter(|(_, input)| !matches!(input, Input::Cancel(_))) {
            assert_eq!(judge(&state, &input), Err(Refusal::UnknownOrder), "{input:?}");
        }
    }
}

#[test]
fn a_refused_command_is_an_event_that_changes_nothing() {
    let state = given(&[place(1), Input::PaymentCaptured(ORDER)]);
    let then = OrderEvent::from(CommandRefused {
        order_id: ORDER,
        command_type: "CancelOrder".to_owned(),
        reason: "ORDER_NOT_PLACED".to_owned(),
        command_id: CommandId(2),
        caller: Some("c-1".to_owned()),
        key_hash: Some("cc".to_owned()),
        fingerprint: Some("dd".to_owned()),
    });
    assert_eq!(judge(&state, &cancel(2)), Ok(Some(then.clone())));
    assert_eq!(evolve(state.clone(), &recorded(then, 9)), state);
}

#[test]
fn every_refusal_has_its_own_code() {
    let refusals = [
        Refusal::UnknownOrder,
        Refusal::OrderExists,
        Refusal::VersionMismatch { expected: 1, current: 2 },
        Refusal::OrderNotPlaced(Status::Expired),
    ];
    let codes: Vec<_> = refusals.iter().map(Refusal::code).collect();
    assert_eq!(codes, ["UNKNOWN_ORDER", "ORDER_EXISTS", "VERSION_MISMATCH", "ORDER_NOT_PLACED"]);
}

#[test]
fn texts_that_no_row_or_header_may_hold_are_a_flaw() {
    let Input::Place { command, .. } = place(1) else { unreachable!("it places") };
    assert_eq!(flaw(&command), None);
    for bad in ["", "a b", "\0", "é", &"x".repeat(65)] {
        assert!(flaw(&PlaceOrder { customer_id: bad.to_owned(), ..command.clone() }).is_some(), "{bad:?}");
        let payment_method = bad.to_owned();
        assert!(flaw(&PlaceOrder { payment_method, ..command.clone() }).is_some(), "{bad:?}");
    }
}
