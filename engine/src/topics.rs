//! All topics and their settings, and the admin calls that create and check them.
//!
//! The number of partitions is fixed at creation: growing means new topics and a rebuild. Nothing here deletes.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, bail};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::metadata::MetadataTopic;
use rdkafka::types::RDKafkaErrorCode;
use serde::Serialize;

use crate::clock;
use crate::kafka::{INPUT_BYTES_MAX, Kafka, RECORD_BYTES_MAX};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Commands are needed until they are decided; what they led to is in the events.
const COMMANDS_RETENTION_MS: i64 = 7 * 24 * 3_600 * 1_000;

/// A topic, without prefix, and its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Name without prefix.
    pub name: String,
    /// Settings, by Kafka's names.
    pub settings: Vec<(&'static str, String)>,
}

/// What `create` did, or `check` found, of one topic.
#[derive(Debug, Clone, Serialize)]
pub struct Found {
    /// As on the broker.
    pub topic: String,
    /// True when it was made just now.
    pub created: bool,
    /// What differs from what it must be.
    pub differences: Vec<String>,
}

/// The events and commands topics, and the retry and dlq topics of these services.
#[must_use]
pub fn all(commands: &[&str], events: &[&str], services: &[&str]) -> Vec<Topic> {
    let topic = |name: String, retention: i64, bytes: usize| Topic {
        name,
        settings: vec![
            ("cleanup.policy", "delete".to_owned()),
            ("retention.ms", retention.to_string()),
            ("retention.bytes", "-1".to_owned()),
            ("max.message.bytes", bytes.to_string()),
        ],
    };
    let own = services.iter().flat_map(|service| [format!("{service}.retry"), format!("{service}.dlq")]);
    let commands = commands.iter().map(|name| topic((*name).to_owned(), COMMANDS_RETENTION_MS, INPUT_BYTES_MAX));
    let events = events.iter().map(|name| topic((*name).to_owned(), -1, INPUT_BYTES_MAX));
    commands.chain(events).chain(own.map(|name| topic(name, -1, RECORD_BYTES_MAX))).collect()
}

/// Creates the topics that are missing, and compares the others.
///
/// # Errors
/// When the broker does not answer or refuses.
pub async fn create(kafka: &Kafka, topics: &[Topic], replication: i32) -> anyhow::Result<Vec<Found>> {
    let names: Vec<String> = topics.iter().map(|topic| kafka.topic(&topic.name)).collect();
    let new: Vec<NewTopic<'_>> = topics
        .iter()
        .zip(&names)
        .map(|(topic, name)| {
            let new = NewTopic::new(name, kafka.partitions, TopicReplication::Fixed(replication));
            topic.settings.iter().fold(new, |new, (key, value)| new.set(key, value))
        })
        .collect();
    let results = admin(kafka)?.create_topics(&new, &options()).await.context("creating topics")?;
    let mut created = Vec::new();
    for result in results {
        match result {
            Ok(name) => created.push(name),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, code)) => bail!("the broker refuses to create {name}: {code}"),
        }
    }
    let mut found = check_until_there(kafka, topics, &created).await?;
    for one in &mut found {
        one.created = created.contains(&one.topic);
    }
    Ok(found)
}

/// Compares, once the broker shows what its controller has created a moment ago.
async fn check_until_there(kafka: &Kafka, topics: &[Topic], created: &[String]) -> anyhow::Result<Vec<Found>> {
    let deadline = clock::instant() + REQUEST_TIMEOUT;
    loop {
        let there = partitions(kafka).await?;
        if created.iter().all(|name| there.get(name).is_some_and(|one| one.led)) || clock::instant() >= deadline {
            return check(kafka, topics).await;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Compares topics with what they must be.
///
/// # Errors
/// When the broker does not answer.
pub async fn check(kafka: &Kafka, topics: &[Topic]) -> anyhow::Result<Vec<Found>> {
    let partitions = partitions(kafka).await?;
    let names: Vec<String> = topics.iter().map(|topic| kafka.topic(&topic.name)).collect();
    let there: Vec<&String> = names.iter().filter(|name| partitions.contains_key(*name)).collect();
    let resources: Vec<_> = there.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
    let mut settings: HashMap<String, HashMap<String, Option<String>>> = HashMap::new();
    if !resources.is_empty() {
        let described = admin(kafka)?.describe_configs(&resources, &options()).await.context("asking for settings")?;
        for (name, resource) in there.into_iter().zip(described) {
            let resource = resource.map_err(|code| anyhow::anyhow!("the settings of {name}: {code}"))?;
            let entries = resource.entries.into_iter().map(|entry| (entry.name, entry.value)).collect();
            settings.insert(name.clone(), entries);
        }
    }
    let found = topics.iter().zip(names).map(|(topic, name)| {
        let mut differences = Vec::new();
        match partitions.get(&name).map(|one| one.count) {
            None => differences.push("it does not exist".to_owned()),
            Some(count) if count != kafka.partitions => {
                differences.push(format!("it has {count} partitions, not {}; they never change", kafka.partitions));
            }
            Some(_) => {}
        }
        for (key, wanted) in &topic.settings {
            let is = settings.get(&name).and_then(|entries| entries.get(*key)).cloned().flatten();
            if let Some(is) = is.filter(|is| is != wanted) {
                differences.push(format!("{key} is {is}, not {wanted}"));
            }
        }
        Found { topic: name, created: false, differences }
    });
    Ok(found.collect())
}

/// The partitions of a topic.
#[derive(Debug, Clone, Copy)]
struct Partitions {
    count: i32,
    /// Each has a leader now: it can be written and read.
    led: bool,
}

async fn partitions(kafka: &Kafka) -> anyhow::Result<HashMap<String, Partitions>> {
    let consumer: BaseConsumer = kafka.reader_config().create().context("making a client")?;
    let ask = move || -> anyhow::Result<HashMap<String, Partitions>> {
        let metadata = consumer.fetch_metadata(None, REQUEST_TIMEOUT).context("asking for topics")?;
        let partitions = |topic: &MetadataTopic| {
            let count = i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX);
            let led = topic.partitions().iter().all(|partition| partition.leader() >= 0);
            (topic.name().to_owned(), Partitions { count, led: led && topic.error().is_none() })
        };
        Ok(metadata.topics().iter().map(partitions).collect())
    };
    tokio::task::spawn_blocking(ask).await.context("asking for topics")?
}

fn admin(kafka: &Kafka) -> anyhow::Result<AdminClient<DefaultClientContext>> {
    kafka.reader_config().create().context("making an admin client")
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT)).operation_timeout(Some(REQUEST_TIMEOUT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting<'a>(topics: &'a [Topic], name: &str, key: &str) -> &'a str {
        let topic = topics.iter().find(|topic| topic.name == name).unwrap();
        &topic.settings.iter().find(|(known, _)| *known == key).unwrap().1
    }

    #[test]
    fn the_truth_is_kept_for_ever_and_commands_for_seven_days() {
        let topics = all(&["a.commands"], &["a.events"], &["a-svc"]);
        assert_eq!(topics.len(), 4);
        for name in ["a.events", "a-svc.retry", "a-svc.dlq"] {
            assert_eq!(setting(&topics, name, "retention.ms"), "-1", "{name}");
            assert_eq!(setting(&topics, name, "retention.bytes"), "-1", "{name}");
            assert_eq!(setting(&topics, name, "cleanup.policy"), "delete", "{name}");
        }
        assert_eq!(setting(&topics, "a.commands", "retention.ms"), "604800000");
    }

    #[test]
    fn a_dead_letter_has_room_for_its_headers() {
        let topics = all(&[], &["a.events"], &["a-svc"]);
        let bytes = |name| setting(&topics, name, "max.message.bytes").parse::<usize>().unwrap();
        assert_eq!(bytes("a-svc.dlq"), bytes("a.events") + 64 * 1024);
        assert_eq!(bytes("a-svc.retry"), bytes("a-svc.dlq"));
    }
}
