//! How a payment becomes a row, and a row becomes one again.
//!
//! No SQL here: the statements are [`crate::store`]'s. A row that is none of ours is a decoding error.

use engine::clock::{from_utc, to_utc};
use events::id::{EventId, OrderId};
use events::money::{Currency, Money};
use events::record::SetBy;
use time::OffsetDateTime;

use crate::state::{Payment, State, Status, Terms};

/// A row of `payments`, its partition aside.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct PaymentRow {
    pub(crate) order_id: i64,
    pub(crate) status: String,
    pub(crate) customer_id: String,
    pub(crate) total_amount: i64,
    pub(crate) currency: String,
    pub(crate) payment_method: Option<String>,
    pub(crate) pay_by: Option<OffsetDateTime>,
    pub(crate) pay_url: Option<String>,
    pub(crate) taken_amount: Option<i64>,
    pub(crate) taken_currency: Option<String>,
    pub(crate) call_kind: Option<String>,
    pub(crate) call_set_by: Option<i64>,
    pub(crate) call_sequence: Option<i64>,
}

impl PaymentRow {
    /// The row of a payment; `None` of one that was never heard of.
    pub(crate) fn of(state: &State) -> Option<Self> {
        let (status, payment) = (state.status()?, state.payment()?);
        let (terms, taken, call) = (state.terms(), state.taken(), state.call());
        Some(Self {
            order_id: payment.order_id.0,
            status: status.as_str().to_owned(),
            customer_id: payment.customer_id.clone(),
            total_amount: payment.total.amount,
            currency: payment.total.currency.to_string(),
            payment_method: terms.map(|terms| terms.payment_method.clone()),
            pay_by: terms.map(|terms| to_utc(terms.pay_by)),
            pay_url: terms.and_then(|terms| terms.pay_url.clone()),
            taken_amount: taken.map(|taken| taken.amount),
            taken_currency: taken.map(|taken| taken.currency.to_string()),
            call_kind: call.map(|(call, _)| call.as_str().to_owned()),
            call_set_by: call.map(|(_, set_by)| set_by.event_id.0),
            call_sequence: call.map(|(_, set_by)| set_by.sequence),
        })
    }

    /// The payment of a row.
    pub(crate) fn state(self) -> Result<State, sqlx::Error> {
        let status = Status::parse(&self.status).ok_or_else(|| broken("status"))?;
        let payment = Payment {
            order_id: OrderId(self.order_id),
            customer_id: self.customer_id.clone(),
            total: Money::new(self.total_amount, currency(&self.currency)?),
        };
        Ok(match status {
            Status::Requested => State::Requested { payment, charge: self.set_by()?, terms: self.terms()? },
            Status::CancelRequested => State::CancelRequested { payment, cancel: self.set_by()?, terms: self.terms()? },
            Status::Cancelled => State::Cancelled(payment),
            Status::Declined => State::Declined(payment),
            Status::Failed => State::Failed(payment),
            Status::Captured => State::Captured { payment, taken: self.taken()? },
            Status::Refunding => State::Refunding { payment, taken: self.taken()?, refund: self.set_by()? },
            Status::RefundFailed => State::RefundFailed { payment, taken: self.taken()? },
            Status::Refunded => State::Refunded { payment, taken: self.taken()? },
        })
    }

    fn set_by(&self) -> Result<SetBy, sqlx::Error> {
        match (self.call_set_by, self.call_sequence) {
            (Some(event_id), Some(sequence)) => Ok(SetBy { event_id: EventId(event_id), sequence }),
            _ => Err(broken("call_set_by")),
        }
    }

    fn taken(&self) -> Result<Money, sqlx::Error> {
        let amount = self.taken_amount.ok_or_else(|| broken("taken_amount"))?;
        Ok(Money::new(amount, currency(self.taken_currency.as_deref().unwrap_or_default())?))
    }

    fn terms(self) -> Result<Terms, sqlx::Error> {
        Ok(Terms {
            payment_method: self.payment_method.ok_or_else(|| broken("payment_method"))?,
            pay_by: from_utc(self.pay_by.ok_or_else(|| broken("pay_by"))?),
            pay_url: self.pay_url,
        })
    }
}

fn currency(text: &str) -> Result<Currency, sqlx::Error> {
    Currency::parse(text).map_err(|_| broken("currency"))
}

pub(crate) fn broken(column: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("column {column} holds nothing that this service wrote").into())
}
