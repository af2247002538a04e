//! How the simulators are started: the payment gateway, and the sink for mail and SMS.
//!
//! One binary in two processes, so that a test can take one away.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::Signal;

use crate::fleet::{Part, Stage};
use crate::layout::{self, Layout};
use crate::probe::Probe;
use crate::process::Program;
use crate::secrets::Secrets;
use crate::settings::Settings;

/// Paths that answer 200 when the simulator is ready.
pub(crate) const GATEWAY_PROBE: &str = "/v1/charges";
pub(crate) const SINK_PROBE: &str = "/messages";
const READY_WITHIN: Duration = Duration::from_secs(15);

/// Both simulators.
pub(crate) fn parts(layout: &Layout, settings: &Settings, secrets: &Secrets, binary: &Path) -> Result<Vec<Part>> {
    let gateway = settings.port("GATEWAY_PORT")?;
    let sink = settings.port("SINK_PORT")?;
    let smtp = settings.port("SMTP_PORT")?;
    Ok(vec![
        part(layout, settings, binary, "gateway", gateway, GATEWAY_PROBE, |program| {
            Ok(program
                .env("GATEWAY_ADDR", format!("127.0.0.1:{gateway}"))
                .env("GATEWAY_SECRET", secrets.get("GATEWAY_SECRET")?))
        })?,
        part(layout, settings, binary, "sink", sink, SINK_PROBE, |program| {
            Ok(program.env("SINK_ADDR", format!("127.0.0.1:{sink}")).env("SMTP_ADDR", format!("127.0.0.1:{smtp}")))
        })?,
    ])
}

fn part(
    layout: &Layout,
    settings: &Settings,
    binary: &Path,
    name: &str,
    port: u16,
    path: &str,
    addresses: impl FnOnce(Program) -> Result<Program>,
) -> Result<Part> {
    let data = layout.data_of(name);
    layout::make_folder(&data)?;
    let program =
        Program::new(binary).args([name]).env("DATA_DIR", data.display().to_string()).env("LOG", settings.get("LOG")?);
    let mut program = addresses(program)?;
    program.clean = true;
    Ok(Part {
        name: name.to_owned(),
        stage: Stage::Around,
        program,
        probe: Probe::Http { port, path: path.to_owned() },
        log: layout.log_of(name),
        stop: Signal::SIGTERM,
        ready_within: READY_WITHIN,
    })
}
