//! The events of a payment, written out in full from what is known of it.
//!
//! No rule is here: which of them is made, and when, is decided in [`crate::domain`].

use events::code::{GiveUpReason, RefundReason};
use events::id::CommandId;
use events::money::Money;
use events::payment::{
    PaymentCancelRequested, PaymentCancelled, PaymentCaptured, PaymentDeclined, PaymentEvent, PaymentFailed,
    PaymentRefunded, PaymentRequested, RefundFailed, RefundRequested,
};
use events::record::CommandRef;

use crate::state::{Payment, Terms};

/// Who asked, as the four fields that an event has for it.
#[derive(Debug, Clone, Default)]
pub(crate) struct By {
    command_id: Option<CommandId>,
    caller: Option<String>,
    key_hash: Option<String>,
    fingerprint: Option<String>,
}

impl By {
    /// Nobody: a foreign event or the answer of a call caused it.
    pub(crate) const NOBODY: Self = Self { command_id: None, caller: None, key_hash: None, fingerprint: None };
}

impl From<CommandRef> for By {
    fn from(command: CommandRef) -> Self {
        let CommandRef { command_id, caller, key_hash, fingerprint } = command;
        Self { command_id: Some(command_id), caller, key_hash, fingerprint }
    }
}

pub(crate) fn requested(payment: &Payment, terms: &Terms) -> PaymentEvent {
    let Payment { order_id, customer_id, total } = payment.clone();
    let Terms { payment_method, pay_by, pay_url } = terms.clone();
    PaymentEvent::from(PaymentRequested { order_id, customer_id, total, payment_method, pay_by, pay_url })
}

pub(crate) fn captured(payment: &Payment, amount: Money, refund_due: bool, by: By) -> PaymentEvent {
    let Payment { order_id, customer_id, .. } = payment.clone();
    let By { command_id, caller, key_hash, fingerprint } = by;
    PaymentEvent::from(PaymentCaptured {
        order_id,
        customer_id,
        amount,
        refund_due,
        command_id,
        caller,
        key_hash,
        fingerprint,
    })
}

/// `taken`: money that was taken all the same and goes back.
pub(crate) fn declined(payment: &Payment, taken: Option<Money>, by: By) -> PaymentEvent {
    let Payment { order_id, customer_id, total } = payment.clone();
    let By { command_id, caller, key_hash, fingerprint } = by;
    PaymentEvent::from(PaymentDeclined {
        order_id,
        customer_id,
        total,
        amount: taken,
        refund_due: taken.is_some(),
        command_id,
        caller,
        key_hash,
        fingerprint,
    })
}

pub(crate) fn failed(payment: &Payment, by: By) -> PaymentEvent {
    let Payment { order_id, customer_id, total } = payment.clone();
    let By { command_id, caller, key_hash, fingerprint } = by;
    PaymentEvent::from(PaymentFailed { order_id, customer_id, total, command_id, caller, key_hash, fingerprint })
}

pub(crate) fn cancel_requested(payment: &Payment, reason: GiveUpReason) -> PaymentEvent {
    let Payment { order_id, customer_id, total } = payment.clone();
    PaymentEvent::from(PaymentCancelRequested { order_id, customer_id, total, reason })
}

pub(crate) fn cancelled(payment: &Payment, by: By) -> PaymentEvent {
    let Payment { order_id, customer_id, total } = payment.clone();
    let By { command_id, caller, key_hash, fingerprint } = by;
    PaymentEvent::from(PaymentCancelled { order_id, customer_id, total, command_id, caller, key_hash, fingerprint })
}

pub(crate) fn refund_requested(payment: &Payment, amount: Money, reason: RefundReason, by: By) -> PaymentEvent {
    let Payment { order_id, customer_id, .. } = payment.clone();
    let By { command_id, caller, key_hash, fingerprint } = by;
    PaymentEvent::from(RefundRequested {
        order_id,
        customer_id,
        amount,
        reason,
        command_id,
        caller,
        key_hash,
        fingerprint,
    })
}

pub(crate) fn refunded(payment: &Payment, amount: Money, by: By) -> PaymentEvent {
    let Payment { order_id, customer_id, .. } = payment.clone();
    let By { command_id, caller, key_hash, fingerprint } = by;
    PaymentEvent::from(PaymentRefunded { order_id, customer_id, amount, command_id, caller, key_hash, fingerprint })
}

pub(crate) fn refund_failed(payment: &Payment, amount: Money, reason: &str, by: By) -> PaymentEvent {
    let Payment { order_id, customer_id, .. } = payment.clone();
    let By { command_id, caller, key_hash, fingerprint } = by;
    PaymentEvent::from(RefundFailed {
        order_id,
        customer_id,
        amount,
        reason: reason.to_owned(),
        command_id,
        caller,
        key_hash,
        fingerprint,
    })
}
