//! The gateway's final words about a charge or a refund, and what each makes of a payment.
//!
//! Statuses move one way only: a late "declined" cannot undo "captured", and money that was taken for an order that is
//! given up always goes back. Words that are not final (accepted, pending) never come here.

use events::code::GatewayResult;
use events::id::OrderId;
use events::money::Money;
use events::payment::{PaymentEvent, RecordGatewayResult};

use crate::domain::Refusal;
use crate::facts::{self, By};
use crate::state::{Payment, State};

/// What a refund of another amount than was taken is called in `RefundFailed`.
const WRONG_AMOUNT: &str = "WRONG_AMOUNT";

/// What the gateway says finally.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// This much was taken.
    Captured(Money),
    /// This payer cannot.
    Declined,
    /// It will never take this request.
    Failed,
    /// The charge was given up; no money was or will be taken.
    Cancelled,
    /// This much was given back.
    Refunded(Money),
    /// It will never give the money back; why, as a code.
    RefundRefused(String),
}

/// The gateway's key of an order's charge: derived, so that no order is charged twice (DESIGN §9, H10).
#[must_use]
pub fn charge_key(order_id: OrderId) -> String {
    format!("charge:{order_id}")
}

/// The gateway's key of an order's refund.
#[must_use]
pub fn refund_key(order_id: OrderId) -> String {
    format!("refund:{order_id}")
}

impl Report {
    /// Money taken. Where the gateway names no positive amount nothing was, which is a decline.
    #[must_use]
    pub fn captured(amount: Money) -> Self {
        if amount.amount > 0 { Self::Captured(amount) } else { Self::Declined }
    }

    /// What a callback says, if it speaks of this order's charge or refund.
    pub(crate) fn of(command: &RecordGatewayResult) -> Result<Self, Refusal> {
        let RecordGatewayResult { order_id, result, amount, gateway_key, .. } = command;
        let (key, report) = match result {
            GatewayResult::Captured => (charge_key(*order_id), Self::captured(*amount)),
            GatewayResult::Declined => (charge_key(*order_id), Self::Declined),
            GatewayResult::Failed => (charge_key(*order_id), Self::Failed),
            GatewayResult::Cancelled => (charge_key(*order_id), Self::Cancelled),
            GatewayResult::Refunded => (refund_key(*order_id), Self::Refunded(*amount)),
        };
        if *gateway_key == key { Ok(report) } else { Err(Refusal::WrongKey) }
    }
}

/// What a final word makes of a payment, or why it says nothing new.
pub(crate) fn settle(state: &State, report: &Report, by: By) -> Result<PaymentEvent, Refusal> {
    match report {
        // Happy path
        Report::Captured(taken) => captured(state, *taken, by),
        // Compensation
        Report::Declined => not_taken(state, by, |payment, by| facts::declined(payment, None, by)),
        // A charge that we did not give up and that is cancelled all the same will never be taken.
        Report::Failed | Report::Cancelled => not_taken(state, by, facts::failed),
        Report::Refunded(amount) => refunded(state, *amount, by),
        Report::RefundRefused(reason) => refund_refused(state, reason, by),
    }
}

fn captured(state: &State, taken: Money, by: By) -> Result<PaymentEvent, Refusal> {
    match state {
        State::Unknown => Err(Refusal::UnknownPayment),
        // Happy path
        State::Requested { payment, .. } if taken == payment.total => Ok(facts::captured(payment, taken, false, by)),
        // Compensation
        State::Requested { payment, .. } => Ok(facts::declined(payment, Some(taken), by)),
        // Whatever the amount: the order is given up, all of it goes back.
        State::CancelRequested { payment, .. }
        | State::Cancelled(payment)
        | State::Declined(payment)
        | State::Failed(payment) => Ok(facts::captured(payment, taken, true, by)),
        State::Captured { .. } | State::Refunding { .. } | State::RefundFailed { .. } => Err(Refusal::AlreadyCaptured),
        State::Refunded { .. } => Err(Refusal::AlreadyRefunded),
    }
}

/// No money was taken and none will be. `word`: what that is called while the order still waits for it.
fn not_taken(state: &State, by: By, word: impl Fn(&Payment, By) -> PaymentEvent) -> Result<PaymentEvent, Refusal> {
    match state {
        State::Unknown => Err(Refusal::UnknownPayment),
        State::Requested { payment, .. } => Ok(word(payment, by)),
        State::CancelRequested { payment, .. } => Ok(facts::cancelled(payment, by)),
        State::Cancelled(_) => Err(Refusal::AlreadyCancelled),
        State::Declined(_) => Err(Refusal::AlreadyDeclined),
        State::Failed(_) => Err(Refusal::AlreadyFailed),
        State::Captured { .. } | State::Refunding { .. } | State::RefundFailed { .. } => Err(Refusal::AlreadyCaptured),
        State::Refunded { .. } => Err(Refusal::AlreadyRefunded),
    }
}

fn refunded(state: &State, amount: Money, by: By) -> Result<PaymentEvent, Refusal> {
    match state {
        State::Refunding { payment, taken, .. } | State::RefundFailed { payment, taken } if amount == *taken => {
            Ok(facts::refunded(payment, amount, by))
        }
        State::Refunding { payment, taken, .. } => Ok(facts::refund_failed(payment, *taken, WRONG_AMOUNT, by)),
        State::RefundFailed { .. } => Err(Refusal::WrongAmount),
        State::Unknown
        | State::Requested { .. }
        | State::CancelRequested { .. }
        | State::Cancelled(_)
        | State::Declined(_)
        | State::Failed(_)
        | State::Captured { .. }
        | State::Refunded { .. } => Err(no_refund(state)),
    }
}

fn refund_refused(state: &State, reason: &str, by: By) -> Result<PaymentEvent, Refusal> {
    match state {
        State::Refunding { payment, taken, .. } => Ok(facts::refund_failed(payment, *taken, reason, by)),
        State::Unknown
        | State::Requested { .. }
        | State::CancelRequested { .. }
        | State::Cancelled(_)
        | State::Declined(_)
        | State::Failed(_)
        | State::Captured { .. }
        | State::RefundFailed { .. }
        | State::Refunded { .. } => Err(no_refund(state)),
    }
}

/// Why a word about a refund means nothing here.
fn no_refund(state: &State) -> Refusal {
    match state {
        State::Unknown => Refusal::UnknownPayment,
        State::Requested { .. }
        | State::CancelRequested { .. }
        | State::Cancelled(_)
        | State::Declined(_)
        | State::Failed(_) => Refusal::NotCaptured,
        State::Captured { .. } | State::Refunding { .. } | State::RefundFailed { .. } => Refusal::RefundNotRequested,
        State::Refunded { .. } => Refusal::AlreadyRefunded,
    }
}
