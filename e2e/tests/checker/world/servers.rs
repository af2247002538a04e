//! What is not an order's: strangers, repeats, and the tables as the run leaves them.

use e2e::evidence::{Entry, Folder, Injected};
use events::envelope::Headers;
use events::schema::SCHEMAS;
use serde_json::json;

use super::{At, BEGAN, INPUTS, PARTITIONS, PREFIX, PRODUCT, SERVICES, World};

impl World {
    /// A stranger on an events topic and one on a commands topic, dead at their readers.
    pub(super) fn strange(&mut self) {
        for (topic, class, readers) in [
            ("order.events", "strange", &["inventory-svc", "payment-svc", "notify-svc"][..]),
            ("order.commands", "poison", &["order-svc"]),
        ] {
            let value = b"no bytes of ours".to_vec();
            let offset = self.append(topic, 0, "x", Some(value.clone()), Headers::from_iter([("y", "z")]));
            let at = At { topic: topic.to_owned(), partition: 0, offset, sequence: None, id: 0 };
            for reader in readers {
                self.letter(reader, "RecordDied", class, &at, false);
                let row = json!({"topic": format!("{PREFIX}{topic}"), "partition": 0, "source_offset": offset,
                    "key": null, "dead": true, "class": class});
                self.row(reader, "projection.held", row);
            }
            let (topic, class) = (topic.to_owned(), class.to_owned());
            self.folder.injected.push(Injected { topic, partition: 0, offset, class, value: Some(value) });
        }
    }

    /// Some records once more.
    pub(super) fn repeat(&mut self) {
        let (order, product) = (self.orders["short"], PRODUCT);
        for (topic, short, key) in [
            ("order.events", "OrderPlaced", order),
            ("order.commands", "PlaceOrder", order),
            ("inventory.events", "ProductListed", product),
        ] {
            let entry = self.last(topic, short, key).clone();
            let key = entry.key_text().to_owned();
            self.append(topic, entry.partition, &key, entry.value, entry.headers);
        }
    }

    /// Tables that no order writes.
    pub(super) fn servers(&mut self) {
        for (def, id) in SCHEMAS.iter().zip(1..) {
            let row = json!({"subject": def.subject(), "version": def.version, "id": id});
            self.row("order-svc", "engine.schema_ids", row);
        }
        let sold = self.sold;
        let row = json!({"product_id": PRODUCT, "on_hand": 100 - sold, "reserved": 0, "sold": sold, "received": 100,
            "adjusted": 0});
        self.row("inventory-svc", "projection.products", row);
        let row = json!({"id": 1, "op": "UPDATE", "product_id": PRODUCT, "on_hand": 100, "reserved": 1, "sold": 0});
        self.row("inventory-svc", "audit.products", row);
        for (service, number, _) in SERVICES {
            let row = json!({"service": number, "instance": 0, "mark_ms": BEGAN + 3_600_000});
            self.row(service, "engine.leases", row);
            // A table without rows is there all the same.
            self.rows(service, "projection.held");
        }
        for (id, op, epoch, batch, tx) in
            [(1, "INSERT", 5, 0, 10), (2, "UPDATE", 5, 1, 11), (3, "UPDATE", 9, 1, 12), (4, "UPDATE", 9, 2, 13)]
        {
            let row = json!({"id": id, "op": op, "partition": 0, "epoch": epoch, "batch": batch, "tx": tx});
            self.row("order-svc", "audit.processors", row);
        }
        for (id, op, old, new, tx) in [(1, "INSERT", None, 2, 11), (2, "UPDATE", Some(2), 5, 13)] {
            let row = json!({"id": id, "op": op, "partition": 0, "topic": "t.payment.events", "old_offset": old,
                "old_sequence": old, "next_offset": new, "last_sequence": new, "tx": tx});
            self.row("order-svc", "audit.positions", row);
        }
    }

    /// Positions and outputs as the topics are now.
    pub(crate) fn settle(&mut self) {
        let ends = |folder: &Folder, topic: &str, partition: i32| {
            let of = folder.topic(topic).iter().filter(|entry| entry.partition == partition);
            let highest = of.clone().filter_map(Entry::sequence).max().unwrap_or(0);
            (of.clone().map(|entry| entry.offset + 1).max().unwrap_or(0), highest)
        };
        for (service, inputs) in INPUTS {
            self.rows(service, "engine.positions").clear();
            self.rows(service, "engine.outputs").clear();
            let events = SERVICES.iter().find(|(name, _, _)| *name == service).unwrap().2;
            let own = [events.to_owned(), format!("{service}.retry"), format!("{service}.dlq")];
            for partition in 0..PARTITIONS {
                for topic in inputs {
                    let (end, highest) = ends(&self.folder, topic, partition);
                    let last = if topic.ends_with(".commands") { 0 } else { highest };
                    let row = json!({"partition": partition, "topic": format!("{PREFIX}{topic}"), "next_offset": end,
                        "last_sequence": last});
                    self.row(service, "engine.positions", row);
                }
                for topic in &own {
                    let (_, highest) = ends(&self.folder, topic, partition);
                    let at = self
                        .folder
                        .topic(topic)
                        .iter()
                        .find(|entry| entry.partition == partition && entry.sequence() == Some(highest));
                    let offset = at.map_or(-1, |entry| entry.offset);
                    let row = json!({"partition": partition, "topic": format!("{PREFIX}{topic}"), "sequence": highest,
                        "acked_sequence": highest, "acked_offset": offset});
                    self.row(service, "engine.outputs", row);
                }
            }
        }
    }
}
