//! What an import will send, worked out from the data alone: products with prices and stock, households, baskets.
//!
//! Nothing is sent here, and the same data and options always give the same plan, so a second import repeats the first.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::Serialize;

use crate::baskets::Line;

/// What the API takes in one receipt.
pub(crate) const QUANTITY_MAX: i64 = 1_000_000;

/// How much stock is received.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Stock {
    /// A share of what the chosen baskets ask for.
    Factor(f64),
    /// The same for every product.
    Each(i64),
}

/// A product to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Product {
    pub(crate) id: i64,
    pub(crate) name: String,
    /// Cents, at least 1.
    pub(crate) price: i64,
    /// Pieces to receive.
    pub(crate) stock: i64,
}

/// A basket to order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Basket {
    pub(crate) id: i64,
    pub(crate) household: i64,
    /// Product and quantity, 0 included, in the file's order.
    pub(crate) lines: Vec<(i64, i64)>,
    /// Cents, at the listed prices.
    pub(crate) total: i64,
}

/// Numbers for people.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Facts {
    pub(crate) baskets: usize,
    pub(crate) lines: usize,
    pub(crate) households: usize,
    pub(crate) products_listed: usize,
    /// Of all data: products without a line whose quantity is above 0.
    pub(crate) products_without_price: usize,
    pub(crate) products_without_name: usize,
    /// Prices below half a cent, raised to 1 (fuel).
    pub(crate) prices_raised_to_one_cent: usize,
    pub(crate) lines_with_quantity_0: usize,
    /// Baskets that hold such a line: the API must refuse them.
    pub(crate) baskets_with_quantity_0: usize,
    pub(crate) pieces_received: i64,
}

/// The plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) products: Vec<Product>,
    pub(crate) households: Vec<i64>,
    pub(crate) baskets: Vec<Basket>,
    pub(crate) facts: Facts,
}

/// Plans the first `orders` baskets by (time, basket ID), or all.
pub(crate) fn plan(lines: &[Line], names: &HashMap<i64, String>, orders: Option<usize>, stock: Stock) -> Plan {
    let (prices, raised) = prices(lines);
    let all: HashSet<i64> = lines.iter().map(|line| line.product).collect();
    let mut facts = Facts {
        products_without_price: all.len() - prices.len(),
        products_without_name: all.iter().filter(|product| !names.contains_key(product)).count(),
        prices_raised_to_one_cent: raised,
        ..Facts::default()
    };
    let mut baskets = baskets(lines);
    baskets.truncate(orders.unwrap_or(usize::MAX));
    let mut demand: BTreeMap<i64, i64> = BTreeMap::new();
    let mut households = BTreeSet::new();
    for basket in &mut baskets {
        households.insert(basket.household);
        facts.lines += basket.lines.len();
        let empty = basket.lines.iter().filter(|(_, quantity)| *quantity == 0).count();
        facts.lines_with_quantity_0 += empty;
        facts.baskets_with_quantity_0 += usize::from(empty > 0);
        for (product, quantity) in &basket.lines {
            if let Some(price) = prices.get(product) {
                basket.total += price * quantity;
                *demand.entry(*product).or_default() += quantity;
            }
        }
    }
    let product = |(id, demand): (i64, i64)| Product {
        id,
        name: names.get(&id).cloned().unwrap_or_else(|| format!("PRODUCT {id}")),
        price: prices[&id],
        stock: match stock {
            Stock::Each(pieces) => pieces,
            Stock::Factor(factor) => share(demand, factor),
        },
    };
    let products: Vec<Product> = demand.into_iter().map(product).collect();
    facts.baskets = baskets.len();
    facts.households = households.len();
    facts.products_listed = products.len();
    facts.pieces_received = products.iter().map(|product| product.stock).sum();
    Plan { products, households: households.into_iter().collect(), baskets, facts }
}

/// All baskets in the order in which they were bought.
fn baskets(lines: &[Line]) -> Vec<Basket> {
    let mut by_id: HashMap<i64, (i64, Basket)> = HashMap::new();
    for line in lines {
        let new = || {
            let (id, household) = (line.basket, line.household);
            (line.at_ms, Basket { id, household, lines: Vec::new(), total: 0 })
        };
        let (at, basket) = by_id.entry(line.basket).or_insert_with(new);
        *at = (*at).min(line.at_ms);
        basket.lines.push((line.product, line.quantity));
    }
    let mut baskets: Vec<(i64, Basket)> = by_id.into_values().collect();
    baskets.sort_by_key(|(at, basket)| (*at, basket.id));
    baskets.into_iter().map(|(_, basket)| basket).collect()
}

/// The median price of each product in cents, over the lines with a quantity; and how many were raised to 1.
fn prices(lines: &[Line]) -> (HashMap<i64, i64>, usize) {
    let mut paid: HashMap<i64, Vec<f64>> = HashMap::new();
    for line in lines.iter().filter(|line| line.quantity > 0) {
        #[expect(clippy::cast_precision_loss, reason = "quantities are far below 2^52")]
        paid.entry(line.product).or_default().push(line.sales_value / line.quantity as f64);
    }
    let mut raised = 0;
    let price = |(product, mut values): (i64, Vec<f64>)| {
        let cents = to_whole(median(&mut values) * 100.0);
        raised += usize::from(cents < 1);
        (product, cents.max(1))
    };
    let prices = paid.into_iter().map(price).collect();
    (prices, raised)
}

/// The middle value, or the mean of the two middle ones. `values` is not empty.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}

fn share(demand: i64, factor: f64) -> i64 {
    #[expect(clippy::cast_precision_loss, reason = "demand is far below 2^52")]
    let share = demand as f64 * factor;
    to_whole(share)
}

/// Rounds half away from zero. Prices and stock of this data are far inside 64 bits; `as` saturates anyway.
fn to_whole(value: f64) -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "rounded, and saturating is right for absurd factors")]
    let whole = value.round() as i64;
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(at_ms: i64, basket: i64, product: i64, quantity: i64, sales_value: f64) -> Line {
        Line { at_ms, basket, household: basket % 10, product, quantity, sales_value }
    }

    fn names() -> HashMap<i64, String> {
        HashMap::from([(1, "BANANAS".to_owned()), (2, "MILK".to_owned())])
    }

    #[test]
    fn a_median_of_an_even_number_is_the_mean_of_the_middle() {
        assert!((median(&mut [3.0, 1.0, 2.0]) - 2.0).abs() < 1e-12);
        assert!((median(&mut [4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-12);
        assert_eq!(to_whole(98.5), 99);
        assert_eq!(to_whole(0.49), 0);
    }

    #[test]
    fn the_first_baskets_by_time_then_id_are_chosen() {
        let lines = [line(20, 3, 1, 1, 1.0), line(10, 9, 1, 1, 1.0), line(10, 7, 2, 2, 3.0), line(30, 1, 1, 1, 1.0)];
        let plan = plan(&lines, &names(), Some(3), Stock::Factor(1.0));
        let order: Vec<i64> = plan.baskets.iter().map(|basket| basket.id).collect();
        assert_eq!(order, [7, 9, 3]);
        assert_eq!(plan.households, [3, 7, 9]);
        assert_eq!(plan.baskets[0].total, 300);
    }

    #[test]
    fn prices_come_from_all_lines_and_stock_from_the_chosen_baskets() {
        let lines = [line(10, 1, 1, 2, 2.0), line(20, 2, 1, 1, 3.0), line(30, 3, 1, 10, 20.0)];
        let one = plan(&lines, &names(), Some(1), Stock::Factor(1.0));
        assert_eq!(one.products, [Product { id: 1, name: "BANANAS".to_owned(), price: 200, stock: 2 }]);
        let short = plan(&lines, &names(), None, Stock::Factor(0.9));
        assert_eq!(short.products[0].stock, 12);
        let each = plan(&lines, &names(), None, Stock::Each(5));
        assert_eq!(each.products[0].stock, 5);
    }

    #[test]
    fn fuel_costs_a_cent_and_what_has_no_price_is_not_listed() {
        let lines = [line(10, 1, 1, 10_000, 25.0), line(10, 1, 5, 0, 1.0), line(20, 2, 6, 1, 1.5)];
        let plan = plan(&lines, &names(), None, Stock::Factor(1.0));
        let listed: Vec<(i64, i64, &str)> =
            plan.products.iter().map(|product| (product.id, product.price, product.name.as_str())).collect();
        assert_eq!(listed, [(1, 1, "BANANAS"), (6, 150, "PRODUCT 6")]);
        let facts = Facts {
            baskets: 2,
            lines: 3,
            households: 2,
            products_listed: 2,
            products_without_price: 1,
            products_without_name: 2,
            prices_raised_to_one_cent: 1,
            lines_with_quantity_0: 1,
            baskets_with_quantity_0: 1,
            pieces_received: 10_001,
        };
        assert_eq!(plan.facts, facts);
        // The line without a quantity is sent as it is; the API must refuse it.
        assert_eq!(plan.baskets[0].lines, [(1, 10_000), (5, 0)]);
    }
}
