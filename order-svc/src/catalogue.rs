//! What can be ordered and what it costs: the fold of the product facts of inventory.events, and the price of an order.
//!
//! Pure, a part of the rules. Stock is not known here: whether an order can be served is inventory-svc's decision.

use std::collections::{BTreeMap, HashSet};

use events::code::RejectReason;
use events::id::ProductId;
use events::inventory::{InventoryEvent, ProductDelisted, ProductListed, ProductRepriced};
use events::money::{Money, MoneyError};
use events::order::{OrderLine, PricedLine};

/// An order has at least one line and at most this many.
pub const LINES_MAX: usize = 200;
/// A line asks for at least one piece and at most this many.
pub const QUANTITY_MAX: i64 = 1_000_000;

/// A product as this service knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product {
    /// Which.
    pub product_id: ProductId,
    /// What people call it.
    pub name: String,
    /// Price of one piece.
    pub price: Money,
    /// True while it can be ordered.
    pub listed: bool,
}

/// A record of inventory.events that changes the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// It can be ordered.
    Listed(ProductListed),
    /// It has another price.
    Repriced(ProductRepriced),
    /// It can no longer be ordered.
    Delisted(ProductDelisted),
}

impl Fact {
    /// The product it is about.
    #[must_use]
    pub fn product_id(&self) -> ProductId {
        match self {
            Self::Listed(fact) => fact.product_id,
            Self::Repriced(fact) => fact.product_id,
            Self::Delisted(fact) => fact.product_id,
        }
    }

    /// The fact in an event; `None` for one that does not change the catalogue.
    #[must_use]
    pub fn from_inventory(event: InventoryEvent) -> Option<Self> {
        match event {
            InventoryEvent::ProductListed(fact) => Some(Self::Listed(fact)),
            InventoryEvent::ProductRepriced(fact) => Some(Self::Repriced(fact)),
            InventoryEvent::ProductDelisted(fact) => Some(Self::Delisted(fact)),
            InventoryEvent::StockReceived(_)
            | InventoryEvent::StockAdjusted(_)
            | InventoryEvent::StockReserved(_)
            | InventoryEvent::StockRejected(_)
            | InventoryEvent::StockReleased(_)
            | InventoryEvent::StockSold(_)
            | InventoryEvent::CommandRefused(_) => None,
        }
    }
}

/// One step of the fold of the catalogue.
#[must_use]
pub fn observe(known: Option<Product>, fact: &Fact) -> Option<Product> {
    match fact {
        Fact::Listed(fact) => {
            Some(Product { product_id: fact.product_id, name: fact.name.clone(), price: fact.price, listed: true })
        }
        Fact::Repriced(fact) => known.map(|product| Product { price: fact.price, ..product }),
        Fact::Delisted(_) => known.map(|product| Product { listed: false, ..product }),
    }
}

/// The lines with their prices, and their sum.
///
/// `prices` holds the products that can be ordered; `expected` is the total that the client saw, if it said so.
///
/// # Errors
/// [`RejectReason`]: the order cannot be.
pub fn quote(
    lines: &[OrderLine],
    prices: &BTreeMap<ProductId, Money>,
    expected: Option<Money>,
) -> Result<(Vec<PricedLine>, Money), RejectReason> {
    check(lines)?;
    let priced = lines.iter().map(|line| {
        let unit_price = *prices.get(&line.product_id).ok_or(RejectReason::UnknownProduct)?;
        Ok(PricedLine { product_id: line.product_id, quantity: line.quantity, unit_price })
    });
    let priced = priced.collect::<Result<Vec<_>, _>>()?;
    let total = total(&priced).map_err(|error| match error {
        MoneyError::Overflow => RejectReason::TotalTooLarge,
        MoneyError::Currencies(..) => RejectReason::MixedCurrencies,
    })?;
    match expected {
        Some(expected) if expected != total => Err(RejectReason::PriceChanged),
        Some(_) | None => Ok((priced, total)),
    }
}

/// The edge refuses such lines with a pointer; a command that was appended past it may still hold them.
fn check(lines: &[OrderLine]) -> Result<(), RejectReason> {
    let mut seen = HashSet::with_capacity(lines.len());
    let sound = (1..=LINES_MAX).contains(&lines.len())
        && lines.iter().all(|line| (1..=QUANTITY_MAX).contains(&line.quantity))
        && lines.iter().all(|line| seen.insert(line.product_id));
    if sound { Ok(()) } else { Err(RejectReason::InvalidLines) }
}

fn total(lines: &[PricedLine]) -> Result<Money, MoneyError> {
    let mut prices = lines.iter().map(|line| line.unit_price.checked_mul(line.quantity));
    let first = prices.next().expect("an order has at least one line")?;
    prices.try_fold(first, |sum, price| sum.checked_add(price?))
}

#[cfg(test)]
mod tests {
    use events::id::CommandId;
    use events::money::Currency;

    use super::*;

    fn usd(amount: i64) -> Money {
        Money::new(amount, Currency::USD)
    }

    fn line(product: i64, quantity: i64) -> OrderLine {
        OrderLine { product_id: ProductId(product), quantity }
    }

    fn prices() -> BTreeMap<ProductId, Money> {
        let euro = Currency::parse("EUR").unwrap();
        let prices = [(1, usd(99)), (2, usd(1)), (3, Money::new(5, euro)), (4, usd(i64::MAX))];
        prices.into_iter().map(|(id, price)| (ProductId(id), price)).collect()
    }

    #[test]
    fn an_order_costs_the_sum_of_its_lines() {
        let (lines, total) = quote(&[line(1, 2), line(2, 3)], &prices(), Some(usd(201))).unwrap();
        assert_eq!(total, usd(201));
        assert_eq!(lines[0].unit_price, usd(99));
        assert_eq!(lines[1].unit_price, usd(1));
    }

    #[test]
    fn lines_that_cannot_be_are_rejected() {
        let many: Vec<_> = (1..=201).map(|product| line(product, 1)).collect();
        let bad: [&[OrderLine]; 5] = [&[], &[line(1, 0)], &[line(1, 1_000_001)], &[line(1, 1), line(1, 2)], &many];
        for lines in bad {
            assert_eq!(quote(lines, &prices(), None), Err(RejectReason::InvalidLines), "{lines:?}");
        }
    }

    #[test]
    fn two_hundred_lines_of_a_million_pieces_are_accepted() {
        let lines: Vec<_> = (1..=200).map(|product| line(product, QUANTITY_MAX)).collect();
        let prices = lines.iter().map(|line| (line.product_id, usd(1))).collect();
        assert_eq!(quote(&lines, &prices, None).unwrap().1, usd(200_000_000));
    }

    #[test]
    fn an_order_without_a_price_is_rejected() {
        let reject = |lines: &[OrderLine], expected| quote(lines, &prices(), expected).unwrap_err();
        assert_eq!(reject(&[line(1, 1), line(9, 1)], None), RejectReason::UnknownProduct);
        assert_eq!(reject(&[line(1, 1), line(3, 1)], None), RejectReason::MixedCurrencies);
        assert_eq!(reject(&[line(4, 2)], None), RejectReason::TotalTooLarge);
        assert_eq!(reject(&[line(4, 1), line(2, 1)], None), RejectReason::TotalTooLarge);
        assert_eq!(reject(&[line(1, 1)], Some(usd(98))), RejectReason::PriceChanged);
        let euro = Money::new(99, Currency::parse("EUR").unwrap());
        assert_eq!(reject(&[line(1, 1)], Some(euro)), RejectReason::PriceChanged);
    }

    #[test]
    fn the_catalogue_follows_its_facts() {
        let listed = |name: &str, amount| {
            Fact::Listed(ProductListed {
                product_id: ProductId(1),
                name: name.to_owned(),
                price: usd(amount),
                command_id: CommandId(1),
                caller: None,
                key_hash: None,
                fingerprint: None,
            })
        };
        let repriced = Fact::Repriced(ProductRepriced {
            product_id: ProductId(1),
            price: usd(3),
            command_id: CommandId(1),
            caller: None,
            key_hash: None,
            fingerprint: None,
        });
        let delisted = Fact::Delisted(ProductDelisted {
            product_id: ProductId(1),
            command_id: CommandId(1),
            caller: None,
            key_hash: None,
            fingerprint: None,
        });
        let product = |name: &str, amount, listed| {
            Some(Product { product_id: ProductId(1), name: name.to_owned(), price: usd(amount), listed })
        };
        let mut known = None;
        for (fact, then) in [
            (listed("PEAR", 2), product("PEAR", 2, true)),
            (repriced, product("PEAR", 3, true)),
            (delisted, product("PEAR", 3, false)),
            (listed("PEARS", 4), product("PEARS", 4, true)),
        ] {
            known = observe(known, &fact);
            assert_eq!(known, then);
        }
    }
}
