//! The parts that run: started, waited for, watched, started again, ended in order.
//!
//! It knows nothing of what a part is; the modules named as the parts say how each is started and asked.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Child;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::sys::signal::Signal;

use crate::layout;
use crate::probe::Probe;
use crate::problem::Problem;
use crate::process::{self, Identity, Program};
use crate::records::Records;
use crate::signals::{self, LOOK_EVERY};
use crate::status::{Line, Status};

/// How long a part that was asked to end may take before it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(25);
/// A service that ends at once is not started more often than this.
const RESTART_AFTER: Duration = Duration::from_secs(1);

/// In which order parts end: the last stage first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Postgres,
    Kafka,
    /// Registry and simulators.
    Around,
    Service,
}

/// One part of a stack.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) stage: Stage,
    pub(crate) program: Program,
    pub(crate) probe: Probe,
    pub(crate) log: PathBuf,
    /// Asks it to end.
    pub(crate) stop: Signal,
    pub(crate) ready_within: Duration,
}

struct Member {
    part: Part,
    child: Child,
    /// Set when its end was noticed, and told.
    ended: Option<Instant>,
}

/// All parts of a stack that this process started.
pub(crate) struct Fleet {
    members: Mutex<Vec<Member>>,
    records: Records,
    status: Status,
}

impl Fleet {
    pub(crate) fn new(records: Records, status: Status) -> Self {
        Self { members: Mutex::new(Vec::new()), records, status }
    }

    fn members(&self) -> MutexGuard<'_, Vec<Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a part and waits until it is ready.
    ///
    /// # Errors
    /// [`Problem::NotReady`] when it ends or takes too long, [`Problem::Interrupted`].
    pub(crate) fn start(&self, part: &Part) -> Result<()> {
        let line = self.status.line(&part.name, "starting");
        self.spawn(part)?;
        let result = self.await_ready(part, &line);
        match &result {
            Ok(()) => line.done("ready"),
            Err(_) => line.done("not ready"),
        }
        result
    }

    /// Starts parts side by side and waits for all; the first failure is returned after the last has come to an end.
    pub(crate) fn start_all(&self, parts: &[Part]) -> Result<()> {
        thread::scope(|scope| {
            let starts: Vec<_> = parts.iter().map(|part| scope.spawn(|| self.start(part))).collect();
            let mut result = Ok(());
            for start in starts {
                let one = start.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a start panicked")));
                result = result.and(one);
            }
            result
        })
    }

    fn spawn(&self, part: &Part) -> Result<()> {
        let mut members = self.members();
        signals::check()?;
        let log = layout::new_log(&part.log)?;
        let child = part.program.spawn(log.try_clone()?.into(), log.into())?;
        members.retain(|member| member.part.name != part.name);
        members.push(Member { part: part.clone(), child, ended: None });
        self.records.write(&running(&members))
    }

    fn await_ready(&self, part: &Part, line: &Line) -> Result<()> {
        let deadline = Instant::now() + part.ready_within;
        loop {
            signals::check()?;
            if let Some(status) = self.ended(&part.name)? {
                let why = layout::last_line(&part.log).unwrap_or_default();
                return Err(not_ready(part, format!("it ended ({status}): {why}")));
            }
            match part.probe.ask() {
                Ok(()) => return Ok(()),
                Err(why) if Instant::now() > deadline => {
                    let seconds = part.ready_within.as_secs();
                    return Err(not_ready(part, format!("{why}, for {seconds} s")));
                }
                Err(why) => line.doing(&format!("starting: {why}")),
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    fn ended(&self, name: &str) -> Result<Option<std::process::ExitStatus>> {
        match self.members().iter_mut().find(|member| member.part.name == name) {
            Some(member) => Ok(member.child.try_wait()?),
            None => Ok(None),
        }
    }

    /// Notices parts that have ended and says so once; returns how many run.
    pub(crate) fn watch(&self) -> Result<usize> {
        let mut running = 0;
        for member in self.members().iter_mut() {
            match (member.child.try_wait()?, member.ended) {
                (None, _) => running += 1,
                (Some(_), Some(_)) => {}
                (Some(status), None) => {
                    member.ended = Some(Instant::now());
                    let name = &member.part.name;
                    let log = member.part.log.display();
                    self.status
                        .say(&format!("{name} ended ({status}; its log: {log}): `cargo up --missing` starts it again"));
                }
            }
        }
        Ok(running)
    }

    /// Starts the parts again that have ended, in the order of the stages; services with these settings over their own.
    pub(crate) fn start_missing(&self, overrides: &BTreeMap<String, String>) -> Result<()> {
        for part in self.gone(|_| true)? {
            if part.stage == Stage::Service {
                let mut changed = part.clone();
                changed.program.env.extend(overrides.clone());
                self.spawn(&changed)?;
                // The next time it starts as it was first meant to.
                self.remember(&part);
                self.status.say(&format!("{} started again", part.name));
            } else {
                self.start(&part)?;
            }
        }
        Ok(())
    }

    /// Starts services again that ended a second ago or more.
    pub(crate) fn restart_services(&self) -> Result<()> {
        let due = |member: &Member| {
            member.part.stage == Stage::Service && member.ended.is_some_and(|at| at.elapsed() > RESTART_AFTER)
        };
        for part in self.gone(due)? {
            self.spawn(&part)?;
            self.status.say(&format!("{} started again", part.name));
        }
        Ok(())
    }

    fn remember(&self, part: &Part) {
        if let Some(member) = self.members().iter_mut().find(|member| member.part.name == part.name) {
            member.part = part.clone();
        }
    }

    fn gone(&self, wanted: impl Fn(&Member) -> bool) -> Result<Vec<Part>> {
        let mut gone = Vec::new();
        for member in self.members().iter_mut() {
            if member.child.try_wait()?.is_some() && wanted(member) {
                gone.push(member.part.clone());
            }
        }
        gone.sort_by_key(|part| part.stage);
        Ok(gone)
    }

    /// The parts that are not ready, with the reason.
    pub(crate) fn not_ready(&self) -> Vec<(String, String)> {
        let parts: Vec<Part> = self.members().iter().map(|member| member.part.clone()).collect();
        parts.into_iter().filter_map(|part| Some((part.name, part.probe.ask().err()?))).collect()
    }

    /// Ends everything, services first and Postgres last; kills what takes too long or when the user asks again.
    pub(crate) fn stop(&self) {
        let asked = signals::stops();
        for stage in [Stage::Service, Stage::Around, Stage::Kafka, Stage::Postgres] {
            let line = self.begin_to_stop(stage);
            let deadline = Instant::now() + STOP_WITHIN;
            while self.still_running(stage) {
                if Instant::now() > deadline || signals::stops() > asked.max(1) {
                    self.kill(stage);
                }
                thread::sleep(LOOK_EVERY);
            }
            if let Some(line) = line {
                line.done("ended");
            }
        }
        self.records.clear();
    }

    fn begin_to_stop(&self, stage: Stage) -> Option<Line> {
        let mut names = Vec::new();
        for member in self.members().iter_mut().filter(|member| member.part.stage == stage) {
            if matches!(member.child.try_wait(), Ok(None)) {
                process::send(member.child.id(), member.part.stop);
                // A paused process ends only when it goes on.
                process::send(member.child.id(), Signal::SIGCONT);
                names.push(member.part.name.clone());
            }
        }
        let what = if stage == Stage::Service { "services".to_owned() } else { names.join(", ") };
        (!names.is_empty()).then(|| self.status.line(&what, "ending"))
    }

    fn still_running(&self, stage: Stage) -> bool {
        let mut members = self.members();
        let mut of_stage = members.iter_mut().filter(|member| member.part.stage == stage);
        of_stage.any(|member| matches!(member.child.try_wait(), Ok(None)))
    }

    fn kill(&self, stage: Stage) {
        for member in self.members().iter().filter(|member| member.part.stage == stage) {
            process::kill_group(member.child.id());
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.stop();
    }
}

fn running(members: &[Member]) -> BTreeMap<String, Identity> {
    members.iter().filter_map(|member| Some((member.part.name.clone(), Identity::of(member.child.id())?))).collect()
}

fn not_ready(part: &Part, why: String) -> anyhow::Error {
    let log = part.log.display().to_string();
    Problem::NotReady { part: part.name.clone(), why, log }.into()
}
