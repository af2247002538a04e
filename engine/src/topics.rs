//! All topics and their settings, and the admin calls that create and check them.
//!
//! The number of partitions is fixed at creation: growing means new topics and a rebuild. Nothing here deletes.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, bail};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::types::RDKafkaErrorCode;
use serde::Serialize;

use crate::kafka::{INPUT_BYTES_MAX, Kafka, RECORD_BYTES_MAX};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
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
    let mut found = check(kafka, topics).await?;
    for one in &mut found {
        one.created = created.contains(&one.topic);
    }
    Ok(found)
}

/// Compares topics with what they must be.
///
/// # Errors
/// When the broker does not answer.
pub async fn check(kafka: &Kafka, topics: &[Topic]) -> anyhow::Result<Vec<Found>> {
    let counts = partition_counts(kafka).await?;
    let names: Vec<String> = topics.iter().map(|topic| kafka.topic(&topic.name)).collect();
    let there: Vec<&String> = names.iter().filter(|name| counts.contains_key(*name)).collect();
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
        match counts.get(&name) {
            None => differences.push("it does not exist".to_owned()),
            Some(count) if *count != kafka.partitions => {
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

async fn partition_counts(kafka: &Kafka) -> anyhow::Result<HashMap<String, i32>> {
    let consumer: BaseConsumer = kafka.reader_config().create().context("making a client")?;
    let ask = move || -> anyhow::Result<HashMap<String, i32>> {
        let metadata = consumer.fetch_metadata(None, REQUEST_TIMEOUT).context("asking for topics")?;
        let count = |topic: &rdkafka::metadata::MetadataTopic| {
            (topic.name().to_owned(), i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX))
        };
        Ok(metadata.topics().iter().map(count).collect())
    };
    tokio::task::spawn_blocking(ask).await.context("asking for topics")?
}

fn admin(kafka: &Kafka) -> anyhow::Result<AdminClient<DefaultClientContext>> {
    kafka.reader_config().create().context("making an admin client")
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT)).operation_timeout(Some(REQUEST_TIMEOUT))
}
