//! What is written is read again: every kind of payment, the calls that are asked for, and whether one is pending.

use std::collections::BTreeMap;

use engine::service::EffectMark;
use events::id::{EventId, OrderId};
use events::money::{Currency, Money};
use events::record::SetBy;
use events::time::Timestamp;
use payment_svc::state::{Payment, State, Terms};
use payment_svc::store;

use crate::batch::HOMES;
use crate::database;

const T0: i64 = 1_767_225_600_000;

fn payment(id: i64) -> Payment {
    let total = Money::new(i64::MAX - id, Currency::parse("EUR").unwrap());
    Payment { order_id: OrderId(id), customer_id: format!("c-{id}"), total }
}

fn terms(pay_url: Option<&str>) -> Terms {
    let pay_url = pay_url.map(str::to_owned);
    Terms { payment_method: "pm_checkout".to_owned(), pay_by: Timestamp(T0 + 7), pay_url }
}

fn set_by(id: i64) -> SetBy {
    // In another order than the IDs.
    SetBy { event_id: EventId(1_000 + id), sequence: 100 - id }
}

/// One of each kind.
fn all() -> BTreeMap<OrderId, State> {
    let taken = Money::new(199, Currency::USD);
    let states = [
        State::Requested { payment: payment(1), terms: terms(None), charge: set_by(1) },
        State::Requested { payment: payment(2), terms: terms(Some("http://pay.test/2")), charge: set_by(2) },
        State::CancelRequested { payment: payment(3), terms: terms(None), cancel: set_by(3) },
        State::Cancelled(payment(4)),
        State::Declined(payment(5)),
        State::Failed(payment(6)),
        State::Captured { payment: payment(7), taken },
        State::Refunding { payment: payment(8), taken, refund: set_by(8) },
        State::RefundFailed { payment: payment(9), taken },
        State::Refunded { payment: payment(10), taken },
    ];
    states.into_iter().map(|state| (state.payment().unwrap().order_id, state)).collect()
}

#[tokio::test]
async fn every_kind_of_payment_reads_back() {
    let pool = database::migrated().await;
    let mut conn = pool.acquire().await.unwrap();
    let all = all();
    let ids: Vec<i64> = (0..12).rev().collect();
    store::insert_payments(&mut conn, HOMES, &Vec::from_iter(all.values())).await.unwrap();
    assert_eq!(store::load_payments(&mut conn, &ids).await.unwrap(), all);
    store::update_payments(&mut conn, &Vec::from_iter(all.values())).await.unwrap();
    assert_eq!(store::load_payments(&mut conn, &ids).await.unwrap(), all);
}

#[tokio::test]
async fn a_payment_that_moves_on_to_any_kind_keeps_its_customer_and_total() {
    let pool = database::migrated().await;
    let mut conn = pool.acquire().await.unwrap();
    let all = all();
    let requested =
        |id| State::Requested { payment: payment(id), terms: terms(Some("http://x.test")), charge: set_by(id) };
    let before: Vec<State> = all.keys().map(|order_id| requested(order_id.0)).collect();
    store::insert_payments(&mut conn, HOMES, &Vec::from_iter(&before)).await.unwrap();
    store::update_payments(&mut conn, &Vec::from_iter(all.values())).await.unwrap();
    let ids: Vec<i64> = all.keys().map(|order_id| order_id.0).collect();
    assert_eq!(store::load_payments(&mut conn, &ids).await.unwrap(), all);
}

#[tokio::test]
async fn a_payment_that_moves_on_leaves_no_call_behind() {
    let pool = database::migrated().await;
    let mut conn = pool.acquire().await.unwrap();
    let before = State::Requested { payment: payment(1), terms: terms(Some("http://pay.test/1")), charge: set_by(1) };
    store::insert_payments(&mut conn, HOMES, &[&before]).await.unwrap();
    let after = State::Captured { payment: payment(1), taken: payment(1).total };
    store::update_payments(&mut conn, &[&after, &State::Unknown]).await.unwrap();
    assert_eq!(store::load_payments(&mut conn, &[1]).await.unwrap(), BTreeMap::from([(OrderId(1), after)]));
    assert_eq!(store::calls(&mut conn, 0).await.unwrap(), []);
}

#[tokio::test]
async fn a_payment_without_a_row_is_not_passed_over() {
    let pool = database::migrated().await;
    let mut conn = pool.acquire().await.unwrap();
    let all = all();
    let missing = store::update_payments(&mut conn, &Vec::from_iter(all.values())).await;
    assert!(matches!(missing, Err(sqlx::Error::RowNotFound)), "{missing:?}");
}

#[tokio::test]
async fn calls_are_found_by_partition_in_the_order_they_were_asked_for() {
    let pool = database::migrated().await;
    let mut conn = pool.acquire().await.unwrap();
    store::insert_payments(&mut conn, HOMES, &Vec::from_iter(all().values())).await.unwrap();
    let mark = |key, kind| EffectMark { key, kind, set_by: set_by(key), not_before: None };
    let expected = [mark(8, "refund"), mark(3, "cancel"), mark(2, "charge"), mark(1, "charge")];
    assert_eq!(store::calls(&mut conn, 0).await.unwrap(), expected);
    assert_eq!(store::calls(&mut conn, 1).await.unwrap(), []);
}

#[tokio::test]
async fn a_charge_is_pending_while_its_try_says_so() {
    let pool = database::migrated().await;
    let mut conn = pool.acquire().await.unwrap();
    sqlx::query(
        "INSERT INTO effects (partition, key, kind, attempts, next_try_at, pending)
         VALUES (0, 1, 'charge', 0, now(), true), (0, 2, 'charge', 3, now(), false), (0, 3, 'cancel', 0, now(), true)",
    )
    .execute(&mut *conn)
    .await
    .unwrap();
    for (order, pending) in [(1, true), (2, false), (3, false), (4, false)] {
        assert_eq!(store::is_pending(&mut conn, OrderId(order)).await.unwrap(), pending, "{order}");
    }
}
