//! What is in Postgres: notices, and where customers can be reached.
//!
//! One function per statement; the caller owns the transaction. Contacts are rows outside the log: no decision is folded
//! from them, and HTTP alone writes them. Every array that is bound is made from the same rows, so all have one length.
//!
//! Arrays are unnested side by side in a select list: in FROM, each would first fill a store of its own. A known row is
//! found by `= ANY (ARRAY[…])`, which leaves the planner nothing but the primary key: for `=` it may choose a plan that
//! walks the whole index, if it plans while the table is small, and then keeps it.

use std::collections::BTreeMap;

use engine::clock::from_utc;
use engine::migrate::{MigrationSet, Schema};
use engine::pool::all_found;
use engine::service::Homes;
use events::code::{Channel, NoticeKind};
use events::id::OrderId;
use events::record::SetBy;
use events::time::Timestamp;
use sqlx::PgConnection;
use sqlx::migrate::Migrator;
use time::OffsetDateTime;

use crate::contact::Contact;
use crate::row::{NoticeRow, broken, channels, set_by};
use crate::state::{Delivery, Notice, State};

static PROJECTION: Migrator = sqlx::migrate!("migrations/projection");
static ENGINE: Migrator = sqlx::migrate!("migrations/engine");
/// The contacts, beside what is folded.
pub const CONTACTS: MigrationSet = MigrationSet { schema: Schema::Engine, name: "contacts", migrator: &ENGINE };
/// The notices; the engine's tables are the engine's.
pub const NOTICES: MigrationSet = MigrationSet { schema: Schema::Projection, name: "notices", migrator: &PROJECTION };

/// All notices of these orders; an order that has none is missing.
pub async fn load_notices(conn: &mut PgConnection, order_ids: &[i64]) -> Result<BTreeMap<OrderId, State>, sqlx::Error> {
    let rows: Vec<NoticeRow> = sqlx::query_as(
        "SELECT order_id, kind, customer_id, skip_reason, due_at, total_amount, currency, reason, pay_by, pay_url,
                email, sms, set_by, set_by_sequence, updated_at
         FROM notices WHERE order_id = ANY($1)",
    )
    .bind(order_ids)
    .fetch_all(conn)
    .await?;
    let mut states: BTreeMap<OrderId, State> = BTreeMap::new();
    for row in rows {
        let order_id = OrderId(row.order_id);
        let (kind, notice) = row.notice()?;
        states.entry(order_id).or_default().notices.insert(kind, notice);
    }
    Ok(states)
}

/// Writes notices that have no row yet.
pub async fn insert_notices(
    conn: &mut PgConnection,
    homes: Homes,
    notices: &BTreeMap<(OrderId, NoticeKind), &Notice>,
) -> Result<(), sqlx::Error> {
    let rows = rows(notices);
    sqlx::query(
        "INSERT INTO notices (partition, order_id, kind, customer_id, skip_reason, due_at, total_amount, currency,
                              reason, pay_by, pay_url, email, sms, set_by, set_by_sequence, updated_at)
         SELECT unnest($1::int[]), unnest($2::bigint[]), unnest($3::text[]), unnest($4::text[]), unnest($5::text[]),
                unnest($6::timestamptz[]), unnest($7::bigint[]), unnest($8::text[]), unnest($9::text[]),
                unnest($10::timestamptz[]), unnest($11::text[]), unnest($12::text[]), unnest($13::text[]),
                unnest($14::bigint[]), unnest($15::bigint[]), unnest($16::timestamptz[])",
    )
    .bind(column(&rows, |row| homes.of(row.order_id)))
    .bind(column(&rows, |row| row.order_id))
    .bind(column(&rows, |row| row.kind.as_str()))
    .bind(column(&rows, |row| row.customer_id.as_str()))
    .bind(column(&rows, |row| row.skip_reason.as_deref()))
    .bind(column(&rows, |row| row.due_at))
    .bind(column(&rows, |row| row.total_amount))
    .bind(column(&rows, |row| row.currency.as_deref()))
    .bind(column(&rows, |row| row.reason.as_deref()))
    .bind(column(&rows, |row| row.pay_by))
    .bind(column(&rows, |row| row.pay_url.as_deref()))
    .bind(column(&rows, |row| row.email.as_deref()))
    .bind(column(&rows, |row| row.sms.as_deref()))
    .bind(column(&rows, |row| row.set_by))
    .bind(column(&rows, |row| row.set_by_sequence))
    .bind(column(&rows, |row| row.updated_at))
    .execute(conn)
    .await?;
    Ok(())
}

/// Writes what became of notices that have a row. What they say never changes: it stays, or goes when they are skipped.
pub async fn update_notices(
    conn: &mut PgConnection,
    notices: &BTreeMap<(OrderId, NoticeKind), &Notice>,
) -> Result<(), sqlx::Error> {
    let rows = rows(notices);
    let done = sqlx::query(
        "UPDATE notices AS n
         SET skip_reason = u.skip_reason, email = u.email, sms = u.sms, updated_at = u.updated_at,
             due_at = CASE WHEN u.skip_reason IS NULL THEN n.due_at END,
             total_amount = CASE WHEN u.skip_reason IS NULL THEN n.total_amount END,
             currency = CASE WHEN u.skip_reason IS NULL THEN n.currency END,
             reason = CASE WHEN u.skip_reason IS NULL THEN n.reason END,
             pay_by = CASE WHEN u.skip_reason IS NULL THEN n.pay_by END,
             pay_url = CASE WHEN u.skip_reason IS NULL THEN n.pay_url END,
             set_by = CASE WHEN u.skip_reason IS NULL THEN n.set_by END,
             set_by_sequence = CASE WHEN u.skip_reason IS NULL THEN n.set_by_sequence END
         FROM (SELECT unnest($1::bigint[]) AS order_id, unnest($2::text[]) AS kind, unnest($3::text[]) AS skip_reason,
                      unnest($4::text[]) AS email, unnest($5::text[]) AS sms,
                      unnest($6::timestamptz[]) AS updated_at) AS u
         WHERE n.order_id = ANY (ARRAY[u.order_id]) AND n.kind = u.kind",
    )
    .bind(column(&rows, |row| row.order_id))
    .bind(column(&rows, |row| row.kind.as_str()))
    .bind(column(&rows, |row| row.skip_reason.as_deref()))
    .bind(column(&rows, |row| row.email.as_deref()))
    .bind(column(&rows, |row| row.sms.as_deref()))
    .bind(column(&rows, |row| row.updated_at))
    .execute(conn)
    .await?;
    all_found(&done, rows.len())
}

fn rows(notices: &BTreeMap<(OrderId, NoticeKind), &Notice>) -> Vec<NoticeRow> {
    notices.iter().map(|((order_id, kind), notice)| NoticeRow::of(*order_id, *kind, notice)).collect()
}

fn column<'a, R, T>(rows: &'a [R], field: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(field).collect()
}

/// A notice that a processor still has to send, on one channel or more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// Of which order.
    pub order_id: OrderId,
    /// Which notice.
    pub kind: NoticeKind,
    /// On these channels.
    pub channels: Vec<Channel>,
    /// Not before.
    pub due_at: Timestamp,
    /// The event that asks for it.
    pub set_by: SetBy,
}

/// What a processor still has to send, in the order in which it was asked for.
pub async fn pending_notices(conn: &mut PgConnection, partition: i32) -> Result<Vec<Pending>, sqlx::Error> {
    type Row = (i64, String, Option<String>, Option<String>, Option<OffsetDateTime>, Option<i64>, Option<i64>);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT order_id, kind, email, sms, due_at, set_by, set_by_sequence FROM notices
         WHERE partition = $1 AND (email = 'PENDING' OR sms = 'PENDING')
         ORDER BY set_by_sequence",
    )
    .bind(partition)
    .fetch_all(conn)
    .await?;
    let pending = |(order_id, kind, email, sms, due_at, event_id, sequence): Row| {
        let channels = channels(email.as_deref(), sms.as_deref())?;
        let open = channels.into_iter().filter(|(_, delivery)| *delivery == Delivery::Pending);
        Ok(Pending {
            order_id: OrderId(order_id),
            kind: NoticeKind::parse(&kind).map_err(|_| broken("kind"))?,
            channels: open.map(|(channel, _)| channel).collect(),
            due_at: from_utc(due_at.ok_or_else(|| broken("due_at"))?),
            set_by: set_by(event_id, sequence)?,
        })
    };
    rows.into_iter().map(pending).collect()
}

/// Where these customers can be reached; one that never said is missing.
pub async fn load_contacts(
    conn: &mut PgConnection,
    customer_ids: &[&str],
) -> Result<BTreeMap<String, Contact>, sqlx::Error> {
    let rows: Vec<(String, Option<String>, Option<String>)> =
        sqlx::query_as("SELECT customer_id, email, phone FROM contacts WHERE customer_id = ANY($1)")
            .bind(customer_ids)
            .fetch_all(conn)
            .await?;
    Ok(rows.into_iter().map(|(customer_id, email, phone)| (customer_id, Contact { email, phone })).collect())
}

/// Puts a customer's contact in the place of the one before.
pub async fn put_contact(conn: &mut PgConnection, customer_id: &str, contact: &Contact) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO contacts (customer_id, email, phone) VALUES ($1, $2, $3)
         ON CONFLICT (customer_id) DO UPDATE SET email = EXCLUDED.email, phone = EXCLUDED.phone",
    )
    .bind(customer_id)
    .bind(contact.email.as_deref())
    .bind(contact.phone.as_deref())
    .execute(conn)
    .await?;
    Ok(())
}

/// Erases a customer's contact.
pub async fn delete_contact(conn: &mut PgConnection, customer_id: &str) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM contacts WHERE customer_id = $1").bind(customer_id).execute(conn).await?;
    Ok(())
}
