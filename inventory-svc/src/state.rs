//! What is known of the warehouse: the state that the rules of [`crate::domain`] fold and judge.
//!
//! Shapes and sums only; nothing here says what may follow what. A state holds the reservations and products that
//! the inputs at hand touch, not all there are.

use std::collections::BTreeMap;

use events::id::{OrderId, ProductId};
use events::money::Money;
use events::order::PricedLine;

/// The part of the warehouse that is looked at. What is missing from a map was never heard of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// By order.
    pub reservations: BTreeMap<OrderId, Reservation>,
    /// By product.
    pub products: BTreeMap<ProductId, Product>,
}

/// What was set aside for an order, by status.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Reservation {
    /// The order was not heard of.
    #[default]
    None,
    /// All its lines are set aside.
    Reserved {
        /// Whose order it is.
        customer_id: String,
        /// What is set aside, with the prices of the order.
        lines: Vec<PricedLine>,
    },
    /// Not all of its lines were there, so none is set aside. Final.
    Rejected,
    /// It was set aside and is free again. Final.
    Released,
    /// It was set aside and left the house. Final.
    Sold,
}

/// A product: what it is, and how much of it there is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Product {
    /// Its place in the catalogue.
    pub listing: Listing,
    /// Its pieces.
    pub stock: Stock,
}

/// A product's place in the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Listing {
    /// It was never listed: there is no such product.
    #[default]
    Never,
    /// It can be ordered.
    Listed(Facts),
    /// It can no longer be ordered; its stock and open orders stay.
    Delisted(Facts),
}

/// What the catalogue says of a product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// What people call it.
    pub name: String,
    /// Price of one piece.
    pub price: Money,
}

/// Pieces of a product. Sums, which partitions may add to in any order: `received + adjusted = on_hand + sold`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stock {
    /// In the house.
    pub on_hand: i64,
    /// Of these, set aside for orders.
    pub reserved: i64,
    /// Left the house with confirmed orders.
    pub sold: i64,
    /// Ever came in.
    pub received: i64,
    /// Found (positive) or missing (negative) when counted, all in all.
    pub adjusted: i64,
}

impl State {
    /// What is set aside for an order.
    #[must_use]
    pub fn reservation(&self, order_id: OrderId) -> &Reservation {
        self.reservations.get(&order_id).unwrap_or(&Reservation::None)
    }

    /// A product's place in the catalogue.
    #[must_use]
    pub fn listing(&self, product_id: ProductId) -> &Listing {
        self.products.get(&product_id).map_or(&Listing::Never, |product| &product.listing)
    }

    /// A product's pieces.
    #[must_use]
    pub fn stock(&self, product_id: ProductId) -> Stock {
        self.products.get(&product_id).map_or_else(Stock::default, |product| product.stock)
    }
}

impl Stock {
    /// Pieces that can still be set aside.
    #[must_use]
    pub fn available(&self) -> i64 {
        self.on_hand - self.reserved
    }

    /// What was added since another moment; only this is ever written.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            on_hand: self.on_hand - before.on_hand,
            reserved: self.reserved - before.reserved,
            sold: self.sold - before.sold,
            received: self.received - before.received,
            adjusted: self.adjusted - before.adjusted,
        }
    }
}
