//! The plan of a run: which faults, to whom, when. It follows from the seed and the length alone.
//!
//! How often each kind comes is the table of the reliability plan, for ten minutes; shorter and longer runs take their share.

mod draft;

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::faults::Fault;

/// Instances of each service that always run.
pub(super) const INSTANCES: usize = 2;

/// How often in ten minutes.
pub(super) const PER_TEN_MINUTES: [(&str, u32); 31] = [
    ("kill", 24),
    ("kill_both", 2),
    ("stop", 8),
    ("broker_kill", 4),
    ("broker_restart", 2),
    ("broker_stop", 1),
    ("postgres_quit", 6),
    ("postgres_backend", 6),
    ("cut_kafka", 4),
    ("cut_postgres", 4),
    ("half_open", 2),
    ("half_close", 2),
    ("slow_link", 4),
    ("slow_all", 1),
    ("thin_link", 2),
    ("swizzle", 2),
    ("reset_storm", 2),
    ("lost_commit", 6),
    ("lost_report", 4),
    ("rebalance", 2),
    ("registry_away", 2),
    ("gateway", 4),
    ("mail", 2),
    ("overload", 1),
    ("boundary", 12),
    ("holder_stop", 2),
    ("slow_processor", 1),
    ("clock", 4),
    ("registry_empty", 1),
    ("process_clock", 1),
    ("miswrite", 3),
];

struct Planner {
    random: StdRng,
    /// Longest a fault may last.
    room: Duration,
    /// Whose turn it is to be killed, so that each has its share.
    turns: Vec<&'static str>,
}

/// All faults, by their beginnings. They end within `length`.
pub(super) fn plan(seed: u64, length: Duration) -> Vec<Fault> {
    let mut planner = Planner { random: StdRng::seed_from_u64(seed), room: length.mul_f64(0.6), turns: Vec::new() };
    let mut faults = Vec::new();
    for (kind, often) in PER_TEN_MINUTES {
        let share = f64::from(often) * length.as_secs_f64() / 600.0;
        for number in 0..often.saturating_mul(1_000) {
            // The whole part for certain, the rest by chance.
            let chance = (share - f64::from(number)).clamp(0.0, 1.0);
            if chance == 0.0 || !planner.random.random_bool(chance) {
                break;
            }
            let (target, detail, acts) = planner.draft(kind);
            let mut fault = Fault { at: Duration::ZERO, kind, target, detail, acts };
            fault.at = length.saturating_sub(fault.lasts()).mul_f64(planner.random.random::<f64>());
            faults.push(fault);
        }
    }
    faults.sort_by_key(|fault| fault.at);
    faults
}

/// How often each kind is planned.
pub(super) fn kinds(faults: &[Fault]) -> BTreeMap<String, u64> {
    let mut kinds = BTreeMap::new();
    for fault in faults {
        *kinds.entry(fault.kind.to_owned()).or_default() += 1;
    }
    kinds
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
