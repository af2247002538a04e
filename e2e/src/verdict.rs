//! Ends a run: waits until nothing moves any more, keeps the evidence, and asks the checker.
//!
//! What is still on its way shows as an order that is not final or a position before its end; so the folder is filled again
//! until those two hold, or the time is over. Everything else is judged once.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::checker::{self, Report};
use crate::evidence::{self, Folder, Run, lines};
use crate::history::History;
use crate::stack::Stack;

/// Invariants that a run comes to hold.
const LIVENESS: [&str; 2] = ["I6", "I10"];
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Where a stack keeps its evidence: with its logs.
#[must_use]
pub fn folder(stack: &Stack) -> PathBuf {
    stack.stack_file().with_file_name("evidence")
}

/// Installs the audit in all databases of a stack.
///
/// # Errors
/// As [`evidence::audit::install`].
pub async fn audit(stack: &Stack) -> anyhow::Result<()> {
    for url in stack.databases.values() {
        evidence::audit::install(url).await?;
    }
    Ok(())
}

/// Notes a fault.
///
/// # Errors
/// When it cannot be written.
pub fn fault(folder: &Path, history: &History, kind: &str, target: &str) -> anyhow::Result<()> {
    let fault = evidence::Fault {
        at: history.now(),
        kind: kind.to_owned(),
        target: target.to_owned(),
        detail: serde_json::Value::Null,
        felt: None,
    };
    lines::Lines::open(folder, "faults.ndjson")?.append(&fault)
}

/// Fills the folder until everything is at its end, then judges it.
///
/// # Errors
/// When the evidence cannot be taken. What is violated is in the report.
pub async fn of(stack: &Stack, folder: &Path, run: &Run, within: Duration) -> anyhow::Result<Report> {
    let started = Instant::now();
    loop {
        let run = Run { converged_at: Some(engine::clock::wall().0.saturating_mul(1_000)), ..run.clone() };
        evidence::collect(stack, folder, &run).await?;
        let report = checker::judge(&Folder::read(folder)?)?;
        let moving = report.violated().iter().any(|id| LIVENESS.contains(id));
        if !moving || started.elapsed() > within {
            break;
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
    evidence::verify(stack, folder)?;
    checker::judge(&Folder::read(folder)?)
}

/// As [`of`], for a test: an error that names what is violated.
///
/// # Errors
/// When the verdict is not valid, with the smallest witness of each violation.
pub async fn valid(stack: &Stack, folder: &Path, run: &Run) -> anyhow::Result<Report> {
    let report = of(stack, folder, run, Duration::from_secs(90)).await?;
    let violated = report.checks.iter().filter_map(|checked| checked.violations.first());
    let said: Vec<String> = violated.map(|one| serde_json::to_string(one).unwrap_or_default()).collect();
    ensure!(report.valid, "the checker says:\n{}", said.join("\n"));
    Ok(report)
}
