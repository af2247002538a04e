//! What a batch decides: for each input at most one event, with its ID, sequence and headers, folded at once.
//!
//! Pure but for the IDs: nothing is read or written here. The transaction around it is [`crate::batch`]'s.

use std::collections::HashSet;

use events::envelope::{Cause, Envelope};
use events::id::{CommandId, EventId};
use events::record::{Recorded, SetBy};
use events::time::Timestamp;

use crate::batch::{Batch, BatchError, Item, What};
use crate::batch_store::TakenCommand;
use crate::dead::{self, Scribe};
use crate::intake::{Death, Input, Place};
use crate::kafka::INPUT_BYTES_MAX;
use crate::record::{OutRecord, Output, Record};
use crate::service::Service;
use crate::shared::Shared;
use crate::store::Owned;

/// A record of ours may not be larger than this with its headers: the topic's limit, less room for the batch around it.
const EVENT_BYTES_MAX: usize = INPUT_BYTES_MAX - 1_024;

/// What grows while a batch is decided.
pub(crate) struct Decision<'a, S: Service> {
    shared: &'a Shared<S>,
    owned: Owned,
    now: Timestamp,
    /// Commands that were taken before, here or in an earlier batch.
    seen: &'a mut HashSet<CommandId>,
    records: Vec<OutRecord>,
    taken: Vec<TakenCommand>,
    sequences: [i64; 3],
    model: Place,
    timers_fired: usize,
}

/// What a batch decided.
#[derive(Debug)]
pub(crate) struct Decided {
    pub(crate) records: Vec<OutRecord>,
    pub(crate) taken: Vec<TakenCommand>,
    pub(crate) sequences: [i64; 3],
    pub(crate) model: Place,
    /// Timers that yielded an event.
    pub(crate) timers_fired: usize,
}

/// Why an event comes to be, for its headers.
struct Reason<'a> {
    cause: Cause,
    causation: Option<i64>,
    traceparent: Option<&'a str>,
}

impl<'a, S: Service> Decision<'a, S> {
    pub(crate) fn new(
        shared: &'a Shared<S>,
        owned: Owned,
        now: Timestamp,
        batch: &Batch<S::Input>,
        seen: &'a mut HashSet<CommandId>,
    ) -> Self {
        let (sequences, model) = (batch.sequences, batch.model);
        Self { shared, owned, now, seen, records: Vec::new(), taken: Vec::new(), sequences, model, timers_fired: 0 }
    }

    pub(crate) fn end(self) -> Decided {
        let Self { records, taken, sequences, model, timers_fired, .. } = self;
        Decided { records, taken, sequences, model, timers_fired }
    }

    pub(crate) fn take(
        &mut self,
        index: usize,
        item: &Item<S::Input>,
        states: &mut S::States,
    ) -> Result<(), BatchError> {
        match &item.what {
            What::Passed => Ok(()),
            What::Dead(record, death) => self.bury(record, death),
            What::Answer(input, set_by) => {
                let decided = self.shared.service.decide(states, input, self.now);
                let event = decided.map_err(|failure| BatchError::Failure(index, failure))?;
                let causation = Some(set_by.event_id.0);
                let reason = Reason { cause: Cause::Effect, causation, traceparent: None };
                match event {
                    Some(event) => self.record(event, &reason, states),
                    None => Ok(()),
                }
            }
            What::Record(input) => self.decide(index, input, item.place, states),
        }
    }

    fn decide(
        &mut self,
        index: usize,
        input: &Input<S::Input>,
        place: Option<(usize, Place)>,
        states: &mut S::States,
    ) -> Result<(), BatchError> {
        if let Some(command) = &input.command
            && !self.seen.insert(command.command_id)
        {
            self.shared.meters.repeats.inc();
            return Ok(());
        }
        if let Some((topic, place)) = place
            && self.shared.is_read_model(topic)
            && place.last_sequence > self.model.last_sequence
        {
            self.shared.service.observe(states, &input.input);
            self.model = place;
        }
        let decided = self.shared.service.decide(states, &input.input, self.now);
        let event = decided.map_err(|failure| BatchError::Failure(index, failure))?;
        let cause = Cause::Record(input.position.clone());
        let reason = Reason { cause, causation: input.id, traceparent: input.traceparent.as_deref() };
        match event {
            Some(event) => self.record(event, &reason, states),
            None if input.command.is_some() => {
                Err(BatchError::Broken(format!("the command at {} yielded no event", reason.cause)))
            }
            None => Ok(()),
        }
    }

    /// A timer that a record of this batch has settled yields no event.
    pub(crate) fn fire(&mut self, input: &S::Input, set_by: SetBy, states: &mut S::States) -> Result<(), BatchError> {
        let broken = |why: &str| BatchError::Broken(format!("the timer set by event {}: {why}", set_by.event_id));
        let decided = self.shared.service.decide(states, input, self.now);
        match decided.map_err(|failure| broken(&failure.to_string()))? {
            Some(event) => {
                let reason = Reason { cause: Cause::Timer, causation: Some(set_by.event_id.0), traceparent: None };
                self.record(event, &reason, states)?;
                self.timers_fired += 1;
                Ok(())
            }
            None if self.records.is_empty() => Err(broken("no event moved it")),
            None => Ok(()),
        }
    }

    /// Never waits: the mark is raised through the pool of which this batch holds a connection.
    fn issue(&self) -> Result<i64, BatchError> {
        self.shared.ids.try_issue().ok_or_else(|| BatchError::Outage("the mark of the IDs is not raised".to_owned()))
    }

    /// Gives an event its ID and sequence, and folds it.
    fn record(&mut self, event: S::Event, reason: &Reason<'_>, states: &mut S::States) -> Result<(), BatchError> {
        let service = &self.shared.service;
        let about = service.about(&event);
        let id = self.issue()?;
        let sequence = self.sequences[0] + 1;
        let key = about.key.to_string();
        let envelope = Envelope {
            id,
            type_name: about.type_name,
            source: self.shared.description.name,
            subject: &key,
            time: self.now,
            sequence: Some(sequence),
            correlation: about.correlation,
            causation: reason.causation,
            cause: Some(&reason.cause),
            traceparent: reason.traceparent,
            avro: true,
        };
        let value = service
            .encode(&self.shared.codec, &event)
            .map_err(|error| BatchError::Broken(format!("encoding {}: {error}", about.type_name)))?;
        let headers = envelope.headers();
        let record =
            OutRecord { output: Output::Events, sequence, key: Some(key.into_bytes()), value: Some(value), headers };
        if record.bytes() > EVENT_BYTES_MAX {
            let (bytes, name) = (record.bytes(), about.type_name);
            return Err(BatchError::Broken(format!(
                "{name} of {} has {bytes} bytes, too many for its topic",
                about.key
            )));
        }
        self.records.push(record);
        self.sequences[0] = sequence;
        if let Some(command) = about.command {
            self.taken.push(TakenCommand {
                command,
                partition: self.owned.partition,
                sequence,
                outcome: about.refused,
                event_type: about.type_name,
                subject: about.key,
                at: self.now,
            });
        }
        let recorded = Recorded { event, id: EventId(id), sequence, at: self.now };
        service.evolve(states, &recorded);
        Ok(())
    }

    fn bury(&mut self, record: &Record, death: &Death) -> Result<(), BatchError> {
        let id = self.issue()?;
        let sequence = self.sequences[2] + 1;
        let scribe = Scribe { service: self.shared.description.name, instance: &self.shared.instance, now: self.now };
        self.records.push(dead::letter(scribe, id, sequence, record, death));
        self.sequences[2] = sequence;
        self.shared.meters.dead.inc();
        Ok(())
    }
}
