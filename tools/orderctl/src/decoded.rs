//! A record as JSON: its place, its headers, and its value decoded by the schema it was written with.
//!
//! A record that cannot be decoded is shown with the reason and its bytes, never left out.

use engine::record::Record;
use events::codec::{Codec, DecodeError, schema_id};
use events::envelope::{self, name};
use events::inventory::{InventoryCommand, InventoryEvent};
use events::notification::NotificationEvent;
use events::order::{OrderCommand, OrderEvent};
use events::payment::{PaymentCommand, PaymentEvent};
use serde_json::{Map, Value, json};

/// A decoded value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decoded {
    /// Full name of the record type.
    pub(crate) type_name: &'static str,
    /// Topic that the schema belongs to, without prefix.
    pub(crate) topic: &'static str,
    /// The fields: IDs as strings, times as RFC 3339.
    pub(crate) data: Value,
}

macro_rules! by_topic {
    ($codec:expr, $bytes:expr, $topic:expr, $($records:ident),+) => {
        match $topic {
            $(Some($records::TOPIC) => $records::decode($codec, $bytes).map(|record| Decoded {
                type_name: record.type_name(),
                topic: $records::TOPIC,
                data: record.to_json(),
            }),)+
            _ => Err(DecodeError::UnknownSchema(schema_id($bytes)?)),
        }
    };
}

/// Decodes a value by its schema ID, whatever topic it lies on (retry and dlq topics hold values of others).
pub(crate) fn value(codec: &Codec, bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let topic = codec.topic_of(schema_id(bytes)?);
    by_topic!(
        codec,
        bytes,
        topic,
        OrderCommand,
        OrderEvent,
        InventoryCommand,
        InventoryEvent,
        PaymentCommand,
        PaymentEvent,
        NotificationEvent
    )
}

/// A record with everything that is known of it.
pub(crate) fn record(codec: &Codec, record: &Record) -> Value {
    let text = |name| envelope::text(&record.headers, name);
    let headers: Map<String, Value> =
        record.headers.iter().map(|(name, value)| (name.to_owned(), lossless(value))).collect();
    let mut json = json!({
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp.to_string(),
        "key": record.key.as_deref().map(lossless),
        "type": text(name::TYPE),
        "id": text(name::ID),
        "sequence": envelope::sequence(&record.headers),
        "headers": headers,
    });
    match record.value.as_deref().map(|bytes| (bytes, value(codec, bytes))) {
        None => json["value"] = Value::Null,
        Some((_, Ok(decoded))) => json["value"] = decoded.data,
        Some((bytes, Err(error))) => {
            json["error"] = error.to_string().into();
            json["value_hex"] = hex::encode(bytes).into();
        }
    }
    json
}

/// Bytes as text, or as hexadecimal digits where they are none.
fn lossless(bytes: &[u8]) -> Value {
    std::str::from_utf8(bytes).map_or_else(|_| format!("hex:{}", hex::encode(bytes)), str::to_owned).into()
}

/// A record as one line for a terminal.
pub(crate) fn line(json: &Value) -> String {
    let text = |name: &str| json[name].as_str().unwrap_or("-").to_owned();
    let kind = text("type");
    let kind = kind.rsplit('.').next().unwrap_or_default();
    let place = format!("{}/{}@{}", text("topic"), json["partition"], json["offset"]);
    let sequence = json["sequence"].as_i64().map_or_else(|| "-".to_owned(), |number| format!("#{number}"));
    let value = match json.get("error") {
        Some(error) => format!("undecodable: {}", error.as_str().unwrap_or_default()),
        None => json["value"].to_string(),
    };
    format!("{} {place:<28} {sequence:<8} {} {kind} {value}", text("timestamp"), text("key"))
}

#[cfg(test)]
mod tests {
    use events::envelope::Headers;
    use events::id::{CommandId, OrderId};
    use events::order::CancelOrder;
    use events::time::Timestamp;

    use super::*;

    fn cancel(codec: &Codec) -> Vec<u8> {
        let command = CancelOrder {
            order_id: OrderId(7),
            reason: events::code::CustomerReason::Other,
            expected_version: None,
            command_id: CommandId(8),
            caller: None,
            key_hash: None,
            fingerprint: None,
        };
        OrderCommand::from(command).encode(codec).unwrap()
    }

    fn with_value(value: Option<Vec<u8>>) -> Record {
        Record {
            topic: "order.commands".into(),
            partition: 3,
            offset: 42,
            timestamp: Timestamp(0),
            key: Some(b"7".to_vec()),
            value,
            headers: Headers::from_iter([(name::TYPE, "orderlog.order.CancelOrder")]),
        }
    }

    #[test]
    fn a_value_is_decoded_by_its_schema_alone() {
        let codec = Codec::numbered();
        let decoded = value(&codec, &cancel(&codec)).unwrap();
        assert_eq!((decoded.type_name, decoded.topic), ("orderlog.order.CancelOrder", "order.commands"));
        assert_eq!(decoded.data["order_id"], "7");
        assert_eq!(value(&codec, b"\0\0\0\x03\xe7"), Err(DecodeError::UnknownSchema(999)));
        assert_eq!(value(&codec, b"text"), Err(DecodeError::NotAvro));
    }

    #[test]
    fn a_record_that_does_not_decode_keeps_its_bytes() {
        let codec = Codec::numbered();
        let good = record(&codec, &with_value(Some(cancel(&codec))));
        assert_eq!(good["value"]["command_id"], "8");
        assert!(line(&good).contains("order.commands/3@42") && line(&good).contains(" CancelOrder {"));
        let bad = record(&codec, &with_value(Some(b"\xff\x00".to_vec())));
        assert_eq!((bad["value_hex"].as_str(), bad.get("value")), (Some("ff00"), None));
        assert!(line(&bad).contains("undecodable"));
        assert!(record(&codec, &with_value(None))["value"].is_null());
    }
}
