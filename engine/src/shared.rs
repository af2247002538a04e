//! What all processors of a process share.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use events::codec::Codec;
use sqlx::PgPool;
use tokio::sync::{Notify, Semaphore};

use crate::acts::Waiting;
use crate::breaker::Breaker;
use crate::intake::Place;
use crate::item::Item;
use crate::kafka::Kafka;
use crate::lease::IdIssuer;
use crate::meters::Meters;
use crate::own_log;
use crate::record::Output;
use crate::refusals::Refusals;
use crate::registry::Registry;
use crate::service::{Description, Homes, Service};
use crate::status::Status;
use crate::store;
use crate::timers::Ends;
use crate::turns::{Connections, Turns};
use crate::wait::Acked;

/// Effects of one process that are under way at once.
pub(crate) const EFFECTS_IN_FLIGHT_MAX: usize = 64;

/// Settings of an engine that are not Kafka's.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Names this process in owner columns, logs and dead letters.
    pub instance: String,
    /// A timer overdue by more than this rests that long after an assignment.
    pub timer_grace: Duration,
    /// A held record is tried again after these, one after the other; then it is dead.
    pub retry_delays: Arc<[Duration]>,
    /// An effect whose other side errs is tried again within these, one after the other; then it is a dead letter.
    pub effect_delays: Arc<[Duration]>,
    /// Most inputs of one batch.
    pub batch_max: usize,
    /// Transactions of this process that run at once.
    pub transactions_at_once: usize,
}

impl Settings {
    /// The normal settings for a process of this name.
    #[must_use]
    pub fn new(instance: impl Into<String>) -> Self {
        // Postgres, Kafka and the other services want the rest of the cores.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            instance: instance.into(),
            timer_grace: Duration::from_secs(60),
            retry_delays: [5, 30, 120, 600].map(Duration::from_secs).into(),
            effect_delays: [1, 2, 4, 8, 16, 32, 64].map(Duration::from_secs).into(),
            batch_max: 500,
            transactions_at_once: cores.div_ceil(4),
        }
    }
}

/// The breakers of the servers that an engine works with.
#[derive(Debug, Clone)]
pub struct Servers {
    /// The service's database.
    pub postgres: Breaker,
    /// The log.
    pub kafka: Breaker,
    /// The schema registry, which is asked only about unknown schemas.
    pub registry: Breaker,
}

impl Default for Servers {
    /// Unwatched ones: nothing opens.
    fn default() -> Self {
        Self {
            postgres: Breaker::new("postgres", "Postgres", true),
            kafka: Breaker::new("kafka", "Kafka", true),
            registry: Breaker::new("registry", "the schema registry", false),
        }
    }
}

/// Everything the processors of a service need, once.
#[derive(Debug)]
pub(crate) struct Shared<S: Service> {
    pub(crate) service: Arc<S>,
    pub(crate) description: Description,
    pub(crate) kafka: Arc<Kafka>,
    pub(crate) pool: PgPool,
    pub(crate) codec: Arc<Codec>,
    pub(crate) registry: Registry,
    pub(crate) breakers: Servers,
    pub(crate) ids: IdIssuer,
    pub(crate) instance: String,
    pub(crate) settings: Settings,
    /// Input topics as on the broker, in the order of the description.
    pub(crate) inputs: Vec<String>,
    /// Own topics as on the broker, in the order of [`Output::ALL`].
    pub(crate) outputs: [String; 3],
    pub(crate) acked: Acked,
    pub(crate) status: Status,
    pub(crate) meters: Meters,
    pub(crate) effects: Arc<Semaphore>,
    pub(crate) connections: Connections,
    pub(crate) turns: Turns<S::Input>,
    pub(crate) refusals: Refusals,
    pub(crate) resume: Resume,
    /// Acts of operators.
    pub(crate) acts: Waiting,
}

/// Stopped processors that an operator wants to go on.
#[derive(Debug, Default)]
pub(crate) struct Resume {
    wanted: Mutex<HashSet<i32>>,
    changed: Notify,
}

impl Resume {
    pub(crate) fn want(&self, partition: i32) {
        self.wanted.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(partition);
        self.changed.notify_waiters();
    }

    pub(crate) fn take(&self, partition: i32) -> bool {
        self.wanted.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&partition)
    }
}

impl<S: Service> Shared<S> {
    /// Names of the own topics on the broker.
    pub(crate) fn output_topics(kafka: &Kafka, description: &Description) -> [String; 3] {
        Output::ALL.map(|output| store::output_topic(kafka, description, output))
    }

    /// The command that recovers this service.
    pub(crate) fn rebuild_hint(&self) -> String {
        format!("cargo orderctl rebuild {}", self.description.name)
    }

    /// Forgets what an operator wished of a processor.
    pub(crate) fn forget_resume(&self, partition: i32) {
        self.resume.take(partition);
    }

    /// Waits until an operator resumes a stopped processor.
    pub(crate) async fn resumed(&self, partition: i32) {
        loop {
            let changed = self.resume.changed.notified();
            if self.resume.take(partition) {
                return;
            }
            changed.await;
        }
    }

    /// The ends of a processor's input partitions, with a moment before they were asked for.
    pub(crate) async fn input_ends(&self, partition: i32) -> anyhow::Result<Ends> {
        let mut conn = self.pool.acquire().await?;
        let at = store::now(&mut conn).await?;
        drop(conn);
        let kafka = Arc::clone(&self.kafka);
        let places: Vec<_> = self.inputs.iter().map(|topic| (topic.clone(), partition)).collect();
        let ask = move || -> anyhow::Result<HashMap<String, i64>> {
            let marks = own_log::watermarks(&kafka, &places)?;
            // Where nothing is left, nothing is to be read.
            let ends = marks.into_iter().map(|(low, high)| if low == high { 0 } else { high });
            Ok(places.into_iter().map(|(topic, _)| topic).zip(ends).collect())
        };
        let ends = tokio::task::spawn_blocking(ask).await.context("asking for ends")??;
        Ok(Ends { at, ends })
    }

    /// True when this input topic feeds the read model.
    pub(crate) fn is_read_model(&self, topic: usize) -> bool {
        self.description.read_model == Some(self.description.inputs[topic].name)
    }

    /// Where keys are.
    pub(crate) fn homes(&self) -> Homes {
        Homes { partitions: self.kafka.partitions }
    }

    /// Where the processor stands once these items are taken, per input topic that moves.
    pub(crate) fn places<I>(&self, items: &[Item<I>]) -> Vec<(String, Place)> {
        let mut last: Vec<Option<Place>> = vec![None; self.inputs.len()];
        for (topic, place) in items.iter().filter_map(|item| item.place) {
            last[topic] = Some(place);
        }
        let moved = |(topic, place): (&String, Option<Place>)| place.map(|place| (topic.clone(), place));
        self.inputs.iter().zip(last).filter_map(moved).collect()
    }
}
