//! Topics `order.commands` and `order.events`: the life of an order.
//!
//! Data only. What may follow what is decided in `order-svc/src/domain.rs`.

use serde::{Deserialize, Serialize};

use crate::code::{CancelReason, CustomerReason, RejectReason};
use crate::id::{CommandId, OrderId, ProductId};
use crate::money::Money;
use crate::record::{Record as _, commanded, maybe_commanded, record, topic};
use crate::time::Timestamp;

/// A line as a customer asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderLine {
    /// What.
    pub product_id: ProductId,
    /// How many pieces, 1 to 1,000,000.
    pub quantity: i64,
}

/// A line with the price that the catalogue had when the order was placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PricedLine {
    /// What.
    pub product_id: ProductId,
    /// How many pieces.
    pub quantity: i64,
    /// Price of one piece.
    pub unit_price: Money,
}

record! {
    "orderlog.order.PlaceOrder",
    /// Place an order. Prices are not the client's to name.
    PlaceOrder {
        /// The order; equal to the record's key.
        order_id: OrderId,
        /// Whose order it is: the `sub` of the token that placed it.
        customer_id: String,
        /// 1 to 200 lines, no product twice.
        lines: Vec<OrderLine>,
        /// Opaque token of the gateway.
        payment_method: String,
        /// The total that the client saw; the order is rejected when the catalogue says otherwise.
        expected_total: Option<Money>,
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
    "orderlog.order.CancelOrder",
    /// Cancel an order that is still PLACED.
    CancelOrder {
        /// The order; equal to the record's key.
        order_id: OrderId,
        /// Why.
        reason: CustomerReason,
        /// Refuse unless the order has this version (`If-Match`).
        expected_version: Option<i64>,
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
    /// What clients ask of order-svc.
    OrderCommand on "order.commands" {
        PlaceOrder,
        CancelOrder,
    }
}

impl OrderCommand {
    /// The aggregate this record is about: its key, as decimal text.
    #[must_use]
    pub fn order_id(&self) -> OrderId {
        match self {
            Self::PlaceOrder(record) => record.order_id,
            Self::CancelOrder(record) => record.order_id,
        }
    }
}

commanded! { PlaceOrder, CancelOrder }

record! {
    "orderlog.order.OrderPlaced",
    /// An order exists and waits for stock and payment.
    OrderPlaced {
        /// The order; equal to the record's key.
        order_id: OrderId,
        /// 1 for the first event of the order, one more for each further one that changes it.
        version: i64,
        /// Whose order it is: the `sub` of the token that placed it.
        customer_id: String,
        /// The lines with the prices that the catalogue had when the order was placed.
        lines: Vec<PricedLine>,
        /// Sum of quantity × unit price.
        total: Money,
        /// Opaque token of the gateway.
        payment_method: String,
        /// The order expires when it is not paid by then.
        pay_by: Timestamp,
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
    "orderlog.order.OrderRejected",
    /// An order that never came to be.
    OrderRejected {
        /// The order; equal to the record's key.
        order_id: OrderId,
        /// 1 for the first event of the order, one more for each further one that changes it.
        version: i64,
        /// Whose order it is: the `sub` of the token that placed it.
        customer_id: String,
        /// The lines as asked for.
        lines: Vec<OrderLine>,
        /// Opaque token of the gateway.
        payment_method: String,
        /// Why.
        reason: RejectReason,
        /// Identity of the command.
        command_id: CommandId,
        /// The caller's `sub`; absent for a command that did not come by HTTP.
        caller: Option<String>,
        /// SHA-256 of method, path and key, lower-case hex.
        key_hash: Option<String>,
        /// SHA-256 of the canonical body, lower-case hex.
        fingerprint: Option<String>,
        /// The operator's `sub`, for [`RejectReason::Discarded`] only; new in version 2.
        #[serde(default)]
        discarded_by: Option<String>,
    }
}

record! {
    "orderlog.order.OrderConfirmed",
    /// Paid; the reserved stock is sold. Final.
    OrderConfirmed {
        /// The order; equal to the record's key.
        order_id: OrderId,
        /// 1 for the first event of the order, one more for each further one that changes it.
        version: i64,
        /// Whose order it is: the `sub` of the token that placed it.
        customer_id: String,
        /// The lines with the prices that the catalogue had when the order was placed.
        lines: Vec<PricedLine>,
        /// Sum of quantity × unit price.
        total: Money,
    }
}

record! {
    "orderlog.order.OrderCancelled",
    /// Given up before it was confirmed. Final.
    OrderCancelled {
        /// The order; equal to the record's key.
        order_id: OrderId,
        /// 1 for the first event of the order, one more for each further one that changes it.
        version: i64,
        /// Whose order it is: the `sub` of the token that placed it.
        customer_id: String,
        /// The lines with the prices that the catalogue had when the order was placed.
        lines: Vec<PricedLine>,
        /// Sum of quantity × unit price.
        total: Money,
        /// Why.
        reason: CancelReason,
        /// The customer's reason when they cancelled.
        customer_reason: Option<CustomerReason>,
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
    "orderlog.order.OrderExpired",
    /// Not paid by `pay_by`. Final.
    OrderExpired {
        /// The order; equal to the record's key.
        order_id: OrderId,
        /// 1 for the first event of the order, one more for each further one that changes it.
        version: i64,
        /// Whose order it is: the `sub` of the token that placed it.
        customer_id: String,
        /// The lines with the prices that the catalogue had when the order was placed.
        lines: Vec<PricedLine>,
        /// Sum of quantity × unit price.
        total: Money,
        /// The order expires when it is not paid by then.
        pay_by: Timestamp,
    }
}

record! {
    "orderlog.order.CommandRefused",
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
    /// What happened to orders; written by order-svc alone.
    OrderEvent on "order.events" {
        OrderPlaced,
        OrderRejected,
        OrderConfirmed,
        OrderCancelled,
        OrderExpired,
        CommandRefused,
    }
}

impl OrderEvent {
    /// True for the types of which one ends every order.
    #[must_use]
    pub fn ends_order(type_name: &str) -> bool {
        [OrderRejected::TYPE, OrderConfirmed::TYPE, OrderCancelled::TYPE, OrderExpired::TYPE].contains(&type_name)
    }

    /// The aggregate this record is about: its key, as decimal text.
    #[must_use]
    pub fn order_id(&self) -> OrderId {
        match self {
            Self::OrderPlaced(record) => record.order_id,
            Self::OrderRejected(record) => record.order_id,
            Self::OrderConfirmed(record) => record.order_id,
            Self::OrderCancelled(record) => record.order_id,
            Self::OrderExpired(record) => record.order_id,
            Self::CommandRefused(record) => record.order_id,
        }
    }
}

commanded! { OrderPlaced, OrderRejected, CommandRefused }

maybe_commanded! { OrderCancelled }

impl OrderEvent {
    /// The command that caused this event, if one did.
    #[must_use]
    pub fn command_ref(&self) -> Option<crate::record::CommandRef> {
        match self {
            Self::OrderPlaced(event) => Some(event.command_ref()),
            Self::OrderRejected(event) => Some(event.command_ref()),
            Self::CommandRefused(event) => Some(event.command_ref()),
            Self::OrderCancelled(event) => event.command_ref(),
            Self::OrderConfirmed(_) | Self::OrderExpired(_) => None,
        }
    }
}
