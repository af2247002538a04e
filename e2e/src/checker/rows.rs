//! I11: the live tables are what the log adds up to.
//!
//! Here by the checker's own model: orders, reservations, payments, notices and the memory of commands, row by row. That a
//! fold by the services' own code gives every column again is `orderctl verify`'s; what it said is taken in where it was asked.
//! Products are I3's. The order of folding and batch sizes are not varied here.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use super::log::{Log, SERVICES, number, shown, text};
use super::model::{Model, Order};
use super::witness::{Findings, Witness};
use crate::evidence::Row;

/// Columns of a row as the model has them.
type Columns = Vec<(&'static str, Value)>;

pub(super) fn live(log: &Log<'_>, model: &Model<'_>) -> Findings {
    let mut findings = Findings::new("I11", "tables are the log's, row by row; `orderctl verify` says the same");
    table(log, model, &mut findings, ("order-svc", "projection.orders"), |order| {
        (!order.status.is_empty()).then(|| {
            let total = order.placed.map(|placed| placed.total);
            vec![
                ("status", json!(order.status)),
                ("version", json!(order.version)),
                ("reason", json!(order.reason)),
                ("last_sequence", json!(order.last_sequence)),
                ("total_amount", json!(total.map(|total| total.amount))),
            ]
        })
    });
    table(log, model, &mut findings, ("inventory-svc", "projection.reservations"), |order| {
        (!order.reservation.is_empty()).then(|| vec![("status", json!(order.reservation))])
    });
    table(log, model, &mut findings, ("payment-svc", "projection.payments"), |order| {
        (!order.payment.is_empty()).then(|| {
            let holds = matches!(order.payment, "CAPTURED" | "REFUNDING" | "REFUNDED" | "REFUND_FAILED");
            vec![
                ("status", json!(order.payment)),
                ("taken_amount", json!(order.taken.filter(|_| holds))),
                ("total_amount", json!(order.placed.map(|placed| placed.total.amount))),
            ]
        })
    });
    notices(log, model, &mut findings);
    commands(log, &mut findings);
    verified(log, &mut findings);
    findings
}

fn table(
    log: &Log<'_>,
    model: &Model<'_>,
    findings: &mut Findings,
    (service, name): (&str, &str),
    columns: impl Fn(&Order<'_>) -> Option<Columns>,
) {
    let rows = log.folder.table(service, name);
    findings.count("rows", rows.len());
    let by_order: HashMap<i64, &Row> = rows.iter().filter_map(|row| Some((number(row, "order_id")?, row))).collect();
    for (id, order) in &model.orders {
        let row = by_order.get(id).copied();
        if let Some(what) = difference(row, columns(order)) {
            findings.violated(format!("{service}/{name}: order {id}: {what}"), || log.about(*id));
        }
    }
    for (id, row) in by_order.iter().filter(|(id, _)| !model.orders.contains_key(id)) {
        findings.violated(format!("{service}/{name}: order {id} is not in the log"), || {
            Witness::default().with_rows([shown(service, name, row)])
        });
    }
}

fn difference(row: Option<&Row>, expected: Option<Columns>) -> Option<String> {
    match (row, expected) {
        (None, None) => None,
        (None, Some(_)) => Some("the row is missing".to_owned()),
        (Some(_), None) => Some("there is a row, but no event".to_owned()),
        (Some(row), Some(columns)) => columns.into_iter().find_map(|(column, value)| {
            let has = row.get(column).cloned().unwrap_or(Value::Null);
            (has != value).then(|| format!("{column} is {has}, by the log {value}"))
        }),
    }
}

fn notices(log: &Log<'_>, model: &Model<'_>, findings: &mut Findings) {
    let (service, name) = ("notify-svc", "projection.notices");
    let rows = log.folder.table(service, name);
    findings.count("rows", rows.len());
    let mut by_notice: BTreeMap<(i64, &str), &Row> =
        rows.iter().filter_map(|row| Some(((number(row, "order_id")?, text(row, "kind")?), row))).collect();
    for (id, order) in &model.orders {
        for (kind, notice) in &order.notices {
            let row = by_notice.remove(&(*id, kind.as_str()));
            let same = row.is_some_and(|row| {
                let skipped = row.get("skip_reason").is_some_and(|reason| !reason.is_null());
                let channels = notice
                    .channels
                    .iter()
                    .all(|(channel, state)| text(row, &channel.as_str().to_lowercase()) == Some(state));
                skipped == notice.skipped && (skipped || channels)
            });
            if !same {
                findings.violated(format!("{service}/{name}: order {id}: {kind} is {notice:?} by the log"), || {
                    log.about(*id)
                });
            }
        }
    }
    for ((id, kind), row) in by_notice {
        findings.violated(format!("{service}/{name}: order {id}: {kind} is not in the log"), || {
            Witness::default().with_rows([shown(service, name, row)])
        });
    }
}

/// Every command that an own event settled is remembered with that event.
fn commands(log: &Log<'_>, findings: &mut Findings) {
    for service in &SERVICES {
        let name = "projection.commands";
        let rows = log.folder.table(service.name, name);
        findings.count("rows", rows.len());
        let mut by_id: HashMap<i64, &Row> =
            rows.iter().filter_map(|row| Some((number(row, "command_id")?, row))).collect();
        for fact in log.facts.iter().filter(|fact| fact.topic == service.events) {
            let Some(command) = fact.event.command() else { continue };
            let row = by_id.remove(&command.command_id.0);
            let same = row.is_some_and(|row| {
                number(row, "sequence") == Some(fact.sequence)
                    && number(row, "partition") == Some(i64::from(fact.entry.partition))
                    && text(row, "event_type") == Some(fact.event.type_name())
                    && text(row, "caller") == command.caller.as_deref()
                    && text(row, "key_hash") == command.key_hash.as_deref()
            });
            if !same {
                let what = format!("{}: command {} is not remembered as in the log", service.name, command.command_id);
                findings.violated(what, || {
                    let rows = row.map(|row| shown(service.name, name, row));
                    Witness::of_log([log.show(fact.topic, fact.entry)]).with_rows(rows)
                });
            }
        }
        for (id, row) in by_id {
            findings.violated(format!("{}: command {id} is remembered, but not in the log", service.name), || {
                Witness::default().with_rows([shown(service.name, name, row)])
            });
        }
    }
}

/// What `orderctl verify` said.
fn verified(log: &Log<'_>, findings: &mut Findings) {
    let Some(said) = &log.folder.verify else {
        findings.undecided("`orderctl verify` was not asked");
        return;
    };
    findings.count("verifications", 1);
    if said["equal"] != true {
        let services = said["services"].as_array().cloned().unwrap_or_default();
        let differ: Vec<Value> = services.into_iter().filter(|service| service["equal"] != true).collect();
        let names: Vec<&str> = differ.iter().filter_map(|service| service["service"].as_str()).collect();
        findings.violated(format!("`orderctl verify` found a difference: {names:?}"), || {
            Witness::of_outside(differ.iter().map(|service| service["differences"].clone()))
        });
    }
}
