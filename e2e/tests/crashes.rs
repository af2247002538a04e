//! Traffic while services are killed, stopped and woken: the end is the same as without.
//!
//! The crash matrix and the chaos run are the systematic ones; this is the smoke test of the same promise.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use e2e::client::eventually;
use e2e::evidence::{Expects, Run};
use e2e::history::History;
use e2e::load::{BROKEN, Load};
use e2e::stack::{Options, SERVICES, Stack};
use e2e::{desk, verdict};
use nix::sys::signal::Signal;
use tokio::task::JoinHandle;

/// Longer than a session, which is six seconds.
const A_SESSION_AND_MORE: Duration = Duration::from_secs(9);

/// A stack under load, and what is written down of it.
struct Crashes {
    stack: Stack,
    folder: PathBuf,
    history: Arc<History>,
    started_at: i64,
    load: Arc<Load>,
    traffic: JoinHandle<anyhow::Result<()>>,
}

impl Crashes {
    async fn begin() -> anyhow::Result<Self> {
        let options = Options { instances: 2, pay_within: "8s", timer_grace: "2s", ..Options::default() };
        let stack = Stack::start(&options).await?;
        let folder = verdict::folder(&stack);
        let history = Arc::new(History::open(&folder)?);
        let started_at = history.now();
        verdict::audit(&stack).await?;
        let load = Load::open(&stack, Arc::clone(&history)).await?;
        let traffic = tokio::spawn(Arc::clone(&load).run());
        tokio::time::sleep(Duration::from_secs(3)).await;
        Ok(Self { stack, folder, history, started_at, load, traffic })
    }

    /// An instance is gone for half a second; then it works for a while.
    async fn kill(&mut self, service: &'static str, number: usize, works: Duration) -> anyhow::Result<()> {
        verdict::fault(&self.folder, &self.history, "kill", service)?;
        self.stack.kill(service, number)?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        self.stack.restart(service, number)?;
        tokio::time::sleep(works).await;
        Ok(())
    }

    /// Everything comes to its end, and the checker judges.
    async fn judge(&mut self, healed_at: i64, expects: Expects) -> anyhow::Result<()> {
        let minimums = |all: &[(&str, u64)]| all.iter().map(|(name, least)| ((*name).to_owned(), *least)).collect();
        let statuses = minimums(&[("CONFIRMED", 20), ("CANCELLED", 3)]);
        // Two instances of one address: while it is dead, nobody is served. The first fault comes after a few seconds.
        let expects = Expects { statuses, ok_before_percent: Some(50), ok_during_percent: Some(10), ..expects };
        let (started_at, loaded_until) = (self.started_at, Some(self.history.now()));
        let healed_at = Some(healed_at);
        let run = Run { started_at, loaded_until, healed_at, whole_history: true, expects, ..Run::default() };
        let report = verdict::valid(&self.stack, &self.folder, &run).await?;
        let looked_at =
            |id: &str| report.checks.iter().find(|one| one.invariant == id).map(|one| one.looked_at.clone());
        println!("valid; I1 {:?}, I8 {:?}, I10 {:?}", looked_at("I1"), looked_at("I8"), looked_at("I10"));
        Ok(())
    }

    async fn end_load(&mut self) -> anyhow::Result<()> {
        self.load.end();
        (&mut self.traffic).await??;
        self.stack.wait_until_ready().await
    }
}

async fn run(crashes: &mut Crashes) -> anyhow::Result<()> {
    for service in SERVICES {
        crashes.kill(service, 0, Duration::from_secs(1)).await?;
    }
    for service in ["inventory-svc", "payment-svc"] {
        verdict::fault(&crashes.folder, &crashes.history, "stop", service)?;
        crashes.stack.signal(service, 1, Signal::SIGSTOP)?;
    }
    tokio::time::sleep(A_SESSION_AND_MORE).await;
    for service in ["inventory-svc", "payment-svc"] {
        crashes.stack.signal(service, 1, Signal::SIGCONT)?;
    }
    let healed_at = crashes.history.now();
    crashes.end_load().await?;
    let faults = [("kill".to_owned(), 4), ("stop".to_owned(), 2)].into();
    crashes.judge(healed_at, Expects { faults, ..Expects::default() }).await
}

async fn run_with_held_records(crashes: &mut Crashes) -> anyhow::Result<()> {
    let database = crashes.stack.databases["order-svc"].clone();
    desk::refuse(&database, "CONFIRMED", BROKEN).await?;
    eventually("something is held or dead", Duration::from_secs(90), async || {
        Ok(if desk::is_empty(&crashes.stack, "order-svc")? { Err("nothing is".to_owned()) } else { Ok(()) })
    })
    .await?;
    // Both instances in turns: what one has held, the other tries again. Each has longer than a session: until the group has
    // given up who was killed, nobody has its processors.
    for round in 0..4 {
        crashes.kill("order-svc", round % 2, A_SESSION_AND_MORE).await?;
    }
    crashes.end_load().await?;
    desk::accept_again(&database).await?;
    let healed_at = crashes.history.now();
    desk::redrive_all(&crashes.stack, "order-svc").await?;
    let faults = [("kill".to_owned(), 4)].into();
    let counters = [("held_released".to_owned(), 1)].into();
    crashes.judge(healed_at, Expects { faults, counters, ..Expects::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn held_records_are_neither_lost_nor_doubled_by_kills() -> anyhow::Result<()> {
    let mut crashes = Crashes::begin().await?;
    if let Err(error) = run_with_held_records(&mut crashes).await {
        panic!("{error:#}\nlogs: {}", crashes.stack.keep_logs().display());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_and_paused_services_lose_and_double_nothing() -> anyhow::Result<()> {
    let mut crashes = Crashes::begin().await?;
    if let Err(error) = run(&mut crashes).await {
        panic!("{error:#}\nlogs: {}", crashes.stack.keep_logs().display());
    }
    Ok(())
}
