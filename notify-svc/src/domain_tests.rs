//! The rules of the notices by example: given inputs, when another one comes, then an event or nothing.
//!
//! Rules that hold for all sequences of inputs are in `domain_properties`.

use events::code::{CancelReason, Channel, NoticeKind, SkipReason};
use events::id::{EventId, OrderId};
use events::money::{Currency, Money};
use events::notification::{
    NotificationEvent, NotificationFailed, NotificationScheduled, NotificationSent, NotificationSkipped,
};
use events::order::{OrderCancelled, OrderConfirmed, OrderEvent, OrderExpired};
use events::payment::{PaymentCaptured, PaymentEvent, PaymentRefunded, PaymentRequested};
use events::record::{Recorded, SetBy};
use events::time::Timestamp;

use crate::domain::{
    AGE_MAX, Delivery, Due, Fate, Input, Letter, Occasion, Refusal, Report, State, decide, evolve, message_id, obstacle,
};

pub(crate) const ORDER: OrderId = OrderId(7);
/// When everything happens, and when the order must be paid.
pub(crate) const AT: Timestamp = Timestamp(1_000_000);
const PAY_BY: Timestamp = Timestamp(1_900_000);
pub(crate) const BOTH: [Channel; 2] = [Channel::Email, Channel::Sms];
const KINDS: &[NoticeKind] = NoticeKind::ALL;

fn usd(amount: i64) -> Money {
    Money::new(amount, Currency::USD)
}

fn letter(kind: NoticeKind) -> Letter {
    let total = Some(usd(198));
    match kind {
        NoticeKind::OrderConfirmed | NoticeKind::OrderExpired | NoticeKind::PaymentRefunded => {
            Letter { total, ..Letter::default() }
        }
        NoticeKind::OrderCancelled => Letter { total, reason: Some("OUT_OF_STOCK".to_owned()), ..Letter::default() },
        NoticeKind::PaymentReminder => {
            let pay_url = Some("http://pay.test/charge:7".to_owned());
            Letter { total, reason: None, pay_by: Some(PAY_BY), pay_url }
        }
    }
}

fn occasion(kind: NoticeKind) -> Occasion {
    Occasion { order_id: ORDER, customer_id: "c-1".to_owned(), kind, letter: letter(kind), at: AT }
}

pub(crate) fn told_at(kind: NoticeKind, reachable: &[Channel], now: Timestamp) -> Input {
    Input::Occasion { occasion: occasion(kind), reachable: reachable.to_vec(), now }
}

pub(crate) fn told(kind: NoticeKind) -> Input {
    told_at(kind, &BOTH, AT)
}

pub(crate) fn answer(kind: NoticeKind, channel: Channel, report: Report) -> Input {
    Input::Answer { order_id: ORDER, kind, channel, report }
}

/// The event as the log would have it: the n-th, a second after the one before.
pub(crate) fn recorded(event: NotificationEvent, n: i64) -> Recorded<NotificationEvent> {
    Recorded { event, id: EventId(100 + n), sequence: n, at: Timestamp(AT.0 + n * 1_000) }
}

/// The state after these inputs, each of which must be taken.
fn given(inputs: &[Input]) -> State {
    let mut state = State::default();
    for (n, input) in (1..).zip(inputs) {
        let event = decide(&state, input).expect("each of them is taken").expect("each of them says something");
        state = evolve(state, &recorded(event, n));
    }
    state
}

fn scheduled(kind: NoticeKind, channels: &[Channel], due_at: Timestamp) -> NotificationEvent {
    let Letter { total, reason, pay_by, pay_url } = letter(kind);
    NotificationEvent::from(NotificationScheduled {
        order_id: ORDER,
        customer_id: "c-1".to_owned(),
        kind,
        channels: channels.to_vec(),
        due_at,
        total,
        reason,
        pay_by,
        pay_url,
    })
}

fn skipped(kind: NoticeKind, reason: SkipReason) -> NotificationEvent {
    NotificationEvent::from(NotificationSkipped { order_id: ORDER, customer_id: "c-1".to_owned(), kind, reason })
}

fn failed(kind: NoticeKind, channel: Channel, reason: &str) -> NotificationEvent {
    let (customer_id, reason) = ("c-1".to_owned(), reason.to_owned());
    NotificationEvent::from(NotificationFailed { order_id: ORDER, customer_id, kind, channel, reason })
}

// Happy path

#[test]
fn how_an_order_ends_is_told_at_once_on_every_channel() {
    let now = Timestamp(AT.0 + 5);
    for kind in [NoticeKind::OrderConfirmed, NoticeKind::OrderCancelled, NoticeKind::OrderExpired] {
        let then = scheduled(kind, &BOTH, now);
        assert_eq!(decide(&State::default(), &told_at(kind, &BOTH, now)), Ok(Some(then)));
        let only = scheduled(kind, &[Channel::Sms], now);
        assert_eq!(decide(&State::default(), &told_at(kind, &[Channel::Sms], now)), Ok(Some(only)));
    }
}

#[test]
fn a_reminder_is_due_when_half_of_the_time_to_pay_is_over() {
    let then = scheduled(NoticeKind::PaymentReminder, &BOTH, Timestamp(1_450_000));
    assert_eq!(decide(&State::default(), &told(NoticeKind::PaymentReminder)), Ok(Some(then)));
}

#[test]
fn money_that_went_back_is_told_after_the_end_of_the_order_too() {
    for before in [&[][..], &[told(NoticeKind::OrderCancelled)]] {
        let then = scheduled(NoticeKind::PaymentRefunded, &BOTH, AT);
        assert_eq!(decide(&given(before), &told(NoticeKind::PaymentRefunded)), Ok(Some(then)));
    }
}

#[test]
fn each_channel_is_sent_by_itself() {
    let kind = NoticeKind::OrderConfirmed;
    let state = given(&[told(kind)]);
    let set_by = SetBy { event_id: EventId(101), sequence: 1 };
    let Fate::Scheduled { set_by: asked_by, channels, .. } = &state.notices[&kind].fate else {
        panic!("must be scheduled");
    };
    assert_eq!(*asked_by, set_by);
    assert!(channels.values().all(|delivery| *delivery == Delivery::Pending));
    let sent = NotificationSent {
        order_id: ORDER,
        customer_id: "c-1".to_owned(),
        kind,
        channel: Channel::Email,
        message_id: "7.ORDER_CONFIRMED.EMAIL@orderlog".to_owned(),
    };
    let when = answer(kind, Channel::Email, Report::Sent);
    assert_eq!(decide(&state, &when), Ok(Some(NotificationEvent::from(sent))));
    let state = given(&[told(kind), when]);
    assert_eq!(state.notices[&kind].delivery(Channel::Email), Some(Delivery::Sent));
    assert_eq!(state.notices[&kind].delivery(Channel::Sms), Some(Delivery::Pending));
}

#[test]
fn a_message_id_names_order_kind_and_channel() {
    let mut ids: Vec<_> = KINDS.iter().flat_map(|kind| BOTH.map(|channel| message_id(ORDER, *kind, channel))).collect();
    ids.push(message_id(OrderId(8), NoticeKind::OrderExpired, Channel::Sms));
    assert_eq!(ids[0], "7.ORDER_CONFIRMED.EMAIL@orderlog");
    ids.sort_unstable();
    let all = ids.len();
    ids.dedup();
    assert_eq!(ids.len(), all);
}

// Compensation: nothing is sent

#[test]
fn who_cannot_be_reached_is_not_written_to() {
    for kind in KINDS {
        let then = skipped(*kind, SkipReason::NoContact);
        assert_eq!(decide(&State::default(), &told_at(*kind, &[], AT)), Ok(Some(then)));
    }
}

#[test]
fn what_happened_more_than_a_day_ago_is_not_told() {
    let (day, longer) = (AT.plus(AGE_MAX), Timestamp(AT.plus(AGE_MAX).0 + 1));
    for kind in KINDS {
        let in_time = decide(&State::default(), &told_at(*kind, &BOTH, day));
        assert!(matches!(in_time, Ok(Some(NotificationEvent::NotificationScheduled(_)))), "{kind}");
        for reachable in [&BOTH[..], &[]] {
            let then = skipped(*kind, SkipReason::TooOld);
            assert_eq!(decide(&State::default(), &told_at(*kind, reachable, longer)), Ok(Some(then)));
        }
    }
}

#[test]
fn nobody_is_reminded_of_a_settled_order() {
    let kind = NoticeKind::PaymentReminder;
    let then = skipped(kind, SkipReason::Settled);
    for end in [NoticeKind::OrderConfirmed, NoticeKind::OrderCancelled, NoticeKind::OrderExpired] {
        let before = [told_at(end, &[], AT)];
        assert!(given(&before).is_settled(), "also when the end could not be told");
        assert_eq!(decide(&given(&before), &told(kind)), Ok(Some(then.clone())));
        let state = given(&[told(kind), told(end)]);
        assert_eq!(decide(&state, &answer(kind, Channel::Sms, Report::Settled)), Ok(Some(then.clone())));
    }
    for kind in [NoticeKind::PaymentReminder, NoticeKind::PaymentRefunded] {
        assert!(!given(&[told(kind)]).is_settled());
    }
}

#[test]
fn a_refused_letter_fails_on_its_channel_only() {
    let kind = NoticeKind::OrderExpired;
    let when = answer(kind, Channel::Email, Report::Refused("SMTP_550".to_owned()));
    let then = failed(kind, Channel::Email, "SMTP_550");
    assert_eq!(decide(&given(&[told(kind)]), &when), Ok(Some(then)));
    let state = given(&[told(kind), when]);
    assert_eq!(state.notices[&kind].delivery(Channel::Email), Some(Delivery::Failed));
    assert_eq!(state.notices[&kind].delivery(Channel::Sms), Some(Delivery::Pending));
}

#[test]
fn a_contact_that_is_gone_when_it_is_needed_skips_what_was_not_sent() {
    let kind = NoticeKind::OrderConfirmed;
    let state = given(&[told(kind)]);
    let gone = answer(kind, Channel::Sms, Report::NoContact);
    assert_eq!(decide(&state, &gone), Ok(Some(skipped(kind, SkipReason::NoContact))));
    let old = answer(kind, Channel::Sms, Report::TooOld);
    assert_eq!(decide(&state, &old), Ok(Some(skipped(kind, SkipReason::TooOld))));
    let one_gone = answer(kind, Channel::Sms, Report::ChannelGone);
    assert_eq!(decide(&state, &one_gone), Ok(Some(failed(kind, Channel::Sms, "NO_CONTACT"))));
    let half_sent = given(&[told(kind), answer(kind, Channel::Email, Report::Sent)]);
    assert_eq!(decide(&half_sent, &gone), Ok(Some(failed(kind, Channel::Sms, "NO_CONTACT"))));
    assert_eq!(decide(&half_sent, &old), Ok(Some(failed(kind, Channel::Sms, "TOO_OLD"))));
}

#[test]
fn what_is_due_meets_its_obstacles_first() {
    let due = |kind, settled, reachable: &[Channel]| Due {
        order_id: ORDER,
        kind,
        channel: Channel::Email,
        due_at: AT,
        settled,
        reachable: reachable.to_vec(),
    };
    let (day, longer) = (AT.plus(AGE_MAX), Timestamp(AT.plus(AGE_MAX).0 + 1));
    for kind in KINDS {
        let settled = (*kind == NoticeKind::PaymentReminder).then_some(Report::Settled);
        assert_eq!(obstacle(&due(*kind, true, &BOTH), day), settled, "only a reminder can be out of place");
        assert_eq!(obstacle(&due(*kind, false, &BOTH), day), None);
        assert_eq!(obstacle(&due(*kind, false, &BOTH), longer), Some(Report::TooOld));
        assert_eq!(obstacle(&due(*kind, false, &[]), AT), Some(Report::NoContact));
        assert_eq!(obstacle(&due(*kind, false, &[Channel::Sms]), AT), Some(Report::ChannelGone));
    }
}

// Repeats and strangers

#[test]
fn nothing_is_told_twice() {
    for kind in KINDS {
        for before in [told(*kind), told_at(*kind, &[], AT)] {
            let state = given(&[before]);
            for again in [told(*kind), told_at(*kind, &[], AT)] {
                assert_eq!(decide(&state, &again), Ok(None), "{kind}");
            }
        }
    }
}

#[test]
fn an_order_ends_once() {
    let ends = [NoticeKind::OrderConfirmed, NoticeKind::OrderCancelled, NoticeKind::OrderExpired];
    for (first, second) in ends.iter().flat_map(|first| ends.map(|second| (*first, second))) {
        assert_eq!(decide(&given(&[told(first)]), &told(second)), Ok(None), "{second} after {first}");
    }
}

#[test]
fn an_answer_that_comes_again_changes_nothing() {
    let kind = NoticeKind::OrderConfirmed;
    let ends = [Report::Sent, Report::Refused("X".to_owned()), Report::NoContact];
    for (first, second) in ends.iter().flat_map(|first| ends.iter().map(move |second| (first, second))) {
        let state = given(&[told(kind), answer(kind, Channel::Email, first.clone())]);
        let again = answer(kind, Channel::Email, second.clone());
        assert_eq!(decide(&state, &again), Ok(None), "{second:?} after {first:?}");
    }
    let skipped = given(&[told(kind), answer(kind, Channel::Email, Report::NoContact)]);
    assert_eq!(decide(&skipped, &answer(kind, Channel::Sms, Report::Sent)), Ok(None), "the whole notice is settled");
}

#[test]
fn nobody_can_speak_of_a_notice_that_never_was() {
    let kind = NoticeKind::OrderConfirmed;
    let when = answer(kind, Channel::Email, Report::Sent);
    assert_eq!(decide(&State::default(), &when), Err(Refusal::UnknownNotice));
    let by_sms = given(&[told_at(kind, &[Channel::Sms], AT)]);
    assert_eq!(decide(&by_sms, &when), Err(Refusal::UnknownNotice));
}

// Foreign events

#[test]
fn the_end_of_an_order_is_an_occasion() {
    let (order_id, customer_id, total) = (ORDER, "c-1".to_owned(), usd(198));
    let lines = Vec::new;
    let confirmed = OrderConfirmed { order_id, version: 2, customer_id: customer_id.clone(), lines: lines(), total };
    let expired =
        OrderExpired { order_id, version: 2, customer_id: customer_id.clone(), lines: lines(), total, pay_by: PAY_BY };
    let cancelled = OrderCancelled {
        order_id,
        version: 2,
        customer_id,
        lines: lines(),
        total,
        reason: CancelReason::OutOfStock,
        customer_reason: None,
        command_id: None,
        caller: None,
        key_hash: None,
        fingerprint: None,
    };
    let occasions = [
        (OrderEvent::from(confirmed), NoticeKind::OrderConfirmed),
        (OrderEvent::from(cancelled), NoticeKind::OrderCancelled),
        (OrderEvent::from(expired), NoticeKind::OrderExpired),
    ];
    for (event, kind) in occasions {
        assert_eq!(Occasion::from_order(event, AT), Some(occasion(kind)));
    }
}

#[test]
fn of_a_payment_only_its_request_and_a_refund_are_occasions() {
    let (order_id, customer_id) = (ORDER, "c-1".to_owned());
    let (command_id, caller, key_hash, fingerprint) = (None, None, None, None);
    let requested = PaymentRequested {
        order_id,
        customer_id: customer_id.clone(),
        total: usd(198),
        payment_method: "pm_checkout".to_owned(),
        pay_by: PAY_BY,
        pay_url: Some("http://pay.test/charge:7".to_owned()),
    };
    let occasion_of = |event| Occasion::from_payment(event, AT);
    assert_eq!(occasion_of(PaymentEvent::from(requested)), Some(occasion(NoticeKind::PaymentReminder)));
    let captured = PaymentCaptured {
        order_id,
        customer_id: customer_id.clone(),
        amount: usd(198),
        refund_due: false,
        command_id,
        caller: caller.clone(),
        key_hash: key_hash.clone(),
        fingerprint: fingerprint.clone(),
    };
    assert_eq!(occasion_of(PaymentEvent::from(captured)), None, "the confirmation that follows says so");
    let amount = usd(198);
    let refunded = PaymentRefunded { order_id, customer_id, amount, command_id, caller, key_hash, fingerprint };
    assert_eq!(occasion_of(PaymentEvent::from(refunded)), Some(occasion(NoticeKind::PaymentRefunded)));
}
