//! What is done between BEGIN and COMMIT of a batch: fence, load, decide, save, count.
//!
//! The transaction itself, and what becomes of one that fails, is [`super`]'s.

use std::collections::{HashMap, HashSet};

use events::id::CommandId;
use events::time::Timestamp;
use sqlx::PgConnection;

use super::steps::Steps;
use super::{Batch, BatchError, Committed, Filled, Part, database, injected};
use crate::acts;
use crate::batch_store::{self, Fenced, Finished, TakenCommand};
use crate::calls::Scheduling;
use crate::decision::{self, Decided, Decision};
use crate::failpoint::reach;
use crate::held_store;
use crate::mutant;
use crate::record::{Output, pack};
use crate::service::{DueTimer, EffectMark, Service};
use crate::shared::Shared;
use crate::store::{self, OutputState, Owned};

/// Fences, loads, decides and writes: all of a batch but its BEGIN and COMMIT.
pub(super) async fn fill<S: Service>(
    shared: &Shared<S>,
    parts: &[Part<S::Input>],
    conn: &mut PgConnection,
    by_steps: bool,
) -> Result<Filled, BatchError> {
    let owners: Vec<Owned> = parts.iter().map(|part| part.owned).collect();
    let commands: Vec<i64> = parts.iter().flat_map(|part| part.batch.commands()).collect();
    let Fenced { now, held, taken: seen } = batch_store::fence(conn, &owners, &commands).await.map_err(database)?;
    let live: Vec<&Part<S::Input>> = parts.iter().filter(|part| held.contains(&part.owned.partition)).collect();
    if live.is_empty() {
        return Ok(parts.iter().map(|_| None).collect());
    }
    let (mut decided, mut left) = match by_steps {
        true => Steps::new(shared, &mut *conn, now, &live, seen).apply().await?,
        false => at_once(shared, conn, &live, now, seen).await?,
    };
    if mutant::is("dead-letter-beside-the-outbox") {
        decided.iter_mut().for_each(|decided| mutant::publish_beside(shared, &mut decided.records));
    }
    for (part, decided) in live.iter().zip(&mut decided) {
        let place = (part.owned.partition, now);
        decision::bury(shared, conn, place, &part.batch, decided).await?;
        save_beside(shared, conn, part, decided).await.map_err(database)?;
    }
    finish(shared, conn, &live, &decided).await?;
    let dlq = Output::Dlq.place();
    if live.iter().zip(&decided).any(|(part, decided)| decided.sequences[dlq] > part.batch.sequences[dlq]) {
        reached("D4").await?;
    }
    reached("C4").await?;
    let mut next_timers = next_timers(shared, conn, &live, &decided).await.map_err(database)?;
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

/// A boundary between two steps of a transaction, which may be told to err.
pub(super) async fn reached(boundary: &'static str) -> Result<(), BatchError> {
    reach(boundary).await.map_err(injected)
}

/// Applies everything in one step.
async fn at_once<S: Service>(
    shared: &Shared<S>,
    conn: &mut PgConnection,
    live: &[&Part<S::Input>],
    now: Timestamp,
    mut seen: HashSet<CommandId>,
) -> Result<(Vec<Decided>, Left), BatchError> {
    let timers = due_timers(shared, conn, live).await.map_err(database)?;
    let items = live.iter().flat_map(|part| &part.batch.items);
    let mut inputs: Vec<&S::Input> = items.filter_map(|item| item.what.input()).collect();
    inputs.extend(timers.iter().flatten().map(|timer| &timer.input));
    let mut states = shared.service.load(conn, &inputs, &[]).await.map_err(database)?;
    reached("C2").await?;
    let mut decided = Vec::with_capacity(live.len());
    for (part, timers) in live.iter().zip(&timers) {
        let mut decision = Decision::new(shared, part, now, Decided::new(&part.batch), &mut seen);
        for (index, item) in part.batch.items.iter().enumerate() {
            decision.take(index, item, &mut states)?;
        }
        for timer in timers {
            decision.fire(timer, &mut states)?;
        }
        decided.push(decision.end());
    }
    shared.service.save(conn, shared.homes(), &states).await.map_err(database)?;
    reached("C3").await?;
    let mut left = Left::default();
    left.add(shared, &states);
    Ok((decided, left))
}

/// The timers that each processor takes in.
pub(super) async fn due_timers<S: Service>(
    shared: &Shared<S>,
    conn: &mut PgConnection,
    live: &[&Part<S::Input>],
) -> Result<Vec<Vec<DueTimer<S::Input>>>, sqlx::Error> {
    let mut timers = Vec::with_capacity(live.len());
    for part in live {
        let Batch { window, resting, .. } = &part.batch;
        timers.push(match window {
            Some(window) => shared.service.due_timers(conn, part.owned.partition, *window, resting).await?,
            None => Vec::new(),
        });
    }
    Ok(timers)
}

/// The earliest timer that is left, of each processor that took some in.
async fn next_timers<S: Service>(
    shared: &Shared<S>,
    conn: &mut PgConnection,
    live: &[&Part<S::Input>],
    decided: &[Decided],
) -> Result<HashMap<i32, Option<Timestamp>>, sqlx::Error> {
    let mut next_timers = HashMap::new();
    for (part, decided) in live.iter().zip(decided).filter(|(part, _)| part.batch.window.is_some()) {
        let partition = part.owned.partition;
        let held = decided.queues.iter().filter(|(_, queue)| !queue.is_empty()).map(|(key, _)| *key);
        let resting: Vec<i64> = part.batch.resting.iter().copied().chain(held).collect();
        next_timers.insert(partition, shared.service.next_timer(conn, partition, &resting).await?);
    }
    Ok(next_timers)
}

/// What the states of a transaction ask for next, by processor.
#[derive(Default)]
pub(super) struct Left {
    timers: HashMap<i32, Timestamp>,
    effects: HashMap<i32, Vec<EffectMark>>,
}

impl Left {
    pub(super) fn add<S: Service>(&mut self, shared: &Shared<S>, states: &S::States) {
        let homes = shared.homes();
        for (key, at) in shared.service.timers_set(states) {
            let earliest = self.timers.entry(homes.of(key)).or_insert(at);
            *earliest = at.min(*earliest);
        }
        for mark in shared.service.effects_set(states) {
            self.effects.entry(homes.of(mark.key)).or_default().push(mark);
        }
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
