//! I5: customers are told once.
//!
//! Mail and SMS are at least once: a message may come again when a process dies between sending and committing. So repeats
//! are right only in a run with faults, and few.

use std::collections::BTreeMap;

use events::code::{Channel, NoticeKind};
use serde_json::{Value, json};

use super::log::Log;
use super::model::Model;
use super::witness::{Findings, Witness};

/// Messages that one fault may have made come again, for each of the two channels.
const REPEATS_PER_FAULT: usize = 2;
/// One in so many may come again.
const REPEATS_ONE_IN: usize = 1_000;

pub(super) fn messages(log: &Log<'_>, model: &Model<'_>) -> Findings {
    let mut findings = Findings::new("I5", "one message per order, kind and channel; none without its notice");
    let mut found: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for message in &log.folder.messages {
        found.entry(message["message_id"].as_str().unwrap_or_default()).or_default().push(message);
    }
    findings.count("messages", log.folder.messages.len());
    for (id, order) in &model.orders {
        for (kind, notice) in &order.notices {
            for (channel, state) in &notice.channels {
                findings.count("notices", 1);
                if *state == "SENT" && !found.contains_key(message_id(*id, *kind, *channel).as_str()) {
                    findings.violated(format!("order {id}: {kind} by {channel} was sent, but never came"), || {
                        log.about(*id)
                    });
                }
            }
        }
        told(log, *id, order, &mut findings);
    }
    for (id, messages) in &found {
        let known = parse(id).and_then(|(order, kind, channel)| {
            let notice = model.orders.get(&order)?.notices.get(&kind)?;
            notice.channels.get(&channel)
        });
        if known.is_none() {
            findings.violated(format!("a message {id} of no notice"), || {
                Witness::of_outside(messages.iter().map(|message| json!(message)))
            });
        }
    }
    repeats(log, &found, &mut findings);
    findings
}

/// Every order's end is told, or skipped in so many words.
fn told(log: &Log<'_>, id: i64, order: &super::model::Order<'_>, findings: &mut Findings) {
    let mut kinds = match order.status {
        "CONFIRMED" => vec![NoticeKind::OrderConfirmed],
        "CANCELLED" => vec![NoticeKind::OrderCancelled],
        "EXPIRED" => vec![NoticeKind::OrderExpired],
        _ => vec![],
    };
    kinds.extend((order.payment == "REFUNDED").then_some(NoticeKind::PaymentRefunded));
    kinds.extend(order.requested.then_some(NoticeKind::PaymentReminder));
    for kind in kinds.into_iter().filter(|kind| !order.notices.contains_key(kind)) {
        findings.violated(format!("order {id}: no word of {kind}"), || log.about(id));
    }
}

fn repeats(log: &Log<'_>, found: &BTreeMap<&str, Vec<&Value>>, findings: &mut Findings) {
    let repeated: Vec<_> = found.iter().filter(|(_, messages)| messages.len() > 1).collect();
    findings.count("repeated", repeated.len());
    let faults = log.folder.faults.len();
    let per_fault = log.folder.run.limits.repeats_per_fault.unwrap_or(REPEATS_PER_FAULT);
    let allowed = if faults == 0 { 0 } else { (faults * per_fault).max(log.folder.messages.len() / REPEATS_ONE_IN) };
    if repeated.len() > allowed {
        let what = format!("{} messages came more than once, {allowed} may", repeated.len());
        let first = repeated.first().map_or_else(Vec::new, |(_, messages)| messages.to_vec());
        findings.violated(what, || Witness::of_outside(first.into_iter().cloned()));
    }
}

/// As CONTRACT has it: derived from order, kind and channel.
fn message_id(order: i64, kind: NoticeKind, channel: Channel) -> String {
    format!("{order}.{kind}.{channel}@orderlog")
}

fn parse(id: &str) -> Option<(i64, NoticeKind, Channel)> {
    let mut parts = id.strip_suffix("@orderlog")?.splitn(3, '.');
    let (order, kind, channel) = (parts.next()?, parts.next()?, parts.next()?);
    Some((order.parse().ok()?, NoticeKind::parse(kind).ok()?, Channel::parse(channel).ok()?))
}
