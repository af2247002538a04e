//! What every record type has in common, and the macro that joins the types of one topic into an enum.
//!
//! A record type is a plain struct whose fields are those of its Avro schema; nothing is hidden in it.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::id::CommandId;

/// A record type of the log.
pub trait Record: Serialize + DeserializeOwned {
    /// The full name of its schema, `ce_type` of its records, such as `orderlog.order.OrderPlaced`.
    const TYPE: &'static str;
}

/// Who asked, in words that find the command again for ever: part of every command and of every event caused by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandRef {
    /// Identity of the command.
    pub command_id: CommandId,
    /// The caller's `sub`; absent for a command that did not come by HTTP.
    pub caller: Option<String>,
    /// SHA-256 (lower-case hex) of method, path as sent and bare idempotency key; absent where no key is required.
    pub key_hash: Option<String>,
    /// SHA-256 (lower-case hex) of the canonical request body; goes with `key_hash`.
    pub fingerprint: Option<String>,
}

/// Declares a struct that is a record of the log.
macro_rules! record {
    ($type:literal, $(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident : $ftype:ty),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub struct $name { $($(#[$fdoc])* pub $field: $ftype),+ }

        impl $crate::record::Record for $name {
            const TYPE: &'static str = $type;
        }
    };
}

/// Declares the enum of the record types of one topic, and how the topic's values are written and read.
macro_rules! topic {
    ($(#[$doc:meta])* $name:ident on $topic:literal { $($variant:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[expect(missing_docs, reason = "each variant is the struct of the same name")]
        pub enum $name { $($variant($variant)),+ }

        impl $name {
            /// The topic's name without prefix.
            pub const TOPIC: &'static str = $topic;
            /// The full names of the types on this topic.
            pub const TYPES: &'static [&'static str] = &[$(<$variant as $crate::record::Record>::TYPE),+];

            /// Full name of this record's schema.
            #[must_use]
            pub fn type_name(&self) -> &'static str {
                match self { $(Self::$variant(_) => <$variant as $crate::record::Record>::TYPE),+ }
            }

            /// Name of this record's type without namespace, such as `OrderPlaced`.
            #[must_use]
            pub fn short_name(&self) -> &'static str {
                match self { $(Self::$variant(_) => stringify!($variant)),+ }
            }

            /// The record as JSON: IDs as strings, times as RFC 3339.
            #[must_use]
            pub fn to_json(&self) -> serde_json::Value {
                let json = match self { $(Self::$variant(record) => serde_json::to_value(record)),+ };
                json.expect("a struct of plain fields is JSON")
            }

            /// The value of this record in the Confluent wire format.
            ///
            /// # Errors
            /// [`crate::codec::EncodeError`] when the schema's ID is not known to the codec.
            pub fn encode(&self, codec: &$crate::codec::Codec) -> Result<Vec<u8>, $crate::codec::EncodeError> {
                match self { $(Self::$variant(record) => codec.encode($topic, record)),+ }
            }

            /// Reads the value of a record of this topic.
            ///
            /// # Errors
            /// [`crate::codec::DecodeError`], which tells damaged bytes from a schema that is not known.
            pub fn decode(codec: &$crate::codec::Codec, value: &[u8]) -> Result<Self, $crate::codec::DecodeError> {
                let (schema, datum) = codec.open($topic, value)?;
                $(if schema.full_name() == <$variant as $crate::record::Record>::TYPE {
                    return schema.read(datum).map(Self::$variant);
                })+
                Err(schema.foreign())
            }
        }

        $(impl From<$variant> for $name {
            fn from(record: $variant) -> Self {
                Self::$variant(record)
            }
        })+
    };
}

/// Adds `command_ref()` to structs whose four command fields are always there.
macro_rules! commanded {
    ($($name:ident),+ $(,)?) => { $(impl $name {
        /// The command behind this record.
        #[must_use]
        pub fn command_ref(&self) -> $crate::record::CommandRef {
            $crate::record::CommandRef {
                command_id: self.command_id,
                caller: self.caller.clone(),
                key_hash: self.key_hash.clone(),
                fingerprint: self.fingerprint.clone(),
            }
        }
    })+ };
}

/// Adds `command_ref()` to events that a command may have caused, or something else.
macro_rules! maybe_commanded {
    ($($name:ident),+ $(,)?) => { $(impl $name {
        /// The command behind this event; `None` when a foreign event, a timer or an effect caused it.
        #[must_use]
        pub fn command_ref(&self) -> Option<$crate::record::CommandRef> {
            self.command_id.map(|command_id| $crate::record::CommandRef {
                command_id,
                caller: self.caller.clone(),
                key_hash: self.key_hash.clone(),
                fingerprint: self.fingerprint.clone(),
            })
        }
    })+ };
}

pub(crate) use {commanded, maybe_commanded, record, topic};

/// Which event set a timer or an effect: what a decision taken on it names as its cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetBy {
    /// `ce_id` of that event.
    pub event_id: crate::id::EventId,
    /// `ce_sequence` of that event on its own topic partition.
    pub sequence: i64,
}

/// An event as the log has it: what `evolve` sees, live and in a rebuild.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded<E> {
    /// What happened.
    pub event: E,
    /// `ce_id`.
    pub id: crate::id::EventId,
    /// `ce_sequence`.
    pub sequence: i64,
    /// `ce_time`: Postgres' clock at the decision.
    pub at: crate::time::Timestamp,
}

impl<E> Recorded<E> {
    /// The mark that a timer or effect set by this event carries.
    #[must_use]
    pub fn mark(&self) -> SetBy {
        SetBy { event_id: self.id, sequence: self.sequence }
    }
}
