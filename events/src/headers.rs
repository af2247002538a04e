//! The headers of a record as names and bytes, all in one buffer.
//!
//! A record has a dozen of them, each of a few bytes: kept one by one they were the largest part of what a service
//! allocated (ADR 5). What the names mean is [`crate::envelope`]'s.

use std::fmt;
use std::io::Write as _;

use serde::{Deserialize, Serialize};

/// Room for those of one of our records: their buffer need not grow.
pub const USUAL_BYTES: usize = 448;

/// Headers in their order; a name may come more than once. A value may be absent in Kafka; here that is an empty value.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Parts")]
pub struct Headers {
    /// Each name with its value behind it.
    #[serde(with = "serde_bytes")]
    bytes: Vec<u8>,
    /// Where the name and the value of each header end.
    ends: Vec<(u32, u32)>,
}

/// Headers that were read back, not yet believed.
#[derive(Deserialize)]
struct Parts {
    #[serde(with = "serde_bytes")]
    bytes: Vec<u8>,
    ends: Vec<(u32, u32)>,
}

impl TryFrom<Parts> for Headers {
    type Error = &'static str;

    fn try_from(Parts { bytes, ends }: Parts) -> Result<Self, Self::Error> {
        let mut from = 0;
        for (name_end, end) in &ends {
            let name = bytes.get(from..*name_end as usize).ok_or("a header's name does not fit")?;
            std::str::from_utf8(name).map_err(|_| "a header's name is no UTF-8")?;
            bytes.get(*name_end as usize..*end as usize).ok_or("a header's value does not fit")?;
            from = *end as usize;
        }
        Ok(Self { bytes, ends })
    }
}

impl Headers {
    /// None yet, with room for so many of so many bytes.
    #[must_use]
    pub fn with_capacity(count: usize, bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), ends: Vec::with_capacity(count) }
    }

    /// Adds a header.
    pub fn push(&mut self, name: &str, value: &[u8]) {
        self.bytes.extend_from_slice(name.as_bytes());
        let name_end = self.end();
        self.bytes.extend_from_slice(value);
        self.ends.push((name_end, self.end()));
    }

    /// Adds a header whose value is a text.
    pub fn put(&mut self, name: &str, value: impl fmt::Display) {
        self.bytes.extend_from_slice(name.as_bytes());
        let name_end = self.end();
        write!(self.bytes, "{value}").expect("memory takes everything");
        self.ends.push((name_end, self.end()));
    }

    /// Kafka's own limits are far below.
    fn end(&self) -> u32 {
        u32::try_from(self.bytes.len()).expect("headers of a record have less than 4 GiB")
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// True when there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all names and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// All of them, in their order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &[u8])> {
        self.raw().map(|(name, value)| (std::str::from_utf8(name).expect("it was a text when it was added"), value))
    }

    fn raw(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        let mut from = 0;
        self.ends.iter().map(move |(name_end, end)| {
            let (name_end, end) = (*name_end as usize, *end as usize);
            let header = (&self.bytes[from..name_end], &self.bytes[name_end..end]);
            from = end;
            header
        })
    }

    /// The value of the first header of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.raw().find(|(key, _)| *key == name.as_bytes()).map(|(_, value)| value)
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.iter().map(|(name, value)| (name, String::from_utf8_lossy(value)));
        f.debug_list().entries(shown).finish()
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(headers: I) -> Self {
        let mut all = Self::default();
        for (name, value) in headers {
            all.push(name.as_ref(), value.as_ref());
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_is_read_back_in_order() {
        let mut headers = Headers::with_capacity(3, 64);
        headers.push("a", &[0xff, 0]);
        headers.put("b", format_args!("{:03}", 7));
        headers.push("", b"");
        headers.push("a", b"again");
        let all: Vec<(&str, &[u8])> = headers.iter().collect();
        assert_eq!(all, [("a", &[0xff, 0][..]), ("b", b"007"), ("", b""), ("a", b"again")]);
        assert_eq!((headers.len(), headers.bytes()), (4, 13));
        assert_eq!(headers.get("a"), Some(&[0xff, 0][..]), "the first of a name");
        assert_eq!(headers.get("c"), None);
    }

    #[test]
    fn headers_that_do_not_fit_together_are_not_read() {
        let read = |bytes: &str, ends: &str| {
            serde_json::from_str::<Headers>(&format!(r#"{{"bytes":{bytes},"ends":{ends}}}"#)).is_ok()
        };
        assert!(read("[97,98]", "[[1,2]]"));
        assert!(!read("[97,98]", "[[1,3]]"), "behind the end");
        assert!(!read("[97,98]", "[[1,2],[1,2]]"), "backwards");
        assert!(!read("[255,98]", "[[1,2]]"), "a name that is no text");
    }
}
