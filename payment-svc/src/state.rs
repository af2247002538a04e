//! What is known of a payment: the state that the rules of [`crate::domain`] fold and judge.
//!
//! Shapes only; nothing here says what may follow what.

use events::id::OrderId;
use events::money::Money;
use events::record::SetBy;
use events::time::Timestamp;

/// A payment, by status. At most one call to the gateway is asked for at a time, so each status that asks carries its mark.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum State {
    /// Nothing happened yet.
    #[default]
    Unknown,
    /// The charge is to be made, or is being made.
    Requested {
        /// Whose money.
        payment: Payment,
        /// How it is charged.
        terms: Terms,
        /// The event that asks for the charge.
        charge: SetBy,
    },
    /// Given up; the gateway is asked what became of the charge.
    CancelRequested {
        /// Whose money.
        payment: Payment,
        /// How it would have been charged.
        terms: Terms,
        /// The event that asks for the cancel call.
        cancel: SetBy,
    },
    /// Nothing was charged; the order was given up.
    Cancelled(Payment),
    /// Nothing was charged; this payer cannot.
    Declined(Payment),
    /// Nothing was charged; the gateway will never take this request.
    Failed(Payment),
    /// The money is here.
    Captured {
        /// Whose money.
        payment: Payment,
        /// What was taken.
        taken: Money,
    },
    /// The money is to go back.
    Refunding {
        /// Whose money.
        payment: Payment,
        /// What was taken and goes back.
        taken: Money,
        /// The event that asks for the refund.
        refund: SetBy,
    },
    /// The money should have gone back; the gateway refused. A person must act.
    RefundFailed {
        /// Whose money.
        payment: Payment,
        /// What was taken.
        taken: Money,
    },
    /// The money is back. Final.
    Refunded {
        /// Whose money.
        payment: Payment,
        /// What was taken and given back.
        taken: Money,
    },
}

/// What stays the same in a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// Of which order; a payment has no other identity.
    pub order_id: OrderId,
    /// Whose: the `sub` of the token that placed the order.
    pub customer_id: String,
    /// What the order costs.
    pub total: Money,
}

/// How and until when a payment is charged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Opaque token of the gateway.
    pub payment_method: String,
    /// Nothing is charged from this time on.
    pub pay_by: Timestamp,
    /// Where a person can pay, for methods with a hosted page.
    pub pay_url: Option<String>,
}

/// A call to the gateway that a state asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// Take the money.
    Charge,
    /// Give the charge up and say finally what became of it.
    Cancel,
    /// Give the money back.
    Refund,
}

impl Call {
    /// The name of the effect.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Charge => "charge",
            Self::Cancel => "cancel",
            Self::Refund => "refund",
        }
    }
}

/// The status of a payment as rows write it. Clients see fewer: [`Status::shown`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "`State` documents each of them")]
pub enum Status {
    Requested,
    CancelRequested,
    Cancelled,
    Declined,
    Failed,
    Captured,
    Refunding,
    RefundFailed,
    Refunded,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 9] = [
        Self::Requested,
        Self::CancelRequested,
        Self::Cancelled,
        Self::Declined,
        Self::Failed,
        Self::Captured,
        Self::Refunding,
        Self::RefundFailed,
        Self::Refunded,
    ];

    /// The status as rows write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "REQUESTED",
            Self::CancelRequested => "CANCEL_REQUESTED",
            Self::Cancelled => "CANCELLED",
            Self::Declined => "DECLINED",
            Self::Failed => "FAILED",
            Self::Captured => "CAPTURED",
            Self::Refunding => "REFUNDING",
            Self::RefundFailed => "REFUND_FAILED",
            Self::Refunded => "REFUNDED",
        }
    }

    /// The status of this text, if it is one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }

    /// The status as clients see it. `pending`: the gateway has taken the call in and will answer later.
    ///
    /// A charge that is given up is open until the gateway says finally what became of it, and money that the gateway
    /// would not give back is still captured: neither has a name of its own (CONTRACT, payment statuses).
    #[must_use]
    pub fn shown(self, pending: bool) -> &'static str {
        match self {
            Self::Requested if pending => "PENDING",
            Self::Requested | Self::CancelRequested => "REQUESTED",
            Self::RefundFailed => "CAPTURED",
            Self::Cancelled | Self::Declined | Self::Failed | Self::Captured | Self::Refunding | Self::Refunded => {
                self.as_str()
            }
        }
    }

    /// The call that a payment of this status asks for.
    #[must_use]
    pub fn call(self) -> Option<Call> {
        match self {
            Self::Requested => Some(Call::Charge),
            Self::CancelRequested => Some(Call::Cancel),
            Self::Refunding => Some(Call::Refund),
            Self::Cancelled | Self::Declined | Self::Failed | Self::Captured | Self::RefundFailed | Self::Refunded => {
                None
            }
        }
    }
}

impl State {
    /// The status, once there is a payment.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        match self {
            Self::Unknown => None,
            Self::Requested { .. } => Some(Status::Requested),
            Self::CancelRequested { .. } => Some(Status::CancelRequested),
            Self::Cancelled(_) => Some(Status::Cancelled),
            Self::Declined(_) => Some(Status::Declined),
            Self::Failed(_) => Some(Status::Failed),
            Self::Captured { .. } => Some(Status::Captured),
            Self::Refunding { .. } => Some(Status::Refunding),
            Self::RefundFailed { .. } => Some(Status::RefundFailed),
            Self::Refunded { .. } => Some(Status::Refunded),
        }
    }

    /// What stays the same, once there is a payment.
    #[must_use]
    pub fn payment(&self) -> Option<&Payment> {
        match self {
            Self::Unknown => None,
            Self::Cancelled(payment) | Self::Declined(payment) | Self::Failed(payment) => Some(payment),
            Self::Requested { payment, .. }
            | Self::CancelRequested { payment, .. }
            | Self::Captured { payment, .. }
            | Self::Refunding { payment, .. }
            | Self::RefundFailed { payment, .. }
            | Self::Refunded { payment, .. } => Some(payment),
        }
    }

    /// The money taken, once some was.
    #[must_use]
    pub fn taken(&self) -> Option<Money> {
        match self {
            Self::Captured { taken, .. }
            | Self::Refunding { taken, .. }
            | Self::RefundFailed { taken, .. }
            | Self::Refunded { taken, .. } => Some(*taken),
            Self::Unknown
            | Self::Requested { .. }
            | Self::CancelRequested { .. }
            | Self::Cancelled(_)
            | Self::Declined(_)
            | Self::Failed(_) => None,
        }
    }

    /// How it is charged, while that matters.
    #[must_use]
    pub fn terms(&self) -> Option<&Terms> {
        match self {
            Self::Requested { terms, .. } | Self::CancelRequested { terms, .. } => Some(terms),
            Self::Unknown
            | Self::Cancelled(_)
            | Self::Declined(_)
            | Self::Failed(_)
            | Self::Captured { .. }
            | Self::Refunding { .. }
            | Self::RefundFailed { .. }
            | Self::Refunded { .. } => None,
        }
    }

    /// The call that is asked for, and the event that asks for it.
    #[must_use]
    pub fn call(&self) -> Option<(Call, SetBy)> {
        match self {
            Self::Requested { charge, .. } => Some((Call::Charge, *charge)),
            Self::CancelRequested { cancel, .. } => Some((Call::Cancel, *cancel)),
            Self::Refunding { refund, .. } => Some((Call::Refund, *refund)),
            Self::Unknown
            | Self::Cancelled(_)
            | Self::Declined(_)
            | Self::Failed(_)
            | Self::Captured { .. }
            | Self::RefundFailed { .. }
            | Self::Refunded { .. } => None,
        }
    }
}
