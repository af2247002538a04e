//! Topic `notification.events`: which notice was due, and what became of it.
//!
//! No address is ever here: events carry customer IDs, addresses live in notify-svc's contacts. The service takes no
//! commands, so this topic holds no `CommandRefused`.

use crate::code::{Channel, NoticeKind, SkipReason};
use crate::id::OrderId;
use crate::money::Money;
use crate::record::{record, topic};
use crate::time::Timestamp;

record! {
    "orderlog.notification.NotificationScheduled",
    /// A notice is to be sent, not before its due time.
    NotificationScheduled {
        /// The order; equal to the record's key.
        order_id: OrderId,
        /// Whose order it is: the `sub` of the token that placed it.
        customer_id: String,
        /// What the notice is about.
        kind: NoticeKind,
        /// The channels for which the customer had a contact.
        channels: Vec<Channel>,
        /// Not before.
        due_at: Timestamp,
        /// The order's total, or the amount refunded.
        total: Option<Money>,
        /// Why the order ended, as a code.
        reason: Option<String>,
        /// For a reminder: pay by then.
        pay_by: Option<Timestamp>,
        /// For a reminder: where to pay.
        pay_url: Option<String>,
    }
}

record! {
    "orderlog.notification.NotificationSent",
    /// A notice was handed over to the mail server or the SMS provider.
    NotificationSent {
        /// The order; equal to the record's key.
        order_id: OrderId,
        /// Whose order it is: the `sub` of the token that placed it.
        customer_id: String,
        /// What the notice is about.
        kind: NoticeKind,
        /// By which way.
        channel: Channel,
        /// Derived from order, kind and channel, so a repeat can be recognised.
        message_id: String,
    }
}

record! {
    "orderlog.notification.NotificationFailed",
    /// A notice could not be sent on this channel and will not be tried again.
    NotificationFailed {
        /// The order; equal to the record's key.
        order_id: OrderId,
        /// Whose order it is: the `sub` of the token that placed it.
        customer_id: String,
        /// What the notice is about.
        kind: NoticeKind,
        /// By which way.
        channel: Channel,
        /// Why, as a code.
        reason: String,
    }
}

record! {
    "orderlog.notification.NotificationSkipped",
    /// A notice was not sent on any channel.
    NotificationSkipped {
        /// The order; equal to the record's key.
        order_id: OrderId,
        /// Whose order it is: the `sub` of the token that placed it.
        customer_id: String,
        /// What the notice is about.
        kind: NoticeKind,
        /// Why.
        reason: SkipReason,
    }
}

topic! {
    /// What became of notices; written by notify-svc alone.
    NotificationEvent on "notification.events" {
        NotificationScheduled,
        NotificationSent,
        NotificationFailed,
        NotificationSkipped,
    }
}

impl NotificationEvent {
    /// The aggregate this record is about: its key, as decimal text.
    #[must_use]
    pub fn order_id(&self) -> OrderId {
        match self {
            Self::NotificationScheduled(record) => record.order_id,
            Self::NotificationSent(record) => record.order_id,
            Self::NotificationFailed(record) => record.order_id,
            Self::NotificationSkipped(record) => record.order_id,
        }
    }
}
