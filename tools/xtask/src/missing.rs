//! `cargo up --missing`: asks the running `up` to start what is gone, and waits until everything is ready.
//!
//! It starts nothing itself: what it started would end with it.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::sys::signal::Signal;

use crate::layout::{self, Layout};
use crate::probe::Probe;
use crate::problem::Problem;
use crate::process;
use crate::records::{self, StackFile};
use crate::settings;
use crate::signals::{self, LOOK_EVERY};
use crate::simulators;
use crate::status::Status;

/// How long everything may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Asks the `up` with this pid.
///
/// # Errors
/// [`Problem::StillMissing`] after 60 s; what is not ready, and why, has been printed.
pub(crate) fn run(layout: &Layout, up: u32) -> Result<()> {
    let status = Status::new();
    // Settings that the caller sets hold for what is started by this request.
    layout::replace(&layout.request_file(), &serde_json::to_string(&settings::overrides())?, 0o600)?;
    process::send(up, Signal::SIGUSR1);
    let line = status.line("missing", "starting what is gone");
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        signals::check()?;
        let answered = !layout.request_file().exists();
        let lacking = lacking(layout, &records::read_stack(layout)?);
        if answered && lacking.is_empty() {
            line.done("everything is ready");
            return Ok(());
        }
        if Instant::now() > deadline {
            line.done("not everything is ready");
            for (name, why) in lacking {
                println!("{name} is not ready: {why}");
            }
            return Err(Problem::StillMissing.into());
        }
        thread::sleep(LOOK_EVERY * 2);
    }
}

/// What a request says, once; no settings where it is not readable.
pub(crate) fn take_request(layout: &Layout) -> BTreeMap<String, String> {
    let path = layout.request_file();
    let request = fs::read_to_string(&path).ok();
    // The asker takes the absence of the file as the answer.
    drop(fs::remove_file(path));
    request.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

/// Parts that have no living process, and services that are not ready.
fn lacking(layout: &Layout, stack: &StackFile) -> Vec<(String, String)> {
    let pids = records::read_pids(layout);
    let lives = |name: &str| pids.get(name).is_some_and(|process| process.lives());
    let http = |address: &str, path: &str| {
        let port = port_of(address)?;
        Some(Probe::Http { port, path: path.to_owned() })
    };
    let mut parts = vec![
        ("postgres".to_owned(), None),
        ("kafka".to_owned(), port_of(&stack.kafka).map(|port| Probe::Kafka { port })),
        ("registry".to_owned(), http(&stack.registry, "/apis/ccompat/v7/subjects")),
        ("gateway".to_owned(), http(&stack.gateway, simulators::GATEWAY_PROBE)),
        ("sink".to_owned(), http(&stack.sink, simulators::SINK_PROBE)),
    ];
    parts.extend(stack.services.iter().map(|service| (service.part(), http(&service.admin, "/readyz"))));
    let why = |name: &str, probe: Option<Probe>| match probe {
        _ if !lives(name) => Some("it does not run".to_owned()),
        Some(probe) => probe.ask().err(),
        None => None,
    };
    parts.into_iter().filter_map(|(name, probe)| Some((name.clone(), why(&name, probe)?))).collect()
}

/// The port of `host:port` or of a URL.
fn port_of(address: &str) -> Option<u16> {
    let rest = address.rsplit_once("//").map_or(address, |(_, rest)| rest);
    let (host, _) = rest.split_once('/').unwrap_or((rest, ""));
    host.rsplit_once(':')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_taken_once() {
        let mut layout = Layout::of_checkout();
        layout.home = std::env::temp_dir().join(format!("xtask-missing-{}", std::process::id()));
        layout.tools = layout.home.join("tools");
        layout.create().unwrap();
        layout::replace(&layout.request_file(), r#"{"GATEWAY_ADAPTER":"inside"}"#, 0o600).unwrap();
        assert_eq!(take_request(&layout)["GATEWAY_ADAPTER"], "inside");
        assert!(take_request(&layout).is_empty());
        layout::remove(&layout.home).unwrap();
    }

    #[test]
    fn the_port_is_found_in_every_kind_of_address() {
        assert_eq!(port_of("http://127.0.0.1:9101"), Some(9101));
        assert_eq!(port_of("127.0.0.1:19092"), Some(19092));
        assert_eq!(port_of("http://127.0.0.1:18081/apis/ccompat/v7"), Some(18081));
        assert_eq!(port_of("nowhere"), None);
    }
}
