//! What is in Postgres: payments.
//!
//! One function per statement; the caller owns the transaction. Positions, outbox, tries and remembered commands are the
//! engine's. Every array that is bound is made from the same rows, so all have one length.

use std::collections::BTreeMap;

use engine::migrate::{MigrationSet, Schema};
use engine::service::EffectMark;
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

/// Writes payments as they are now. Customer and total never change and are not written again.
pub async fn save_payments(conn: &mut PgConnection, partition: i32, payments: &[&State]) -> Result<(), sqlx::Error> {
    let mut rows: Vec<PaymentRow> = payments.iter().copied().filter_map(PaymentRow::of).collect();
    rows.sort_by_key(|row| row.order_id);
    sqlx::query(
        "INSERT INTO payments AS p (partition, order_id, status, customer_id, total_amount, currency, payment_method,
                                    pay_by, pay_url, taken_amount, taken_currency, call_kind, call_set_by,
                                    call_sequence)
         SELECT $1, u.* FROM UNNEST($2::bigint[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::text[],
                                    $8::timestamptz[], $9::text[], $10::bigint[], $11::text[], $12::text[],
                                    $13::bigint[], $14::bigint[]) AS u
         ON CONFLICT (order_id) DO UPDATE
         SET status = EXCLUDED.status, payment_method = EXCLUDED.payment_method, pay_by = EXCLUDED.pay_by,
             pay_url = EXCLUDED.pay_url, taken_amount = EXCLUDED.taken_amount,
             taken_currency = EXCLUDED.taken_currency, call_kind = EXCLUDED.call_kind,
             call_set_by = EXCLUDED.call_set_by, call_sequence = EXCLUDED.call_sequence",
    )
    .bind(partition)
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
