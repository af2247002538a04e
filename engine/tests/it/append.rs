//! Appending commands: an offset in hand, or "unknown"; nothing in between (H1).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::append::{AppendError, Appended, Appender, NewRecord};
use engine::kafka::{INPUT_BYTES_MAX, Kafka};
use engine::topics;
use events::partition::partition_of;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message, OwnedMessage};
use rdkafka::mocking::MockCluster;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use crate::support::{PARTITIONS, kafka, kafka_with};

fn command(key: &str, value: &[u8]) -> NewRecord {
    NewRecord {
        topic: "toy.commands",
        key: key.to_owned(),
        headers: events::envelope::Headers::from_iter([("ce_id", key)]),
        value: value.to_vec(),
    }
}

async fn toy_commands() -> Arc<Kafka> {
    kafka_with(&topics::all(&["toy.commands"], &[], &[])).await
}

/// The record at a place, read by a client that knows nothing of the appender.
fn read(kafka: &Kafka, place: &Appended) -> OwnedMessage {
    let consumer: BaseConsumer = kafka.reader_config().create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&place.topic, place.partition, Offset::Offset(place.offset)).unwrap();
    consumer.assign(&list).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            return message.detach();
        }
    }
    panic!("nothing lies at {place:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_lies_where_the_answer_says_and_where_java_clients_look() {
    let kafka = toy_commands().await;
    let appender = Appender::new(Arc::clone(&kafka)).unwrap();
    for key in ["1082185", "226873219453231104", "7", "8"] {
        let place = appender.append(command(key, b"value")).await.unwrap();
        assert_eq!(place.partition, partition_of(key.as_bytes(), PARTITIONS), "{key}");
        let message = read(&kafka, &place);
        assert_eq!(message.offset(), place.offset);
        assert_eq!((message.key(), message.payload()), (Some(key.as_bytes()), Some(&b"value"[..])));
        let header = message.headers().unwrap().get(0);
        assert_eq!((header.key, header.value), ("ce_id", Some(key.as_bytes())));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_each_get_an_offset_of_their_own() {
    let appender = Appender::new(toy_commands().await).unwrap();
    let appending: Vec<_> = (0..500)
        .map(|number| {
            let appender = appender.clone();
            tokio::spawn(async move { appender.append(command(&number.to_string(), b"value")).await.unwrap() })
        })
        .collect();
    let mut places = HashSet::new();
    for appended in appending {
        let place = appended.await.unwrap();
        assert!(places.insert((place.partition, place.offset)), "{place:?} was given twice");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_record_fits_and_a_larger_one_is_refused_at_once() {
    let appender = Appender::new(toy_commands().await).unwrap();
    // Bytes that no compression makes smaller.
    let noise: Vec<u8> = (0..INPUT_BYTES_MAX).map(|_| rand::random()).collect();
    appender.append(command("1", &noise[..INPUT_BYTES_MAX - 1_100])).await.unwrap();
    let started = Instant::now();
    assert_eq!(appender.append(command("1", &noise)).await, Err(AppendError::TooLarge));
    assert!(started.elapsed() < Duration::from_secs(1));
    appender.append(command("1", b"the producer goes on")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_is_unknown_within_five_seconds() {
    let away = Arc::new(Kafka { bootstrap: "127.0.0.1:1".to_owned(), ..(*kafka()).clone() });
    let appender = Appender::new(away).unwrap();
    let started = Instant::now();
    let error = appender.append(command("1", b"value")).await.unwrap_err();
    assert!(matches!(error, AppendError::Unavailable(_)), "{error:?}");
    assert!(started.elapsed() < Duration::from_millis(5_500), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_not_there_is_unavailable_and_harms_no_other() {
    let kafka = toy_commands().await;
    let appender = Appender::new(kafka).unwrap();
    let missing = NewRecord { topic: "toy.missing", ..command("1", b"value") };
    let error = appender.append(missing).await.unwrap_err();
    assert!(matches!(error, AppendError::Unavailable(_)), "{error:?}");
    appender.append(command("1", b"value")).await.unwrap();
}

/// The refusal of a partition's first request, while a second record is on its way: with more than one request in
/// flight librdkafka reports the first record as delivered, without an offset, and it is nowhere (H1).
#[tokio::test(flavor = "multi_thread")]
async fn what_is_reported_is_there_although_the_first_request_was_refused() {
    const ROUND_TRIP: Duration = Duration::from_millis(100);
    let cluster = MockCluster::new(1).unwrap();
    let kafka = Arc::new(Kafka { bootstrap: cluster.bootstrap_servers(), ..(*kafka()).clone() });
    cluster.create_topic(&kafka.topic("toy.commands"), PARTITIONS, 1).unwrap();
    let on =
        |partition| (0..).map(|n: i32| n.to_string()).find(|k| partition_of(k.as_bytes(), PARTITIONS) == partition);
    let (warm, fresh) = (on(0).unwrap(), on(1).unwrap());
    for refusal in [
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
    ] {
        let appender = Appender::new(Arc::clone(&kafka)).unwrap();
        // Connects and gets a producer ID; the other partition stays untouched.
        appender.append(command(&warm, b"warm")).await.unwrap();
        cluster.broker_round_trip_time(1, ROUND_TRIP).unwrap();
        cluster.request_errors(RDKafkaApiKey::Produce, &[refusal]);
        let send = async |delay, value: &'static [u8]| {
            tokio::time::sleep(delay).await;
            (value, appender.append(command(&fresh, value)).await)
        };
        let (first, second) = tokio::join!(send(Duration::ZERO, b"first"), send(ROUND_TRIP / 3, b"second"));
        cluster.broker_round_trip_time(1, Duration::ZERO).unwrap();
        for (value, appended) in [first, second] {
            let place = appended.unwrap();
            assert_eq!(place.partition, 1);
            let message = read(&kafka, &place);
            assert_eq!((message.offset(), message.payload()), (place.offset, Some(value)));
        }
    }
}
