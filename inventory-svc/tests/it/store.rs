//! What is written is read again: every kind of row; and stock adds up when partitions meet on it.

use std::collections::BTreeMap;

use events::id::{OrderId, ProductId};
use events::money::{Currency, Money};
use events::order::PricedLine;
use inventory_svc::state::{Facts, Listing, Product, Reservation, Stock};
use inventory_svc::store;
use sqlx::Connection;

use crate::batch::HOMES;
use crate::database;

const PEAR: ProductId = ProductId(7);

fn facts(name: &str) -> Facts {
    Facts { name: name.to_owned(), price: Money::new(99, Currency::USD) }
}

fn stock(on_hand: i64, reserved: i64) -> Stock {
    Stock { on_hand, reserved, sold: 0, received: on_hand, adjusted: 0 }
}

#[tokio::test]
async fn every_kind_of_reservation_reads_back() {
    let pool = database::migrated().await;
    let mut conn = pool.acquire().await.unwrap();
    let line = PricedLine { product_id: PEAR, quantity: 2, unit_price: Money::new(99, Currency::USD) };
    let reserved = Reservation::Reserved { customer_id: "c-1".to_owned(), lines: vec![line] };
    let all = [reserved, Reservation::Rejected, Reservation::Released, Reservation::Sold];
    let all: BTreeMap<_, _> = (1..).map(OrderId).zip(all).collect();
    let borrowed = all.iter().map(|(id, reservation)| (*id, reservation)).collect();
    store::insert_reservations(&mut conn, HOMES, &borrowed).await.unwrap();
    assert_eq!(store::load_reservations(&mut conn, &[1, 2, 3, 4, 5]).await.unwrap(), all);

    let sold = BTreeMap::from([(OrderId(1), &Reservation::Sold)]);
    store::end_reservations(&mut conn, &sold).await.unwrap();
    let loaded = store::load_reservations(&mut conn, &[1, 2]).await.unwrap();
    assert_eq!(loaded[&OrderId(1)], Reservation::Sold);
    assert_eq!(loaded[&OrderId(2)], Reservation::Rejected, "not one of them");
    let left: (i64,) = sqlx::query_as("SELECT count(*) FROM reservations WHERE lines IS NOT NULL")
        .fetch_one(&mut *conn)
        .await
        .unwrap();
    assert_eq!(left, (0,), "what is not set aside any more is not kept");
}

#[tokio::test]
async fn what_has_no_row_is_not_passed_over() {
    let pool = database::migrated().await;
    let mut conn = pool.acquire().await.unwrap();
    let sold = BTreeMap::from([(OrderId(1), &Reservation::Sold)]);
    for missing in [
        store::end_reservations(&mut conn, &sold).await,
        store::add_stock(&mut conn, &BTreeMap::from([(PEAR, stock(5, 1))])).await,
    ] {
        assert!(matches!(missing, Err(sqlx::Error::RowNotFound)), "{missing:?}");
    }
}

#[tokio::test]
async fn every_kind_of_listing_reads_back_beside_its_stock() {
    let pool = database::migrated().await;
    let mut conn = pool.acquire().await.unwrap();
    // A release may be folded before the product is listed.
    let first = BTreeMap::from([(ProductId(1), stock(0, -2)), (PEAR, stock(5, 1))]);
    store::add_first_stock(&mut conn, &first).await.unwrap();
    let (listed, delisted) = (Listing::Listed(facts("PEAR")), Listing::Delisted(facts("FIG")));
    store::save_listings(&mut conn, &BTreeMap::from([(PEAR, &listed), (ProductId(8), &delisted)])).await.unwrap();
    store::add_stock(&mut conn, &BTreeMap::from([(PEAR, stock(2, -1))])).await.unwrap();

    let expected = BTreeMap::from([
        (ProductId(1), Product { listing: Listing::Never, stock: stock(0, -2) }),
        (PEAR, Product { listing: listed.clone(), stock: stock(7, 0) }),
        (ProductId(8), Product { listing: delisted, stock: Stock::default() }),
    ]);
    assert_eq!(store::lock_products(&mut conn, &[8, 7, 1, 9]).await.unwrap(), expected);
    let found = store::find_product(&mut conn, PEAR).await.unwrap();
    assert_eq!(found, Some(Product { listing: listed, stock: stock(7, 0) }));
    assert_eq!(store::find_product(&mut conn, ProductId(9)).await.unwrap(), None);
}

/// Two partitions take the last pears: the second sees what the first left, although it looked before that committed.
#[tokio::test]
async fn the_lock_shows_what_the_other_partition_left() {
    let pool = database::migrated().await;
    let mut first = pool.acquire().await.unwrap();
    store::add_first_stock(&mut first, &BTreeMap::from([(PEAR, stock(5, 0))])).await.unwrap();
    let mut tx = first.begin().await.unwrap();
    store::lock_products(&mut tx, &[7]).await.unwrap();
    let other = tokio::spawn({
        let pool = pool.clone();
        async move {
            let mut second = pool.acquire().await.unwrap();
            store::lock_products(&mut second, &[7]).await.unwrap()
        }
    });
    waits_for_a_lock(&pool).await;
    store::add_stock(&mut tx, &BTreeMap::from([(PEAR, stock(0, 4))])).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(other.await.unwrap()[&PEAR].stock, stock(5, 4));
}

/// Two partitions touch a product that has no row: neither could lock it, and both count.
#[tokio::test]
async fn a_product_that_two_partitions_touch_first_gets_one_row_with_the_sum() {
    let pool = database::migrated().await;
    let mut first = pool.acquire().await.unwrap();
    let mut tx = first.begin().await.unwrap();
    assert_eq!(store::lock_products(&mut tx, &[7]).await.unwrap(), BTreeMap::new());
    store::add_first_stock(&mut tx, &BTreeMap::from([(PEAR, stock(5, 1))])).await.unwrap();
    let other = tokio::spawn({
        let pool = pool.clone();
        async move {
            let mut second = pool.acquire().await.unwrap();
            assert_eq!(store::lock_products(&mut second, &[7]).await.unwrap(), BTreeMap::new());
            store::add_first_stock(&mut second, &BTreeMap::from([(PEAR, stock(2, -1))])).await.unwrap();
        }
    });
    waits_for_a_lock(&pool).await;
    tx.commit().await.unwrap();
    other.await.unwrap();
    let found = store::find_product(&mut first, PEAR).await.unwrap().unwrap();
    assert_eq!(found, Product { listing: Listing::Never, stock: stock(7, 0) });
}

async fn waits_for_a_lock(pool: &sqlx::PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    for _ in 0..1_000 {
        let (waiting,): (i64,) = sqlx::query_as(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
        .fetch_one(&mut *conn)
        .await
        .unwrap();
        if waiting > 0 {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("nobody waits for a lock");
}
