//! Where Kafka is, and the client settings on which the design rests (PITFALLS P1.3).
//!
//! No connection is made here.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use crate::mutant;

/// Largest record of an input topic; retry and dlq topics, and every producer, take 64 KiB more (H8).
pub const INPUT_BYTES_MAX: usize = 1_000_000;
/// Largest record at all.
pub const RECORD_BYTES_MAX: usize = INPUT_BYTES_MAX + 64 * 1024;

/// Where Kafka is and how topics are named.
#[derive(Debug, Clone)]
pub struct Kafka {
    /// `host:port`, comma separated.
    pub bootstrap: String,
    /// Put before every topic and group name; empty outside tests.
    pub topic_prefix: String,
    /// Partitions of every topic; fixed at creation.
    pub partitions: i32,
    /// A member that is silent for longer loses its partitions.
    pub session_timeout: Duration,
}

impl Kafka {
    /// A topic's name on the broker.
    #[must_use]
    pub fn topic(&self, name: &str) -> String {
        format!("{}{name}", self.topic_prefix)
    }

    fn base(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        // Its warnings are about settings that are meant; what it cannot do is an error.
        config.set_log_level(RDKafkaLogLevel::Error);
        config.set("bootstrap.servers", &self.bootstrap);
        config.set("broker.address.family", "v4");
        config.set("reconnect.backoff.max.ms", "2000");
        config
    }

    /// A member of a group (named with the prefix) whose positions are ours, not Kafka's.
    #[must_use]
    pub fn consumer_config(&self, group: &str) -> ClientConfig {
        let heartbeat = (self.session_timeout / 4).min(Duration::from_secs(2));
        let mut config = self.base();
        config.set("group.id", self.topic(group));
        config.set("enable.auto.commit", "false");
        config.set("enable.auto.offset.store", "false");
        // A topic that was cut off must stop the processor, never reset it.
        let reset = if mutant::is("offset-reset-to-latest") { "latest" } else { "error" };
        config.set("auto.offset.reset", reset);
        // The same numbers of all topics to one member: what a processor is.
        config.set("partition.assignment.strategy", "range");
        config.set("session.timeout.ms", self.session_timeout.as_millis().to_string());
        config.set("heartbeat.interval.ms", heartbeat.as_millis().to_string());
        config.set("max.poll.interval.ms", "60000");
        config.set("queued.max.messages.kbytes", "8192");
        config.set("queued.min.messages", "5000");
        config.set("fetch.queue.backoff.ms", "20");
        config.set("fetch.message.max.bytes", "1048576");
        config.set("check.crcs", "true");
        config.set("allow.auto.create.topics", "false");
        config.set("statistics.interval.ms", "2000");
        config
    }

    /// A reader of given partitions that joins no group and sees their ends.
    #[must_use]
    pub fn reader_config(&self) -> ClientConfig {
        let mut config = self.base();
        config.set("group.id", self.topic("reader"));
        config.set("enable.auto.commit", "false");
        config.set("enable.auto.offset.store", "false");
        config.set("auto.offset.reset", "error");
        config.set("enable.partition.eof", "true");
        config.set("queued.max.messages.kbytes", "16384");
        config.set("fetch.queue.backoff.ms", "20");
        config.set("check.crcs", "true");
        config.set("allow.auto.create.topics", "false");
        config
    }

    fn producer(&self) -> ClientConfig {
        let mut config = self.base();
        config.set("enable.idempotence", "true");
        config.set("acks", "all");
        // With more than one, librdkafka reports records delivered that are nowhere (H1).
        config.set("max.in.flight.requests.per.connection", "1");
        config.set("linger.ms", "0");
        config.set("compression.type", "lz4");
        config.set("queue.buffering.max.messages", "20000");
        config.set("queue.buffering.max.kbytes", "65536");
        config.set("message.max.bytes", RECORD_BYTES_MAX.to_string());
        config.set("allow.auto.create.topics", "false");
        config
    }

    /// The producer of one processor. The partition is always given.
    #[must_use]
    pub fn publisher_config(&self) -> ClientConfig {
        let mut config = self.producer();
        config.set("message.timeout.ms", "0");
        // Otherwise a permanent error lets the next record overtake.
        config.set("enable.gapless.guarantee", "true");
        config
    }

    /// The producer of HTTP appends. The partition follows from the key, as Java clients compute it.
    #[must_use]
    pub fn appender_config(&self) -> ClientConfig {
        let mut config = self.producer();
        config.set("partitioner", "murmur2_random");
        // Its caller has given up by then. Commands may have gaps, and unlike the publisher's records those that nobody
        // waits for any more must not fill the queue for as long as Kafka is away.
        config.set("message.timeout.ms", "5000");
        config
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::consumer::BaseConsumer;
    use rdkafka::producer::FutureProducer;

    use super::*;

    #[test]
    fn librdkafka_accepts_every_setting() {
        let kafka = kafka(Duration::from_secs(6));
        assert_eq!(kafka.topic("order.events"), "t.order.events");
        for config in [kafka.publisher_config(), kafka.appender_config()] {
            let _producer: FutureProducer = config.create().unwrap();
        }
        for config in [kafka.consumer_config("order-svc"), kafka.reader_config()] {
            let _consumer: BaseConsumer = config.create().unwrap();
        }
    }
    fn kafka(session_timeout: Duration) -> Kafka {
        Kafka { bootstrap: "127.0.0.1:1".to_owned(), topic_prefix: "t.".to_owned(), partitions: 2, session_timeout }
    }

    #[test]
    fn the_log_rests_on_these_settings() {
        let kafka = kafka(Duration::from_secs(10));
        let publisher = kafka.publisher_config();
        for (name, value) in [
            ("enable.idempotence", "true"),
            ("acks", "all"),
            ("max.in.flight.requests.per.connection", "1"),
            ("message.timeout.ms", "0"),
            ("enable.gapless.guarantee", "true"),
        ] {
            assert_eq!(publisher.get(name), Some(value), "publisher: {name}");
        }
        assert_eq!(publisher.get("partitioner"), None, "the publisher's partition is always given");
        let appender = kafka.appender_config();
        assert_eq!(appender.get("partitioner"), Some("murmur2_random"));
        assert_eq!(appender.get("max.in.flight.requests.per.connection"), Some("1"));
        for config in [kafka.consumer_config("order-svc"), kafka.reader_config()] {
            assert_eq!(config.get("auto.offset.reset"), Some("error"));
            assert_eq!(config.get("enable.auto.commit"), Some("false"));
            assert_eq!(config.get("check.crcs"), Some("true"));
        }
        assert_eq!(kafka.consumer_config("order-svc").get("partition.assignment.strategy"), Some("range"));
    }

    #[test]
    fn a_member_beats_four_times_within_its_session() {
        let heartbeat = |seconds| {
            let config = kafka(Duration::from_secs(seconds)).consumer_config("order-svc");
            config.get("heartbeat.interval.ms").map(str::to_owned)
        };
        assert_eq!(heartbeat(6).as_deref(), Some("1500"));
        assert_eq!(heartbeat(10).as_deref(), Some("2000"));
    }
}
