//! One batch: everything a processor takes in at once, in one Postgres transaction (DESIGN §2), which it may share with
//! other processors of its process (ADR 6).
//!
//! State, positions, commands, tries and output commit together or not at all. What is sent, called or answered
//! afterwards is the processor's. The transaction lives in a spawned task, which nothing drops half-way (PITFALLS P2.1).

mod transaction;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use events::time::Timestamp;
use futures_util::FutureExt as _;
use sqlx::PgConnection;

use crate::acts;
use crate::batch_store::{self, Fenced, Finished, TakenCommand};
use crate::calls::Scheduling;
use crate::decision::{self, Decided, Decision};
use crate::effects::Dead;
use crate::failpoint::{Injected, reach};
use crate::held::Entry;
use crate::held_store;
use crate::intake::Place;
use crate::item::Item;
use crate::letter::Flaw;
use crate::mutant;
use crate::pool::is_record_fault;
use crate::record::{OutRecord, Output, pack};
use crate::service::{EffectMark, Failure, Service, Window};
use crate::shared::Shared;
use crate::store::{self, OutputState, Owned};
use crate::storm::Tally;
use crate::turns::Outcome;

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
    /// SQLSTATE 22 or 23: some record of the batch is at fault.
    Fault(sqlx::Error),
    /// `decide` erred on this answer.
    Answer(usize, Failure),
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
/// If one of them is at fault, each runs again alone, so that a processor's trouble is its own.
pub(crate) async fn run<S: Service>(shared: &Arc<Shared<S>>, parts: Vec<Part<S::Input>>) -> Vec<Outcome<S::Input>> {
    let (parts, result) = together(shared, parts).await;
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
) -> (Vec<Part<S::Input>>, Result<Result<Filled, BatchError>, Panic>) {
    let shared = Arc::clone(shared);
    let task = tokio::spawn(async move {
        let result = AssertUnwindSafe(transaction::attempt(&shared, &parts)).catch_unwind().await;
        (parts, result)
    });
    task.await.expect("nothing else in it panics, and nobody ends it")
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

async fn fill<S: Service>(
    shared: &Shared<S>,
    parts: &[Part<S::Input>],
    conn: &mut PgConnection,
    lone_timer: &mut Option<i64>,
) -> Result<Filled, BatchError> {
    let owners: Vec<Owned> = parts.iter().map(|part| part.owned).collect();
    let commands: Vec<i64> = parts.iter().flat_map(|part| part.batch.commands()).collect();
    let Fenced { now, held, taken: mut seen } = batch_store::fence(conn, &owners, &commands).await.map_err(database)?;
    let live: Vec<&Part<S::Input>> = parts.iter().filter(|part| held.contains(&part.owned.partition)).collect();
    if live.is_empty() {
        return Ok(parts.iter().map(|_| None).collect());
    }
    let mut timers = Vec::with_capacity(live.len());
    for part in &live {
        let Batch { window, resting, .. } = &part.batch;
        timers.push(match window {
            Some(window) => {
                shared.service.due_timers(conn, part.owned.partition, *window, resting).await.map_err(database)?
            }
            None => Vec::new(),
        });
    }
    if let ([part], [timers]) = (&live[..], &timers[..])
        && let ([], [timer]) = (&part.batch.items[..], &timers[..])
    {
        *lone_timer = Some(timer.key);
    }
    let items = live.iter().flat_map(|part| &part.batch.items);
    let mut inputs: Vec<&S::Input> = items.filter_map(|item| item.what.input()).collect();
    inputs.extend(timers.iter().flatten().map(|timer| &timer.input));
    let mut states = shared.service.load(conn, &inputs, &[]).await.map_err(database)?;
    reach("C2").await.map_err(injected)?;

    let mut decided = Vec::with_capacity(live.len());
    for (part, timers) in live.iter().zip(&timers) {
        let mut decision = Decision::new(shared, part.owned, now, &part.batch, &mut seen);
        for (index, item) in part.batch.items.iter().enumerate() {
            decision.take(index, item, &mut states)?;
        }
        for timer in timers {
            decision.fire(timer, &mut states)?;
        }
        decided.push(decision.end());
    }
    if mutant::is("dead-letter-beside-the-outbox") {
        decided.iter_mut().for_each(|decided| mutant::publish_beside(shared, &mut decided.records));
    }
    shared.service.save(conn, shared.homes(), &states).await.map_err(database)?;
    reach("C3").await.map_err(injected)?;
    for (part, decided) in live.iter().zip(&mut decided) {
        let place = (part.owned.partition, now);
        decision::bury(shared, conn, place, &part.batch, decided).await?;
        save_beside(shared, conn, part, decided).await.map_err(database)?;
    }
    finish(shared, conn, &live, &decided).await?;
    let dlq = Output::Dlq.place();
    if live.iter().zip(&decided).any(|(part, decided)| decided.sequences[dlq] > part.batch.sequences[dlq]) {
        reach("D4").await.map_err(injected)?;
    }
    reach("C4").await.map_err(injected)?;
    let mut next_timers = HashMap::new();
    for (part, decided) in live.iter().zip(&decided).filter(|(part, _)| part.batch.window.is_some()) {
        let partition = part.owned.partition;
        let held = decided.queues.iter().filter(|(_, queue)| !queue.is_empty()).map(|(key, _)| *key);
        let resting: Vec<i64> = part.batch.resting.iter().copied().chain(held).collect();
        let next = shared.service.next_timer(conn, partition, &resting).await.map_err(database)?;
        next_timers.insert(partition, next);
    }
    let mut left = Left::of(shared, &states);
    let mut committed: HashMap<i32, Committed> = live
        .iter()
        .zip(decided)
        .map(|(part, decided)| {
            let partition = part.owned.partition;
            let next_timer = next_timers.remove(&partition).flatten();
            (partition, left.take(partition, now, decided, next_timer))
        })
        .collect();
    Ok(parts.iter().map(|part| committed.remove(&part.owned.partition)).collect())
}

/// What the states of a transaction ask for next, by processor.
struct Left {
    timers: HashMap<i32, Timestamp>,
    effects: HashMap<i32, Vec<EffectMark>>,
}

impl Left {
    fn of<S: Service>(shared: &Shared<S>, states: &S::States) -> Self {
        let homes = shared.homes();
        let (mut timers, mut effects) = (HashMap::new(), HashMap::<i32, Vec<EffectMark>>::new());
        for (key, at) in shared.service.timers_set(states) {
            let earliest = timers.entry(homes.of(key)).or_insert(at);
            *earliest = at.min(*earliest);
        }
        for mark in shared.service.effects_set(states) {
            effects.entry(homes.of(mark.key)).or_default().push(mark);
        }
        Self { timers, effects }
    }

    fn take(&mut self, partition: i32, now: Timestamp, decided: Decided, next_timer: Option<Timestamp>) -> Committed {
        Committed {
            now,
            records: decided.records,
            sequences: decided.sequences,
            model: decided.model,
            timers_fired: decided.timers_fired,
            next_timer,
            timer_set: self.timers.remove(&partition),
            effects_set: self.effects.remove(&partition).unwrap_or_default(),
            queues: decided.queues,
            dead: decided.dead,
            put_off: decided.put_off,
            tally: decided.tally,
        }
    }
}

impl<I> Batch<I> {
    fn commands(&self) -> impl Iterator<Item = i64> {
        self.items.iter().filter_map(|item| item.what.command()).map(|command| command.command_id.0)
    }
}

/// What a processor writes beside the states, and seldom.
async fn save_beside<S: Service>(
    shared: &Shared<S>,
    conn: &mut PgConnection,
    part: &Part<S::Input>,
    decided: &Decided,
) -> Result<(), sqlx::Error> {
    let partition = part.owned.partition;
    if let Some(topic) = shared.description.read_model
        && decided.model != part.batch.model
    {
        store::save_read_model(conn, topic, partition, decided.model).await?;
    }
    held_store::settle(conn, partition, &decided.settled).await?;
    held_store::save(conn, &decided.held).await?;
    if !decided.held.is_empty() {
        reach("D1").await?;
    }
    acts::forget(conn, &[&decided.acts[..], &part.batch.void_acts].concat()).await?;
    let Scheduling { tries, forget } = &part.batch.scheduling;
    if !tries.is_empty() {
        store::save_tries(conn, partition, tries).await?;
    }
    if !forget.is_empty() {
        store::forget_tries(conn, partition, forget).await?;
    }
    Ok(())
}

/// What was decided, beside the states, and how far everything got.
async fn finish<S: Service>(
    shared: &Shared<S>,
    conn: &mut PgConnection,
    live: &[&Part<S::Input>],
    decided: &[Decided],
) -> Result<(), BatchError> {
    let finished = |(part, decided): (&&Part<S::Input>, &Decided)| {
        let Batch { items, sequences, acked, acked_before, .. } = &part.batch;
        let moved = |at: &usize| decided.sequences[*at] != sequences[*at] || acked[*at] != acked_before[*at];
        let output = |at: usize| (at, OutputState { sequence: decided.sequences[at], ..acked[at] });
        Finished {
            owned: part.owned,
            places: shared.places(items),
            outputs: (0..shared.outputs.len()).filter(moved).map(output).collect(),
            acked_before: part.batch.acked_batch_before,
            acked_batch: part.batch.acked_batch,
            records: (!decided.records.is_empty()).then(|| pack(&decided.records)),
        }
    };
    let finished: Vec<Finished> = live.iter().zip(decided).map(finished).collect();
    let taken: Vec<&TakenCommand> = decided.iter().flat_map(|decided| &decided.taken).collect();
    let fenced = batch_store::finish(conn, &shared.outputs, &finished, &taken).await.map_err(database)?;
    if fenced != live.len() {
        return Err(BatchError::Broken("a processor's row changed under its lock".to_owned()));
    }
    Ok(())
}
