//! `cargo up`: checks, fetches, builds, starts, shows, and stays.
//!
//! How a part is started is said where the part is; this is the order, and what a person reads.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::binaries;
use crate::cli::{Part, Up};
use crate::kafka;
use crate::layout::{self, Layout};
use crate::missing;
use crate::ports;
use crate::problem::Problem;
use crate::process;
use crate::records;
use crate::settings::Settings;
use crate::signals::{self, LOOK_EVERY};
use crate::sources;
use crate::stack::{Stack, binary};
use crate::status::Status;
use crate::tour;

/// How often the live line asks whether everything is still ready.
const ASK_EVERY: Duration = Duration::from_secs(2);

/// Runs the command in the process that stays.
///
/// # Errors
/// Every [`Problem`] of starting.
pub(crate) fn run(options: &Up) -> Result<()> {
    let begun = Instant::now();
    let layout = Layout::of_checkout();
    let mut settings = Settings::new(options.port_base)?;
    settings.override_from_environment();
    let status = Status::new();
    layout.check_space()?;
    layout.create()?;
    let _lock = lock(&layout, |pid| Problem::AlreadyRunning { pid })?;
    for left in records::end_leftovers(&layout) {
        status.say(&format!("{left} was left by an `up` that was killed; ended"));
    }
    if options.fresh {
        layout.wipe()?;
        layout.create()?;
    }
    fs::remove_file(layout.ready_file()).or_else(layout::ignore_absent)?;
    let instances = if options.only == Some(Part::Infra) { 0 } else { options.instances };
    ports::check(&settings, instances)?;
    let programs = sources::provide(&layout, &settings, options.no_root, &status)?;
    let binaries = binaries::release(&layout, instances > 0, &status)?;

    let stack = Stack::new(layout, settings, instances, &status)?;
    let first = kafka::log_is_empty(&stack.layout, stack.settings.get("TOPIC_PREFIX")?);
    let result = start(&stack, &programs, &binaries, instances, &status).and_then(|()| {
        tour::show(&stack, &binaries, instances, first, begun)?;
        if options.background {
            leave_terminal(&stack.layout)?;
        }
        stay(&stack, options.restart, &status)
    });
    stack.fleet.stop();
    match result {
        // Ctrl-C is how a foreground `up` ends well.
        Err(error) if error.downcast_ref() == Some(&Problem::Interrupted) && stack.layout.ready_file().exists() => {
            fs::remove_file(stack.layout.ready_file()).or_else(layout::ignore_absent)?;
            Ok(())
        }
        other => other,
    }
}

fn start(
    stack: &Stack,
    programs: &sources::Programs,
    binaries: &BTreeMap<String, PathBuf>,
    instances: u16,
    status: &Status,
) -> Result<()> {
    stack.start_infra(programs, binary(binaries, "simulators")?)?;
    if instances > 0 {
        let orderctl = binary(binaries, "orderctl")?;
        stack.make_keys(programs.openssl.as_deref(), orderctl)?;
        let line = status.line("log", "topics and schemas");
        let laid = stack.lay_the_log(orderctl);
        line.done(if laid.is_ok() { "topics and schemas are there" } else { "not laid" });
        laid?;
        stack.start_services(binaries, instances)?;
    }
    layout::replace(&stack.layout.ready_file(), &std::process::id().to_string(), 0o644)
}

/// Watches until the user asks to stop.
fn stay(stack: &Stack, restart: bool, status: &Status) -> Result<()> {
    let line = status.line("up", "everything is ready; Ctrl-C ends it");
    let mut asked = Instant::now();
    let result = loop {
        if let Err(stopped) = signals::check() {
            break Err(stopped);
        }
        let running = stack.fleet.watch()?;
        if signals::take_missing() {
            let request = missing::take_request(&stack.layout);
            if let Err(error) = stack.fleet.start_missing(&request) {
                status.say(&format!("{error:#}"));
            }
        }
        if restart {
            stack.fleet.restart_services()?;
        }
        if asked.elapsed() > ASK_EVERY {
            asked = Instant::now();
            line.doing(&summary(running, &stack.fleet.not_ready()));
        }
        thread::sleep(LOOK_EVERY * 2);
    };
    line.clear();
    result
}

fn summary(running: usize, not_ready: &[(String, String)]) -> String {
    match not_ready {
        [] => format!("all {running} parts are ready; Ctrl-C ends them"),
        [(name, why)] => format!("{name} is not ready: {why}"),
        [(name, why), rest @ ..] => format!("{name} is not ready: {why}; and {} more", rest.len()),
    }
}

/// Takes the folder's lock, which the kernel gives back when this process ends, however it ends.
///
/// # Errors
/// What `refusal` makes of the pid of the process that holds it.
pub(crate) fn lock(layout: &Layout, refusal: impl FnOnce(String) -> Problem) -> Result<File> {
    let path = layout.lock_file();
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("opening {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let pid = fs::read_to_string(&path).unwrap_or_default();
            return Err(refusal(pid).into());
        }
        Err(TryLockError::Error(error)) => return Err(error).context("locking the folder"),
    }
    file.set_len(0)?;
    write!(file, "{}", std::process::id())?;
    Ok(file)
}

/// The process that holds the folder's lock.
pub(crate) fn running(layout: &Layout) -> Option<u32> {
    let file = File::open(layout.lock_file()).ok()?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => fs::read_to_string(layout.lock_file()).ok()?.trim().parse().ok(),
        _ => None,
    }
}

/// Lets go of the terminal or pipe of the command that started this process.
fn leave_terminal(layout: &Layout) -> Result<()> {
    let log = layout::new_log(&layout.log_of("up"))?;
    nix::unistd::dup2_stdout(&log).context("moving the output to a log")?;
    nix::unistd::dup2_stderr(&log).context("moving the errors to a log")?;
    layout::replace(&layout.ready_file().with_extension("detached"), &std::process::id().to_string(), 0o644)
}

/// `cargo up --detach`: starts the process that stays in a session of its own, and returns when everything is ready.
///
/// # Errors
/// Never a problem of starting: the other process has told that already, and its status is returned.
pub(crate) fn detach(arguments: impl Iterator<Item = std::ffi::OsString>) -> Result<u8> {
    let layout = Layout::of_checkout();
    let ready = layout.ready_file().with_extension("detached");
    fs::remove_file(&ready).or_else(layout::ignore_absent)?;
    let mut child = std::process::Command::new("/proc/self/exe")
        .arg0("xtask")
        .args(arguments)
        .arg("--background")
        .stdin(std::process::Stdio::null())
        .spawn()
        .context("starting the process that stays")?;
    let pid = child.id().to_string();
    let mut asked = 0;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1));
        }
        if fs::read_to_string(&ready).is_ok_and(|text| text == pid) {
            return Ok(0);
        }
        if signals::stops() > asked {
            asked = signals::stops();
            process::send(child.id(), nix::sys::signal::Signal::SIGTERM);
        }
        thread::sleep(LOOK_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_names_the_first_that_is_not_ready() {
        assert!(summary(12, &[]).starts_with("all 12 parts"));
        let lost = [("kafka".to_owned(), "refused".to_owned()), ("sink".to_owned(), "x".to_owned())];
        assert_eq!(summary(12, &lost), "kafka is not ready: refused; and 1 more");
        assert_eq!(summary(12, &lost[..1]), "kafka is not ready: refused");
    }

    #[test]
    fn a_second_up_is_refused_while_the_first_runs() {
        let mut layout = Layout::of_checkout();
        layout.home = std::env::temp_dir().join(format!("xtask-lock-{}", std::process::id()));
        layout.tools = layout.home.join("tools");
        layout.create().unwrap();
        let first = lock(&layout, |pid| Problem::AlreadyRunning { pid }).unwrap();
        let refused = lock(&layout, |pid| Problem::AlreadyRunning { pid }).unwrap_err();
        let pid = std::process::id().to_string();
        assert_eq!(refused.downcast_ref(), Some(&Problem::AlreadyRunning { pid }));
        assert_eq!(running(&layout), Some(std::process::id()));
        drop(first);
        assert_eq!(running(&layout), None);
        lock(&layout, |pid| Problem::AlreadyRunning { pid }).unwrap();
        layout::remove(&layout.home).unwrap();
    }
}
