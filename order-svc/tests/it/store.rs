//! What is written is read again: every kind of row, in batches, and as lists.

use std::collections::BTreeMap;

use engine::service::{Homes, Window};
use events::code::{CancelReason, CustomerReason, RejectReason};
use events::id::{EventId, OrderId, ProductId};
use events::money::{Currency, Money};
use events::order::{OrderLine, PricedLine};
use events::record::SetBy;
use events::time::Timestamp;
use order_svc::catalogue::Product;
use order_svc::state::{Order, Rejected, State, Status, Timer};
use order_svc::store::{self, OrderFilter};

use crate::batch::HOMES;
use crate::database;

const T0: i64 = 1_767_225_600_000;

fn usd(amount: i64) -> Money {
    Money::new(amount, Currency::USD)
}

fn order(id: i64, customer: &str) -> Order {
    let line = |product| PricedLine { product_id: ProductId(product), quantity: 2, unit_price: usd(99) };
    Order {
        order_id: OrderId(id),
        customer_id: customer.to_owned(),
        lines: vec![line(1), line(i64::MAX)],
        total: usd(396),
        pay_by: Timestamp(T0 + 900_000 + id),
        version: 1,
        placed_at: Timestamp(T0 + 1),
        updated_at: Timestamp(T0 + 2),
        last_sequence: id,
    }
}

fn placed(id: i64, customer: &str) -> State {
    let order = order(id, customer);
    let set_by = SetBy { event_id: EventId(id + 1_000), sequence: id };
    State::Placed { timer: Timer { due_at: order.pay_by, set_by }, order }
}

fn rejected(id: i64) -> State {
    State::Rejected(Rejected {
        order_id: OrderId(id),
        customer_id: "c-1".to_owned(),
        lines: vec![OrderLine { product_id: ProductId(7), quantity: -1 }],
        reason: RejectReason::InvalidLines,
        version: 1,
        rejected_at: Timestamp(T0),
        last_sequence: id,
    })
}

/// One of each kind.
fn all() -> BTreeMap<OrderId, State> {
    let cancelled = |id, reason, customer_reason| State::Cancelled { order: order(id, "c-1"), reason, customer_reason };
    let states = [
        placed(1, "c-1"),
        State::Confirmed(order(2, "c-1")),
        cancelled(3, CancelReason::OutOfStock, None),
        cancelled(4, CancelReason::Customer, Some(CustomerReason::FoundCheaper)),
        State::Expired(order(5, "c-2")),
        rejected(6),
    ];
    (1..).map(OrderId).zip(states).collect()
}

fn borrowed(states: &BTreeMap<OrderId, State>) -> BTreeMap<OrderId, &State> {
    states.iter().map(|(id, state)| (*id, state)).collect()
}

#[tokio::test]
async fn every_kind_of_order_reads_back() {
    let pool = database::migrated().await;
    let mut conn = pool.acquire().await.unwrap();
    store::insert_orders(&mut conn, HOMES, &borrowed(&all())).await.unwrap();
    let loaded = store::load_orders(&mut conn, &[6, 5, 4, 3, 2, 1, 99]).await.unwrap();
    assert_eq!(loaded, all());
}

#[tokio::test]
async fn an_order_that_moves_on_keeps_what_it_was_placed_with() {
    let pool = database::migrated().await;
    let mut conn = pool.acquire().await.unwrap();
    let before: BTreeMap<_, _> = [1, 2, 3, 4].map(|id| (OrderId(id), placed(id, "c-1"))).into();
    store::insert_orders(&mut conn, HOMES, &borrowed(&before)).await.unwrap();
    let moved = |id| Order { version: 2, updated_at: Timestamp(T0 + 9), last_sequence: 8, ..order(id, "c-1") };
    let (reason, customer_reason) = (CancelReason::Customer, Some(CustomerReason::FoundCheaper));
    let mut after = BTreeMap::from([
        (OrderId(1), State::Confirmed(moved(1))),
        (OrderId(2), State::Cancelled { order: moved(2), reason, customer_reason }),
        (OrderId(3), State::Expired(moved(3))),
    ]);
    // Whatever the state says of them: they are not written.
    let strange = Order { customer_id: "c-2".to_owned(), lines: Vec::new(), total: usd(1), ..moved(1) };
    let mut written = after.clone();
    written.insert(OrderId(1), State::Confirmed(strange));
    store::update_orders(&mut conn, &borrowed(&written)).await.unwrap();
    after.insert(OrderId(4), placed(4, "c-1"));
    assert_eq!(store::load_orders(&mut conn, &[1, 2, 3, 4]).await.unwrap(), after);
    let window = Window { from: Timestamp(0), until: Timestamp(T0 + 1_000_000), limit: 10 };
    assert_eq!(store::due_timers(&mut conn, 0, window, &[]).await.unwrap().len(), 1, "the others have none any more");
}

#[tokio::test]
async fn an_order_without_a_row_is_not_passed_over() {
    let pool = database::migrated().await;
    let mut conn = pool.acquire().await.unwrap();
    let all = all();
    let missing = store::update_orders(&mut conn, &borrowed(&all)).await;
    assert!(matches!(missing, Err(sqlx::Error::RowNotFound)), "{missing:?}");
}

#[tokio::test]
async fn an_order_that_has_a_row_gets_no_second_one() {
    let pool = database::migrated().await;
    let mut conn = pool.acquire().await.unwrap();
    let order = BTreeMap::from([(OrderId(1), placed(1, "c-1"))]);
    store::insert_orders(&mut conn, HOMES, &borrowed(&order)).await.unwrap();
    let again = store::insert_orders(&mut conn, HOMES, &borrowed(&order)).await.unwrap_err();
    assert_eq!(again.as_database_error().unwrap().code().as_deref(), Some("23505"));
}

#[tokio::test]
async fn timers_are_those_of_the_partition_and_the_window() {
    let pool = database::migrated().await;
    let mut conn = pool.acquire().await.unwrap();
    assert_eq!(store::next_timer(&mut conn, 0, &[]).await.unwrap(), None);
    let two = Homes { partitions: 2 };
    let of = |partition| (1..).filter(move |id| two.of(*id) == partition);
    let zero: Vec<i64> = of(0).take(3).collect();
    let one: Vec<i64> = of(1).take(2).collect();
    let mut all: BTreeMap<_, _> = zero.iter().map(|id| (OrderId(*id), placed(*id, "c-1"))).collect();
    all.extend([(OrderId(one[0]), placed(one[0], "c-1")), (OrderId(one[1]), rejected(one[1]))]);
    store::insert_orders(&mut conn, two, &borrowed(&all)).await.unwrap();

    let due = |n: i64| Timestamp(T0 + 900_000 + n);
    let mark = |n: i64| (OrderId(n), SetBy { event_id: EventId(n + 1_000), sequence: n });
    assert_eq!(store::next_timer(&mut conn, 0, &[]).await.unwrap(), Some(due(zero[0])));
    assert_eq!(store::next_timer(&mut conn, 1, &[]).await.unwrap(), Some(due(one[0])));
    let window = |from, until, limit| Window { from, until, limit };
    let timers = store::due_timers(&mut conn, 0, window(Timestamp(0), due(zero[1]), 10), &[]).await.unwrap();
    assert_eq!(timers, [mark(zero[0]), mark(zero[1])]);
    let timers = store::due_timers(&mut conn, 0, window(due(zero[1]), due(zero[2]), 1), &[]).await.unwrap();
    assert_eq!(timers, [mark(zero[1])]);
    let resting = [zero[0], zero[1]];
    let timers = store::due_timers(&mut conn, 0, window(Timestamp(0), due(zero[2]), 10), &resting).await.unwrap();
    assert_eq!(timers, [mark(zero[2])]);
    assert_eq!(store::next_timer(&mut conn, 0, &resting).await.unwrap(), Some(due(zero[2])));
}

#[tokio::test]
async fn lists_are_filtered_and_newest_first() {
    let pool = database::migrated().await;
    let mut conn = pool.acquire().await.unwrap();
    store::insert_orders(&mut conn, HOMES, &borrowed(&all())).await.unwrap();
    let mut list = async |filter: OrderFilter<'static>, limit| -> Vec<i64> {
        let states = store::list_orders(&mut conn, filter, limit).await.unwrap();
        states.iter().map(|state| state.order_id().unwrap().0).collect()
    };
    let none = OrderFilter::default();
    assert_eq!(list(none, 10).await, [6, 5, 4, 3, 2, 1]);
    assert_eq!(list(none, 2).await, [6, 5]);
    assert_eq!(list(OrderFilter { before: Some(OrderId(5)), ..none }, 2).await, [4, 3]);
    assert_eq!(list(OrderFilter { customer_id: Some("c-2"), ..none }, 10).await, [5]);
    let cancelled = OrderFilter { customer_id: Some("c-1"), status: Some(Status::Cancelled), ..none };
    assert_eq!(list(cancelled, 10).await, [4, 3]);
    assert_eq!(list(OrderFilter { customer_id: Some("c-9"), ..none }, 10).await, [0_i64; 0]);
    let by_status: [(_, &[i64]); 5] = [
        (Status::Placed, &[1]),
        (Status::Confirmed, &[2]),
        (Status::Cancelled, &[4, 3]),
        (Status::Expired, &[5]),
        (Status::Rejected, &[6]),
    ];
    assert_eq!(by_status.map(|(status, _)| status), Status::ALL);
    for (status, expected) in by_status {
        let of_status = OrderFilter { status: Some(status), ..none };
        assert_eq!(list(of_status, 10).await, expected, "{status:?}");
        let (whose, others) = if status == Status::Expired { ("c-2", "c-1") } else { ("c-1", "c-2") };
        assert_eq!(list(OrderFilter { customer_id: Some(whose), ..of_status }, 10).await, expected, "{status:?}");
        assert_eq!(list(OrderFilter { customer_id: Some(others), ..of_status }, 10).await, [0_i64; 0], "{status:?}");
        let behind = OrderFilter { before: Some(OrderId(expected[0])), ..of_status };
        assert_eq!(list(behind, 10).await, expected[1..], "{status:?}");
    }
}

#[tokio::test]
async fn the_catalogue_reads_back_and_lists_what_can_be_ordered() {
    let pool = database::migrated().await;
    let mut conn = pool.acquire().await.unwrap();
    let product = |id, listed| {
        let price = Money::new(i64::MAX, Currency::parse("EUR").unwrap());
        (ProductId(id), Product { product_id: ProductId(id), name: "Birne \u{1f350}".to_owned(), price, listed })
    };
    let products: BTreeMap<_, _> = [product(1, true), product(2, false), product(3, true), product(4, true)].into();
    let borrowed = products.iter().map(|(id, product)| (*id, product)).collect();
    store::save_products(&mut conn, &borrowed).await.unwrap();
    store::save_products(&mut conn, &borrowed).await.unwrap();
    assert_eq!(store::load_products(&mut conn, &[1, 2, 3, 4, 5]).await.unwrap(), products);
    let page = store::list_products(&mut conn, None, 2).await.unwrap();
    assert_eq!(page, [product(1, true).1, product(3, true).1]);
    let page = store::list_products(&mut conn, Some(ProductId(3)), 2).await.unwrap();
    assert_eq!(page, [product(4, true).1]);
}
