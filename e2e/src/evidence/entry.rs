//! A record of a topic as the evidence keeps it: bytes in base64, nothing decoded.
//!
//! A header without a value is an empty one here, as the services read it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use events::envelope::{self, Headers};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// One record of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Partition number.
    pub partition: i32,
    /// Kafka's offset.
    pub offset: i64,
    /// Kafka's time stamp, milliseconds since 1970.
    pub timestamp: i64,
    /// The key.
    #[serde(with = "optional_bytes")]
    pub key: Option<Vec<u8>>,
    /// The value.
    #[serde(with = "optional_bytes")]
    pub value: Option<Vec<u8>>,
    /// All headers in their order.
    #[serde(serialize_with = "put_headers", deserialize_with = "take_headers")]
    pub headers: Headers,
}

impl Entry {
    /// A header as text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        envelope::text(&self.headers, name)
    }

    /// `ce_sequence`, if it is a valid one.
    #[must_use]
    pub fn sequence(&self) -> Option<i64> {
        envelope::sequence(&self.headers)
    }

    /// The key as text; empty when there is none.
    #[must_use]
    pub fn key_text(&self) -> &str {
        self.key.as_deref().and_then(|key| std::str::from_utf8(key).ok()).unwrap_or_default()
    }

    /// True when key, value and headers are the same, byte for byte.
    #[must_use]
    pub fn same_bytes(&self, other: &Self) -> bool {
        self.key == other.key && self.value == other.value && self.headers == other.headers
    }
}

/// Bytes as base64 text, for a field that may be null.
pub(super) mod optional_bytes {
    use super::{Deserialize, Deserializer, STANDARD, Serializer, de};
    use base64::Engine as _;

    /// Writes base64 or null.
    ///
    /// # Errors
    /// The serialiser's.
    pub(crate) fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => serializer.serialize_str(&STANDARD.encode(bytes)),
            None => serializer.serialize_none(),
        }
    }

    /// Reads base64 or null.
    ///
    /// # Errors
    /// When it is no base64.
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| STANDARD.decode(text).map_err(de::Error::custom)).transpose()
    }
}

fn put_headers<S: Serializer>(headers: &Headers, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(headers.iter().map(|(name, value)| (name, STANDARD.encode(value))))
}

fn take_headers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Headers, D::Error> {
    let mut headers = Headers::default();
    for (name, value) in Vec::<(String, Option<String>)>::deserialize(deserializer)? {
        let value = STANDARD.decode(value.unwrap_or_default()).map_err(de::Error::custom)?;
        headers.push(&name, &value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back() {
        let entry = Entry {
            partition: 1,
            offset: 7,
            timestamp: 5,
            key: Some(b"9".to_vec()),
            value: None,
            headers: Headers::from_iter([("ce_id", &b"3"[..]), ("x", &[0xff])]),
        };
        let line = serde_json::to_string(&entry).unwrap();
        assert_eq!(serde_json::from_str::<Entry>(&line).unwrap(), entry);
        assert!(line.contains(r#""headers":[["ce_id","Mw=="],["x","/w=="]]"#), "{line}");
        let null = line.replace(r#""/w==""#, "null");
        assert_eq!(serde_json::from_str::<Entry>(&null).unwrap().headers.get("x"), Some(&[][..]));
    }
}
