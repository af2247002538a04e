//! One service's way through its boundaries.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use tokio::sync::Mutex;

use super::{Action, INSTANCES};
use crate::boundaries;
use crate::client::{Client, eventually};
use crate::desk;
use crate::history::History;
use crate::load::BROKEN;
use crate::stack::Stack;
use crate::verdict;

/// A boundary is reached within this time, whatever the step before it left.
const REACHED_WITHIN: Duration = Duration::from_secs(90);
/// Longer than a session, which is six seconds.
const STANDS_STILL: Duration = Duration::from_secs(8);

/// A service and what happens at its boundaries.
pub(super) struct Lane {
    pub(super) stack: Arc<Mutex<Stack>>,
    pub(super) history: Arc<History>,
    pub(super) folder: PathBuf,
    pub(super) service: &'static str,
    pub(super) action: Action,
    /// Boundaries, and the so-many-th time that each is reached.
    pub(super) steps: Vec<(&'static str, u64)>,
}

impl Lane {
    /// Every boundary in turn; how often each was reached when something happened there.
    pub(super) async fn run(self) -> anyhow::Result<BTreeMap<&'static str, u64>> {
        let mut reached = BTreeMap::new();
        for (label, hit) in &self.steps {
            let step = async {
                match *label {
                    "B1" | "B2" | "B3" => self.rebuild(label).await,
                    "D1" => {
                        desk::refuse(&self.database().await, "CONFIRMED", BROKEN).await?;
                        self.step(label, *hit).await
                    }
                    "D3" => self.mended(label, *hit).await,
                    _ => self.step(label, *hit).await,
                }
            };
            step.await.with_context(|| format!("at {label} in {}", self.service))?;
            verdict::fault(&self.folder, &self.history, &format!("{}:{label}", self.action.name()), self.service)?;
            reached.insert(*label, *hit);
        }
        Ok(reached)
    }

    async fn database(&self) -> String {
        self.stack.lock().await.databases[self.service].clone()
    }

    /// Arms a boundary, waits until something happened there, and heals it.
    async fn step(&self, label: &str, hit: u64) -> anyhow::Result<()> {
        let actions = format!("{}*off->1*return({})->off", hit - 1, self.action.name());
        let actions = actions.trim_start_matches("0*off->");
        // Clients ask the first instance only; what happens at a rebalance must not meet both.
        let rebalances = matches!(label, "C7" | "E1" | "E2" | "E3");
        let armed = if rebalances || label.starts_with('A') { 1 } else { INSTANCES };
        let mut before = Vec::new();
        for number in 0..armed {
            before.push(self.hits(number, label).await?);
            match self.arm(number, label, actions).await {
                // It may die or stand still before it has answered; below it must have.
                Err(_) if self.action != Action::Err => {}
                armed => armed?,
            }
        }
        if rebalances {
            self.bounce(INSTANCES - 1).await?;
        }
        eventually("a boundary is reached", REACHED_WITHIN, async || {
            for (number, before) in before.iter().enumerate() {
                if self.has_happened(number, label, before + hit).await? {
                    return Ok(Ok(()));
                }
            }
            Ok(Err(format!("{label} is not reached")))
        })
        .await?;
        if self.action == Action::Stop {
            tokio::time::sleep(STANDS_STILL).await;
        }
        for number in 0..armed {
            self.heal(number, label).await?;
        }
        self.ready().await
    }

    /// The instance is well again and no longer armed, whatever has happened to it.
    async fn heal(&self, number: usize, label: &str) -> anyhow::Result<()> {
        eventually("an instance is disarmed", REACHED_WITHIN, async || {
            let mut stack = self.stack.lock().await;
            let process = stack.process(self.service, number)?;
            if process.is_stopped() {
                process.signal(Signal::SIGCONT)?;
            } else if process.running().is_none() {
                // A new process is armed for nothing.
                return stack.restart(self.service, number).map(Ok);
            }
            drop(stack);
            Ok(self.arm(number, label, "off").await.map_err(|error| format!("{error:#}")))
        })
        .await
    }

    async fn has_happened(&self, number: usize, label: &str, hits: u64) -> anyhow::Result<bool> {
        match self.action {
            Action::Err => Ok(self.hits(number, label).await? >= hits),
            Action::Kill => Ok(self.stack.lock().await.process(self.service, number)?.running().is_none()),
            Action::Stop => Ok(self.stack.lock().await.process(self.service, number)?.is_stopped()),
        }
    }

    /// A member goes and comes again.
    async fn bounce(&self, number: usize) -> anyhow::Result<()> {
        let mut stack = self.stack.lock().await;
        stack.kill(self.service, number)?;
        stack.restart(self.service, number)
    }

    async fn ready(&self) -> anyhow::Result<()> {
        let admins: Vec<String> = {
            let stack = self.stack.lock().await;
            (0..INSTANCES).map(|number| stack.admin(self.service, number).to_owned()).collect()
        };
        let client = reqwest::Client::builder().timeout(Duration::from_secs(2)).build()?;
        eventually("a service is ready again", REACHED_WITHIN, async || {
            for admin in &admins {
                let answer = client.get(format!("{admin}/readyz")).send().await;
                if !answer.as_ref().is_ok_and(|answer| answer.status().is_success()) {
                    return Ok(Err(format!("{admin}: {answer:?}")));
                }
            }
            Ok(Ok(()))
        })
        .await
    }

    async fn arm(&self, number: usize, label: &str, actions: &str) -> anyhow::Result<()> {
        let (operator, admin) = self.admin(number).await?;
        boundaries::arm(&operator, &admin, label, actions).await
    }

    async fn hits(&self, number: usize, label: &str) -> anyhow::Result<u64> {
        let (operator, admin) = self.admin(number).await?;
        boundaries::hits(&operator, &admin, label).await
    }

    async fn admin(&self, number: usize) -> anyhow::Result<(Client, String)> {
        let stack = self.stack.lock().await;
        Ok((Client::operator(&stack)?, stack.admin(self.service, number).to_owned()))
    }

    /// The cause is mended; the first of the held records of a key is applied, and something happens before those behind it.
    async fn mended(&self, label: &str, hit: u64) -> anyhow::Result<()> {
        desk::accept_again(&self.database().await).await?;
        let redriving = async {
            loop {
                self.orderctl(&["dlq", "redrive", self.service, "--all", "--reason", "mended"], "").await?;
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        };
        tokio::select! {
            done = self.step(label, hit) => done,
            failed = redriving => failed,
        }
    }

    /// A rebuild that dies, errs or stands still half-way is run again; the service goes on.
    async fn rebuild(&self, label: &str) -> anyhow::Result<()> {
        self.stack.lock().await.stop_service(self.service)?;
        let action = if self.action == Action::Stop { "delay:8000" } else { self.action.name() };
        let arguments = ["rebuild", self.service];
        let (succeeded, _) = self.orderctl(&arguments, &format!("{label}=1*return({action})->off")).await?;
        ensure!(succeeded == (self.action == Action::Stop), "the rebuild did not reach {label}");
        if !succeeded {
            let (succeeded, said) = self.orderctl(&arguments, "").await?;
            ensure!(succeeded, "a rebuild that is run again fails: {said}");
        }
        for number in 0..INSTANCES {
            self.stack.lock().await.restart(self.service, number)?;
        }
        self.ready().await
    }

    /// Runs orderctl while others use the stack; says whether it succeeded, and what it said.
    async fn orderctl(&self, arguments: &[&str], failpoints: &str) -> anyhow::Result<(bool, String)> {
        let mut command = self.stack.lock().await.orderctl_command(arguments)?;
        command.env("FAILPOINTS", failpoints);
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        Ok((output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned()))
    }
}
