//! The value of a record: Avro in the Confluent wire format (0x00, 4-byte big-endian schema ID, datum).
//!
//! Decoding is strict: the schema must be one this build knows for this topic, the datum must be whole, and nothing may
//! follow it. Asking a registry is not done here. The serde path of apache-avro is used because its `Value` path reads
//! a truncated datum as null (avro-rs pull request 664).
//!
//! There is no reader's schema: Avro's defaults and aliases do nothing here, a later field is `#[serde(default)]`, and
//! a struct keeps every field that any version of its schema has (`schemas/README.md`).

use std::collections::HashMap;
use std::fmt;
use std::sync::Once;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::writer::datum::GenericDatumWriter;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::record::Record;
use crate::schema::{self, SCHEMAS, SchemaDef};

const MAGIC: u8 = 0;
const PREFIX_BYTES: usize = 5;
/// A decoded value may not ask for more memory than this at once.
const ALLOCATION_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What is said about damaged bytes goes into headers and logs, so it is cut here.
const REASON_CHARS_MAX: usize = 200;

/// Why a record cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The codec was built without an ID for this type.
    #[error("no schema ID is known for {0} on {1}")]
    NoId(&'static str, &'static str),
    /// The struct and its schema disagree: a broken build.
    #[error("{0} does not fit its schema: {1}")]
    Misfit(&'static str, Box<apache_avro::Error>),
}

/// Why a value cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The record has no value.
    #[error("the value is null")]
    Null,
    /// No magic byte 0x00, or shorter than the prefix.
    #[error("the value is not Avro in the Confluent wire format")]
    NotAvro,
    /// The schema ID is none this build knows.
    #[error("schema {0} is not known to this build")]
    UnknownSchema(u32),
    /// The schema is known, but belongs to another topic.
    #[error("{type_name} does not belong on this topic")]
    Foreign {
        /// The full name of the schema's record type.
        type_name: &'static str,
    },
    /// The datum is cut off, has impossible values, or is followed by more bytes.
    #[error("damaged {type_name}: {reason}")]
    Damaged {
        /// The full name of the schema's record type.
        type_name: &'static str,
        /// What the reader stumbled over.
        reason: String,
    },
}

/// A schema with its reader and writer, both built once.
pub struct Compiled {
    def: &'static SchemaDef,
    id: u32,
    reader: GenericDatumReader<'static>,
    writer: GenericDatumWriter<'static>,
}

impl fmt::Debug for Compiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compiled").field("def", &self.def).field("id", &self.id).finish_non_exhaustive()
    }
}

impl Compiled {
    fn new(def: &'static SchemaDef, id: u32, schema: &'static Schema) -> Self {
        let reader = GenericDatumReader::builder(schema).human_readable(false).build();
        let writer = GenericDatumWriter::builder(schema).human_readable(false).build();
        Self {
            def,
            id,
            reader: reader.expect("a compiled-in schema names only records that it defines"),
            writer: writer.expect("a compiled-in schema names only records that it defines"),
        }
    }

    /// Full name of the record type.
    #[must_use]
    pub fn full_name(&self) -> &'static str {
        self.def.full_name
    }

    /// Reads a whole datum.
    ///
    /// # Errors
    /// [`DecodeError::Damaged`] when it is cut off, invalid, or followed by more bytes.
    pub fn read<T: DeserializeOwned>(&self, datum: &[u8]) -> Result<T, DecodeError> {
        let mut rest = datum;
        let value = self.reader.read_deser(&mut rest).map_err(|error| self.damaged(&error.to_string()))?;
        if rest.is_empty() { Ok(value) } else { Err(self.damaged(&format!("{} bytes follow the datum", rest.len()))) }
    }

    /// The error for a schema that is known, but not on this topic.
    #[must_use]
    pub fn foreign(&self) -> DecodeError {
        DecodeError::Foreign { type_name: self.def.full_name }
    }

    fn damaged(&self, reason: &str) -> DecodeError {
        DecodeError::Damaged { type_name: self.def.full_name, reason: reason.chars().take(REASON_CHARS_MAX).collect() }
    }
}

/// Reads and writes values, given the registry's schema IDs.
#[derive(Debug, Default)]
pub struct Codec {
    by_id: HashMap<u32, Compiled>,
    /// The newest version of each type on each topic: the one that is written.
    newest: HashMap<(&'static str, &'static str), (u32, u32)>,
}

impl Codec {
    /// A codec for these schemas and their IDs.
    ///
    /// # Panics
    /// Never with definitions from [`SCHEMAS`]: all of them parse and resolve, which a test shows.
    #[must_use]
    pub fn new(ids: &[(&'static SchemaDef, u32)]) -> Self {
        static LIMIT: Once = Once::new();
        LIMIT.call_once(|| {
            apache_avro::util::max_allocation_bytes(ALLOCATION_BYTES_MAX);
        });
        let mut codec = Self::default();
        for (def, id) in ids {
            let index = SCHEMAS.iter().position(|known| known == *def).expect("a definition of SCHEMAS");
            codec.add(def, *id, schema::parsed(index));
        }
        codec
    }

    fn add(&mut self, def: &'static SchemaDef, id: u32, schema: &'static Schema) {
        self.by_id.insert(id, Compiled::new(def, id, schema));
        let newest = self.newest.entry((def.topic, def.full_name)).or_insert((def.version, id));
        if def.version > newest.0 {
            *newest = (def.version, id);
        }
    }

    /// A codec with made-up IDs 1, 2, 3 … for tests and models that never meet a registry.
    #[must_use]
    pub fn numbered() -> Self {
        let ids: Vec<_> = SCHEMAS.iter().zip(1..).collect();
        Self::new(&ids)
    }

    /// Writes a record of a topic with the newest schema of its type.
    ///
    /// # Errors
    /// [`EncodeError`] when no ID is known, or when struct and schema disagree.
    pub fn encode<T: Record + Serialize>(&self, topic: &'static str, record: &T) -> Result<Vec<u8>, EncodeError> {
        let (_, id) = self.newest.get(&(topic, T::TYPE)).ok_or(EncodeError::NoId(T::TYPE, topic))?;
        let mut value = Vec::with_capacity(256);
        value.push(MAGIC);
        value.extend_from_slice(&id.to_be_bytes());
        let writer = &self.by_id[id].writer;
        writer.write_ser(&mut value, record).map_err(|error| EncodeError::Misfit(T::TYPE, Box::new(error)))?;
        Ok(value)
    }

    /// Splits a value into its schema and its datum.
    ///
    /// # Errors
    /// [`DecodeError`] when the value is not Avro, or its schema is unknown or another topic's.
    pub fn open<'a>(&self, topic: &str, value: &'a [u8]) -> Result<(&Compiled, &'a [u8]), DecodeError> {
        let id = schema_id(value)?;
        let schema = self.by_id.get(&id).ok_or(DecodeError::UnknownSchema(id))?;
        if schema.def.topic != topic {
            return Err(schema.foreign());
        }
        Ok((schema, &value[PREFIX_BYTES..]))
    }

    /// The topic of a schema ID, if this build knows it.
    #[must_use]
    pub fn topic_of(&self, id: u32) -> Option<&'static str> {
        self.by_id.get(&id).map(|schema| schema.def.topic)
    }
}

/// The schema ID of a value.
///
/// # Errors
/// [`DecodeError::NotAvro`] when the value is too short or its first byte is not 0x00.
pub fn schema_id(value: &[u8]) -> Result<u32, DecodeError> {
    match value {
        [MAGIC, a, b, c, d, ..] => Ok(u32::from_be_bytes([*a, *b, *c, *d])),
        _ => Err(DecodeError::NotAvro),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::id::OrderId;
    use crate::money::Money;
    use crate::order::{OrderEvent, OrderExpired, PricedLine};
    use crate::time::Timestamp;

    fn expired() -> (Vec<u8>, OrderExpired) {
        let json = r#"{"order_id":"7","version":2,"customer_id":"ann","lines":[{"product_id":"1","quantity":2,
            "unit_price":{"amount":99,"currency":"USD"}}],"total":{"amount":198,"currency":"USD"},
            "pay_by":"2026-01-01T00:00:00.000Z"}"#;
        let record: OrderExpired = serde_json::from_str(json).unwrap();
        (OrderEvent::from(record.clone()).encode(&Codec::numbered()).unwrap(), record)
    }

    #[test]
    fn a_field_that_came_later_takes_its_default_in_old_records() {
        #[derive(Debug, PartialEq, Deserialize)]
        #[serde(rename = "OrderExpired")]
        struct Next {
            #[serde(default)]
            attempts: i64,
            order_id: OrderId,
            version: i64,
            customer_id: String,
            lines: Vec<PricedLine>,
            total: Money,
            pay_by: Timestamp,
            note: Option<String>,
        }

        let (value, old) = expired();
        let codec = Codec::numbered();
        let (schema, datum) = codec.open("order.events", &value).unwrap();
        let next: Next = schema.read(datum).unwrap();
        assert_eq!((next.attempts, next.note), (0, None));
        let kept = OrderExpired {
            order_id: next.order_id,
            version: next.version,
            customer_id: next.customer_id,
            lines: next.lines,
            total: next.total,
            pay_by: next.pay_by,
        };
        assert_eq!(kept, old);
    }

    #[test]
    fn the_newest_version_known_is_the_one_written() {
        let def = |version| -> &'static SchemaDef {
            let text = format!(
                r#"{{"type":"record","namespace":"t","name":"Tick","fields":[{{"name":"v{version}","type":["null","long"],"default":null}}]}}"#
            );
            let text = String::leak(text);
            Box::leak(Box::new(SchemaDef { topic: "t.events", full_name: "t.Tick", version, text }))
        };
        #[derive(Debug, PartialEq, Deserialize)]
        struct Tick {
            v1: Option<i64>,
            v2: Option<i64>,
        }

        let mut codec = Codec::default();
        for (def, id) in [(def(2), 20), (def(1), 10)] {
            let schema = Box::leak(Box::new(Schema::parse_str(def.text).unwrap()));
            codec.add(def, id, schema);
        }
        assert_eq!(codec.newest[&("t.events", "t.Tick")], (2, 20));
        let value = [0, 0, 0, 0, 10, 2, 14];
        let (schema, datum) = codec.open("t.events", &value).unwrap();
        assert_eq!(schema.read(datum), Ok(Tick { v1: Some(7), v2: None }));
    }

    #[test]
    fn a_codec_without_an_id_says_for_which_type() {
        let (_, record) = expired();
        let error = OrderEvent::from(record).encode(&Codec::default()).unwrap_err();
        assert_eq!(error.to_string(), "no schema ID is known for orderlog.order.OrderExpired on order.events");
    }

    #[test]
    fn what_is_said_about_damage_is_short() {
        let (value, _) = expired();
        let codec = Codec::numbered();
        let mut long = value.clone();
        long.extend(std::iter::repeat_n(0, 5000));
        for bytes in [&value[..9], &long] {
            let Err(DecodeError::Damaged { type_name, reason }) = OrderEvent::decode(&codec, bytes) else {
                panic!("must be damaged");
            };
            assert_eq!(type_name, "orderlog.order.OrderExpired");
            assert!(!reason.is_empty() && reason.chars().count() <= REASON_CHARS_MAX);
        }
    }
}
