//! The orders of the honest run, one function per way an order can go.

use events::inventory::{InventoryCommand, InventoryEvent};
use events::notification::NotificationEvent;
use events::order::{OrderCommand, OrderEvent};
use events::payment::{PaymentCommand, PaymentEvent};
use events::time::Timestamp;
use serde_json::{Value, json};

use super::{At, BEGAN, PRICE, PRODUCT, Way, World, commanded, hash, money, read};

impl World {
    pub(super) fn shelf(&mut self) {
        let listed = json!({"product_id": PRODUCT.to_string(), "name": "BANANAS", "price": money(PRICE)});
        let received = json!({"product_id": PRODUCT.to_string(), "quantity": 100});
        let path = format!("/v1/products/{PRODUCT}/receipts");
        for (op, path, fields, command, event) in [
            ("list_product", "/v1/products", listed, "ListProduct", "ProductListed"),
            ("receive_stock", path.as_str(), received, "ReceiveStock", "StockReceived"),
        ] {
            let key_hash = self.asked(op, "otto", path, json!({}), json!({"product_id": PRODUCT.to_string()}));
            let id = self.id("inventory-svc");
            let fields = commanded(fields, id, "otto", &key_hash);
            let (command, event) = match command {
                "ListProduct" => {
                    (InventoryCommand::ListProduct(read(&fields)), InventoryEvent::ProductListed(read(&fields)))
                }
                _ => (
                    InventoryCommand::ReceiveStock(read(&fields)),
                    match event {
                        "StockReceived" => InventoryEvent::StockReceived(read(&fields)),
                        _ => unreachable!(),
                    },
                ),
            };
            let value = command.encode(&self.codec).unwrap();
            let at = self.command("inventory-svc", "inventory.commands", PRODUCT, id, value, command.type_name());
            self.stock_event(&event, &at);
        }
    }

    /// Up to OrderPlaced.
    pub(crate) fn place(&mut self, name: &'static str, quantity: i64) -> (i64, At) {
        let order = self.id("order-svc");
        self.orders.insert(name, order);
        let answer = json!({"order_id": order.to_string(), "status": "ACCEPTED"});
        let key_hash = self.asked("place_order", "ann", "/v1/orders", json!({"order": name}), answer);
        let id = self.id("order-svc");
        let lines = json!([{"product_id": PRODUCT.to_string(), "quantity": quantity}]);
        let fields = json!({"order_id": order.to_string(), "customer_id": "ann", "lines": lines,
            "payment_method": "pm_ok"});
        let command = OrderCommand::PlaceOrder(read(&commanded(fields, id, "ann", &key_hash)));
        let value = command.encode(&self.codec).unwrap();
        let at = self.command("order-svc", "order.commands", order, id, value, command.type_name());
        let mut fields = self.facts(order, quantity);
        fields["version"] = json!(1);
        fields["payment_method"] = json!("pm_ok");
        let placed = OrderEvent::OrderPlaced(read(&commanded(fields, id, "ann", &key_hash)));
        let at = self.order_event(&placed, &at);
        (order, at)
    }

    /// What every event about an order tells; callers add what theirs has more.
    pub(crate) fn facts(&self, order: i64, quantity: i64) -> Value {
        json!({
            "order_id": order.to_string(), "customer_id": "ann", "total": money(quantity * PRICE),
            "lines": [{"product_id": PRODUCT.to_string(), "quantity": quantity, "unit_price": money(PRICE)}],
            "pay_by": Timestamp(BEGAN + 900_000).to_string(), "payment_method": "pm_ok", "version": 2,
            "amount": money(quantity * PRICE), "refund_due": false, "short": [PRODUCT.to_string()],
        })
    }

    /// Stock set aside, payment asked for, reminder scheduled.
    pub(crate) fn reserve(&mut self, order: i64, placed: &At) -> (At, At) {
        let facts = self.facts(order, 1);
        let reserved = self.stock_event(&InventoryEvent::StockReserved(read(&facts)), placed);
        let requested = self.payment_event(&PaymentEvent::PaymentRequested(read(&facts)), &reserved, "");
        let key = format!("charge:{order}");
        let call = json!({"at": "x", "method": "POST", "path": "/v1/charges", "key": key});
        self.folder.calls.as_mut().unwrap().push(call);
        self.skip(order, "PAYMENT_REMINDER", &requested);
        (reserved, requested)
    }

    fn skip(&mut self, order: i64, kind: &str, cause: &At) {
        let fields = json!({"order_id": order.to_string(), "customer_id": "ann", "kind": kind, "reason": "TOO_OLD"});
        self.notice(&NotificationEvent::NotificationSkipped(read(&fields)), cause, "");
        let row = json!({"order_id": order, "kind": kind, "skip_reason": "TOO_OLD"});
        self.row("notify-svc", "projection.notices", row);
    }

    fn tell(&mut self, order: i64, kind: &str, cause: &At) {
        let due = Timestamp(self.time()).to_string();
        let message_id = format!("{order}.{kind}.EMAIL@orderlog");
        let fields = json!({"order_id": order.to_string(), "customer_id": "ann", "kind": kind, "channels": ["EMAIL"],
            "due_at": due, "channel": "EMAIL", "message_id": message_id});
        let at = self.notice(&NotificationEvent::NotificationScheduled(read(&fields)), cause, "");
        self.notice(&NotificationEvent::NotificationSent(read(&fields)), &at, "effect");
        self.folder.messages.push(json!({"message_id": message_id, "channel": "EMAIL"}));
        let row = json!({"order_id": order, "kind": kind, "skip_reason": null, "email": "SENT", "sms": null});
        self.row("notify-svc", "projection.notices", row);
    }

    pub(super) fn confirmed(&mut self, name: &'static str, way: Way) {
        let (order, placed) = self.place(name, 1);
        let (_, requested) = self.reserve(order, &placed);
        let facts = self.facts(order, 1);
        let captured = self.payment_event(&PaymentEvent::PaymentCaptured(read(&facts)), &requested, "effect");
        self.charge(order, "captured", 0);
        if way != Way::AtOnce {
            self.letter("order-svc", "RecordHeld", "failed", &captured, false);
            self.letter("order-svc", "AttemptFailed", "failed", &captured, false);
        }
        if way == Way::Redriven {
            self.letter("order-svc", "RecordDied", "failed", &captured, false);
        }
        let confirmed = self.order_event(&OrderEvent::OrderConfirmed(read(&facts)), &captured);
        if way == Way::Redriven {
            self.entry("order.events", &confirmed).headers.put("operator-sub", "otto");
        }
        self.stock_event(&InventoryEvent::StockSold(read(&facts)), &confirmed);
        self.tell(order, "ORDER_CONFIRMED", &confirmed);
        self.sold += 1;
        self.end(order, &confirmed, ("CONFIRMED", None), "SOLD", ("CAPTURED", Some(PRICE)));
    }

    pub(super) fn refund(&mut self, name: &'static str) {
        let order = self.orders[name];
        let path = format!("/v1/payments/{order}/refunds");
        let key_hash = self.asked("refund", "otto", &path, json!({}), json!({"order_id": order.to_string()}));
        let id = self.id("payment-svc");
        let fields = json!({"order_id": order.to_string(), "customer_id": "ann", "amount": money(PRICE),
            "reason": "OTHER"});
        let fields = commanded(fields, id, "otto", &key_hash);
        let command = PaymentCommand::RefundPayment(read(&fields));
        let value = command.encode(&self.codec).unwrap();
        let at = self.command("payment-svc", "payment.commands", order, id, value, command.type_name());
        let wanted = self.payment_event(&PaymentEvent::RefundRequested(read(&fields)), &at, "");
        let facts = self.facts(order, 1);
        let refunded = self.payment_event(&PaymentEvent::PaymentRefunded(read(&facts)), &wanted, "effect");
        self.tell(order, "PAYMENT_REFUNDED", &refunded);
        let charge = self.folder.charges.iter_mut().find(|charge| charge["key"] == format!("charge:{order}")).unwrap();
        charge["refunded"] = json!(PRICE);
        let rows = self.rows("payment-svc", "projection.payments");
        rows.iter_mut().find(|row| row["order_id"] == order).unwrap()["status"] = json!("REFUNDED");
    }

    pub(super) fn declined(&mut self, name: &'static str) {
        let (order, placed) = self.place(name, 1);
        let (_, requested) = self.reserve(order, &placed);
        let facts = self.facts(order, 1);
        let mut fields = facts.clone();
        fields["amount"] = Value::Null;
        let declined = self.payment_event(&PaymentEvent::PaymentDeclined(read(&fields)), &requested, "effect");
        self.charge(order, "declined", 0);
        self.give_up(order, &declined, "PAYMENT_DECLINED", &facts, "DECLINED");
    }

    fn give_up(&mut self, order: i64, cause: &At, reason: &str, facts: &Value, payment: &'static str) -> At {
        let mut fields = facts.clone();
        fields["reason"] = json!(reason);
        let cancelled = self.order_event(&OrderEvent::OrderCancelled(read(&fields)), cause);
        self.stock_event(&InventoryEvent::StockReleased(read(facts)), &cancelled);
        self.tell(order, "ORDER_CANCELLED", &cancelled);
        let reason = match reason {
            "CUSTOMER" => "CUSTOMER",
            _ => "PAYMENT_DECLINED",
        };
        self.end(order, &cancelled, ("CANCELLED", Some(reason)), "RELEASED", (payment, None));
        cancelled
    }

    pub(super) fn cancelled(&mut self, name: &'static str) {
        let (order, placed) = self.place(name, 1);
        self.reserve(order, &placed);
        let at = self.cancel(order);
        let mut facts = self.facts(order, 1);
        let operation = self.folder.history.last().unwrap();
        let key_hash = hash(&format!("POST\n{}\n{}", operation.path, operation.key.as_ref().unwrap()));
        facts = commanded(facts, at.id, "ann", &key_hash);
        let cancelled = self.give_up(order, &at, "CUSTOMER", &facts, "CANCELLED");
        let mut facts = self.facts(order, 1);
        facts["reason"] = json!("ORDER_CANCELLED");
        let wanted = self.payment_event(&PaymentEvent::PaymentCancelRequested(read(&facts)), &cancelled, "");
        self.payment_event(&PaymentEvent::PaymentCancelled(read(&facts)), &wanted, "effect");
        self.charge(order, "cancelled", 0);
        // Once more, and too late.
        let at = self.cancel(order);
        let operation = self.folder.history.last().unwrap();
        let key_hash = hash(&format!("POST\n{}\n{}", operation.path, operation.key.as_ref().unwrap()));
        let fields =
            json!({"order_id": order.to_string(), "command_type": "CancelOrder", "reason": "ORDER_NOT_PLACED"});
        let refused = OrderEvent::CommandRefused(read(&commanded(fields, at.id, "ann", &key_hash)));
        self.order_event(&refused, &at);
    }

    fn cancel(&mut self, order: i64) -> At {
        let path = format!("/v1/orders/{order}/cancel");
        let answer = json!({"order_id": order.to_string(), "status": "ACCEPTED"});
        let key_hash = self.asked("cancel", "ann", &path, json!({}), answer);
        let id = self.id("order-svc");
        let fields = json!({"order_id": order.to_string(), "reason": "OTHER"});
        let command = OrderCommand::CancelOrder(read(&commanded(fields, id, "ann", &key_hash)));
        let value = command.encode(&self.codec).unwrap();
        self.command("order-svc", "order.commands", order, id, value, command.type_name())
    }

    pub(super) fn out_of_stock(&mut self, name: &'static str) {
        let (order, placed) = self.place(name, 1_000);
        let mut facts = self.facts(order, 1_000);
        let rejected = self.stock_event(&InventoryEvent::StockRejected(read(&facts)), &placed);
        facts["reason"] = json!("OUT_OF_STOCK");
        let cancelled = self.order_event(&OrderEvent::OrderCancelled(read(&facts)), &rejected);
        self.tell(order, "ORDER_CANCELLED", &cancelled);
        self.end(order, &cancelled, ("CANCELLED", Some("OUT_OF_STOCK")), "REJECTED", ("", None));
    }

    fn charge(&mut self, order: i64, status: &str, refunded: i64) {
        let key = format!("charge:{order}");
        self.folder.charges.push(json!({"key": key, "status": status, "amount": PRICE, "refunded": refunded}));
    }

    /// The rows of an order.
    pub(crate) fn end(
        &mut self,
        order: i64,
        last: &At,
        (status, reason): (&str, Option<&str>),
        reservation: &str,
        (payment, taken): (&str, Option<i64>),
    ) {
        let total = if reservation == "REJECTED" { PRICE * 1_000 } else { PRICE };
        let version = if status == "PLACED" { 1 } else { 2 };
        let row = json!({"order_id": order, "status": status, "reason": reason, "version": version,
            "last_sequence": last.sequence, "total_amount": total});
        self.row("order-svc", "projection.orders", row);
        self.row("inventory-svc", "projection.reservations", json!({"order_id": order, "status": reservation}));
        if !payment.is_empty() {
            let row = json!({"order_id": order, "status": payment, "taken_amount": taken, "total_amount": total,
                "call_kind": null});
            self.row("payment-svc", "projection.payments", row);
        }
    }
}
