//! I1: what was accepted happened, once. I2: a key is one command, and its answers are one answer.
//!
//! An event finds its request by caller and key hash (SHA-256 of method, path and key, a line break between them), which every
//! event of an HTTP command carries. Contacts are rows, not commands, and leave none.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

use super::log::{Fact, Log, number, shown, text};
use super::witness::{Findings, Witness};
use crate::history::{Class, Operation, hash};

/// A caller and the hash of what the key was used for.
type Key = (String, String);

fn key_of(operation: &Operation) -> Option<Key> {
    let bare = operation.key.as_deref()?.trim_matches('"');
    let parts = [operation.method.as_str(), operation.path.as_str(), bare];
    Some((operation.caller.clone(), hash(parts.join("\n").as_bytes())))
}

fn is_command(operation: &Operation) -> bool {
    operation.method != "GET" && !operation.path.starts_with("/v1/contacts") && !operation.path.contains("/callbacks/")
}

fn is_order(operation: &Operation) -> bool {
    operation.method == "POST" && operation.path == "/v1/orders"
}

/// Operations by key, in the order in which they ended.
fn grouped<'l>(log: &'l Log<'_>) -> BTreeMap<Key, Vec<&'l Operation>> {
    let mut groups: BTreeMap<Key, Vec<&Operation>> = BTreeMap::new();
    for operation in log.folder.history.iter().filter(|operation| is_command(operation)) {
        if let Some(key) = key_of(operation) {
            groups.entry(key).or_default().push(operation);
        }
    }
    groups
}

/// Events by the key of their command.
fn events<'l, 'a>(log: &'l Log<'a>) -> HashMap<Key, Vec<&'l Fact<'a>>> {
    let mut found: HashMap<Key, Vec<&Fact<'a>>> = HashMap::new();
    for fact in &log.facts {
        if let Some(command) = fact.event.command()
            && let (Some(caller), Some(key_hash)) = (command.caller, command.key_hash)
        {
            found.entry((caller, key_hash)).or_default().push(fact);
        }
    }
    found
}

fn witness(log: &Log<'_>, operations: &[&Operation], facts: &[&Fact<'_>]) -> Witness {
    Witness {
        history: operations.iter().filter_map(|operation| serde_json::to_value(operation).ok()).collect(),
        log: facts.iter().map(|fact| log.show(fact.topic, fact.entry)).collect(),
        ..Witness::default()
    }
}

pub(super) fn accepted(log: &Log<'_>) -> Findings {
    let mut findings = Findings::new("I1", "accepted commands have one event, refused ones placed nothing");
    findings.count("operations", log.folder.history.len());
    let events = events(log);
    let groups = grouped(log);
    let none = Vec::new();
    for (key, operations) in &groups {
        let facts = events.get(key).unwrap_or(&none);
        let has = |class| operations.iter().any(|operation| operation.class == class);
        let name = format!("{} of {} under the key {:?}", operations[0].op, key.0, operations[0].key);
        findings.count("keys", 1);
        if has(Class::Ok) && facts.is_empty() {
            findings.violated(format!("{name} was accepted and left no event"), || witness(log, operations, &[]));
        }
        // Of orders that is I2.
        if facts.len() > 1 && !is_order(operations[0]) {
            let what = format!("{name} left {} events", facts.len());
            findings.violated(what, || witness(log, operations, facts));
        }
        let done = facts.iter().any(|fact| matches!(fact.event.short(), "OrderPlaced" | "OrderCancelled"));
        if done && !has(Class::Ok) && !has(Class::Info) {
            findings.violated(format!("{name} failed, and is done all the same"), || witness(log, operations, facts));
        }
    }
    answers(log, &mut findings);
    without_key(log, &mut findings);
    if log.folder.run.whole_history {
        unasked(log, &groups, &mut findings);
    }
    findings
}

/// An order that was answered for has exactly one first event under the ID of the answer.
fn answers(log: &Log<'_>, findings: &mut Findings) {
    let mut first: HashMap<i64, usize> = HashMap::new();
    for fact in log.facts.iter().filter(|fact| matches!(fact.event.short(), "OrderPlaced" | "OrderRejected")) {
        *first.entry(fact.event.key().0).or_default() += 1;
    }
    let accepted = log.folder.history.iter().filter(|operation| is_order(operation) && operation.class == Class::Ok);
    let mut seen = BTreeSet::new();
    for operation in accepted {
        let id = order_of(operation);
        let times = id.and_then(|id| first.get(&id)).copied().unwrap_or(0);
        if times != 1 && seen.insert(id) {
            let what = format!("order {id:?} was accepted and was placed or rejected {times} times");
            findings.violated(what, || witness(log, &[operation], &[]));
        }
    }
}

fn order_of(operation: &Operation) -> Option<i64> {
    operation.answer.as_ref()?["order_id"].as_str()?.parse().ok()
}

/// PUT and DELETE have no key: as many events as were accepted, at most as many as were asked for.
fn without_key(log: &Log<'_>, findings: &mut Findings) {
    let mut asked: BTreeMap<(&str, &str, &str), Vec<&Operation>> = BTreeMap::new();
    for operation in log.folder.history.iter().filter(|operation| is_command(operation) && operation.key.is_none()) {
        if matches!(operation.method.as_str(), "PUT" | "DELETE") {
            let target = (operation.caller.as_str(), operation.method.as_str(), operation.path.as_str());
            asked.entry(target).or_default().push(operation);
        }
    }
    for ((caller, method, path), operations) in asked {
        let (done, refused) =
            if method == "PUT" { ("ProductRepriced", "RepriceProduct") } else { ("ProductDelisted", "DelistProduct") };
        let product = path.split('/').nth(3).and_then(|part| part.parse::<i64>().ok());
        let is = |fact: &&Fact<'_>| {
            let shown = log.show(fact.topic, fact.entry);
            let kind = fact.event.short() == done || shown["fields"]["command_type"] == refused;
            let by = fact.event.command().is_some_and(|command| command.caller.as_deref() == Some(caller));
            kind && by && Some(fact.event.key().0) == product
        };
        let facts: Vec<&Fact<'_>> =
            log.facts.iter().filter(|fact| fact.topic == "inventory.events").filter(is).collect();
        let count = |class| operations.iter().filter(|operation| operation.class == class).count();
        let (least, most) = (count(Class::Ok), count(Class::Ok) + count(Class::Info));
        if facts.len() < least || facts.len() > most {
            let what = format!("{method} {path} of {caller}: {} events, {least} to {most} are right", facts.len());
            findings.violated(what, || witness(log, &operations, &facts));
        }
    }
}

/// Orders that nobody asked for, in a run whose every request is in the history.
fn unasked(log: &Log<'_>, groups: &BTreeMap<Key, Vec<&Operation>>, findings: &mut Findings) {
    for fact in log.facts.iter().filter(|fact| fact.event.short() == "OrderPlaced") {
        let command = fact.event.command();
        let key = command.and_then(|command| command.caller.zip(command.key_hash));
        if key.is_none_or(|key| !groups.contains_key(&key)) {
            let id = fact.event.key().0;
            findings.violated(format!("order {id} was placed, but nobody asked for it"), || witness(log, &[], &[fact]));
        }
    }
}

pub(super) fn keys(log: &Log<'_>) -> Findings {
    let mut findings = Findings::new("I2", "one order per caller and key, one answer per key");
    let events = events(log);
    let groups = grouped(log);
    findings.count("keys", groups.len());
    for ((caller, _), facts) in &events {
        let orders: Vec<_> = facts
            .iter()
            .copied()
            .filter(|fact| matches!(fact.event.short(), "OrderPlaced" | "OrderRejected"))
            .collect();
        findings.count("orders", orders.len());
        if orders.len() > 1 {
            let ids: Vec<i64> = orders.iter().map(|fact| fact.event.key().0).collect();
            findings.violated(format!("one key of {caller} is the orders {ids:?}"), || witness(log, &[], &orders));
        }
    }
    for ((caller, key_hash), operations) in &groups {
        let facts = events.get(&(caller.clone(), key_hash.clone())).map_or(&[][..], Vec::as_slice);
        if let Some(what) = contradiction(operations, facts) {
            findings.violated(format!("key {:?} of {caller}: {what}", operations[0].key), || {
                let mut witness = witness(log, operations, facts);
                witness.rows.extend(remembered(log, caller, key_hash));
                witness
            });
        }
    }
    rows(log, &events, &mut findings);
    findings
}

/// What the answers of one key say against each other or against the log.
fn contradiction(operations: &[&Operation], facts: &[&Fact<'_>]) -> Option<String> {
    let ok: Vec<_> = operations.iter().copied().filter(|operation| operation.class == Class::Ok).collect();
    let bodies: Vec<&Value> = ok.iter().map(|operation| &operation.body).collect();
    if bodies.windows(2).any(|two| two[0] != two[1]) {
        return Some("two bodies were accepted".to_owned());
    }
    let stored: BTreeSet<_> =
        ok.iter().filter(|operation| operation.status == Some(202)).map(|operation| &operation.answer_hash).collect();
    if stored.len() > 1 {
        return Some(format!("{} different answers of 202", stored.len()));
    }
    let ids: BTreeSet<i64> = ok.iter().filter_map(|operation| order_of(operation)).collect();
    if ids.len() > 1 {
        return Some(format!("the answers name the orders {ids:?}"));
    }
    let order = facts.first().filter(|_| is_order(operations[0])).map(|fact| fact.event.key().0);
    match (ids.first(), order) {
        (Some(said), Some(is)) if *said != is => Some(format!("the answer names order {said}, the log has {is}")),
        _ => None,
    }
}

fn remembered(log: &Log<'_>, caller: &str, key_hash: &str) -> Vec<Value> {
    let mut found = Vec::new();
    for service in log.folder.tables.keys() {
        let table = "engine.idempotency";
        let is = |row: &&crate::evidence::Row| {
            text(row, "caller") == Some(caller) && text(row, "key_hash") == Some(key_hash)
        };
        found.extend(log.folder.table(service, table).iter().filter(is).map(|row| shown(service, table, row)));
    }
    found
}

/// The idempotency rows name the aggregates that the log has.
fn rows(log: &Log<'_>, events: &HashMap<Key, Vec<&Fact<'_>>>, findings: &mut Findings) {
    for service in log.folder.tables.keys() {
        for row in log.folder.table(service, "engine.idempotency") {
            findings.count("remembered keys", 1);
            let key = text(row, "caller").zip(text(row, "key_hash"));
            let Some((caller, key_hash)) = key.map(|(caller, hash)| (caller.to_owned(), hash.to_owned())) else {
                continue;
            };
            let facts = events.get(&(caller, key_hash)).map_or(&[][..], Vec::as_slice);
            let commands = facts.iter().filter_map(|fact| Some((fact, fact.event.command()?.command_id.0)));
            let wrong = commands.filter(|(fact, id)| {
                number(row, "subject") != Some(fact.event.key().0) || number(row, "command_id") != Some(*id)
            });
            for (fact, _) in wrong {
                findings.violated(format!("{service} remembers another command than the log has"), || {
                    witness(log, &[], &[fact]).with_rows([shown(service, "engine.idempotency", row)])
                });
            }
        }
    }
}
