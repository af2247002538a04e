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

    /// Only what could end the order, and only when it has ended.
    fn order(&self, event: &Event, key: i64) -> bool {
        let ends = match event {
            Event::Inventory(event) => matches!(event, InventoryEvent::StockRejected(_)),
            Event::Payment(PaymentEvent::PaymentCaptured(event)) => !event.refund_due,
            Event::Payment(event) => {
                matches!(event, PaymentEvent::PaymentDeclined(_) | PaymentEvent::PaymentFailed(_))
            }
            Event::Order(_) | Event::Notification(_) => false,
        };
        !ends || self.any("order.events", key, |event| is_end(event))
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
            Event::Inventory(event) => matches!(event, InventoryEvent::StockReserved(_)),
            Event::Payment(_) | Event::Notification(_) => false,
        };
        !concerns || self.any("payment.events", key, |event| event.short() != "CommandRefused")
    }

    /// Each occasion has its notice, and an order has one end to tell of.
    fn notify(&self, event: &Event, key: i64) -> bool {
        let kinds: &[NoticeKind] = match event {
            Event::Order(
                OrderEvent::OrderConfirmed(_) | OrderEvent::OrderCancelled(_) | OrderEvent::OrderExpired(_),
            ) => &[NoticeKind::OrderConfirmed, NoticeKind::OrderCancelled, NoticeKind::OrderExpired],
            Event::Payment(PaymentEvent::PaymentRequested(_)) => &[NoticeKind::PaymentReminder],
            Event::Payment(PaymentEvent::PaymentRefunded(_)) => &[NoticeKind::PaymentRefunded],
            _ => return true,
        };
        self.any("notification.events", key, |event| match event {
            Event::Notification(NotificationEvent::NotificationScheduled(event)) => kinds.contains(&event.kind),
            Event::Notification(NotificationEvent::NotificationSkipped(event)) => kinds.contains(&event.kind),
            _ => false,
        })
    }
}

fn is_end(event: &Event) -> bool {
    matches!(event.short(), "OrderConfirmed" | "OrderCancelled" | "OrderExpired" | "OrderRejected")
}
