//! The gateway's final words by example: in each status, for each word, an event or a refusal.

use events::code::GatewayResult;
use events::id::{CommandId, EventId};
use events::money::{Currency, Money};
use events::payment::{PaymentCaptured, PaymentDeclined, PaymentEvent, PaymentFailed, PaymentRefunded, RefundFailed};
use events::record::SetBy;

use crate::domain::{Ending, Input, Refusal, Report, State, Status, decide, evolve};
use crate::domain_tests::{
    ORDER, all, answer, callback, cancelled, given, given_up, in_status, payment, recorded, reserved, usd,
};

fn euro(amount: i64) -> Money {
    Money::new(amount, Currency::parse("EUR").expect("a code"))
}

fn captured(amount: Money, refund_due: bool) -> PaymentEvent {
    let (order_id, customer_id) = (ORDER, "c-1".to_owned());
    let (command_id, caller, key_hash, fingerprint) = (None, None, None, None);
    let event =
        PaymentCaptured { order_id, customer_id, amount, refund_due, command_id, caller, key_hash, fingerprint };
    PaymentEvent::from(event)
}

fn declined(amount: Option<Money>) -> PaymentEvent {
    PaymentEvent::from(PaymentDeclined {
        order_id: ORDER,
        customer_id: "c-1".to_owned(),
        total: usd(198),
        amount,
        refund_due: amount.is_some(),
        command_id: None,
        caller: None,
        key_hash: None,
        fingerprint: None,
    })
}

fn failed() -> PaymentEvent {
    let (order_id, customer_id, total) = (ORDER, "c-1".to_owned(), usd(198));
    let (command_id, caller, key_hash, fingerprint) = (None, None, None, None);
    PaymentEvent::from(PaymentFailed { order_id, customer_id, total, command_id, caller, key_hash, fingerprint })
}

#[test]
fn the_exact_amount_captures_by_callback_or_answer() {
    let state = given(&[reserved()]);
    assert_eq!(decide(&state, &answer(Report::Captured(usd(198)))), Ok(Some(captured(usd(198), false))));
    let Ok(Some(PaymentEvent::PaymentCaptured(event))) =
        decide(&state, &callback(9, GatewayResult::Captured, usd(198)))
    else {
        panic!("must be captured");
    };
    assert_eq!((event.command_id, event.caller.as_deref()), (Some(CommandId(9)), Some("gateway")));
    assert_eq!((event.key_hash.as_deref(), event.fingerprint.as_deref()), (Some("aa"), Some("bb")));
    let state = in_status(Status::Captured);
    assert_eq!((state.call(), state.taken()), (None, Some(usd(198))));
}

#[test]
fn no_final_word_but_a_capture_takes_money() {
    let open = given(&[reserved()]);
    assert_eq!(decide(&open, &answer(Report::Declined)), Ok(Some(declined(None))));
    assert_eq!(decide(&open, &answer(Report::Failed)), Ok(Some(failed())));
    assert_eq!(decide(&open, &answer(Report::Cancelled)), Ok(Some(failed())), "nobody here gave it up");
    assert_eq!(decide(&open, &answer(Report::captured(usd(0)))), Ok(Some(declined(None))), "nothing was taken");
    let given_up = in_status(Status::CancelRequested);
    for report in [Report::Declined, Report::Failed, Report::Cancelled] {
        assert_eq!(decide(&given_up, &answer(report)), Ok(Some(cancelled())));
    }
}

#[test]
fn a_wrong_amount_or_currency_counts_as_declined_and_goes_back() {
    for taken in [usd(199), usd(197), euro(198)] {
        let state = given(&[reserved()]);
        let when = answer(Report::Captured(taken));
        assert_eq!(decide(&state, &when), Ok(Some(declined(Some(taken)))));
        let set_by = SetBy { event_id: EventId(102), sequence: 2 };
        let refunding = given(&[reserved(), when]);
        assert_eq!(refunding, State::Refunding { payment: payment(), taken, refund: set_by });
        assert_eq!(decide(&refunding, &given_up(Ending::Cancelled)), Ok(None), "it goes back once");
    }
}

#[test]
fn money_taken_for_an_order_that_is_given_up_goes_back_whatever_the_amount() {
    let closed = [Status::CancelRequested, Status::Cancelled, Status::Declined, Status::Failed];
    for (status, state) in all().into_iter().filter(|(status, _)| closed.contains(status)) {
        for taken in [usd(198), usd(1), euro(198)] {
            let event = captured(taken, true);
            assert_eq!(decide(&state, &answer(Report::Captured(taken))), Ok(Some(event.clone())), "{status:?}");
            let after = evolve(state.clone(), &recorded(event, 9));
            assert_eq!((after.status(), after.taken()), (Some(Status::Refunding), Some(taken)));
        }
    }
}

#[test]
fn a_refund_ends_with_the_gateways_word() {
    let (order_id, customer_id) = (ORDER, "c-1".to_owned());
    let (command_id, caller, key_hash, fingerprint) = (None, None, None, None);
    let back = PaymentEvent::from(PaymentRefunded {
        order_id,
        customer_id: customer_id.clone(),
        amount: usd(198),
        command_id,
        caller: caller.clone(),
        key_hash: key_hash.clone(),
        fingerprint: fingerprint.clone(),
    });
    let not_back = |reason: &str| {
        let reason = reason.to_owned();
        let (caller, key_hash, fingerprint) = (caller.clone(), key_hash.clone(), fingerprint.clone());
        let customer_id = customer_id.clone();
        let amount = usd(198);
        let event = RefundFailed { order_id, customer_id, amount, reason, command_id, caller, key_hash, fingerprint };
        PaymentEvent::from(event)
    };
    let refunding = in_status(Status::Refunding);
    assert_eq!(decide(&refunding, &answer(Report::Refunded(usd(198)))), Ok(Some(back.clone())));
    let wrong = answer(Report::Refunded(usd(197)));
    assert_eq!(decide(&refunding, &wrong), Ok(Some(not_back("WRONG_AMOUNT"))));
    let refused = answer(Report::RefundRefused("NOT_CAPTURED".to_owned()));
    assert_eq!(decide(&refunding, &refused), Ok(Some(not_back("NOT_CAPTURED"))));
    let failed = in_status(Status::RefundFailed);
    assert_eq!(decide(&failed, &answer(Report::Refunded(usd(198)))), Ok(Some(back)), "it came late");
    assert_eq!(decide(&failed, &refused), Ok(None));
    assert_eq!(decide(&failed, &wrong), Ok(None));
}

#[test]
fn a_word_that_says_nothing_new_is_refused_as_a_command_and_passed_over_as_an_answer() {
    let words = [GatewayResult::Captured, GatewayResult::Declined, GatewayResult::Failed, GatewayResult::Cancelled];
    for (status, state) in all() {
        let refusal = match status {
            Status::Requested | Status::CancelRequested => continue,
            Status::Cancelled => Refusal::AlreadyCancelled,
            Status::Declined => Refusal::AlreadyDeclined,
            Status::Failed => Refusal::AlreadyFailed,
            Status::Captured | Status::Refunding | Status::RefundFailed => Refusal::AlreadyCaptured,
            Status::Refunded => Refusal::AlreadyRefunded,
        };
        for word in words {
            // Money that comes late is news.
            if word == GatewayResult::Captured && state.taken().is_none() {
                continue;
            }
            assert_eq!(decide(&state, &callback(9, word, usd(198))), Err(refusal), "{word} in {status:?}");
        }
        for report in [Report::Declined, Report::Failed, Report::Cancelled] {
            assert_eq!(decide(&state, &answer(report)), Ok(None), "{status:?}");
        }
    }
}

#[test]
fn a_refund_that_nobody_asked_for_is_refused() {
    let when = callback(9, GatewayResult::Refunded, usd(198));
    assert_eq!(decide(&in_status(Status::Captured), &when), Err(Refusal::RefundNotRequested));
    assert_eq!(decide(&in_status(Status::Refunded), &when), Err(Refusal::AlreadyRefunded));
    assert_eq!(decide(&in_status(Status::Declined), &when), Err(Refusal::NotCaptured));
    let wrong = callback(9, GatewayResult::Refunded, usd(1));
    assert_eq!(decide(&in_status(Status::RefundFailed), &wrong), Err(Refusal::WrongAmount));
}

#[test]
fn nobody_can_speak_of_a_payment_that_never_was() {
    for report in [Report::Captured(usd(198)), Report::Declined, Report::Refunded(usd(198))] {
        assert_eq!(decide(&State::Unknown, &answer(report)), Err(Refusal::UnknownPayment));
    }
    let when = callback(9, GatewayResult::Captured, usd(198));
    assert_eq!(decide(&State::Unknown, &when), Err(Refusal::UnknownPayment));
}

#[test]
fn a_key_of_another_order_or_kind_is_refused() {
    for key in ["charge:8", "refund:7", "7", ""] {
        let Input::GatewayResult(mut command) = callback(9, GatewayResult::Captured, usd(198)) else {
            unreachable!("it is one");
        };
        key.clone_into(&mut command.gateway_key);
        let refused = decide(&given(&[reserved()]), &Input::GatewayResult(command));
        assert_eq!(refused, Err(Refusal::WrongKey), "{key}");
    }
}
