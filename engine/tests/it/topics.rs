//! Topics: created once, compared for ever, never grown.

use engine::kafka::Kafka;
use engine::topics::{all, check, create};

use crate::support::kafka;

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_created_once_and_then_only_compared() {
    let kafka = kafka();
    let topics = all(&["toy.commands"], &["toy.events"], &["toy-svc"]);
    let before = check(&kafka, &topics).await.unwrap();
    assert!(before.iter().all(|found| found.differences == ["it does not exist"]), "{before:?}");
    let first = create(&kafka, &topics, 1).await.unwrap();
    assert_eq!(first.len(), 4);
    assert!(first.iter().all(|found| found.created && found.differences.is_empty()), "{first:?}");
    let second = create(&kafka, &topics, 1).await.unwrap();
    assert!(second.iter().all(|found| !found.created && found.differences.is_empty()), "{second:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_number_of_partitions_is_reported_and_never_changed() {
    let small = kafka();
    let topics = all(&[], &["toy.events"], &[]);
    create(&small, &topics, 1).await.unwrap();
    let large = Kafka { partitions: 6, ..(*small).clone() };
    let found = create(&large, &topics, 1).await.unwrap();
    assert!(!found[0].created);
    assert_eq!(found[0].differences, ["it has 2 partitions, not 6; they never change"]);
    let still = check(&small, &topics).await.unwrap();
    assert!(still[0].differences.is_empty(), "{still:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_that_would_lose_the_truth_is_reported() {
    let kafka = kafka();
    create(&kafka, &all(&["toy.log"], &[], &[]), 1).await.unwrap();
    let found = check(&kafka, &all(&[], &["toy.log"], &[])).await.unwrap();
    assert_eq!(found[0].differences, ["retention.ms is 604800000, not -1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_is_an_error() {
    let away = Kafka { bootstrap: "127.0.0.1:1".to_owned(), ..(*kafka()).clone() };
    check(&away, &all(&[], &["toy.events"], &[])).await.unwrap_err();
}
