//! What a person or a script reads when a run is over.
//!
//! The evidence is beside it; this is only the short of it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use comfy_table::{Table, presets};
use serde::Serialize;

use super::Options;
use super::field::Field;
use super::injector::Injected;
use crate::{checker, evidence};

/// When what was, in microseconds since 1970; and how long the end took.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Times {
    pub(super) started_at: i64,
    pub(super) loaded_until: i64,
    pub(super) healed_at: i64,
    pub(super) progress: Option<Duration>,
    pub(super) settled: Option<Duration>,
}

/// How often a kind of fault was done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Done {
    /// In all.
    pub done: usize,
    /// Of which the system was seen to notice.
    pub felt: usize,
    /// Of which nobody can say.
    pub unknown: usize,
}

/// The short of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Repeats it.
    pub seed: u64,
    /// Of the tree that was run.
    pub commit: String,
    /// Of load.
    pub seconds: u64,
    /// Orders per second.
    pub rate: f64,
    /// By kind.
    pub faults: BTreeMap<String, Done>,
    /// Orders that clients wanted, and those that were accepted.
    pub wanted: usize,
    /// Answered with 202.
    pub accepted: usize,
    /// Answers by class: ok, fail, info.
    pub answers: [usize; 3],
    /// Copies and strangers' records appended, and those of which nobody knows.
    pub injected: [usize; 3],
    /// From the healing to the first confirmed order.
    pub progress_seconds: Option<f64>,
    /// From then to the end of everything.
    pub settled_seconds: Option<f64>,
    /// How often each invariant is violated.
    pub invariants: Vec<(&'static str, u64)>,
    /// What did not come to an end, or ended by itself.
    pub not_live: Vec<String>,
    /// One violation of each invariant that does not hold; the rest is `checker`'s to tell, from the evidence.
    pub violations: Vec<String>,
    /// Where the evidence is.
    pub evidence: PathBuf,
}

impl Report {
    pub(super) fn new(
        options: &Options,
        commit: String,
        times: &Times,
        done: &[evidence::Fault],
        field: &Field,
        injected: &Injected,
    ) -> Self {
        let mut faults = BTreeMap::<String, Done>::new();
        for fault in done {
            let kind = faults.entry(fault.kind.clone()).or_default();
            kind.done += 1;
            kind.felt += usize::from(fault.felt == Some(true));
            kind.unknown += usize::from(fault.felt.is_none());
        }
        let (now, tally) = (|counter: &AtomicUsize| counter.load(Ordering::Relaxed), &field.load.tally);
        Self {
            seed: options.seed,
            commit,
            seconds: options.length.as_secs(),
            rate: options.rate,
            faults,
            wanted: now(&tally.begun),
            accepted: now(&tally.accepted),
            answers: [now(&tally.ok), now(&tally.fail), now(&tally.info)],
            injected: [injected.repeats, injected.strange, injected.unknown.len()],
            progress_seconds: times.progress.map(|time| time.as_secs_f64()),
            settled_seconds: times.settled.map(|time| time.as_secs_f64()),
            invariants: Vec::new(),
            not_live: Vec::new(),
            violations: Vec::new(),
            evidence: options.out.clone(),
        }
    }

    /// Takes over what the checker says.
    pub(super) fn judged(&mut self, judged: &checker::Report) {
        for checked in &judged.checks {
            self.invariants.push((checked.invariant, checked.violated));
            self.violations.extend(checked.violations.first().map(|one| format!("{}: {}", one.invariant, one.what)));
        }
    }

    /// True when nothing is wrong.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.not_live.is_empty() && self.violations.is_empty()
    }

    /// `valid`, or what it is instead.
    #[must_use]
    pub fn verdict(&self) -> &'static str {
        match (self.violations.is_empty(), self.not_live.is_empty()) {
            (false, _) => "VIOLATED",
            (true, false) => "NOT LIVE",
            (true, true) => "valid",
        }
    }

    /// What a person types to run it again.
    #[must_use]
    pub fn again(&self) -> String {
        let minutes = Duration::from_secs(self.seconds).as_secs_f64() / 60.0;
        format!("cargo chaos --seed {} --minutes {minutes} --rate {}", self.seed, self.rate)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(["FAULT", "DONE", "FELT", "NOBODY KNOWS"]);
        for (kind, done) in &self.faults {
            table.add_row([kind.clone(), done.done.to_string(), done.felt.to_string(), done.unknown.to_string()]);
        }
        writeln!(f, "{table}")?;
        let [ok, fail, info] = self.answers;
        let [repeats, strange, unknown] = self.injected;
        writeln!(
            f,
            "\n{} orders wanted, {} accepted; answers: {ok} ok, {fail} refused, {info} unclear",
            self.wanted, self.accepted
        )?;
        writeln!(f, "injected: {repeats} copies, {strange} strangers' records, {unknown} of which nobody knows")?;
        let seconds = |time: Option<f64>| time.map_or("not".to_owned(), |time| format!("after {time:.1} s"));
        let (progress, settled) = (seconds(self.progress_seconds), seconds(self.settled_seconds));
        writeln!(f, "healed: first order confirmed {progress}, at rest {settled}")?;
        let holding = self.invariants.iter().filter(|(_, violated)| *violated == 0).map(|(name, _)| *name);
        writeln!(f, "hold: {}", holding.collect::<Vec<_>>().join(" "))?;
        for line in self.not_live.iter().chain(&self.violations) {
            writeln!(f, "\n{line}")?;
        }
        writeln!(f, "\nverdict: {}   seed {}   commit {}", self.verdict(), self.seed, self.commit)?;
        writeln!(f, "evidence: {}\nagain: {}", self.evidence.display(), self.again())
    }
}

/// The commit of the tree, with a `+` when it was changed since.
pub(super) fn commit() -> String {
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.args(["-C", env!("CARGO_MANIFEST_DIR")]).args(arguments).stderr(Stdio::null());
        let output = git.output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=9", "HEAD"]) else { return "unknown".to_owned() };
    let is_changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_none_or(|changes| !changes.is_empty());
    if is_changed { commit + "+" } else { commit }
}
