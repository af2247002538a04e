//! I6: at the end everything is at its end.
//!
//! Every order is final or waits behind a dead record of its key; no stock is set aside for it, no payment open; nothing is held
//! but behind the dead; outbox, acts, effects and due timers are empty; and it did not take too long. Lag is I10's.

use std::collections::HashSet;

use events::time::Timestamp;
use serde_json::json;

use super::log::{Log, SERVICES, number, shown, text};
use super::model::Model;
use super::witness::{Findings, Witness};
use crate::evidence::Row;

/// From the end of the last fault to the end of everything.
const CONVERGE_US_MAX: i64 = 90_000_000;
/// Tables that are empty when nothing is under way.
const EMPTY: [(&str, &str); 2] = [("engine.outbox", "not sent"), ("engine.acts", "not done")];

pub(super) fn everything(log: &Log<'_>, model: &Model<'_>) -> Findings {
    let mut findings = Findings::new("I6", "every order final, nothing reserved, held, unsent, unpaid or overdue");
    let waiting = dead_keys(log);
    findings.count("orders", model.orders.len());
    for (id, order) in model.orders.iter().filter(|(id, _)| !waiting.contains(id)) {
        let open = if !order.status.is_empty() && !order.is_final() {
            Some(format!("is {}", order.status))
        } else if order.reservation == "RESERVED" {
            Some("has stock set aside".to_owned())
        } else if matches!(order.payment, "REQUESTED" | "CANCEL_REQUESTED" | "REFUNDING") {
            Some(format!("has a payment {}", order.payment))
        } else if order.placed.is_some() && order.reservation.is_empty() {
            Some("was never answered by the warehouse".to_owned())
        } else {
            overdue(log, order).map(|kind| format!("has a notice {kind} that is due and not sent"))
        };
        if let Some(open) = open {
            findings.violated(format!("order {id} {open}"), || log.about(*id));
        }
    }
    tables(log, &waiting, &mut findings);
    orphans(log, &mut findings);
    if let (Some(healed), Some(converged)) = (log.folder.run.healed_at, log.folder.run.converged_at) {
        let most = log.folder.run.limits.converge_us.unwrap_or(CONVERGE_US_MAX);
        if converged - healed > most {
            let what = format!("it took {} ms to converge, {} may", (converged - healed) / 1_000, most / 1_000);
            findings.violated(what, || Witness::of_outside([json!({"healed_at": healed, "converged_at": converged})]));
        }
    }
    findings
}

/// A notice that was due when the folder was filled.
fn overdue(log: &Log<'_>, order: &super::model::Order<'_>) -> Option<&'static str> {
    let now = log.folder.run.converged_at.or(log.folder.run.collected_at).map_or(i64::MAX, |at| at / 1_000);
    let pending = |notice: &super::model::Notice| {
        let waits = notice.channels.values().any(|state| *state == "PENDING");
        waits && !notice.skipped && notice.due_at.is_none_or(|due| due.0 <= now)
    };
    order.notices.iter().find(|(_, notice)| pending(notice)).map(|(kind, _)| kind.as_str())
}

/// Keys that wait for an operator: a dead record of theirs is in a table of held ones.
fn dead_keys(log: &Log<'_>) -> HashSet<i64> {
    let rows = SERVICES.iter().flat_map(|service| log.folder.table(service.name, "projection.held"));
    rows.filter(|row| keeps(row)).filter_map(|row| number(row, "key")).collect()
}

fn keeps(row: &Row) -> bool {
    let dead = row.get("dead").and_then(serde_json::Value::as_bool) == Some(true);
    dead && !matches!(text(row, "class"), Some("strange" | "poison"))
}

/// Remembered tries of calls that no payment asks for any more. They are scheduling and do nothing, so that they are no violation;
/// but nobody forgets them.
fn orphans(log: &Log<'_>, findings: &mut Findings) {
    let asks = |row: &&Row| row.get("call_kind").is_some_and(|kind| !kind.is_null());
    let payments = log.folder.table("payment-svc", "projection.payments").iter().filter(asks);
    let asking: HashSet<i64> = payments.filter_map(|row| number(row, "order_id")).collect();
    let tries = log.folder.table("payment-svc", "engine.effects").iter();
    let orphans = tries.filter(|row| number(row, "key").is_some_and(|key| !asking.contains(&key))).count();
    if orphans > 0 {
        findings.count("tries that outlive their calls", orphans);
        findings.undecided("payment-svc: rows of engine.effects outlive their calls; the plan names open effects only");
    }
}

fn tables(log: &Log<'_>, waiting: &HashSet<i64>, findings: &mut Findings) {
    for service in &SERVICES {
        let name = service.name;
        let mut open = |table: &'static str, what: &str, is: &dyn Fn(&Row) -> bool| {
            let rows = log.folder.table(name, table);
            findings.count("rows", rows.len());
            for row in rows.iter().filter(|row| is(row)) {
                let key = ["order_id", "key"].into_iter().find_map(|column| number(row, column));
                let of = key.map_or_else(String::new, |key| format!(" of {key}"));
                findings.violated(format!("{name}: a row of {table}{of} is {what}"), || {
                    Witness::default().with_rows([shown(name, table, row)])
                });
            }
        };
        for (table, what) in EMPTY {
            open(table, what, &|_| true);
        }
        let behind = |row: &Row| number(row, "key").is_some_and(|key| waiting.contains(&key));
        open("projection.held", "held, and nobody dead is before it", &|row| {
            row.get("dead") == Some(&json!(false)) && !behind(row)
        });
        let free = |row: &Row| number(row, "order_id").is_none_or(|id| !waiting.contains(&id));
        open("projection.payments", "waiting for its call", &|row| {
            row.get("call_kind").is_some_and(|kind| !kind.is_null()) && free(row)
        });
        let now = log.folder.run.collected_at.map_or(i64::MAX, |at| at / 1_000);
        open("projection.orders", "past its time", &|row| {
            let due = text(row, "expires_at").and_then(|text| Timestamp::parse(text).ok());
            due.is_some_and(|due| due.0 <= now) && free(row)
        });
    }
}
