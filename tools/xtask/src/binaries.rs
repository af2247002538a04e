//! The programs of this workspace: built by cargo, found where cargo put them.
//!
//! The paths come from cargo's own messages, so that CARGO_TARGET_DIR and every other setting of cargo hold.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::layout::Layout;
use crate::problem::Problem;
use crate::process::{self, Program};
use crate::status::Status;

/// A program or test that cargo built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Built {
    /// The folder of the package.
    pub(crate) package_folder: PathBuf,
    pub(crate) package: String,
    pub(crate) target: String,
    pub(crate) kind: String,
    /// Whether it is a test harness.
    pub(crate) test: bool,
    pub(crate) path: PathBuf,
}

#[derive(Deserialize)]
struct Message {
    reason: String,
    package_id: Option<String>,
    manifest_path: Option<PathBuf>,
    target: Option<Target>,
    profile: Option<Profile>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

/// The release build of the programs that a stack runs, by name; only the simulators where no service runs.
///
/// # Errors
/// [`Problem::CommandFailed`] when something does not compile.
pub(crate) fn release(layout: &Layout, services: bool, status: &Status) -> Result<BTreeMap<String, PathBuf>> {
    let which: &[&str] = if services { &[] } else { &["-p", "simulators"] };
    let built = build(layout, &[&["build", "--release", "--bins"], which].concat(), "build", status)?;
    Ok(built.into_iter().map(|binary| (binary.target, binary.path)).collect())
}

/// Runs a cargo command that builds, and returns every executable it names.
///
/// # Errors
/// [`Problem::CommandFailed`] when something does not compile.
pub(crate) fn build(layout: &Layout, args: &[&str], name: &str, status: &Status) -> Result<Vec<Built>> {
    let line = status.line(name, &format!("cargo {}", args.join(" ")));
    let mut cargo = cargo(layout).args(args).args(["--message-format=json-render-diagnostics"]);
    cargo.folder = Some(layout.root.clone());
    let mut child = cargo.spawn(Stdio::piped(), Stdio::piped())?;
    let errors = child.stderr.take().context("cargo's messages are not piped")?;
    let log = layout.log_of(name);
    let kept = log.clone();
    let complaints = thread::spawn(move || keep(errors, &kept));
    let messages = child.stdout.take().context("cargo's output is not piped")?;
    let (mut built, mut crates) = (Vec::new(), 0_u32);
    let reader = thread::spawn(move || BufReader::new(messages).lines().map_while(Result::ok).collect::<Vec<_>>());
    let result = follow(child, &line, &log);
    for message in reader.join().unwrap_or_default() {
        let Ok(message) = serde_json::from_str::<Message>(&message) else { continue };
        crates += u32::from(message.reason == "compiler-artifact");
        built.extend(executable(message));
    }
    drop(complaints.join());
    match result {
        Ok(()) => line.done(&format!("built ({crates} crates)")),
        Err(error) => {
            line.done("not built");
            return Err(error);
        }
    }
    Ok(built)
}

/// Cargo, as it was called.
pub(crate) fn cargo(layout: &Layout) -> Program {
    let cargo = std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from);
    let mut program = Program::new(cargo);
    program.folder = Some(layout.root.clone());
    program
}

/// Copies cargo's messages to the log as they come, so that the live line can show the last one.
fn keep(errors: impl std::io::Read, log: &Path) -> Result<()> {
    let mut file = crate::layout::new_log(log)?;
    std::io::copy(&mut BufReader::new(errors), &mut file)?;
    Ok(())
}

fn follow(mut child: std::process::Child, line: &crate::status::Line, log: &Path) -> Result<()> {
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if let Err(stopped) = crate::signals::check() {
            process::kill_group(child.id());
            child.wait()?;
            return Err(stopped);
        }
        if let Some(last) = crate::layout::last_line(log) {
            line.doing(&last);
        }
        thread::sleep(crate::signals::LOOK_EVERY * 4);
    };
    if status.success() {
        return Ok(());
    }
    let why = first_error(&std::fs::read_to_string(log).unwrap_or_default()).unwrap_or_else(|| status.to_string());
    let what = "cargo build".to_owned();
    Err(Problem::CommandFailed { what, why, log: log.display().to_string() }.into())
}

fn first_error(log: &str) -> Option<String> {
    log.lines().find(|line| line.starts_with("error")).map(str::to_owned)
}

fn executable(message: Message) -> Option<Built> {
    let target = message.target?;
    let folder = message.manifest_path?.parent()?.to_path_buf();
    Some(Built {
        package: package_name(&message.package_id?, &folder),
        package_folder: folder,
        target: target.name,
        kind: target.kind.first()?.clone(),
        test: message.profile?.test,
        path: message.executable?,
    })
}

/// The name in a package ID: `path+file:///x/e2e#0.1.0` or `path+file:///x/tools/bench#bench@0.1.0`.
fn package_name(id: &str, folder: &Path) -> String {
    let named = id.rsplit_once('#').and_then(|(_, rest)| rest.split_once('@'));
    match named {
        Some((name, _)) => name.to_owned(),
        None => folder.file_name().unwrap_or_default().to_string_lossy().into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_executable_is_read_from_cargos_message() {
        let text = r#"{"reason":"compiler-artifact","package_id":"path+file:///w/order-svc#0.1.0",
            "manifest_path":"/w/order-svc/Cargo.toml","target":{"name":"it","kind":["test"]},
            "profile":{"test":true},"executable":"/t/debug/deps/it-1","fresh":true}"#;
        let built = executable(serde_json::from_str(text).unwrap()).unwrap();
        assert_eq!((built.package.as_str(), built.target.as_str(), built.test), ("order-svc", "it", true));
        assert_eq!(built.package_folder, Path::new("/w/order-svc"));
    }

    #[test]
    fn a_library_is_no_executable() {
        let text = r#"{"reason":"compiler-artifact","package_id":"path+file:///w/events#0.1.0",
            "manifest_path":"/w/events/Cargo.toml","target":{"name":"events","kind":["lib"]},
            "profile":{"test":false},"executable":null}"#;
        assert_eq!(executable(serde_json::from_str(text).unwrap()), None);
    }

    #[test]
    fn a_package_is_named_after_its_folder_unless_the_id_says_more() {
        assert_eq!(package_name("path+file:///w/tools/x#bench@0.1.0", Path::new("/w/tools/x")), "bench");
        assert_eq!(package_name("path+file:///w/e2e#0.1.0", Path::new("/w/e2e")), "e2e");
    }
}
