//! The publisher against librdkafka's mock broker, which errs on demand. It keeps nothing and is no stand-in for a real
//! one: here only what the publisher makes of errors is tested.

use std::sync::Arc;
use std::time::Duration;

use events::envelope::{self, Headers};
use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use tokio_util::sync::CancellationToken;

use crate::breaker::Breaker;
use crate::kafka::Kafka;
use crate::outbox::{End, Left, Row};
use crate::own_log;
use crate::publisher::Publisher;
use crate::record::{OutRecord, Output};

const TOPIC: &str = "toy.events";
const RETRY: &str = "toy-svc.retry";
const RECORDS: i64 = 4;
const SOON: Duration = Duration::from_secs(60);

struct Broker {
    mock: MockCluster<'static, DefaultProducerContext>,
    kafka: Arc<Kafka>,
}

impl Broker {
    fn new() -> Self {
        let mock = MockCluster::new(1).unwrap();
        mock.create_topic(TOPIC, 1, 1).unwrap();
        mock.broker_round_trip_time(-1, Duration::from_millis(300)).unwrap();
        let kafka = Kafka {
            bootstrap: mock.bootstrap_servers(),
            topic_prefix: String::new(),
            partitions: 1,
            session_timeout: Duration::from_secs(6),
        };
        Self { mock, kafka: Arc::new(kafka) }
    }

    /// The usual settings, but each record is a request of its own.
    fn config(&self, in_flight: &str) -> ClientConfig {
        let mut config = self.kafka.publisher_config();
        config.set("batch.num.messages", "1");
        config.set("max.in.flight.requests.per.connection", in_flight);
        config
    }

    fn start(&self, config: ClientConfig) -> Publisher {
        let end = End { sequence: 0, offset: -1, next_offset: 0 };
        let left = Left { ends: [end; 3], rows: Vec::new(), acked_batch: 0 };
        let topics = [TOPIC, RETRY, "toy-svc.dlq"].map(str::to_owned);
        let breaker = Breaker::new("kafka", "Kafka", true);
        Publisher::start(Arc::clone(&self.kafka), config, 0, topics, left, breaker, CancellationToken::new())
    }

    /// Publishes one batch of several records after these answers to the first requests. Returns the sequences on the
    /// log, repeats included.
    async fn publish(&self, config: ClientConfig, answers: &[RDKafkaRespErr]) -> Vec<i64> {
        self.mock.request_errors(RDKafkaApiKey::Produce, answers);
        let mut publisher = self.start(config);
        let records = (1..=RECORDS).map(record).collect();
        publisher.send(Row { batch: 1, records: Arc::new(records) });
        let acknowledged = publisher.progress.wait_for(|progress| progress.acked_batch == 1);
        tokio::time::timeout(SOON, acknowledged).await.expect("it goes on").unwrap();
        let kafka = Arc::clone(&self.kafka);
        let read = move || {
            let (low, high) = own_log::watermarks(&kafka, &[(TOPIC.to_owned(), 0)]).unwrap()[0];
            own_log::read_range(&kafka, TOPIC, 0, low, high).unwrap()
        };
        let log = tokio::task::spawn_blocking(read).await.unwrap();
        log.iter().map(|record| envelope::sequence(&record.headers).unwrap()).collect()
    }
}

fn record(sequence: i64) -> OutRecord {
    let headers = Headers::from_iter([("ce_id", sequence.to_string()), ("ce_sequence", format!("{sequence:019}"))]);
    OutRecord { output: Output::Events, sequence, key: Some(b"1".to_vec()), value: Some(b"{}".to_vec()), headers }
}

/// The order in which a reader meets them: repeats are passed over.
fn first_appearances(log: &[i64]) -> Vec<i64> {
    let mut seen = Vec::new();
    for sequence in log {
        if !seen.contains(sequence) {
            seen.push(*sequence);
        }
    }
    seen
}

const NO_ERROR: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
const REFUSALS: [RDKafkaRespErr; 2] =
    [RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION, RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_counts_as_acknowledged_is_on_the_log_in_order() {
    for refusal in REFUSALS {
        let broker = Broker::new();
        let log = broker.publish(broker.config("1"), &[refusal]).await;
        assert_eq!(first_appearances(&log), [1, 2, 3, 4], "{refusal:?}: {log:?}");
    }
}

/// With more requests in flight librdkafka reports a record delivered that is nowhere once a later one is (H1).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_false_acknowledgement_does_not_count() {
    for refusal in REFUSALS {
        let broker = Broker::new();
        let log = broker.publish(broker.config("5"), &[NO_ERROR, refusal]).await;
        let mut found = first_appearances(&log);
        found.sort_unstable();
        assert_eq!(found, [1, 2, 3, 4], "{refusal:?}: the log has {log:?}");
    }
}

/// The second request lies in librdkafka's buffers when the first is refused for good, and is sent in spite of
/// `enable.gapless.guarantee`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_refused_by_a_broker_that_does_not_know_the_producer_is_not_overtaken() {
    let broker = Broker::new();
    let refusal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
    let log = broker.publish(broker.config("1"), &[refusal]).await;
    assert_eq!(first_appearances(&log), [1, 2, 3, 4], "{log:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_that_ends_for_good_is_replaced() {
    let broker = Broker::new();
    let refusal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    let log = broker.publish(broker.config("1"), &[refusal]).await;
    assert_eq!(first_appearances(&log), [1, 2, 3, 4], "{log:?}");
}

/// What follows on another topic is not there before what it follows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_topic_is_begun_when_the_last_is_through() {
    let broker = Broker::new();
    broker.mock.create_topic(RETRY, 1, 1).unwrap();
    broker.mock.request_errors(RDKafkaApiKey::Produce, &REFUSALS);
    let mut publisher = broker.start(broker.config("1"));
    let letter = OutRecord { output: Output::Retry, ..record(1) };
    publisher.send(Row { batch: 1, records: Arc::new(vec![record(1), letter]) });
    let ends = || {
        let (kafka, places) = (Arc::clone(&broker.kafka), [(TOPIC.to_owned(), 0), (RETRY.to_owned(), 0)]);
        tokio::task::spawn_blocking(move || {
            own_log::watermarks(&kafka, &places).unwrap().into_iter().map(|(_, high)| high).collect::<Vec<_>>()
        })
    };
    while publisher.progress.borrow_and_update().acked_batch == 0 {
        // The second is asked for last: what it has, the first had before.
        let ends = ends().await.unwrap();
        assert!(ends[1] == 0 || ends[0] > 0, "the letter is on the log, what it follows is not");
    }
    assert_eq!(ends().await.unwrap(), [1, 1]);
}
