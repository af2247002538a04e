//! The rules by example: given a script, when calls and times come, then these books. They stand apart from `rules` for
//! their length.

use crate::entries::{Entry, EventType, Subject};
use crate::ledger::Ledger;
use crate::plan::{GatewayMode, Turn};
use crate::rules::{ChargeOrder, RefundOrder, Refusal};
use crate::script::{ChargeStatus, Script, Telling};

const KEY: &str = "charge:1";

fn order(amount: i64, payment_method: &str) -> ChargeOrder {
    ChargeOrder {
        key: KEY.to_owned(),
        amount,
        currency: "USD".to_owned(),
        payment_method: payment_method.to_owned(),
        callback_url: Some("http://merchant/callback".to_owned()),
    }
}

fn refund_order(key: &str, amount: i64) -> RefundOrder {
    RefundOrder { key: key.to_owned(), charge_key: KEY.to_owned(), amount }
}

fn ids() -> impl FnMut() -> String {
    let mut last = 0;
    move || {
        last += 1;
        format!("evt_{last}")
    }
}

fn enter(ledger: &mut Ledger, entries: Vec<Entry>) {
    for entry in entries {
        ledger.apply(entry);
    }
}

fn charged(payment_method: &str) -> Ledger {
    let mut ledger = Ledger::default();
    let script = Script::of_token(payment_method);
    let entries = ledger.charge(order(100, payment_method), script, 0, &mut ids()).unwrap();
    enter(&mut ledger, entries);
    ledger
}

fn status(ledger: &Ledger) -> ChargeStatus {
    ledger.charges[KEY].status
}

#[test]
fn the_same_call_again_changes_nothing() {
    let ledger = charged("pm_ok");
    let again = ledger.charge(order(100, "pm_ok"), Script::of_token("pm_ok"), 9, &mut ids());
    assert_eq!(again, Ok(Vec::new()));
}

#[test]
fn a_key_with_other_parameters_is_refused() {
    let ledger = charged("pm_ok");
    for other in
        [order(101, "pm_ok"), order(100, "pm_slow"), ChargeOrder { currency: "EUR".to_owned(), ..order(100, "pm_ok") }]
    {
        let script = Script::of_token(&other.payment_method);
        assert_eq!(ledger.charge(other, script, 0, &mut ids()), Err(Refusal::KeyReused));
    }
}

#[test]
fn another_callback_url_is_the_same_call() {
    let ledger = charged("pm_ok");
    let elsewhere = ChargeOrder { callback_url: None, ..order(100, "pm_ok") };
    assert_eq!(ledger.charge(elsewhere, Script::of_token("pm_ok"), 0, &mut ids()), Ok(Vec::new()));
}

#[test]
fn a_slow_charge_is_captured_only_when_due() {
    let mut ledger = charged("pm_slow");
    assert_eq!(ledger.settle(KEY, 2_999, &mut ids()), Vec::new());
    let entries = ledger.settle(KEY, 3_000, &mut ids());
    enter(&mut ledger, entries);
    assert_eq!(status(&ledger), ChargeStatus::Captured);
    assert_eq!(ledger.settle(KEY, 4_000, &mut ids()), Vec::new());
}

#[test]
fn a_cancelled_slow_charge_is_never_captured() {
    let mut ledger = charged("pm_slow");
    let entries = ledger.cancel(KEY, 1);
    enter(&mut ledger, entries);
    assert_eq!(ledger.settle(KEY, 3_000, &mut ids()), Vec::new());
    assert_eq!(status(&ledger), ChargeStatus::Cancelled);
    assert_eq!(ledger.untold, 0);
}

#[test]
fn cancelling_answers_what_is_final() {
    for (token, end) in [
        ("pm_ok", ChargeStatus::Captured),
        ("pm_declined", ChargeStatus::Declined),
        ("pm_failed", ChargeStatus::Failed),
        ("pm_never", ChargeStatus::Cancelled),
        ("pm_checkout", ChargeStatus::Cancelled),
        ("pm_late", ChargeStatus::Captured),
    ] {
        let mut ledger = charged(token);
        let entries = ledger.cancel(KEY, 1);
        enter(&mut ledger, entries);
        assert_eq!(status(&ledger), end, "{token}");
        assert_eq!(ledger.cancel(KEY, 2), Vec::new(), "{token}");
    }
}

#[test]
fn a_charge_that_comes_after_its_cancellation_is_refused() {
    let mut ledger = Ledger::default();
    let entries = ledger.cancel(KEY, 1);
    enter(&mut ledger, entries);
    assert_eq!(status(&ledger), ChargeStatus::Cancelled);
    let late = ledger.charge(order(100, "pm_ok"), Script::of_token("pm_ok"), 2, &mut ids());
    assert_eq!(late, Err(Refusal::Cancelled));
}

#[test]
fn refunds_never_exceed_what_was_captured() {
    let mut ledger = charged("pm_wrong_amount");
    assert_eq!(ledger.charges[KEY].amount, 101);
    let mut refund = |key, amount| {
        let entries = ledger.refund(refund_order(key, amount), 0, Telling::default(), 1, &mut ids())?;
        enter(&mut ledger, entries);
        Ok(())
    };
    assert_eq!(refund("refund:1", 60), Ok(()));
    assert_eq!(refund("refund:2", 42), Err(Refusal::ExceedsCaptured));
    assert_eq!(refund("refund:1", 60), Ok(()));
    assert_eq!(refund("refund:1", 61), Err(Refusal::KeyReused));
    assert_eq!(refund("refund:2", 41), Ok(()));
    assert_eq!(ledger.charges[KEY].refunded, 101);
}

#[test]
fn a_refund_under_way_counts_already() {
    let mut ledger = charged("pm_ok");
    let entries = ledger.refund(refund_order("refund:1", 100), 500, Telling::default(), 0, &mut ids()).unwrap();
    enter(&mut ledger, entries);
    assert_eq!(ledger.charges[KEY].refunded, 0);
    let second = ledger.refund(refund_order("refund:2", 1), 0, Telling::default(), 1, &mut ids());
    assert_eq!(second, Err(Refusal::ExceedsCaptured));
    assert_eq!(ledger.settle_refund("refund:1", 499, &mut ids()), Vec::new());
    let entries = ledger.settle_refund("refund:1", 500, &mut ids());
    enter(&mut ledger, entries);
    assert_eq!(ledger.charges[KEY].refunded, 100);
    assert_eq!(ledger.untold(&Subject::Refund("refund:1".to_owned())).len(), 1);
}

#[test]
fn only_a_capture_can_be_refunded() {
    for token in ["pm_declined", "pm_never", "pm_slow"] {
        let refused = charged(token).refund(refund_order("refund:1", 1), 0, Telling::default(), 0, &mut ids());
        assert_eq!(refused, Err(Refusal::NotCaptured), "{token}");
    }
    let unknown = Ledger::default().refund(refund_order("refund:1", 1), 0, Telling::default(), 0, &mut ids());
    assert_eq!(unknown, Err(Refusal::UnknownCharge));
}

#[test]
fn the_page_serves_a_checkout_charge_once() {
    let mut ledger = charged("pm_checkout");
    let entries = ledger.pay(KEY, ChargeStatus::Captured, 1, &mut ids()).unwrap();
    enter(&mut ledger, entries);
    assert_eq!(ledger.pay(KEY, ChargeStatus::Captured, 2, &mut ids()), Ok(Vec::new()));
    assert_eq!(ledger.pay(KEY, ChargeStatus::Declined, 3, &mut ids()), Err(Refusal::NotPayable));
    let never = charged("pm_never").pay(KEY, ChargeStatus::Captured, 1, &mut ids());
    assert_eq!(never, Err(Refusal::NotPayable));
}

#[test]
fn callbacks_follow_the_script() {
    let told = |script: Script| {
        let entries = Ledger::default().charge(order(100, "pm_ok"), script, 0, &mut ids()).unwrap();
        let Some(Entry::Settled { callbacks, .. }) = entries.into_iter().nth(1) else { panic!("not settled") };
        callbacks.into_iter().map(|callback| (callback.event_id, callback.kind)).collect::<Vec<_>>()
    };
    let event = |id: &str, kind| (id.to_owned(), kind);
    let twice = vec![event("evt_1", EventType::ChargeCaptured); 2];
    assert_eq!(told(Script::of_token("pm_twice")), twice);
    let contradicted = vec![event("evt_1", EventType::ChargeCaptured), event("evt_2", EventType::ChargeDeclined)];
    assert_eq!(told(Script::of_token("pm_late_decline")), contradicted);
    let plan = |mode| Script::of_token("pm_ok").under(Turn { mode, delay: None });
    let double = vec![event("evt_1", EventType::ChargeCaptured), event("evt_2", EventType::ChargeCaptured)];
    assert_eq!(told(plan(GatewayMode::Double)), double);
    assert_eq!(told(plan(GatewayMode::Silent)), Vec::new());
}

#[test]
fn the_books_are_the_fold_of_their_entries_as_written() {
    let mut ledger = Ledger::default();
    let mut written = Vec::new();
    let mut enter = |ledger: &mut Ledger, entries: Vec<Entry>| {
        for entry in entries {
            written.push(serde_json::to_string(&entry).unwrap());
            ledger.apply(entry);
        }
    };
    let entries = ledger.charge(order(100, "pm_twice"), Script::of_token("pm_twice"), 5, &mut ids()).unwrap();
    enter(&mut ledger, entries);
    let entries = ledger.refund(refund_order("refund:1", 40), 0, Telling::default(), 6, &mut ids()).unwrap();
    enter(&mut ledger, entries);
    let entries = ledger.cancel("charge:2", 7);
    enter(&mut ledger, entries);
    enter(&mut ledger, vec![Entry::Told { subject: Subject::Charge(KEY.to_owned()), given_up: false }]);
    let mut read = Ledger::default();
    for line in &written {
        read.apply(serde_json::from_str(line).unwrap());
    }
    assert_eq!(format!("{read:?}"), format!("{ledger:?}"));
    assert_eq!(read.untold, 2);
}
