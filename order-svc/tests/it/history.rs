//! The events of one order, read from a real broker: the right ones, past repeats, strangers and other orders.

use std::time::Duration;

use engine::append::{Appender, NewRecord};
use engine::kafka::Kafka;
use engine::topics;
use events::codec::Codec;
use events::envelope::{Cause, Envelope};
use events::id::{CommandId, OrderId};
use events::order::{CommandRefused, OrderEvent};
use events::time::Timestamp;
use order_svc::history;

/// A broker with the topic order.events of one partition, under a prefix of this test.
async fn kafka() -> Kafka {
    #[expect(clippy::disallowed_methods, reason = "tests have no configuration of their own")]
    let bootstrap = std::env::var("ORDERLOG_TEST_KAFKA");
    let bootstrap = bootstrap.expect("ORDERLOG_TEST_KAFKA names no broker: run `cargo verify`, which starts one");
    let topic_prefix = format!("history{}.", std::process::id());
    let kafka = Kafka { bootstrap, topic_prefix, partitions: 1, session_timeout: Duration::from_secs(6) };
    topics::create(&kafka, &topics::all(&[], &[OrderEvent::TOPIC], &[]), 1).await.unwrap();
    kafka
}

fn refusal(order: i64, command: i64) -> OrderEvent {
    OrderEvent::from(CommandRefused {
        order_id: OrderId(order),
        command_type: "CancelOrder".to_owned(),
        reason: "UNKNOWN_ORDER".to_owned(),
        command_id: CommandId(command),
        caller: None,
        key_hash: None,
        fingerprint: None,
    })
}

fn record(order: i64, sequence: Option<i64>) -> NewRecord {
    let event = refusal(order, sequence.unwrap_or(999));
    let key = order.to_string();
    let envelope = Envelope {
        id: 1,
        type_name: event.type_name(),
        source: "order-svc",
        subject: &key,
        time: Timestamp(0),
        sequence,
        correlation: Some(order),
        causation: None,
        cause: Some(&Cause::Timer),
        traceparent: None,
        avro: true,
    };
    let (headers, value) = (envelope.headers(), event.encode(&Codec::numbered()).unwrap());
    NewRecord { topic: OrderEvent::TOPIC, key, headers, value }
}

#[tokio::test]
async fn the_wanted_records_are_found_past_repeats_and_strangers() {
    let kafka = kafka().await;
    let appender = Appender::new(std::sync::Arc::new(kafka.clone())).unwrap();
    // Order 7 has sequences 2, 4 and 900; 3 and 4 come twice, one record has no sequence.
    let mut log: Vec<_> = [1, 2, 3].map(|n| record(if n == 2 { 7 } else { 8 }, Some(n))).into();
    log.push(record(7, None));
    log.extend([record(8, Some(3)), record(7, Some(4)), record(7, Some(4))]);
    log.extend((5..900).map(|n| record(8, Some(n))));
    log.push(record(7, Some(900)));
    for record in log {
        appender.append(record).await.unwrap();
    }
    let read = move |order: i64, sequences: Vec<i64>| {
        let found = history::read(&kafka, &Codec::numbered(), OrderId(order), sequences).unwrap();
        let command = |event: &OrderEvent| event.command_ref().unwrap().command_id.0;
        found.iter().map(|(_, event)| command(event)).collect::<Vec<_>>()
    };
    let found = tokio::task::spawn_blocking(move || {
        [
            read(7, vec![900, 2, 4, 4]),
            // Not sent yet: left out.
            read(7, vec![4, 901]),
            read(9, vec![1]),
            read(7, Vec::new()),
        ]
    });
    assert_eq!(found.await.unwrap(), [vec![2, 4, 900], vec![4], vec![], vec![]]);
}
