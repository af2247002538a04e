//! Identifiers as newtypes: an `i64` in Avro and Postgres, a string in JSON (above 2^53 a JSON number lies).
//!
//! Only identity lives here; how a new ID is made is [`crate::snowflake`], and nothing may be ordered by one.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Why a text is no ID: it must be the decimal form of a positive 64-bit integer without sign or leading zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be the decimal text of a positive 64-bit integer")]
pub struct NotAnId;

fn parse(text: &str) -> Result<i64, NotAnId> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || text.starts_with('0') {
        return Err(NotAnId);
    }
    text.parse().map_err(|_| NotAnId)
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;

            fn from_str(text: &str) -> Result<Self, NotAnId> {
                parse(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    serializer.serialize_i64(self.0)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = String::deserialize(deserializer)?;
                    text.parse().map_err(de::Error::custom)
                } else {
                    // Damaged bytes must not become an ID that no text could name.
                    let number = i64::deserialize(deserializer)?;
                    if number > 0 { Ok(Self(number)) } else { Err(de::Error::custom(NotAnId)) }
                }
            }
        }
    };
}

id! {
    /// An order: the key of every record about it, on every topic.
    OrderId
}
id! {
    /// A product of the catalogue and its stock.
    ProductId
}
id! {
    /// A command. A second record with the same one is a repeat and yields no event.
    CommandId
}
id! {
    /// An event, or a record of a retry or dead-letter topic.
    EventId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_string_in_json() {
        let id = OrderId(i64::MAX);
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(json, "\"9223372036854775807\"");
        assert_eq!(serde_json::from_str::<OrderId>(&json).unwrap(), id);
        assert!(serde_json::from_str::<OrderId>("7").is_err(), "a number is none");
    }

    #[test]
    fn an_id_has_one_spelling() {
        assert_eq!("1082185".parse(), Ok(ProductId(1_082_185)));
        for bad in ["", "0", "-1", "+1", "01", " 1", "1 ", "1.0", "1e3", "x", "9223372036854775808"] {
            assert_eq!(bad.parse::<ProductId>(), Err(NotAnId), "{bad}");
        }
    }
}
