//! How an order and a product become a row, and a row becomes one again.
//!
//! No SQL here: the statements are [`crate::store`]'s. A row that is none of ours is a decoding error.

use engine::clock::{from_utc, to_utc};
use events::code::{CancelReason, CustomerReason, RejectReason};
use events::id::{EventId, OrderId, ProductId};
use events::money::{Currency, Money};
use events::record::SetBy;
use events::time::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use time::OffsetDateTime;

use crate::catalogue::Product;
use crate::state::{Order, Rejected, State, Status, Timer};

/// A row of `orders`, its partition aside.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct OrderRow {
    pub(crate) order_id: i64,
    pub(crate) customer_id: String,
    /// JSON.
    pub(crate) lines: String,
    pub(crate) total_amount: Option<i64>,
    pub(crate) currency: Option<String>,
    pub(crate) pay_by: Option<OffsetDateTime>,
    pub(crate) placed_at: OffsetDateTime,
    #[sqlx(flatten)]
    pub(crate) standing: OrderStanding,
}

/// The part of a row of `orders` that changes when the order moves on.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct OrderStanding {
    pub(crate) status: String,
    pub(crate) version: i64,
    pub(crate) reason: Option<String>,
    pub(crate) customer_reason: Option<String>,
    pub(crate) updated_at: OffsetDateTime,
    pub(crate) last_sequence: i64,
    pub(crate) expires_at: Option<OffsetDateTime>,
    pub(crate) expires_set_by: Option<i64>,
    pub(crate) expires_set_by_sequence: Option<i64>,
}

/// A row of `catalogue`.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct ProductRow {
    pub(crate) product_id: i64,
    pub(crate) name: String,
    pub(crate) price_amount: i64,
    pub(crate) currency: String,
    pub(crate) listed: bool,
}

impl OrderRow {
    /// The row of an order; `None` of one that was never heard of.
    pub(crate) fn of(order_id: OrderId, state: &State) -> Option<Self> {
        let standing = OrderStanding::of(state)?;
        let row = match state {
            State::Unknown => return None,
            State::Placed { order, .. }
            | State::Confirmed(order)
            | State::Expired(order)
            | State::Cancelled { order, .. } => Self {
                order_id: order.order_id.0,
                customer_id: order.customer_id.clone(),
                lines: json(&order.lines),
                total_amount: Some(order.total.amount),
                currency: Some(order.total.currency.to_string()),
                pay_by: Some(to_utc(order.pay_by)),
                placed_at: to_utc(order.placed_at),
                standing,
            },
            State::Rejected(rejected) => Self {
                order_id: rejected.order_id.0,
                customer_id: rejected.customer_id.clone(),
                lines: json(&rejected.lines),
                total_amount: None,
                currency: None,
                pay_by: None,
                placed_at: to_utc(rejected.rejected_at),
                standing,
            },
        };
        debug_assert_eq!(row.order_id, order_id.0, "a state stands under its own ID");
        Some(row)
    }

    /// The order of a row.
    pub(crate) fn state(self) -> Result<State, sqlx::Error> {
        let status = Status::parse(&self.standing.status).ok_or_else(|| broken("status"))?;
        Ok(match status {
            Status::Placed => State::Placed { timer: self.standing.timer()?, order: self.order()? },
            Status::Confirmed => State::Confirmed(self.order()?),
            Status::Expired => State::Expired(self.order()?),
            Status::Cancelled => State::Cancelled {
                reason: code(self.standing.reason.as_deref(), CancelReason::parse, "reason")?,
                customer_reason: match self.standing.customer_reason.as_deref() {
                    Some(text) => Some(code(Some(text), CustomerReason::parse, "customer_reason")?),
                    None => None,
                },
                order: self.order()?,
            },
            Status::Rejected => State::Rejected(Rejected {
                order_id: OrderId(self.order_id),
                reason: code(self.standing.reason.as_deref(), RejectReason::parse, "reason")?,
                lines: parsed(&self.lines)?,
                customer_id: self.customer_id,
                version: self.standing.version,
                rejected_at: from_utc(self.placed_at),
                last_sequence: self.standing.last_sequence,
            }),
        })
    }

    fn order(self) -> Result<Order, sqlx::Error> {
        let amount = self.total_amount.ok_or_else(|| broken("total_amount"))?;
        Ok(Order {
            order_id: OrderId(self.order_id),
            lines: parsed(&self.lines)?,
            total: Money::new(amount, code(self.currency.as_deref(), Currency::parse, "currency")?),
            pay_by: from_utc(self.pay_by.ok_or_else(|| broken("pay_by"))?),
            customer_id: self.customer_id,
            version: self.standing.version,
            placed_at: from_utc(self.placed_at),
            updated_at: from_utc(self.standing.updated_at),
            last_sequence: self.standing.last_sequence,
        })
    }
}

impl OrderStanding {
    /// How an order stands; `None` of one that was never heard of.
    pub(crate) fn of(state: &State) -> Option<Self> {
        Some(match state {
            State::Unknown => return None,
            State::Placed { order, timer } => Self {
                expires_at: Some(to_utc(timer.due_at)),
                expires_set_by: Some(timer.set_by.event_id.0),
                expires_set_by_sequence: Some(timer.set_by.sequence),
                ..Self::of_order(order, Status::Placed)
            },
            State::Confirmed(order) => Self::of_order(order, Status::Confirmed),
            State::Expired(order) => Self::of_order(order, Status::Expired),
            State::Cancelled { order, reason, customer_reason } => Self {
                reason: Some(reason.to_string()),
                customer_reason: customer_reason.map(|reason| reason.to_string()),
                ..Self::of_order(order, Status::Cancelled)
            },
            State::Rejected(rejected) => Self {
                reason: Some(rejected.reason.to_string()),
                ..Self::without_reason(Status::Rejected, rejected.version, rejected.rejected_at, rejected.last_sequence)
            },
        })
    }

    fn of_order(order: &Order, status: Status) -> Self {
        Self::without_reason(status, order.version, order.updated_at, order.last_sequence)
    }

    fn without_reason(status: Status, version: i64, updated_at: Timestamp, last_sequence: i64) -> Self {
        Self {
            status: status.as_str().to_owned(),
            version,
            reason: None,
            customer_reason: None,
            updated_at: to_utc(updated_at),
            last_sequence,
            expires_at: None,
            expires_set_by: None,
            expires_set_by_sequence: None,
        }
    }

    fn timer(&self) -> Result<Timer, sqlx::Error> {
        match (self.expires_at, self.expires_set_by, self.expires_set_by_sequence) {
            (Some(due_at), Some(event_id), Some(sequence)) => {
                Ok(Timer { due_at: from_utc(due_at), set_by: SetBy { event_id: EventId(event_id), sequence } })
            }
            _ => Err(broken("expires_at")),
        }
    }
}

impl ProductRow {
    /// The product of a row.
    pub(crate) fn product(self) -> Result<Product, sqlx::Error> {
        let currency = code(Some(&self.currency), Currency::parse, "currency")?;
        Ok(Product {
            product_id: ProductId(self.product_id),
            name: self.name,
            price: Money::new(self.price_amount, currency),
            listed: self.listed,
        })
    }
}

fn json(lines: &impl Serialize) -> String {
    serde_json::to_string(lines).expect("plain structs are JSON")
}

fn parsed<T: DeserializeOwned>(lines: &str) -> Result<T, sqlx::Error> {
    serde_json::from_str(lines).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

fn code<T, E>(text: Option<&str>, parse: impl Fn(&str) -> Result<T, E>, column: &str) -> Result<T, sqlx::Error> {
    text.and_then(|text| parse(text).ok()).ok_or_else(|| broken(column))
}

fn broken(column: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("column {column} holds nothing that this service wrote").into())
}
