//! A batch as the engine runs it, without an engine: decode, load, decide, evolve, save; and the fold of its events.

use std::time::Duration;

use engine::service::{Decoded, Homes, Service, Window};
use events::code::CustomerReason;
use events::codec::Codec;
use events::id::{CommandId, EventId, OrderId, ProductId};
use events::inventory::{InventoryEvent, ProductListed, ProductRepriced, StockRejected};
use events::money::{Currency, Money};
use events::order::{CancelOrder, OrderCommand, OrderEvent, OrderLine, PlaceOrder};
use events::payment::{PaymentCaptured, PaymentEvent};
use events::record::Recorded;
use events::time::Timestamp;
use order_svc::processor::{Input, Orders};
use order_svc::state::{Order, State, Status};
use order_svc::store;
use sqlx::PgConnection;

use crate::database;

pub(crate) const SERVICE: Orders = Orders { pay_within: Duration::from_secs(900) };
const NOW: Timestamp = Timestamp(1_767_225_600_000);
pub(crate) const P: i32 = 0;
/// All keys are of partition 0.
pub(crate) const HOMES: Homes = Homes { partitions: 1 };

fn usd(amount: i64) -> Money {
    Money::new(amount, Currency::USD)
}

fn decode(topic: &str, value: &[u8]) -> Option<Decoded<Input>> {
    SERVICE.decode(&Codec::numbered(), topic, value, NOW).unwrap()
}

fn command(command: OrderCommand) -> Input {
    let decoded = decode(OrderCommand::TOPIC, &command.encode(&Codec::numbered()).unwrap()).unwrap();
    assert_eq!(decoded.key, command.order_id().0);
    assert!(decoded.command.is_some());
    decoded.input
}

fn inventory(event: impl Into<InventoryEvent>) -> Option<Input> {
    let value = event.into().encode(&Codec::numbered()).unwrap();
    decode(InventoryEvent::TOPIC, &value).map(|decoded| decoded.input)
}

fn place(order: i64, product: i64) -> Input {
    command(OrderCommand::from(PlaceOrder {
        order_id: OrderId(order),
        customer_id: "c-1".to_owned(),
        lines: vec![OrderLine { product_id: ProductId(product), quantity: 2 }],
        payment_method: "pm_ok".to_owned(),
        expected_total: None,
        command_id: CommandId(order),
        caller: None,
        key_hash: None,
        fingerprint: None,
    }))
}

fn cancel(order: i64) -> Input {
    command(OrderCommand::from(CancelOrder {
        order_id: OrderId(order),
        reason: CustomerReason::Other,
        expected_version: None,
        command_id: CommandId(order + 100),
        caller: None,
        key_hash: None,
        fingerprint: None,
    }))
}

pub(crate) fn captured(order: i64, refund_due: bool) -> Option<Input> {
    let event = PaymentEvent::from(PaymentCaptured {
        order_id: OrderId(order),
        customer_id: "c-1".to_owned(),
        amount: usd(198),
        refund_due,
        command_id: None,
        caller: None,
        key_hash: None,
        fingerprint: None,
    });
    decode(PaymentEvent::TOPIC, &event.encode(&Codec::numbered()).unwrap()).map(|decoded| decoded.input)
}

pub(crate) fn listed(product: i64, amount: i64) -> Input {
    let event = ProductListed {
        product_id: ProductId(product),
        name: "PEAR".to_owned(),
        price: usd(amount),
        command_id: CommandId(1),
        caller: None,
        key_hash: None,
        fingerprint: None,
    };
    inventory(event).unwrap()
}

fn repriced(product: i64, amount: i64) -> Input {
    let event = ProductRepriced {
        product_id: ProductId(product),
        price: usd(amount),
        command_id: CommandId(2),
        caller: None,
        key_hash: None,
        fingerprint: None,
    };
    inventory(event).unwrap()
}

/// One batch; returns its events as the log would have them.
pub(crate) async fn batch(conn: &mut PgConnection, inputs: &[Input], sequence: i64) -> Vec<Recorded<OrderEvent>> {
    let wanted: Vec<&Input> = inputs.iter().collect();
    let mut states = SERVICE.load(conn, &wanted, &[]).await.unwrap();
    let mut log = Vec::new();
    for input in inputs {
        SERVICE.observe(&mut states, input);
        if let Some(event) = SERVICE.decide(&states, input, NOW).unwrap() {
            let sequence = sequence + i64::try_from(log.len()).unwrap();
            let recorded = Recorded { event, id: EventId(sequence + 500), sequence, at: NOW };
            SERVICE.evolve(&mut states, &recorded);
            log.push(recorded);
        }
    }
    SERVICE.save(conn, HOMES, &states).await.unwrap();
    log
}

async fn fold(conn: &mut PgConnection, log: &[Recorded<OrderEvent>]) {
    let events: Vec<&OrderEvent> = log.iter().map(|recorded| &recorded.event).collect();
    let mut states = SERVICE.load(conn, &[], &events).await.unwrap();
    log.iter().for_each(|recorded| SERVICE.evolve(&mut states, recorded));
    SERVICE.save(conn, HOMES, &states).await.unwrap();
}

async fn rows(conn: &mut PgConnection) -> Vec<String> {
    let rows = "SELECT to_jsonb(t)::text FROM orders AS t ORDER BY order_id";
    let rows: Vec<(String,)> = sqlx::query_as(rows).fetch_all(conn).await.unwrap();
    rows.into_iter().map(|(row,)| row).collect()
}

fn names(log: &[Recorded<OrderEvent>]) -> Vec<&'static str> {
    log.iter().map(|recorded| recorded.event.short_name()).collect()
}

#[tokio::test]
async fn later_inputs_of_a_batch_see_its_earlier_events_and_facts() {
    let pool = database::migrated().await;
    let mut conn = pool.acquire().await.unwrap();
    let log = batch(&mut conn, &[place(1, 7), listed(7, 99), place(2, 7), cancel(2), cancel(2)], 1).await;
    assert_eq!(names(&log), ["OrderRejected", "OrderPlaced", "OrderCancelled", "CommandRefused"]);
    let about = SERVICE.about(&log[3].event);
    assert_eq!((about.key, about.refused.as_deref()), (2, Some("ORDER_NOT_PLACED")));
    assert_eq!(SERVICE.about(&log[0].event).refused.as_deref(), Some("UNKNOWN_PRODUCT"));
    assert_eq!(SERVICE.about(&log[1].event).correlation, Some(2));
}

#[tokio::test]
async fn an_order_that_is_placed_and_confirmed_in_one_batch_is_one_row() {
    let live = database::migrated().await;
    let mut live = live.acquire().await.unwrap();
    let inputs = [listed(7, 99), place(1, 7), captured(1, false).unwrap(), cancel(1), place(2, 7)];
    let log = batch(&mut live, &inputs, 1).await;
    assert_eq!(names(&log), ["OrderPlaced", "OrderConfirmed", "CommandRefused", "OrderPlaced"]);
    let loaded = store::load_orders(&mut live, &[1, 2]).await.unwrap();
    let said: Vec<_> = loaded.values().map(|order| (order.status(), order.version(), order.last_sequence())).collect();
    let expected = [(Some(Status::Confirmed), Some(2), Some(2)), (Some(Status::Placed), Some(1), Some(4))];
    assert_eq!(said, expected);

    let folded = database::migrated().await;
    let mut folded = folded.acquire().await.unwrap();
    fold(&mut folded, &log).await;
    assert_eq!(rows(&mut folded).await, rows(&mut live).await);
}

#[tokio::test]
async fn an_order_of_an_earlier_batch_is_changed_beside_a_new_one() {
    let pool = database::migrated().await;
    let mut conn = pool.acquire().await.unwrap();
    batch(&mut conn, &[listed(7, 99), place(1, 7), place(2, 7)], 1).await;
    let before = store::load_orders(&mut conn, &[1]).await.unwrap();
    // The refusal of an order nobody placed makes no row; placed later, it is a new one all the same.
    let inputs = [cancel(3), captured(1, false).unwrap(), place(3, 7), cancel(2), cancel(9)];
    let log = batch(&mut conn, &inputs, 3).await;
    let expected = ["CommandRefused", "OrderConfirmed", "OrderPlaced", "OrderCancelled", "CommandRefused"];
    assert_eq!(names(&log), expected);
    let after = store::load_orders(&mut conn, &[1, 2, 3, 9]).await.unwrap();
    let statuses: Vec<_> = after.values().filter_map(State::status).collect();
    assert_eq!(statuses, [Status::Confirmed, Status::Cancelled, Status::Placed]);
    let State::Placed { order: placed, .. } = &before[&OrderId(1)] else { panic!("{before:?}") };
    let State::Confirmed(confirmed) = &after[&OrderId(1)] else { panic!("{after:?}") };
    assert_eq!(*confirmed, Order { version: 2, last_sequence: 4, ..placed.clone() }, "lines and customer stay");
}

#[tokio::test]
async fn prices_are_those_of_the_last_fact() {
    let pool = database::migrated().await;
    let mut conn = pool.acquire().await.unwrap();
    batch(&mut conn, &[listed(7, 99), listed(8, 5)], 1).await;
    batch(&mut conn, &[repriced(7, 98)], 1).await;
    let log = batch(&mut conn, &[place(1, 7), place(2, 8)], 1).await;
    let totals = log.iter().map(|recorded| match &recorded.event {
        OrderEvent::OrderPlaced(event) => (event.total, event.pay_by),
        other => panic!("{other:?}"),
    });
    let pay_by = NOW.plus(SERVICE.pay_within);
    assert_eq!(totals.collect::<Vec<_>>(), [(usd(196), pay_by), (usd(10), pay_by)]);
}

#[tokio::test]
async fn the_fold_of_the_events_gives_the_live_rows() {
    let live = database::migrated().await;
    let mut live = live.acquire().await.unwrap();
    let mut log = batch(&mut live, &[listed(7, 99), place(1, 7), place(2, 7), place(3, 9), place(4, 7)], 1).await;
    let short = StockRejected {
        order_id: OrderId(2),
        customer_id: "c-1".to_owned(),
        lines: Vec::new(),
        total: usd(198),
        short: vec![ProductId(7)],
    };
    let more = [captured(1, false).unwrap(), inventory(short).unwrap(), cancel(1), cancel(3)];
    log.extend(batch(&mut live, &more, 5).await);
    let window = Window { from: Timestamp(0), until: NOW.plus(Duration::from_secs(900)), limit: 10 };
    let timers = SERVICE.due_timers(&mut live, P, window, &[]).await.unwrap();
    let due: Vec<Input> = timers.into_iter().map(|timer| timer.input).collect();
    assert_eq!(due.len(), 1);
    log.extend(batch(&mut live, &due, 9).await);
    let expected = ["OrderPlaced", "OrderPlaced", "OrderRejected", "OrderPlaced", "OrderConfirmed", "OrderCancelled"];
    assert_eq!(names(&log)[..6], expected);
    assert_eq!(names(&log)[6..], ["CommandRefused", "CommandRefused", "OrderExpired"]);
    assert_eq!(SERVICE.next_timer(&mut live, P, &[]).await.unwrap(), None);

    for size in [1, 2, 100] {
        let folded = database::migrated().await;
        let mut folded = folded.acquire().await.unwrap();
        for chunk in log.chunks(size) {
            fold(&mut folded, chunk).await;
        }
        assert_eq!(rows(&mut folded).await, rows(&mut live).await, "in batches of {size}");
    }
}

#[tokio::test]
async fn a_timer_that_a_batch_sets_is_told() {
    let pool = database::migrated().await;
    let mut conn = pool.acquire().await.unwrap();
    let inputs = [listed(7, 99), place(1, 7)];
    let mut states = SERVICE.load(&mut conn, &inputs.iter().collect::<Vec<_>>(), &[]).await.unwrap();
    assert_eq!(SERVICE.timers_set(&states), []);
    SERVICE.observe(&mut states, &inputs[0]);
    let event = SERVICE.decide(&states, &inputs[1], NOW).unwrap().unwrap();
    SERVICE.evolve(&mut states, &Recorded { event, id: EventId(1), sequence: 1, at: NOW });
    assert_eq!(SERVICE.timers_set(&states), [(1, NOW.plus(SERVICE.pay_within))]);
}

#[test]
fn events_that_change_no_order_are_passed_over() {
    assert!(captured(1, true).is_none());
    assert!(captured(1, false).is_some());
}

#[test]
fn a_command_with_texts_that_no_row_may_hold_is_damaged() {
    let command = OrderCommand::from(PlaceOrder {
        order_id: OrderId(1),
        customer_id: "c\0".to_owned(),
        lines: Vec::new(),
        payment_method: "pm_ok".to_owned(),
        expected_total: None,
        command_id: CommandId(1),
        caller: None,
        key_hash: None,
        fingerprint: None,
    });
    let codec = Codec::numbered();
    let decoded = SERVICE.decode(&codec, OrderCommand::TOPIC, &command.encode(&codec).unwrap(), NOW);
    assert!(decoded.unwrap_err().to_string().contains("customer_id"));
}

#[tokio::test]
async fn the_events_of_an_order_that_commands_caused_are_found() {
    let pool = database::migrated().await;
    let mut conn = pool.acquire().await.unwrap();
    sqlx::query(
        "INSERT INTO commands (command_id, partition, sequence, event_type, subject, at)
         VALUES (1, 0, 9, 'x', 7, now()), (2, 0, 4, 'x', 7, now()), (3, 0, 5, 'x', 8, now())",
    )
    .execute(&mut *conn)
    .await
    .unwrap();
    assert_eq!(store::command_sequences(&mut conn, OrderId(7), 10).await.unwrap(), [9, 4]);
    assert_eq!(store::command_sequences(&mut conn, OrderId(7), 1).await.unwrap(), [9]);
}
