//! Everything that faults are done to, and how each is done.
//!
//! An act says whether it met something: a process that was alive, a plan that a call ran into. What links felt is counted by
//! their proxies.

mod clock;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use sqlx::Connection;
use testkit::Proxy;

pub(super) use clock::datefudge;

use super::faults::{Act, Link, Simulator, Who};
use super::links::Links;
use super::load::Load;
use super::plan::INSTANCES;
use crate::boundaries;
use crate::client::Client;
use crate::evidence::Sample;
use crate::process::Process;
use crate::servers::Servers;
use crate::stack::{SERVICES, Stack};

/// A request of Kafka that carries records of ours names their type in a header.
const RECORDS: &[u8] = b"ce_type";
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// More calls than a run makes: what is left of them says how many met the plan.
const CALLS: u64 = 1_000_000_000;

/// What a process had counted when something was asked of it.
#[derive(Debug, Clone, Copy)]
struct Before {
    process: Option<u32>,
    count: u64,
}

/// The system under test, its servers, and the load on it.
#[derive(Debug)]
pub(super) struct Field {
    // In this order: services end before what they stand on.
    pub(super) stack: Stack,
    pub(super) links: Links,
    pub(super) servers: Servers,
    pub(super) load: Arc<Load>,
    /// Who was ended by the run and not started again.
    down: BTreeSet<Who>,
    /// Who may meet something at a boundary, and how often they had reached it before.
    armed: BTreeMap<(Who, &'static str), Before>,
    /// Who miswrites, and how much he had miswritten before.
    miswriting: BTreeMap<Who, Before>,
    /// Whose clock is wrong.
    wrong_clocks: BTreeSet<Who>,
    /// Who ended by himself, with the end of his log.
    pub(super) deserters: Vec<String>,
    http: reqwest::Client,
}

impl Field {
    pub(super) fn new(stack: Stack, links: Links, servers: Servers, load: Arc<Load>) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().timeout(ANSWER_WITHIN).build()?;
        let (down, armed, miswriting, wrong_clocks, deserters) = Default::default();
        Ok(Self { stack, links, servers, load, down, armed, miswriting, wrong_clocks, deserters, http })
    }

    /// Does it. `Some` says whether somebody was there to feel it.
    ///
    /// # Errors
    /// When this machine does not let it be done.
    pub(super) async fn act(&mut self, act: &Act) -> anyhow::Result<Option<bool>> {
        match act {
            Act::Kill(who) => self.end(*who, Signal::SIGKILL).map(Some),
            Act::Leave(who) => {
                self.down.insert(*who);
                self.signal(*who, Signal::SIGTERM).map(Some)
            }
            Act::Start(who) => self.start(*who).map(|()| None),
            Act::Stop(who) => self.signal(*who, Signal::SIGSTOP).map(Some),
            Act::Continue(who) => self.signal(*who, Signal::SIGCONT).map(|_| None),
            Act::Broker(what) => self.servers.broker.act(*what).await,
            Act::Postgres(what) => self.servers.postgres.act(*what).await,
            Act::Backend(service) => Ok(Some(self.kill_backend(service).await)),
            Act::Change(links, faults) => self.through(links, |proxy| proxy.change(|now| *now = **faults)),
            Act::Mislead(links) => {
                self.links.mislead(links);
                Ok(None)
            }
            Act::Heal(links) => self.through(links, Proxy::heal),
            Act::Reset(links) => self.through(links, Proxy::reset),
            Act::HalfClose(links) => self.through(links, Proxy::half_close),
            Act::LoseCommit(link) => self.through(&[*link], |proxy| proxy.lose_commit_of("")),
            Act::LoseReport(link) => self.through(&[*link], |proxy| proxy.lose_reply_to(RECORDS)),
            Act::Plan(simulator, mode) => self.plan(*simulator, mode).await.map(|()| None),
            Act::NoPlan(simulator) => self.no_plan(*simulator).await.map(Some),
            Act::Arm(who, label, action) => {
                if let Ok(count) = self.hits(*who, label).await {
                    let before = self.before(*who, count)?;
                    self.armed.insert((*who, *label), before);
                    // It may happen before this is answered.
                    drop(self.arm(*who, label, action).await);
                }
                Ok(None)
            }
            Act::Disarm(who, label) => self.disarm(*who, label).await,
            Act::Clock(who, ahead_ms, lasts) => {
                let step = async |operator: &Client, admin: &str| {
                    boundaries::step_clock(operator, admin, *ahead_ms, *lasts).await
                };
                Ok(Some(self.ask(*who, step).await.is_ok()))
            }
            Act::Miswrite(who, events) => {
                if let Ok(count) = self.miswrite(*who, *events).await {
                    let before = self.before(*who, count)?;
                    self.miswriting.insert(*who, before);
                }
                Ok(None)
            }
            Act::WriteWell(who) => {
                let now = self.miswrite(*who, 0).await;
                match (self.miswriting.remove(who), now) {
                    (None, _) => Ok(Some(false)),
                    (Some(_), Err(_)) => Ok(None),
                    (Some(before), Ok(now)) => self.has_counted_since(*who, before, now),
                }
            }
            Act::WrongTime(who, ahead) => self.give_wrong_time(*who, *ahead).map(|()| None),
            Act::RightTime(who) => self.give_right_time(*who).await.map(Some),
            Act::Over => Ok(None),
            Act::Load(times) => {
                self.load.times(*times);
                Ok(Some(true))
            }
        }
    }

    /// Asks an instance something on its admin port, as an operator.
    async fn ask<T>(&self, who: Who, what: impl AsyncFnOnce(&Client, &str) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let (operator, admin) = (Client::operator(&self.stack)?, self.stack.admin(who.service, who.instance));
        tokio::time::timeout(ANSWER_WITHIN, what(&operator, admin)).await.context("nobody answers")?
    }

    /// How often the boundary was reached.
    async fn hits(&self, who: Who, label: &str) -> anyhow::Result<u64> {
        self.ask(who, async |operator, admin| boundaries::hits(operator, admin, label).await).await
    }

    async fn arm(&self, who: Who, label: &str, actions: &str) -> anyhow::Result<()> {
        self.ask(who, async |operator, admin| boundaries::arm(operator, admin, label, actions).await).await
    }

    async fn miswrite(&self, who: Who, events: u64) -> anyhow::Result<u64> {
        self.ask(who, async |operator, admin| boundaries::miswrite(operator, admin, events).await).await
    }

    fn before(&mut self, who: Who, count: u64) -> anyhow::Result<Before> {
        let process = self.stack.process(who.service, who.instance)?.running();
        Ok(Before { process, count })
    }

    /// Nobody knows when it is another process now: what the former had counted went with it.
    fn has_counted_since(&mut self, who: Who, before: Before, now: u64) -> anyhow::Result<Option<bool>> {
        let process = self.stack.process(who.service, who.instance)?.running();
        Ok((process == before.process).then_some(now > before.count))
    }

    /// Whatever has happened at the boundary is over. True when something has.
    async fn disarm(&mut self, who: Who, label: &'static str) -> anyhow::Result<Option<bool>> {
        let Some(before) = self.armed.remove(&(who, label)) else { return Ok(Some(false)) };
        let process = self.stack.process(who.service, who.instance)?;
        if process.running().is_none() {
            self.start(who)?;
            return Ok(Some(true));
        }
        let stands_still = process.is_stopped();
        if stands_still {
            process.signal(Signal::SIGCONT)?;
        }
        if self.arm(who, label, "off").await.is_ok()
            && let Ok(now) = self.hits(who, label).await
        {
            return if stands_still { Ok(Some(true)) } else { self.has_counted_since(who, before, now) };
        }
        // A new process is armed for nothing.
        self.end(who, Signal::SIGKILL)?;
        self.start(who)?;
        Ok(Some(true))
    }

    fn through(&self, links: &[Link], what: impl Fn(&Proxy)) -> anyhow::Result<Option<bool>> {
        self.links.each(links, what);
        Ok(None)
    }

    fn signal(&mut self, who: Who, signal: Signal) -> anyhow::Result<bool> {
        match self.stack.process(who.service, who.instance) {
            Ok(process) => to_process(process, signal),
            // A guest that has not come yet.
            Err(_) => Ok(false),
        }
    }

    fn end(&mut self, who: Who, signal: Signal) -> anyhow::Result<bool> {
        self.down.insert(who);
        let Ok(process) = self.stack.process(who.service, who.instance) else { return Ok(false) };
        let ran = process.running().is_some();
        process.end(signal)?;
        Ok(ran)
    }

    pub(super) fn start(&mut self, who: Who) -> anyhow::Result<()> {
        let Ok(process) = self.stack.process(who.service, who.instance) else {
            let detours = self.links.detours(who, &self.stack);
            self.down.remove(&who);
            return self.stack.add_instance(who.service, who.instance, &detours);
        };
        if !self.down.remove(&who) && process.running().is_some() {
            return Ok(());
        }
        // One that was asked to leave may still be at it.
        process.end(Signal::SIGKILL)?;
        process.start()
    }

    /// Notes who has ended by himself, which nobody may, and starts him again.
    ///
    /// # Errors
    /// When a server of the run itself has gone.
    pub(super) fn look_after(&mut self) -> anyhow::Result<()> {
        self.servers.broker.check().context("the broker")?;
        self.servers.postgres.check().context("Postgres")?;
        for service in SERVICES {
            for instance in 0..INSTANCES {
                let who = Who { service, instance };
                let process = self.stack.process(service, instance)?;
                let is_armed = self.armed.keys().any(|(armed, _)| *armed == who);
                let may_end = is_armed || (self.wrong_clocks.contains(&who) && clock::has_refused(process));
                if process.running().is_none() && !self.down.contains(&who) && !may_end {
                    self.deserters.push(format!("{who} ended by itself:\n{}", process.last_lines()));
                    process.start()?;
                }
            }
        }
        Ok(())
    }

    /// Copies the services' logs, which go with the stack.
    pub(super) fn keep_logs(&self, into: &Path) -> anyhow::Result<()> {
        let folder = self.stack.stack_file();
        for entry in std::fs::read_dir(folder.parent().context("a stack has a folder")?)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                std::fs::copy(&path, into.join(path.file_name().unwrap_or_default()))?;
            }
        }
        Ok(())
    }

    /// What each process keeps in memory.
    pub(super) fn samples(&mut self) -> Vec<Sample> {
        let at = self.load.history.now();
        let mut samples = Vec::new();
        for service in SERVICES {
            for instance in 0..INSTANCES {
                let process = self.stack.process(service, instance).ok().and_then(Process::running);
                let rss_bytes = process.and_then(resident);
                if rss_bytes.is_some() {
                    let service = service.to_owned();
                    samples.push(Sample { at, service, instance, rss_bytes, db_connections: None, outbox_bytes: None });
                }
            }
        }
        samples
    }

    async fn kill_backend(&self, service: &str) -> bool {
        let url = &self.stack.databases[service];
        let found = async {
            let mut conn = sqlx::PgConnection::connect(url).await?;
            let others = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() \
                          AND pid <> pg_backend_pid() ORDER BY state_change DESC NULLS LAST LIMIT 1";
            let pid: Option<i32> = sqlx::query_scalar(others).fetch_optional(&mut conn).await?;
            Ok::<_, sqlx::Error>(pid)
        };
        match tokio::time::timeout(ANSWER_WITHIN, found).await {
            Ok(Ok(Some(pid))) => kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok(),
            _ => false,
        }
    }

    fn address(&self, simulator: Simulator) -> String {
        let base = match simulator {
            Simulator::Gateway => &self.stack.gateway,
            Simulator::Sink => &self.stack.sink,
        };
        format!("{base}/admin/plan")
    }

    async fn plan(&self, simulator: Simulator, mode: &str) -> anyhow::Result<()> {
        let plan = json!({"mode": mode, "count": CALLS});
        let answer = self.http.post(self.address(simulator)).json(&plan).send().await?;
        answer.error_for_status().context("the simulator's plan").map(drop)
    }

    /// True when a call met the plan that was in force.
    async fn no_plan(&self, simulator: Simulator) -> anyhow::Result<bool> {
        let url = self.address(simulator);
        let plan: Value = self.http.get(&url).send().await?.json().await?;
        self.http.delete(&url).send().await?.error_for_status()?;
        Ok(plan["count"].as_u64().is_some_and(|left| left < CALLS))
    }

    /// A build that reads what was miswritten takes the place of this one, an instance at a time.
    ///
    /// # Errors
    /// When one does not end or is not ready in time.
    pub(super) async fn roll_out_mended_build(&mut self) -> anyhow::Result<()> {
        self.stack.mend();
        for instance in 0..INSTANCES {
            for service in SERVICES {
                let who = Who { service, instance };
                self.end(who, Signal::SIGTERM)?;
                self.start(who)?;
            }
            self.stack.wait_until_ready().await?;
        }
        Ok(())
    }

    /// No fault is in force any more, and everybody runs.
    ///
    /// # Errors
    /// When somebody cannot be started.
    pub(super) async fn heal(&mut self) -> anyhow::Result<()> {
        self.links.heal();
        self.servers.broker.heal().await?;
        self.servers.postgres.heal().await?;
        for service in SERVICES {
            self.end(Who { service, instance: INSTANCES }, Signal::SIGKILL)?;
            for instance in 0..INSTANCES {
                let who = Who { service, instance };
                self.signal(who, Signal::SIGCONT)?;
                self.start(who)?;
            }
        }
        for simulator in [Simulator::Gateway, Simulator::Sink] {
            self.no_plan(simulator).await?;
        }
        self.load.times(1);
        Ok(())
    }
}

fn to_process(process: &mut Process, signal: Signal) -> anyhow::Result<bool> {
    let runs = process.running().is_some();
    if runs {
        process.signal(signal)?;
    }
    Ok(runs)
}

fn resident(pid: u32) -> Option<u64> {
    const PAGE_BYTES: u64 = 4096;
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    statm.split(' ').nth(1)?.parse::<u64>().ok().map(|pages| pages * PAGE_BYTES)
}
