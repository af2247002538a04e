//! What the user and other commands ask of a running xtask by signals.
//!
//! Signals are blocked and taken by one thread, so that no code runs in a handler.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};

use crate::problem::Problem;

static STOPS: AtomicU32 = AtomicU32::new(0);
static MISSING: AtomicBool = AtomicBool::new(false);

/// How long a loop that waits for something sleeps between two looks.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(50);

fn ours() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGUSR1].into_iter().collect()
}

/// Begins to listen; must come before the first thread and the first child.
pub(crate) fn listen() -> Result<()> {
    let signals = ours();
    signals.thread_block().context("blocking signals")?;
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            while let Ok(signal) = signals.wait() {
                if signal == Signal::SIGUSR1 {
                    MISSING.store(true, Ordering::SeqCst);
                } else {
                    STOPS.fetch_add(1, Ordering::SeqCst);
                }
            }
        })
        .context("starting the thread that takes signals")?;
    Ok(())
}

/// Gives a program that this process becomes the signals it expects.
pub(crate) fn unblock() -> Result<()> {
    ours().thread_unblock().context("unblocking signals")
}

/// How often the user asked to stop; twice means at once.
pub(crate) fn stops() -> u32 {
    STOPS.load(Ordering::SeqCst)
}

/// Whether `up --missing` was asked since the last look.
pub(crate) fn take_missing() -> bool {
    MISSING.swap(false, Ordering::SeqCst)
}

/// Fails once the user asked to stop.
///
/// # Errors
/// [`Problem::Interrupted`].
pub(crate) fn check() -> Result<()> {
    if stops() > 0 {
        return Err(Problem::Interrupted.into());
    }
    Ok(())
}
