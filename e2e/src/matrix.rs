//! The crash matrix: every boundary of the reliability plan is reached under load and something happens there: the process
//! dies, the step errs or has no known outcome, or the process stands still for longer than its session.
//!
//! Four lanes at once on one stack, one per service, because a killed member keeps its partitions for six seconds; each
//! lane goes through its boundaries one after the other. After all of them the stack heals, converges and is judged by the
//! checker. What a boundary is, is [`engine::failpoint`]'s; only the test build has any.

mod lane;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::ensure;
use engine::failpoint;
use tokio::sync::Mutex;

use crate::desk;
use crate::evidence::{self, Expects, Run};
use crate::history::History;
use crate::load::Load;
use crate::stack::{Options, Stack};
use crate::verdict;

use lane::Lane;

/// What happens at a boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The process is gone at once.
    Kill,
    /// The step behind it errs; where its outcome can be unknown, that.
    Err,
    /// The process stands still for longer than its session, and then goes on.
    Stop,
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "sigkill",
            Self::Err => "err",
            Self::Stop => "stop",
        }
    }
}

/// The instances of a service.
const INSTANCES: usize = 2;

/// Which service's lane goes through which boundaries, in this order. From `D1` on, order-svc's database refuses every
/// seventh confirmation; before `D3` that is mended.
const LANES: [(&str, &[&str]); 4] = [
    ("order-svc", &["A2", "A3", "A4", "A5", "A6", "D1", "D2", "D4", "R4", "D3"]),
    ("inventory-svc", &["C1", "C2", "C3", "C4", "C5", "C6", "C7", "E1", "E2"]),
    ("payment-svc", &["G1", "G2", "G3", "G4", "G5", "R1", "R2", "R3", "R5"]),
    ("notify-svc", &["N1", "N2", "N3", "E3", "B1", "B2", "B3"]),
];

/// Goes through all boundaries with this action, each at the so-many-th time it is reached.
///
/// # Errors
/// When a boundary is not reached in time, the stack does not heal, or the checker says no: with the folder of the logs.
pub async fn run(action: Action, hit: impl Fn(&str) -> u64) -> anyhow::Result<()> {
    let options = Options { instances: INSTANCES, pay_within: "8s", timer_grace: "2s", ..Options::default() };
    let stack = Arc::new(Mutex::new(Stack::start(&options).await?));
    let result = all(&stack, action, hit).await;
    let mut stack = stack.lock().await;
    result.map_err(|error| error.context(format!("{}; logs: {}", action.name(), stack.keep_logs().display())))
}

async fn all(stack: &Arc<Mutex<Stack>>, action: Action, hit: impl Fn(&str) -> u64) -> anyhow::Result<()> {
    let folder = verdict::folder(&*stack.lock().await);
    let history = Arc::new(History::open(&folder)?);
    let started_at = history.now();
    verdict::audit(&*stack.lock().await).await?;
    let load = Load::open(&*stack.lock().await, Arc::clone(&history)).await?;
    let traffic = tokio::spawn(Arc::clone(&load).run());
    let lane = |(service, labels): (&'static str, &[&'static str])| {
        let steps = labels.iter().map(|label| (*label, hit(label))).collect();
        Lane { stack: Arc::clone(stack), history: Arc::clone(&history), folder: folder.clone(), service, action, steps }
    };
    let [order, inventory, payment, notify] = LANES.map(lane);
    let reached = tokio::try_join!(order.run(), inventory.run(), payment.run(), notify.run())?;
    let hits: BTreeMap<&str, u64> = [reached.0, reached.1, reached.2, reached.3].into_iter().flatten().collect();
    load.end();
    traffic.await??;
    let healed_at = history.now();
    let labels: BTreeSet<&str> = failpoint::ALL.iter().map(|boundary| boundary.label).collect();
    ensure!(hits.keys().copied().collect::<BTreeSet<_>>() == labels, "only {:?} were reached", hits.keys());
    evidence::write_json(&folder, "failpoints.json", &hits)?;
    let mut stack = stack.lock().await;
    stack.wait_until_ready().await?;
    desk::redrive_all(&stack, "order-svc").await?;
    let expects = Expects {
        failpoints: labels.iter().map(|label| ((*label).to_owned(), 1)).collect(),
        statuses: [("CONFIRMED".to_owned(), 20), ("CANCELLED".to_owned(), 3)].into(),
        counters: [("held_released".to_owned(), 1)].into(),
        // Two instances of one address: while it is dead or stands still, nobody is served. A fault is there at once.
        ok_during_percent: Some(5),
        ok_before_percent: Some(5),
        ..Expects::default()
    };
    let run = Run {
        started_at,
        loaded_until: Some(healed_at),
        healed_at: Some(healed_at),
        whole_history: true,
        expects,
        ..Run::default()
    };
    let report = verdict::valid(&stack, &folder, &run).await?;
    let checked = report.checks.iter().find(|one| one.invariant == "I1").map(|one| one.looked_at.clone());
    println!("{}: {} boundaries, valid; I1 {checked:?}", action.name(), hits.len());
    Ok(())
}
