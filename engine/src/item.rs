//! The inputs of a batch: records, held ones that are tried again, answers of effects, and effects that got none.
//!
//! What a batch makes of them is [`crate::decision`]'s; timers are read in its transaction.

use events::record::CommandRef;

use crate::exhausted::Exhausted;
use crate::held::{Retry, key_number};
use crate::intake::{Input, Place};
use crate::letter::Flaw;
use crate::record::Record;
use crate::service::EffectMark;

/// One thing a batch takes in.
#[derive(Debug)]
pub(crate) struct Item<I> {
    pub(crate) what: What<I>,
    /// Which input topic it came from, and where the processor stands once it is taken.
    pub(crate) place: Option<(usize, Place)>,
    /// What it keeps in memory, roughly.
    pub(crate) bytes: usize,
}

impl<I> Item<I> {
    /// One that comes from no input topic.
    pub(crate) fn beside(what: What<I>) -> Self {
        let bytes = if let What::Exhausted(_, event) = &what { event.bytes() } else { 0 };
        Self { what, place: None, bytes }
    }
}

#[derive(Debug)]
pub(crate) enum What<I> {
    /// A record to decide on.
    Record(Box<Input<I>>),
    /// A record that is dead at once; nothing waits for it.
    Dead(Box<Record>, Flaw),
    /// A record that is dead at once, and keeps its key.
    Undecodable(Box<Record>, Flaw),
    /// A held record that is tried again.
    Retry(Box<Retry<I>>),
    /// The answer of an effect.
    Answer(I, EffectMark),
    /// An effect that has used up its attempts, and the own event that asked for it.
    Exhausted(Box<Exhausted>, Box<Record>),
    /// A repeat, or a record of no interest.
    Passed,
}

impl<I> What<I> {
    /// For people: which record or answer this is.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Record(input) => {
                let at = &input.position;
                format!("the record at {}/{} offset {}", at.topic, at.partition, at.offset)
            }
            Self::Dead(record, _) | Self::Undecodable(record, _) => {
                format!("the record at {}/{} offset {}", record.topic, record.partition, record.offset)
            }
            Self::Retry(retry) => {
                let record = &retry.row.record;
                format!("the held record at {}/{} offset {}", record.topic, record.partition, record.offset)
            }
            Self::Answer(_, mark) => format!("the answer to the effect set by event {}", mark.set_by.event_id),
            Self::Exhausted(one, _) => format!("the dead effect set by event {}", one.mark.set_by.event_id),
            Self::Passed => "a record that was passed over".to_owned(),
        }
    }

    /// True when taking it in changes nothing but the position.
    pub(crate) fn is_passed(&self) -> bool {
        matches!(self, Self::Passed)
    }

    /// The effect whose end this is.
    pub(crate) fn ended(&self) -> Option<EffectMark> {
        match self {
            Self::Answer(_, mark) => Some(*mark),
            Self::Exhausted(one, _) => Some(one.mark),
            _ => None,
        }
    }

    pub(crate) fn is_retry(&self) -> bool {
        matches!(self, Self::Retry(_))
    }

    pub(crate) fn input(&self) -> Option<&I> {
        match self {
            Self::Record(record) => Some(&record.input),
            Self::Retry(retry) => retry.judged.as_ref().ok()?.as_ref().map(|input| &input.input),
            Self::Answer(input, _) => Some(input),
            Self::Dead(..) | Self::Undecodable(..) | Self::Exhausted(..) | Self::Passed => None,
        }
    }

    /// The key whose queue it may have to wait for, or changes.
    pub(crate) fn key(&self) -> Option<i64> {
        match self {
            Self::Record(input) => Some(input.key),
            Self::Undecodable(record, _) => key_number(record),
            Self::Retry(retry) => retry.row.key(),
            Self::Answer(_, mark) => Some(mark.key),
            Self::Dead(..) | Self::Exhausted(..) | Self::Passed => None,
        }
    }

    pub(crate) fn command(&self) -> Option<&CommandRef> {
        match self {
            Self::Record(record) => record.command.as_ref(),
            Self::Retry(retry) => retry.judged.as_ref().ok()?.as_ref()?.command.as_ref(),
            Self::Answer(..) | Self::Dead(..) | Self::Undecodable(..) | Self::Exhausted(..) | Self::Passed => None,
        }
    }
}
