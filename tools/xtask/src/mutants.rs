//! The seeded bugs of the test build, each with the test that must fail with it (reliability plan, Mutants).
//!
//! The bugs themselves are in `engine::mutant` and where they are asked for; a test that passes with one cannot see.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result};

use crate::binaries::Built;
use crate::layout::Layout;
use crate::process::Program;
use crate::signals;

/// A bug, and the test that sees it.
#[derive(Debug, Clone, Copy)]
struct Mutant {
    /// What `MUTANT` is set to.
    name: &'static str,
    package: &'static str,
    /// The test binary: `it`, or the library's own tests under its name.
    target: &'static str,
    test: &'static str,
}

/// A bug that only shows when two things happen in time is given so many chances.
const CHANCES: usize = 3;
/// Tests that run at once; with a bug they mostly wait for what does not come.
const AT_ONCE: usize = 3;

/// All of them, in the plan's order.
const ALL: [Mutant; 20] = {
    const fn of(package: &'static str, target: &'static str, name: &'static str, test: &'static str) -> Mutant {
        Mutant { name, package, target, test }
    }
    const fn contract(name: &'static str, test: &'static str) -> Mutant {
        of("engine", "it", name, test)
    }
    [
        contract(
            "position-outside-the-transaction",
            "boundaries::a_batch_whose_owner_dies_before_its_commit_left_nothing",
        ),
        contract("no-sequence-check", "order::repeats_of_a_foreign_event_are_dropped"),
        contract(
            "outbox-row-deleted-before-its-acknowledgement",
            "boundaries::what_the_log_does_not_have_stays_in_the_outbox",
        ),
        contract("hole-passed-over", "order::a_hole_in_a_foreign_sequence_stops_its_reader_and_no_other"),
        contract("held-key-does-not-rest", "held::timers_and_effects_of_a_held_key_rest"),
        contract("fence-without-epoch", "boundaries::an_owner_that_wakes_commits_nothing_even_before_its_heir_does"),
        contract("followers-of-a-held-record-go-on", "held::a_record_that_fails_keeps_its_key_in_order_and_no_other"),
        contract("offset-reset-to-latest", "outages::a_reader_whose_log_is_cut_off_says_so_and_jumps_nowhere"),
        of("payment-svc", "it", "fresh-key-for-each-charge", "calls::a_call_whose_answer_was_lost_is_not_made_again"),
        of("inventory-svc", "it", "stock-without-a-lock", "batch::processors_that_meet_on_products_never_oversell"),
        of("order-svc", "it", "clock-in-evolve", "batch::the_fold_of_the_events_gives_the_live_rows"),
        contract("dead-letter-beside-the-outbox", "boundaries::a_dead_letter_is_written_with_its_batch_or_not_at_all"),
        of(
            "engine",
            "engine",
            "report-without-offset-counts",
            "publisher_tests::a_false_acknowledgement_does_not_count",
        ),
        contract(
            "epoch-bump-and-reads-in-one-statement",
            "boundaries::what_is_committed_while_the_next_owner_waits_is_published_by_it",
        ),
        contract(
            "unknown-commit-tried-again-without-batch-number",
            "commits::a_commit_whose_reply_is_lost_counts_once",
        ),
        contract("timer-before-catch-up", "timers::a_timer_waits_for_the_backlog"),
        contract("lock-time-out-held-as-a-bad-record", "pool::only_what_speaks_of_a_row_is_a_records_fault"),
        contract("recovery-keeps-the-outbox", "recovery::what_is_not_in_the_log_was_not_decided"),
        contract("effect-before-its-acknowledgement", "effects::an_effect_starts_only_when_its_event_is_in_the_log"),
        of(
            "engine",
            "engine",
            "two-topics-in-flight",
            "publisher_tests::the_next_topic_is_begun_when_the_last_is_through",
        ),
    ]
};

/// Runs every bug's test with it. Returns what to say of each that was not caught.
///
/// # Errors
/// When a test cannot be run.
pub(crate) fn run(built: &[Built], environment: &BTreeMap<String, String>, layout: &Layout) -> Result<Vec<String>> {
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || -> Result<()> {
        while let Some(mutant) = ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
            signals::check()?;
            let caught = mutant.is_caught(built, environment, layout)?;
            println!("{:<50} {}", mutant.name, if caught { "caught" } else { "NOT CAUGHT" });
            if !caught {
                let Mutant { name, package, test, .. } = mutant;
                let failure = format!("no test sees the bug `{name}`: {package}'s `{test}` passes with it");
                failures.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(failure);
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| anyhow::bail!("a thread panicked")))
    })?;
    Ok(failures.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
}

impl Mutant {
    fn is_caught(&self, built: &[Built], environment: &BTreeMap<String, String>, layout: &Layout) -> Result<bool> {
        let here = |test: &&Built| {
            let target = if test.kind == "test" { "it" } else { self.package };
            test.test && test.package == self.package && test.target == self.target && target == self.target
        };
        let binary = built.iter().find(here).with_context(|| format!("no tests of {}", self.package))?;
        let log = layout.log_of(&format!("mutant-{}", self.name));
        for _ in 0..CHANCES {
            let mut program = Program::new(&binary.path).args(["--exact", self.test]).env("MUTANT", self.name);
            program.env.extend(environment.clone());
            program.folder = Some(binary.package_folder.clone());
            let failed = program.run(self.test, &log).is_err();
            signals::check()?;
            if failed && is_caught(&fs::read_to_string(&log)?) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether the output of a test binary shows that the one test ran and failed.
fn is_caught(output: &str) -> bool {
    output.contains("running 1 test\n") && output.contains("test result: FAILED. 0 passed; 1 failed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bug_is_caught_by_a_test_that_ran_and_failed() {
        let ran = |result: &str| format!("\nrunning 1 test\ntest x ... \n\ntest result: {result}; 0 ignored\n");
        assert!(is_caught(&ran("FAILED. 0 passed; 1 failed")));
        assert!(!is_caught(&ran("ok. 1 passed; 0 failed")));
        assert!(!is_caught("running 0 tests\n\ntest result: ok. 0 passed; 0 failed"));
        assert!(!is_caught("MUTANT: `x` is none of"));
    }

    #[test]
    fn every_bug_of_the_engine_has_its_test() {
        let source = include_str!("../../../engine/src/mutant.rs");
        for Mutant { name, .. } in ALL {
            assert!(source.contains(&format!("\"{name}\"")), "{name}");
        }
        assert_eq!(source.matches("    \"").count(), ALL.len());
    }
}
