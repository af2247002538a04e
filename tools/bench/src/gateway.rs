//! Restarts payment-svc of the running stack with another gateway adapter: it is ended, and the running `cargo up` is
//! asked to start what is gone with `GATEWAY_ADAPTER` set.
//!
//! Nothing else of the stack changes. Orders in flight wait meanwhile; they are not lost.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::Deserialize;
use tokio::process::Command;

use crate::target::{Gateway, Target};

const SERVICE: &str = "payment-svc";
const VARIABLE: &str = "GATEWAY_ADAPTER";
const SUPERVISOR: &str = "up";
/// A service finishes its batch and flushes its publisher in at most 25 s.
const ENDS_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(100);

#[derive(Debug, Deserialize)]
struct Stack {
    processes: BTreeMap<String, u32>,
}

/// Makes payment-svc use this adapter. Returns the former one when it had to be restarted.
///
/// # Errors
/// When the stack is not run by `cargo up` on this machine, or payment-svc is not ready again in time.
pub async fn switch(target: &Target, wanted: Gateway) -> anyhow::Result<Option<Gateway>> {
    let processes = processes(&target.stack_file)?;
    let instances = instances(&processes);
    let first = instances.first().context("payment-svc does not run; `cargo up --missing` starts it")?;
    let before = adapter_of(*first)?;
    if before == wanted {
        return Ok(None);
    }
    let supervisor = processes.get(SUPERVISOR).context("the stack is not run by `cargo up` on this machine")?;
    for pid in &instances {
        end(*pid).await?;
    }
    // The supervising program itself, also when it was built anew since: the running one understands its requests.
    let program = format!("/proc/{supervisor}/exe");
    let folder = fs::read_link(format!("/proc/{supervisor}/cwd")).context("asking where `cargo up` runs")?;
    let run = Command::new(program)
        .args(["up", "--missing"])
        .current_dir(folder)
        .env(VARIABLE, wanted.as_str())
        .stdin(Stdio::null())
        .output()
        .await
        .context("asking `cargo up` to start payment-svc")?;
    if !run.status.success() {
        let said = [run.stdout, run.stderr].concat();
        bail!("`cargo up --missing` did not bring payment-svc back: {}", String::from_utf8_lossy(&said).trim());
    }
    Ok(Some(before))
}

/// Which adapter payment-svc uses now.
pub(crate) fn current(target: &Target) -> Option<Gateway> {
    let processes = processes(&target.stack_file).ok()?;
    adapter_of(*instances(&processes).first()?).ok()
}

/// Process numbers as they are now; they change with every restart.
///
/// # Errors
/// When stack.json cannot be read.
pub(crate) fn processes(stack_file: &Path) -> anyhow::Result<BTreeMap<String, u32>> {
    let text = fs::read_to_string(stack_file).with_context(|| format!("reading {}", stack_file.display()))?;
    let stack: Stack =
        serde_json::from_str(&text).with_context(|| format!("{} is not understood", stack_file.display()))?;
    Ok(stack.processes)
}

fn instances(processes: &BTreeMap<String, u32>) -> Vec<u32> {
    let is_instance = |name: &str| {
        let rest = name.strip_prefix(SERVICE);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    processes.iter().filter(|(name, _)| is_instance(name)).map(|(_, pid)| *pid).collect()
}

fn adapter_of(pid: u32) -> anyhow::Result<Gateway> {
    let environment = fs::read(format!("/proc/{pid}/environ"));
    let environment = environment.with_context(|| format!("reading the environment of payment-svc ({pid})"))?;
    parse_adapter(&environment)
}

fn parse_adapter(environment: &[u8]) -> anyhow::Result<Gateway> {
    let variables = environment.split(|byte| *byte == 0);
    let mut value =
        variables.filter_map(|variable| std::str::from_utf8(variable).ok()?.strip_prefix("GATEWAY_ADAPTER="));
    match value.next_back() {
        // The service's own default.
        None | Some("http") => Ok(Gateway::Http),
        Some("inside") => Ok(Gateway::Inside),
        Some(other) => bail!("payment-svc runs with {VARIABLE}={other}, which is no adapter"),
    }
}

/// Asks a process to end, and waits until it has.
async fn end(pid: u32) -> anyhow::Result<()> {
    let asked = Command::new("kill").arg(pid.to_string()).status().await.context("ending payment-svc")?;
    if !asked.success() {
        bail!("process {pid} of payment-svc cannot be ended");
    }
    let started = Instant::now();
    while lives(pid) {
        if started.elapsed() > ENDS_WITHIN {
            bail!("payment-svc ({pid}) has not ended after {} s", ENDS_WITHIN.as_secs());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// A zombie has ended, and its parent has only not looked yet, unless others of its threads are left: then it is not gone to
/// its parent either.
fn lives(pid: u32) -> bool {
    if fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|threads| threads.count() > 1) {
        return true;
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    state.is_some_and(|state| state != 'Z' && state != 'X')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_adapter_is_in_the_environment() {
        assert_eq!(parse_adapter(b"A=1\0GATEWAY_ADAPTER=inside\0B=2\0").unwrap(), Gateway::Inside);
        assert_eq!(parse_adapter(b"GATEWAY_ADAPTER=http\0").unwrap(), Gateway::Http);
        assert_eq!(parse_adapter(b"A=1\0").unwrap(), Gateway::Http);
        assert!(parse_adapter(b"GATEWAY_ADAPTER=fax\0").is_err());
    }

    #[test]
    fn all_instances_are_restarted_and_nothing_else() {
        let processes: BTreeMap<String, u32> = [("payment-svc", 1), ("payment-svc-1", 2), ("order-svc", 3), ("up", 4)]
            .map(|(name, pid)| (name.to_owned(), pid))
            .into();
        assert_eq!(instances(&processes), [1, 2]);
    }

    #[test]
    fn a_process_lives_as_long_as_the_last_of_its_threads() {
        let first_ends = "import ctypes, threading, time\n\
            threading.Thread(target=lambda: time.sleep(1)).start()\n\
            ctypes.CDLL(None).syscall(60, 0)";
        let mut child = std::process::Command::new("python3").args(["-c", first_ends]).spawn().unwrap();
        let pid = child.id();
        let is_zombie = || fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") Z ");
        while !is_zombie() {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(lives(pid));
        while lives(pid) {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(child.try_wait().unwrap().is_some(), "its parent knows");
    }

    #[test]
    fn this_process_lives() {
        assert!(lives(std::process::id()));
        assert!(!lives(u32::MAX));
    }
}
