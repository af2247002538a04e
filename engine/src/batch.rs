//! One batch: everything a processor takes in at once, in one Postgres transaction (DESIGN §2).
//!
//! State, positions, commands, tries and output commit together or not at all. What is sent, called or answered
//! afterwards is the processor's. The transaction lives in a spawned task, which nothing drops half-way (PITFALLS P2.1).

use std::collections::HashSet;
use std::sync::Arc;

use events::envelope::{Cause, Envelope};
use events::id::{CommandId, EventId};
use events::record::{CommandRef, Recorded, SetBy};
use events::time::Timestamp;
use sqlx::{Connection, PgConnection};

use crate::dead::{self, Scribe};
use crate::intake::{Death, Input, Place};
use crate::pool::is_record_fault;
use crate::record::{OutRecord, Output, Record, pack};
use crate::service::{EffectMark, Failure, Service, Window};
use crate::shared::Shared;
use crate::store::{self, OpenTry, OutputState, Owned, TakenCommand};

/// A record of ours may not be larger than this with its headers: the topics' limit, less room for the batch around it.
const RECORD_BYTES_MAX: usize = 1_000_000;

/// One thing a batch takes in.
#[derive(Debug)]
pub(crate) struct Item<I> {
    pub(crate) what: What<I>,
    /// Which input topic it came from, and where the processor stands once it is taken.
    pub(crate) place: Option<(usize, Place)>,
}

#[derive(Debug)]
pub(crate) enum What<I> {
    /// A record to decide on.
    Record(Box<Input<I>>),
    /// A record that is kept as a dead letter.
    Dead(Box<Record>, Death),
    /// The answer of an effect.
    Answer(I, SetBy),
    /// A repeat, or a record of no interest.
    Passed,
}

/// The input of one transaction.
#[derive(Debug)]
pub(crate) struct Batch<I> {
    pub(crate) items: Vec<Item<I>>,
    /// Timers due in this window are taken in too.
    pub(crate) window: Option<Window>,
    /// Last sequences assigned, per own topic.
    pub(crate) sequences: [i64; 3],
    /// How far the read model of the foreign topic got.
    pub(crate) model: Place,
    /// What Kafka has by now.
    pub(crate) acked: [OutputState; 3],
    pub(crate) acked_batch: i64,
    /// Tries without an answer, and effects that are through.
    pub(crate) tries: Vec<OpenTry>,
    pub(crate) forget: Vec<(i64, &'static str)>,
}

/// What a committed batch leaves.
#[derive(Debug)]
pub(crate) struct Committed {
    pub(crate) now: Timestamp,
    pub(crate) records: Vec<OutRecord>,
    pub(crate) sequences: [i64; 3],
    pub(crate) model: Place,
    pub(crate) timers_fired: usize,
    /// The earliest timer of the partition; only read when timers were taken in.
    pub(crate) next_timer: Option<Timestamp>,
    pub(crate) timer_set: Option<Timestamp>,
    pub(crate) effects_set: Vec<EffectMark>,
}

/// Why a batch did not commit.
#[derive(Debug)]
pub(crate) enum BatchError {
    /// Another owner or another batch got ahead.
    Fenced,
    /// The COMMIT's outcome is unknown.
    Unknown(sqlx::Error),
    /// Nothing was written; the same batch may be tried again.
    Outage(sqlx::Error),
    /// SQLSTATE 22 or 23: some record of the batch is at fault.
    Fault(sqlx::Error),
    /// `decide` erred on this item.
    Failure(usize, Failure),
    /// A broken build or a broken invariant.
    Broken(String),
}

/// Runs a batch in a task of its own and hands it back.
pub(crate) async fn run<S: Service>(
    shared: &Arc<Shared<S>>,
    owned: Owned,
    batch: Batch<S::Input>,
) -> (Batch<S::Input>, Result<Committed, BatchError>) {
    let shared = Arc::clone(shared);
    let task = tokio::spawn(async move {
        let result = attempt(&shared, owned, &batch).await;
        (batch, result)
    });
    match task.await {
        Ok(done) => done,
        // A panic in decide, evolve or the store: the supervisor sees it as the processor's own.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

async fn attempt<S: Service>(
    shared: &Shared<S>,
    owned: Owned,
    batch: &Batch<S::Input>,
) -> Result<Committed, BatchError> {
    let mut connection = shared.pool.acquire().await.map_err(BatchError::Outage)?;
    let mut tx = connection.begin().await.map_err(BatchError::Outage)?;
    let committed = match fill(shared, owned, batch, &mut tx).await {
        Ok(committed) => committed,
        Err(error) => {
            // Explicit, so that a connection never goes back with a transaction open.
            if let Err(rollback) = tx.rollback().await {
                tracing::debug!(error = %rollback, "rollback failed; the connection is gone");
            }
            return Err(error);
        }
    };
    tx.commit().await.map_err(BatchError::Unknown)?;
    Ok(committed)
}

fn database(error: sqlx::Error) -> BatchError {
    if is_record_fault(&error) { BatchError::Fault(error) } else { BatchError::Outage(error) }
}

async fn fill<S: Service>(
    shared: &Shared<S>,
    owned: Owned,
    batch: &Batch<S::Input>,
    conn: &mut PgConnection,
) -> Result<Committed, BatchError> {
    let places = shared.places(&batch.items);
    let acked: Vec<_> =
        shared.outputs.iter().cloned().zip(batch.acked).filter(|(_, state)| state.acked_sequence > 0).collect();
    let now = store::fence(conn, owned, &places, &acked, batch.acked_batch)
        .await
        .map_err(database)?
        .ok_or(BatchError::Fenced)?;
    let timers = match batch.window {
        Some(window) => shared.service.due_timers(conn, owned.partition, window).await.map_err(database)?,
        None => Vec::new(),
    };
    let repeated = repeated_commands(conn, &batch.items).await.map_err(database)?;
    let mut inputs: Vec<&S::Input> = batch.items.iter().filter_map(|item| item.what.input()).collect();
    inputs.extend(timers.iter().map(|timer| &timer.input));
    let mut states = shared.service.load(conn, owned.partition, &inputs, &[]).await.map_err(database)?;

    let mut work = Work {
        shared,
        owned,
        now,
        seen: repeated,
        records: Vec::new(),
        taken: Vec::new(),
        sequences: batch.sequences,
        model: batch.model,
    };
    for (index, item) in batch.items.iter().enumerate() {
        work.take(index, item, &mut states).await?;
    }
    for timer in &timers {
        work.fire(&timer.input, timer.set_by, &mut states).await?;
    }
    shared.service.save(conn, owned.partition, &states).await.map_err(database)?;
    work.save(conn, batch).await.map_err(database)?;
    let next_timer = match batch.window {
        Some(_) => shared.service.next_timer(conn, owned.partition).await.map_err(database)?,
        None => None,
    };
    Ok(Committed {
        now,
        records: work.records,
        sequences: work.sequences,
        model: work.model,
        timers_fired: timers.len(),
        next_timer,
        timer_set: shared.service.timer_set(&states),
        effects_set: shared.service.effects_set(&states),
    })
}

impl<I> What<I> {
    fn input(&self) -> Option<&I> {
        match self {
            Self::Record(record) => Some(&record.input),
            Self::Answer(input, _) => Some(input),
            Self::Dead(..) | Self::Passed => None,
        }
    }

    fn command(&self) -> Option<&CommandRef> {
        match self {
            Self::Record(record) => record.command.as_ref(),
            Self::Answer(..) | Self::Dead(..) | Self::Passed => None,
        }
    }
}

async fn repeated_commands<I>(conn: &mut PgConnection, items: &[Item<I>]) -> Result<HashSet<CommandId>, sqlx::Error> {
    let commands: Vec<i64> =
        items.iter().filter_map(|item| item.what.command()).map(|command| command.command_id.0).collect();
    if commands.is_empty() {
        return Ok(HashSet::new());
    }
    store::taken_commands(conn, &commands).await
}

/// What grows while a batch is decided.
struct Work<'a, S: Service> {
    shared: &'a Shared<S>,
    owned: Owned,
    now: Timestamp,
    /// Commands that were taken before, here or in an earlier batch.
    seen: HashSet<CommandId>,
    records: Vec<OutRecord>,
    taken: Vec<TakenCommand>,
    sequences: [i64; 3],
    model: Place,
}

/// Why an event comes to be, for its headers.
struct Reason<'a> {
    cause: Cause,
    causation: Option<i64>,
    traceparent: Option<&'a str>,
}

impl<S: Service> Work<'_, S> {
    async fn take(&mut self, index: usize, item: &Item<S::Input>, states: &mut S::States) -> Result<(), BatchError> {
        match &item.what {
            What::Passed => Ok(()),
            What::Dead(record, death) => self.bury(record, death).await,
            What::Answer(input, set_by) => {
                let decided = self.shared.service.decide(states, input, self.now);
                let event = decided.map_err(|failure| BatchError::Failure(index, failure))?;
                let causation = Some(set_by.event_id.0);
                let reason = Reason { cause: Cause::Effect, causation, traceparent: None };
                match event {
                    Some(event) => self.record(event, &reason, states).await,
                    None => Ok(()),
                }
            }
            What::Record(input) => self.decide(index, input, item.place, states).await,
        }
    }

    async fn decide(
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
            Some(event) => self.record(event, &reason, states).await,
            None if input.command.is_some() => {
                Err(BatchError::Broken(format!("the command at {} yielded no event", reason.cause)))
            }
            None => Ok(()),
        }
    }

    async fn fire(&mut self, input: &S::Input, set_by: SetBy, states: &mut S::States) -> Result<(), BatchError> {
        let broken = |why: &str| BatchError::Broken(format!("the timer set by event {}: {why}", set_by.event_id));
        let decided = self.shared.service.decide(states, input, self.now);
        let event = decided.map_err(|failure| broken(&failure.to_string()))?;
        let event = event.ok_or_else(|| broken("no event moved it"))?;
        let reason = Reason { cause: Cause::Timer, causation: Some(set_by.event_id.0), traceparent: None };
        self.record(event, &reason, states).await
    }

    /// Gives an event its ID and sequence, and folds it.
    async fn record(&mut self, event: S::Event, reason: &Reason<'_>, states: &mut S::States) -> Result<(), BatchError> {
        let service = &self.shared.service;
        let about = service.about(&event);
        let id = self.shared.ids.issue().await;
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
        if value.len() > RECORD_BYTES_MAX {
            let bytes = value.len();
            return Err(BatchError::Broken(format!("{} of {key} has {bytes} bytes, too many", about.type_name)));
        }
        let headers = envelope.headers();
        self.records.push(OutRecord {
            output: Output::Events,
            sequence,
            key: Some(key.into_bytes()),
            value: Some(value),
            headers,
        });
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

    async fn bury(&mut self, record: &Record, death: &Death) -> Result<(), BatchError> {
        let id = self.shared.ids.issue().await;
        let sequence = self.sequences[2] + 1;
        let scribe = Scribe { service: self.shared.description.name, instance: &self.shared.instance, now: self.now };
        self.records.push(dead::letter(scribe, id, sequence, record, death));
        self.sequences[2] = sequence;
        self.shared.meters.dead.inc();
        Ok(())
    }

    async fn save(&self, conn: &mut PgConnection, batch: &Batch<S::Input>) -> Result<(), sqlx::Error> {
        store::save_commands(conn, &self.taken).await?;
        if let Some(topic) = self.shared.description.read_model
            && self.model != batch.model
        {
            store::save_read_model(conn, topic, self.owned.partition, self.model).await?;
        }
        if !batch.tries.is_empty() {
            store::save_tries(conn, self.owned.partition, &batch.tries).await?;
        }
        if !batch.forget.is_empty() {
            store::forget_tries(conn, self.owned.partition, &batch.forget).await?;
        }
        if !self.records.is_empty() {
            let sequences: Vec<_> = self
                .shared
                .outputs
                .iter()
                .cloned()
                .zip(self.sequences)
                .zip(batch.sequences)
                .filter(|((_, now), before)| now != before)
                .map(|(moved, _)| moved)
                .collect();
            store::save_output(conn, self.owned, &pack(&self.records), &sequences).await?;
        }
        Ok(())
    }
}
