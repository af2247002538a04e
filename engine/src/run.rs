//! The engine of a process: starts the consumer, and is the handle by which the rest of a service sees and stops it.
//!
//! Migrations, the pool, schema IDs and the lease are the caller's (`host`), in the order in which a process starts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use events::codec::Codec;
use rdkafka::consumer::Consumer;
use sqlx::PgPool;
use tokio::sync::{Semaphore, watch};
use tracing::{error, info};

use crate::acts::{self, Waiting};
use crate::consumer::{self, Group, GroupContext};
use crate::feed::{Control, ControlSender};
use crate::kafka::Kafka;
use crate::lease::IdIssuer;
use crate::meters::Meters;
use crate::model;
use crate::pool;
use crate::rebuild;
use crate::refusals::Refusals;
use crate::registry::Registry;
use crate::service::Service;
use crate::shared::{EFFECTS_IN_FLIGHT_MAX, Resume, Servers, Settings, Shared};
use crate::status::{Readiness, Status};
use crate::turns::{self, Connections, Turns};
use crate::wait::Acked;

/// The consumer's thread must come round in this time, rebalances included; otherwise the process ends (PITFALLS P1.1).
const THREAD_SILENT_MAX: Duration = Duration::from_secs(45);
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// What an engine is made of.
#[derive(Debug)]
pub struct Parts<S> {
    /// The service.
    pub service: Arc<S>,
    /// Where Kafka is.
    pub kafka: Arc<Kafka>,
    /// For the processors alone; HTTP has a pool of its own.
    pub pool: PgPool,
    /// With the registry's IDs.
    pub codec: Arc<Codec>,
    /// Asked about unknown schemas.
    pub registry: Registry,
    /// Told of what is away.
    pub breakers: Servers,
    /// Issues event IDs.
    pub ids: IdIssuer,
    /// Shared with those who wait for commands.
    pub acked: Acked,
    /// Where the metrics are registered.
    pub meters: Meters,
    /// Everything else.
    pub settings: Settings,
}

/// A running engine.
#[derive(Debug)]
pub struct Engine {
    name: &'static str,
    status: Status,
    control: ControlSender,
    resume: Arc<dyn Resumer>,
    ended: watch::Receiver<Option<Result<(), String>>>,
}

trait Resumer: Send + Sync {
    fn resume(&self, partition: i32);
}

impl std::fmt::Debug for dyn Resumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Resumer")
    }
}

impl<S: Service> Resumer for Shared<S> {
    fn resume(&self, partition: i32) {
        self.resume.want(partition);
    }
}

impl Engine {
    /// Folds the read model to its topic's end at a first start, then joins the group and starts working.
    ///
    /// # Errors
    /// When a rebuild was not finished, the read model cannot be folded, or the consumer cannot be made.
    pub async fn start<S: Service>(parts: Parts<S>) -> anyhow::Result<Self> {
        let description = parts.service.describe();
        let (turns, asked) = Turns::new();
        let shared = Arc::new(Shared {
            inputs: description.inputs.iter().map(|input| parts.kafka.topic(input.name)).collect(),
            outputs: Shared::<S>::output_topics(&parts.kafka, &description),
            description,
            instance: parts.settings.instance.clone(),
            service: parts.service,
            kafka: parts.kafka,
            connections: Connections::new(parts.pool.clone()),
            turns,
            pool: parts.pool,
            codec: parts.codec,
            registry: parts.registry,
            breakers: parts.breakers,
            ids: parts.ids,
            settings: parts.settings,
            acked: parts.acked,
            status: Status::default(),
            meters: parts.meters,
            effects: Arc::new(Semaphore::new(EFFECTS_IN_FLIGHT_MAX)),
            refusals: Refusals::default(),
            resume: Resume::default(),
            acts: Waiting::default(),
        });
        turns::serve(&shared, &asked, shared.settings.transactions_at_once);
        pool::waited_out(&shared.breakers.postgres, |_| {}, async || look(&shared).await).await?;
        tokio::spawn(acts::look(Arc::downgrade(&shared)));
        let status = shared.status.clone();
        let resume: Arc<dyn Resumer> = Arc::clone(&shared) as _;
        let (control, ended) = join(shared)?;
        Ok(Self { name: description.name, status, control, resume, ended })
    }

    /// What `/readyz` says of the processors.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        self.status.readiness(self.name)
    }

    /// Lets a stopped processor try again, after its cause is mended.
    pub fn resume(&self, partition: i32) {
        self.resume.resume(partition);
    }

    /// Finishes open batches, leaves the group, and waits for the consumer's thread.
    ///
    /// # Errors
    /// The reason, when the thread had ended by itself.
    pub async fn stop(self) -> Result<(), String> {
        if self.control.send(Control::Leave).is_err() {
            info!("the consumer's thread has ended already");
        }
        self.ended().await
    }

    /// Waits until the consumer's thread ends; when nobody asked it to, the process should end and be started anew.
    pub fn ended(&self) -> impl Future<Output = Result<(), String>> + Send + use<> {
        let mut ended = self.ended.clone();
        async move {
            match ended.wait_for(Option::is_some).await {
                Ok(result) => result.clone().unwrap_or(Ok(())),
                Err(_) => Err("the consumer's thread panicked".to_owned()),
            }
        }
    }
}

/// What must be right before anything begins.
async fn look<S: Service>(shared: &Arc<Shared<S>>) -> anyhow::Result<()> {
    let mut conn = shared.pool.acquire().await.context("connecting to Postgres")?;
    rebuild::check_finished(&mut conn, shared.description.name).await?;
    drop(conn);
    model::first_start(shared).await.context("folding the read model")
}

/// The control of a consumer thread, and how it ended.
type Thread = (ControlSender, watch::Receiver<Option<Result<(), String>>>);

fn join<S: Service>(shared: Arc<Shared<S>>) -> anyhow::Result<Thread> {
    let runtime = tokio::runtime::Handle::current();
    let (control, orders) = std::sync::mpsc::channel();
    let mut config = shared.kafka.consumer_config(shared.description.name);
    config.set("client.id", &shared.instance);
    let context = GroupContext::new(Arc::clone(&shared), runtime.clone(), control.clone());
    let group: Group<S> = config.create_with_context(context).context("making the consumer")?;
    let topics: Vec<&str> = shared.inputs.iter().map(String::as_str).collect();
    group.subscribe(&topics).context("subscribing")?;
    let (end, ended) = watch::channel(None);
    let beats = Arc::new(AtomicU64::new(0));
    let beat = Arc::clone(&beats);
    std::thread::Builder::new()
        .name("consumer".to_owned())
        .spawn(move || {
            let result = consumer::poll(&group, &orders, || {
                beat.fetch_add(1, Ordering::Relaxed);
            });
            // Closing can block for the session time-out when Kafka is away: here, not on the runtime.
            drop(group);
            end.send_replace(Some(result));
        })
        .context("starting the consumer's thread")?;
    runtime.spawn(watch(beats));
    Ok((control, ended))
}

/// A thread that does not come round holds partitions that nobody else can take: end the process.
async fn watch(beats: Arc<AtomicU64>) {
    let mut last = (beats.load(Ordering::Relaxed), Instant::now());
    // The counter's other owner is the thread; once that has ended there is nothing to watch.
    while Arc::strong_count(&beats) > 1 {
        tokio::time::sleep(WATCH_EVERY).await;
        let beat = beats.load(Ordering::Relaxed);
        if beat != last.0 {
            last = (beat, Instant::now());
        } else if last.1.elapsed() > THREAD_SILENT_MAX && Arc::strong_count(&beats) > 1 {
            error!(seconds = THREAD_SILENT_MAX.as_secs(), "the consumer's thread hangs; the process ends");
            std::process::exit(1);
        }
    }
}
