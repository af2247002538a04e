//! How the four services are started, each with its own database and ports.
//!
//! What a variable means is said in the service's `config.rs`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use crate::fleet::{Part, Stage};
use crate::layout::Layout;
use crate::probe::Probe;
use crate::process::Program;
use crate::records::{ServiceEntry, part_name};
use crate::secrets::Secrets;
use crate::settings::{SERVICES, Settings, database_of};
use crate::{kafka, postgres, registry};

const READY_WITHIN: Duration = Duration::from_secs(60);

/// Every instance of every service.
pub(crate) fn parts(
    layout: &Layout,
    settings: &Settings,
    secrets: &Secrets,
    binaries: &BTreeMap<String, PathBuf>,
    instances: u16,
) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    for instance in 0..instances {
        for service in SERVICES {
            let binary = binaries.get(service).with_context(|| format!("the workspace has no binary {service}"))?;
            let mut program = Program::new(binary);
            program.env = environment(layout, settings, secrets, service, instance)?;
            program.clean = true;
            let (_, admin) = settings.service_ports(service, instance)?;
            let name = part_name(service, instance);
            parts.push(Part {
                log: layout.log_of(&name),
                name,
                stage: Stage::Service,
                program,
                probe: Probe::Http { port: admin, path: "/readyz".to_owned() },
                stop: Signal::SIGTERM,
                ready_within: READY_WITHIN,
            });
        }
    }
    Ok(parts)
}

/// The entries of `stack.json`.
pub(crate) fn entries(settings: &Settings, instances: u16) -> Result<Vec<ServiceEntry>> {
    let mut entries = Vec::new();
    for instance in 0..instances {
        for service in SERVICES {
            let (http, admin) = settings.service_ports(service, instance)?;
            entries.push(ServiceEntry {
                name: service.to_owned(),
                instance,
                http: format!("http://127.0.0.1:{http}"),
                admin: format!("http://127.0.0.1:{admin}"),
                pid: None,
            });
        }
    }
    Ok(entries)
}

/// What an instance is given; compose.yaml gives the same names.
pub(crate) fn environment(
    layout: &Layout,
    settings: &Settings,
    secrets: &Secrets,
    service: &str,
    instance: u16,
) -> Result<BTreeMap<String, String>> {
    let (http, admin) = settings.service_ports(service, instance)?;
    let sink = settings.port("SINK_PORT")?;
    let mut environment = settings.passed_on()?;
    environment.extend(
        [
            ("KAFKA_BOOTSTRAP", kafka::bootstrap(settings)?),
            ("REGISTRY_URL", registry::url(settings)?),
            ("DATABASE_URL", postgres::url(settings, secrets, database_of(service))?),
            ("HTTP_ADDR", format!("127.0.0.1:{http}")),
            ("ADMIN_ADDR", format!("127.0.0.1:{admin}")),
            ("PUBLIC_URL", format!("http://127.0.0.1:{http}")),
            ("JWT_KEYS_FILE", layout.keys().join("verify.pem").display().to_string()),
            ("GATEWAY_URL", format!("http://127.0.0.1:{}", settings.port("GATEWAY_PORT")?)),
            ("GATEWAY_SECRET", secrets.get("GATEWAY_SECRET")?.to_owned()),
            ("SMTP_URL", format!("smtp://127.0.0.1:{}", settings.port("SMTP_PORT")?)),
            ("SMS_URL", format!("http://127.0.0.1:{sink}/sms")),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    Ok(environment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_instance_has_its_own_ports_and_the_same_database() {
        let layout = Layout::of_checkout();
        let settings = Settings::new(None).unwrap();
        let secrets = Secrets::load(&layout).unwrap();
        let first = environment(&layout, &settings, &secrets, "payment-svc", 0).unwrap();
        let second = environment(&layout, &settings, &secrets, "payment-svc", 1).unwrap();
        assert_eq!(first["HTTP_ADDR"], "127.0.0.1:8103");
        assert_eq!(second["HTTP_ADDR"], "127.0.0.1:8113");
        assert_eq!(second["ADMIN_ADDR"], "127.0.0.1:9113");
        assert_eq!(first["DATABASE_URL"], second["DATABASE_URL"]);
        assert!(first["DATABASE_URL"].ends_with("@127.0.0.1:15432/payment"));
    }
}
