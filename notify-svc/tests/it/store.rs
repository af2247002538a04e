//! What is written is read again: every kind of notice, what is pending, and contacts.

use std::collections::BTreeMap;

use events::code::{Channel, NoticeKind, SkipReason};
use events::id::{EventId, OrderId};
use events::money::{Currency, Money};
use events::record::SetBy;
use events::time::Timestamp;
use notify_svc::contact::Contact;
use notify_svc::state::{Delivery, Fate, Letter, Notice, State};
use notify_svc::store::{self, Pending};

use crate::batch::HOMES;
use crate::database;

const T0: i64 = 1_767_225_600_000;

fn full() -> Letter {
    Letter {
        total: Some(Money::new(i64::MAX, Currency::parse("EUR").unwrap())),
        reason: Some("OUT_OF_STOCK".to_owned()),
        pay_by: Some(Timestamp(T0 + 7)),
        pay_url: Some("http://pay.test/checkout/charge:1?x=\u{1f350}".to_owned()),
    }
}

fn scheduled(n: i64, letter: Letter, channels: &[(Channel, Delivery)]) -> Notice {
    let fate = Fate::Scheduled {
        letter,
        due_at: Timestamp(T0 + n),
        set_by: SetBy { event_id: EventId(n + 1_000), sequence: n },
        channels: channels.iter().copied().collect(),
    };
    Notice { customer_id: format!("c-{n}"), fate, updated_at: Timestamp(T0 + 1) }
}

fn skipped(reason: SkipReason) -> Notice {
    Notice { customer_id: "c-9".to_owned(), fate: Fate::Skipped(reason), updated_at: Timestamp(T0 + 2) }
}

/// One of each kind, for two orders.
fn all() -> BTreeMap<(OrderId, NoticeKind), Notice> {
    use Channel::{Email, Sms};
    use Delivery::{Failed, Pending, Sent};
    let one = |kind, notice| ((OrderId(1), kind), notice);
    [
        one(NoticeKind::PaymentReminder, scheduled(4, full(), &[(Email, Pending), (Sms, Pending)])),
        one(NoticeKind::OrderConfirmed, scheduled(2, Letter::default(), &[(Email, Sent), (Sms, Pending)])),
        one(NoticeKind::OrderCancelled, scheduled(3, full(), &[(Sms, Failed)])),
        one(NoticeKind::OrderExpired, skipped(SkipReason::NoContact)),
        one(NoticeKind::PaymentRefunded, skipped(SkipReason::TooOld)),
        ((OrderId(2), NoticeKind::OrderConfirmed), skipped(SkipReason::Settled)),
    ]
    .into()
}

fn borrowed(notices: &BTreeMap<(OrderId, NoticeKind), Notice>) -> BTreeMap<(OrderId, NoticeKind), &Notice> {
    notices.iter().map(|(key, notice)| (*key, notice)).collect()
}

fn states(notices: &BTreeMap<(OrderId, NoticeKind), Notice>) -> BTreeMap<OrderId, State> {
    let mut states: BTreeMap<OrderId, State> = BTreeMap::new();
    for ((order_id, kind), notice) in notices {
        states.entry(*order_id).or_default().notices.insert(*kind, notice.clone());
    }
    states
}

#[tokio::test]
async fn every_kind_of_notice_reads_back() {
    let pool = database::migrated().await;
    let mut conn = pool.acquire().await.unwrap();
    store::insert_notices(&mut conn, HOMES, &borrowed(&all())).await.unwrap();
    assert_eq!(store::load_notices(&mut conn, &[2, 1, 99]).await.unwrap(), states(&all()));
    store::update_notices(&mut conn, &borrowed(&all())).await.unwrap();
    assert_eq!(store::load_notices(&mut conn, &[2, 1, 99]).await.unwrap(), states(&all()));
}

#[tokio::test]
async fn a_notice_that_is_sent_still_says_what_it_said() {
    let pool = database::migrated().await;
    let mut conn = pool.acquire().await.unwrap();
    let (sent, open) = ((OrderId(1), NoticeKind::PaymentReminder), (OrderId(1), NoticeKind::OrderCancelled));
    let pending = [(Channel::Email, Delivery::Pending), (Channel::Sms, Delivery::Pending)];
    let notice = scheduled(4, full(), &pending);
    store::insert_notices(&mut conn, HOMES, &BTreeMap::from([(sent, &notice), (open, &notice)])).await.unwrap();
    let after = scheduled(4, full(), &[(Channel::Email, Delivery::Sent), (Channel::Sms, Delivery::Failed)]);
    store::update_notices(&mut conn, &BTreeMap::from([(sent, &after)])).await.unwrap();
    let expected = states(&BTreeMap::from([(sent, after), (open, notice)]));
    assert_eq!(store::load_notices(&mut conn, &[1]).await.unwrap(), expected);
}

#[tokio::test]
async fn a_notice_without_a_row_is_not_passed_over() {
    let pool = database::migrated().await;
    let mut conn = pool.acquire().await.unwrap();
    let all = all();
    let missing = store::update_notices(&mut conn, &borrowed(&all)).await;
    assert!(matches!(missing, Err(sqlx::Error::RowNotFound)), "{missing:?}");
}

#[tokio::test]
async fn a_notice_that_is_skipped_later_leaves_nothing_pending() {
    let pool = database::migrated().await;
    let mut conn = pool.acquire().await.unwrap();
    let key = (OrderId(1), NoticeKind::PaymentReminder);
    let before = scheduled(4, full(), &[(Channel::Email, Delivery::Pending)]);
    store::insert_notices(&mut conn, HOMES, &BTreeMap::from([(key, &before)])).await.unwrap();
    let after = Notice { customer_id: "c-4".to_owned(), ..skipped(SkipReason::Settled) };
    store::update_notices(&mut conn, &BTreeMap::from([(key, &after)])).await.unwrap();
    assert_eq!(store::load_notices(&mut conn, &[1]).await.unwrap(), states(&BTreeMap::from([(key, after)])));
    assert_eq!(store::pending_notices(&mut conn, 0).await.unwrap(), []);
}

#[tokio::test]
async fn what_is_pending_is_found_by_partition_in_the_order_it_was_asked_for() {
    let pool = database::migrated().await;
    let mut conn = pool.acquire().await.unwrap();
    store::insert_notices(&mut conn, HOMES, &borrowed(&all())).await.unwrap();
    assert_eq!(store::pending_notices(&mut conn, 1).await.unwrap(), []);
    let pending = |kind, n: i64, channels: &[Channel]| Pending {
        order_id: OrderId(1),
        kind,
        channels: channels.to_vec(),
        due_at: Timestamp(T0 + n),
        set_by: SetBy { event_id: EventId(n + 1_000), sequence: n },
    };
    let expected = [
        pending(NoticeKind::OrderConfirmed, 2, &[Channel::Sms]),
        pending(NoticeKind::PaymentReminder, 4, &[Channel::Email, Channel::Sms]),
    ];
    assert_eq!(store::pending_notices(&mut conn, 0).await.unwrap(), expected);
}

#[tokio::test]
async fn a_contact_is_put_replaced_and_erased() {
    let pool = database::migrated().await;
    let mut conn = pool.acquire().await.unwrap();
    let both = Contact { email: Some("ann@example.test".to_owned()), phone: Some("+4930123456".to_owned()) };
    let phone = Contact { email: None, ..both.clone() };
    store::put_contact(&mut conn, "ann", &both).await.unwrap();
    store::put_contact(&mut conn, "bob", &Contact::default()).await.unwrap();
    let found = store::load_contacts(&mut conn, &["ann", "bob", "eve"]).await.unwrap();
    assert_eq!(found, BTreeMap::from([("ann".to_owned(), both), ("bob".to_owned(), Contact::default())]));
    store::put_contact(&mut conn, "ann", &phone).await.unwrap();
    let found = store::load_contacts(&mut conn, &["ann"]).await.unwrap();
    assert_eq!(found, BTreeMap::from([("ann".to_owned(), phone)]));
    for _ in 0..2 {
        store::delete_contact(&mut conn, "ann").await.unwrap();
        assert_eq!(store::load_contacts(&mut conn, &["ann"]).await.unwrap(), BTreeMap::new());
    }
}
