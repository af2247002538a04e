//! I7: every order's story is one that DESIGN §4 tells.

use super::log::Log;
use super::model::Model;
use super::witness::Findings;

/// The model has found what cannot be; here it is said.
pub(super) fn legal(log: &Log<'_>, model: &Model<'_>) -> Findings {
    let mut findings = Findings::new("I7", "each order's events follow each other as they may, versions 1..n");
    findings.count("orders", model.orders.len());
    for (key, order) in &model.orders {
        findings.count("events", order.facts.len());
        if let Some(first) = order.illegal.first() {
            findings.violated(format!("order {key}: {first}"), || log.about(*key));
        }
    }
    findings
}
