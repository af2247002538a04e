//! What is sold in a run, and to whom: few products that everybody wants, some of which run out.
//!
//! Nothing is sent here.

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

/// The exponent of the demand's distribution: the first of 5,000 products is in 11 % of the orders.
const ZIPF: f64 = 1.1;
/// One in so many products has a third of the stock that would be wanted.
const SCARCE_ONE_IN: usize = 5;
const LINES_MAX: usize = 3;
const QUANTITY_MAX: i64 = 3;
/// Product numbers of a run begin here: it is alone on its log.
const FIRST_PRODUCT: i64 = 1_000;
/// Always in stock: what progress is tried with.
pub(super) const PROBE: i64 = 999;

/// Products with their demand and stock.
#[derive(Debug, Clone)]
pub(super) struct Shop {
    /// Sums of the shares of all up to this one.
    shares: Vec<f64>,
    /// ID, price and first stock.
    pub(super) products: Vec<(i64, i64, i64)>,
}

impl Shop {
    /// A shop in which so many orders are expected.
    pub(super) fn new(seed: u64, products: usize, orders: f64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let weights = (1..=products).map(|rank| (rank as f64).powf(-ZIPF));
        let mut sum = 0.0;
        let mut shares: Vec<f64> = weights
            .map(|weight| {
                sum += weight;
                sum
            })
            .collect();
        shares.iter_mut().for_each(|share| *share /= sum);
        let mut scarce: Vec<bool> = (0..products).map(|rank| rank % SCARCE_ONE_IN == SCARCE_ONE_IN - 1).collect();
        scarce.shuffle(&mut random);
        let each = orders * (LINES_MAX + 1) as f64 / 2.0 * (QUANTITY_MAX + 1) as f64 / 2.0;
        let mut before = 0.0;
        let stock = |rank: usize| {
            let demand = each * (shares[rank] - before);
            before = shares[rank];
            #[expect(clippy::cast_possible_truncation, reason = "a few million at most")]
            let stock = if scarce[rank] { demand / 3.0 } else { demand * 3.0 + 100.0 } as i64;
            (number(rank), random.random_range(50..5_000), stock.max(1))
        };
        let mut products: Vec<_> = (0..products).map(stock).collect();
        products.push((PROBE, 100, 1_000_000));
        Self { shares, products }
    }

    /// A product, the wanted ones more often.
    pub(super) fn pick(&self, random: &mut StdRng) -> i64 {
        let share = random.random::<f64>();
        number(self.shares.partition_point(|sum| *sum < share).min(self.shares.len() - 1))
    }

    /// The body of an order.
    pub(super) fn order(&self, random: &mut StdRng, payment_method: &str) -> Value {
        let mut lines: Vec<i64> = (0..random.random_range(1..=LINES_MAX)).map(|_| self.pick(random)).collect();
        lines.sort_unstable();
        lines.dedup();
        let line = |id: &i64| json!({"product_id": id.to_string(), "quantity": random.random_range(1..=QUANTITY_MAX)});
        let lines: Vec<Value> = lines.iter().map(line).collect();
        json!({"lines": lines, "payment_method": payment_method})
    }
}

fn number(rank: usize) -> i64 {
    FIRST_PRODUCT + i64::try_from(rank).unwrap_or(0)
}

/// How an order is paid for: mostly well.
pub(super) fn payment_method(random: &mut StdRng) -> &'static str {
    match random.random_range(0..100) {
        0..2 => "pm_declined",
        2 => "pm_late",
        3 => "pm_twice",
        4 => "pm_never",
        5 => "pm_wrong_amount",
        _ => "pm_ok",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_product_is_wanted_most_and_some_run_out() {
        let shop = Shop::new(1, 100, 1_000.0);
        let mut random = StdRng::seed_from_u64(1);
        let picks: Vec<i64> = (0..1_000).map(|_| shop.pick(&mut random)).collect();
        let of = |product| picks.iter().filter(|picked| **picked == product).count();
        assert!(of(number(0)) > 150 && of(number(0)) > of(number(1)) && of(number(1)) > of(number(50)));
        // With few orders all that is not scarce has its 100.
        let few = Shop::new(1, 100, 10.0);
        let small = few.products.iter().filter(|(_, _, stock)| *stock < 100).count();
        assert_eq!(small, 20);
    }

    #[test]
    fn an_order_names_no_product_twice() {
        let (shop, mut random) = (Shop::new(1, 3, 10.0), StdRng::seed_from_u64(1));
        for _ in 0..100 {
            let order = shop.order(&mut random, "pm_ok");
            let mut ids: Vec<String> =
                order["lines"].as_array().unwrap().iter().map(|line| line["product_id"].to_string()).collect();
            let all = ids.len();
            ids.dedup();
            assert!(all >= 1 && ids.len() == all);
        }
    }
}
