//! `cargo down`: ends the `up` of this folder and what a killed one left.
//!
//! The ending itself is done by the `up`; this asks, and waits.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::sys::signal::Signal;

use crate::layout::Layout;
use crate::process;
use crate::records;
use crate::signals::{self, LOOK_EVERY};
use crate::status::Status;
use crate::up;

/// Four stages of at most 25 s each, and some.
const END_WITHIN: Duration = Duration::from_secs(110);

/// Runs the command; nothing to end is success too.
pub(crate) fn run() -> Result<()> {
    let layout = Layout::of_checkout();
    let status = Status::new();
    let Some(pid) = up::running(&layout) else {
        let left = records::end_leftovers(&layout);
        let said = if left.is_empty() { "nothing is running".to_owned() } else { format!("ended {}", left.join(", ")) };
        status.say(&said);
        return Ok(());
    };
    let line = status.line("down", "ending everything");
    process::send(pid, Signal::SIGTERM);
    let deadline = Instant::now() + END_WITHIN;
    while up::running(&layout).is_some() {
        signals::check()?;
        if Instant::now() > deadline {
            process::send(pid, Signal::SIGKILL);
        }
        thread::sleep(LOOK_EVERY);
    }
    records::end_leftovers(&layout);
    line.done("everything has ended");
    Ok(())
}
