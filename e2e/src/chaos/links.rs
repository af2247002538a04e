//! A proxy for each instance and each peer it speaks to, so that one of two can be cut off.
//!
//! The driver of the run and orderctl go straight to the servers.

use std::collections::BTreeMap;

use serde_json::json;
use testkit::Proxy;
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::faults::{Link, Peer, Who};
use super::plan::INSTANCES;
use crate::stack::{SERVICES, Stack};

/// All proxies, those of the guests that come and go included.
#[derive(Debug)]
pub(super) struct Links {
    proxies: BTreeMap<Link, Proxy>,
    /// A registry that has nothing.
    empty_registry: MockServer,
}

impl Links {
    /// Starts them.
    pub(super) async fn start(stack: &Stack) -> anyhow::Result<Self> {
        let mut proxies = BTreeMap::new();
        for service in SERVICES {
            for instance in 0..=INSTANCES {
                let who = Who { service, instance };
                proxies.insert(Link { who, to: Peer::Kafka }, Proxy::of_kafka(&stack.kafka).await?);
                proxies.insert(Link { who, to: Peer::Postgres }, Proxy::of_url(&stack.databases[service]).await?);
                proxies.insert(Link { who, to: Peer::Registry }, Proxy::of_url(&stack.registry).await?);
                let outside = match service {
                    "payment-svc" => Proxy::of_url(&stack.gateway).await?,
                    "notify-svc" => Proxy::of(&stack.smtp).await?,
                    _ => continue,
                };
                proxies.insert(Link { who, to: Peer::Outside }, outside);
            }
        }
        let empty_registry = MockServer::start().await;
        let nothing = ResponseTemplate::new(404).set_body_json(json!({"error_code": 40403, "message": "Not found"}));
        Mock::given(any()).respond_with(nothing).mount(&empty_registry).await;
        Ok(Self { proxies, empty_registry })
    }

    /// The variables that lead an instance through its proxies.
    pub(super) fn detours(&self, who: Who, stack: &Stack) -> Vec<(&'static str, String)> {
        let to = |to| &self.proxies[&Link { who, to }];
        let mut detours = vec![
            ("KAFKA_BOOTSTRAP", to(Peer::Kafka).address()),
            ("DATABASE_URL", to(Peer::Postgres).url(&stack.databases[who.service])),
            ("REGISTRY_URL", to(Peer::Registry).url(&stack.registry)),
        ];
        match who.service {
            "payment-svc" => detours.push(("GATEWAY_URL", to(Peer::Outside).url(&stack.gateway))),
            "notify-svc" => detours.push(("SMTP_URL", format!("smtp://{}", to(Peer::Outside).address()))),
            _ => {}
        }
        detours
    }

    /// Does the same to each of these.
    pub(super) fn each(&self, links: &[Link], what: impl Fn(&Proxy)) {
        links.iter().filter_map(|link| self.proxies.get(link)).for_each(what);
    }

    /// Leads these to a registry that has nothing.
    pub(super) fn mislead(&self, links: &[Link]) {
        let instead = Some(*self.empty_registry.address());
        self.each(links, |proxy| proxy.change(|faults| faults.instead = instead));
    }

    /// Heals all.
    pub(super) fn heal(&self) {
        self.proxies.values().for_each(Proxy::heal);
    }

    /// How often connections or bytes of these links were in trouble so far.
    pub(super) fn troubles(&self, links: &[Link]) -> usize {
        let of = |proxy: &Proxy| {
            let counts = proxy.counts();
            counts.refused
                + counts.reset
                + counts.half_closed
                + counts.held
                + counts.delayed
                + counts.lost
                + counts.misled
        };
        links.iter().filter_map(|link| self.proxies.get(link)).map(of).sum()
    }
}
