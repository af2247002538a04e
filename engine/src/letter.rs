//! Records of `<crate>.retry` and `<crate>.dlq`: what became of a record that was not applied, with its original bytes, its
//! original headers under `original-…`, and the failure in headers beside them (CONTRACT, "A retry or dlq record").
//!
//! Written here and read back here: the table of held records is the fold of these letters ([`crate::held`]).

use std::borrow::Cow;

use events::envelope::{self, Cause, Envelope, Headers, Position};
use events::time::Timestamp;

use crate::acts::Act;
use crate::intake::position;
use crate::kafka::INPUT_BYTES_MAX;
use crate::record::{OutRecord, Output, Record};

/// Headers beyond this many bytes are cut: retry and dlq topics take 64 KiB more than the largest input.
const ORIGINAL_HEADER_BYTES_MAX: usize = 32 * 1024;
/// A stranger's record may be larger, when it was compressed. A letter that its topic refuses would be sent for ever
/// (H8), so such a value is cut; the whole one lies where the letter says.
const VALUE_BYTES_MAX: usize = INPUT_BYTES_MAX;
const KEY_BYTES_MAX: usize = 8 * 1024;
const MESSAGE_BYTES_MAX: usize = 1024;
const ORIGINAL: &str = "original-";

/// What is wrong with a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flaw {
    pub(crate) class: Class,
    /// Stable code, upper case, or Postgres' SQLSTATE.
    pub(crate) code: Cow<'static, str>,
    /// For people.
    pub(crate) message: String,
}

/// Which row of DESIGN §5 a record that is not applied belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// No processor or HTTP process of ours wrote it.
    Strange,
    /// A command that cannot be read.
    Poison,
    /// The next record of another service's topic, which cannot be read.
    Undecodable,
    /// It cannot be applied.
    Failed,
    /// It waits behind another record of its key.
    Waiting,
    /// An own event: an effect that it asked for has used up its attempts.
    Effect,
}

impl Class {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Strange => "strange",
            Self::Poison => "poison",
            Self::Undecodable => "undecodable",
            Self::Failed => "failed",
            Self::Waiting => "waiting",
            Self::Effect => "effect",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let all = [Self::Strange, Self::Poison, Self::Undecodable, Self::Failed, Self::Waiting, Self::Effect];
        all.into_iter().find(|class| class.as_str() == text)
    }

    /// True when later records of its key may not overtake it.
    pub(crate) fn keeps_key(self) -> bool {
        match self {
            Self::Strange | Self::Poison | Self::Effect => false,
            Self::Undecodable | Self::Failed | Self::Waiting => true,
        }
    }
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// It is kept until it can be applied.
    Held,
    /// Another attempt failed.
    Failed,
    /// It is through, and no event says so.
    Settled,
    /// It is not tried again unless an operator wants it.
    Died,
}

impl Step {
    pub(crate) const ALL: [Self; 4] = [Self::Held, Self::Failed, Self::Settled, Self::Died];

    fn type_name(self) -> &'static str {
        match self {
            Self::Held => "orderlog.engine.RecordHeld",
            Self::Failed => "orderlog.engine.AttemptFailed",
            Self::Settled => "orderlog.engine.RecordSettled",
            Self::Died => "orderlog.engine.RecordDied",
        }
    }

    pub(crate) fn output(self) -> Output {
        match self {
            Self::Held | Self::Failed | Self::Settled => Output::Retry,
            Self::Died => Output::Dlq,
        }
    }
}

/// Who writes a letter, and when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scribe<'a> {
    /// Crate name of the service.
    pub(crate) service: &'a str,
    /// Which process of it.
    pub(crate) instance: &'a str,
    /// Postgres' clock.
    pub(crate) now: Timestamp,
}

/// What a letter says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Letter<'a> {
    pub(crate) step: Step,
    pub(crate) record: &'a Record,
    /// The record's own sequence, if it has one.
    pub(crate) source_sequence: Option<i64>,
    /// The effect that is dead; none when the record itself is meant.
    pub(crate) effect: Option<&'a str>,
    pub(crate) flaw: &'a Flaw,
    /// How often it was tried.
    pub(crate) attempts: u32,
    /// When it was kept first; now, if it was not kept before.
    pub(crate) first_at: Option<Timestamp>,
    /// Who wanted it, if somebody did.
    pub(crate) act: Option<&'a Act>,
}

/// The record for `<crate>.retry` or `<crate>.dlq`.
pub(crate) fn write(scribe: Scribe<'_>, id: i64, sequence: i64, letter: &Letter<'_>) -> OutRecord {
    let Letter { step, record, source_sequence, effect, flaw, attempts, first_at, act } = *letter;
    // What an effect came to is no input that was read.
    let cause = effect.map_or_else(|| Cause::Record(position(record, source_sequence)), |_| Cause::Effect);
    let subject = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok()).unwrap_or_default();
    let envelope = Envelope {
        id,
        type_name: step.type_name(),
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
    let failure: [(&str, String); 13] = [
        ("topic", record.topic.to_string()),
        ("partition", record.partition.to_string()),
        ("offset", record.offset.to_string()),
        ("timestamp", record.timestamp.to_string()),
        ("service", scribe.service.to_owned()),
        ("instance", scribe.instance.to_owned()),
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("class", flaw.class.as_str().to_owned()),
        ("code", flaw.code.to_string()),
        ("message", bounded(&flaw.message, MESSAGE_BYTES_MAX)),
        ("first-at", first_at.unwrap_or(scribe.now).to_string()),
        ("last-at", scribe.now.to_string()),
        ("attempts", attempts.to_string()),
    ];
    for (name, value) in failure {
        headers.put(&format!("failure-{name}"), value);
    }
    if let Some(effect) = effect {
        headers.put("failure-effect", effect);
    }
    if let Some(act) = act {
        sign(&mut headers, act);
    }
    if record.value.is_none() {
        headers.put("original-null", true);
    }
    let (key, value) = (fitting(record.key.as_ref(), &mut headers, "key"), record.value.as_ref());
    let value = fitting(value, &mut headers, "value");
    originals(&record.headers, &mut headers);
    OutRecord { output: step.output(), sequence, key, value, headers }
}

/// Says which operator caused a record, and why.
pub(crate) fn sign(headers: &mut Headers, act: &Act) {
    headers.put("operator-sub", bounded(&act.sub, 64));
    headers.put("operator-reason", bounded(&act.reason, MESSAGE_BYTES_MAX));
}

/// A letter, read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) step: Step,
    /// The original record, as far as the letter holds it.
    pub(crate) record: Record,
    pub(crate) source_sequence: Option<i64>,
    pub(crate) effect: Option<String>,
    pub(crate) flaw: Flaw,
    pub(crate) attempts: u32,
    pub(crate) first_at: Timestamp,
    pub(crate) last_at: Timestamp,
}

/// Reads a letter back; `None` when it is none.
pub(crate) fn read(headers: &Headers, key: Option<&Vec<u8>>, value: Option<&Vec<u8>>) -> Option<Told> {
    let text = |name: &str| envelope::text(headers, name);
    let type_name = text(envelope::name::TYPE)?;
    let step = Step::ALL.into_iter().find(|step| step.type_name() == type_name)?;
    let effect = text("failure-effect").map(str::to_owned);
    let source = match (text(envelope::name::CAUSE)?.parse().ok()?, &effect) {
        (Cause::Record(source), None) => source,
        (Cause::Effect, Some(_)) => event_of(headers)?,
        _ => return None,
    };
    let time = |name: &str| Timestamp::parse(text(name)?).ok();
    let mut originals = Headers::default();
    for (name, value) in headers.iter() {
        if let Some(name) = name.strip_prefix(ORIGINAL)
            && !OF_A_LETTER.contains(&name)
        {
            originals.push(name, value);
        }
    }
    let record = Record {
        topic: source.topic,
        partition: source.partition,
        offset: source.offset,
        // A stranger may date it outside all years.
        timestamp: time("failure-timestamp").unwrap_or(Timestamp(0)),
        key: key.cloned(),
        value: value.cloned(),
        headers: originals,
    };
    let flaw = Flaw {
        class: Class::parse(text("failure-class")?)?,
        code: Cow::Owned(text("failure-code")?.to_owned()),
        message: text("failure-message")?.to_owned(),
    };
    Some(Told {
        step,
        record,
        source_sequence: source.sequence,
        effect,
        flaw,
        attempts: text("failure-attempts")?.parse().ok()?,
        first_at: time("failure-first-at")?,
        last_at: time("failure-last-at")?,
    })
}

/// Where the own event lies that asked for an effect.
fn event_of(headers: &Headers) -> Option<Position> {
    let text = |name: &str| envelope::text(headers, name);
    Some(Position {
        topic: text("failure-topic")?.into(),
        partition: text("failure-partition")?.parse().ok()?,
        offset: text("failure-offset")?.parse().ok()?,
        sequence: Some(text("original-ce_sequence")?.parse().ok()?),
    })
}

/// What a letter says of its original under the same prefix as the original headers.
const OF_A_LETTER: [&str; 4] = ["null", "key-bytes", "value-bytes", "headers-cut"];

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
        headers.push(&format!("{ORIGINAL}{name}"), value);
    }
}

/// A text that a header and a column of Postgres can hold.
pub(crate) fn bounded(text: &str, bytes_max: usize) -> String {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].replace('\0', " ")
}
