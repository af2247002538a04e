//! `orderctl topics create|check`: every topic of DESIGN §3 with its settings.
//!
//! Settings are the engine's; nothing is deleted or altered here.

use std::process::ExitCode;

use engine::topics::{self, Found, Topic};
use events::inventory::{InventoryCommand, InventoryEvent};
use events::notification::NotificationEvent;
use events::order::{OrderCommand, OrderEvent};
use events::payment::{PaymentCommand, PaymentEvent};

use crate::cli::Topics;
use crate::output::{Output, table};
use crate::services::ServiceName;
use crate::settings::Settings;

/// Topics that HTTP processes append to.
pub(crate) const COMMANDS: [&str; 3] = [OrderCommand::TOPIC, InventoryCommand::TOPIC, PaymentCommand::TOPIC];
/// Topics that processors write.
pub(crate) const EVENTS: [&str; 4] =
    [OrderEvent::TOPIC, InventoryEvent::TOPIC, PaymentEvent::TOPIC, NotificationEvent::TOPIC];

/// All topics, without prefix.
pub(crate) fn all() -> Vec<Topic> {
    topics::all(&COMMANDS, &EVENTS, &ServiceName::ALL.map(ServiceName::as_str))
}

pub(crate) async fn run(settings: &Settings, out: Output, what: &Topics) -> anyhow::Result<ExitCode> {
    let kafka = settings.kafka_answers().await?;
    let found = match what {
        Topics::Create { replication } => topics::create(&kafka, &all(), *replication).await?,
        Topics::Check => topics::check(&kafka, &all()).await?,
    };
    let wrong = found.iter().any(|one| !one.differences.is_empty());
    out.show(&found, |found| table(["TOPIC", ""], found.iter().map(row)));
    Ok(if wrong { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn row(found: &Found) -> [String; 2] {
    let state = if !found.differences.is_empty() {
        found.differences.join("; ")
    } else if found.created {
        "created".to_owned()
    } else {
        "ok".to_owned()
    };
    [found.topic.clone(), state]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_fifteen_topics() {
        let names: Vec<String> = all().into_iter().map(|topic| topic.name).collect();
        assert_eq!(names.len(), 15);
        for name in ["order.commands", "notification.events", "payment-svc.retry", "notify-svc.dlq"] {
            assert!(names.iter().any(|known| known == name), "{name}");
        }
    }
}
