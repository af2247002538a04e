//! What a check found: what it looked at, what is violated, and the smallest thing that shows it.

use serde::Serialize;
use serde_json::Value;

/// Witnesses that are worked out per invariant; further violations are counted.
const WITNESSES_MAX: usize = 50;
/// Longer lists in a witness are cut: who needs more has the folder.
const LINES_MAX: usize = 60;

/// What shows that an invariant does not hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Witness {
    /// Client operations.
    pub history: Vec<Value>,
    /// Records in the order of the log, per topic.
    pub log: Vec<Value>,
    /// Rows of tables.
    pub rows: Vec<Value>,
    /// What the gateway, the sink or the run says.
    pub outside: Vec<Value>,
}

impl Witness {
    /// How much there is to read.
    #[must_use]
    pub fn size(&self) -> usize {
        self.history.len() + self.log.len() + self.rows.len() + self.outside.len()
    }

    pub(super) fn of_outside(lines: impl IntoIterator<Item = Value>) -> Self {
        Self { outside: lines.into_iter().collect(), ..Self::default() }
    }

    pub(super) fn of_log(lines: impl IntoIterator<Item = Value>) -> Self {
        Self { log: lines.into_iter().collect(), ..Self::default() }
    }

    pub(super) fn with_outside(mut self, lines: impl IntoIterator<Item = Value>) -> Self {
        self.outside.extend(lines);
        self
    }

    pub(super) fn with_rows(mut self, rows: impl IntoIterator<Item = Value>) -> Self {
        self.rows.extend(rows);
        self
    }

    fn cut(mut self) -> Self {
        for lines in [&mut self.history, &mut self.log, &mut self.rows, &mut self.outside] {
            lines.truncate(LINES_MAX);
        }
        self
    }
}

/// One violation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Violation {
    /// `I1` to `I16`
    pub invariant: &'static str,
    /// A sentence that names whom it is about.
    pub what: String,
    /// What shows it.
    pub witness: Witness,
}

/// What became of one invariant.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Checked {
    /// `I1` to `I16`
    pub invariant: &'static str,
    /// What was checked.
    pub checked: &'static str,
    /// How much was looked at, by what it is.
    pub looked_at: Vec<(&'static str, u64)>,
    /// How often it is violated.
    pub violated: u64,
    /// Violations, the one with the smallest witness first.
    pub violations: Vec<Violation>,
    /// What was not decided, and why.
    pub undecided: Vec<String>,
}

/// The verdict over a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// True when nothing is violated.
    pub valid: bool,
    /// Invariants that are not checked at all.
    pub left_out: Vec<String>,
    /// All others.
    pub checks: Vec<Checked>,
}

impl Report {
    /// The invariants that do not hold.
    #[must_use]
    pub fn violated(&self) -> Vec<&'static str> {
        self.checks.iter().filter(|checked| checked.violated > 0).map(|checked| checked.invariant).collect()
    }
}

/// A check under way.
#[derive(Debug)]
pub(super) struct Findings {
    checked: Checked,
}

impl Findings {
    pub(super) fn new(invariant: &'static str, checked: &'static str) -> Self {
        let (looked_at, violations, undecided) = (Vec::new(), Vec::new(), Vec::new());
        Self { checked: Checked { invariant, checked, looked_at, violated: 0, violations, undecided } }
    }

    /// Says how much was looked at.
    pub(super) fn count(&mut self, what: &'static str, number: usize) {
        let number = u64::try_from(number).unwrap_or(u64::MAX);
        match self.checked.looked_at.iter_mut().find(|(known, _)| *known == what) {
            Some((_, sum)) => *sum += number,
            None => self.checked.looked_at.push((what, number)),
        }
    }

    pub(super) fn violated(&mut self, what: String, witness: impl FnOnce() -> Witness) {
        self.checked.violated += 1;
        if self.checked.violations.len() < WITNESSES_MAX {
            let invariant = self.checked.invariant;
            self.checked.violations.push(Violation { invariant, what, witness: witness() });
        }
    }

    pub(super) fn undecided(&mut self, what: &str) {
        self.checked.undecided.push(what.to_owned());
    }

    pub(super) fn close(mut self) -> Checked {
        self.checked.violations.sort_by_key(|violation| violation.witness.size());
        for violation in &mut self.checked.violations {
            violation.witness = std::mem::take(&mut violation.witness).cut();
        }
        self.checked
    }
}
