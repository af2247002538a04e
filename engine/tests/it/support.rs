//! What every test gets: the servers, a database and a topic prefix of its own.

use std::sync::Arc;
use std::time::Duration;

use engine::kafka::Kafka;
use engine::topics::{self, Topic};
use sqlx::PgPool;
use testkit::address;
pub(crate) use testkit::{Database, eventually, unique};

/// Partitions of every topic in a test.
pub(crate) const PARTITIONS: i32 = 2;

/// Base URL of the registry.
pub(crate) fn registry_url() -> String {
    address("ORDERLOG_TEST_REGISTRY")
}

/// The broker, with a topic prefix of this test.
pub(crate) fn kafka() -> Arc<Kafka> {
    Arc::new(Kafka {
        bootstrap: address("ORDERLOG_TEST_KAFKA"),
        topic_prefix: format!("t{}.", unique()),
        partitions: PARTITIONS,
        session_timeout: Duration::from_secs(6),
    })
}

/// The broker, with these topics created under a prefix of this test.
pub(crate) async fn kafka_with(topics: &[Topic]) -> Arc<Kafka> {
    let kafka = kafka();
    topics::create(&kafka, topics, 1).await.unwrap();
    kafka
}

/// A database with the engine's tables, and a pool on it.
pub(crate) async fn migrated() -> (Database, PgPool) {
    Database::migrated(&[]).await.into_parts()
}
