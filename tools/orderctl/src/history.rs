//! The own events that made a row: those under its key, and those that mention it.
//!
//! Read only when a verification found a difference, because the whole topic is read for it.

use engine::kafka::Kafka;
use engine::own_log::Reader;
use events::codec::Codec;
use serde_json::Value;

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
