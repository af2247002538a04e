//! How a program is started, bound to this process' life, recognised again and ended.
//!
//! Every child is started as `xtask launch`, which binds it to its parent and then becomes the program: the
//! parent-death signal can be set only by the child itself. It does not know which programs there are.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::sys::signal::{self, Signal};
use nix::unistd::{Gid, Pid, Uid};
use serde::{Deserialize, Serialize};

use crate::cli::Launch;
use crate::layout;
use crate::problem::Problem;
use crate::signals::{self, LOOK_EVERY};

/// The account a program runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// What to run, and how.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) env: BTreeMap<String, String>,
    /// Starts without the caller's environment, but for what every program needs.
    pub(crate) clean: bool,
    pub(crate) folder: Option<PathBuf>,
    pub(crate) account: Option<Account>,
    /// What the program gets when this process dies.
    pub(crate) death: Signal,
}

/// The caller's variables that a program with a clean environment keeps.
const KEPT: [&str; 9] =
    ["PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR", "RUST_BACKTRACE", "SSL_CERT_FILE", "SSL_CERT_DIR"];

impl Program {
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            args: Vec::new(),
            env: BTreeMap::new(),
            clean: false,
            folder: None,
            account: None,
            death: Signal::SIGKILL,
        }
    }

    pub(crate) fn args<T: Into<OsString>>(mut self, args: impl IntoIterator<Item = T>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.insert(name.to_owned(), value.into());
        self
    }

    /// Starts it in a process group of its own.
    ///
    /// # Errors
    /// When the program cannot be started at all; a program that is not there ends with status 127.
    pub(crate) fn spawn(&self, stdout: Stdio, stderr: Stdio) -> Result<Child> {
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("xtask")
            .arg("launch")
            .arg(format!("--parent={}", std::process::id()))
            .arg(format!("--signal={}", self.death.as_str()));
        if let Some(Account { uid, gid }) = self.account {
            command.arg(format!("--user={uid}:{gid}"));
        }
        command.arg("--").arg(&self.path).args(&self.args);
        if self.clean {
            command.env_clear();
            command.envs(KEPT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        }
        command.envs(&self.env).stdin(Stdio::null()).stdout(stdout).stderr(stderr).process_group(0);
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        spawn_on_lasting_thread(command).with_context(|| format!("starting {}", self.path.display()))
    }

    /// Runs it to its end with its output in `log`, and ends it when the user asks to stop.
    ///
    /// # Errors
    /// [`Problem::CommandFailed`] with the last line of the log, [`Problem::Interrupted`].
    pub(crate) fn run(&self, what: &str, log: &Path) -> Result<()> {
        let file = layout::new_log(log)?;
        let child = self.spawn(file.try_clone()?.into(), file.into())?;
        let status = wait(child)?;
        if status.success() {
            return Ok(());
        }
        let why = layout::last_line(log).unwrap_or_else(|| status.to_string());
        let log = log.display().to_string();
        Err(Problem::CommandFailed { what: what.to_owned(), why, log }.into())
    }
}

/// Waits for a child, and kills its group when the user asks to stop.
pub(crate) fn wait(mut child: Child) -> Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if let Err(stopped) = signals::check() {
            kill_group(child.id());
            child.wait()?;
            return Err(stopped);
        }
        thread::sleep(LOOK_EVERY);
    }
}

type Order = (Command, mpsc::Sender<io::Result<Child>>);

/// Linux sends the parent-death signal when the *thread* that started the child ends, so one thread that never ends starts all.
fn spawn_on_lasting_thread(command: Command) -> Result<Child> {
    static ORDERS: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let orders = ORDERS.get_or_init(|| {
        let (sender, receiver) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, answer) in receiver {
                // A caller that has gone away needs no answer.
                drop(answer.send(command.spawn()));
            }
        });
        sender
    });
    let (answer, child) = mpsc::channel();
    orders.send((command, answer)).map_err(|_| anyhow!("the thread that starts programs has ended"))?;
    Ok(child.recv().context("the thread that starts programs has ended")??)
}

/// The hidden command `launch`: binds this process to its parent, then becomes the program.
///
/// # Errors
/// Always, since it returns only when the program could not be started.
pub(crate) fn launch(launch: &Launch) -> Result<()> {
    if let Some(user) = &launch.user {
        let (uid, gid) = user.split_once(':').context("--user is not uid:gid")?;
        let gid = Gid::from_raw(gid.parse()?);
        nix::unistd::setgroups(&[gid]).context("leaving root's groups")?;
        nix::unistd::setgid(gid).context("setting the group")?;
        nix::unistd::setuid(Uid::from_raw(uid.parse()?)).context("setting the user")?;
    }
    // After the change of user, which would clear it.
    let signal: Signal = launch.signal.parse()?;
    nix::sys::prctl::set_pdeathsig(signal).context("binding to the parent")?;
    if nix::unistd::getppid() != Pid::from_raw(launch.parent) {
        return Err(anyhow!("the parent ended first"));
    }
    signals::unblock()?;
    let (program, args) = launch.command.split_first().context("no program")?;
    Err(Command::new(program).args(args).exec()).with_context(|| format!("running {}", Path::new(program).display()))
}

/// A process that is recognised again: a pid alone may belong to another one by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) pid: u32,
    /// Clock ticks from boot to the start of the process, from `/proc`.
    pub(crate) started: u64,
}

impl Identity {
    /// The process that has this pid now, unless it is a zombie.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let started = start_ticks(&stat)?;
        Some(Self { pid, started })
    }

    /// Whether that very process still runs.
    pub(crate) fn lives(self) -> bool {
        Self::of(self.pid) == Some(self)
    }
}

/// Field 22 of `/proc/PID/stat`, or nothing for a zombie; field 2 may hold blanks and brackets.
fn start_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    if fields.first() == Some(&"Z") {
        return None;
    }
    fields.get(19)?.parse().ok()
}

/// Sends a signal to one process; one that is gone is no error.
pub(crate) fn send(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        // The only failure for a child of ours is that it has ended.
        _ = signal::kill(Pid::from_raw(pid), signal);
    }
}

/// Kills a child and everything it started.
pub(crate) fn kill_group(pid: u32) {
    if let Ok(pid) = i32::try_from(pid) {
        _ = signal::killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// Ends processes that an earlier, killed `up` left: politely, then not.
pub(crate) fn end_leftovers(leftovers: &[Identity], signal: Signal, patience: Duration) {
    for process in leftovers.iter().filter(|process| process.lives()) {
        send(process.pid, signal);
    }
    let deadline = Instant::now() + patience;
    while leftovers.iter().any(|process| process.lives()) {
        if Instant::now() > deadline {
            for process in leftovers.iter().filter(|process| process.lives()) {
                kill_group(process.pid);
                send(process.pid, Signal::SIGKILL);
            }
        }
        thread::sleep(LOOK_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_recognised_and_a_stale_pid_is_not() {
        let me = Identity::of(std::process::id()).unwrap();
        assert!(me.lives());
        let earlier = Identity { started: me.started - 1, ..me };
        assert!(!earlier.lives());
    }

    #[test]
    fn a_name_with_brackets_does_not_move_the_fields() {
        let stat = "12 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        assert_eq!(start_ticks(stat), Some(4711));
        assert_eq!(start_ticks(&stat.replace(") S", ") Z")), None);
    }

    #[test]
    fn a_dead_child_is_no_leftover() {
        let mut child = Command::new("true").spawn().unwrap();
        let identity = Identity::of(child.id());
        child.wait().unwrap();
        assert!(identity.is_none_or(|process| !process.lives()));
    }
}
