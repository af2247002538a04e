//! Waiting for a decision: answered when Kafka has the event, and never before.

use std::time::Duration;

use engine::wait::{Acked, Decided, Waiters};
use events::id::CommandId;
use sqlx::{Executor, PgPool};

use crate::support::migrated;

const TOPIC: &str = "t.toy.events";
const SOON: Duration = Duration::from_secs(5);
const A_MOMENT: Duration = Duration::from_millis(150);

async fn decide(pool: &PgPool, command: i64, partition: i32, sequence: i64, outcome: Option<&str>) {
    sqlx::query(
        "INSERT INTO commands (command_id, partition, sequence, outcome, event_type, subject, at)
         VALUES ($1, $2, $3, $4, 'toy.Happened', 7, 'epoch')",
    )
    .bind(command)
    .bind(partition)
    .bind(sequence)
    .bind(outcome)
    .execute(pool)
    .await
    .unwrap();
}

async fn acknowledge(pool: &PgPool, topic: &str, partition: i32, sequence: i64) {
    sqlx::query(
        "INSERT INTO outputs (partition, topic, sequence, acked_sequence, acked_offset) VALUES ($1, $2, $3, $3, $3)",
    )
    .bind(partition)
    .bind(topic)
    .bind(sequence)
    .execute(pool)
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_of_this_process_is_answered_once_its_event_is_acknowledged() {
    let (_database, pool) = migrated().await;
    let acked = Acked::default();
    let waiters = Waiters::start(pool.clone(), TOPIC.to_owned(), acked.clone());
    let others = waiters.clone();
    let waiting = tokio::spawn(async move { others.wait(CommandId(1), SOON).await });
    decide(&pool, 1, 0, 5, Some("OUT_OF_STOCK")).await;
    acked.set(0, 4);
    assert_eq!(waiters.wait(CommandId(1), A_MOMENT).await, None, "its event may still be lost");
    acked.set(0, 5);
    let decided = Decided {
        command_id: CommandId(1),
        event_type: "toy.Happened".to_owned(),
        refused: Some("OUT_OF_STOCK".to_owned()),
        subject: 7,
        partition: 0,
        sequence: 5,
    };
    assert_eq!(waiters.wait(CommandId(1), SOON).await, Some(decided.clone()));
    assert_eq!(waiting.await.unwrap(), Some(decided), "everybody who waits is answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_of_another_process_is_seen_in_the_database() {
    let (_database, pool) = migrated().await;
    let waiters = Waiters::start(pool.clone(), TOPIC.to_owned(), Acked::default());
    decide(&pool, 1, 1, 5, None).await;
    acknowledge(&pool, "t.toy-svc.retry", 1, 9).await;
    acknowledge(&pool, TOPIC, 0, 9).await;
    assert_eq!(
        waiters.wait(CommandId(1), A_MOMENT).await,
        None,
        "another topic or partition acknowledges nothing here"
    );
    acknowledge(&pool, TOPIC, 1, 5).await;
    assert_eq!(waiters.wait(CommandId(1), SOON).await.unwrap().refused, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_nobody_decides_ends_with_the_time_out() {
    let (_database, pool) = migrated().await;
    let waiters = Waiters::start(pool, TOPIC.to_owned(), Acked::default());
    assert_eq!(waiters.wait(CommandId(1), A_MOMENT).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_fails_only_makes_them_wait() {
    let (_database, pool) = migrated().await;
    let acked = Acked::default();
    let waiters = Waiters::start(pool.clone(), TOPIC.to_owned(), acked.clone());
    decide(&pool, 1, 0, 1, None).await;
    acked.set(0, 1);
    pool.execute("ALTER TABLE commands RENAME TO gone").await.unwrap();
    assert_eq!(waiters.wait(CommandId(1), A_MOMENT).await, None);
    let waiting = tokio::spawn(async move { waiters.wait(CommandId(1), SOON).await });
    pool.execute("ALTER TABLE gone RENAME TO commands").await.unwrap();
    assert!(waiting.await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_waiters_are_answered_each_with_its_own_command() {
    let (_database, pool) = migrated().await;
    let acked = Acked::default();
    let waiters = Waiters::start(pool.clone(), TOPIC.to_owned(), acked.clone());
    let waiting: Vec<_> = (1..=100)
        .map(|command| {
            let waiters = waiters.clone();
            tokio::spawn(async move { waiters.wait(CommandId(command), SOON).await })
        })
        .collect();
    for command in 1..=100 {
        decide(&pool, command, i32::try_from(command % 2).unwrap(), command, None).await;
        acked.set(i32::try_from(command % 2).unwrap(), command);
    }
    for (command, waiting) in (1..=100).zip(waiting) {
        let decided = waiting.await.unwrap().unwrap();
        assert_eq!((decided.command_id, decided.sequence), (CommandId(command), command));
    }
}
