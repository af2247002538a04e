//! Records of retry and dead-letter topics, read as CONTRACT describes them.

use events::envelope::{Cause, name};

use super::log::Place;
use crate::evidence::Entry;

/// What a letter says of its original under the same prefix as the original headers.
const OF_A_LETTER: [&str; 4] = ["null", "key-bytes", "value-bytes", "headers-cut"];

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Held,
    Failed,
    Settled,
    Died,
}

/// A letter.
#[derive(Debug)]
pub(super) struct Letter<'a> {
    pub(super) service: &'a str,
    pub(super) dlq: bool,
    pub(super) entry: &'a Entry,
    pub(super) step: Step,
    /// Where the record lies that it is about.
    pub(super) source: Place,
    /// Which of its effects, where it is not about the record itself.
    pub(super) effect: Option<&'a str>,
    /// `strange`, `poison`, `undecodable`, `failed`, `waiting`, `effect`
    pub(super) class: &'a str,
}

impl<'a> Letter<'a> {
    pub(super) fn read(service: &'a str, dlq: bool, entry: &'a Entry, prefix: &str) -> Option<Self> {
        let step = match entry.text(name::TYPE)? {
            "orderlog.engine.RecordHeld" => Step::Held,
            "orderlog.engine.AttemptFailed" => Step::Failed,
            "orderlog.engine.RecordSettled" => Step::Settled,
            "orderlog.engine.RecordDied" => Step::Died,
            _ => return None,
        };
        let bare = |topic: &str| topic.strip_prefix(prefix).unwrap_or(topic).to_owned();
        let (source, effect) = match entry.text(name::CAUSE)?.parse() {
            Ok(Cause::Record(source)) => ((bare(&source.topic), source.partition, source.offset), None),
            Ok(Cause::Effect) => {
                let said = |name: &str| entry.text(&format!("failure-{name}"));
                let place = (bare(said("topic")?), said("partition")?.parse().ok()?, said("offset")?.parse().ok()?);
                (place, Some(said("effect")?))
            }
            _ => return None,
        };
        Some(Self { service, dlq, entry, step, source, effect, class: entry.text("failure-class")? })
    }

    /// True when the failure headers name the same place as its cause.
    pub(super) fn agrees(&self, prefix: &str) -> bool {
        let said = |name: &str| self.entry.text(&format!("failure-{name}")).unwrap_or_default();
        let (topic, partition, offset) = &self.source;
        said("topic").strip_prefix(prefix) == Some(topic)
            && said("partition") == partition.to_string()
            && said("offset") == offset.to_string()
            && said("service") == self.service
    }

    /// What of the original the letter does not hold unchanged; `None` when all is there.
    pub(super) fn differs(&self, original: &Entry) -> Option<&'static str> {
        let cut = |what: &str| self.entry.text(&format!("original-{what}-bytes")).is_some();
        let same = |ours: &Option<Vec<u8>>, theirs: &Option<Vec<u8>>, what| match (ours, theirs) {
            (Some(ours), Some(theirs)) if cut(what) => theirs.starts_with(ours),
            (ours, theirs) => ours == theirs,
        };
        if !same(&self.entry.value, &original.value, "value") {
            return Some("value");
        }
        if !same(&self.entry.key, &original.key, "key") {
            return Some("key");
        }
        let originals = self.entry.headers.iter().filter_map(|(name, value)| {
            let name = name.strip_prefix("original-")?;
            (!OF_A_LETTER.contains(&name)).then_some((name, value))
        });
        let theirs = original.headers.iter().filter(|(name, _)| !OF_A_LETTER.contains(name));
        let all = self.entry.text("original-headers-cut").is_none();
        let same = if all { originals.eq(theirs) } else { originals.zip(theirs).all(|(ours, theirs)| ours == theirs) };
        (!same).then_some("headers")
    }
}
