//! Does compose.yaml say the same as `cargo up`? Tests only; there is no engine here to ask.
//!
//! Whether an image starts is not checked; names, ports, variables, conditions and versions are.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use crate::layout::Layout;
use crate::secrets::Secrets;
use crate::services;
use crate::settings::{self, SERVICES, Settings};

const COMPOSE: &str = include_str!("../../../compose.yaml");
const DOCKERFILE: &str = include_str!("../../../deploy/Dockerfile");

#[derive(Debug, Deserialize)]
struct Compose {
    services: BTreeMap<String, Service>,
    volumes: BTreeMap<String, Value>,
}

#[derive(Debug, Deserialize)]
struct Service {
    image: Option<String>,
    env_file: Option<String>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    #[serde(default)]
    command: Vec<String>,
    #[serde(default)]
    ports: Vec<String>,
    #[serde(default)]
    volumes: Vec<String>,
    #[serde(default)]
    depends_on: BTreeMap<String, Dependency>,
    healthcheck: Option<Value>,
    restart: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    condition: String,
}

fn compose() -> Compose {
    serde_saphyr::from_str(COMPOSE).unwrap()
}

#[test]
fn it_has_exactly_the_parts_of_a_stack() {
    let names: BTreeSet<String> = compose().services.into_keys().collect();
    let parts = ["broker", "registry", "postgres", "gateway", "sink", "setup"];
    let wanted: BTreeSet<String> = parts.into_iter().chain(SERVICES).map(str::to_owned).collect();
    assert_eq!(names, wanted);
}

#[test]
fn it_publishes_exactly_the_ports_of_the_settings_on_loopback() {
    let settings = Settings::new(None).unwrap();
    let mut wanted: BTreeSet<u16> = settings.all_ports(1).unwrap().into_iter().map(|(_, port)| port).collect();
    // Nobody outside talks to the controller.
    wanted.remove(&settings.port("KAFKA_CONTROLLER_PORT").unwrap());
    let mut published = BTreeSet::new();
    for port in compose().services.values().flat_map(|service| &service.ports) {
        let (outside, _) = port.strip_prefix("127.0.0.1:").unwrap().split_once(':').unwrap();
        published.insert(outside.parse().unwrap());
    }
    assert_eq!(published, wanted);
}

#[test]
fn a_service_is_published_where_cargo_up_starts_it() {
    let settings = Settings::new(None).unwrap();
    let compose = compose();
    for service in SERVICES {
        let (http, admin) = settings.service_ports(service, 0).unwrap();
        let wanted = [format!("127.0.0.1:{http}:8100"), format!("127.0.0.1:{admin}:9100")];
        assert_eq!(compose.services[service].ports, wanted);
    }
}

#[test]
fn every_service_gets_the_variables_that_cargo_up_gives() {
    let settings = Settings::new(None).unwrap();
    let layout = Layout::of_checkout();
    let secrets = Secrets::load(&layout).unwrap();
    let from_file: BTreeSet<String> = settings.passed_on().unwrap().into_keys().collect();
    for name in SERVICES {
        let service = &compose().services[name];
        assert_eq!(service.env_file.as_deref(), Some("deploy/settings.env"));
        let environment = services::environment(&layout, &settings, &secrets, name, 0).unwrap();
        let wanted: BTreeSet<String> = environment.into_keys().collect();
        let mut given: BTreeSet<String> = service.environment.keys().cloned().collect();
        assert!(given.is_disjoint(&from_file), "{name} sets anew what the settings say");
        given.extend(from_file.clone());
        assert_eq!(given, wanted, "{name}");
    }
}

#[test]
fn images_have_the_versions_of_the_settings() {
    let settings = Settings::new(None).unwrap();
    let image = |part: &str| compose().services[part].image.clone().unwrap();
    let version = |name: &str| settings.get(name).unwrap().to_owned();
    assert_eq!(image("broker"), format!("apache/kafka:{}", version("KAFKA_VERSION")));
    assert_eq!(image("registry"), format!("apicurio/apicurio-registry:{}", version("REGISTRY_VERSION")));
    assert_eq!(image("postgres"), format!("postgres:{}", version("POSTGRES_VERSION")));
}

#[test]
fn whatever_is_waited_for_exists_and_can_be_waited_for() {
    let compose = compose();
    for (name, service) in &compose.services {
        for (other, dependency) in &service.depends_on {
            let other = compose.services.get(other).unwrap_or_else(|| panic!("{name} waits for {other}"));
            match dependency.condition.as_str() {
                "service_healthy" => assert!(other.healthcheck.is_some(), "{name}"),
                "service_completed_successfully" => assert_eq!(other.restart.as_deref(), Some("no")),
                condition => panic!("{name} waits for {condition}"),
            }
        }
    }
}

#[test]
fn everything_that_stays_has_a_health_check() {
    for (name, service) in compose().services {
        let once = service.restart.as_deref() == Some("no");
        assert_eq!(service.healthcheck.is_none(), once, "{name}");
    }
}

#[test]
fn every_volume_is_declared_and_every_file_is_there() {
    let compose = compose();
    let root = Layout::of_checkout().root;
    for volume in compose.services.values().flat_map(|service| &service.volumes) {
        let (from, _) = volume.split_once(':').unwrap();
        let known = match from.strip_prefix("./") {
            Some(file) => root.join(file).exists(),
            None => compose.volumes.contains_key(from),
        };
        assert!(known, "{volume}");
    }
}

#[test]
fn the_registry_takes_its_settings_from_the_shared_file() {
    let registry = &compose().services["registry"];
    assert_eq!(registry.env_file.as_deref(), Some("deploy/registry.env"));
    let shared = settings::parse(include_str!("../../../deploy/registry.env")).unwrap();
    assert!(registry.environment.keys().all(|name| !shared.contains_key(name)));
}

#[test]
fn the_image_holds_every_program_that_is_started() {
    let copied = DOCKERFILE.lines().find(|line| line.contains("/programs/") && line.contains("cp ")).unwrap();
    for (name, service) in compose().services {
        if service.image.as_deref() == Some("orderlog:local") {
            let line = service.command.join(" ");
            let program = if name == "setup" { "orderctl" } else { service.command[0].as_str() };
            assert!(copied.split_whitespace().any(|word| word == program), "{line}");
        }
    }
}
