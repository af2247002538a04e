//! The rules of the money: when it is taken, and when it goes back. Read this first.
//!
//! Pure: nothing is stored, sent or called here; times arrive in the input. The shape of a payment is in
//! [`crate::state`], the gateway's final words are judged in [`crate::report`]. What becomes of the order is order-svc's
//! decision.

use events::code::{CancelReason, GiveUpReason, RefundReason};
use events::id::OrderId;
use events::order::OrderEvent;
use events::payment::{CommandRefused, PaymentEvent, RecordGatewayResult, RefundPayment};
use events::record::{CommandRef, Recorded};
use events::time::Timestamp;

use crate::facts::{self, By};
use crate::report::settle;
pub use crate::report::{Report, charge_key, refund_key};
pub use crate::state::{Call, Payment, State, Status, Terms};

/// What can happen to a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The stock is set aside: the order may be charged.
    Reserved {
        /// Whose money.
        payment: Payment,
        /// How it is to be charged.
        terms: Terms,
        /// Postgres' clock.
        now: Timestamp,
    },
    /// The order ended without being paid, or before that was known.
    GivenUp {
        /// Whose money.
        payment: Payment,
        /// How the order ended.
        ending: Ending,
    },
    /// The gateway's signed callback.
    GatewayResult(RecordGatewayResult),
    /// An operator gives the money back.
    Refund(RefundPayment),
    /// The gateway answered a call of ours finally.
    Answer {
        /// Of which order.
        order_id: OrderId,
        /// What it said.
        report: Report,
    },
    /// The charge was due, but `pay_by` had passed.
    ChargeTooLate {
        /// Of which order.
        order_id: OrderId,
        /// False when no charge call was ever made for it, by anybody.
        may_be_charged: bool,
    },
}

/// How an order ended that must not be charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// By its customer.
    Cancelled,
    /// Not paid in time.
    Expired,
}

/// Why a command is refused, or why an answer cannot be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No payment was ever asked for or given up under this order's ID.
    #[error("there is no payment for this order")]
    UnknownPayment,
    /// The key is not the one that this order's charge or refund has.
    #[error("the gateway's key does not belong to this order and result")]
    WrongKey,
    /// The money was taken before; nothing undoes that but a refund.
    #[error("the payment is captured already")]
    AlreadyCaptured,
    /// It ended without money, and this says nothing new.
    #[error("the payment was cancelled already")]
    AlreadyCancelled,
    /// It ended without money, and this says nothing new.
    #[error("the payment was declined already")]
    AlreadyDeclined,
    /// It ended without money, and this says nothing new.
    #[error("the payment failed already")]
    AlreadyFailed,
    /// There is no money to give back.
    #[error("no money is captured for this order")]
    NotCaptured,
    /// The gateway speaks of a refund that nobody asked for.
    #[error("no refund was asked for")]
    RefundNotRequested,
    /// One refund per order.
    #[error("the money is on its way back already")]
    AlreadyRefunding,
    /// One refund per order.
    #[error("the money is back already")]
    AlreadyRefunded,
    /// Another amount went back than was taken, and a person knows already.
    #[error("the amount is not the one that was taken")]
    WrongAmount,
}

impl Refusal {
    /// The reason as `CommandRefused` and problems write it.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::UnknownPayment => "UNKNOWN_PAYMENT",
            Self::WrongKey => "WRONG_KEY",
            Self::AlreadyCaptured => "ALREADY_CAPTURED",
            Self::AlreadyCancelled => "ALREADY_CANCELLED",
            Self::AlreadyDeclined => "ALREADY_DECLINED",
            Self::AlreadyFailed => "ALREADY_FAILED",
            Self::NotCaptured => "NOT_CAPTURED",
            Self::RefundNotRequested => "REFUND_NOT_REQUESTED",
            Self::AlreadyRefunding => "ALREADY_REFUNDING",
            Self::AlreadyRefunded => "ALREADY_REFUNDED",
            Self::WrongAmount => "WRONG_AMOUNT",
        }
    }
}

/// Judges one input. A refused command is an event too: see [`judge`].
///
/// # Errors
/// [`Refusal`] of a command; of an answer it means that nobody can have asked.
pub fn decide(state: &State, input: &Input) -> Result<Option<PaymentEvent>, Refusal> {
    match input {
        // Happy path
        Input::Reserved { payment, terms, now } => Ok(request(state, payment, terms, *now)),
        Input::GatewayResult(command) => {
            let report = Report::of(command)?;
            settle(state, &report, command.command_ref().into()).map(Some)
        }
        Input::Answer { report, .. } => match settle(state, report, By::NOBODY) {
            // A callback or an earlier answer got ahead of it, or the gateway contradicts itself.
            Err(refusal) if refusal != Refusal::UnknownPayment => Ok(None),
            decision => decision.map(Some),
        },
        // Compensation
        Input::GivenUp { payment, ending } => Ok(give_up(state, payment, *ending)),
        Input::ChargeTooLate { may_be_charged, .. } => too_late(state, *may_be_charged),
        Input::Refund(command) => refund(state, command).map(Some),
    }
}

/// [`decide`], with a refused command turned into the event that says so. The one place where that happens.
///
/// # Errors
/// [`Refusal`] of an input that is no command.
pub fn judge(state: &State, input: &Input) -> Result<Option<PaymentEvent>, Refusal> {
    match decide(state, input) {
        Err(refusal) => refused(input, refusal.code()).map(Some).ok_or(refusal),
        decision => decision,
    }
}

/// The event that refuses a command; `None` for an input that is none.
#[must_use]
pub fn refused(input: &Input, reason: &str) -> Option<PaymentEvent> {
    let (command_type, command) = input.command()?;
    Some(PaymentEvent::from(CommandRefused {
        order_id: input.order_id(),
        command_type: command_type.to_owned(),
        reason: reason.to_owned(),
        command_id: command.command_id,
        caller: command.caller,
        key_hash: command.key_hash,
        fingerprint: command.fingerprint,
    }))
}

/// One step of the fold. An event that cannot follow leaves the state as it is: `decide` makes none.
#[must_use]
pub fn evolve(state: State, event: &Recorded<PaymentEvent>) -> State {
    let mark = event.mark();
    match (&event.event, state) {
        // Happy path
        (PaymentEvent::PaymentRequested(requested), State::Unknown) => State::Requested {
            payment: Payment {
                order_id: requested.order_id,
                customer_id: requested.customer_id.clone(),
                total: requested.total,
            },
            terms: Terms {
                payment_method: requested.payment_method.clone(),
                pay_by: requested.pay_by,
                pay_url: requested.pay_url.clone(),
            },
            charge: mark,
        },
        (PaymentEvent::PaymentCaptured(captured), State::Requested { payment, .. }) => {
            State::Captured { payment, taken: captured.amount }
        }
        // Compensation
        (PaymentEvent::PaymentDeclined(declined), State::Requested { payment, .. }) => match declined.amount {
            Some(taken) => State::Refunding { payment, taken, refund: mark },
            None => State::Declined(payment),
        },
        (PaymentEvent::PaymentFailed(_), State::Requested { payment, .. }) => State::Failed(payment),
        (PaymentEvent::PaymentCancelRequested(_), State::Requested { payment, terms, .. }) => {
            State::CancelRequested { payment, terms, cancel: mark }
        }
        (PaymentEvent::PaymentCancelled(cancelled), State::Unknown) => State::Cancelled(Payment {
            order_id: cancelled.order_id,
            customer_id: cancelled.customer_id.clone(),
            total: cancelled.total,
        }),
        (
            PaymentEvent::PaymentCancelled(_),
            State::Requested { payment, .. } | State::CancelRequested { payment, .. },
        ) => State::Cancelled(payment),
        (
            PaymentEvent::PaymentCaptured(captured),
            State::CancelRequested { payment, .. }
            | State::Cancelled(payment)
            | State::Declined(payment)
            | State::Failed(payment),
        ) => State::Refunding { payment, taken: captured.amount, refund: mark },
        (
            PaymentEvent::RefundRequested(_),
            State::Captured { payment, taken } | State::RefundFailed { payment, taken },
        ) => State::Refunding { payment, taken, refund: mark },
        (
            PaymentEvent::PaymentRefunded(_),
            State::Refunding { payment, taken, .. } | State::RefundFailed { payment, taken },
        ) => State::Refunded { payment, taken },
        (PaymentEvent::RefundFailed(_), State::Refunding { payment, taken, .. }) => {
            State::RefundFailed { payment, taken }
        }
        // A refusal is remembered with its command, not in the payment.
        (PaymentEvent::CommandRefused(_), state) => state,
        (
            PaymentEvent::PaymentRequested(_)
            | PaymentEvent::PaymentCaptured(_)
            | PaymentEvent::PaymentDeclined(_)
            | PaymentEvent::PaymentFailed(_)
            | PaymentEvent::PaymentCancelRequested(_)
            | PaymentEvent::PaymentCancelled(_)
            | PaymentEvent::RefundRequested(_)
            | PaymentEvent::PaymentRefunded(_)
            | PaymentEvent::RefundFailed(_),
            state,
        ) => state,
    }
}

/// A reservation starts a payment, unless one was started or given up before it arrived.
fn request(state: &State, payment: &Payment, terms: &Terms, now: Timestamp) -> Option<PaymentEvent> {
    if *state != State::Unknown {
        return None;
    }
    Some(if now < terms.pay_by { facts::requested(payment, terms) } else { facts::cancelled(payment, By::NOBODY) })
}

/// An order that ended is not charged; what was taken goes back.
fn give_up(state: &State, payment: &Payment, ending: Ending) -> Option<PaymentEvent> {
    let (give_up, give_back) = match ending {
        Ending::Cancelled => (GiveUpReason::OrderCancelled, RefundReason::OrderCancelled),
        Ending::Expired => (GiveUpReason::OrderExpired, RefundReason::OrderExpired),
    };
    match state {
        // Remembered, so that a reservation that comes later is not charged.
        State::Unknown => Some(facts::cancelled(payment, By::NOBODY)),
        State::Requested { payment, .. } => Some(facts::cancel_requested(payment, give_up)),
        State::Captured { payment, taken } => Some(facts::refund_requested(payment, *taken, give_back, By::NOBODY)),
        State::CancelRequested { .. }
        | State::Cancelled(_)
        | State::Declined(_)
        | State::Failed(_)
        | State::Refunding { .. }
        | State::RefundFailed { .. }
        | State::Refunded { .. } => None,
    }
}

/// Nothing is charged from `pay_by` on. Where an earlier charge call cannot be excluded, only the gateway can say that
/// nothing was taken (DESIGN §9, H15).
fn too_late(state: &State, may_be_charged: bool) -> Result<Option<PaymentEvent>, Refusal> {
    match state {
        State::Unknown => Err(Refusal::UnknownPayment),
        State::Requested { payment, .. } if may_be_charged => {
            Ok(Some(facts::cancel_requested(payment, GiveUpReason::TooLate)))
        }
        State::Requested { payment, .. } => Ok(Some(facts::cancelled(payment, By::NOBODY))),
        State::CancelRequested { .. }
        | State::Cancelled(_)
        | State::Declined(_)
        | State::Failed(_)
        | State::Captured { .. }
        | State::Refunding { .. }
        | State::RefundFailed { .. }
        | State::Refunded { .. } => Ok(None),
    }
}

/// An operator gives captured money back, once. After a refund that the gateway refused they may try again: the key is
/// the same, so the gateway cannot pay twice.
fn refund(state: &State, command: &RefundPayment) -> Result<PaymentEvent, Refusal> {
    match state {
        State::Captured { payment, taken } | State::RefundFailed { payment, taken } => {
            Ok(facts::refund_requested(payment, *taken, command.reason.into(), command.command_ref().into()))
        }
        State::Unknown => Err(Refusal::UnknownPayment),
        State::Requested { .. }
        | State::CancelRequested { .. }
        | State::Cancelled(_)
        | State::Declined(_)
        | State::Failed(_) => Err(Refusal::NotCaptured),
        State::Refunding { .. } => Err(Refusal::AlreadyRefunding),
        State::Refunded { .. } => Err(Refusal::AlreadyRefunded),
    }
}

impl Input {
    /// The order it is about.
    #[must_use]
    pub fn order_id(&self) -> OrderId {
        match self {
            Self::Reserved { payment, .. } | Self::GivenUp { payment, .. } => payment.order_id,
            Self::GatewayResult(command) => command.order_id,
            Self::Refund(command) => command.order_id,
            Self::Answer { order_id, .. } | Self::ChargeTooLate { order_id, .. } => *order_id,
        }
    }

    fn command(&self) -> Option<(&'static str, CommandRef)> {
        match self {
            Self::GatewayResult(command) => Some(("RecordGatewayResult", command.command_ref())),
            Self::Refund(command) => Some(("RefundPayment", command.command_ref())),
            Self::Reserved { .. } | Self::GivenUp { .. } | Self::Answer { .. } | Self::ChargeTooLate { .. } => None,
        }
    }

    /// What order-svc's event means here; `None` for one that moves no money in any status.
    #[must_use]
    pub fn from_order(event: OrderEvent) -> Option<Self> {
        let (order_id, customer_id, total, ending) = match event {
            OrderEvent::OrderCancelled(event) => match event.reason {
                CancelReason::Customer => (event.order_id, event.customer_id, event.total, Ending::Cancelled),
                // Never reserved, so never charged: no reservation can follow.
                CancelReason::OutOfStock => return None,
                // Our own word came back.
                CancelReason::PaymentDeclined | CancelReason::PaymentFailed => return None,
            },
            OrderEvent::OrderExpired(event) => (event.order_id, event.customer_id, event.total, Ending::Expired),
            OrderEvent::OrderPlaced(_)
            | OrderEvent::OrderRejected(_)
            | OrderEvent::OrderConfirmed(_)
            | OrderEvent::CommandRefused(_) => return None,
        };
        Some(Self::GivenUp { payment: Payment { order_id, customer_id, total }, ending })
    }
}
