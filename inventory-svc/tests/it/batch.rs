//! A batch as the engine runs it, without an engine: decode, load, decide, evolve, save; and the fold of its events.

use std::collections::BTreeMap;

use engine::service::{Homes, Service};
use events::code::CancelReason;
use events::codec::Codec;
use events::id::{CommandId, EventId, OrderId, ProductId};
use events::inventory::{
    AdjustStock, InventoryCommand, InventoryEvent, ListProduct, ReceiveStock, RepriceProduct, Subject,
};
use events::money::{Currency, Money};
use events::order::{OrderCancelled, OrderConfirmed, OrderEvent, OrderExpired, OrderPlaced, PricedLine};
use events::record::Recorded;
use events::time::Timestamp;
use inventory_svc::domain::Input;
use inventory_svc::processor::Inventory;
use inventory_svc::state::{Reservation, Stock};
use inventory_svc::store;
use sqlx::{Connection, PgConnection};

use crate::database;

const SERVICE: Inventory = Inventory;
const NOW: Timestamp = Timestamp(1_767_225_600_000);
/// The processor of these tests' keys, as far as rows tell.
/// All keys are of partition 0.
pub(crate) const HOMES: Homes = Homes { partitions: 1 };

fn usd(amount: i64) -> Money {
    Money::new(amount, Currency::USD)
}

fn command(command: impl Into<InventoryCommand>) -> Input {
    let value = command.into().encode(&Codec::numbered()).unwrap();
    let decoded = SERVICE.decode(&Codec::numbered(), InventoryCommand::TOPIC, &value, NOW).unwrap().unwrap();
    assert!(decoded.command.is_some());
    decoded.input
}

fn list(product: i64) -> Input {
    command(ListProduct {
        product_id: ProductId(product),
        name: "PEAR".to_owned(),
        price: usd(99),
        command_id: CommandId(1),
        caller: None,
        key_hash: None,
        fingerprint: None,
    })
}

fn reprice(product: i64, amount: i64) -> Input {
    command(RepriceProduct {
        product_id: ProductId(product),
        price: usd(amount),
        command_id: CommandId(2),
        caller: None,
        key_hash: None,
        fingerprint: None,
    })
}

fn receive(product: i64, quantity: i64) -> Input {
    command(ReceiveStock {
        product_id: ProductId(product),
        quantity,
        command_id: CommandId(3),
        caller: None,
        key_hash: None,
        fingerprint: None,
    })
}

fn adjust(product: i64, delta: i64) -> Input {
    command(AdjustStock {
        product_id: ProductId(product),
        delta,
        reason: events::code::AdjustReason::Lost,
        command_id: CommandId(4),
        caller: None,
        key_hash: None,
        fingerprint: None,
    })
}

fn order(event: impl Into<OrderEvent>) -> Input {
    let value = event.into().encode(&Codec::numbered()).unwrap();
    SERVICE.decode(&Codec::numbered(), OrderEvent::TOPIC, &value, NOW).unwrap().unwrap().input
}

fn place(id: i64, wanted: &[(i64, i64)]) -> Input {
    let line = |&(product, quantity)| PricedLine { product_id: ProductId(product), quantity, unit_price: usd(99) };
    order(OrderPlaced {
        order_id: OrderId(id),
        version: 1,
        customer_id: "c-1".to_owned(),
        lines: wanted.iter().map(line).collect(),
        total: usd(198),
        payment_method: "pm_ok".to_owned(),
        pay_by: NOW,
        command_id: CommandId(9),
        caller: None,
        key_hash: None,
        fingerprint: None,
    })
}

fn confirmed(id: i64) -> Input {
    let (order_id, customer_id, lines) = (OrderId(id), "c-1".to_owned(), Vec::new());
    order(OrderConfirmed { order_id, version: 2, customer_id, lines, total: usd(198) })
}

fn cancelled(id: i64) -> Input {
    order(OrderCancelled {
        order_id: OrderId(id),
        version: 2,
        customer_id: "c-1".to_owned(),
        lines: Vec::new(),
        total: usd(198),
        reason: CancelReason::OutOfStock,
        customer_reason: None,
        command_id: None,
        caller: None,
        key_hash: None,
        fingerprint: None,
    })
}

fn expired(id: i64) -> Input {
    let (order_id, customer_id, lines) = (OrderId(id), "c-1".to_owned(), Vec::new());
    order(OrderExpired { order_id, version: 2, customer_id, lines, total: usd(198), pay_by: NOW })
}

/// One batch in one transaction; returns its events as the log would have them.
async fn batch(conn: &mut PgConnection, inputs: &[Input]) -> Vec<Recorded<InventoryEvent>> {
    let wanted: Vec<&Input> = inputs.iter().collect();
    let mut tx = conn.begin().await.unwrap();
    let mut states = SERVICE.load(&mut tx, &wanted, &[]).await.unwrap();
    let mut log = Vec::new();
    for input in inputs {
        if let Some(event) = SERVICE.decide(&states, input, NOW).unwrap() {
            let recorded = Recorded { event, id: EventId(1), sequence: 1, at: NOW };
            SERVICE.evolve(&mut states, &recorded);
            log.push(recorded);
        }
    }
    SERVICE.save(&mut tx, HOMES, &states).await.unwrap();
    tx.commit().await.unwrap();
    log
}

async fn fold(conn: &mut PgConnection, log: &[Recorded<InventoryEvent>]) {
    let events: Vec<&InventoryEvent> = log.iter().map(|recorded| &recorded.event).collect();
    let mut states = SERVICE.load(conn, &[], &events).await.unwrap();
    log.iter().for_each(|recorded| SERVICE.evolve(&mut states, recorded));
    SERVICE.save(conn, HOMES, &states).await.unwrap();
}

async fn rows(conn: &mut PgConnection) -> Vec<String> {
    let rows: Vec<(String,)> = sqlx::query_as(
        "SELECT row FROM (SELECT 1 AS kind, product_id AS id, to_jsonb(t)::text AS row FROM products AS t
                          UNION ALL SELECT 2, order_id, to_jsonb(t)::text FROM reservations AS t) AS u
         ORDER BY kind, id",
    )
    .fetch_all(conn)
    .await
    .unwrap();
    rows.into_iter().map(|(row,)| row).collect()
}

fn names(log: &[Recorded<InventoryEvent>]) -> Vec<&'static str> {
    log.iter().map(|recorded| recorded.event.short_name()).collect()
}

async fn stock(conn: &mut PgConnection, product: i64) -> Stock {
    store::find_product(conn, ProductId(product)).await.unwrap().unwrap().stock
}

#[tokio::test]
async fn later_inputs_of_a_batch_see_its_earlier_events() {
    let pool = database::migrated().await;
    let mut conn = pool.acquire().await.unwrap();
    let inputs = [
        receive(7, 1),
        list(7),
        receive(7, 3),
        place(1, &[(7, 2)]),
        place(2, &[(7, 2)]),
        cancelled(1),
        cancelled(2),
        place(3, &[(7, 3)]),
        confirmed(3),
    ];
    let log = batch(&mut conn, &inputs).await;
    let expected = [
        "CommandRefused",
        "ProductListed",
        "StockReceived",
        "StockReserved",
        "StockRejected",
        "StockReleased",
        "StockReserved",
        "StockSold",
    ];
    assert_eq!(names(&log), expected);
    assert_eq!(stock(&mut conn, 7).await, Stock { on_hand: 0, reserved: 0, sold: 3, received: 3, adjusted: 0 });
    let refused = SERVICE.about(&log[0].event);
    assert_eq!((refused.correlation, refused.refused.as_deref()), (None, Some("UNKNOWN_PRODUCT")));
    let reserved = SERVICE.about(&log[3].event);
    assert_eq!((reserved.key, reserved.correlation), (1, Some(1)));
}

#[tokio::test]
async fn a_reservation_that_ends_in_the_batch_that_made_it_is_one_row() {
    let live = database::migrated().await;
    let mut live = live.acquire().await.unwrap();
    let mut log = batch(&mut live, &[list(7), receive(7, 9), place(1, &[(7, 1)])]).await;
    let inputs =
        [place(2, &[(7, 2)]), confirmed(2), place(3, &[(7, 3)]), cancelled(3), confirmed(1), place(4, &[(7, 9)])];
    log.extend(batch(&mut live, &inputs).await);
    let loaded = store::load_reservations(&mut live, &[1, 2, 3, 4]).await.unwrap();
    let expected = [Reservation::Sold, Reservation::Sold, Reservation::Released, Reservation::Rejected];
    assert_eq!(loaded.into_values().collect::<Vec<_>>(), expected);
    assert_eq!(stock(&mut live, 7).await, Stock { on_hand: 6, reserved: 0, sold: 3, received: 9, adjusted: 0 });

    let folded = database::migrated().await;
    let mut folded = folded.acquire().await.unwrap();
    fold(&mut folded, &log).await;
    assert_eq!(rows(&mut folded).await, rows(&mut live).await);
}

#[tokio::test]
async fn a_release_finds_its_products_in_the_reservation() {
    let pool = database::migrated().await;
    let mut conn = pool.acquire().await.unwrap();
    batch(&mut conn, &[list(7), list(8), receive(7, 5), receive(8, 5)]).await;
    batch(&mut conn, &[place(1, &[(7, 2), (8, 1)]), place(2, &[(8, 4)])]).await;
    let log = batch(&mut conn, &[expired(1), adjust(8, -1), confirmed(2)]).await;
    assert_eq!(names(&log), ["StockReleased", "StockAdjusted", "StockSold"]);
    assert_eq!(stock(&mut conn, 7).await, Stock { on_hand: 5, received: 5, ..Stock::default() });
    let expected = Stock { on_hand: 0, reserved: 0, sold: 4, received: 5, adjusted: -1 };
    assert_eq!(stock(&mut conn, 8).await, expected);
}

#[tokio::test]
async fn the_fold_of_the_events_in_any_interleaving_gives_the_live_rows() {
    let live = database::migrated().await;
    let mut live = live.acquire().await.unwrap();
    let mut log = batch(&mut live, &[list(1), list(2), receive(1, 5), receive(2, 5), receive(2, 1)]).await;
    log.extend(batch(&mut live, &[place(1, &[(1, 2)]), place(2, &[(1, 1), (2, 6)]), place(3, &[(1, 3)])]).await);
    log.extend(batch(&mut live, &[reprice(1, 98), confirmed(1), expired(2), cancelled(3), adjust(1, -1)]).await);
    assert_eq!(log.len(), 12);

    // By key: as if each had a partition of its own, folded one after another, and the other way round.
    let mut by_key: BTreeMap<Subject, Vec<Recorded<InventoryEvent>>> = BTreeMap::new();
    for recorded in &log {
        by_key.entry(recorded.event.subject()).or_default().push(recorded.clone());
    }
    let forwards: Vec<_> = by_key.values().flatten().cloned().collect();
    let backwards: Vec<_> = by_key.values().rev().flatten().cloned().collect();
    for (log, size) in [(&log, 1), (&log, 5), (&log, 100), (&forwards, 3), (&backwards, 1), (&backwards, 4)] {
        let folded = database::migrated().await;
        let mut folded = folded.acquire().await.unwrap();
        for chunk in log.chunks(size) {
            fold(&mut folded, chunk).await;
        }
        assert_eq!(rows(&mut folded).await, rows(&mut live).await, "in batches of {size}");
    }
}

/// Many processors on the same two products, each in transactions of its own: nothing is oversold, lost or deadlocked.
#[tokio::test(flavor = "multi_thread")]
async fn processors_that_meet_on_products_never_oversell() {
    let pool = database::migrated().await;
    let mut conn = pool.acquire().await.unwrap();
    batch(&mut conn, &[list(1), list(2), receive(1, 60), receive(2, 60)]).await;
    drop(conn);
    let processor = |n: i64| {
        let pool = pool.clone();
        async move {
            let mut reserved = 0;
            for round in 0..20 {
                let id = 1_000 * n + 10 * round;
                // In opposite orders: the lock is taken in the order of IDs whatever the lines say.
                let inputs = [place(id, &[(1, 1), (2, 1)]), place(id + 1, &[(2, 1), (1, 1)])];
                let mut conn = pool.acquire().await.unwrap();
                let log = batch(&mut conn, &inputs).await;
                reserved += names(&log).iter().filter(|name| **name == "StockReserved").count();
            }
            reserved
        }
    };
    let running: Vec<_> = (1..=3).map(|n| tokio::spawn(processor(n))).collect();
    let mut reserved = 0;
    for one in running {
        reserved += one.await.unwrap();
    }
    assert_eq!(reserved, 60, "120 orders want one of each, 60 can have it");
    let mut conn = pool.acquire().await.unwrap();
    let expected = Stock { on_hand: 60, reserved: 60, sold: 0, received: 60, adjusted: 0 };
    assert_eq!((stock(&mut conn, 1).await, stock(&mut conn, 2).await), (expected, expected));
}

#[test]
fn events_that_never_concern_the_stock_are_passed_over() {
    let rejected = OrderEvent::from(events::order::OrderRejected {
        order_id: OrderId(1),
        version: 1,
        customer_id: "c-1".to_owned(),
        lines: Vec::new(),
        payment_method: "pm_ok".to_owned(),
        reason: events::code::RejectReason::UnknownProduct,
        command_id: CommandId(1),
        caller: None,
        key_hash: None,
        fingerprint: None,
        discarded_by: None,
    });
    let codec = Codec::numbered();
    let decoded = SERVICE.decode(&codec, OrderEvent::TOPIC, &rejected.encode(&codec).unwrap(), NOW);
    assert!(decoded.unwrap().is_none());
}
