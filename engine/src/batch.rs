//! One batch: everything a processor takes in at once, in one Postgres transaction (DESIGN §2).
//!
//! State, positions, commands, tries and output commit together or not at all. What is sent, called or answered
//! afterwards is the processor's. The transaction lives in a spawned task, which nothing drops half-way (PITFALLS P2.1).

use std::sync::Arc;

use events::record::{CommandRef, SetBy};
use events::time::Timestamp;
use sqlx::{Connection, PgConnection};

use crate::batch_store::{self, Finish};
use crate::calls::Scheduling;
use crate::decision::Decision;
use crate::intake::{Death, Input, Place};
use crate::pool::is_record_fault;
use crate::record::{OutRecord, Record, pack};
use crate::service::{EffectMark, Failure, Service, Window};
use crate::shared::Shared;
use crate::store::{self, OutputState, Owned};

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
    pub(crate) fn answer(input: I, set_by: SetBy) -> Self {
        Self { what: What::Answer(input, set_by), place: None, bytes: 0 }
    }
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
    /// What Kafka has by now, and what of that is written already.
    pub(crate) acked: [OutputState; 3],
    pub(crate) acked_before: [OutputState; 3],
    pub(crate) acked_batch: i64,
    pub(crate) scheduling: Scheduling,
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
    Outage(String),
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
    let mut kept = shared.slots.connection().await.map_err(database)?;
    let mut tx = kept.connection.begin().await.map_err(database)?;
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
    // A deferred constraint speaks at the COMMIT, and then the outcome is known.
    tx.commit().await.map_err(|error| match is_record_fault(&error) {
        true => BatchError::Fault(error),
        false => BatchError::Unknown(error),
    })?;
    shared.slots.keep(kept);
    Ok(committed)
}

fn database(error: sqlx::Error) -> BatchError {
    if is_record_fault(&error) { BatchError::Fault(error) } else { BatchError::Outage(error.to_string()) }
}

async fn fill<S: Service>(
    shared: &Shared<S>,
    owned: Owned,
    batch: &Batch<S::Input>,
    conn: &mut PgConnection,
) -> Result<Committed, BatchError> {
    let commands = commands(&batch.items);
    let fence = batch_store::fence(conn, owned, &commands).await.map_err(database)?;
    let (now, repeated) = fence.ok_or(BatchError::Fenced)?;
    let timers = match batch.window {
        Some(window) => shared.service.due_timers(conn, owned.partition, window).await.map_err(database)?,
        None => Vec::new(),
    };
    let mut inputs: Vec<&S::Input> = batch.items.iter().filter_map(|item| item.what.input()).collect();
    inputs.extend(timers.iter().map(|timer| &timer.input));
    let mut states = shared.service.load(conn, owned.partition, &inputs, &[]).await.map_err(database)?;

    let mut decision = Decision::new(shared, owned, now, batch, repeated);
    for (index, item) in batch.items.iter().enumerate() {
        decision.take(index, item, &mut states)?;
    }
    let mut timers_fired = 0;
    for timer in &timers {
        timers_fired += usize::from(decision.fire(&timer.input, timer.set_by, &mut states)?);
    }
    shared.service.save(conn, owned.partition, &states).await.map_err(database)?;
    schedule(conn, owned, &batch.scheduling).await.map_err(database)?;
    let next_timer = match batch.window {
        Some(_) => shared.service.next_timer(conn, owned.partition).await.map_err(database)?,
        None => None,
    };
    if !finish(shared, conn, owned, batch, &decision).await.map_err(database)? {
        return Err(BatchError::Fenced);
    }
    Ok(Committed {
        now,
        records: decision.records,
        sequences: decision.sequences,
        model: decision.model,
        timers_fired,
        next_timer,
        timer_set: shared.service.timer_set(&states),
        effects_set: shared.service.effects_set(&states),
    })
}

impl<I> What<I> {
    /// For people: which record or answer this is.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Record(input) => {
                let at = &input.position;
                format!("the record at {}/{} offset {}", at.topic, at.partition, at.offset)
            }
            Self::Dead(record, _) => {
                format!("the record at {}/{} offset {}", record.topic, record.partition, record.offset)
            }
            Self::Answer(_, set_by) => format!("the answer to the effect set by event {}", set_by.event_id),
            Self::Passed => "a record that was passed over".to_owned(),
        }
    }

    /// True when taking it in changes nothing but the position.
    pub(crate) fn is_passed(&self) -> bool {
        matches!(self, Self::Passed)
    }

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

fn commands<I>(items: &[Item<I>]) -> Vec<i64> {
    items.iter().filter_map(|item| item.what.command()).map(|command| command.command_id.0).collect()
}

async fn schedule(conn: &mut PgConnection, owned: Owned, scheduling: &Scheduling) -> Result<(), sqlx::Error> {
    let Scheduling { tries, forget } = scheduling;
    if !tries.is_empty() {
        store::save_tries(conn, owned.partition, tries).await?;
    }
    if !forget.is_empty() {
        store::forget_tries(conn, owned.partition, forget).await?;
    }
    Ok(())
}

/// What was decided, beside the states, and how far everything got.
async fn finish<S: Service>(
    shared: &Shared<S>,
    conn: &mut PgConnection,
    owned: Owned,
    batch: &Batch<S::Input>,
    decision: &Decision<'_, S>,
) -> Result<bool, sqlx::Error> {
    if let Some(topic) = shared.description.read_model
        && decision.model != batch.model
    {
        store::save_read_model(conn, topic, owned.partition, decision.model).await?;
    }
    let outputs: Vec<(String, OutputState)> = (0..shared.outputs.len())
        .filter(|at| decision.sequences[*at] != batch.sequences[*at] || batch.acked[*at] != batch.acked_before[*at])
        .map(|at| (shared.outputs[at].clone(), OutputState { sequence: decision.sequences[at], ..batch.acked[at] }))
        .collect();
    let finish = Finish {
        places: &shared.places(&batch.items),
        outputs: &outputs,
        acked_batch: batch.acked_batch,
        records: (!decision.records.is_empty()).then(|| pack(&decision.records)),
        taken: &decision.taken,
    };
    batch_store::finish(conn, owned, finish).await
}
