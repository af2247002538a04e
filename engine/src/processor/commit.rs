//! A processor's batch: what it is made of, and what its end means for the processor.
//!
//! The transaction is [`crate::batch`]'s; inputs that cannot be applied are [`super::trouble`]'s.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use tracing::{info, warn};

use super::{Ended, Processor};
use crate::batch::{Batch, BatchError, Committed};
use crate::failpoint::{Injected, reach};
use crate::mutant;
use crate::outbox::{self, Progress};
use crate::service::{Service, Window};
use crate::timers::Clock;
use crate::turns::Turn;

/// A commit that this owner does not take in: the next one reads it.
fn forgotten(error: Injected) -> Ended {
    Ended::Again(error.to_string())
}

impl<S: Service> Processor<S> {
    /// What waits, as far as one batch takes it.
    fn gather(&mut self, window: Option<Window>, progress: &Progress) -> Batch<S::Input> {
        // A paused partition tries one record.
        let limit = if self.storm.is_paused() { 1 } else { self.limit };
        let items = self.inbox.take(limit);
        let scheduling = self.calls.scheduling_with(items.iter().filter_map(|item| item.what.ended()));
        let mut resting = Vec::new();
        if window.is_some() {
            resting.extend(self.held.resting().chain(self.rests.resting()));
        }
        let mut queues = HashMap::new();
        if !self.held.is_empty() {
            let keys = items.iter().filter_map(|item| item.what.key()).filter(|key| self.held.rests(*key));
            queues.extend(keys.map(|key| (key, self.held.queue(key).to_vec())));
        }
        let tally = self.storm.tally(Instant::now());
        Batch {
            window,
            resting,
            queues,
            dead: self.calls.dead(),
            void_acts: std::mem::take(&mut self.void_acts),
            tally,
            items,
            sequences: self.sequences,
            model: self.model,
            acked: progress.acked,
            acked_before: self.acked,
            acked_batch: match mutant::is("outbox-row-deleted-before-its-acknowledgement") {
                true => self.owned.batch,
                false => progress.acked_batch,
            },
            acked_batch_before: self.forgotten_batch,
            scheduling,
        }
    }

    pub(super) async fn commit(
        &mut self,
        window: Option<Window>,
        progress: &Progress,
        turn: Turn<S::Input>,
    ) -> Result<(), Ended> {
        let batch = self.gather(window, progress);
        let started = Instant::now();
        let (batch, result, returning) = turn.run(self.owned, batch).await;
        self.returning = Some(returning);
        match result {
            Ok(committed) => {
                reach("C6").await.map_err(forgotten)?;
                if !committed.effects_set.is_empty() {
                    reach("G1").await.map_err(forgotten)?;
                }
                let waits = committed.queues.values().any(|queue| !queue.is_empty());
                if waits && batch.items.iter().any(|item| item.what.is_retry()) {
                    reach("D3").await.map_err(forgotten)?;
                }
                self.committed(batch, committed, started);
                Ok(())
            }
            Err(BatchError::Fenced) => {
                self.shared.meters.refused_fences.inc();
                Err(Ended::Again("another owner got ahead".to_owned()))
            }
            Err(BatchError::Unknown(error)) => Err(Ended::Again(format!("a COMMIT has no known outcome: {error}"))),
            Err(BatchError::Broken(reason)) => Err(Ended::Stopped(reason)),
            Err(BatchError::Outage(reason)) => {
                self.put_back(batch);
                self.wait_out(&reason).await;
                Ok(())
            }
            Err(BatchError::Fault(error)) => {
                let what = "Postgres refuses what a batch writes beside the states of its inputs";
                Err(Ended::Stopped(format!("{what}: {error}")))
            }
            Err(BatchError::Answer(index, flaw)) => {
                self.answer_failed(batch, index, &flaw);
                Ok(())
            }
            Err(BatchError::Timer(key, reason)) => {
                warn!(key, reason, kafka.partition = self.owned.partition, "a timer cannot be applied; it rests");
                self.put_back(batch);
                self.rests.failed(key, self.clock.now(), &self.shared.settings.retry_delays);
                Ok(())
            }
            Err(BatchError::Storm(index, flaw)) => {
                self.put_back(batch);
                self.pause(index, &flaw);
                Ok(())
            }
        }
    }

    pub(super) fn committed(&mut self, mut batch: Batch<S::Input>, committed: Committed, started: Instant) {
        let shared = Arc::clone(&self.shared);
        self.owned.batch += 1;
        self.sequences = committed.sequences;
        self.model = committed.model;
        self.places.extend(shared.places(&batch.items));
        self.forgotten_batch = batch.acked_batch;
        self.acked = batch.acked;
        self.clock = Clock::new(committed.now);
        self.timers.set(committed.timer_set);
        if batch.window.is_some() {
            self.timers.fired(committed.timers_fired, committed.next_timer, committed.now);
            self.rests.fired();
        }
        let meters = &shared.meters;
        meters.batches.inc();
        meters.inputs.inc_by(batch.items.len() as u64);
        meters.timers.inc_by(committed.timers_fired as u64);
        meters.events.inc_by(committed.records.len() as u64);
        meters.batch_seconds.observe(started.elapsed().as_secs_f64());
        if !batch.items.is_empty() {
            #[expect(clippy::cast_precision_loss, reason = "a batch has at most a few hundred inputs")]
            meters.batch_inputs.observe(batch.items.len() as f64);
        }
        if !committed.records.is_empty() {
            self.publisher.send(outbox::Row { batch: self.owned.batch, records: Arc::new(committed.records) });
        }
        self.inbox.feed.committed(self.owned.batch, &self.places);
        shared.breakers.postgres.succeeded();
        self.limit = shared.settings.batch_max;
        self.last_commit = Instant::now();
        if self.storm.committed(batch.tally, committed.tally, self.last_commit) {
            info!(kafka.partition = self.owned.partition, "a record was applied again; the partition goes on");
        }
        // Nobody else looks into it: what changes is changed in place.
        drop(std::mem::take(&mut batch.dead));
        self.calls.bury(committed.dead);
        self.settle(std::mem::take(&mut batch.items), committed.put_off, committed.queues);
        self.calls.set(committed.effects_set);
        self.tell();
    }
}
