//! The dead letter of a record that is not applied: its original bytes, its original headers under `original-…`, and
//! the failure in headers beside them (CONTRACT, "A retry or dlq record").

use events::envelope::{self, Cause, Envelope, Headers};
use events::time::Timestamp;

use crate::intake::{Death, position};
use crate::kafka::INPUT_BYTES_MAX;
use crate::record::{OutRecord, Output, Record};

/// Headers beyond this many bytes are cut: retry and dlq topics take 64 KiB more than the largest input.
const ORIGINAL_HEADER_BYTES_MAX: usize = 32 * 1024;
/// A stranger's record may be larger, when it was compressed. A letter that its topic refuses would be sent for ever
/// (H8), so such a value is cut; the whole one lies where the letter says.
const VALUE_BYTES_MAX: usize = INPUT_BYTES_MAX;
const KEY_BYTES_MAX: usize = 8 * 1024;
const MESSAGE_BYTES_MAX: usize = 1024;

/// Who writes a dead letter, and when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scribe<'a> {
    /// Crate name of the service.
    pub(crate) service: &'a str,
    /// Which process of it.
    pub(crate) instance: &'a str,
    /// Postgres' clock.
    pub(crate) now: Timestamp,
}

/// The record for `<crate>.dlq`.
pub(crate) fn letter(scribe: Scribe<'_>, id: i64, sequence: i64, record: &Record, death: &Death) -> OutRecord {
    let cause = Cause::Record(position(record, None));
    let subject = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok()).unwrap_or_default();
    let envelope = Envelope {
        id,
        type_name: "orderlog.engine.RecordDied",
        source: scribe.service,
        subject: &bounded(subject, 64),
        time: scribe.now,
        sequence: Some(sequence),
        correlation: None,
        causation: envelope::text(&record.headers, envelope::name::ID).and_then(|id| id.parse().ok()),
        cause: Some(&cause),
        traceparent: None,
        avro: false,
    };
    let mut headers = envelope.headers();
    let now = scribe.now.to_string();
    let failure: [(&str, String); 13] = [
        ("topic", record.topic.to_string()),
        ("partition", record.partition.to_string()),
        ("offset", record.offset.to_string()),
        ("timestamp", record.timestamp.to_string()),
        ("service", scribe.service.to_owned()),
        ("instance", scribe.instance.to_owned()),
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("class", death.class.to_owned()),
        ("code", death.code.to_owned()),
        ("message", bounded(&death.message, MESSAGE_BYTES_MAX)),
        ("first-at", now.clone()),
        ("last-at", now),
        ("attempts", "1".to_owned()),
    ];
    for (name, value) in failure {
        headers.put(&format!("failure-{name}"), value);
    }
    if record.value.is_none() {
        headers.put("original-null", true);
    }
    let (key, value) = (fitting(record.key.as_ref(), &mut headers, "key"), record.value.as_ref());
    let value = fitting(value, &mut headers, "value");
    originals(&record.headers, &mut headers);
    OutRecord { output: Output::Dlq, sequence, key, value, headers }
}

/// The original bytes; of more than any topic takes the beginning, and a header that says how many there were.
fn fitting(bytes: Option<&Vec<u8>>, headers: &mut Headers, what: &str) -> Option<Vec<u8>> {
    let bytes = bytes?;
    let most = if what == "key" { KEY_BYTES_MAX } else { VALUE_BYTES_MAX };
    if bytes.len() > most {
        headers.put(&format!("original-{what}-bytes"), bytes.len());
    }
    Some(bytes[..bytes.len().min(most)].to_vec())
}

/// Adds the original headers, as many as fit.
fn originals(originals: &Headers, headers: &mut Headers) {
    let mut left = ORIGINAL_HEADER_BYTES_MAX;
    for (name, value) in originals.iter() {
        let bytes = name.len() + value.len() + 16;
        if bytes > left {
            headers.put("original-headers-cut", true);
            break;
        }
        left -= bytes;
        headers.push(&format!("original-{name}"), value);
    }
}

fn bounded(text: &str, bytes_max: usize) -> String {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            topic: "order.commands".into(),
            partition: 3,
            offset: 42,
            timestamp: Timestamp(0),
            key: Some(b"7".to_vec()),
            value: Some(b"garbage".to_vec()),
            headers: Headers::from_iter([("ce_id", &b"9"[..]), ("x", &[0xff])]),
        }
    }

    fn die(record: &Record) -> OutRecord {
        let death = Death { class: "poison", code: "NOT_AVRO", message: "no".to_owned() };
        let scribe = Scribe { service: "order-svc", instance: "a", now: Timestamp(1) };
        letter(scribe, 5, 6, record, &death)
    }

    #[test]
    fn bytes_and_headers_are_kept() {
        let letter = die(&record());
        assert_eq!(letter.value.as_deref(), Some(b"garbage".as_slice()));
        assert_eq!(letter.key.as_deref(), Some(b"7".as_slice()));
        let text = |name| envelope::text(&letter.headers, name);
        assert_eq!(text("original-ce_id"), Some("9"));
        assert_eq!(text("failure-code"), Some("NOT_AVRO"));
        assert_eq!(text("ce_cause"), Some("order.commands/3/42/"));
        assert_eq!(text("ce_sequence"), Some("0000000000000000006"));
        assert_eq!(letter.headers.get("original-x"), Some(&[0xff][..]));
        assert_eq!(text("content-type"), None);
    }

    #[test]
    fn a_null_value_stays_null_and_says_so() {
        let letter = die(&Record { value: None, ..record() });
        assert_eq!(letter.value, None);
        assert_eq!(envelope::text(&letter.headers, "original-null"), Some("true"));
    }

    #[test]
    fn a_letter_is_never_larger_than_its_topic_takes() {
        let headers = Headers::from_iter([("big", vec![b'x'; 31_000])]);
        let huge = Record { headers, value: Some(vec![7; 3_000_000]), key: Some(vec![b'9'; 100_000]), ..record() };
        let letter = die(&huge);
        assert!(letter.bytes() < crate::kafka::RECORD_BYTES_MAX, "{}", letter.bytes());
        assert_eq!(letter.value.as_ref().map(Vec::len), Some(INPUT_BYTES_MAX));
        assert_eq!(envelope::text(&letter.headers, "original-value-bytes"), Some("3000000"));
    }

    #[test]
    fn headers_are_bounded() {
        let headers = Headers::from_iter([("big", vec![b'x'; 40_000])]);
        let letter = die(&Record { headers, ..record() });
        assert_eq!(envelope::text(&letter.headers, "original-headers-cut"), Some("true"));
    }
}
