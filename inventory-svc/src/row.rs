//! How a product and a reservation become a row, and a row becomes one again.
//!
//! No SQL here: the statements are [`crate::store`]'s. A row that is none of ours is a decoding error.

use events::id::{OrderId, ProductId};
use events::money::{Currency, Money};

use crate::state::{Facts, Listing, Product, Reservation, Stock};

/// A row of `products`.
#[derive(Debug, Clone, Default, sqlx::FromRow)]
pub(crate) struct ProductRow {
    pub(crate) product_id: i64,
    pub(crate) name: Option<String>,
    pub(crate) price_amount: Option<i64>,
    pub(crate) currency: Option<String>,
    pub(crate) listed: bool,
    pub(crate) on_hand: i64,
    pub(crate) reserved: i64,
    pub(crate) sold: i64,
    pub(crate) received: i64,
    pub(crate) adjusted: i64,
}

/// A row of `reservations`, its partition aside.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct ReservationRow {
    pub(crate) order_id: i64,
    pub(crate) status: String,
    pub(crate) customer_id: Option<String>,
    /// JSON.
    pub(crate) lines: Option<String>,
}

impl ProductRow {
    /// The catalogue's part of a product's row; nothing is added to its stock.
    pub(crate) fn of(product_id: ProductId, listing: &Listing) -> Self {
        let of_facts = |facts: &Facts, listed| Self {
            product_id: product_id.0,
            name: Some(facts.name.clone()),
            price_amount: Some(facts.price.amount),
            currency: Some(facts.price.currency.to_string()),
            listed,
            ..Self::default()
        };
        match listing {
            Listing::Never => Self { product_id: product_id.0, ..Self::default() },
            Listing::Listed(facts) => of_facts(facts, true),
            Listing::Delisted(facts) => of_facts(facts, false),
        }
    }

    /// The product of a row.
    pub(crate) fn product(self) -> Result<Product, sqlx::Error> {
        let listing = match (self.name, self.price_amount, self.currency) {
            (None, None, None) => Listing::Never,
            (Some(name), Some(amount), Some(currency)) => {
                let currency = Currency::parse(&currency).map_err(|_| broken("currency"))?;
                let facts = Facts { name, price: Money::new(amount, currency) };
                if self.listed { Listing::Listed(facts) } else { Listing::Delisted(facts) }
            }
            _ => return Err(broken("name")),
        };
        let Self { on_hand, reserved, sold, received, adjusted, .. } = self;
        Ok(Product { listing, stock: Stock { on_hand, reserved, sold, received, adjusted } })
    }
}

impl ReservationRow {
    /// The row of a reservation; `None` of an order that was never heard of.
    pub(crate) fn of(order_id: OrderId, reservation: &Reservation) -> Option<Self> {
        let plain =
            |status: &str| Self { order_id: order_id.0, status: status.to_owned(), customer_id: None, lines: None };
        match reservation {
            Reservation::None => None,
            Reservation::Reserved { customer_id, lines } => Some(Self {
                customer_id: Some(customer_id.clone()),
                lines: Some(serde_json::to_string(lines).expect("plain structs are JSON")),
                ..plain("RESERVED")
            }),
            Reservation::Rejected => Some(plain("REJECTED")),
            Reservation::Released => Some(plain("RELEASED")),
            Reservation::Sold => Some(plain("SOLD")),
        }
    }

    /// The reservation of a row.
    pub(crate) fn reservation(self) -> Result<Reservation, sqlx::Error> {
        match self.status.as_str() {
            "RESERVED" => Ok(Reservation::Reserved {
                customer_id: self.customer_id.ok_or_else(|| broken("customer_id"))?,
                lines: serde_json::from_str(self.lines.as_deref().ok_or_else(|| broken("lines"))?)
                    .map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
            }),
            "REJECTED" => Ok(Reservation::Rejected),
            "RELEASED" => Ok(Reservation::Released),
            "SOLD" => Ok(Reservation::Sold),
            _ => Err(broken("status")),
        }
    }
}

fn broken(column: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("column {column} holds nothing that this service wrote").into())
}
