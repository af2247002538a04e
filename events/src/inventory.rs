//! Topics `inventory.commands` and `inventory.events`: the catalogue, the stock, and the reservations of orders.
//!
//! Product facts are keyed by product, reservations by order, on one events topic. Data only; the rules are in
//! `inventory-svc/src/domain.rs`.

use crate::code::AdjustReason;
use crate::id::{CommandId, OrderId, ProductId};
use crate::money::Money;
use crate::order::PricedLine;
use crate::record::{Record as _, commanded, record, topic};
use crate::time::Timestamp;

record! {
    "orderlog.inventory.ListProduct",
    /// Put a product into the catalogue, or back into it.
    ListProduct {
        /// The product; equal to the record's key.
        product_id: ProductId,
        /// What people call it.
        name: String,
        /// Price of one piece, at least 1.
        price: Money,
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
    "orderlog.inventory.RepriceProduct",
    /// Change a product's price for orders placed from now on.
    RepriceProduct {
        /// The product; equal to the record's key.
        product_id: ProductId,
        /// Price of one piece, at least 1.
        price: Money,
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
    "orderlog.inventory.DelistProduct",
    /// Take a product out of the catalogue; its stock and open orders stay.
    DelistProduct {
        /// The product; equal to the record's key.
        product_id: ProductId,
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
    "orderlog.inventory.ReceiveStock",
    /// Goods arrived.
    ReceiveStock {
        /// The product; equal to the record's key.
        product_id: ProductId,
        /// Pieces that arrived, 1 to 1,000,000,000.
        quantity: i64,
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
    "orderlog.inventory.AdjustStock",
    /// The count was wrong, or goods were damaged.
    AdjustStock {
        /// The product; equal to the record's key.
        product_id: ProductId,
        /// Pieces found (positive) or missing (negative), never 0.
        delta: i64,
        /// Why.
        reason: AdjustReason,
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
    /// What operators ask of inventory-svc.
    InventoryCommand on "inventory.commands" {
        ListProduct,
        RepriceProduct,
        DelistProduct,
        ReceiveStock,
        AdjustStock,
    }
}

impl InventoryCommand {
    /// The aggregate this record is about: its key, as decimal text.
    #[must_use]
    pub fn product_id(&self) -> ProductId {
        match self {
            Self::ListProduct(record) => record.product_id,
            Self::RepriceProduct(record) => record.product_id,
            Self::DelistProduct(record) => record.product_id,
            Self::ReceiveStock(record) => record.product_id,
            Self::AdjustStock(record) => record.product_id,
        }
    }
}

commanded! { ListProduct, RepriceProduct, DelistProduct, ReceiveStock, AdjustStock }

record! {
    "orderlog.inventory.ProductListed",
    /// A product can be ordered.
    ProductListed {
        /// The product; equal to the record's key.
        product_id: ProductId,
        /// What people call it.
        name: String,
        /// Price of one piece, at least 1.
        price: Money,
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
    "orderlog.inventory.ProductRepriced",
    /// A product has a new price.
    ProductRepriced {
        /// The product; equal to the record's key.
        product_id: ProductId,
        /// Price of one piece, at least 1.
        price: Money,
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
    "orderlog.inventory.ProductDelisted",
    /// A product can no longer be ordered.
    ProductDelisted {
        /// The product; equal to the record's key.
        product_id: ProductId,
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
    "orderlog.inventory.StockReceived",
    /// Goods arrived: on hand grows.
    StockReceived {
        /// The product; equal to the record's key.
        product_id: ProductId,
        /// Pieces that arrived, 1 to 1,000,000,000.
        quantity: i64,
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
    "orderlog.inventory.StockAdjusted",
    /// On hand was corrected.
    StockAdjusted {
        /// The product; equal to the record's key.
        product_id: ProductId,
        /// Pieces found (positive) or missing (negative), never 0.
        delta: i64,
        /// Why.
        reason: AdjustReason,
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
    "orderlog.inventory.StockReserved",
    /// All lines of an order are set aside for it; its payment may start.
    StockReserved {
        /// The order; equal to the record's key.
        order_id: OrderId,
        /// Whose order it is: the `sub` of the token that placed it.
        customer_id: String,
        /// The lines with the prices that the catalogue had when the order was placed.
        lines: Vec<PricedLine>,
        /// Sum of quantity × unit price.
        total: Money,
        /// The order expires when it is not paid by then.
        pay_by: Timestamp,
        /// Opaque token of the gateway.
        payment_method: String,
    }
}

record! {
    "orderlog.inventory.StockRejected",
    /// Not all lines could be reserved, so none was.
    StockRejected {
        /// The order; equal to the record's key.
        order_id: OrderId,
        /// Whose order it is: the `sub` of the token that placed it.
        customer_id: String,
        /// The lines with the prices that the catalogue had when the order was placed.
        lines: Vec<PricedLine>,
        /// Sum of quantity × unit price.
        total: Money,
        /// The products that were short.
        short: Vec<ProductId>,
    }
}

record! {
    "orderlog.inventory.StockReleased",
    /// A reservation ended without a sale.
    StockReleased {
        /// The order; equal to the record's key.
        order_id: OrderId,
        /// Whose order it is: the `sub` of the token that placed it.
        customer_id: String,
        /// The lines with the prices that the catalogue had when the order was placed.
        lines: Vec<PricedLine>,
    }
}

record! {
    "orderlog.inventory.StockSold",
    /// A reservation ended with a sale: reserved and on hand shrink.
    StockSold {
        /// The order; equal to the record's key.
        order_id: OrderId,
        /// Whose order it is: the `sub` of the token that placed it.
        customer_id: String,
        /// The lines with the prices that the catalogue had when the order was placed.
        lines: Vec<PricedLine>,
    }
}

record! {
    "orderlog.inventory.CommandRefused",
    /// A command that changed nothing, with the reason. It leaves an event so that it stays refused after a rebuild.
    CommandRefused {
        /// The product; equal to the record's key.
        product_id: ProductId,
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
    /// What happened to products, stock and reservations; written by inventory-svc alone.
    InventoryEvent on "inventory.events" {
        ProductListed,
        ProductRepriced,
        ProductDelisted,
        StockReceived,
        StockAdjusted,
        StockReserved,
        StockRejected,
        StockReleased,
        StockSold,
        CommandRefused,
    }
}

commanded! { ProductListed, ProductRepriced, ProductDelisted, StockReceived, StockAdjusted, CommandRefused }

/// What a record of `inventory.events` is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// A product fact.
    Product(ProductId),
    /// A reservation.
    Order(OrderId),
}

impl Subject {
    /// The number that is the record's key. An order and a product may have the same one.
    #[must_use]
    pub fn number(self) -> i64 {
        match self {
            Self::Product(id) => id.0,
            Self::Order(id) => id.0,
        }
    }
}

impl InventoryEvent {
    /// The aggregate this record is about.
    #[must_use]
    pub fn subject(&self) -> Subject {
        match self {
            Self::ProductListed(event) => Subject::Product(event.product_id),
            Self::ProductRepriced(event) => Subject::Product(event.product_id),
            Self::ProductDelisted(event) => Subject::Product(event.product_id),
            Self::StockReceived(event) => Subject::Product(event.product_id),
            Self::StockAdjusted(event) => Subject::Product(event.product_id),
            Self::CommandRefused(event) => Subject::Product(event.product_id),
            Self::StockReserved(event) => Subject::Order(event.order_id),
            Self::StockRejected(event) => Subject::Order(event.order_id),
            Self::StockReleased(event) => Subject::Order(event.order_id),
            Self::StockSold(event) => Subject::Order(event.order_id),
        }
    }

    /// What an event of this type is about, `product` or `order`; `None` where there is no such type.
    #[must_use]
    pub fn kind(type_name: &str) -> Option<&'static str> {
        match type_name {
            ProductListed::TYPE | ProductRepriced::TYPE | ProductDelisted::TYPE => Some("product"),
            StockReceived::TYPE | StockAdjusted::TYPE | CommandRefused::TYPE => Some("product"),
            StockReserved::TYPE | StockRejected::TYPE | StockReleased::TYPE | StockSold::TYPE => Some("order"),
            _ => None,
        }
    }

    /// The command that caused this event, if one did.
    #[must_use]
    pub fn command_ref(&self) -> Option<crate::record::CommandRef> {
        match self {
            Self::ProductListed(event) => Some(event.command_ref()),
            Self::ProductRepriced(event) => Some(event.command_ref()),
            Self::ProductDelisted(event) => Some(event.command_ref()),
            Self::StockReceived(event) => Some(event.command_ref()),
            Self::StockAdjusted(event) => Some(event.command_ref()),
            Self::CommandRefused(event) => Some(event.command_ref()),
            Self::StockReserved(_) | Self::StockRejected(_) | Self::StockReleased(_) | Self::StockSold(_) => None,
        }
    }
}
