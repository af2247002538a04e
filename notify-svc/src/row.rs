//! How a notice becomes a row, and a row becomes one again.
//!
//! No SQL here: the statements are [`crate::store`]'s. A row that is none of ours is a decoding error.

use std::collections::BTreeMap;

use engine::clock::{from_utc, to_utc};
use events::code::{Channel, NoticeKind, SkipReason};
use events::id::{EventId, OrderId};
use events::money::{Currency, Money};
use events::record::SetBy;
use time::OffsetDateTime;

use crate::state::{Delivery, Fate, Letter, Notice};

/// A row of `notices`, its partition aside.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct NoticeRow {
    pub(crate) order_id: i64,
    pub(crate) kind: String,
    pub(crate) customer_id: String,
    pub(crate) skip_reason: Option<String>,
    pub(crate) due_at: Option<OffsetDateTime>,
    pub(crate) total_amount: Option<i64>,
    pub(crate) currency: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) pay_by: Option<OffsetDateTime>,
    pub(crate) pay_url: Option<String>,
    pub(crate) email: Option<String>,
    pub(crate) sms: Option<String>,
    pub(crate) set_by: Option<i64>,
    pub(crate) set_by_sequence: Option<i64>,
    pub(crate) updated_at: OffsetDateTime,
}

impl NoticeRow {
    /// The row of a notice.
    pub(crate) fn of(order_id: OrderId, kind: NoticeKind, notice: &Notice) -> Self {
        let row = Self {
            order_id: order_id.0,
            kind: kind.to_string(),
            customer_id: notice.customer_id.clone(),
            skip_reason: None,
            due_at: None,
            total_amount: None,
            currency: None,
            reason: None,
            pay_by: None,
            pay_url: None,
            email: None,
            sms: None,
            set_by: None,
            set_by_sequence: None,
            updated_at: to_utc(notice.updated_at),
        };
        match &notice.fate {
            Fate::Skipped(reason) => Self { skip_reason: Some(reason.to_string()), ..row },
            Fate::Scheduled { letter, due_at, set_by, channels } => {
                let on = |channel| channels.get(&channel).map(|delivery| delivery.as_str().to_owned());
                Self {
                    due_at: Some(to_utc(*due_at)),
                    total_amount: letter.total.map(|total| total.amount),
                    currency: letter.total.map(|total| total.currency.to_string()),
                    reason: letter.reason.clone(),
                    pay_by: letter.pay_by.map(to_utc),
                    pay_url: letter.pay_url.clone(),
                    email: on(Channel::Email),
                    sms: on(Channel::Sms),
                    set_by: Some(set_by.event_id.0),
                    set_by_sequence: Some(set_by.sequence),
                    ..row
                }
            }
        }
    }

    /// The kind and the notice of a row.
    pub(crate) fn notice(self) -> Result<(NoticeKind, Notice), sqlx::Error> {
        let kind = NoticeKind::parse(&self.kind).map_err(|_| broken("kind"))?;
        let updated_at = from_utc(self.updated_at);
        let fate = match &self.skip_reason {
            Some(reason) => Fate::Skipped(SkipReason::parse(reason).map_err(|_| broken("skip_reason"))?),
            None => Fate::Scheduled {
                due_at: from_utc(self.due_at.ok_or_else(|| broken("due_at"))?),
                set_by: set_by(self.set_by, self.set_by_sequence)?,
                channels: channels(self.email.as_deref(), self.sms.as_deref())?,
                letter: Letter {
                    total: total(self.total_amount, self.currency.as_deref())?,
                    reason: self.reason,
                    pay_by: self.pay_by.map(from_utc),
                    pay_url: self.pay_url,
                },
            },
        };
        Ok((kind, Notice { customer_id: self.customer_id, fate, updated_at }))
    }
}

/// The event that asks for a notice.
pub(crate) fn set_by(event_id: Option<i64>, sequence: Option<i64>) -> Result<SetBy, sqlx::Error> {
    let (event_id, sequence) = event_id.zip(sequence).ok_or_else(|| broken("set_by"))?;
    Ok(SetBy { event_id: EventId(event_id), sequence })
}

/// What became of a notice on each channel it was scheduled for.
pub(crate) fn channels(email: Option<&str>, sms: Option<&str>) -> Result<BTreeMap<Channel, Delivery>, sqlx::Error> {
    let columns = [(Channel::Email, email), (Channel::Sms, sms)];
    let scheduled = columns.into_iter().filter_map(|(channel, text)| Some((channel, text?)));
    let parsed = scheduled.map(|(channel, text)| {
        let delivery = Delivery::parse(text).ok_or_else(|| broken("email or sms"))?;
        Ok((channel, delivery))
    });
    parsed.collect()
}

fn total(amount: Option<i64>, currency: Option<&str>) -> Result<Option<Money>, sqlx::Error> {
    let Some((amount, currency)) = amount.zip(currency) else { return Ok(None) };
    let currency = Currency::parse(currency).map_err(|_| broken("currency"))?;
    Ok(Some(Money::new(amount, currency)))
}

pub(crate) fn broken(column: &'static str) -> sqlx::Error {
    sqlx::Error::Decode(format!("{column} of a notice is none of ours").into())
}
