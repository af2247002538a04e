//! What must hold once the model is at rest.

use std::collections::BTreeMap;

use events::code::NoticeKind;
use events::id::{OrderId, ProductId};
use inventory_svc::domain as inventory;
use order_svc::domain as order;
use payment_svc::domain as payment;

use crate::World;

impl World {
    pub(super) fn is_at_rest(&self) -> bool {
        let at = |reader| self.read.get(reader).copied().unwrap_or(0);
        let read = at("order<commands") == self.order_commands.len()
            && at("payment<commands") == self.payment_commands.len()
            && ["order<inventory", "payment<inventory"].iter().all(|reader| at(reader) == self.inventory_log.len())
            && ["order<payment", "notify<payment"].iter().all(|reader| at(reader) == self.payment_log.len())
            && ["inventory<order", "payment<order", "notify<order"]
                .iter()
                .all(|reader| at(reader) == self.order_log.len());
        read && self.orders.values().all(|state| state.timer().is_none())
            && self.payments.values().all(|state| state.call().is_none())
    }

    pub(super) fn check(&self) {
        self.check_money();
        self.check_stock();
        self.check_notices();
        self.check_folds();
    }

    fn check_money(&self) {
        for (order_id, state) in &self.orders {
            let charge = self.charges.get(order_id).copied().unwrap_or_default();
            let net = charge.captured - charge.refunded;
            match state {
                order::State::Confirmed(order) => assert_eq!(net, order.total.amount, "{order_id} is confirmed"),
                _ => assert_eq!(net, 0, "{order_id}: {state:?}, {charge:?}, {:?}", self.payments.get(order_id)),
            }
        }
    }

    fn check_stock(&self) {
        let mut sold: BTreeMap<ProductId, i64> = BTreeMap::new();
        for state in self.orders.values() {
            if let order::State::Confirmed(order) = state {
                for line in &order.lines {
                    *sold.entry(line.product_id).or_default() += line.quantity;
                }
            }
        }
        for (product_id, product) in &self.stock.products {
            let stock = product.stock;
            assert_eq!(stock.reserved, 0, "{product_id}");
            assert_eq!(stock.sold, sold.get(product_id).copied().unwrap_or(0), "{product_id}");
            assert_eq!(stock.received + stock.adjusted, stock.on_hand + stock.sold, "{product_id}");
            assert!(stock.on_hand >= 0, "{product_id}");
        }
    }

    fn check_notices(&self) {
        for (order_id, state) in &self.orders {
            let kind = match state {
                order::State::Confirmed(_) => NoticeKind::OrderConfirmed,
                order::State::Cancelled { .. } => NoticeKind::OrderCancelled,
                order::State::Expired(_) => NoticeKind::OrderExpired,
                order::State::Unknown | order::State::Placed { .. } | order::State::Rejected(_) => continue,
            };
            let notices = &self.notices[order_id].notices;
            assert!(notices.contains_key(&kind), "{order_id} was not told of {kind}: {notices:?}");
        }
    }

    /// Each projection is the fold of its own events.
    fn check_folds(&self) {
        let mut orders: BTreeMap<OrderId, order::State> = BTreeMap::new();
        for event in &self.order_log {
            let state = orders.remove(&event.event.order_id()).unwrap_or_default();
            orders.insert(event.event.order_id(), order::evolve(state, event));
        }
        let known = |state: &order::State| *state != order::State::Unknown;
        assert!(orders.iter().eq(self.orders.iter().filter(|(_, state)| known(state))));
        let mut payments: BTreeMap<OrderId, payment::State> = BTreeMap::new();
        for event in &self.payment_log {
            let state = payments.remove(&event.event.order_id()).unwrap_or_default();
            payments.insert(event.event.order_id(), payment::evolve(state, event));
        }
        let known = |state: &payment::State| *state != payment::State::Unknown;
        let left = payments.iter().filter(|(_, state)| known(state));
        assert!(left.eq(self.payments.iter().filter(|(_, state)| known(state))));
        let stock = self.inventory_log.iter().fold(inventory::State::default(), inventory::evolve);
        assert_eq!(stock, self.stock);
    }
}
