//! What a batch does with records that are not applied: letters, rows, queues of keys; and with held ones that are tried
//! again.
//!
//! Which record is judged how is [`crate::intake`]'s; when a held one is tried is [`crate::held`]'s.

use events::time::Timestamp;

use super::{Decided, Decision, Made, Reason, issue};
use crate::acts::{Act, Deed};
use crate::batch::BatchError;
use crate::held::{self, Entry, Retry, Row, Source};
use crate::intake::Input;
use crate::letter::{self, Class, Flaw, Letter, Scribe, Step};
use crate::mutant;
use crate::record::Record;
use crate::service::Service;
use crate::shared::Shared;

/// The reason of a command that an operator refuses.
const DISCARDED: &str = "DISCARDED";

impl<'a> Letter<'a> {
    /// Another one about a record that is kept, in the words of the last.
    fn again(row: &'a Row, act: Option<&'a Act>) -> Self {
        let Row { record, source_sequence, flaw, attempts, first_at, .. } = row;
        let (source_sequence, first_at, effect) = (*source_sequence, Some(*first_at), None);
        Self { step: Step::Failed, record, source_sequence, effect, flaw, attempts: *attempts, first_at, act }
    }
}

impl<S: Service> Decision<'_, S> {
    /// What is held of a key by now.
    pub(super) fn queue(&self, key: i64) -> &[Entry] {
        self.decided.queues.get(&key).or_else(|| self.before.get(&key)).map_or(&[], Vec::as_slice)
    }

    pub(super) fn queue_mut(&mut self, key: i64) -> &mut Vec<Entry> {
        let before = self.before;
        self.decided.queues.entry(key).or_insert_with(|| before.get(&key).cloned().unwrap_or_default())
    }

    /// Holds a record that must wait behind another one of its aggregate.
    pub(super) fn follows(&mut self, input: &Input<S::Input>) -> Result<bool, BatchError> {
        let queue = self.queue(input.key);
        let goes_on = mutant::is("followers-of-a-held-record-go-on");
        if queue.is_empty() || goes_on || !held::keeps(queue, held::kind_of(self.shared, &input.record)) {
            return Ok(false);
        }
        self.keep(Step::Held, &input.record, input.position.sequence, &waiting(), 0)?;
        Ok(true)
    }

    /// Holds a record that was tried for the first time.
    pub(super) fn fail(&mut self, index: usize, input: &Input<S::Input>, flaw: &Flaw) -> Result<(), BatchError> {
        if !self.decided.tally.may_fail() {
            return Err(BatchError::Storm(index, flaw.clone()));
        }
        self.keep(Step::Held, &input.record, input.position.sequence, flaw, 1)
    }

    /// A record that nobody can read keeps its key, unless that waits already: then it waits too.
    pub(super) fn bury(&mut self, index: usize, record: &Record, flaw: &Flaw) -> Result<(), BatchError> {
        self.decided.tally.took();
        let sequence = events::envelope::sequence(&record.headers);
        let queue = held::key_number(record).map_or(&[][..], |key| self.queue(key));
        if held::keeps(queue, held::kind_of(self.shared, record)) {
            return self.keep(Step::Held, record, sequence, &waiting(), 0);
        }
        if !self.decided.tally.may_fail() {
            return Err(BatchError::Storm(index, flaw.clone()));
        }
        self.keep(Step::Died, record, sequence, flaw, 1)
    }

    /// The letter about a record that was not held before, its row, and its place in the queue of its key.
    pub(super) fn keep(
        &mut self,
        step: Step,
        record: &Record,
        source_sequence: Option<i64>,
        flaw: &Flaw,
        attempts: u32,
    ) -> Result<(), BatchError> {
        let (effect, first_at, act) = (None, None, None);
        let row = self.tell(&Letter { step, record, source_sequence, effect, flaw, attempts, first_at, act })?;
        let row = row.expect("a record that is kept has a row");
        let topic = self.shared.inputs.iter().position(|name| **name == *record.topic);
        if let (Some(key), Some(topic), true) = (row.key(), topic, flaw.class.keeps_key()) {
            let entry = Entry {
                source: (topic, record.offset),
                number: row.number,
                kind: held::kind_of(self.shared, record),
                dead: row.dead,
                attempts,
                last_at: row.last_at,
            };
            self.queue_mut(key).push(entry);
        }
        let meters = &self.shared.meters;
        if row.dead {
            meters.dead.inc()
        } else {
            meters.held.inc()
        };
        self.decided.held.push(row);
        Ok(())
    }

    fn tell(&mut self, letter: &Letter<'_>) -> Result<Option<Row>, BatchError> {
        tell(self.shared, self.now, &mut self.decided, letter)
    }

    /// Tries a held record, or does what an operator wants of it, if nothing that it waits for is left.
    pub(super) fn retry(&mut self, retry: &Retry<S::Input>, states: &mut S::States) -> Result<(), BatchError> {
        let Retry { row, act, judged, .. } = retry;
        let Some(place) = self.begin(retry) else {
            return Ok(());
        };
        let discards = act.as_ref().filter(|act| act.deed == Deed::Discard);
        let made = match (judged, discards) {
            (Ok(Some(input)), Some(act)) if input.command.is_some() => self.refuse(input, act, states)?,
            (_, Some(_)) | (Ok(None), None) => Made::Nothing,
            (Err(flaw), None) => Made::Flawed(flaw.clone()),
            (Ok(Some(input)), None) => {
                if self.shared.is_read_model(retry.source.0) {
                    self.shared.service.observe(states, &input.input);
                }
                self.decide(input, act.as_ref(), states)?
            }
        };
        match made {
            Made::Event => {}
            Made::Nothing | Made::Repeat => {
                let letter =
                    Letter { step: Step::Settled, attempts: row.attempts + 1, ..Letter::again(row, act.as_ref()) };
                self.tell(&letter)?;
            }
            Made::Flawed(flaw) => return self.relapse(place, row, flaw, act.as_ref()),
        }
        if let Some((key, at)) = place {
            self.queue_mut(key).remove(at);
        }
        self.decided.settled.push((row.record.topic.to_string(), row.record.offset, None));
        Ok(())
    }

    /// Postgres refuses what a held record leads to.
    pub(super) fn fail_again(&mut self, retry: &Retry<S::Input>, flaw: &Flaw) -> Result<(), BatchError> {
        match self.begin(retry) {
            Some(place) => self.relapse(place, &retry.row, flaw.clone(), retry.act.as_ref()),
            None => Ok(()),
        }
    }

    /// What is wanted of it is done, whatever comes of it. `None` while it is not its turn.
    fn begin(&mut self, Retry { source, row, act, .. }: &Retry<S::Input>) -> Option<Option<(i64, usize)>> {
        self.decided.acts.extend(act.as_ref().map(|act| act.id));
        let place = self.turn_of(*source, row)?;
        self.shared.meters.retries.inc();
        Some(place)
    }

    /// Whose turn it is: its place in the queue of its key, if it keeps one. `None` while it waits for another record, or is
    /// through already.
    fn turn_of(&self, source: Source, row: &Row) -> Option<Option<(i64, usize)>> {
        let Some(key) = row.key() else { return Some(None) };
        let queue = self.queue(key);
        if !row.flaw.class.keeps_key() {
            return (!held::keeps(queue, held::kind_of(self.shared, &row.record))).then_some(None);
        }
        let at = queue.iter().position(|entry| entry.source == source)?;
        (!held::keeps(&queue[..at], queue[at].kind)).then_some(Some((key, at)))
    }

    /// A command that an operator discards is refused; one that was taken before is settled.
    fn refuse(&mut self, input: &Input<S::Input>, act: &Act, states: &mut S::States) -> Result<Made, BatchError> {
        let command = input.command.as_ref().expect("only commands are refused");
        if !self.seen.insert(command.command_id) {
            return Ok(Made::Repeat);
        }
        match self.shared.service.refuse(states, &input.input, DISCARDED, &act.sub) {
            Some(event) => self.record(event, &Reason::of(input, Some(act)), states).map(|()| Made::Event),
            None => {
                self.seen.remove(&command.command_id);
                let message = "this command can only be redriven".to_owned();
                Ok(Made::Flawed(Flaw { class: Class::Failed, code: "NOT_DISCARDED".into(), message }))
            }
        }
    }

    fn relapse(
        &mut self,
        place: Option<(i64, usize)>,
        row: &Row,
        mut flaw: Flaw,
        act: Option<&Act>,
    ) -> Result<(), BatchError> {
        let (step, class, attempts) = held::relapse(row, &flaw, &self.shared.settings.retry_delays);
        flaw.class = class;
        let after = self.tell(&Letter { step, flaw: &flaw, attempts, ..Letter::again(row, act) })?;
        let after = Row { number: row.number, ..after.expect("it is not settled") };
        if let Some((key, at)) = place {
            let entry = &mut self.queue_mut(key)[at];
            (entry.dead, entry.attempts, entry.last_at) = (after.dead, attempts, after.last_at);
        }
        if after.dead {
            self.shared.meters.dead.inc();
        }
        self.decided.held.push(after);
        Ok(())
    }
}

/// Writes a letter. What it leaves in the table is read from it, as a rebuild does.
pub(super) fn tell<S: Service>(
    shared: &Shared<S>,
    now: Timestamp,
    decided: &mut Decided,
    letter: &Letter<'_>,
) -> Result<Option<Row>, BatchError> {
    let id = issue(shared)?;
    let output = letter.step.output();
    let sequence = &mut decided.sequences[output.place()];
    *sequence += 1;
    let scribe = Scribe { service: shared.description.name, instance: &shared.instance, now };
    let record = letter::write(scribe, id, *sequence, letter);
    let told = letter::read(&record.headers, record.key.as_ref(), record.value.as_ref());
    let row = Row::told(told.expect("what was written is read back"), *sequence);
    decided.records.push(record);
    Ok(row)
}

fn waiting() -> Flaw {
    let message = "it waits behind another record of its key".to_owned();
    Flaw { class: Class::Waiting, code: "WAITS".into(), message }
}
