//! What a processor does about inputs that cannot be applied: tries held records again, puts off answers of keys that wait,
//! pauses in a storm.
//!
//! Its loop is [`super`]'s; what becomes of such a record in a batch is [`crate::decision`]'s.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use events::time::Timestamp;
use tracing::{debug, warn};

use super::{Ended, Processor};
use crate::acts::{self, Act, Acts};
use crate::batch::Batch;
use crate::calls::Void;
use crate::held::{Entry, Retry, Row, Source};
use crate::held_store;
use crate::intake;
use crate::item::{Item, What};
use crate::letter::Flaw;
use crate::service::Service;
use crate::status::State;
use crate::storm::TRIAL_EVERY;

impl<S: Service> Processor<S> {
    /// An answer is an input, once nothing of its key is held. That an effect is dead does not wait for it.
    pub(super) fn answer(&mut self, what: What<S::Input>) {
        match &what {
            What::Answer(_, mark) if self.held.rests(mark.key) => {
                self.put_off.entry(mark.key).or_default().push(what);
            }
            _ => self.inbox.push(Item::beside(what)),
        }
    }

    /// Reads the held records that are due, and those of which operators want something, and puts them before everything
    /// else.
    pub(super) async fn try_held(&mut self, now: Timestamp) -> Result<(), Ended> {
        let (shared, partition) = (Arc::clone(&self.shared), self.owned.partition);
        if self.storm.is_paused() || !self.trying.is_empty() {
            return Ok(());
        }
        let asked = shared.acts.take(partition);
        let is_due = self.held.next_time().is_some_and(|time| time <= now);
        let due = if is_due { self.held.due(now, self.shared.settings.batch_max) } else { Vec::new() };
        if due.is_empty() && !asked {
            return Ok(());
        }
        let (mut sources, under_way) = (due.clone(), self.calls.acts());
        let read = tokio::spawn(async move {
            let mut conn = shared.pool.acquire().await?;
            let acts = match asked {
                true => acts::read(&mut conn, partition, &shared.inputs, &under_way).await?,
                false => Acts::default(),
            };
            sources.extend(acts.records.iter().map(|(source, _)| *source).filter(|source| !due.contains(source)));
            let rows = held_store::read(&mut conn, partition, &shared.inputs, &sources).await?;
            Ok::<_, sqlx::Error>((due, acts, rows))
        });
        let (due, acts, rows) = match read.await.expect("reading held records does not panic") {
            Ok(read) => read,
            Err(error) => {
                debug!(%error, kafka.partition = partition, "held records wait for the database");
                return Ok(());
            }
        };
        let found: HashSet<Source> = rows.iter().map(|(source, _)| *source).collect();
        let is_there = |source: &Source| found.contains(source);
        if !due.iter().all(is_there) {
            return Err(Ended::Again("held records are gone from the table".to_owned()));
        }
        let Acts { records: acts, effects } = acts;
        self.void_acts.extend(acts.iter().filter(|(source, _)| !is_there(source)).map(|(_, act)| act.id));
        let mut acts: HashMap<Source, Act> = acts.into_iter().collect();
        for ((offset, effect), act) in effects {
            let id = act.id;
            match self.calls.wanted(offset, &effect, act, now) {
                Ok(what) => what.into_iter().for_each(|what| self.answer(what)),
                Err(Void) => self.void_acts.push(id),
            }
        }
        for (source, row) in rows.into_iter().rev() {
            let act = acts.remove(&source);
            let what = What::Retry(Box::new(self.judge_again(source, row, act)));
            self.trying.insert(source);
            self.inbox.put_first(Item { what, place: None, bytes: 0 });
        }
        Ok(())
    }

    /// What a held record means by now.
    pub(super) fn judge_again(&self, source: Source, row: Row, act: Option<Act>) -> Retry<S::Input> {
        let shared = &self.shared;
        let input = shared.description.inputs[source.0];
        let (service, sequence) = (shared.service.as_ref(), row.source_sequence);
        let judged = intake::judge_again(service, &shared.codec, input, shared.kafka.partitions, sequence, &row.record)
            .map(|meaning| meaning.map(|meaning| Box::new(meaning.of(row.record.clone()))));
        Retry { source, row, act, judged }
    }

    /// Takes in what a batch left of its answers and of held records.
    pub(super) fn settle(&mut self, items: Vec<Item<S::Input>>, put_off: Vec<usize>, queues: HashMap<i64, Vec<Entry>>) {
        for (index, item) in items.into_iter().enumerate() {
            match item.what {
                What::Answer(_, mark) if put_off.contains(&index) => {
                    self.put_off.entry(mark.key).or_default().push(item.what);
                }
                What::Answer(_, mark) => self.calls.ended(&mark),
                What::Exhausted(one, _) => self.calls.ended(&one.mark),
                What::Retry(retry) => drop(self.trying.remove(&retry.source)),
                What::Record(_) | What::Dead(..) | What::Undecodable(..) | What::Passed => {}
            }
        }
        let now = self.clock.now();
        for (key, queue) in queues {
            if self.held.replace(key, queue) {
                self.calls.release(key, now);
                self.timers.look(now);
            }
        }
        let free: Vec<i64> = self.put_off.keys().copied().filter(|key| !self.held.rests(*key)).collect();
        for what in free.into_iter().filter_map(|key| self.put_off.remove(&key)).flatten() {
            self.inbox.push(Item::beside(what));
        }
    }

    /// This answer cannot be applied: its effect is tried again later.
    pub(super) fn answer_failed(&mut self, mut batch: Batch<S::Input>, index: usize, flaw: &Flaw) {
        let item = batch.items.remove(index);
        self.put_back(batch);
        if let What::Answer(_, mark) = item.what {
            self.calls.failed(mark, &flaw.code, &flaw.message, self.clock.now());
        }
    }

    /// So much fails that from this item on nothing is taken in for a while.
    pub(super) fn pause(&mut self, index: usize, flaw: &Flaw) {
        if index > 0 && !self.storm.is_paused() {
            // What stands before it is committed first.
            self.limit = index;
            return;
        }
        let seconds = TRIAL_EVERY.as_secs();
        let reason = format!(
            "most records of the last minute fail ({}: {}); the next one is tried every {seconds} s, or at once after \
             `cargo orderctl processors resume {} {}`",
            flaw.code, flaw.message, self.shared.description.name, self.owned.partition
        );
        warn!(kafka.partition = self.owned.partition, reason, "the partition pauses");
        self.storm.pause(Instant::now());
        self.shared.meters.storms.inc();
        self.shared.status.set(self.owned.partition, State::Paused, Some(reason));
    }
}
