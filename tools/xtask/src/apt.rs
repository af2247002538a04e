//! Debian's package manager: whether it can be used here, and one installation.
//!
//! Only as root or with a sudo that asks nothing; a password prompt in the middle of `cargo up` would be a surprise.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Result;

use crate::layout::Layout;
use crate::problem::Problem;
use crate::process::Program;
use crate::sources::on_path;
use crate::status::Status;

/// A usable apt-get.
#[derive(Debug)]
pub(crate) struct Apt {
    sudo: bool,
}

/// Whether this is Debian or a child of it.
pub(crate) fn is_there() -> bool {
    Path::new("/etc/debian_version").exists() && on_path("apt-get").is_some()
}

/// The newest headless Java runtime that Debian offers here, at least of this major version.
pub(crate) fn newest_jre(least: u32) -> Option<&'static str> {
    const KNOWN: [(u32, &str); 2] = [(25, "openjdk-25-jre-headless"), (21, "openjdk-21-jre-headless")];
    let wanted = KNOWN.into_iter().filter(|(major, _)| *major >= least);
    wanted.map(|(_, package)| package).find(|package| is_there() && offered(package))
}

fn offered(package: &str) -> bool {
    let answer = Command::new("apt-cache").args(["policy", package]).output();
    answer.is_ok_and(|answer| has_candidate(&String::from_utf8_lossy(&answer.stdout)))
}

fn has_candidate(policy: &str) -> bool {
    let candidate = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate:"));
    candidate.is_some_and(|version| version.trim() != "(none)")
}

impl Apt {
    /// apt-get, if this user may use it without being asked for a password.
    pub(crate) fn available() -> Option<Self> {
        if !is_there() {
            return None;
        }
        if nix::unistd::geteuid().is_root() {
            return Some(Self { sudo: false });
        }
        let sudo = Command::new("sudo").args(["-n", "true"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        sudo.is_ok_and(|status| status.success()).then_some(Self { sudo: true })
    }

    /// Installs packages; one that is not to be had is told and left to the next source.
    ///
    /// # Errors
    /// [`Problem::Interrupted`].
    pub(crate) fn install(&self, packages: &[&str], layout: &Layout, status: &Status) -> Result<()> {
        let line = status.line("apt-get", &format!("installing {}", packages.join(", ")));
        let log = layout.log_of("apt-get");
        let result = self.run(&["update"]).run("apt-get update", &log).and_then(|()| {
            let install = self.run(&["install", "-y", "--no-install-recommends"]).args(packages);
            install.run("apt-get install", &log)
        });
        match result {
            Ok(()) => line.done(&format!("installed {}", packages.join(", "))),
            Err(error) => {
                line.done("did not install everything");
                if error.downcast_ref() == Some(&Problem::Interrupted) {
                    return Err(error);
                }
                status.say(&format!("{error:#}; trying the next source"));
            }
        }
        Ok(())
    }

    fn run(&self, args: &[&str]) -> Program {
        let options = ["-q", "-o", "DPkg::Lock::Timeout=120"];
        let program = if self.sudo {
            Program::new("sudo").args(["-n", "DEBIAN_FRONTEND=noninteractive", "apt-get"])
        } else {
            Program::new("apt-get")
        };
        program.args(options).args(args).env("DEBIAN_FRONTEND", "noninteractive")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_without_a_candidate_is_not_offered() {
        assert!(has_candidate("kcat:\n  Installed: (none)\n  Candidate: 1.7.1-2\n"));
        assert!(!has_candidate("x:\n  Installed: (none)\n  Candidate: (none)\n"));
        assert!(!has_candidate(""));
    }
}
