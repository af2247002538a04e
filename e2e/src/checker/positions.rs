//! I10: positions go with what was decided, and end where the log ends.
//!
//! Always decided: at the end each position is its partition's end with the highest sequence, and what a processor has decided
//! and knows acknowledged is what its own topics hold. What happened on the way only the audit's rows tell.

use std::collections::BTreeMap;

use super::audit;
use super::log::{Log, SERVICES, Service, is_commands, number, own_topics, shown, text};
use super::witness::{Findings, Witness};
use crate::evidence::{Entry, Row};

pub(super) fn ends(log: &Log<'_>) -> Findings {
    let mut findings =
        Findings::new("I10", "positions = ends of the inputs, outputs = the own topics; audit: no way back");
    for service in &SERVICES {
        for topic in service.inputs {
            for (partition, entries) in partitions(log, topic) {
                position(log, service, topic, partition, &entries, &mut findings);
            }
        }
        for topic in own_topics(service) {
            for (partition, entries) in partitions(log, &topic) {
                output(log, service, &topic, partition, &entries, &mut findings);
            }
        }
        audit::trail(log, service, &mut findings);
    }
    findings
}

fn partitions<'l>(log: &'l Log<'_>, topic: &str) -> BTreeMap<i32, Vec<&'l Entry>> {
    let mut found: BTreeMap<i32, Vec<&Entry>> = BTreeMap::new();
    for entry in log.folder.topic(topic) {
        found.entry(entry.partition).or_default().push(entry);
    }
    found
}

fn row_of<'l>(log: &'l Log<'_>, service: &Service, table: &str, topic: &str, partition: i32) -> Option<&'l Row> {
    log.folder.table(service.name, table).iter().find(|row| {
        number(row, "partition") == Some(i64::from(partition))
            && text(row, "topic").is_some_and(|named| log.bare(named) == topic)
    })
}

fn position(
    log: &Log<'_>,
    service: &Service,
    topic: &str,
    partition: i32,
    entries: &[&Entry],
    findings: &mut Findings,
) {
    findings.count("positions", 1);
    let end = entries.last().map_or(0, |entry| entry.offset + 1);
    let highest = entries.iter().filter_map(|entry| entry.sequence()).max().unwrap_or(0);
    let highest = if is_commands(topic) { 0 } else { highest };
    let row = row_of(log, service, "engine.positions", topic, partition);
    let of = |column| row.and_then(|row| number(row, column)).unwrap_or(0);
    let (next, last) = (of("next_offset"), of("last_sequence"));
    if next != end || last != highest {
        let what = format!(
            "{}: position of {topic}/{partition} is {next} with sequence {last}, the log ends at {end} with {highest}",
            service.name
        );
        findings.violated(what, || {
            let last = entries.last().map(|entry| log.show(topic, entry));
            Witness::of_log(last).with_rows(row.map(|row| shown(service.name, "engine.positions", row)))
        });
    }
}

fn output(log: &Log<'_>, service: &Service, topic: &str, partition: i32, entries: &[&Entry], findings: &mut Findings) {
    let highest = entries.iter().filter_map(|entry| entry.sequence()).max().unwrap_or(0);
    if highest == 0 {
        return;
    }
    findings.count("outputs", 1);
    let row = row_of(log, service, "engine.outputs", topic, partition);
    let of = |column| row.and_then(|row| number(row, column)).unwrap_or(0);
    let (decided, acknowledged, offset) = (of("sequence"), of("acked_sequence"), of("acked_offset"));
    let there = entries.iter().any(|entry| entry.offset == offset && entry.sequence() == Some(acknowledged));
    if decided != highest || acknowledged > highest || (acknowledged > 0 && !there) {
        let what = format!(
            "{}: {topic}/{partition} holds sequence {highest}; decided {decided}, acknowledged {acknowledged} at {offset}",
            service.name
        );
        findings.violated(what, || {
            let last = entries.last().map(|entry| log.show(topic, entry));
            Witness::of_log(last).with_rows(row.map(|row| shown(service.name, "engine.outputs", row)))
        });
    }
}
