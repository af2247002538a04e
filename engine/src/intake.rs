//! What becomes of a record that was read: an input, a repeat, strange, poison, or a reason to stop (DESIGN §5).
//!
//! Pure: the same record at the same place in the same topic is always judged alike. Asking the registry about an
//! unknown schema and stopping are the processor's.

use std::sync::Arc;

use events::codec::{Codec, DecodeError};
use events::envelope::{self, Position};
use events::partition::partition_of;
use events::record::CommandRef;
use events::time::Timestamp;

use crate::held::key_number;
use crate::letter::{Class, Flaw};
use crate::mutant;
use crate::record::Record;
use crate::service::{Decoded, InputTopic, Service, TopicKind};

/// Where a processor stands in one input partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place {
    /// The next offset to read.
    pub next_offset: i64,
    /// The last `ce_sequence` taken; 0 before the first, and always on a commands topic.
    pub last_sequence: i64,
}

/// A record to decide on.
#[derive(Debug)]
pub(crate) struct Input<I> {
    /// What the service makes of it.
    pub(crate) input: I,
    /// The aggregate's ID.
    pub(crate) key: i64,
    /// The record itself, to be kept when it cannot be applied.
    pub(crate) record: Record,
    /// Where it lies.
    pub(crate) position: Position,
    /// Its `ce_id`, the cause of what follows.
    pub(crate) id: Option<i64>,
    /// W3C trace context to pass on.
    pub(crate) traceparent: Option<String>,
    /// The command, when it is one.
    pub(crate) command: Option<CommandRef>,
}

/// What becomes of a record.
#[derive(Debug)]
pub(crate) enum Verdict<I> {
    /// Decide on it.
    Input(Meaning<I>),
    /// Taken, but of no interest here.
    Passed,
    /// Seen before; nothing moves but the offset.
    Repeat,
    /// Dead at once, and nothing waits for it.
    Dead(Flaw),
    /// The next record of another service's topic, which cannot be read: dead, and its key waits.
    Undecodable(Flaw),
    /// Its schema is unknown here: the registry must say whether it exists.
    Unknown {
        /// The schema ID.
        schema: u32,
        /// What is wrong with it when the registry denies the schema.
        denied: Flaw,
    },
    /// The processor stops: applying anything behind this record would lose or reorder something.
    Stop(String),
}

/// What a record means, without the record.
#[derive(Debug)]
pub(crate) struct Meaning<I> {
    decoded: Decoded<I>,
    sequence: Option<i64>,
}

impl<I> Meaning<I> {
    /// The two together.
    pub(crate) fn of(self, record: Record) -> Input<I> {
        let Self { decoded, sequence } = self;
        let text = |name| envelope::text(&record.headers, name);
        let id = match &decoded.command {
            Some(command) => Some(command.command_id.0),
            None => text(envelope::name::ID).and_then(|id| id.parse().ok()),
        };
        Input {
            input: decoded.input,
            key: decoded.key,
            position: position(&record, sequence),
            id,
            traceparent: text(envelope::name::TRACEPARENT).filter(|text| text.len() <= 64).map(str::to_owned),
            command: decoded.command,
            record,
        }
    }
}

fn next(place: Place, record: &Record, last_sequence: i64) -> Place {
    Place { next_offset: record.offset.max(place.next_offset - 1) + 1, last_sequence }
}

/// Judges the next record of an input partition, and says where the processor stands once it is taken.
pub(crate) fn judge<S: Service>(
    service: &S,
    codec: &Codec,
    topic: InputTopic,
    partitions: i32,
    place: Place,
    record: &Record,
) -> (Verdict<S::Input>, Place) {
    match topic.kind {
        TopicKind::Events => judge_event(service, codec, topic, place, record),
        TopicKind::Commands => {
            let verdict = judge_command(service, codec, topic, partitions, record);
            (verdict, next(place, record, 0))
        }
    }
}

fn judge_event<S: Service>(
    service: &S,
    codec: &Codec,
    topic: InputTopic,
    place: Place,
    record: &Record,
) -> (Verdict<S::Input>, Place) {
    let moved = next(place, record, place.last_sequence);
    let Some(sequence) = envelope::sequence(&record.headers) else {
        return (Verdict::Dead(no_sequence()), moved);
    };
    if sequence <= place.last_sequence && !mutant::is("no-sequence-check") {
        return (Verdict::Repeat, moved);
    }
    if sequence > place.last_sequence + 1 && !mutant::is("hole-passed-over") {
        let reason = format!(
            "a hole in {}/{}: sequence {} follows {} at offset {}; records are missing from the log",
            record.topic, record.partition, sequence, place.last_sequence, record.offset
        );
        return (Verdict::Stop(reason), place);
    }
    let moved = next(place, record, sequence);
    (read_event(service, codec, topic, sequence, record), moved)
}

/// What a record of another service's topic means, in whatever order it comes.
fn read_event<S: Service>(
    service: &S,
    codec: &Codec,
    topic: InputTopic,
    sequence: i64,
    record: &Record,
) -> Verdict<S::Input> {
    let undecodable = |code, message| Flaw { class: Class::Undecodable, code, message };
    match decode(service, codec, topic, record) {
        Ok(_) if let Some((said, found)) = another_type(service, codec, topic, record) => Verdict::Undecodable(
            undecodable("WRONG_TYPE".into(), format!("it says that it is a {said}, but holds a {found}")),
        ),
        Ok(None) => Verdict::Passed,
        Ok(Some(decoded)) if key_number(record) != Some(decoded.key) => {
            let message = format!("its key is not {}, the ID in its value", decoded.key);
            Verdict::Undecodable(undecodable("WRONG_KEY".into(), message))
        }
        Ok(Some(decoded)) => Verdict::Input(Meaning { decoded, sequence: Some(sequence) }),
        Err(DecodeError::UnknownSchema(schema)) => {
            let message = format!("the registry has no schema {schema}");
            Verdict::Unknown { schema, denied: undecodable("UNKNOWN_SCHEMA".into(), message) }
        }
        Err(error) => Verdict::Undecodable(undecodable(code(&error).into(), error.to_string())),
    }
}

/// Judges a record that was kept: its place in the order is known, what it means may have changed. `None` when this service
/// has no interest in it; an unknown schema counts as one that the registry denies.
pub(crate) fn judge_again<S: Service>(
    service: &S,
    codec: &Codec,
    topic: InputTopic,
    partitions: i32,
    sequence: Option<i64>,
    record: &Record,
) -> Result<Option<Meaning<S::Input>>, Flaw> {
    let verdict = match (topic.kind, sequence) {
        (TopicKind::Events, Some(sequence)) => read_event(service, codec, topic, sequence, record),
        (TopicKind::Events, None) => Verdict::Dead(no_sequence()),
        (TopicKind::Commands, _) => judge_command(service, codec, topic, partitions, record),
    };
    match verdict {
        Verdict::Input(meaning) => Ok(Some(meaning)),
        Verdict::Passed => Ok(None),
        Verdict::Dead(flaw) | Verdict::Undecodable(flaw) | Verdict::Unknown { denied: flaw, .. } => Err(flaw),
        Verdict::Repeat | Verdict::Stop(_) => unreachable!("these follow from the order of records, not from one"),
    }
}

fn no_sequence() -> Flaw {
    let message = "no valid ce_sequence: no processor wrote this record".to_owned();
    Flaw { class: Class::Strange, code: "NO_SEQUENCE".into(), message }
}

fn judge_command<S: Service>(
    service: &S,
    codec: &Codec,
    topic: InputTopic,
    partitions: i32,
    record: &Record,
) -> Verdict<S::Input> {
    let dead = |class, code: &'static str, message| Verdict::Dead(Flaw { class, code: code.into(), message });
    let strange = |code, message| dead(Class::Strange, code, message);
    match decode(service, codec, topic, record) {
        Ok(_) if let Some((said, found)) = another_type(service, codec, topic, record) => {
            strange("WRONG_TYPE", format!("it says that it is a {said}, but holds a {found}"))
        }
        Ok(Some(decoded)) => {
            let key = record.key.as_deref().unwrap_or_default();
            if key != decoded.key.to_string().as_bytes() {
                return strange("WRONG_KEY", format!("its key is not {}, the ID in its value", decoded.key));
            }
            let home = partition_of(key, partitions);
            if home != record.partition {
                return strange("WRONG_PARTITION", format!("its key belongs on partition {home}"));
            }
            if decoded.command.as_ref().is_some_and(holds_nul) {
                let message =
                    "its caller, key hash or fingerprint holds a NUL, which Postgres does not store".to_owned();
                return dead(Class::Poison, "DAMAGED", message);
            }
            Verdict::Input(Meaning { decoded, sequence: None })
        }
        Ok(None) => strange("NO_COMMAND", "a commands topic holds commands only".to_owned()),
        Err(DecodeError::UnknownSchema(schema)) => {
            let message = format!("the registry has no schema {schema}");
            let denied = Flaw { class: Class::Poison, code: "UNKNOWN_SCHEMA".into(), message };
            Verdict::Unknown { schema, denied }
        }
        Err(error) => dead(Class::Poison, code(&error), error.to_string()),
    }
}

fn holds_nul(command: &CommandRef) -> bool {
    let texts = [&command.caller, &command.key_hash, &command.fingerprint];
    texts.into_iter().flatten().any(|text| text.contains('\0'))
}

fn decode<S: Service>(
    service: &S,
    codec: &Codec,
    topic: InputTopic,
    record: &Record,
) -> Result<Option<Decoded<S::Input>>, DecodeError> {
    let value = record.value.as_deref().ok_or(DecodeError::Null)?;
    let written = envelope::text(&record.headers, envelope::name::TIME);
    let at = written.and_then(|text| Timestamp::parse(text).ok()).unwrap_or(record.timestamp);
    service.decode(codec, topic.name, value, at)
}

/// The type a record says it has and the one that was found, when they differ. One that says nothing is believed.
fn another_type<'a, S: Service>(
    service: &'a S,
    codec: &'a Codec,
    topic: InputTopic,
    record: &'a Record,
) -> Option<(&'a str, &'a str)> {
    let said = envelope::text(&record.headers, envelope::name::TYPE)?;
    let found = service.type_of(codec, topic.name, record.value.as_deref()?)?;
    (said != found).then_some((said, found))
}

/// Where a record lies.
pub(crate) fn position(record: &Record, sequence: Option<i64>) -> Position {
    Position { topic: Arc::clone(&record.topic), partition: record.partition, offset: record.offset, sequence }
}

fn code(error: &DecodeError) -> &'static str {
    match error {
        DecodeError::Null => "NULL_VALUE",
        DecodeError::NotAvro => "NOT_AVRO",
        DecodeError::UnknownSchema(_) => "UNKNOWN_SCHEMA",
        DecodeError::Foreign { .. } => "FOREIGN_SCHEMA",
        DecodeError::Damaged { .. } => "DAMAGED",
    }
}
