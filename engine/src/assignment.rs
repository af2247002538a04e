//! How a process becomes the owner of processors, keeps them going, and gives them back (DESIGN §2, Assignment).
//!
//! Bump the epoch in a transaction of its own; after its commit read what it left; compare log and database; only then
//! begin. A processor that lost its fence or does not know the outcome of a COMMIT is assigned anew with back-off while
//! the group says it is ours (N6).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use events::time::Timestamp;
use sqlx::Connection;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::breaker::Breaker;
use crate::effects::{self, Effects};
use crate::failpoint;
use crate::feed::{Control, ControlSender, Feed};
use crate::held::{Entry, Queues};
use crate::held_store::{self, DeadRow};
use crate::intake::Place;
use crate::mutant;
use crate::outbox::{self, Row};
use crate::own_log::{self, Comparison};
use crate::processor::{Ended, Prepared, Processor};
use crate::publisher::Publisher;
use crate::record::unpack;
use crate::service::{EffectMark, Service};
use crate::shared::Shared;
use crate::status::State;
use crate::store::{self, OutputState, Owned, StoredTry};
use crate::timers::{Clock, Timers};

const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Open batches may take this long to finish when everything is given back; later ones are fenced.
const END_WITHIN: Duration = Duration::from_secs(5);

/// A processor that was just taken over.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) owned: Owned,
    /// Where it stands, by topic on the broker; a topic it never read is missing.
    pub(crate) places: HashMap<String, Place>,
}

/// Takes processors over: the bump commits before anything is read (H3).
pub(crate) async fn begin<S: Service>(shared: &Arc<Shared<S>>, partitions: &[i32]) -> Result<Vec<Start>, sqlx::Error> {
    let (shared, partitions) = (Arc::clone(shared), partitions.to_vec());
    let task = tokio::spawn(async move {
        let mut conn = shared.pool.acquire().await?;
        let seen = mutant::outbox_before(&mut conn, &partitions).await?;
        let mut tx = conn.begin().await?;
        let owned = store::bump_epochs(&mut tx, &partitions, &shared.instance).await?;
        tx.commit().await?;
        mutant::miss_outbox_behind(&mut conn, seen).await?;
        failpoint::reach("E1").await?;
        let mut positions = store::positions(&mut conn, &partitions).await?;
        let start = |owned: Owned| {
            let mut places = HashMap::new();
            for topic in &shared.inputs {
                if let Some(place) = positions.remove(&(owned.partition, topic.clone())) {
                    places.insert(topic.clone(), place);
                }
            }
            Start { owned, places }
        };
        Ok(owned.into_iter().map(start).collect())
    });
    task.await.expect("taking over does not panic")
}

/// The processors that the group gave to this process.
pub(crate) struct Assigned {
    stop: CancellationToken,
    supervisors: JoinSet<()>,
}

impl Assigned {
    pub(crate) fn spawn<S: Service>(
        runtime: &Handle,
        shared: &Arc<Shared<S>>,
        control: &ControlSender,
        feeds: Vec<(Start, Feed)>,
    ) -> Self {
        let stop = CancellationToken::new();
        let mut supervisors = JoinSet::new();
        for (start, feed) in feeds {
            let supervisor = Supervisor {
                shared: Arc::clone(shared),
                control: control.clone(),
                partition: start.owned.partition,
                stop: stop.clone(),
            };
            supervisors.spawn_on(supervisor.run(start, feed), runtime);
        }
        Self { stop, supervisors }
    }

    /// Ends all of them; open batches finish or are fenced later.
    pub(crate) async fn end(mut self) {
        self.stop.cancel();
        let all = async { while self.supervisors.join_next().await.is_some() {} };
        if tokio::time::timeout(END_WITHIN, all).await.is_err() {
            warn!("a processor did not end in time; its epoch is outdated");
            // Detached, not aborted: no database future may be dropped half-way.
            self.supervisors.detach_all();
        }
    }
}

struct Supervisor<S: Service> {
    shared: Arc<Shared<S>>,
    control: ControlSender,
    partition: i32,
    stop: CancellationToken,
}

impl<S: Service> Supervisor<S> {
    async fn run(self, mut start: Start, mut feed: Feed) {
        let mut backoff = BACKOFF_MIN;
        loop {
            let begun = Instant::now();
            let ended = self.live(start, feed).await;
            if begun.elapsed() > BACKOFF_MAX {
                backoff = BACKOFF_MIN;
            }
            self.shared.meters.live.dec();
            match ended {
                Ended::Revoked => return,
                Ended::Again(reason) => {
                    info!(kafka.partition = self.partition, reason, "the processor is assigned anew");
                    self.shared.status.set(self.partition, State::Preparing, Some(reason));
                    if self.stopped_within(backoff).await {
                        return;
                    }
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
                Ended::Stopped(reason) => {
                    error!(kafka.partition = self.partition, reason, "the processor has stopped");
                    // What was wished while it was not stopped is no wish for this stop.
                    self.shared.forget_resume(self.partition);
                    self.shared.status.set(self.partition, State::Stopped, Some(reason));
                    tokio::select! {
                        () = self.stop.cancelled() => return,
                        () = self.shared.resumed(self.partition) => backoff = BACKOFF_MIN,
                    }
                    let reason = "an operator let it go on".to_owned();
                    self.shared.status.set(self.partition, State::Preparing, Some(reason));
                }
            }
            let Some(again) = self.assign_anew().await else {
                return;
            };
            (start, feed) = again;
        }
    }

    async fn stopped_within(&self, time: Duration) -> bool {
        tokio::time::timeout(time, self.stop.cancelled()).await.is_ok()
    }

    /// A new epoch, and a feed from the committed positions.
    async fn assign_anew(&self) -> Option<(Start, Feed)> {
        let breakers = &self.shared.breakers;
        loop {
            let (breaker, reason) = match begin(&self.shared, &[self.partition]).await {
                Err(error) => (&breakers.postgres, format!("the assignment waits for the database: {error}")),
                Ok(mut starts) => {
                    let start = starts.pop()?;
                    match self.seek(&start).await {
                        Ok(feed) => return Some((start, feed)),
                        Err(reason) => (&breakers.kafka, reason),
                    }
                }
            };
            debug!(kafka.partition = self.partition, reason, "not assigned yet");
            self.shared.status.set(self.partition, State::Waiting, Some(reason.clone()));
            if self.ended_before(breaker, &reason).await {
                return None;
            }
        }
    }

    /// Waits until what failed may be tried again; true when everything was given back meanwhile.
    async fn ended_before(&self, breaker: &Breaker, error: &str) -> bool {
        breaker.failed(error);
        tokio::select! {
            () = self.stop.cancelled() => true,
            () = breaker.settled() => false,
        }
    }

    async fn seek(&self, start: &Start) -> Result<Feed, String> {
        let (reply, answer) = oneshot::channel();
        let order = Control::Seek { partition: self.partition, places: start.places.clone(), reply };
        self.control.send(order).map_err(|_| "the consumer has ended".to_owned())?;
        tokio::select! {
            () = self.stop.cancelled() => Err("given back".to_owned()),
            answer = answer => answer.map_err(|_| "the consumer has ended".to_owned())?,
        }
    }

    async fn live(&self, start: Start, feed: Feed) -> Ended {
        self.shared.meters.live.inc();
        // Ends this owner's publisher with it, whatever it ends of.
        let owner = CancellationToken::new();
        let _ends_publisher = owner.clone().drop_guard();
        let prepared = match self.prepare(&start, &owner).await {
            Ok(prepared) => prepared,
            Err(ended) => return ended,
        };
        let processor = Processor::new(Arc::clone(&self.shared), prepared, feed, self.stop.clone());
        match tokio::spawn(processor.run()).await {
            Ok(ended) => ended,
            Err(panic) => Ended::Stopped(format!("it panicked: {panic}")),
        }
    }

    /// Reads what the last owner left and compares the own topics with it, waiting out what is down.
    async fn prepare(&self, start: &Start, owner: &CancellationToken) -> Result<Prepared, Ended> {
        loop {
            let error = match self.try_prepare(start, owner).await {
                Ok(Found::Ready(prepared)) => return Ok(*prepared),
                Ok(Found::Differs(reason)) => {
                    let hint = self.shared.rebuild_hint();
                    return Err(Ended::Stopped(format!("{reason}; run `{hint}`")));
                }
                Err(error) => error,
            };
            let reason = format!("waits to compare the log with the database: {error:#}");
            debug!(kafka.partition = self.partition, reason);
            self.shared.status.set(self.partition, State::Waiting, Some(reason));
            let of_database = error.chain().any(|cause| cause.is::<sqlx::Error>());
            let breakers = &self.shared.breakers;
            let breaker = if of_database { &breakers.postgres } else { &breakers.kafka };
            if self.ended_before(breaker, &format!("{error:#}")).await {
                return Err(Ended::Revoked);
            }
        }
    }

    async fn try_prepare(&self, start: &Start, owner: &CancellationToken) -> anyhow::Result<Found> {
        let left = self.read_left().await?;
        failpoint::reach("E2").await?;
        let (kafka, topics) = (Arc::clone(&self.shared.kafka), self.shared.outputs.clone());
        let (partition, states) = (self.partition, left.outputs);
        let places = start.places.clone();
        let compare = move || -> anyhow::Result<Comparison> {
            if let Some(reason) = own_log::misplaced(&kafka, partition, &places)? {
                return Ok(Comparison::Differs(reason));
            }
            own_log::compare(&kafka, partition, &topics, states)
        };
        let comparison = tokio::task::spawn_blocking(compare).await.context("comparing log and database")??;
        let ends = match comparison {
            Comparison::Fits(ends) => ends,
            Comparison::Differs(reason) => return Ok(Found::Differs(reason)),
        };
        let acked_batch = left.rows.first().map_or(start.owned.batch, |row| row.batch - 1);
        let sequences = left.outputs.map(|state| state.sequence);
        let publisher = Publisher::start(
            Arc::clone(&self.shared.kafka),
            self.shared.kafka.publisher_config(),
            self.partition,
            self.shared.outputs.clone(),
            outbox::Left { ends, rows: left.rows, acked_batch },
            self.shared.breakers.kafka.clone(),
            owner.clone(),
        );
        Ok(Found::Ready(Box::new(Prepared {
            owned: start.owned,
            places: start.places.clone(),
            publisher,
            stale: effects::stale(&left.effects, &left.tries),
            effects: Effects::restored(left.effects, &left.tries, &left.dead),
            held: Queues::new(Arc::clone(&self.shared.settings.retry_delays), left.held),
            timers: Timers::new(left.now, self.shared.settings.timer_grace, left.next_timer),
            clock: Clock::new(left.now),
            sequences,
            acked: left.outputs,
            model: left.model,
        })))
    }

    async fn read_left(&self) -> anyhow::Result<Left> {
        let (shared, partition) = (Arc::clone(&self.shared), self.partition);
        let task = tokio::spawn(async move {
            let mut conn = shared.pool.acquire().await?;
            let states = store::outputs(&mut conn, partition).await?;
            let outputs = shared.outputs.each_ref().map(|topic| states.get(topic).copied().unwrap_or_default());
            let mut rows = Vec::new();
            for (batch, bytes) in store::outbox(&mut conn, partition).await? {
                let records = unpack(&bytes).context("an outbox row of another build")?;
                rows.push(Row { batch, records: Arc::new(records) });
            }
            let model = match shared.description.read_model {
                Some(topic) => store::read_model_sequence(&mut conn, topic, partition).await?,
                None => 0,
            };
            let kind = |topic: usize, name: &str| shared.service.kind(shared.description.inputs[topic].name, name);
            let held = held_store::entries(&mut conn, partition, &shared.inputs, kind).await?;
            let resting: Vec<i64> = held.iter().map(|(key, _)| *key).collect();
            Ok(Left {
                outputs,
                rows,
                effects: shared.service.effects_due(&mut conn, partition).await?,
                tries: store::tries(&mut conn, partition).await?,
                dead: held_store::dead_effects(&mut conn, partition).await?,
                next_timer: shared.service.next_timer(&mut conn, partition, &resting).await?,
                held,
                model: Place { next_offset: 0, last_sequence: model },
                now: store::now(&mut conn).await?,
            })
        });
        task.await.expect("reading does not panic")
    }
}

/// What the last owner left in the database.
struct Left {
    outputs: [OutputState; 3],
    rows: Vec<Row>,
    effects: Vec<EffectMark>,
    held: Vec<(i64, Entry)>,
    tries: Vec<StoredTry>,
    dead: Vec<DeadRow>,
    next_timer: Option<Timestamp>,
    model: Place,
    now: Timestamp,
}

enum Found {
    Ready(Box<Prepared>),
    Differs(String),
}
