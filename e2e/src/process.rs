//! A process of a stack: started, signalled, ended with the value that holds it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const STOP_WITHIN: Duration = Duration::from_secs(30);

/// A running process and how to start it again.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) log: PathBuf,
    pub(crate) child: Option<Child>,
}

impl Process {
    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        let log = std::fs::File::options().create(true).append(true).open(&self.log)?;
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .envs(&self.environment)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}; `cargo verify` builds it", self.program.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// The number of the process while it runs, stopped or not.
    pub(crate) fn running(&mut self) -> Option<u32> {
        let child = self.child.as_mut()?;
        matches!(child.try_wait(), Ok(None)).then(|| child.id())
    }

    /// True while it is stopped where it is, as SIGSTOP leaves it.
    pub(crate) fn is_stopped(&mut self) -> bool {
        let Some(number) = self.running() else { return false };
        let status = std::fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
        // The name before it is in brackets and may hold anything.
        status.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
    }

    /// An error when it ended by itself.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().transpose()).transpose()? {
            bail!("{} ended by itself: {status}\n{}", self.program.display(), self.last_lines());
        }
        Ok(())
    }

    /// The end of its log.
    pub(crate) fn last_lines(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let child = self.child.as_ref().context("it does not run")?;
        kill(Pid::from_raw(i32::try_from(child.id())?), signal)?;
        Ok(())
    }

    pub(crate) fn end(&mut self, signal: Signal) -> anyhow::Result<()> {
        if self.running().is_some() {
            self.signal(signal)?;
        }
        if let Some(mut child) = self.child.take() {
            let started = Instant::now();
            while child.try_wait()?.is_none() {
                if started.elapsed() > STOP_WITHIN {
                    child.kill()?;
                    child.wait()?;
                    bail!("{} did not end within {} s", self.program.display(), STOP_WITHIN.as_secs());
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It is being thrown away; that it may have ended already is fine.
            drop(child.kill());
            drop(child.wait());
        }
    }
}
