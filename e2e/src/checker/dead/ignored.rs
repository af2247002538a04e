//! Which inputs may come to nothing: DESIGN §4 read from the other side.
//!
//! What was true when the input was read is not in the log; so an input that may be ignored in a state is taken to be rightly
//! ignored when its key came to that state at all.

use std::collections::HashMap;

use events::code::{CancelReason, NoticeKind};
use events::inventory::InventoryEvent;
use events::notification::NotificationEvent;
use events::order::OrderEvent;
use events::payment::PaymentEvent;

use crate::checker::log::{Event, Fact, Log, Service, is_commands};
use crate::evidence::Entry;

/// Events by topic and key, and by place.
pub(super) struct Stories<'l> {
    by_key: HashMap<(&'l str, i64), Vec<&'l Fact<'l>>>,
    by_place: HashMap<(&'l str, i32, i64), &'l Fact<'l>>,
}

impl<'l> Stories<'l> {
    pub(super) fn of(log: &'l Log<'_>) -> Self {
        let (mut by_key, mut by_place) = (HashMap::<_, Vec<&Fact<'_>>>::new(), HashMap::new());
        for fact in &log.facts {
            if let (key, false) = fact.event.key() {
                by_key.entry((fact.topic, key)).or_default().push(fact);
            }
            by_place.insert((fact.topic, fact.entry.partition, fact.entry.offset), fact);
        }
        Self { by_key, by_place }
    }

    fn any(&self, topic: &str, key: i64, is: impl Fn(&Event) -> bool) -> bool {
        self.by_key.get(&(topic, key)).is_some_and(|facts| facts.iter().any(|fact| is(&fact.event)))
    }

    /// True when a service may leave this first record without an event.
    pub(super) fn ignorable(&self, service: &Service, topic: &str, entry: &Entry) -> bool {
        // A command always yields an event.
        if is_commands(topic) {
            return false;
        }
        let Some(fact) = self.by_place.get(&(topic, entry.partition, entry.offset)) else { return false };
        let key = fact.event.key().0;
        match service.name {
            "order-svc" => self.order(&fact.event, key),
            "inventory-svc" => self.inventory(&fact.event, key),
            "payment-svc" => self.payment(&fact.event, key),
            _ => self.notify(&fact.event, key),
        }
    }

    /// What could end the order, when something else has ended it. An end that only such an input brings about was brought about
    /// by this one, as there is one of each.
    fn order(&self, event: &Event, key: i64) -> bool {
        let brings = match event {
            Event::Inventory(InventoryEvent::StockRejected(_)) => Some(CancelReason::OutOfStock),
            Event::Payment(PaymentEvent::PaymentDeclined(_)) => Some(CancelReason::PaymentDeclined),
            Event::Payment(PaymentEvent::PaymentFailed(_)) => Some(CancelReason::PaymentFailed),
            Event::Payment(PaymentEvent::PaymentCaptured(event)) if !event.refund_due => None,
            _ => return true,
        };
        self.any("order.events", key, |end| match end {
            Event::Order(OrderEvent::OrderConfirmed(_)) => brings.is_some(),
            Event::Order(OrderEvent::OrderCancelled(end)) => Some(end.reason) != brings,
            Event::Order(OrderEvent::OrderExpired(_)) => true,
            _ => false,
        })
    }

    /// Every order is answered, and every reservation ends.
    fn inventory(&self, event: &Event, key: i64) -> bool {
        match event {
            Event::Order(OrderEvent::OrderPlaced(_) | OrderEvent::OrderConfirmed(_)) => false,
            Event::Order(OrderEvent::OrderCancelled(_) | OrderEvent::OrderExpired(_)) => {
                self.any("inventory.events", key, |event| event.short() == "StockRejected")
            }
            _ => true,
        }
    }

    /// What was reserved or given up is known to the payment. An order without stock is never paid for.
    fn payment(&self, event: &Event, key: i64) -> bool {
        let concerns = match event {
            Event::Order(OrderEvent::OrderCancelled(event)) => event.reason != CancelReason::OutOfStock,
            Event::Order(event) => matches!(event, OrderEvent::OrderExpired(_)),
            // A payment is asked for by the reservation alone.
            Event::Inventory(InventoryEvent::StockReserved(_)) => {
                let asked = self.any("payment.events", key, |event| event.short() == "PaymentRequested");
                return !asked && self.any("payment.events", key, |event| event.short() == "PaymentCancelled");
            }
            Event::Inventory(_) | Event::Payment(_) | Event::Notification(_) => false,
        };
        !concerns || self.any("payment.events", key, |event| event.short() != "CommandRefused")
    }

    /// Each occasion has its notice, and an order has one end to tell of.
    fn notify(&self, event: &Event, key: i64) -> bool {
        let own = match event {
            Event::Order(OrderEvent::OrderConfirmed(_)) => NoticeKind::OrderConfirmed,
            Event::Order(OrderEvent::OrderCancelled(_)) => NoticeKind::OrderCancelled,
            Event::Order(OrderEvent::OrderExpired(_)) => NoticeKind::OrderExpired,
            Event::Payment(PaymentEvent::PaymentRequested(_) | PaymentEvent::PaymentRefunded(_)) => return false,
            _ => return true,
        };
        let ends = [NoticeKind::OrderConfirmed, NoticeKind::OrderCancelled, NoticeKind::OrderExpired];
        let told = |kinds: &[NoticeKind]| {
            self.any("notification.events", key, |event| match event {
                Event::Notification(NotificationEvent::NotificationScheduled(event)) => kinds.contains(&event.kind),
                Event::Notification(NotificationEvent::NotificationSkipped(event)) => kinds.contains(&event.kind),
                _ => false,
            })
        };
        told(&ends) && !told(&[own])
    }
}
