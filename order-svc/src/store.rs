//! What is in Postgres: orders, and the catalogue they are priced from.
//!
//! One function per statement; the caller owns the transaction. Positions, outbox and remembered commands are the
//! engine's. Every array that is bound is made from the same rows, so all have one length.
//!
//! Arrays are unnested side by side in a select list: in FROM, each would first fill a store of its own. A known row is
//! found by `= ANY (ARRAY[…])`, which leaves the planner nothing but the primary key: for `=` it may choose a plan that
//! walks the whole index, if it plans while the table is small, and then keeps it.

use std::collections::{BTreeMap, HashSet};

use engine::clock::{from_utc, to_utc};
use engine::migrate::{MigrationSet, Schema};
use engine::pool::all_found;
use engine::service::{Homes, Window};
use events::id::{EventId, OrderId, ProductId};
use events::record::SetBy;
use events::time::Timestamp;
use sqlx::PgConnection;
use sqlx::migrate::Migrator;
use time::OffsetDateTime;

use crate::catalogue::Product;
use crate::row::{OrderRow, OrderStanding, ProductRow};
use crate::state::{State, Status};

static MIGRATOR: Migrator = sqlx::migrate!("migrations/projection");
/// The tables of this service; the engine's are the engine's.
pub const MIGRATIONS: MigrationSet = MigrationSet { schema: Schema::Projection, name: "orders", migrator: &MIGRATOR };

/// The orders of these IDs; one that was never placed is missing.
pub async fn load_orders(conn: &mut PgConnection, order_ids: &[i64]) -> Result<BTreeMap<OrderId, State>, sqlx::Error> {
    let rows: Vec<OrderRow> = sqlx::query_as(
        "SELECT order_id, status, version, customer_id, lines, total_amount, currency, reason,
                customer_reason, pay_by, placed_at, updated_at, last_sequence, expires_at, expires_set_by,
                expires_set_by_sequence
         FROM orders WHERE order_id = ANY($1)",
    )
    .bind(order_ids)
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(|row| Ok((OrderId(row.order_id), row.state()?))).collect()
}

/// Writes orders that have no row yet.
pub async fn insert_orders(
    conn: &mut PgConnection,
    homes: Homes,
    orders: &BTreeMap<OrderId, &State>,
) -> Result<(), sqlx::Error> {
    let rows: Vec<OrderRow> = orders.iter().filter_map(|(order_id, state)| OrderRow::of(*order_id, state)).collect();
    sqlx::query(
        "INSERT INTO orders (partition, order_id, customer_id, lines, total_amount, currency, pay_by, placed_at, status,
                             version, reason, customer_reason, updated_at, last_sequence, expires_at, expires_set_by,
                             expires_set_by_sequence)
         SELECT unnest($1::int[]), unnest($2::bigint[]), unnest($3::text[]), unnest($4::text[]), unnest($5::bigint[]),
                unnest($6::text[]), unnest($7::timestamptz[]), unnest($8::timestamptz[]), unnest($9::text[]),
                unnest($10::bigint[]), unnest($11::text[]), unnest($12::text[]), unnest($13::timestamptz[]),
                unnest($14::bigint[]), unnest($15::timestamptz[]), unnest($16::bigint[]), unnest($17::bigint[])",
    )
    .bind(column(&rows, |row| homes.of(row.order_id)))
    .bind(column(&rows, |row| row.order_id))
    .bind(column(&rows, |row| row.customer_id.as_str()))
    .bind(column(&rows, |row| row.lines.as_str()))
    .bind(column(&rows, |row| row.total_amount))
    .bind(column(&rows, |row| row.currency.as_deref()))
    .bind(column(&rows, |row| row.pay_by))
    .bind(column(&rows, |row| row.placed_at))
    .bind(column(&rows, |row| row.standing.status.as_str()))
    .bind(column(&rows, |row| row.standing.version))
    .bind(column(&rows, |row| row.standing.reason.as_deref()))
    .bind(column(&rows, |row| row.standing.customer_reason.as_deref()))
    .bind(column(&rows, |row| row.standing.updated_at))
    .bind(column(&rows, |row| row.standing.last_sequence))
    .bind(column(&rows, |row| row.standing.expires_at))
    .bind(column(&rows, |row| row.standing.expires_set_by))
    .bind(column(&rows, |row| row.standing.expires_set_by_sequence))
    .execute(conn)
    .await?;
    Ok(())
}

/// Writes how orders that have a row stand now. What they were placed with never changes and is not written again.
pub async fn update_orders(conn: &mut PgConnection, orders: &BTreeMap<OrderId, &State>) -> Result<(), sqlx::Error> {
    let row = |(order_id, state): (&OrderId, &&State)| Some((order_id.0, OrderStanding::of(state)?));
    let rows: Vec<(i64, OrderStanding)> = orders.iter().filter_map(row).collect();
    let done = sqlx::query(
        "UPDATE orders AS o
         SET status = u.status, version = u.version, reason = u.reason, customer_reason = u.customer_reason,
             updated_at = u.updated_at, last_sequence = u.last_sequence, expires_at = u.expires_at,
             expires_set_by = u.expires_set_by, expires_set_by_sequence = u.expires_set_by_sequence
         FROM (SELECT unnest($1::bigint[]) AS order_id, unnest($2::text[]) AS status, unnest($3::bigint[]) AS version,
                      unnest($4::text[]) AS reason, unnest($5::text[]) AS customer_reason,
                      unnest($6::timestamptz[]) AS updated_at, unnest($7::bigint[]) AS last_sequence,
                      unnest($8::timestamptz[]) AS expires_at, unnest($9::bigint[]) AS expires_set_by,
                      unnest($10::bigint[]) AS expires_set_by_sequence) AS u
         WHERE o.order_id = ANY (ARRAY[u.order_id])",
    )
    .bind(column(&rows, |(order_id, _)| *order_id))
    .bind(column(&rows, |(_, standing)| standing.status.as_str()))
    .bind(column(&rows, |(_, standing)| standing.version))
    .bind(column(&rows, |(_, standing)| standing.reason.as_deref()))
    .bind(column(&rows, |(_, standing)| standing.customer_reason.as_deref()))
    .bind(column(&rows, |(_, standing)| standing.updated_at))
    .bind(column(&rows, |(_, standing)| standing.last_sequence))
    .bind(column(&rows, |(_, standing)| standing.expires_at))
    .bind(column(&rows, |(_, standing)| standing.expires_set_by))
    .bind(column(&rows, |(_, standing)| standing.expires_set_by_sequence))
    .execute(conn)
    .await?;
    all_found(&done, rows.len())
}

fn column<'a, R, T>(rows: &'a [R], field: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(field).collect()
}

/// The timers of a processor that are due in the window, the earliest first: order, and the event that set it. Those of
/// the `resting` orders are left out.
pub async fn due_timers(
    conn: &mut PgConnection,
    partition: i32,
    window: Window,
    resting: &[i64],
) -> Result<Vec<(OrderId, SetBy)>, sqlx::Error> {
    let rows: Vec<(i64, i64, i64)> = sqlx::query_as(
        "SELECT order_id, expires_set_by, expires_set_by_sequence FROM orders
         WHERE partition = $1 AND expires_at BETWEEN $2 AND $3 AND order_id <> ALL($5)
         ORDER BY expires_at, order_id LIMIT $4",
    )
    .bind(partition)
    .bind(to_utc(window.from))
    .bind(to_utc(window.until))
    .bind(window.limit)
    .bind(resting)
    .fetch_all(conn)
    .await?;
    let timer = |(order_id, event_id, sequence)| (OrderId(order_id), SetBy { event_id: EventId(event_id), sequence });
    Ok(rows.into_iter().map(timer).collect())
}

/// The earliest timer of a processor, due or not, those of the `resting` orders aside.
pub async fn next_timer(
    conn: &mut PgConnection,
    partition: i32,
    resting: &[i64],
) -> Result<Option<Timestamp>, sqlx::Error> {
    let row: (Option<OffsetDateTime>,) = sqlx::query_as(
        "SELECT min(expires_at) FROM orders
         WHERE partition = $1 AND expires_at IS NOT NULL AND order_id <> ALL($2)",
    )
    .bind(partition)
    .bind(resting)
    .fetch_one(conn)
    .await?;
    Ok(row.0.map(from_utc))
}

/// The products of these IDs, listed or not; one that was never listed is missing.
pub async fn load_products(
    conn: &mut PgConnection,
    product_ids: &[i64],
) -> Result<BTreeMap<ProductId, Product>, sqlx::Error> {
    let rows: Vec<ProductRow> = sqlx::query_as(
        "SELECT product_id, name, price_amount, currency, listed FROM catalogue WHERE product_id = ANY($1)",
    )
    .bind(product_ids)
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(|row| Ok((ProductId(row.product_id), row.product()?))).collect()
}

/// Those of these products that can be ordered.
pub async fn listed_products(conn: &mut PgConnection, product_ids: &[i64]) -> Result<HashSet<ProductId>, sqlx::Error> {
    let rows: Vec<(i64,)> = sqlx::query_as("SELECT product_id FROM catalogue WHERE listed AND product_id = ANY($1)")
        .bind(product_ids)
        .fetch_all(conn)
        .await?;
    Ok(rows.into_iter().map(|(product_id,)| ProductId(product_id)).collect())
}

/// Writes products as they are now.
pub async fn save_products(
    conn: &mut PgConnection,
    products: &BTreeMap<ProductId, &Product>,
) -> Result<(), sqlx::Error> {
    let rows: Vec<&Product> = products.values().copied().collect();
    sqlx::query(
        "INSERT INTO catalogue (product_id, name, price_amount, currency, listed)
         SELECT * FROM UNNEST($1::bigint[], $2::text[], $3::bigint[], $4::text[], $5::bool[])
         ON CONFLICT (product_id) DO UPDATE
         SET name = EXCLUDED.name, price_amount = EXCLUDED.price_amount, currency = EXCLUDED.currency,
             listed = EXCLUDED.listed",
    )
    .bind(column(&rows, |product| product.product_id.0))
    .bind(column(&rows, |product| product.name.as_str()))
    .bind(column(&rows, |product| product.price.amount))
    .bind(column(&rows, |product| product.price.currency.to_string()))
    .bind(column(&rows, |product| product.listed))
    .execute(conn)
    .await?;
    Ok(())
}

/// Which orders a list shows.
#[derive(Debug, Clone, Copy, Default)]
pub struct OrderFilter<'a> {
    /// Only this customer's.
    pub customer_id: Option<&'a str>,
    /// Only of this status.
    pub status: Option<Status>,
    /// Only behind this one.
    pub before: Option<OrderId>,
}

/// A page of orders, the highest ID first. Of open orders it says once more that they have a timer: so they are found by
/// the index of the timers, as the orders that came to nothing are by one of theirs, and both may be few among many.
pub async fn list_orders(
    conn: &mut PgConnection,
    filter: OrderFilter<'_>,
    limit: i64,
) -> Result<Vec<State>, sqlx::Error> {
    let rows: Vec<OrderRow> = sqlx::query_as(
        "SELECT order_id, status, version, customer_id, lines, total_amount, currency, reason,
                customer_reason, pay_by, placed_at, updated_at, last_sequence, expires_at, expires_set_by,
                expires_set_by_sequence
         FROM orders
         WHERE ($1::text IS NULL OR customer_id = $1) AND ($2::text IS NULL OR status = $2)
               AND ($2::text IS DISTINCT FROM 'PLACED' OR expires_at IS NOT NULL)
               AND ($3::bigint IS NULL OR order_id < $3)
         ORDER BY order_id DESC LIMIT $4",
    )
    .bind(filter.customer_id)
    .bind(filter.status.map(Status::as_str))
    .bind(filter.before.map(|order_id| order_id.0))
    .bind(limit)
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(OrderRow::state).collect()
}

/// A page of the products that can be ordered, the lowest ID first.
pub async fn list_products(
    conn: &mut PgConnection,
    after: Option<ProductId>,
    limit: i64,
) -> Result<Vec<Product>, sqlx::Error> {
    let rows: Vec<ProductRow> = sqlx::query_as(
        "SELECT product_id, name, price_amount, currency, listed FROM catalogue
         WHERE listed AND product_id > $1
         ORDER BY product_id LIMIT $2",
    )
    .bind(after.map_or(0, |product_id| product_id.0))
    .bind(limit)
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(ProductRow::product).collect()
}

/// The sequences of the order's events that a command caused, refusals among them; the last ones when there are many.
pub async fn command_sequences(
    conn: &mut PgConnection,
    order_id: OrderId,
    limit: i64,
) -> Result<Vec<i64>, sqlx::Error> {
    let rows: Vec<(i64,)> =
        sqlx::query_as("SELECT sequence FROM commands WHERE subject = $1 ORDER BY sequence DESC LIMIT $2")
            .bind(order_id.0)
            .bind(limit)
            .fetch_all(conn)
            .await?;
    Ok(rows.into_iter().map(|(sequence,)| sequence).collect())
}
