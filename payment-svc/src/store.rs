//! What is in Postgres: payments.
//!
//! One function per statement; the caller owns the transaction. Positions, outbox, tries and remembered commands are the
//! engine's. Every array that is bound is made from the same rows, so all have one length.
//!
//! Arrays are unnested side by side in a select list: in FROM, each would first fill a store of its own. A known row is
//! found by `= ANY (ARRAY[…])`, which leaves the planner nothing but the primary key: for `=` it may choose a plan that
//! walks the whole index, if it plans while the table is small, and then keeps it.

use std::collections::BTreeMap;

use engine::migrate::{MigrationSet, Schema};
use engine::pool::all_found;
use engine::service::{EffectMark, Homes};
use events::id::{EventId, OrderId};
use events::record::SetBy;
use sqlx::PgConnection;
use sqlx::migrate::Migrator;

use crate::row::{PaymentRow, broken};
use crate::state::{Call, State};

static MIGRATOR: Migrator = sqlx::migrate!("migrations/projection");
/// The tables of this service; the engine's are the engine's.
pub const MIGRATIONS: MigrationSet = MigrationSet { schema: Schema::Projection, name: "payments", migrator: &MIGRATOR };

/// The payments of these orders; one that was never heard of is missing.
pub async fn load_payments(
    conn: &mut PgConnection,
    order_ids: &[i64],
) -> Result<BTreeMap<OrderId, State>, sqlx::Error> {
    let rows: Vec<PaymentRow> = sqlx::query_as(
        "SELECT order_id, status, customer_id, total_amount, currency, payment_method, pay_by, pay_url, taken_amount,
                taken_currency, call_kind, call_set_by, call_sequence
         FROM payments WHERE order_id = ANY($1)",
    )
    .bind(order_ids)
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(|row| Ok((OrderId(row.order_id), row.state()?))).collect()
}

/// Writes payments that have no row yet.
pub async fn insert_payments(conn: &mut PgConnection, homes: Homes, payments: &[&State]) -> Result<(), sqlx::Error> {
    let rows = rows(payments);
    sqlx::query(
        "INSERT INTO payments (partition, order_id, status, customer_id, total_amount, currency, payment_method, pay_by,
                               pay_url, taken_amount, taken_currency, call_kind, call_set_by, call_sequence)
         SELECT unnest($1::int[]), unnest($2::bigint[]), unnest($3::text[]), unnest($4::text[]), unnest($5::bigint[]),
                unnest($6::text[]), unnest($7::text[]), unnest($8::timestamptz[]), unnest($9::text[]),
                unnest($10::bigint[]), unnest($11::text[]), unnest($12::text[]), unnest($13::bigint[]),
                unnest($14::bigint[])",
    )
    .bind(column(&rows, |row| homes.of(row.order_id)))
    .bind(column(&rows, |row| row.order_id))
    .bind(column(&rows, |row| row.status.as_str()))
    .bind(column(&rows, |row| row.customer_id.as_str()))
    .bind(column(&rows, |row| row.total_amount))
    .bind(column(&rows, |row| row.currency.as_str()))
    .bind(column(&rows, |row| row.payment_method.as_deref()))
    .bind(column(&rows, |row| row.pay_by))
    .bind(column(&rows, |row| row.pay_url.as_deref()))
    .bind(column(&rows, |row| row.taken_amount))
    .bind(column(&rows, |row| row.taken_currency.as_deref()))
    .bind(column(&rows, |row| row.call_kind.as_deref()))
    .bind(column(&rows, |row| row.call_set_by))
    .bind(column(&rows, |row| row.call_sequence))
    .execute(conn)
    .await?;
    Ok(())
}

/// Writes payments that have a row as they are now. Customer and total never change and are not written again.
pub async fn update_payments(conn: &mut PgConnection, payments: &[&State]) -> Result<(), sqlx::Error> {
    let rows = rows(payments);
    let done = sqlx::query(
        "UPDATE payments AS p
         SET status = u.status, payment_method = u.payment_method, pay_by = u.pay_by, pay_url = u.pay_url,
             taken_amount = u.taken_amount, taken_currency = u.taken_currency, call_kind = u.call_kind,
             call_set_by = u.call_set_by, call_sequence = u.call_sequence
         FROM (SELECT unnest($1::bigint[]) AS order_id, unnest($2::text[]) AS status,
                      unnest($3::text[]) AS payment_method, unnest($4::timestamptz[]) AS pay_by,
                      unnest($5::text[]) AS pay_url, unnest($6::bigint[]) AS taken_amount,
                      unnest($7::text[]) AS taken_currency, unnest($8::text[]) AS call_kind,
                      unnest($9::bigint[]) AS call_set_by, unnest($10::bigint[]) AS call_sequence) AS u
         WHERE p.order_id = ANY (ARRAY[u.order_id])",
    )
    .bind(column(&rows, |row| row.order_id))
    .bind(column(&rows, |row| row.status.as_str()))
    .bind(column(&rows, |row| row.payment_method.as_deref()))
    .bind(column(&rows, |row| row.pay_by))
    .bind(column(&rows, |row| row.pay_url.as_deref()))
    .bind(column(&rows, |row| row.taken_amount))
    .bind(column(&rows, |row| row.taken_currency.as_deref()))
    .bind(column(&rows, |row| row.call_kind.as_deref()))
    .bind(column(&rows, |row| row.call_set_by))
    .bind(column(&rows, |row| row.call_sequence))
    .execute(conn)
    .await?;
    all_found(&done, rows.len())
}

/// In the order of their keys, in which their index is walked.
fn rows(payments: &[&State]) -> Vec<PaymentRow> {
    let mut rows: Vec<PaymentRow> = payments.iter().copied().filter_map(PaymentRow::of).collect();
    rows.sort_by_key(|row| row.order_id);
    rows
}

fn column<'a, R, T>(rows: &'a [R], field: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(field).collect()
}

/// The calls that the payments of a processor ask for, in the order in which they were asked for.
pub async fn calls(conn: &mut PgConnection, partition: i32) -> Result<Vec<EffectMark>, sqlx::Error> {
    let rows: Vec<(i64, String, i64, i64)> = sqlx::query_as(
        "SELECT order_id, call_kind, call_set_by, call_sequence FROM payments
         WHERE partition = $1 AND call_kind IS NOT NULL
         ORDER BY call_sequence",
    )
    .bind(partition)
    .fetch_all(conn)
    .await?;
    let mark = |(key, kind, event_id, sequence): (i64, String, i64, i64)| {
        let set_by = SetBy { event_id: EventId(event_id), sequence };
        let call = [Call::Charge, Call::Cancel, Call::Refund].into_iter().find(|call| call.as_str() == kind);
        // A call that is not known is no call to forget: money may hang on it.
        let call = call.ok_or_else(|| broken("call_kind"))?;
        Ok(EffectMark { key, kind: call.as_str(), set_by, not_before: None })
    };
    rows.into_iter().map(mark).collect()
}

/// Whether the gateway has taken a payment's charge in and will answer later.
pub async fn is_pending(conn: &mut PgConnection, order_id: OrderId) -> Result<bool, sqlx::Error> {
    let row: Option<(bool,)> = sqlx::query_as("SELECT pending FROM effects WHERE key = $1 AND kind = 'charge'")
        .bind(order_id.0)
        .fetch_optional(conn)
        .await?;
    Ok(row.is_some_and(|(pending,)| pending))
}
