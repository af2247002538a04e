//! The value of a record: Avro in the Confluent wire format (0x00, 4-byte big-endian schema ID, datum).
//!
//! Decoding is strict: the schema must be one this build knows for this topic, the datum must be whole, and nothing may
//! follow it. Asking a registry is not done here. The serde path of apache-avro is used because its `Value` path reads
//! a truncated datum as null (PITFALLS P3.3).

use std::collections::HashMap;
use std::fmt;
use std::sync::Once;

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
        f.debug_struct("Compiled")
            .field("def", &self.def)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Compiled {
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
        let value = self
            .reader
            .read_deser(&mut rest)
            .map_err(|error| self.damaged(error.to_string()))?;
        if rest.is_empty() {
            Ok(value)
        } else {
            Err(self.damaged(format!("{} bytes follow the datum", rest.len())))
        }
    }

    /// The error for a schema that is known, but not on this topic.
    #[must_use]
    pub fn foreign(&self) -> DecodeError {
        DecodeError::Foreign {
            type_name: self.def.full_name,
        }
    }

    fn damaged(&self, reason: String) -> DecodeError {
        DecodeError::Damaged {
            type_name: self.def.full_name,
            reason,
        }
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
            let index = SCHEMAS
                .iter()
                .position(|known| known == *def)
                .expect("a definition of SCHEMAS");
            let schema = schema::parsed(index);
            let compiled = Compiled {
                def,
                id: *id,
                reader: GenericDatumReader::builder(schema)
                    .human_readable(false)
                    .build()
                    .expect("it resolves"),
                writer: GenericDatumWriter::builder(schema)
                    .human_readable(false)
                    .build()
                    .expect("it resolves"),
            };
            codec.by_id.insert(*id, compiled);
            let newest = codec
                .newest
                .entry((def.topic, def.full_name))
                .or_insert((def.version, *id));
            if def.version > newest.0 {
                *newest = (def.version, *id);
            }
        }
        codec
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
    pub fn encode<T: Record + Serialize>(
        &self,
        topic: &'static str,
        record: &T,
    ) -> Result<Vec<u8>, EncodeError> {
        let (_, id) = self
            .newest
            .get(&(topic, T::TYPE))
            .ok_or(EncodeError::NoId(T::TYPE, topic))?;
        let mut value = Vec::with_capacity(256);
        value.push(MAGIC);
        value.extend_from_slice(&id.to_be_bytes());
        let writer = &self.by_id[id].writer;
        writer
            .write_ser(&mut value, record)
            .map_err(|error| EncodeError::Misfit(T::TYPE, Box::new(error)))?;
        Ok(value)
    }

    /// Splits a value into its schema and its datum.
    ///
    /// # Errors
    /// [`DecodeError`] when the value is not Avro, or its schema is unknown or another topic's.
    pub fn open<'a>(
        &self,
        topic: &str,
        value: &'a [u8],
    ) -> Result<(&Compiled, &'a [u8]), DecodeError> {
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
