//! The headers of a record: the CloudEvents Kafka binding in binary mode, and where an event came from.
//!
//! How headers are kept is [`crate::headers`]'s; the value beside them is [`crate::codec`]'s.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

pub use crate::headers::Headers;
use crate::headers::USUAL_BYTES;
use crate::time::Timestamp;

/// Header names, as the log has them.
pub mod name {
    /// CloudEvents version, always `1.0`.
    pub const SPECVERSION: &str = "ce_specversion";
    /// ID of the event or command, decimal.
    pub const ID: &str = "ce_id";
    /// Full name of the record type.
    pub const TYPE: &str = "ce_type";
    /// `/order-svc`
    pub const SOURCE: &str = "ce_source";
    /// The aggregate's ID: the key.
    pub const SUBJECT: &str = "ce_subject";
    /// RFC 3339 with milliseconds.
    pub const TIME: &str = "ce_time";
    /// 19 digits, on own topics only.
    pub const SEQUENCE: &str = "ce_sequence";
    /// The order this is about; absent on product facts.
    pub const CORRELATION: &str = "ce_correlationid";
    /// ID of the command or event that caused this one.
    pub const CAUSATION: &str = "ce_causationid";
    /// Position of the input that caused this one.
    pub const CAUSE: &str = "ce_cause";
    /// W3C trace context.
    pub const TRACEPARENT: &str = "traceparent";
    /// Always `application/avro` where there is a value of ours.
    pub const CONTENT_TYPE: &str = "content-type";
}

/// The first header of this name as text; `None` when it is missing or no UTF-8.
#[must_use]
pub fn text<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    std::str::from_utf8(headers.get(name)?).ok()
}

/// The sequence of a record of an own topic; `None` unless it is 19 digits and at least 1.
#[must_use]
pub fn sequence(headers: &Headers) -> Option<i64> {
    let text = text(headers, name::SEQUENCE)?;
    if text.len() != 19 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|sequence| *sequence > 0)
}

/// What made an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// A record of an input topic.
    Record(Position),
    /// A due time.
    Timer,
    /// The answer of the outside world.
    Effect,
    /// An operator's redrive or discard of something that is no record.
    Operator,
}

/// Where a record lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Name on the broker, prefix included.
    pub topic: Arc<str>,
    /// Partition number.
    pub partition: i32,
    /// Kafka's offset.
    pub offset: i64,
    /// `ce_sequence` of the record; none for a command or a strange record.
    pub sequence: Option<i64>,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record(at) => {
                write!(f, "{}/{}/{}/", at.topic, at.partition, at.offset)?;
                at.sequence.map_or(Ok(()), |sequence| write!(f, "{sequence}"))
            }
            Self::Timer => f.write_str("timer"),
            Self::Effect => f.write_str("effect"),
            Self::Operator => f.write_str("operator"),
        }
    }
}

/// A text that is no cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be topic/partition/offset/sequence, timer, effect or operator")]
pub struct NotACause;

impl FromStr for Cause {
    type Err = NotACause;

    fn from_str(text: &str) -> Result<Self, NotACause> {
        match text {
            "timer" => return Ok(Self::Timer),
            "effect" => return Ok(Self::Effect),
            "operator" => return Ok(Self::Operator),
            _ => {}
        }
        let mut parts = text.rsplitn(4, '/');
        let mut part = || parts.next().ok_or(NotACause);
        let (sequence, offset, partition, topic) = (part()?, part()?, part()?, part()?);
        if topic.is_empty() {
            return Err(NotACause);
        }
        Ok(Self::Record(Position {
            topic: topic.into(),
            partition: number(partition)?,
            offset: number(offset)?,
            sequence: match sequence {
                "" => None,
                digits => Some(number(digits)?),
            },
        }))
    }
}

/// A number has one spelling: digits, no sign, no leading zero.
fn number<N: FromStr>(text: &str) -> Result<N, NotACause> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || (text.len() > 1 && text.starts_with('0')) {
        return Err(NotACause);
    }
    text.parse().map_err(|_| NotACause)
}

/// The CloudEvents attributes of a record that is about to be written.
#[derive(Debug, Clone)]
pub struct Envelope<'a> {
    /// ID of the command, event, or retry or dlq record.
    pub id: i64,
    /// Full name of the type.
    pub type_name: &'a str,
    /// Crate name of the writer, without slash.
    pub source: &'a str,
    /// The key.
    pub subject: &'a str,
    /// When it was decided (own topics) or accepted (commands).
    pub time: Timestamp,
    /// Own topics only.
    pub sequence: Option<i64>,
    /// The order, where there is one.
    pub correlation: Option<i64>,
    /// ID of what caused it.
    pub causation: Option<i64>,
    /// Where what caused it lies.
    pub cause: Option<&'a Cause>,
    /// W3C trace context, passed on.
    pub traceparent: Option<&'a str>,
    /// False on retry and dlq records, whose value is not ours.
    pub avro: bool,
}

impl Envelope<'_> {
    /// The headers in the order in which kcat shows them.
    #[must_use]
    pub fn headers(&self) -> Headers {
        let mut headers = Headers::with_capacity(12, USUAL_BYTES);
        headers.put(name::SPECVERSION, "1.0");
        headers.put(name::ID, self.id);
        headers.put(name::TYPE, self.type_name);
        headers.put(name::SOURCE, format_args!("/{}", self.source));
        headers.put(name::SUBJECT, self.subject);
        headers.put(name::TIME, self.time);
        if let Some(sequence) = self.sequence {
            headers.put(name::SEQUENCE, format_args!("{sequence:019}"));
        }
        if let Some(correlation) = self.correlation {
            headers.put(name::CORRELATION, correlation);
        }
        if let Some(causation) = self.causation {
            headers.put(name::CAUSATION, causation);
        }
        if let Some(cause) = self.cause {
            headers.put(name::CAUSE, cause);
        }
        if let Some(traceparent) = self.traceparent {
            headers.put(name::TRACEPARENT, traceparent);
        }
        if self.avro {
            headers.put(name::CONTENT_TYPE, "application/avro");
        }
        headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_reads_back() {
        for text in ["order.commands/3/42/", "t1.order.events/0/7/5", "timer", "effect", "operator"] {
            assert_eq!(text.parse::<Cause>().unwrap().to_string(), text);
        }
        for bad in [
            "",
            "x",
            "TIMER",
            "order.events/1/2",
            "order.events/x/2/3",
            "order.events/1/02/3",
            "order.events/-1/2/3",
            "order.events/1/+2/3",
            "order.events/1/2/9223372036854775808",
            "order.events/2147483648/2/3",
            "order.events//2/3",
            "/1/2/3",
        ] {
            assert!(bad.parse::<Cause>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_sequence_is_nineteen_digits() {
        let with = |text: &str| Headers::from_iter([(name::SEQUENCE, text)]);
        assert_eq!(sequence(&with("0000000000000000042")), Some(42));
        for bad in ["42", "0000000000000000000", "000000000000000004x", "-000000000000000042", "9999999999999999999"] {
            assert_eq!(sequence(&with(bad)), None, "{bad}");
        }
        assert_eq!(sequence(&Headers::default()), None);
    }

    fn shown(envelope: &Envelope<'_>) -> Vec<String> {
        let headers = envelope.headers();
        headers.iter().map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(value))).collect()
    }

    #[test]
    fn an_event_has_the_headers_of_the_contract() {
        let cause = "inventory.events/3/42/17".parse().unwrap();
        let event = Envelope {
            id: 226_873_219_453_231_104,
            type_name: "orderlog.order.OrderConfirmed",
            source: "order-svc",
            subject: "7",
            time: Timestamp(1_767_225_600_789),
            sequence: Some(12),
            correlation: Some(7),
            causation: Some(9),
            cause: Some(&cause),
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            avro: true,
        };
        let expected = [
            "ce_specversion=1.0",
            "ce_id=226873219453231104",
            "ce_type=orderlog.order.OrderConfirmed",
            "ce_source=/order-svc",
            "ce_subject=7",
            "ce_time=2026-01-01T00:00:00.789Z",
            "ce_sequence=0000000000000000012",
            "ce_correlationid=7",
            "ce_causationid=9",
            "ce_cause=inventory.events/3/42/17",
            "traceparent=00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "content-type=application/avro",
        ];
        assert_eq!(shown(&event), expected);
        assert_eq!(sequence(&event.headers()), Some(12));
    }

    #[test]
    fn what_a_record_does_not_have_is_no_header() {
        let command = Envelope {
            id: 1,
            type_name: "orderlog.order.PlaceOrder",
            source: "order-svc",
            subject: "7",
            time: Timestamp(0),
            sequence: None,
            correlation: None,
            causation: None,
            cause: None,
            traceparent: None,
            avro: false,
        };
        let expected = [
            "ce_specversion=1.0",
            "ce_id=1",
            "ce_type=orderlog.order.PlaceOrder",
            "ce_source=/order-svc",
            "ce_subject=7",
            "ce_time=1970-01-01T00:00:00.000Z",
        ];
        assert_eq!(shown(&command), expected);
    }
}
