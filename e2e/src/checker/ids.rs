//! I13: no ID was given twice.
//!
//! IDs of events, letters and commands, and those of orders; products may bring their own. Whether an ID lies below its owner's
//! mark is decided by the leases as they are at the end: marks only rise.

use std::collections::{BTreeMap, HashMap};

use events::envelope::name;
use events::snowflake::{EPOCH_MS, unpack};
use serde_json::Value;

use super::log::{Kind, Log, SERVICES, number};
use super::witness::{Findings, Witness};

/// Who has an ID: the record that shows it.
type Holder<'l> = (&'static str, &'l str, &'l crate::evidence::Entry);

pub(super) fn distinct(log: &Log<'_>) -> Findings {
    let mut findings =
        Findings::new("I13", "IDs of events, letters, commands and orders are distinct and below their marks");
    let mut holders: HashMap<i64, Holder<'_>> = HashMap::new();
    let mut take = |id: i64, holder, findings: &mut Findings| {
        if let Some(first) = holders.get(&id) {
            findings.violated(format!("{id} is the ID of {} and of {}", said(first), said(&holder)), || {
                Witness::of_log([first, &holder].map(|(_, topic, entry)| log.show(topic, entry)))
            });
        } else {
            holders.insert(id, holder);
        }
    };
    for (topic, kinds) in &log.kinds {
        for (entry, kind) in log.folder.topic(topic).iter().zip(kinds) {
            let id = entry.text(name::ID).and_then(|id| id.parse::<i64>().ok());
            if let (Kind::First, Some(id)) = (kind, id) {
                take(id, ("a record", *topic, entry), &mut findings);
            }
        }
    }
    for command in &log.commands {
        // Of a command that opened an aggregate the key was made here too; every PlaceOrder does.
        if command.entry.text(name::TYPE) == Some("orderlog.order.PlaceOrder") {
            take(command.key, ("an order", command.topic, command.entry), &mut findings);
        }
        if command.entry.text(name::ID) != Some(command.id.to_string().as_str()) {
            findings.violated(format!("command {} says that it is another", command.id), || {
                Witness::of_log([log.show(command.topic, command.entry)])
            });
        }
    }
    findings.count("ids", holders.len());
    marks(log, &holders, &mut findings);
    findings
}

fn said((what, topic, entry): &Holder<'_>) -> String {
    format!("{what} at {topic}/{}/{}", entry.partition, entry.offset)
}

fn marks(log: &Log<'_>, holders: &HashMap<i64, Holder<'_>>, findings: &mut Findings) {
    let mut marks: BTreeMap<(i64, i64), i64> = BTreeMap::new();
    for service in &SERVICES {
        for row in log.folder.table(service.name, "engine.leases") {
            let of = |column| number(row, column).unwrap_or_default();
            let mark = marks.entry((of("service"), of("instance"))).or_default();
            *mark = of("mark_ms").max(*mark);
        }
    }
    if marks.is_empty() {
        findings.undecided("no leases: marks are not compared");
        return;
    }
    let numbers: Vec<i64> = SERVICES.iter().map(|service| service.number).collect();
    let mut ids: Vec<_> = holders.iter().collect();
    ids.sort_by_key(|(id, _)| **id);
    for (id, holder) in ids {
        let Some(parts) = unpack(*id) else { continue };
        let owner = (i64::from(parts.service), i64::from(parts.instance));
        let made = i64::try_from(parts.millis).unwrap_or(i64::MAX).saturating_add(EPOCH_MS);
        // A number of no service was made elsewhere: by a test, or by a tool that leases under its own.
        if numbers.contains(&owner.0) && marks.get(&owner).is_none_or(|mark| made >= *mark) {
            let mark = Value::from(marks.get(&owner).copied());
            let what = format!("{id} is at or above the mark {mark} of {owner:?}");
            findings.violated(what, || Witness::of_log([log.show(holder.1, holder.2)]));
        }
    }
}
