//! What goes wrong in a way that a person can mend: one sentence each, and the exit status.
//!
//! Everything else is an `anyhow` chain, printed as such.

use std::fmt;

/// Exit status of a problem that its sentence tells how to mend.
pub(crate) const EXIT_PROBLEM: u8 = 1;
/// Exit status of `cargo up --missing` when something is not ready in time.
pub(crate) const EXIT_NOT_READY: u8 = 3;
/// Exit status after Ctrl-C or SIGTERM, as shells count it (128 + SIGINT).
pub(crate) const EXIT_INTERRUPTED: u8 = 130;

/// A failure that ends the command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// Another `up` holds the folder's lock.
    AlreadyRunning { pid: String },
    /// Another `verify` holds its folder's lock.
    VerifyRunning { pid: String },
    /// Somebody listens on a port that a part needs.
    PortTaken { part: String, port: u16, by: String },
    /// The file system has too little room.
    NoSpace { path: String, free_mib: u64, needed_mib: u64 },
    /// A program is missing and no source could give it.
    Missing { what: String, tried: String },
    /// A folder cannot be written.
    NotWritable { path: String, why: String },
    /// A part ended, or was not ready in time.
    NotReady { part: String, why: String, log: String },
    /// A command of somebody else failed.
    CommandFailed { what: String, why: String, log: String },
    /// `--missing` waited in vain.
    StillMissing,
    /// Layers of `verify` failed; the table names them.
    LayersFailed { layers: String },
    /// Ctrl-C or SIGTERM.
    Interrupted,
}

impl Problem {
    /// The exit status of the process that ends with it.
    pub(crate) fn exit_status(&self) -> u8 {
        match self {
            Self::Interrupted => EXIT_INTERRUPTED,
            Self::StillMissing => EXIT_NOT_READY,
            _ => EXIT_PROBLEM,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyRunning { pid } => write!(
                f,
                "`cargo up` is already running in this folder (process {pid}): end it with `cargo down`, or start what is gone with `cargo up --missing`"
            ),
            Self::VerifyRunning { pid } => {
                write!(f, "`cargo verify` is already running in this checkout (process {pid}): wait for it or end it")
            }
            Self::PortTaken { part, port, by } => write!(
                f,
                "port {port}, which {part} needs, is taken by {by}: end that, or move every port with `cargo up --port-base N`"
            ),
            Self::NoSpace { path, free_mib, needed_mib } => write!(
                f,
                "{path} has {free_mib} MiB free and {needed_mib} MiB are needed: make room, or check out the project on a larger disk"
            ),
            Self::Missing { what, tried } => {
                write!(f, "{what} is missing ({tried}): install it, or use `docker compose up` instead")
            }
            Self::NotWritable { path, why } => write!(
                f,
                "{path} cannot be written ({why}): give this user the right to, or check out the project in a folder of its own"
            ),
            Self::NotReady { part, why, log } => write!(f, "{part} is not ready: {why} (its log: {log})"),
            Self::CommandFailed { what, why, log } => write!(f, "{what} failed: {why} (all of it: {log})"),
            Self::StillMissing => write!(f, "not everything is ready: see the lines above"),
            Self::LayersFailed { layers } => write!(f, "failed: {layers}"),
            Self::Interrupted => write!(f, "interrupted"),
        }
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_problem_is_one_line() {
        let problems = [
            Problem::AlreadyRunning { pid: "7".into() },
            Problem::PortTaken { part: "kafka".into(), port: 1, by: "java (process 3)".into() },
            Problem::NoSpace { path: "/x".into(), free_mib: 1, needed_mib: 2 },
            Problem::Missing { what: "a JDK".into(), tried: "no apt".into() },
        ];
        for problem in problems {
            assert_eq!(problem.to_string().lines().count(), 1);
            assert_eq!(problem.exit_status(), EXIT_PROBLEM);
        }
    }
}
