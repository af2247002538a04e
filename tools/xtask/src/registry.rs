//! How the schema registry is started: Apicurio with its Confluent API, stored in a database of its own.
//!
//! Schemas are not registered here; `orderctl schemas push` does that.

use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::Signal;

use crate::fleet::{Part, Stage};
use crate::layout::Layout;
use crate::postgres;
use crate::probe::Probe;
use crate::secrets::Secrets;
use crate::settings::{self, Settings};
use crate::sources::Programs;

const REGISTRY: &str = include_str!("../../../deploy/registry.env");
/// The path of the Confluent API below the registry's address.
const API: &str = "/apis/ccompat/v7";
const READY_WITHIN: Duration = Duration::from_secs(120);

/// How the registry is started. Its database must be there.
pub(crate) fn part(layout: &Layout, settings: &Settings, secrets: &Secrets, programs: &Programs) -> Result<Part> {
    let port = settings.port("REGISTRY_PORT")?;
    let database = settings.port("POSTGRES_PORT")?;
    let mut program = programs
        .java_for("registry", layout)
        .args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
        .args(["-Dquarkus.http.host=127.0.0.1".to_owned(), format!("-Dquarkus.http.port={port}")])
        // Left alone it would listen on every address at port 9000.
        .args(["-Dquarkus.management.host=127.0.0.1"])
        .args([format!("-Dquarkus.management.port={}", settings.port("REGISTRY_ADMIN_PORT")?)])
        .args(["-jar", "quarkus-run.jar"])
        .env("APICURIO_DATASOURCE_URL", format!("jdbc:postgresql://127.0.0.1:{database}/registry"))
        .env("APICURIO_DATASOURCE_USERNAME", "registry")
        .env("APICURIO_DATASOURCE_PASSWORD", secrets.password_of(postgres::REGISTRY_ROLE)?);
    program.env.extend(settings::parse(REGISTRY)?);
    program.folder = Some(programs.registry.clone());
    program.clean = true;
    Ok(Part {
        name: "registry".to_owned(),
        stage: Stage::Around,
        program,
        probe: Probe::Http { port, path: format!("{API}/subjects") },
        log: layout.log_of("registry"),
        stop: Signal::SIGTERM,
        ready_within: READY_WITHIN,
    })
}

/// Base URL of the Confluent API.
pub(crate) fn url(settings: &Settings) -> Result<String> {
    Ok(format!("http://127.0.0.1:{}{API}", settings.port("REGISTRY_PORT")?))
}
