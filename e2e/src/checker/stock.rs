//! I3: nothing is sold that is not there.
//!
//! The sums of the whole log are those of inventory-svc's table, and at the end 0 ≤ reserved ≤ on hand. Partitions meet on
//! products in an order that the log does not hold, so that the states in between are known only where an audit kept the
//! versions of the rows; without one they are not decided.

use serde_json::json;

use super::log::{Log, number, shown, text};
use super::model::Model;
use super::witness::{Findings, Witness};
use crate::evidence::Row;

const SERVICE: &str = "inventory-svc";
const TABLE: &str = "projection.products";

pub(super) fn sums(log: &Log<'_>, model: &Model<'_>) -> Findings {
    let mut findings = Findings::new("I3", "stock adds up, is as in Postgres, and 0 ≤ reserved ≤ on hand");
    let rows = log.folder.table(SERVICE, TABLE);
    findings.count("products", model.products.len());
    for (id, product) in &model.products {
        let sums = json!({"product": id, "the log adds up to": format!("{product:?}"), "on_hand": product.on_hand()});
        let row = rows.iter().find(|row| number(row, "product_id") == Some(*id));
        let witness = || {
            let row = row.map(|row| shown(SERVICE, TABLE, row));
            Witness { log: events(log, *id), ..Witness::default() }.with_rows(row).with_outside([sums.clone()])
        };
        if product.reserved < 0 || product.on_hand() < product.reserved || product.sold < 0 {
            let (on_hand, reserved) = (product.on_hand(), product.reserved);
            findings.violated(format!("product {id}: {on_hand} on hand, {reserved} reserved"), witness);
            continue;
        }
        let expected = [
            ("on_hand", product.on_hand()),
            ("reserved", product.reserved),
            ("sold", product.sold),
            ("received", product.received),
            ("adjusted", product.adjusted),
        ];
        let differs = expected.into_iter().find(|(column, sum)| row.and_then(|row| number(row, column)) != Some(*sum));
        if let Some((column, sum)) = differs {
            let has = row.and_then(|row| number(row, column));
            findings.violated(format!("product {id}: {column} is {sum} by the log, {has:?} in Postgres"), witness);
        }
    }
    for row in rows.iter().filter(|row| !number(row, "product_id").is_some_and(|id| model.products.contains_key(&id))) {
        findings.violated("a product that no event names".to_owned(), || {
            Witness::default().with_rows([shown(SERVICE, TABLE, row)])
        });
    }
    audited(log, &mut findings);
    findings
}

/// Every version that a product's row ever had.
fn audited(log: &Log<'_>, findings: &mut Findings) {
    let versions = log.folder.table(SERVICE, "audit.products");
    if versions.is_empty() {
        findings.undecided("no audit of the products' rows: states before the last one are not seen");
        return;
    }
    findings.count("versions of rows", versions.len());
    let bad = |row: &&Row| {
        let of = |column| number(row, column).unwrap_or(-1);
        text(row, "op") != Some("DELETE") && (of("reserved") < 0 || of("on_hand") < of("reserved") || of("sold") < 0)
    };
    for row in versions.iter().filter(bad) {
        let product = number(row, "product_id").unwrap_or_default();
        findings.violated(format!("product {product}: a live version was short"), || {
            Witness::default().with_rows([shown(SERVICE, "audit.products", row)])
        });
    }
}

/// The events that move a product's stock.
fn events(log: &Log<'_>, product: i64) -> Vec<serde_json::Value> {
    let facts = log.facts.iter().filter(|fact| fact.topic == "inventory.events");
    let shown = facts.map(|fact| log.show(fact.topic, fact.entry));
    shown.filter(|shown| names(&shown["fields"], &product.to_string())).collect()
}

fn names(fields: &serde_json::Value, product: &str) -> bool {
    let lines = fields["lines"].as_array().into_iter().flatten();
    fields["product_id"] == product || lines.into_iter().any(|line| line["product_id"] == product)
}
