//! What the audit's triggers kept (`evidence/audit.sql`): every change of a processor's row and of its positions, in order.
//!
//! Each batch raises the batch number by one under the epoch it was given; an assignment raises the epoch and nothing else. A
//! position moves only in a transaction in which its processor's batch moves, from where it stood, and never back. A rebuild
//! deletes the rows and begins anew.

use std::collections::{BTreeMap, BTreeSet};

use super::log::{Log, Service, number, shown, text};
use super::witness::{Findings, Witness};
use crate::evidence::Row;

const PROCESSORS: &str = "audit.processors";
const POSITIONS: &str = "audit.positions";

pub(super) fn trail(log: &Log<'_>, service: &Service, findings: &mut Findings) {
    let owners = log.folder.table(service.name, PROCESSORS);
    let moves = log.folder.table(service.name, POSITIONS);
    if owners.is_empty() {
        findings.undecided(&format!("{}: no audit of processors and positions", service.name));
        return;
    }
    findings.count("audited changes", owners.len() + moves.len());
    let batches = processors(service, owners, findings);
    positions(service, moves, &batches, findings);
}

fn of(row: &Row, column: &str) -> i64 {
    number(row, column).unwrap_or(-1)
}

fn in_order(rows: &[Row]) -> Vec<&Row> {
    let mut rows: Vec<&Row> = rows.iter().collect();
    rows.sort_by_key(|row| of(row, "id"));
    rows
}

fn violated(service: &Service, table: &str, what: &str, rows: &[&Row], findings: &mut Findings) {
    let partition = rows.last().map_or(-1, |row| of(row, "partition"));
    findings.violated(format!("{}/{partition}: {what}", service.name), || {
        Witness::default().with_rows(rows.iter().map(|row| shown(service.name, table, row)))
    });
}

/// Transactions in which a processor's batch moved.
fn processors(service: &Service, rows: &[Row], findings: &mut Findings) -> BTreeSet<(i64, i64)> {
    let (mut last, mut batches) = (BTreeMap::new(), BTreeSet::new());
    for row in in_order(rows) {
        let partition = of(row, "partition");
        if text(row, "op") == Some("DELETE") {
            last.remove(&partition);
            continue;
        }
        let (epoch, batch) = (of(row, "epoch"), of(row, "batch"));
        if let Some(before) = last.insert(partition, row) {
            let (old_epoch, old_batch) = (of(before, "epoch"), of(before, "batch"));
            let anew = text(row, "op") == Some("INSERT") && epoch > old_epoch;
            let begun = anew || (epoch > old_epoch && batch == old_batch);
            let decided = epoch == old_epoch && batch == old_batch + 1;
            if !begun && !decided {
                let what = format!("epoch {epoch} batch {batch} follows epoch {old_epoch} batch {old_batch}");
                violated(service, PROCESSORS, &what, &[before, row], findings);
            }
            if decided {
                batches.insert((partition, of(row, "tx")));
            }
        }
    }
    batches
}

fn positions(service: &Service, rows: &[Row], batches: &BTreeSet<(i64, i64)>, findings: &mut Findings) {
    let mut last: BTreeMap<(i64, &str), &Row> = BTreeMap::new();
    for row in in_order(rows) {
        let key = (of(row, "partition"), text(row, "topic").unwrap_or_default());
        if text(row, "op") == Some("DELETE") {
            last.remove(&key);
            continue;
        }
        let (old, new) = (number(row, "old_offset"), of(row, "next_offset"));
        let before = last.insert(key, row);
        let around: Vec<&Row> = before.into_iter().chain([row]).collect();
        // A recovery empties the tables without a word and begins anew.
        let anew = text(row, "op") == Some("INSERT");
        if before.is_some_and(|before| !anew && number(before, "next_offset") != old) {
            violated(service, POSITIONS, "a position does not begin where the last one ended", &around, findings);
        }
        if old.is_some_and(|old| new < old)
            || number(row, "old_sequence").is_some_and(|old| of(row, "last_sequence") < old)
        {
            violated(service, POSITIONS, "a position went back", &around, findings);
        }
        if old.is_some() && !batches.contains(&(key.0, of(row, "tx"))) {
            violated(service, POSITIONS, "a position moved outside a batch of its processor", &around, findings);
        }
    }
}
