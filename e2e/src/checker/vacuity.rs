//! I15: something happened. I16: and it did not take more than it may.
//!
//! What must have happened is the run's to say (`run.json`, `expects`); where it says nothing, only that orders were placed and,
//! under faults, that clients were mostly served. An operation that failed by a promise (4xx) counts neither way.

use std::collections::BTreeMap;

use serde_json::json;

use super::letters::Step;
use super::log::{Kind, Log};
use super::model::Model;
use super::witness::{Findings, Witness};
use crate::history::{Class, Operation};

const OK_BEFORE_PERCENT: u64 = 95;
const OK_DURING_PERCENT: u64 = 50;

pub(super) fn happened(log: &Log<'_>, model: &Model<'_>) -> Findings {
    let mut findings = Findings::new("I15", "clients were served, faults were done and felt, rare paths were taken");
    let expects = &log.folder.run.expects;
    let mut least = |what: String, found: u64, minimum: u64| {
        findings.count("minimums", 1);
        if found < minimum {
            let said = json!({"what": what, "found": found, "expected": minimum});
            findings.violated(format!("{what}: {found}, at least {minimum} expected"), || Witness::of_outside([said]));
        }
    };
    least("orders".to_owned(), size(model.orders.len()), 1);
    if !log.folder.history.is_empty() {
        for (phase, percent, minimum) in served(log) {
            least(format!("percent of operations ok {phase}"), percent, minimum);
        }
    }
    for (kind, minimum) in &expects.faults {
        let done = log.folder.faults.iter().filter(|fault| fault.kind == *kind).count();
        least(format!("faults {kind}"), size(done), *minimum);
    }
    for kind in &expects.felt {
        let felt = log.folder.faults.iter().filter(|fault| fault.kind == *kind && fault.felt == Some(true)).count();
        least(format!("faults {kind} that were felt"), size(felt), 1);
    }
    let hits = log.folder.failpoints.clone().unwrap_or_default();
    for (label, minimum) in &expects.failpoints {
        least(format!("hits of failpoint {label}"), hits.get(label).copied().unwrap_or(0), *minimum);
    }
    let counted = counted(log);
    for (name, minimum) in &expects.counters {
        let found = counted.get(name.as_str()).or_else(|| log.folder.counters.get(name)).copied();
        least(format!("counted {name}"), found.unwrap_or(0), *minimum);
    }
    for (status, minimum) in &expects.statuses {
        let orders = model.orders.values().filter(|order| order.status == status).count();
        least(format!("orders {status}"), size(orders), *minimum);
    }
    findings
}

fn size(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Phases with the percentage of ok among ok and info, and what it must be at least.
fn served(log: &Log<'_>) -> Vec<(&'static str, u64, u64)> {
    let run = &log.folder.run;
    let Some(first) = log.folder.faults.iter().map(|fault| fault.at).min() else {
        let all = percent(log, |_| true).unwrap_or(0);
        return vec![("without faults", all, run.expects.ok_before_percent.unwrap_or(OK_BEFORE_PERCENT))];
    };
    let healed = run.healed_at.unwrap_or(i64::MAX);
    let before = percent(log, |operation| operation.completed_at < first);
    let during = percent(log, |operation| (first..healed).contains(&operation.completed_at));
    let minimums = [
        ("before faults", before, run.expects.ok_before_percent.unwrap_or(OK_BEFORE_PERCENT)),
        ("during faults", during, run.expects.ok_during_percent.unwrap_or(OK_DURING_PERCENT)),
    ];
    minimums.into_iter().filter_map(|(phase, percent, minimum)| Some((phase, percent?, minimum))).collect()
}

fn percent(log: &Log<'_>, of: impl Fn(&Operation) -> bool) -> Option<u64> {
    let classes: Vec<Class> = log
        .folder
        .history
        .iter()
        .filter(|one| of(one))
        .map(|one| one.class)
        .filter(|class| *class != Class::Fail)
        .collect();
    let ok = classes.iter().filter(|class| **class == Class::Ok).count();
    (!classes.is_empty()).then(|| size(ok * 100 / classes.len()))
}

/// What the evidence shows of rare paths.
fn counted(log: &Log<'_>) -> BTreeMap<&'static str, u64> {
    let kinds = log.kinds.values().flatten();
    let repeats = kinds.filter(|kind| matches!(kind, Kind::Repeat(_))).count();
    let letters = |step| log.letters.iter().filter(|letter| letter.step == step).count();
    let by = |cause: &str| log.facts.iter().filter(|fact| fact.entry.text("ce_cause") == Some(cause)).count();
    // A charge that is asked for by its key before it is made again.
    let asked = log.folder.calls.iter().flatten().filter(|call| {
        call["method"] == "GET" && call["path"].as_str().is_some_and(|path| path.starts_with("/v1/charges/"))
    });
    BTreeMap::from([
        ("repeats", size(repeats)),
        ("held", size(letters(Step::Held))),
        ("dead", size(letters(Step::Died))),
        ("held_released", released(log)),
        ("timers", size(by("timer"))),
        ("asked_first", size(asked.count())),
    ])
}

/// Records that were held and that an own event settled.
fn released(log: &Log<'_>) -> u64 {
    let causes: std::collections::HashSet<&str> =
        log.facts.iter().filter_map(|fact| fact.entry.text("ce_cause")).collect();
    let held = log.letters.iter().filter(|letter| letter.step == Step::Held);
    size(held.filter(|letter| letter.entry.text("ce_cause").is_some_and(|cause| causes.contains(cause))).count())
}

pub(super) fn bounded(log: &Log<'_>) -> Findings {
    let mut findings = Findings::new("I16", "memory, connections and outboxes stay below their limits");
    let limits = &log.folder.run.limits;
    if log.folder.resources.is_empty() {
        let all = [&limits.rss_bytes, &limits.db_connections, &limits.outbox_bytes];
        if all.iter().all(|limit| limit.is_empty()) {
            findings.undecided("no samples and no limits");
        } else {
            findings.violated("there are limits, but nothing was measured".to_owned(), Witness::default);
        }
        return findings;
    }
    for sample in &log.folder.resources {
        findings.count("samples", 1);
        let measured = [
            ("memory", sample.rss_bytes, &limits.rss_bytes),
            ("connections", sample.db_connections, &limits.db_connections),
            ("outbox", sample.outbox_bytes, &limits.outbox_bytes),
        ];
        for (what, found, limit) in measured {
            let most = limit.get(&sample.service).or_else(|| limit.get("*"));
            if let (Some(found), Some(most)) = (found, most)
                && found > *most
            {
                let service = &sample.service;
                findings.violated(format!("{service}: {what} of {found}, {most} may be"), || {
                    Witness::of_outside([json!(sample)])
                });
            }
        }
    }
    findings
}
