//! What a batch decides: for each input at most one event, with its ID, sequence and headers, folded at once.
//!
//! Pure but for the IDs: nothing is read or written here. The transaction around it is [`crate::batch`]'s.

mod burying;
mod keeping;

use std::collections::{HashMap, HashSet};

use events::envelope::{Cause, Envelope};
use events::id::{CommandId, EventId};
use events::record::Recorded;
use events::time::Timestamp;

use crate::acts::{Act, Deed};
use crate::batch::{Batch, BatchError, Part};
use crate::batch_store::TakenCommand;
pub(crate) use crate::decision::burying::bury;
use crate::effects::Dead;
use crate::failpoint;
use crate::held::{Entry, Row};
use crate::held_store;
use crate::intake::{Input, Place};
use crate::item::{Item, What};
use crate::kafka::INPUT_BYTES_MAX;
use crate::letter::{self, Class, Flaw, Step};
use crate::record::{OutRecord, Output};
use crate::service::{DueTimer, Failure, Service};
use crate::shared::Shared;
use crate::store::Owned;
use crate::storm::Tally;

/// A record of ours may not be larger than this with its headers: the topic's limit, less room for the batch around it.
const EVENT_BYTES_MAX: usize = INPUT_BYTES_MAX - 1_024;

/// What grows while a batch is decided.
pub(crate) struct Decision<'a, S: Service> {
    shared: &'a Shared<S>,
    owned: Owned,
    now: Timestamp,
    /// Commands that were taken before, here or in an earlier batch.
    seen: &'a mut HashSet<CommandId>,
    /// What was held of the keys of this batch.
    before: &'a HashMap<i64, Vec<Entry>>,
    /// Which effects were dead.
    dead: &'a Dead,
    decided: Decided,
}

/// What a batch decided.
#[derive(Debug, Default)]
pub(crate) struct Decided {
    pub(crate) records: Vec<OutRecord>,
    pub(crate) taken: Vec<TakenCommand>,
    pub(crate) sequences: [i64; 3],
    pub(crate) model: Place,
    /// Timers that yielded an event.
    pub(crate) timers_fired: usize,
    /// What is held by now, of the keys where that changed.
    pub(crate) queues: HashMap<i64, Vec<Entry>>,
    /// Which effects are dead by now, of the keys where that may have changed.
    pub(crate) dead: Dead,
    /// Held and dead records and effects that are new or were tried.
    pub(crate) held: Vec<Row>,
    /// Those that are through.
    pub(crate) settled: Vec<held_store::Place>,
    /// Acts of operators that are done, whatever came of them.
    pub(crate) acts: Vec<i64>,
    /// Answers, by their place in the batch, whose key waits.
    pub(crate) put_off: Vec<usize>,
    pub(crate) tally: Tally,
}

impl Decided {
    /// Nothing yet.
    pub(crate) fn new<I>(batch: &Batch<I>) -> Self {
        Self { sequences: batch.sequences, model: batch.model, tally: batch.tally, ..Self::default() }
    }

    /// What a further step of the same batch begins with: it may come to nothing.
    pub(crate) fn next(&self) -> Self {
        let (queues, dead) = (self.queues.clone(), self.dead.clone());
        Self { sequences: self.sequences, model: self.model, tally: self.tally, queues, dead, ..Self::default() }
    }

    /// Adds what became of that step.
    pub(crate) fn add(&mut self, next: Self) {
        let Self { records, taken, sequences, model, timers_fired, queues, dead, held, settled, acts, put_off, tally } =
            next;
        self.records.extend(records);
        self.taken.extend(taken);
        self.timers_fired += timers_fired;
        self.held.extend(held);
        self.settled.extend(settled);
        self.acts.extend(acts);
        self.put_off.extend(put_off);
        (self.sequences, self.model, self.queues, self.dead, self.tally) = (sequences, model, queues, dead, tally);
    }
}

/// What came of deciding on a record.
enum Made {
    Event,
    /// A foreign event that changes nothing.
    Nothing,
    /// A command that was taken before.
    Repeat,
    Flawed(Flaw),
}

/// Why an event comes to be, for its headers.
struct Reason<'a> {
    cause: Cause,
    causation: Option<i64>,
    traceparent: Option<&'a str>,
    act: Option<&'a Act>,
}

impl<'a> Reason<'a> {
    fn of<I>(input: &'a Input<I>, act: Option<&'a Act>) -> Self {
        let cause = Cause::Record(input.position.clone());
        Self { cause, causation: input.id, traceparent: input.traceparent.as_deref(), act }
    }
}

impl<'a, S: Service> Decision<'a, S> {
    /// `decided`: what was decided of this part before.
    pub(crate) fn new(
        shared: &'a Shared<S>,
        part: &'a Part<S::Input>,
        now: Timestamp,
        decided: Decided,
        seen: &'a mut HashSet<CommandId>,
    ) -> Self {
        let Part { owned, batch } = part;
        Self { shared, owned: *owned, now, seen, before: &batch.queues, dead: &batch.dead, decided }
    }

    pub(crate) fn end(self) -> Decided {
        self.decided
    }

    pub(crate) fn take(
        &mut self,
        index: usize,
        item: &Item<S::Input>,
        states: &mut S::States,
    ) -> Result<(), BatchError> {
        match &item.what {
            What::Passed => Ok(()),
            What::Dead(record, flaw) => self.keep(Step::Died, record, None, flaw, 1),
            What::Undecodable(record, flaw) => self.bury(index, record, flaw),
            What::Answer(input, mark) => {
                if !self.queue(mark.key).is_empty() {
                    self.decided.put_off.push(index);
                    return Ok(());
                }
                let decided = self.shared.service.decide(states, input, self.now);
                let event = decided.map_err(|failure| BatchError::Answer(index, failed(failure)))?;
                let act = self.done(mark);
                let discarded = act.as_ref().is_some_and(|act| act.deed == Deed::Discard);
                let cause = if discarded { Cause::Operator } else { Cause::Effect };
                let causation = Some(mark.set_by.event_id.0);
                let reason = Reason { cause, causation, traceparent: None, act: act.as_ref() };
                match event {
                    Some(event) => self.record(event, &reason, states),
                    None => Ok(()),
                }
            }
            // Whether anybody still asks for it is known when all is decided.
            What::Exhausted(..) => Ok(()),
            What::Record(input) => {
                self.decided.tally.took();
                if self.follows(input)? {
                    return Ok(());
                }
                self.observe(item.place, input, states);
                match self.decide(input, None, states)? {
                    Made::Event | Made::Nothing | Made::Repeat => Ok(()),
                    Made::Flawed(flaw) => self.fail(index, input, &flaw),
                }
            }
            What::Retry(retry) => self.retry(retry, states),
        }
    }

    /// What Postgres refuses of these is no transaction's fault: a record is held, an answer backs off.
    pub(crate) fn hold(&mut self, index: usize, item: &Item<S::Input>, flaw: &Flaw) -> Result<(), BatchError> {
        match &item.what {
            What::Record(input) => {
                self.decided.tally.took();
                if self.follows(input)? { Ok(()) } else { self.fail(index, input, flaw) }
            }
            What::Retry(retry) if retry.judged.is_ok() => self.fail_again(retry, flaw),
            What::Answer(..) => Err(BatchError::Answer(index, flaw.clone())),
            What::Retry(_) | What::Dead(..) | What::Undecodable(..) | What::Exhausted(..) | What::Passed => {
                let what = item.what.describe();
                Err(BatchError::Broken(format!("{what} cannot be kept: Postgres refuses it: {}", flaw.message)))
            }
        }
    }

    /// Folds a fact of the read model that is read for the first time.
    fn observe(&mut self, place: Option<(usize, Place)>, input: &Input<S::Input>, states: &mut S::States) {
        if let Some((topic, place)) = place
            && self.shared.is_read_model(topic)
            && place.last_sequence > self.decided.model.last_sequence
        {
            self.shared.service.observe(states, &input.input);
            self.decided.model = place;
        }
    }

    fn decide(
        &mut self,
        input: &Input<S::Input>,
        act: Option<&Act>,
        states: &mut S::States,
    ) -> Result<Made, BatchError> {
        if let Some(command) = &input.command
            && !self.seen.insert(command.command_id)
        {
            self.shared.meters.repeats.inc();
            return Ok(Made::Repeat);
        }
        let event = match self.shared.service.decide(states, &input.input, self.now) {
            Ok(event) => event,
            Err(failure) => {
                if let Some(command) = &input.command {
                    self.seen.remove(&command.command_id);
                }
                return Ok(Made::Flawed(failed(failure)));
            }
        };
        let reason = Reason::of(input, act);
        match event {
            Some(event) => self.record(event, &reason, states).map(|()| Made::Event),
            None if input.command.is_some() => {
                Err(BatchError::Broken(format!("the command at {} yielded no event", reason.cause)))
            }
            None => Ok(Made::Nothing),
        }
    }

    /// A timer that a record of this batch has settled yields no event; one whose key waits rests.
    pub(crate) fn fire(&mut self, timer: &DueTimer<S::Input>, states: &mut S::States) -> Result<(), BatchError> {
        let DueTimer { key, input, set_by } = timer;
        if !self.queue(*key).is_empty() {
            return Ok(());
        }
        let decided = self.shared.service.decide(states, input, self.now);
        match decided.map_err(|failure| BatchError::Timer(*key, failure.to_string()))? {
            Some(event) => {
                let reason =
                    Reason { cause: Cause::Timer, causation: Some(set_by.event_id.0), traceparent: None, act: None };
                self.record(event, &reason, states)?;
                self.decided.timers_fired += 1;
                Ok(())
            }
            None if self.decided.records.is_empty() => {
                Err(BatchError::Broken(format!("the timer set by event {}: no event moved it", set_by.event_id)))
            }
            None => Ok(()),
        }
    }

    /// Gives an event its ID and sequence, and folds it.
    fn record(&mut self, event: S::Event, reason: &Reason<'_>, states: &mut S::States) -> Result<(), BatchError> {
        let service = &self.shared.service;
        let about = service.about(&event);
        let id = issue(self.shared)?;
        let sequence = self.decided.sequences[0] + 1;
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
        let mut value = service
            .encode(&self.shared.codec, &event)
            .map_err(|error| BatchError::Broken(format!("encoding {}: {error}", about.type_name)))?;
        failpoint::spoil(&mut value);
        let mut headers = envelope.headers();
        if let Some(act) = reason.act {
            letter::sign(&mut headers, act);
        }
        let record =
            OutRecord { output: Output::Events, sequence, key: Some(key.into_bytes()), value: Some(value), headers };
        if record.bytes() > EVENT_BYTES_MAX {
            let (bytes, name) = (record.bytes(), about.type_name);
            return Err(BatchError::Broken(format!(
                "{name} of {} has {bytes} bytes, too many for its topic",
                about.key
            )));
        }
        self.decided.records.push(record);
        self.decided.sequences[0] = sequence;
        if let Some(command) = about.command {
            self.decided.taken.push(TakenCommand {
                command,
                partition: self.owned.partition,
                sequence,
                outcome: about.refused,
                event_type: about.type_name,
                subject: about.key,
                at: self.now,
            });
        }
        self.touch(about.key);
        let recorded = Recorded { event, id: EventId(id), sequence, at: self.now };
        service.evolve(states, &recorded);
        Ok(())
    }
}

fn failed(Failure { code, message }: Failure) -> Flaw {
    Flaw { class: Class::Failed, code: code.into(), message }
}

/// Never waits: the mark is raised through the pool of which this batch holds a connection.
fn issue<S: Service>(shared: &Shared<S>) -> Result<i64, BatchError> {
    shared.ids.try_issue().ok_or_else(|| BatchError::Outage("the mark of the IDs is not raised".to_owned()))
}
