//! A small model of the shop: what the log makes of each order and each product, and what in it cannot be.
//!
//! Written from DESIGN §4, not from the services: plain words for states, one pass, nothing is left out that looks wrong. It
//! only folds; whether a run was right is the checks'.

use std::collections::BTreeMap;

use events::code::{Channel, NoticeKind};
use events::inventory::InventoryEvent;
use events::notification::NotificationEvent;
use events::order::{OrderEvent, OrderPlaced, PricedLine};
use events::payment::PaymentEvent;
use events::time::Timestamp;

use super::log::{Event, Fact, Log};

/// A notice of one kind.
#[derive(Debug, Clone, Default)]
pub(super) struct Notice {
    pub(super) skipped: bool,
    pub(super) due_at: Option<Timestamp>,
    /// `PENDING`, `SENT`, `FAILED`
    pub(super) channels: BTreeMap<Channel, &'static str>,
}

/// An order, as the log has it.
#[derive(Debug, Default)]
pub(super) struct Order<'l> {
    pub(super) facts: Vec<&'l Fact<'l>>,
    pub(super) placed: Option<&'l OrderPlaced>,
    /// Empty before its first event; then as the API names it.
    pub(super) status: &'static str,
    pub(super) reason: Option<&'static str>,
    pub(super) version: i64,
    pub(super) last_sequence: i64,
    /// Empty, `RESERVED`, `REJECTED`, `RELEASED`, `SOLD`
    pub(super) reservation: &'static str,
    /// Empty, or as the table names it.
    pub(super) payment: &'static str,
    pub(super) taken: Option<i64>,
    pub(super) requested: bool,
    pub(super) refund_wanted: bool,
    pub(super) notices: BTreeMap<NoticeKind, Notice>,
    /// What cannot be in a legal history.
    pub(super) illegal: Vec<String>,
}

/// A product's sums.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Product {
    pub(super) received: i64,
    pub(super) adjusted: i64,
    pub(super) reserved: i64,
    pub(super) sold: i64,
}

impl Product {
    pub(super) fn on_hand(self) -> i64 {
        self.received + self.adjusted - self.sold
    }
}

/// Everything that the log adds up to.
#[derive(Debug, Default)]
pub(super) struct Model<'l> {
    pub(super) orders: BTreeMap<i64, Order<'l>>,
    pub(super) products: BTreeMap<i64, Product>,
}

impl<'l> Model<'l> {
    pub(super) fn of(log: &'l Log<'_>) -> Self {
        let mut model = Self::default();
        // An order is spoken of by its own service first: what follows is judged by how it ended.
        for topic in ["order.events", "inventory.events", "payment.events", "notification.events"] {
            for fact in log.facts.iter().filter(|fact| fact.topic == topic) {
                model.fold(fact);
            }
        }
        for order in model.orders.values_mut() {
            order.judge();
        }
        model
    }

    fn fold(&mut self, fact: &'l Fact<'_>) {
        let (key, is_product) = fact.event.key();
        if let Event::Inventory(event) = &fact.event {
            self.stock(event);
        }
        if is_product {
            return;
        }
        let order = self.orders.entry(key).or_default();
        order.facts.push(fact);
        match &fact.event {
            Event::Order(event) => order.order(event, fact),
            Event::Inventory(event) => order.inventory(event),
            Event::Payment(event) => order.payment(event, fact),
            Event::Notification(event) => order.notice(event),
        }
    }

    fn stock(&mut self, event: &InventoryEvent) {
        let mut add = |lines: &[PricedLine], change: fn(&mut Product, i64)| {
            for line in lines {
                change(self.products.entry(line.product_id.0).or_default(), line.quantity);
            }
        };
        match event {
            InventoryEvent::StockReserved(event) => add(&event.lines, |product, pieces| product.reserved += pieces),
            InventoryEvent::StockReleased(event) => add(&event.lines, |product, pieces| product.reserved -= pieces),
            InventoryEvent::StockSold(event) => add(&event.lines, |product, pieces| {
                product.reserved -= pieces;
                product.sold += pieces;
            }),
            InventoryEvent::StockReceived(event) => {
                self.products.entry(event.product_id.0).or_default().received += event.quantity;
            }
            InventoryEvent::StockAdjusted(event) => {
                self.products.entry(event.product_id.0).or_default().adjusted += event.delta;
            }
            InventoryEvent::ProductListed(event) => drop(self.products.entry(event.product_id.0).or_default()),
            InventoryEvent::ProductRepriced(_)
            | InventoryEvent::ProductDelisted(_)
            | InventoryEvent::StockRejected(_)
            | InventoryEvent::CommandRefused(_) => {}
        }
    }
}

impl<'l> Order<'l> {
    fn wrong(&mut self, what: impl Into<String>) {
        self.illegal.push(what.into());
    }

    fn order(&mut self, event: &'l OrderEvent, fact: &Fact<'_>) {
        let (status, reason, version, told) = match event {
            OrderEvent::CommandRefused(_) => return,
            OrderEvent::OrderPlaced(event) => {
                let total: i64 = event.lines.iter().map(|line| line.quantity * line.unit_price.amount).sum();
                if total != event.total.amount {
                    self.wrong(format!("its lines cost {total}, its total is {}", event.total.amount));
                }
                self.placed = self.placed.or(Some(event));
                ("PLACED", None, event.version, None)
            }
            OrderEvent::OrderRejected(event) => ("REJECTED", Some(event.reason.as_str()), event.version, None),
            OrderEvent::OrderConfirmed(event) => {
                ("CONFIRMED", None, event.version, Some((&event.lines, event.total, &event.customer_id)))
            }
            OrderEvent::OrderCancelled(event) => {
                let told = Some((&event.lines, event.total, &event.customer_id));
                ("CANCELLED", Some(event.reason.as_str()), event.version, told)
            }
            OrderEvent::OrderExpired(event) => {
                if fact.at.is_some_and(|at| at < event.pay_by) {
                    self.wrong("it expired before pay_by");
                }
                ("EXPIRED", None, event.version, Some((&event.lines, event.total, &event.customer_id)))
            }
        };
        let first = matches!(status, "PLACED" | "REJECTED");
        if first != self.status.is_empty() || (!first && self.status != "PLACED") {
            let before = if self.status.is_empty() { "nothing" } else { self.status };
            self.wrong(format!("{} follows {before}", fact.event.short()));
        }
        if version != self.version + 1 {
            self.wrong(format!("{} has version {version} after {}", fact.event.short(), self.version));
        }
        if let (Some((lines, total, customer)), Some(placed)) = (told, self.placed)
            && (*lines != placed.lines || total != placed.total || *customer != placed.customer_id)
        {
            self.wrong(format!("{} tells of other lines, another total or customer", fact.event.short()));
        }
        (self.status, self.reason, self.version, self.last_sequence) = (status, reason, version, fact.sequence);
    }

    fn inventory(&mut self, event: &InventoryEvent) {
        let (next, after, lines) = match event {
            InventoryEvent::StockReserved(event) => ("RESERVED", "", &event.lines),
            InventoryEvent::StockRejected(event) => ("REJECTED", "", &event.lines),
            InventoryEvent::StockReleased(event) => ("RELEASED", "RESERVED", &event.lines),
            InventoryEvent::StockSold(event) => ("SOLD", "RESERVED", &event.lines),
            _ => return,
        };
        if self.reservation != after {
            self.wrong(format!("its stock is {next} after `{}`", self.reservation));
        }
        if self.placed.is_none_or(|placed| placed.lines != *lines) {
            self.wrong(format!("its stock is {next} with other lines than it was placed with"));
        }
        self.reservation = next;
    }

    fn payment(&mut self, event: &PaymentEvent, fact: &Fact<'_>) {
        let before = self.payment;
        let next = match event {
            PaymentEvent::CommandRefused(_) => return,
            PaymentEvent::PaymentRequested(event) => {
                self.requested = true;
                if self.placed.is_some_and(|placed| placed.total != event.total) {
                    self.wrong("another amount than its total is asked for");
                }
                if fact.at.is_some_and(|at| at >= event.pay_by) {
                    self.wrong("its payment is asked for after pay_by");
                }
                (before.is_empty()).then_some("REQUESTED")
            }
            PaymentEvent::PaymentCaptured(event) => {
                self.taken = Some(event.amount.amount);
                match (before, event.refund_due) {
                    ("REQUESTED", false) => Some("CAPTURED"),
                    ("CANCEL_REQUESTED" | "CANCELLED" | "DECLINED" | "FAILED", true) => Some("REFUNDING"),
                    _ => None,
                }
            }
            PaymentEvent::PaymentDeclined(event) => {
                self.taken = event.amount.map(|amount| amount.amount).or(self.taken);
                let next = if event.amount.is_some() { "REFUNDING" } else { "DECLINED" };
                (before == "REQUESTED" && event.refund_due == event.amount.is_some()).then_some(next)
            }
            PaymentEvent::PaymentFailed(_) => (before == "REQUESTED").then_some("FAILED"),
            PaymentEvent::PaymentCancelRequested(_) => (before == "REQUESTED").then_some("CANCEL_REQUESTED"),
            PaymentEvent::PaymentCancelled(_) => {
                matches!(before, "" | "REQUESTED" | "CANCEL_REQUESTED").then_some("CANCELLED")
            }
            PaymentEvent::RefundRequested(event) => {
                self.refund_wanted |= event.command_id.is_some();
                matches!(before, "CAPTURED" | "REFUND_FAILED").then_some("REFUNDING")
            }
            PaymentEvent::PaymentRefunded(event) => {
                if self.taken != Some(event.amount.amount) {
                    self.wrong(format!("{} is given back of {:?} taken", event.amount.amount, self.taken));
                }
                matches!(before, "REFUNDING" | "REFUND_FAILED").then_some("REFUNDED")
            }
            PaymentEvent::RefundFailed(_) => (before == "REFUNDING").then_some("REFUND_FAILED"),
        };
        match next {
            Some(next) => self.payment = next,
            None => self.wrong(format!("{} follows payment state `{before}`", fact.event.short())),
        }
    }

    fn notice(&mut self, event: &NotificationEvent) {
        match event {
            NotificationEvent::NotificationScheduled(event) => {
                let channels = event.channels.iter().map(|channel| (*channel, "PENDING")).collect();
                let notice = Notice { skipped: false, due_at: Some(event.due_at), channels };
                if self.notices.insert(event.kind, notice).is_some() {
                    self.wrong(format!("{} is scheduled twice", event.kind));
                }
            }
            NotificationEvent::NotificationSkipped(event) => {
                let notice = self.notices.entry(event.kind).or_default();
                if notice.skipped || notice.channels.values().any(|state| *state == "SENT") {
                    self.wrong(format!("{} is skipped after it was skipped or sent", event.kind));
                }
                self.notices.entry(event.kind).or_default().skipped = true;
            }
            NotificationEvent::NotificationSent(event) => self.delivered(event.kind, event.channel, "SENT"),
            NotificationEvent::NotificationFailed(event) => self.delivered(event.kind, event.channel, "FAILED"),
        }
    }

    fn delivered(&mut self, kind: NoticeKind, channel: Channel, next: &'static str) {
        let found = self.notices.get_mut(&kind).and_then(|notice| notice.channels.get_mut(&channel));
        match found {
            Some(state) if *state == "PENDING" => *state = next,
            _ => self.wrong(format!("{kind} is {next} by {channel}, where it was not pending")),
        }
    }

    /// What only shows when all topics are read.
    fn judge(&mut self) {
        let has = |short: &str| self.facts.iter().any(|fact| fact.event.short() == short);
        let paid = self.facts.iter().any(|fact| match (&fact.event, self.placed) {
            (Event::Payment(PaymentEvent::PaymentCaptured(event)), Some(placed)) => {
                !event.refund_due && event.amount == placed.total
            }
            _ => false,
        });
        // A command about an order that never was is refused.
        let spoken_of = self.facts.iter().any(|fact| fact.event.short() != "CommandRefused");
        let missing = match (self.status, self.reason) {
            ("", _) if spoken_of => Some("others speak of it, but it was never placed or rejected"),
            ("CONFIRMED", _) if !paid => Some("it is confirmed, but its total was not captured"),
            ("CANCELLED", Some("OUT_OF_STOCK")) if !has("StockRejected") => Some("no stock was refused to it"),
            ("CANCELLED", Some("PAYMENT_DECLINED")) if !has("PaymentDeclined") => Some("its payment was not declined"),
            ("CANCELLED", Some("PAYMENT_FAILED")) if !has("PaymentFailed") => Some("its payment did not fail"),
            _ => None,
        };
        let sold = self.reservation == "SOLD" && self.status != "CONFIRMED";
        let released = self.reservation == "RELEASED" && !matches!(self.status, "CANCELLED" | "EXPIRED");
        let unreserved = self.requested && !has("StockReserved");
        let settled = [NoticeKind::OrderConfirmed, NoticeKind::OrderCancelled, NoticeKind::OrderExpired];
        let told = settled.into_iter().filter(|kind| self.notices.contains_key(kind));
        let lie = told.map(NoticeKind::as_str).find(|kind| kind.strip_prefix("ORDER_") != Some(self.status));
        let lie = lie.map(|kind| format!("its customer is told {kind}"));
        self.illegal.extend(missing.map(str::to_owned));
        self.illegal.extend(sold.then(|| format!("its stock is sold, but it is {}", self.status)));
        self.illegal.extend(released.then(|| format!("its stock is released, but it is {}", self.status)));
        self.illegal.extend(unreserved.then(|| "its payment is asked for without stock".to_owned()));
        self.illegal.extend(lie);
    }

    /// `CONFIRMED` and the like.
    pub(super) fn is_final(&self) -> bool {
        matches!(self.status, "CONFIRMED" | "CANCELLED" | "EXPIRED" | "REJECTED")
    }
}
