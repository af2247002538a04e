//! What is in Postgres: products with their stock, and the reservations of orders.
//!
//! One function per statement; the caller owns the transaction. Stock is written as what was added, never as what it is:
//! partitions meet on product rows. Every array that is bound is made from the same rows, so all have one length.
//!
//! Arrays are unnested side by side in a select list: in FROM, each would first fill a store of its own. A known row is
//! found by `= ANY (ARRAY[…])`, which leaves the planner nothing but the primary key: for `=` it may choose a plan that
//! walks the whole index, if it plans while the table is small, and then keeps it.

use std::collections::BTreeMap;

use engine::migrate::{MigrationSet, Schema};
use engine::mutant;
use engine::pool::all_found;
use engine::service::Homes;
use events::id::{OrderId, ProductId};
use sqlx::PgConnection;
use sqlx::migrate::Migrator;

use crate::row::{ProductRow, ReservationRow};
use crate::state::{Listing, Product, Reservation, Stock};

static MIGRATOR: Migrator = sqlx::migrate!("migrations/projection");
/// The tables of this service; the engine's are the engine's.
pub const MIGRATIONS: MigrationSet = MigrationSet { schema: Schema::Projection, name: "stock", migrator: &MIGRATOR };

/// What is set aside for these orders; one that was never heard of is missing.
pub async fn load_reservations(
    conn: &mut PgConnection,
    order_ids: &[i64],
) -> Result<BTreeMap<OrderId, Reservation>, sqlx::Error> {
    let rows: Vec<ReservationRow> =
        sqlx::query_as("SELECT order_id, status, customer_id, lines FROM reservations WHERE order_id = ANY($1)")
            .bind(order_ids)
            .fetch_all(conn)
            .await?;
    rows.into_iter().map(|row| Ok((OrderId(row.order_id), row.reservation()?))).collect()
}

/// Writes the reservations of orders that were not heard of before.
pub async fn insert_reservations(
    conn: &mut PgConnection,
    homes: Homes,
    reservations: &BTreeMap<OrderId, &Reservation>,
) -> Result<(), sqlx::Error> {
    let rows = rows(reservations);
    sqlx::query(
        "INSERT INTO reservations (partition, order_id, status, customer_id, lines)
         SELECT unnest($1::int[]), unnest($2::bigint[]), unnest($3::text[]), unnest($4::text[]), unnest($5::text[])",
    )
    .bind(column(&rows, |row| homes.of(row.order_id)))
    .bind(column(&rows, |row| row.order_id))
    .bind(column(&rows, |row| row.status.as_str()))
    .bind(column(&rows, |row| row.customer_id.as_deref()))
    .bind(column(&rows, |row| row.lines.as_deref()))
    .execute(conn)
    .await?;
    Ok(())
}

/// Writes how reservations ended: sold or released, nothing is set aside any more.
pub async fn end_reservations(
    conn: &mut PgConnection,
    reservations: &BTreeMap<OrderId, &Reservation>,
) -> Result<(), sqlx::Error> {
    let rows = rows(reservations);
    let done = sqlx::query(
        "UPDATE reservations AS r SET status = u.status, customer_id = NULL, lines = NULL
         FROM (SELECT unnest($1::bigint[]) AS order_id, unnest($2::text[]) AS status) AS u
         WHERE r.order_id = ANY (ARRAY[u.order_id])",
    )
    .bind(column(&rows, |row| row.order_id))
    .bind(column(&rows, |row| row.status.as_str()))
    .execute(conn)
    .await?;
    all_found(&done, rows.len())
}

fn rows(reservations: &BTreeMap<OrderId, &Reservation>) -> Vec<ReservationRow> {
    reservations.iter().filter_map(|(order_id, reservation)| ReservationRow::of(*order_id, reservation)).collect()
}

fn column<'a, R, T>(rows: &'a [R], field: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(field).collect()
}

/// Locks these products, in the order of their IDs, and reads them as they are then; one never touched is missing.
pub async fn lock_products(
    conn: &mut PgConnection,
    product_ids: &[i64],
) -> Result<BTreeMap<ProductId, Product>, sqlx::Error> {
    macro_rules! products {
        ($lock:literal) => {
            concat!(
                "SELECT product_id, name, price_amount, currency, listed, on_hand, reserved, sold, received, adjusted
                 FROM products WHERE product_id = ANY($1) ORDER BY product_id",
                $lock
            )
        };
    }
    let unlocked = mutant::is("stock-without-a-lock");
    let rows: Vec<ProductRow> = sqlx::query_as(if unlocked { products!("") } else { products!(" FOR NO KEY UPDATE") })
        .bind(product_ids)
        .fetch_all(conn)
        .await?;
    rows.into_iter().map(|row| Ok((ProductId(row.product_id), row.product()?))).collect()
}

/// Adds to the stock of products that have a row, which the caller has locked.
pub async fn add_stock(conn: &mut PgConnection, added: &BTreeMap<ProductId, Stock>) -> Result<(), sqlx::Error> {
    let rows: Vec<(ProductId, Stock)> = added.iter().map(|(product_id, stock)| (*product_id, *stock)).collect();
    let done = sqlx::query(
        "UPDATE products AS p
         SET on_hand = p.on_hand + u.on_hand, reserved = p.reserved + u.reserved, sold = p.sold + u.sold,
             received = p.received + u.received, adjusted = p.adjusted + u.adjusted
         FROM (SELECT unnest($1::bigint[]) AS product_id, unnest($2::bigint[]) AS on_hand,
                      unnest($3::bigint[]) AS reserved, unnest($4::bigint[]) AS sold,
                      unnest($5::bigint[]) AS received, unnest($6::bigint[]) AS adjusted) AS u
         WHERE p.product_id = ANY (ARRAY[u.product_id])",
    )
    .bind(column(&rows, |(product_id, _)| product_id.0))
    .bind(column(&rows, |(_, stock)| stock.on_hand))
    .bind(column(&rows, |(_, stock)| stock.reserved))
    .bind(column(&rows, |(_, stock)| stock.sold))
    .bind(column(&rows, |(_, stock)| stock.received))
    .bind(column(&rows, |(_, stock)| stock.adjusted))
    .execute(conn)
    .await?;
    all_found(&done, rows.len())
}

/// Adds to the stock of products that had no row to lock. By now another partition, or the catalogue, may have made it:
/// what is there then is added to.
pub async fn add_first_stock(conn: &mut PgConnection, added: &BTreeMap<ProductId, Stock>) -> Result<(), sqlx::Error> {
    let rows: Vec<(ProductId, Stock)> = added.iter().map(|(product_id, stock)| (*product_id, *stock)).collect();
    sqlx::query(
        "INSERT INTO products AS p (product_id, on_hand, reserved, sold, received, adjusted)
         SELECT unnest($1::bigint[]), unnest($2::bigint[]), unnest($3::bigint[]), unnest($4::bigint[]),
                unnest($5::bigint[]), unnest($6::bigint[])
         ON CONFLICT (product_id) DO UPDATE
         SET on_hand = p.on_hand + EXCLUDED.on_hand, reserved = p.reserved + EXCLUDED.reserved,
             sold = p.sold + EXCLUDED.sold, received = p.received + EXCLUDED.received,
             adjusted = p.adjusted + EXCLUDED.adjusted",
    )
    .bind(column(&rows, |(product_id, _)| product_id.0))
    .bind(column(&rows, |(_, stock)| stock.on_hand))
    .bind(column(&rows, |(_, stock)| stock.reserved))
    .bind(column(&rows, |(_, stock)| stock.sold))
    .bind(column(&rows, |(_, stock)| stock.received))
    .bind(column(&rows, |(_, stock)| stock.adjusted))
    .execute(conn)
    .await?;
    Ok(())
}

/// Writes what the catalogue says of products. Only the product's own partition does.
pub async fn save_listings(
    conn: &mut PgConnection,
    listings: &BTreeMap<ProductId, &Listing>,
) -> Result<(), sqlx::Error> {
    let rows: Vec<ProductRow> =
        listings.iter().map(|(product_id, listing)| ProductRow::of(*product_id, listing)).collect();
    sqlx::query(
        "INSERT INTO products (product_id, name, price_amount, currency, listed)
         SELECT * FROM UNNEST($1::bigint[], $2::text[], $3::bigint[], $4::text[], $5::bool[])
         ON CONFLICT (product_id) DO UPDATE
         SET name = EXCLUDED.name, price_amount = EXCLUDED.price_amount, currency = EXCLUDED.currency,
             listed = EXCLUDED.listed",
    )
    .bind(column(&rows, |row| row.product_id))
    .bind(column(&rows, |row| row.name.as_deref()))
    .bind(column(&rows, |row| row.price_amount))
    .bind(column(&rows, |row| row.currency.as_deref()))
    .bind(column(&rows, |row| row.listed))
    .execute(conn)
    .await?;
    Ok(())
}

/// One product as a reader sees it, without a lock.
pub async fn find_product(conn: &mut PgConnection, product_id: ProductId) -> Result<Option<Product>, sqlx::Error> {
    let row: Option<ProductRow> = sqlx::query_as(
        "SELECT product_id, name, price_amount, currency, listed, on_hand, reserved, sold, received, adjusted
         FROM products WHERE product_id = $1",
    )
    .bind(product_id.0)
    .fetch_optional(conn)
    .await?;
    row.map(ProductRow::product).transpose()
}
