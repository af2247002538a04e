//! The command line: what a person may type after `cargo up`, `cargo down` and `cargo verify`.
//!
//! It decides nothing; the modules named as the commands do.

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::settings::INSTANCES_MAX;

/// Starts, ends and verifies Orderlog on one machine.
#[derive(Debug, Parser)]
#[command(name = "xtask", bin_name = "cargo", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The three commands, and the one that xtask runs itself as.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Install what is missing, build, and start everything on loopback
    Up(Up),
    /// End everything that `cargo up` started in this folder
    Down,
    /// Check the whole tree: format, lints, dependencies and every layer of tests
    Verify(Verify),
    /// Become another program whose life is bound to its parent's
    #[command(hide = true)]
    Launch(Launch),
}

/// Options of `cargo up`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Up {
    /// Return when everything is ready; `cargo down` ends it
    #[arg(long)]
    pub(crate) detach: bool,
    /// Throw away the log, the databases and the keys of an earlier run first
    #[arg(long, conflicts_with = "missing")]
    pub(crate) fresh: bool,
    /// How many instances of each service
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=i64::from(INSTANCES_MAX)))]
    pub(crate) instances: u16,
    /// Start only a part
    #[arg(long, value_enum)]
    pub(crate) only: Option<Part>,
    /// In a running stack start what is gone, wait 60 s for readiness, and say what is not ready (exit status 3)
    #[arg(long)]
    pub(crate) missing: bool,
    /// Start a service again whenever it ends
    #[arg(long)]
    pub(crate) restart: bool,
    /// Fetch missing programs into this folder instead of installing them
    #[arg(long)]
    pub(crate) no_root: bool,
    /// Move every port: the first is N, the last below N + 300
    #[arg(long, value_name = "N")]
    pub(crate) port_base: Option<u16>,
    /// Set by `--detach` for the process that stays
    #[arg(long, hide = true)]
    pub(crate) background: bool,
}

/// A part of the stack that can be started alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Kafka, schema registry, Postgres and simulators, without the services
    Infra,
}

/// Options of `cargo verify`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Verify {
    /// Only what needs no servers
    #[arg(long, conflicts_with = "full")]
    pub(crate) quick: bool,
    /// The long runs too, and the services as built for release
    #[arg(long)]
    pub(crate) full: bool,
    /// Only these layers
    #[arg(long, value_enum, value_name = "LAYER")]
    pub(crate) only: Vec<Layer>,
    /// Fetch missing programs into this folder instead of installing them
    #[arg(long)]
    pub(crate) no_root: bool,
}

/// A layer of `cargo verify`, in the order in which they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Layer {
    Fmt,
    Clippy,
    Deny,
    Unit,
    Contract,
    Integration,
    Tidy,
    Mutants,
    E2e,
    Long,
}

/// Options of the hidden `launch`.
#[derive(Debug, Args)]
pub(crate) struct Launch {
    /// The process whose end ends this one
    #[arg(long)]
    pub(crate) parent: i32,
    /// The signal that this process gets then
    #[arg(long)]
    pub(crate) signal: String,
    /// Run as `uid:gid`
    #[arg(long)]
    pub(crate) user: Option<String>,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<std::ffi::OsString>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_of_up_are_taken() {
        let cli = Cli::parse_from(["xtask", "up", "--instances", "2", "--only", "infra", "--port-base", "24000"]);
        let Command::Up(up) = cli.command else { panic!("not up") };
        assert_eq!((up.instances, up.only, up.port_base), (2, Some(Part::Infra), Some(24_000)));
    }

    #[test]
    fn too_many_instances_are_refused() {
        assert!(Cli::try_parse_from(["xtask", "up", "--instances", "10"]).is_err());
    }
}
