//! A batch as the engine runs it, without an engine: decode, load, decide, evolve, save, send; and the fold of its events.

use engine::service::{EffectMark, Homes, Outcome, Service, Try};
use events::code::{CancelReason, Channel, NoticeKind};
use events::codec::Codec;
use events::id::{EventId, OrderId};
use events::money::{Currency, Money};
use events::notification::NotificationEvent;
use events::order::{OrderCancelled, OrderConfirmed, OrderEvent};
use events::payment::{PaymentCaptured, PaymentEvent, PaymentRequested};
use events::record::{Recorded, SetBy};
use events::time::Timestamp;
use notify_svc::app::replay;
use notify_svc::contact::Contact;
use notify_svc::processor::{Input, Notices};
use notify_svc::store;
use sqlx::PgConnection;

use crate::database;
use crate::sink::SinkStand;

const NOW: Timestamp = Timestamp(1_767_225_600_000);
const PAY_BY: Timestamp = Timestamp(NOW.0 + 900_000);
const HALF_WAY: Timestamp = Timestamp(NOW.0 + 450_000);
const P: i32 = 0;
/// All keys are of partition 0.
pub(crate) const HOMES: Homes = Homes { partitions: 1 };

fn usd(amount: i64) -> Money {
    Money::new(amount, Currency::USD)
}

fn decode(topic: &str, value: &[u8]) -> Option<Input> {
    let decoded = replay().decode(&Codec::numbered(), topic, value, NOW).unwrap()?;
    assert!(decoded.command.is_none());
    Some(decoded.input)
}

fn order(event: impl Into<OrderEvent>) -> Option<Input> {
    decode(OrderEvent::TOPIC, &event.into().encode(&Codec::numbered()).unwrap())
}

fn payment(event: impl Into<PaymentEvent>) -> Option<Input> {
    decode(PaymentEvent::TOPIC, &event.into().encode(&Codec::numbered()).unwrap())
}

fn confirmed(order_id: i64, customer: &str) -> Input {
    let (order_id, customer_id) = (OrderId(order_id), customer.to_owned());
    order(OrderConfirmed { order_id, version: 2, customer_id, lines: Vec::new(), total: usd(198) }).unwrap()
}

fn cancelled(order_id: i64, customer: &str) -> Input {
    let event = OrderCancelled {
        order_id: OrderId(order_id),
        version: 2,
        customer_id: customer.to_owned(),
        lines: Vec::new(),
        total: usd(198),
        reason: CancelReason::OutOfStock,
        customer_reason: None,
        command_id: None,
        caller: None,
        key_hash: None,
        fingerprint: None,
    };
    order(event).unwrap()
}

fn requested(order_id: i64, customer: &str) -> Input {
    let event = PaymentRequested {
        order_id: OrderId(order_id),
        customer_id: customer.to_owned(),
        total: usd(198),
        payment_method: "pm_never".to_owned(),
        pay_by: PAY_BY,
        pay_url: None,
    };
    payment(event).unwrap()
}

/// One batch; returns its events as the log would have them, and the effects it asks for.
async fn batch(
    conn: &mut PgConnection,
    inputs: &[Input],
    sequence: i64,
) -> (Vec<Recorded<NotificationEvent>>, Vec<EffectMark>) {
    let service = replay();
    let wanted: Vec<&Input> = inputs.iter().collect();
    let mut states = service.load(conn, &wanted, &[]).await.unwrap();
    let mut log = Vec::new();
    for input in inputs {
        if let Some(event) = service.decide(&states, input, NOW).unwrap() {
            let sequence = sequence + i64::try_from(log.len()).unwrap();
            let recorded = Recorded { event, id: EventId(sequence + 500), sequence, at: NOW };
            service.evolve(&mut states, &recorded);
            log.push(recorded);
        }
    }
    service.save(conn, HOMES, &states).await.unwrap();
    (log, service.effects_set(&states))
}

/// Reads and tries these effects as the engine does, and returns their answers.
async fn perform(conn: &mut PgConnection, service: &Notices, marks: &[EffectMark], now: Timestamp) -> Vec<Input> {
    let mut answers = Vec::new();
    for (_, effect) in service.effects_read(conn, P, marks).await.unwrap() {
        match service.perform(&effect, Try { number: 1, may_have_called: false, now }).await {
            Outcome::Answer(answer) => answers.push(answer),
            other => panic!("{other:?}"),
        }
    }
    answers
}

fn names(log: &[Recorded<NotificationEvent>]) -> Vec<&'static str> {
    log.iter().map(|recorded| recorded.event.short_name()).collect()
}

async fn rows(conn: &mut PgConnection) -> Vec<String> {
    let rows = "SELECT to_jsonb(t)::text FROM notices AS t ORDER BY order_id, kind";
    let rows: Vec<(String,)> = sqlx::query_as(rows).fetch_all(conn).await.unwrap();
    rows.into_iter().map(|(row,)| row).collect()
}

async fn put(conn: &mut PgConnection, customer: &str, email: Option<&str>, phone: Option<&str>) {
    let contact = Contact { email: email.map(str::to_owned), phone: phone.map(str::to_owned) };
    store::put_contact(conn, customer, &contact).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_goes_to_the_channels_that_have_a_contact() {
    let pool = database::migrated().await;
    let mut conn = pool.acquire().await.unwrap();
    put(&mut conn, "ann", Some("ann@example.test"), Some("+4930123456")).await;
    put(&mut conn, "bob", None, Some("+4930123457")).await;
    put(&mut conn, "eve", None, None).await;
    let inputs = [confirmed(1, "ann"), confirmed(2, "bob"), cancelled(3, "eve"), cancelled(4, "nobody")];
    let (log, marks) = batch(&mut conn, &inputs, 1).await;
    let channels: Vec<Vec<Channel>> = log
        .iter()
        .map(|recorded| match &recorded.event {
            NotificationEvent::NotificationScheduled(event) => event.channels.clone(),
            _ => Vec::new(),
        })
        .collect();
    assert_eq!(channels, [vec![Channel::Email, Channel::Sms], vec![Channel::Sms], vec![], vec![]]);
    assert_eq!(names(&log)[2..], ["NotificationSkipped", "NotificationSkipped"]);
    let named: Vec<_> = marks.iter().map(|mark| (mark.key, mark.kind, mark.not_before)).collect();
    let expected = [(1, "ORDER_CONFIRMED.EMAIL"), (1, "ORDER_CONFIRMED.SMS"), (2, "ORDER_CONFIRMED.SMS")];
    assert_eq!(named, expected.map(|(key, kind)| (key, kind, None)));
    let about = replay().about(&log[0].event);
    assert_eq!((about.key, about.correlation, about.command), (1, Some(1), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_is_sent_answered_and_asked_for_no_more() {
    let pool = database::migrated().await;
    let mut conn = pool.acquire().await.unwrap();
    let sink = SinkStand::start().await;
    let service = Notices { mailer: Some(sink.mailer.clone()) };
    put(&mut conn, "ann", Some("ann@example.test"), Some("+4930123456")).await;
    let (_, marks) = batch(&mut conn, &[confirmed(1, "ann")], 1).await;
    assert_eq!(service.effects_due(&mut conn, P).await.unwrap(), marks, "found again at the next assignment");
    let answers = perform(&mut conn, &service, &marks, NOW).await;
    let (log, more) = batch(&mut conn, &answers, 2).await;
    assert_eq!(names(&log), ["NotificationSent", "NotificationSent"]);
    assert_eq!((more, service.effects_due(&mut conn, P).await.unwrap()), (vec![], vec![]));
    assert!(service.effects_read(&mut conn, P, &marks).await.unwrap().is_empty());
    assert_eq!(sink.messages().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reminder_waits_for_its_time_and_is_skipped_when_the_order_is_settled_by_then() {
    let pool = database::migrated().await;
    let mut conn = pool.acquire().await.unwrap();
    let sink = SinkStand::start().await;
    let service = Notices { mailer: Some(sink.mailer.clone()) };
    put(&mut conn, "ann", Some("ann@example.test"), None).await;
    let (_, marks) = batch(&mut conn, &[requested(1, "ann"), requested(2, "ann")], 1).await;
    assert!(marks.iter().all(|mark| mark.not_before == Some(HALF_WAY)), "{marks:?}");
    assert_eq!(service.effects_due(&mut conn, P).await.unwrap(), marks);
    batch(&mut conn, &[confirmed(1, "ann")], 3).await;
    let answers = perform(&mut conn, &service, &marks, HALF_WAY).await;
    let (log, _) = batch(&mut conn, &answers, 4).await;
    assert_eq!(names(&log), ["NotificationSkipped", "NotificationSent"]);
    let messages = sink.messages().await;
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0]["message_id"], "2.PAYMENT_REMINDER.EMAIL@orderlog");
}

#[tokio::test(flavor = "multi_thread")]
async fn contacts_that_are_gone_when_a_notice_is_due_end_it() {
    let pool = database::migrated().await;
    let mut conn = pool.acquire().await.unwrap();
    let sink = SinkStand::start().await;
    let service = Notices { mailer: Some(sink.mailer.clone()) };
    for customer in ["ann", "bob"] {
        put(&mut conn, customer, Some("x@example.test"), Some("+4930123456")).await;
    }
    let (_, marks) = batch(&mut conn, &[confirmed(1, "ann"), confirmed(2, "bob")], 1).await;
    store::delete_contact(&mut conn, "ann").await.unwrap();
    put(&mut conn, "bob", None, Some("+4930123456")).await;
    let answers = perform(&mut conn, &service, &marks, NOW).await;
    let (log, _) = batch(&mut conn, &answers, 3).await;
    assert_eq!(names(&log), ["NotificationSkipped", "NotificationFailed", "NotificationSent"]);
    assert_eq!(service.effects_due(&mut conn, P).await.unwrap(), []);
    assert_eq!(sink.messages().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_effect_that_was_asked_for_by_another_event_is_not_this_one() {
    let pool = database::migrated().await;
    let mut conn = pool.acquire().await.unwrap();
    put(&mut conn, "ann", Some("ann@example.test"), None).await;
    let (_, marks) = batch(&mut conn, &[confirmed(1, "ann")], 1).await;
    let other = EffectMark { set_by: SetBy { event_id: EventId(1), sequence: 99 }, ..marks[0] };
    assert!(replay().effects_read(&mut conn, P, &[other]).await.unwrap().is_empty());
    assert_eq!(replay().effects_read(&mut conn, P, &marks).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fold_of_the_events_gives_the_live_rows() {
    let live = database::migrated().await;
    let mut live = live.acquire().await.unwrap();
    let sink = SinkStand::start().await;
    let service = Notices { mailer: Some(sink.mailer.clone()) };
    put(&mut live, "ann", Some("ann@example.test"), Some("+4930123456")).await;
    let inputs = [requested(1, "ann"), requested(2, "ann"), requested(3, "nobody"), confirmed(1, "ann")];
    let (mut log, mut marks) = batch(&mut live, &inputs, 1).await;
    let (more, set) = batch(&mut live, &[confirmed(1, "ann"), cancelled(2, "ann"), requested(4, "ann")], 5).await;
    log.extend(more);
    marks.extend(set);
    marks.retain(|mark| mark.key != 4);
    let answers = perform(&mut live, &service, &marks, HALF_WAY).await;
    log.extend(batch(&mut live, &answers, 7).await.0);
    assert_eq!(log.len(), 12, "{:?}", names(&log));

    for size in [1, 3, 100] {
        let folded = database::migrated().await;
        let mut folded = folded.acquire().await.unwrap();
        for chunk in log.chunks(size) {
            let events: Vec<&NotificationEvent> = chunk.iter().map(|recorded| &recorded.event).collect();
            let mut states = replay().load(&mut folded, &[], &events).await.unwrap();
            chunk.iter().for_each(|recorded| replay().evolve(&mut states, recorded));
            replay().save(&mut folded, HOMES, &states).await.unwrap();
        }
        assert_eq!(rows(&mut folded).await, rows(&mut live).await, "in batches of {size}");
        let due = replay().effects_due(&mut folded, P).await.unwrap();
        assert_eq!(due, replay().effects_due(&mut live, P).await.unwrap(), "effects are rebuilt too");
        assert_eq!(due.iter().map(|mark| mark.key).collect::<Vec<_>>(), [4, 4]);
    }
}

#[test]
fn what_a_customer_is_not_told_of_is_passed_over() {
    let captured = PaymentCaptured {
        order_id: OrderId(1),
        customer_id: "ann".to_owned(),
        amount: usd(198),
        refund_due: false,
        command_id: None,
        caller: None,
        key_hash: None,
        fingerprint: None,
    };
    assert!(payment(captured).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_effect_has_a_name_of_its_own_that_leads_back() {
    let pool = database::migrated().await;
    let mut conn = pool.acquire().await.unwrap();
    put(&mut conn, "ann", Some("ann@example.test"), Some("+4930123456")).await;
    let inputs: Vec<Input> = vec![requested(1, "ann"), confirmed(1, "ann"), cancelled(2, "ann")];
    let (_, marks) = batch(&mut conn, &inputs, 1).await;
    let read = replay().effects_read(&mut conn, P, &marks).await.unwrap();
    assert_eq!(read.iter().map(|(mark, _)| *mark).collect::<Vec<_>>(), marks);
    assert_eq!(NoticeKind::ALL.len() * Channel::ALL.len(), 10, "a new kind or channel needs names of effects");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_that_an_operator_discards_has_failed_on_its_channel_alone() {
    let pool = database::migrated().await;
    let mut conn = pool.acquire().await.unwrap();
    put(&mut conn, "c-1", Some("ann@example.test"), Some("+4930123456")).await;
    let (_, marks) = batch(&mut conn, &[confirmed(1, "c-1")], 1).await;
    let mail = marks.iter().find(|mark| mark.kind == "ORDER_CONFIRMED.EMAIL").unwrap();
    let input = replay().discard_effect(mail.key, mail.kind).unwrap();
    let (log, _) = batch(&mut conn, &[input], 2).await;
    let NotificationEvent::NotificationFailed(failed) = &log[0].event else { panic!("{log:?}") };
    assert_eq!((failed.channel, failed.reason.as_str()), (Channel::Email, "DISCARDED"));
    let left = replay().effects_read(&mut conn, P, &marks).await.unwrap();
    assert_eq!(left.iter().map(|(mark, _)| mark.kind).collect::<Vec<_>>(), ["ORDER_CONFIRMED.SMS"]);
    assert!(replay().discard_effect(mail.key, "charge").is_none());
}
