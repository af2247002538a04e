//! What the log says of one row: the own events that made it, or the letters about a held or dead record.
//!
//! Read only for one row at a time, because whole topics are read for it.

use engine::desk::Address;
use engine::kafka::Kafka;
use engine::own_log::Reader;
use events::codec::Codec;
use events::envelope;
use serde_json::{Value, json};

use crate::decoded;
use crate::log::{Start, ranges};

/// Enough to see what went wrong; the topic has the rest.
const EVENTS_MAX: usize = 50;
/// Columns that name an aggregate, the more telling one first.
const COLUMNS: [&str; 3] = ["order_id", "product_id", "subject"];

/// The aggregate that a row (as JSON) is about.
pub(crate) fn aggregate(row: &str, key_columns: &str) -> Option<String> {
    let row: Value = serde_json::from_str(row).ok()?;
    let own = key_columns.split(',').map(str::trim);
    // A command's row is keyed by the command, but its subject is the aggregate.
    let columns = COLUMNS.into_iter().filter(|column| row.get(column).is_some()).chain(own);
    let text = |column: &str| match &row[column] {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    columns.into_iter().find_map(text)
}

/// Own events about an aggregate, in the order of each partition.
///
/// # Errors
/// When Kafka fails.
pub(crate) fn events(kafka: &Kafka, codec: &Codec, topic: &str, id: &str) -> anyhow::Result<Vec<Value>> {
    let ranges = ranges(kafka, &[kafka.topic(topic)], None, Start::Beginning)?;
    let mut reader = Reader::open(kafka, &ranges)?;
    let mut events = Vec::new();
    while let Some(record) = reader.next()? {
        let keyed = record.key.as_deref() == Some(id.as_bytes());
        let json = decoded::record(codec, &record);
        if keyed || mentions(&json["value"], id) {
            events.push(json);
        }
        if events.len() == EVENTS_MAX {
            break;
        }
    }
    events.sort_by_key(|event| (event["partition"].as_i64(), event["offset"].as_i64()));
    Ok(events)
}

/// What became of a held or dead record, step by step: its letters on the service's retry and dead-letter topics.
///
/// # Errors
/// When Kafka fails.
pub(crate) fn letters(kafka: &Kafka, service: &str, record: &Address) -> anyhow::Result<Vec<Value>> {
    let topics = ["retry", "dlq"].map(|topic| kafka.topic(&format!("{service}.{topic}")));
    let ranges = ranges(kafka, &topics, Some(record.partition), Start::Beginning)?;
    let mut reader = Reader::open(kafka, &ranges)?;
    let mut letters = Vec::new();
    while let Some(letter) = reader.next()? {
        let text = |name: &str| envelope::text(&letter.headers, name);
        let of_it = text("failure-topic") == Some(&record.topic)
            && text("failure-offset").and_then(|offset| offset.parse().ok()) == Some(record.offset)
            && text("failure-effect") == record.effect.as_deref();
        let own = text(envelope::name::SOURCE) == Some(&format!("/{service}"));
        if of_it && own && envelope::sequence(&letter.headers).is_some() {
            letters.push(json!({
                "at": text(envelope::name::TIME),
                "step": text(envelope::name::TYPE).and_then(|name| name.rsplit('.').next()),
                "attempts": text("failure-attempts").and_then(|attempts| attempts.parse::<u32>().ok()),
                "code": text("failure-code"),
                "message": text("failure-message"),
                "instance": text("failure-instance"),
                "version": text("failure-version"),
                "operator": text("operator-sub"),
                "reason": text("operator-reason"),
            }));
        }
    }
    letters.sort_by_key(|letter| letter["at"].as_str().map(str::to_owned));
    Ok(letters)
}

/// True when a value holds this ID anywhere, such as a product in the lines of a reservation.
fn mentions(value: &Value, id: &str) -> bool {
    match value {
        Value::String(text) => text == id,
        Value::Array(items) => items.iter().any(|item| mentions(item, id)),
        Value::Object(fields) => fields.values().any(|field| mentions(field, id)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_names_its_aggregate() {
        assert_eq!(
            aggregate(r#"{"order_id":226873219453231104,"version":2}"#, "order_id").as_deref(),
            Some("226873219453231104")
        );
        assert_eq!(aggregate(r#"{"command_id":1,"subject":7}"#, "command_id").as_deref(), Some("7"));
        assert_eq!(aggregate(r#"{"name":"x"}"#, "name").as_deref(), Some("x"));
        assert_eq!(aggregate("no json", "order_id"), None);
    }

    #[test]
    fn a_product_is_mentioned_in_the_lines_of_an_order() {
        let value = json!({"order_id": "1", "lines": [{"product_id": "7", "quantity": 2}]});
        assert!(mentions(&value, "7") && mentions(&value, "1") && !mentions(&value, "2"));
    }
}
