//! `cargo up`, `cargo down`, `cargo verify`: the commands that start, end and check Orderlog on one machine.
//!
//! It depends on nothing of this workspace and on nothing that needs a C compiler, so that it runs before either is there.
//! Containers are not its business; that is compose.yaml.

mod apt;
mod binaries;
mod cli;
#[cfg(test)]
mod compose;
mod down;
mod fetch;
mod fleet;
mod kafka;
mod layers;
mod layout;
mod missing;
mod mutants;
mod ports;
mod postgres;
mod probe;
mod problem;
mod process;
mod records;
mod registry;
mod secrets;
mod services;
mod settings;
mod signals;
mod simulators;
mod sources;
mod stack;
mod status;
mod tour;
mod up;
mod verify;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use crate::cli::{Cli, Command, Up};
use crate::problem::{EXIT_PROBLEM, Problem};

fn main() -> ExitCode {
    let command = Cli::parse().command;
    match run(&command) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("{error:#}");
            let problem = error.downcast_ref::<Problem>();
            ExitCode::from(problem.map_or(EXIT_PROBLEM, Problem::exit_status))
        }
    }
}

fn run(command: &Command) -> Result<u8> {
    if let Command::Launch(launch) = command {
        process::launch(launch)?;
    }
    signals::listen()?;
    match command {
        Command::Up(options) => return start(options),
        Command::Down => down::run()?,
        Command::Verify(options) => verify::run(options)?,
        Command::Launch(_) => {}
    }
    Ok(0)
}

/// The three ways in which `cargo up` runs: asking a running one, leaving one behind, staying.
fn start(options: &Up) -> Result<u8> {
    let layout = layout::Layout::of_checkout();
    let running = up::running(&layout);
    match running {
        Some(pid) if options.missing => missing::run(&layout, pid)?,
        Some(pid) => return Err(Problem::AlreadyRunning { pid: pid.to_string() }.into()),
        // Where nothing runs everything is missing; whoever asks for it waits for an answer, so nothing stays in front.
        None if (options.detach || options.missing) && !options.background => {
            return up::detach(std::env::args_os().skip(1));
        }
        None => {
            if options.background {
                nix::unistd::setsid().context("leaving the terminal")?;
            }
            up::run(options)?;
        }
    }
    Ok(0)
}
