//! What is known of an order: the state that the rules of [`crate::domain`] fold and judge.
//!
//! Shapes only; nothing here says what may follow what.

use events::code::{CancelReason, CustomerReason, RejectReason};
use events::id::OrderId;
use events::money::Money;
use events::order::{OrderLine, PricedLine};
use events::record::SetBy;
use events::time::Timestamp;

/// An order, by status.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum State {
    /// Nothing happened yet.
    #[default]
    Unknown,
    /// It waits for stock and payment until the timer is due.
    Placed {
        /// What was ordered.
        order: Order,
        /// When it expires.
        timer: Timer,
    },
    /// Paid. Final.
    Confirmed(Order),
    /// Given up. Final.
    Cancelled {
        /// What was ordered.
        order: Order,
        /// Why.
        reason: CancelReason,
        /// What the customer said, when it was the customer.
        customer_reason: Option<CustomerReason>,
    },
    /// Not paid in time. Final.
    Expired(Order),
    /// It never came to be. Final.
    Rejected(Rejected),
}

/// What stays the same in an order, and its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Which.
    pub order_id: OrderId,
    /// Whose: the `sub` of the token that placed it.
    pub customer_id: String,
    /// What, at the prices of the moment it was placed.
    pub lines: Vec<PricedLine>,
    /// Sum of the lines.
    pub total: Money,
    /// It had to be paid by then.
    pub pay_by: Timestamp,
    /// Number of events that changed it.
    pub version: i64,
    /// Time of its first event.
    pub placed_at: Timestamp,
    /// Time of its last event.
    pub updated_at: Timestamp,
    /// `ce_sequence` of its last event: where the log goes on about it.
    pub last_sequence: i64,
}

/// An order that never came to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Which.
    pub order_id: OrderId,
    /// Whose: the `sub` of the token that tried to place it.
    pub customer_id: String,
    /// What was asked for.
    pub lines: Vec<OrderLine>,
    /// Why not.
    pub reason: RejectReason,
    /// 1.
    pub version: i64,
    /// Time of the rejection.
    pub rejected_at: Timestamp,
    /// `ce_sequence` of the rejection.
    pub last_sequence: i64,
}

/// When an order expires, and which event said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timer {
    /// Not before this time.
    pub due_at: Timestamp,
    /// The event that set it.
    pub set_by: SetBy,
}

/// The status of an order as rows and JSON write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "`State` documents each of them")]
pub enum Status {
    Placed,
    Confirmed,
    Cancelled,
    Expired,
    Rejected,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 5] = [Self::Placed, Self::Confirmed, Self::Cancelled, Self::Expired, Self::Rejected];

    /// The status as text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Placed => "PLACED",
            Self::Confirmed => "CONFIRMED",
            Self::Cancelled => "CANCELLED",
            Self::Expired => "EXPIRED",
            Self::Rejected => "REJECTED",
        }
    }

    /// The status of this text, if it is one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

impl State {
    /// The order it is about, once there is one.
    #[must_use]
    pub fn order_id(&self) -> Option<OrderId> {
        match self {
            Self::Unknown => None,
            Self::Rejected(rejected) => Some(rejected.order_id),
            Self::Placed { order, .. }
            | Self::Confirmed(order)
            | Self::Cancelled { order, .. }
            | Self::Expired(order) => Some(order.order_id),
        }
    }

    /// Whose it is, once there is an order.
    #[must_use]
    pub fn customer_id(&self) -> Option<&str> {
        match self {
            Self::Unknown => None,
            Self::Rejected(rejected) => Some(&rejected.customer_id),
            Self::Placed { order, .. }
            | Self::Confirmed(order)
            | Self::Cancelled { order, .. }
            | Self::Expired(order) => Some(&order.customer_id),
        }
    }

    /// The version, once there is an order.
    #[must_use]
    pub fn version(&self) -> Option<i64> {
        match self {
            Self::Unknown => None,
            Self::Rejected(rejected) => Some(rejected.version),
            Self::Placed { order, .. }
            | Self::Confirmed(order)
            | Self::Cancelled { order, .. }
            | Self::Expired(order) => Some(order.version),
        }
    }

    /// The status, once there is an order.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        match self {
            Self::Unknown => None,
            Self::Placed { .. } => Some(Status::Placed),
            Self::Confirmed(_) => Some(Status::Confirmed),
            Self::Cancelled { .. } => Some(Status::Cancelled),
            Self::Expired(_) => Some(Status::Expired),
            Self::Rejected(_) => Some(Status::Rejected),
        }
    }

    /// `ce_sequence` of its last event, once there is an order.
    #[must_use]
    pub fn last_sequence(&self) -> Option<i64> {
        match self {
            Self::Unknown => None,
            Self::Rejected(rejected) => Some(rejected.last_sequence),
            Self::Placed { order, .. }
            | Self::Confirmed(order)
            | Self::Cancelled { order, .. }
            | Self::Expired(order) => Some(order.last_sequence),
        }
    }

    /// When it expires, while it is open.
    #[must_use]
    pub fn timer(&self) -> Option<Timer> {
        match self {
            Self::Placed { timer, .. } => Some(*timer),
            Self::Unknown | Self::Confirmed(_) | Self::Cancelled { .. } | Self::Expired(_) | Self::Rejected(_) => None,
        }
    }
}
