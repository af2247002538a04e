//! I8: every own topic counts 1..n. I9: it holds what was decided, once, as it was decided first.
//!
//! There is no archive of outbox rows. What is decided without one: the log of each processor has no hole (I8), a repeat is the
//! first copy byte for byte, every event's cause is there, no input made two events, and at the end the outbox is empty (I6) and
//! the database has decided exactly what the log holds (I10). What is not: that at every moment of the run the log held a prefix
//! over all topics of a processor, and how many rows were sent again. Strange records are I12's.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use events::envelope::{Cause, name};
use events::partition::partition_of;

use super::log::{Kind, Log, SERVICES, is_commands, own_topics};
use super::witness::{Findings, Witness};
use crate::evidence::Entry;

pub(super) fn without_hole(log: &Log<'_>) -> Findings {
    let mut findings =
        Findings::new("I8", "each partition of each own topic carries 1..n, by its own writer, in its place");
    for service in &SERVICES {
        for (index, topic) in own_topics(service).iter().enumerate() {
            let mut last: BTreeMap<i32, (i64, Option<&Entry>)> = BTreeMap::new();
            let kinds = log.kinds.get(topic.as_str()).map_or(&[][..], Vec::as_slice);
            for (entry, kind) in log.folder.topic(topic).iter().zip(kinds) {
                findings.count("records", 1);
                let (Some(sequence), Kind::First | Kind::Damaged) = (entry.sequence(), kind) else { continue };
                let (before, neighbour) = *last.entry(entry.partition).or_insert((0, None));
                let place = format!("{topic}/{} offset {}", entry.partition, entry.offset);
                if sequence != before + 1 {
                    findings.violated(format!("{place}: sequence {sequence} follows {before}"), || {
                        Witness::of_log(neighbour.into_iter().chain([entry]).map(|entry| log.show(topic, entry)))
                    });
                }
                if let Some(what) = misplaced(log, service.name, index == 0, entry) {
                    findings.violated(format!("{place}: {what}"), || Witness::of_log([log.show(topic, entry)]));
                }
                last.insert(entry.partition, (sequence, Some(entry)));
            }
            findings.count("partitions", last.len());
        }
    }
    findings
}

/// What is wrong with where a record lies and who says it wrote it. A letter lies where its source does, whatever its key.
fn misplaced(log: &Log<'_>, service: &str, is_event: bool, entry: &Entry) -> Option<String> {
    let source = entry.text(name::SOURCE);
    if source != Some(format!("/{service}").as_str()) {
        return Some(format!("written by {source:?}"));
    }
    if !is_event {
        return None;
    }
    let home = partition_of(entry.key.as_deref().unwrap_or_default(), log.folder.run.partitions);
    if home != entry.partition {
        return Some(format!("its key belongs on partition {home}"));
    }
    (entry.text(name::SUBJECT) != Some(entry.key_text())).then(|| "its subject is not its key".to_owned())
}

pub(super) fn outbox(log: &Log<'_>) -> Findings {
    let mut findings = Findings::new("I9", "repeats are the first copy, causes are there, one input makes one event");
    findings.undecided("no archive of outbox rows: neither every moment's prefix nor the number of rows sent again");
    for (topic, kinds) in &log.kinds {
        let entries = log.folder.topic(topic);
        for (entry, kind) in entries.iter().zip(kinds) {
            let Kind::Repeat(first) = kind else { continue };
            findings.count("repeats", 1);
            let first = &entries[*first];
            if !entry.same_bytes(first) {
                let place = format!("{topic}/{} offset {}", entry.partition, entry.offset);
                findings.violated(format!("{place}: a repeat of other bytes than offset {}", first.offset), || {
                    Witness::of_log([first, entry].map(|entry| log.show(topic, entry)))
                });
            }
        }
    }
    causes(log, &mut findings);
    findings
}

fn causes(log: &Log<'_>, findings: &mut Findings) {
    let places = log.places();
    let mut seen: HashMap<(&str, &str), &Entry> = HashMap::new();
    let ids: BTreeSet<&str> = log.facts.iter().filter_map(|fact| fact.entry.text(name::ID)).collect();
    for fact in &log.facts {
        findings.count("causes", 1);
        let (topic, entry) = (fact.topic, fact.entry);
        let place = format!("{topic}/{} offset {}", entry.partition, entry.offset);
        let one = || Witness::of_log([log.show(topic, entry)]);
        match &fact.cause {
            None => findings.violated(format!("{place}: an event without a cause"), one),
            Some(Cause::Record(source)) => {
                let bare = log.bare(&source.topic);
                let found = places.get(&(bare, source.partition, source.offset));
                let same = found.is_some_and(|(_, cause)| {
                    is_commands(bare) || source.sequence.is_some() && cause.sequence() == source.sequence
                });
                let read = SERVICES.iter().any(|service| service.events == topic && service.inputs.contains(&bare));
                if !same || !read || source.partition != entry.partition {
                    findings.violated(format!("{place}: its cause is no input of its processor"), one);
                    continue;
                }
                let cause = entry.text(name::CAUSE).unwrap_or_default();
                if let Some(first) = seen.insert((topic, cause), entry) {
                    findings.violated(format!("{place}: its input {cause} made an event before"), || {
                        Witness::of_log([first, entry].map(|entry| log.show(topic, entry)))
                    });
                }
            }
            Some(Cause::Timer | Cause::Effect) => {
                // What set a timer or an effect is an event of the log.
                if entry.text(name::CAUSATION).is_none_or(|id| !ids.contains(id)) {
                    findings.violated(format!("{place}: the event that set its timer or effect is nowhere"), one);
                }
            }
            Some(Cause::Operator) => {}
        }
    }
}
