//! One batch: everything a processor takes in at once, in one Postgres transaction (DESIGN §2), which it may share with
//! other processors of its process (ADR 6).
//!
//! State, positions, commands, tries and output commit together or not at all. What is sent, called or answered
//! afterwards is the processor's. The transaction lives in a spawned task, which nothing drops half-way (PITFALLS P2.1).

mod fill;
mod search;
mod steps;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use events::time::Timestamp;
use futures_util::FutureExt as _;
use sqlx::Connection;

use crate::calls::Scheduling;
use crate::effects::Dead;
use crate::failpoint::{Injected, reach};
use crate::held::Entry;
use crate::intake::Place;
use crate::item::Item;
use crate::letter::Flaw;
use crate::mutant;
use crate::pool::is_record_fault;
use crate::record::OutRecord;
use crate::service::{EffectMark, Service, Window};
use crate::shared::Shared;
use crate::store::{OutputState, Owned};
use crate::storm::Tally;
use crate::turns::{Kept, Outcome};

/// A transaction that is under way when Postgres goes away may end within this time; then its connection is given up.
const SILENT_MAX: Duration = Duration::from_secs(5);

/// The input of one transaction.
#[derive(Debug)]
pub(crate) struct Batch<I> {
    pub(crate) items: Vec<Item<I>>,
    /// Timers due in this window are taken in too.
    pub(crate) window: Option<Window>,
    /// Keys whose timers rest: something of them is held, or their timer failed.
    pub(crate) resting: Vec<i64>,
    /// What is held of the keys of these items.
    pub(crate) queues: HashMap<i64, Vec<Entry>>,
    /// Which effects are dead.
    pub(crate) dead: Arc<Dead>,
    /// Acts of operators to be forgotten: their records are gone.
    pub(crate) void_acts: Vec<i64>,
    /// Records of the last minute, and how many of them failed.
    pub(crate) tally: Tally,
    /// Last sequences assigned, per own topic.
    pub(crate) sequences: [i64; 3],
    /// How far the read model of the foreign topic got.
    pub(crate) model: Place,
    /// What Kafka has by now, and what of that is written already.
    pub(crate) acked: [OutputState; 3],
    pub(crate) acked_before: [OutputState; 3],
    pub(crate) acked_batch: i64,
    pub(crate) acked_batch_before: i64,
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
    /// What is held now, of the keys where that changed.
    pub(crate) queues: HashMap<i64, Vec<Entry>>,
    /// Which effects are dead now, of the keys where that may have changed.
    pub(crate) dead: Dead,
    /// Answers, by their place in the batch, whose key waits for a held record.
    pub(crate) put_off: Vec<usize>,
    pub(crate) tally: Tally,
}

/// Why a batch did not commit.
#[derive(Debug)]
pub(crate) enum BatchError {
    /// Another owner or another batch got ahead.
    Fenced,
    /// The COMMIT's outcome is unknown.
    Unknown(String),
    /// Nothing was written; the same batch may be tried again.
    Outage(String),
    /// Postgres refuses a row: something of the transaction is at fault.
    Fault(sqlx::Error),
    /// `decide` erred on this answer, or Postgres refuses what it leads to.
    Answer(usize, Flaw),
    /// `decide` erred on the timer of this key, or Postgres refuses what it leads to.
    Timer(i64, String),
    /// So many records fail that no record is at fault: from this item on nothing is taken in.
    Storm(usize, Flaw),
    /// A broken build or a broken invariant.
    Broken(String),
}

/// A processor's share of a transaction.
#[derive(Debug)]
pub(crate) struct Part<I> {
    pub(crate) owned: Owned,
    pub(crate) batch: Batch<I>,
}

/// What a part of a transaction that is about to commit leaves; `None` when it was fenced and left out.
type Filled = Vec<Option<Committed>>;

/// Runs the batches of several processors in one transaction, each fenced by itself, and hands them back in their order.
///
/// If Postgres refuses something, they go again step by step, and what is refused is held. If one of them is at fault in
/// another way, each runs again alone, so that a processor's trouble is its own.
pub(crate) async fn run<S: Service>(shared: &Arc<Shared<S>>, parts: Vec<Part<S::Input>>) -> Vec<Outcome<S::Input>> {
    let is_retry = |part: &Part<S::Input>| part.batch.items.iter().any(|item| item.what.is_retry());
    let by_steps = shared.refusals.are_likely() || parts.iter().any(is_retry);
    let (mut parts, mut result) = together(shared, parts, by_steps).await;
    if !by_steps && matches!(result, Ok(Err(BatchError::Fault(_)))) {
        shared.refusals.met();
        (parts, result) = together(shared, parts, true).await;
    }
    let shared_fate = match result {
        Ok(Ok(committed)) => return hand_back(parts, committed.into_iter().map(|done| done.ok_or(BatchError::Fenced))),
        Ok(Err(BatchError::Outage(reason))) => Some((reason, BatchError::Outage as fn(String) -> BatchError)),
        Ok(Err(BatchError::Unknown(reason))) => Some((reason, BatchError::Unknown as fn(String) -> BatchError)),
        Ok(Err(error)) if parts.len() == 1 => return hand_back(parts, std::iter::once(Err(error))),
        Err(panic) if parts.len() == 1 => return vec![Err(panic)],
        Ok(Err(
            BatchError::Fenced
            | BatchError::Fault(_)
            | BatchError::Answer(..)
            | BatchError::Timer(..)
            | BatchError::Storm(..)
            | BatchError::Broken(_),
        ))
        | Err(_) => None,
    };
    if let Some((reason, error)) = shared_fate {
        let results: Vec<_> = parts.iter().map(|_| Err(error(reason.clone()))).collect();
        return hand_back(parts, results.into_iter());
    }
    let mut outcomes = Vec::with_capacity(parts.len());
    for part in parts {
        outcomes.extend(Box::pin(run(shared, vec![part])).await);
    }
    outcomes
}

fn hand_back<I>(parts: Vec<Part<I>>, results: impl Iterator<Item = Result<Committed, BatchError>>) -> Vec<Outcome<I>> {
    parts.into_iter().zip(results).map(|(part, result)| Ok((part.batch, result))).collect()
}

type Panic = Box<dyn std::any::Any + Send>;

/// The transaction, in a task of its own. A panic in decide, evolve or the store comes back as its payload.
async fn together<S: Service>(
    shared: &Arc<Shared<S>>,
    parts: Vec<Part<S::Input>>,
    by_steps: bool,
) -> (Vec<Part<S::Input>>, Result<Result<Filled, BatchError>, Panic>) {
    let shared = Arc::clone(shared);
    let task = tokio::spawn(async move {
        let result = AssertUnwindSafe(attempt(&shared, &parts, by_steps)).catch_unwind().await;
        (parts, result)
    });
    task.await.expect("nothing else in it panics, and nobody ends it")
}

async fn attempt<S: Service>(
    shared: &Shared<S>,
    parts: &[Part<S::Input>],
    by_steps: bool,
) -> Result<Filled, BatchError> {
    reach("C1").await.map_err(injected)?;
    if mutant::is("position-outside-the-transaction") {
        mutant::move_positions(
            &shared.pool,
            parts.iter().map(|part| (part.owned.partition, shared.places(&part.batch.items))),
        )
        .await
        .map_err(database)?;
    }
    let mut kept = shared.connections.get().await.map_err(database)?;
    let mut committing = false;
    let result = tokio::select! {
        result = transact(shared, parts, &mut kept, by_steps, &mut committing) => Some(result),
        () = shared.breakers.postgres.away_for(SILENT_MAX) => None,
    };
    let Some(result) = result else {
        // What was cut off without a word may answer in a quarter of an hour: closed, for nobody to use.
        drop(kept.connection.detach());
        let error = format!("no answer, and none of a new connection for {} s", SILENT_MAX.as_secs());
        return Err(if committing { BatchError::Unknown(error) } else { BatchError::Outage(error) });
    };
    if result.as_ref().is_ok_and(|filled| filled.iter().any(Option::is_some)) {
        shared.connections.keep(kept);
    }
    result
}

async fn transact<S: Service>(
    shared: &Shared<S>,
    parts: &[Part<S::Input>],
    kept: &mut Kept,
    by_steps: bool,
    committing: &mut bool,
) -> Result<Filled, BatchError> {
    let mut tx = kept.connection.begin().await.map_err(database)?;
    let filled = match fill::fill(shared, parts, &mut tx, by_steps).await {
        Ok(filled) if filled.iter().any(Option::is_some) => filled,
        other => {
            // Explicit, so that a connection never goes back with a transaction open.
            if let Err(rollback) = tx.rollback().await {
                tracing::debug!(error = %rollback, "rollback failed; the connection is gone");
            }
            return other;
        }
    };
    *committing = true;
    // A deferred constraint speaks at the COMMIT, and then the outcome is known.
    let unknown = |error: String| match mutant::is("unknown-commit-tried-again-without-batch-number") {
        true => BatchError::Outage(error),
        false => BatchError::Unknown(error),
    };
    tx.commit().await.map_err(|error| match is_record_fault(&error) {
        true => BatchError::Fault(error),
        false => unknown(error.to_string()),
    })?;
    reach("C5").await.map_err(|error| unknown(error.to_string()))?;
    Ok(filled)
}

fn injected(error: Injected) -> BatchError {
    BatchError::Outage(error.to_string())
}

pub(crate) fn database(error: sqlx::Error) -> BatchError {
    match error {
        sqlx::Error::RowNotFound => BatchError::Broken("a row that was read in this transaction is gone".to_owned()),
        error if is_record_fault(&error) => BatchError::Fault(error),
        error => BatchError::Outage(error.to_string()),
    }
}
