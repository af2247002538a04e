//! The one list of settings, `deploy/settings.env`, and the ports that follow from it.
//!
//! It does not know folders or programs, and it reads the environment only for the settings that `cargo up` passes on.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

/// The file that compose.yaml reads too.
const SETTINGS: &str = include_str!("../../../deploy/settings.env");

/// What a user may override by setting it for `cargo up`; services read all of them.
const PASSED_ON: [&str; 10] = [
    "TOPIC_PREFIX",
    "PARTITIONS",
    "PAY_WITHIN",
    "LOG",
    "GATEWAY_ADAPTER",
    "SESSION_TIMEOUT",
    "RETRY_DELAYS",
    "EFFECT_DELAYS",
    "ASK_GATEWAY_AFTER",
    "TIMER_GRACE",
];

/// The most instances of a service: the next would reach the simulators' ports.
pub(crate) const INSTANCES_MAX: u16 = 9;

/// How far apart the ports of two instances are.
const INSTANCE_STEP: u16 = 10;

/// The ports of a stack, in the order in which `--port-base` lays them out; services follow at +100 and +200.
const BACKING_PORTS: [&str; 8] = [
    "KAFKA_PORT",
    "KAFKA_CONTROLLER_PORT",
    "REGISTRY_PORT",
    "REGISTRY_ADMIN_PORT",
    "POSTGRES_PORT",
    "GATEWAY_PORT",
    "SINK_PORT",
    "SMTP_PORT",
];

/// The services in the order of their ports; the first half of the name is the database and its role.
pub(crate) const SERVICES: [&str; 4] = ["order-svc", "inventory-svc", "payment-svc", "notify-svc"];

/// The settings, and the base that moves the ports if one was given.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    values: BTreeMap<String, String>,
    port_base: Option<u16>,
}

impl Settings {
    /// The compiled-in list with ports moved to `port_base`.
    ///
    /// # Errors
    /// A base that leaves no room for the ports above it, or below the unprivileged ones.
    pub(crate) fn new(port_base: Option<u16>) -> Result<Self> {
        if let Some(base) = port_base {
            ensure!((1024..=65_000).contains(&base), "--port-base {base} is out of range: take one from 1024 to 65000");
        }
        let values = parse(SETTINGS)?;
        Ok(Self { values, port_base })
    }

    /// A setting by name.
    ///
    /// # Errors
    /// A name that deploy/settings.env does not list.
    pub(crate) fn get(&self, name: &str) -> Result<&str> {
        self.values.get(name).map(String::as_str).with_context(|| format!("deploy/settings.env does not set {name}"))
    }

    /// Replaces one of the settings that services read.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.values.insert(name.to_owned(), value.to_owned());
    }

    /// What every service is given besides its addresses: the list's values, overridden by the caller's environment.
    pub(crate) fn passed_on(&self) -> Result<BTreeMap<String, String>> {
        PASSED_ON.iter().map(|name| Ok(((*name).to_owned(), self.get(name)?.to_owned()))).collect()
    }

    /// Takes over those of the passed-on settings that the environment of this process sets.
    pub(crate) fn override_from_environment(&mut self) {
        for (name, value) in overrides() {
            self.set(&name, &value);
        }
    }

    /// The port of a part that exists once.
    ///
    /// # Errors
    /// A name that is not in the list, or a value that is no port.
    pub(crate) fn port(&self, name: &str) -> Result<u16> {
        match self.port_base {
            None => {
                let text = self.get(name)?;
                text.parse().with_context(|| format!("deploy/settings.env: {name}={text} is no port"))
            }
            Some(base) => (0..)
                .zip(BACKING_PORTS)
                .find_map(|(offset, known)| (known == name).then_some(base + offset))
                .with_context(|| format!("no place above --port-base for {name}")),
        }
    }

    /// HTTP and admin port of an instance of a service.
    ///
    /// # Errors
    /// An unknown service.
    pub(crate) fn service_ports(&self, service: &str, instance: u16) -> Result<(u16, u16)> {
        let step = INSTANCE_STEP * instance;
        match self.port_base {
            None => {
                let stem = database_of(service).to_uppercase();
                let http = self.port(&format!("{stem}_HTTP_PORT"))?;
                let admin = self.port(&format!("{stem}_ADMIN_PORT"))?;
                Ok((http + step, admin + step))
            }
            Some(base) => {
                let number = (1..)
                    .zip(SERVICES)
                    .find_map(|(number, known)| (known == service).then_some(number))
                    .with_context(|| format!("{service} is no service of this workspace"))?;
                Ok((base + 100 + number + step, base + 200 + number + step))
            }
        }
    }

    /// Every port a stack of `instances` listens on, with the part that takes it.
    pub(crate) fn all_ports(&self, instances: u16) -> Result<Vec<(String, u16)>> {
        let mut ports = Vec::new();
        for name in BACKING_PORTS {
            let part = name.trim_end_matches("_PORT").to_lowercase().replace('_', " ");
            ports.push((part, self.port(name)?));
        }
        for instance in 0..instances {
            for service in SERVICES {
                let (http, admin) = self.service_ports(service, instance)?;
                ports.push((format!("{service} {instance}"), http));
                ports.push((format!("{service} {instance} admin"), admin));
            }
        }
        Ok(ports)
    }
}

/// The database of a service, which is also its role's name: `order` for `order-svc`.
pub(crate) fn database_of(service: &str) -> &str {
    service.trim_end_matches("-svc")
}

/// The passed-on settings that this process' environment sets.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place of xtask that reads settings from the environment"
)]
pub(crate) fn overrides() -> BTreeMap<String, String> {
    PASSED_ON.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?))).collect()
}

/// Reads `NAME=value` lines; blank lines and lines that begin with `#` are left out.
///
/// # Errors
/// A line that is neither, or a name that stands twice.
pub(crate) fn parse(text: &str) -> Result<BTreeMap<String, String>> {
    let mut values = BTreeMap::new();
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once('=').with_context(|| format!("`{line}` is not NAME=value"))?;
        if values.insert(name.to_owned(), value.to_owned()).is_some() {
            bail!("{name} stands twice");
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_documented_ports_are_the_default() {
        let settings = Settings::new(None).unwrap();
        assert_eq!(settings.port("KAFKA_PORT").unwrap(), 19092);
        assert_eq!(settings.port("SMTP_PORT").unwrap(), 8225);
        assert_eq!(settings.service_ports("notify-svc", 0).unwrap(), (8104, 9104));
        assert_eq!(settings.service_ports("order-svc", 2).unwrap(), (8121, 9121));
    }

    #[test]
    fn a_port_base_moves_every_port() {
        let settings = Settings::new(Some(24_000)).unwrap();
        let ports = settings.all_ports(INSTANCES_MAX).unwrap();
        assert!(ports.iter().all(|(_, port)| (24_000..24_300).contains(port)));
    }

    #[test]
    fn no_two_parts_share_a_port() {
        for base in [None, Some(24_000)] {
            let ports = Settings::new(base).unwrap().all_ports(INSTANCES_MAX).unwrap();
            let distinct: BTreeSet<u16> = ports.iter().map(|(_, port)| *port).collect();
            assert_eq!(distinct.len(), ports.len());
        }
    }

    #[test]
    fn a_base_without_room_is_refused() {
        assert!(Settings::new(Some(65_300)).is_err());
        assert!(Settings::new(Some(80)).is_err());
    }

    #[test]
    fn every_setting_that_services_read_is_listed() {
        let passed = Settings::new(None).unwrap().passed_on().unwrap();
        assert_eq!(passed.len(), PASSED_ON.len());
        assert_eq!(passed["RETRY_DELAYS"], "5s,30s,2m,10m");
    }

    #[test]
    fn a_line_without_a_value_is_an_error() {
        assert!(parse("NAME").is_err());
        assert!(parse("A=1\nA=2").is_err());
        assert_eq!(parse("# c\n\nA=b=c\n").unwrap()["A"], "b=c");
    }
}
