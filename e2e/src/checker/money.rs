//! I4: nobody pays twice, and nobody pays for nothing.
//!
//! The gateway's ledger and the calls it kept are outside the system; the log says what is due.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::log::Log;
use super::model::{Model, Order};
use super::witness::{Findings, Witness};

pub(super) fn ledger(log: &Log<'_>, model: &Model<'_>) -> Findings {
    let mut findings = Findings::new("I4", "one charge and one refund at most per order; the ledger nets what is due");
    twice_in_the_log(log, model, &mut findings);
    if log.folder.run.charges_outside == Some(false) {
        findings.undecided("payment-svc answered for the gateway itself: no ledger knows its charges");
        return findings;
    }
    let mut charges: BTreeMap<i64, Vec<&Value>> = BTreeMap::new();
    findings.count("charges", log.folder.charges.len());
    for charge in &log.folder.charges {
        match of(charge["key"].as_str(), "charge") {
            Some(order) => charges.entry(order).or_default().push(charge),
            None => findings.violated(format!("a charge under the key {}", charge["key"]), || {
                Witness::of_outside([charge.clone()])
            }),
        }
    }
    for (id, charges) in &charges {
        let order = model.orders.get(id);
        if let [charge] = charges[..] {
            judge(log, *id, order, charge, &mut findings);
        } else {
            findings.violated(format!("order {id}: {} charges", charges.len()), || log.about(*id));
        }
    }
    for (id, order) in &model.orders {
        if due(order) != 0 && !charges.contains_key(id) {
            findings.violated(format!("order {id}: {} is due, but was never charged", due(order)), || log.about(*id));
        }
    }
    calls(log, model, &mut findings);
    findings
}

/// What the ledger must net for an order.
fn due(order: &Order<'_>) -> i64 {
    match (order.status, order.payment, order.placed) {
        // A refund that the gateway refuses is a person's business.
        ("CONFIRMED", "CAPTURED" | "REFUND_FAILED", Some(placed)) => placed.total.amount,
        _ => 0,
    }
}

fn judge(log: &Log<'_>, id: i64, order: Option<&Order<'_>>, charge: &Value, findings: &mut Findings) {
    let Some(order) = order.filter(|order| order.requested) else {
        findings.violated(format!("order {id}: charged, but the log does not ask for it"), || log.about(id));
        return;
    };
    let number = |field: &str| charge[field].as_i64().unwrap_or(0);
    let captured = if charge["status"] == "captured" { number("amount") } else { 0 };
    let net = captured - number("refunded");
    // While a refund is under way or refused the ledger is ahead of the log or behind it; I6 sees that it ends.
    let open = matches!(order.payment, "REFUNDING" | "REFUND_FAILED" | "REQUESTED" | "CANCEL_REQUESTED");
    if net != due(order) && !open {
        let (status, due) = (order.status, due(order));
        findings.violated(format!("order {id} is {status}: its charge nets {net}, {due} is due"), || log.about(id));
    } else if order.taken.is_some_and(|taken| captured != 0 && taken != captured) {
        let what = format!("order {id}: {captured} was taken, the log says {:?}", order.taken);
        findings.violated(what, || log.about(id));
    }
}

/// Two captures or two refunds of one order.
fn twice_in_the_log(log: &Log<'_>, model: &Model<'_>, findings: &mut Findings) {
    findings.count("orders", model.orders.len());
    for (id, order) in &model.orders {
        for short in ["PaymentCaptured", "PaymentRefunded", "PaymentRequested"] {
            let times = order.facts.iter().filter(|fact| fact.event.short() == short).count();
            if times > 1 {
                findings.violated(format!("order {id}: {times} times {short}"), || log.about(*id));
            }
        }
    }
}

/// Every call that moves money carries the derived key of an order whose events ask for it.
fn calls(log: &Log<'_>, model: &Model<'_>, findings: &mut Findings) {
    let Some(calls) = &log.folder.calls else {
        findings.undecided("the gateway kept no calls");
        return;
    };
    let moving = calls.iter().filter(|call| {
        let path = call["path"].as_str().unwrap_or_default();
        call["method"] == "POST" && matches!(path, "/v1/charges" | "/v1/refunds")
    });
    for call in moving {
        findings.count("calls", 1);
        let (word, path) = (call["key"].as_str(), call["path"].as_str().unwrap_or_default());
        let kind = if path == "/v1/charges" { "charge" } else { "refund" };
        let order = of(word, kind).and_then(|id| model.orders.get(&id));
        let asked = order.is_some_and(|order| match kind {
            "charge" => order.requested,
            _ => matches!(order.payment, "REFUNDING" | "REFUNDED" | "REFUND_FAILED"),
        });
        if !asked {
            let what = format!("a {kind} under the key {word:?}, for which the log does not ask");
            findings.violated(what, || Witness::of_outside([json!(call)]));
        }
    }
}

/// The order of a derived key.
fn of(key: Option<&str>, kind: &str) -> Option<i64> {
    let (word, order) = key?.split_once(':')?;
    if word == kind { order.parse().ok() } else { None }
}
