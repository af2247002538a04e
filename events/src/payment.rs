//! Topics `payment.commands` and `payment.events`: the money of an order.
//!
//! Data only; the rules are in `payment-svc/src/domain.rs`.

use crate::code::{GatewayResult, GiveUpReason, OperatorRefundReason, RefundReason};
use crate::id::{CommandId, OrderId};
use crate::money::Money;
use crate::record::{commanded, maybe_commanded, record, topic};
use crate::time::Timestamp;

record! {
    "orderlog.payment.RecordGatewayResult",
    /// What the gateway's signed callback said.
    RecordGatewayResult {
        /// The order; equal to the record's key.
        order_id: OrderId,
        /// The gateway's own identity of this message.
        gateway_event_id: String,
        /// What happened.
        result: GatewayResult,
        /// The gateway's key of the charge or refund: `charge:<order>` or `refund:<order>`.
        gateway_key: String,
        /// The amount that the gateway names.
        amount: Money,
        /// When, by the gateway's clock.
        occurred_at: Timestamp,
        /// Identity of the command.
        command_id: CommandId,
        /// The caller's `sub`; absent for a command that did not come by HTTP.
        caller: Option<String>,
        /// SHA-256 of method, path and key, lower-case hex.
        key_hash: Option<String>,
        /// SHA-256 of the canonical body, lower-case hex.
        fingerprint: Option<String>,
    }
}

record! {
    "orderlog.payment.RefundPayment",
    /// An operator gives the money of a confirmed order back.
    RefundPayment {
        /// The order; equal to the record's key.
        order_id: OrderId,
        /// Why.
        reason: OperatorRefundReason,
        /// Identity of the command.
        command_id: CommandId,
        /// The caller's `sub`; absent for a command that did not come by HTTP.
        caller: Option<String>,
        /// SHA-256 of method, path and key, lower-case hex.
        key_hash: Option<String>,
        /// SHA-256 of the canonical body, lower-case hex.
        fingerprint: Option<String>,
    }
}

topic! {
    /// What the gateway reports to and operators ask of payment-svc.
    PaymentCommand on "payment.commands" {
        RecordGatewayResult,
        RefundPayment,
    }
}

impl PaymentCommand {
    /// The aggregate this record is about: its key, as decimal text.
    #[must_use]
    pub fn order_id(&self) -> OrderId {
        match self {
            Self::RecordGatewayResult(record) => record.order_id,
            Self::RefundPayment(record) => record.order_id,
        }
    }
}

commanded! { RecordGatewayResult, RefundPayment }

record! {
    "orderlog.payment.PaymentRequested",
    /// The charge may be made.
    PaymentRequested {
        /// The order; equal to the record's key.
        order_id: OrderId,
        /// Whose order it is: the `sub` of the token that placed it.
        customer_id: String,
        /// What the order costs.
        total: Money,
        /// Opaque token of the gateway.
        payment_method: String,
        /// The order expires when it is not paid by then.
        pay_by: Timestamp,
        /// Where a person can pay, for methods with a hosted page.
        pay_url: Option<String>,
    }
}

record! {
    "orderlog.payment.PaymentCaptured",
    /// The money is here.
    PaymentCaptured {
        /// The order; equal to the record's key.
        order_id: OrderId,
        /// Whose order it is: the `sub` of the token that placed it.
        customer_id: String,
        /// The money that moved.
        amount: Money,
        /// True when the order is already given up: the money goes back.
        refund_due: bool,
        /// The command behind this event, if one caused it.
        command_id: Option<CommandId>,
        /// The caller's `sub`; absent for a command that did not come by HTTP.
        caller: Option<String>,
        /// SHA-256 of method, path and key, lower-case hex.
        key_hash: Option<String>,
        /// SHA-256 of the canonical body, lower-case hex.
        fingerprint: Option<String>,
    }
}

record! {
    "orderlog.payment.PaymentDeclined",
    /// This payer cannot pay, or paid something else than the total.
    PaymentDeclined {
        /// The order; equal to the record's key.
        order_id: OrderId,
        /// Whose order it is: the `sub` of the token that placed it.
        customer_id: String,
        /// What the order costs.
        total: Money,
        /// The amount taken all the same (wrong amount or currency).
        amount: Option<Money>,
        /// True when `amount` goes back.
        refund_due: bool,
        /// The command behind this event, if one caused it.
        command_id: Option<CommandId>,
        /// The caller's `sub`; absent for a command that did not come by HTTP.
        caller: Option<String>,
        /// SHA-256 of method, path and key, lower-case hex.
        key_hash: Option<String>,
        /// SHA-256 of the canonical body, lower-case hex.
        fingerprint: Option<String>,
    }
}

record! {
    "orderlog.payment.PaymentFailed",
    /// The gateway will never take this request.
    PaymentFailed {
        /// The order; equal to the record's key.
        order_id: OrderId,
        /// Whose order it is: the `sub` of the token that placed it.
        customer_id: String,
        /// What the order costs.
        total: Money,
        /// The command behind this event, if one caused it.
        command_id: Option<CommandId>,
        /// The caller's `sub`; absent for a command that did not come by HTTP.
        caller: Option<String>,
        /// SHA-256 of method, path and key, lower-case hex.
        key_hash: Option<String>,
        /// SHA-256 of the canonical body, lower-case hex.
        fingerprint: Option<String>,
    }
}

record! {
    "orderlog.payment.PaymentCancelRequested",
    /// The charge is given up; the gateway will say finally whether money was taken.
    PaymentCancelRequested {
        /// The order; equal to the record's key.
        order_id: OrderId,
        /// Whose order it is: the `sub` of the token that placed it.
        customer_id: String,
        /// What the order costs.
        total: Money,
        /// Why.
        reason: GiveUpReason,
    }
}

record! {
    "orderlog.payment.PaymentCancelled",
    /// Nothing was charged and nothing will be.
    PaymentCancelled {
        /// The order; equal to the record's key.
        order_id: OrderId,
        /// Whose order it is: the `sub` of the token that placed it.
        customer_id: String,
        /// What the order costs.
        total: Money,
        /// The command behind this event, if one caused it.
        command_id: Option<CommandId>,
        /// The caller's `sub`; absent for a command that did not come by HTTP.
        caller: Option<String>,
        /// SHA-256 of method, path and key, lower-case hex.
        key_hash: Option<String>,
        /// SHA-256 of the canonical body, lower-case hex.
        fingerprint: Option<String>,
    }
}

record! {
    "orderlog.payment.RefundRequested",
    /// Captured money goes back.
    RefundRequested {
        /// The order; equal to the record's key.
        order_id: OrderId,
        /// Whose order it is: the `sub` of the token that placed it.
        customer_id: String,
        /// The money that moved.
        amount: Money,
        /// Why.
        reason: RefundReason,
        /// The command behind this event, if one caused it.
        command_id: Option<CommandId>,
        /// The caller's `sub`; absent for a command that did not come by HTTP.
        caller: Option<String>,
        /// SHA-256 of method, path and key, lower-case hex.
        key_hash: Option<String>,
        /// SHA-256 of the canonical body, lower-case hex.
        fingerprint: Option<String>,
    }
}

record! {
    "orderlog.payment.PaymentRefunded",
    /// The money is back with the customer.
    PaymentRefunded {
        /// The order; equal to the record's key.
        order_id: OrderId,
        /// Whose order it is: the `sub` of the token that placed it.
        customer_id: String,
        /// The money that moved.
        amount: Money,
        /// The command behind this event, if one caused it.
        command_id: Option<CommandId>,
        /// The caller's `sub`; absent for a command that did not come by HTTP.
        caller: Option<String>,
        /// SHA-256 of method, path and key, lower-case hex.
        key_hash: Option<String>,
        /// SHA-256 of the canonical body, lower-case hex.
        fingerprint: Option<String>,
    }
}

record! {
    "orderlog.payment.RefundFailed",
    /// The gateway refuses to give the money back; a person must act.
    RefundFailed {
        /// The order; equal to the record's key.
        order_id: OrderId,
        /// Whose order it is: the `sub` of the token that placed it.
        customer_id: String,
        /// The money that moved.
        amount: Money,
        /// What the gateway said, as a code.
        reason: String,
        /// The command behind this event, if one caused it.
        command_id: Option<CommandId>,
        /// The caller's `sub`; absent for a command that did not come by HTTP.
        caller: Option<String>,
        /// SHA-256 of method, path and key, lower-case hex.
        key_hash: Option<String>,
        /// SHA-256 of the canonical body, lower-case hex.
        fingerprint: Option<String>,
    }
}

record! {
    "orderlog.payment.CommandRefused",
    /// A command that changed nothing, with the reason. It leaves an event so that it stays refused after a rebuild.
    CommandRefused {
        /// The order; equal to the record's key.
        order_id: OrderId,
        /// Type of the refused command without namespace, such as `CancelOrder`.
        command_type: String,
        /// The service's refusal as a code.
        reason: String,
        /// Identity of the command.
        command_id: CommandId,
        /// The caller's `sub`; absent for a command that did not come by HTTP.
        caller: Option<String>,
        /// SHA-256 of method, path and key, lower-case hex.
        key_hash: Option<String>,
        /// SHA-256 of the canonical body, lower-case hex.
        fingerprint: Option<String>,
    }
}

topic! {
    /// What happened to the money; written by payment-svc alone.
    PaymentEvent on "payment.events" {
        PaymentRequested,
        PaymentCaptured,
        PaymentDeclined,
        PaymentFailed,
        PaymentCancelRequested,
        PaymentCancelled,
        RefundRequested,
        PaymentRefunded,
        RefundFailed,
        CommandRefused,
    }
}

impl PaymentEvent {
    /// The aggregate this record is about: its key, as decimal text.
    #[must_use]
    pub fn order_id(&self) -> OrderId {
        match self {
            Self::PaymentRequested(record) => record.order_id,
            Self::PaymentCaptured(record) => record.order_id,
            Self::PaymentDeclined(record) => record.order_id,
            Self::PaymentFailed(record) => record.order_id,
            Self::PaymentCancelRequested(record) => record.order_id,
            Self::PaymentCancelled(record) => record.order_id,
            Self::RefundRequested(record) => record.order_id,
            Self::PaymentRefunded(record) => record.order_id,
            Self::RefundFailed(record) => record.order_id,
            Self::CommandRefused(record) => record.order_id,
        }
    }
}

commanded! { CommandRefused }

maybe_commanded! { PaymentCaptured, PaymentDeclined, PaymentFailed, PaymentCancelled, RefundRequested, PaymentRefunded, RefundFailed }

impl PaymentEvent {
    /// The command that caused this event, if one did.
    #[must_use]
    pub fn command_ref(&self) -> Option<crate::record::CommandRef> {
        match self {
            Self::PaymentCaptured(event) => event.command_ref(),
            Self::PaymentDeclined(event) => event.command_ref(),
            Self::PaymentFailed(event) => event.command_ref(),
            Self::PaymentCancelled(event) => event.command_ref(),
            Self::RefundRequested(event) => event.command_ref(),
            Self::PaymentRefunded(event) => event.command_ref(),
            Self::RefundFailed(event) => event.command_ref(),
            Self::CommandRefused(event) => Some(event.command_ref()),
            Self::PaymentRequested(_) | Self::PaymentCancelRequested(_) => None,
        }
    }
}
