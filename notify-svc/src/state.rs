//! What is known of an order's notices: the state that the rules of [`crate::domain`] fold and judge.
//!
//! Shapes only; nothing here says what may follow what. No address is ever here: those are rows outside the log.

use std::collections::BTreeMap;

use events::code::{Channel, NoticeKind, SkipReason};
use events::id::OrderId;
use events::money::Money;
use events::record::SetBy;
use events::time::Timestamp;

/// The notices of one order, one of each kind at most.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// In the order of their kinds.
    pub notices: BTreeMap<NoticeKind, Notice>,
}

/// One notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Whose order it is.
    pub customer_id: String,
    /// What became of it.
    pub fate: Fate,
    /// When its last event was.
    pub updated_at: Timestamp,
}

/// What became of a notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is to be sent, or was, on each of its channels.
    Scheduled {
        /// What it says.
        letter: Letter,
        /// Not before.
        due_at: Timestamp,
        /// The event that asks for it to be sent.
        set_by: SetBy,
        /// At least one, each with what became of it there.
        channels: BTreeMap<Channel, Delivery>,
    },
    /// It was sent on no channel and will not be.
    Skipped(SkipReason),
}

/// What a notice says beside its kind and order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Letter {
    /// The order's total or, for a refund, what went back.
    pub total: Option<Money>,
    /// Why the order ended, as a code.
    pub reason: Option<String>,
    /// For a reminder: pay by then.
    pub pay_by: Option<Timestamp>,
    /// For a reminder: where to pay.
    pub pay_url: Option<String>,
}

/// What became of a notice on one channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// It is to be sent.
    Pending,
    /// It was handed over.
    Sent,
    /// It could not be sent and will not be tried again.
    Failed,
}

impl Delivery {
    /// As rows and JSON write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Sent => "SENT",
            Self::Failed => "FAILED",
        }
    }

    /// The delivery of this text, if it is one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Pending, Self::Sent, Self::Failed].into_iter().find(|delivery| delivery.as_str() == text)
    }
}

/// True for the kinds that say how the order ended. With one of them the order is settled.
#[must_use]
pub fn settles(kind: NoticeKind) -> bool {
    match kind {
        NoticeKind::OrderConfirmed | NoticeKind::OrderCancelled | NoticeKind::OrderExpired => true,
        NoticeKind::PaymentReminder | NoticeKind::PaymentRefunded => false,
    }
}

/// Derived, so that a repeat of a notice can be recognised wherever it arrives.
#[must_use]
pub fn message_id(order_id: OrderId, kind: NoticeKind, channel: Channel) -> String {
    format!("{order_id}.{kind}.{channel}@orderlog")
}

impl State {
    /// True once it is known how the order ended.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.notices.keys().copied().any(settles)
    }
}

impl Notice {
    /// What became of it on this channel, if it was scheduled there and not skipped.
    #[must_use]
    pub fn delivery(&self, channel: Channel) -> Option<Delivery> {
        match &self.fate {
            Fate::Scheduled { channels, .. } => channels.get(&channel).copied(),
            Fate::Skipped(_) => None,
        }
    }
}
