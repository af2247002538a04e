//! The consumer of a process: one thread that polls, routes records to processors, and answers rebalances.
//!
//! Classic protocol, `range`, eager: everything is taken away, then given. Positions come from Postgres, so Kafka's own
//! are never read back. The thread never waits for a processor (PITFALLS P1.1, P1.2).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::statistics::Broker;
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};
use rdkafka::{Offset, Statistics, TopicPartitionList};
use tokio::runtime::Handle;
use tracing::{debug, error, info, warn};

use crate::assignment::{self, Assigned, Start};
use crate::failpoint;
use crate::feed::{Control, ControlSender, Feed, Pipe};
use crate::intake::Place;
use crate::record::Record;
use crate::service::Service;
use crate::shared::Shared;

const POLL: Duration = Duration::from_millis(50);
const SEEK_TIMEOUT: Duration = Duration::from_secs(5);
/// A member hears of a broker at least every second: an answer to a fetch or to a heartbeat.
const SILENT_MICROS_MAX: i64 = 4_000_000;
/// Positions go to Kafka at most this often, those of all processors together.
const COMMIT_EVERY: Duration = Duration::from_secs(1);

pub(crate) type Group<S> = BaseConsumer<GroupContext<S>>;

/// What librdkafka calls back.
pub(crate) struct GroupContext<S: Service> {
    shared: Arc<Shared<S>>,
    /// Of the input topics, for all records to share.
    names: Vec<Arc<str>>,
    runtime: Handle,
    control: ControlSender,
    routes: Mutex<Routes>,
}

/// Only the consumer's own thread locks it.
#[derive(Default)]
struct Routes {
    /// Where records of a partition number go.
    pipes: HashMap<i32, Pipe>,
    assigned: Option<Assigned>,
    /// Given by the group, but not begun because Postgres was away.
    pending: Vec<i32>,
    /// What is wrong with what the group gave.
    halves: Option<String>,
    paused: BTreeSet<i32>,
    /// Not told to Kafka yet.
    positions: HashMap<i32, HashMap<String, Place>>,
    told: Option<Instant>,
}

impl<S: Service> GroupContext<S> {
    pub(crate) fn new(shared: Arc<Shared<S>>, runtime: Handle, control: ControlSender) -> Self {
        let names = shared.inputs.iter().map(|name| name.as_str().into()).collect();
        Self { shared, names, runtime, control, routes: Mutex::new(Routes::default()) }
    }

    fn routes(&self) -> MutexGuard<'_, Routes> {
        self.routes.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Processors of which all input partitions are given; the rest is left out (DESIGN §2).
    fn complete(&self, given: &TopicPartitionList) -> (Vec<i32>, Option<String>) {
        let mut topics: BTreeMap<i32, BTreeSet<String>> = BTreeMap::new();
        for element in given.elements() {
            topics.entry(element.partition()).or_default().insert(element.topic().to_owned());
        }
        let whole = |given: &BTreeSet<String>| self.shared.inputs.iter().all(|topic| given.contains(topic));
        let halves: Vec<i32> = topics.iter().filter(|(_, given)| !whole(given)).map(|(number, _)| *number).collect();
        let trouble = (!halves.is_empty()).then(|| {
            format!(
                "the group gave only some of the input partitions of processors {halves:?}; none of them is taken: \
                 another member subscribes to other topics (two versions side by side?)"
            )
        });
        let complete = topics.iter().filter(|(_, given)| whole(given)).map(|(number, _)| *number).collect();
        (complete, trouble)
    }

    /// Becomes the owner of these processors and reads their positions. Blocks the thread for seconds at most.
    fn begin(&self, consumer: &Group<S>, partitions: &[i32]) {
        let begun = self.runtime.block_on(assignment::begin(&self.shared, partitions));
        let list = begun
            .as_ref()
            .map_or_else(|_| TopicPartitionList::new(), |starts| assignment_list(&self.shared.inputs, starts));
        if let Err(error) = consumer.assign(&list) {
            error!(%error, "librdkafka refuses the assignment");
        }
        // A pause may outlive its assignment (PITFALLS P1.7).
        if let Err(error) = consumer.resume(&list) {
            warn!(%error, "resuming failed");
        }
        let mut routes = self.routes();
        match begun {
            Ok(starts) => {
                routes.pending.clear();
                self.shared.status.trouble(routes.halves.clone());
                let mut feeds = Vec::new();
                for start in starts {
                    let partition = start.owned.partition;
                    let (pipe, feed) = Feed::new(partition, self.control.clone());
                    routes.pipes.insert(partition, pipe);
                    feeds.push((start, feed));
                }
                let assigned = Assigned::spawn(&self.runtime, &self.shared, &self.control, feeds);
                routes.assigned = Some(assigned);
            }
            Err(error) => {
                warn!(%error, "the assignment waits for the database");
                self.shared.status.trouble(Some(format!("the assignment waits for the database: {error}")));
                routes.pending = partitions.to_vec();
                drop(routes);
                self.shared.breakers.postgres.failed(error);
            }
        }
    }

    fn take(&self, consumer: &Group<S>, given: &TopicPartitionList) {
        let (complete, halves) = self.complete(given);
        info!(processors = ?complete, "assigned");
        self.shared.status.assigned(&complete, halves.clone());
        self.routes().halves = halves;
        if complete.is_empty() {
            if let Err(error) = consumer.assign(&TopicPartitionList::new()) {
                error!(%error, "librdkafka refuses an empty assignment");
            }
            return;
        }
        self.begin(consumer, &complete);
    }

    /// Ends all processors; open batches finish, what is not acknowledged stays in the outbox.
    fn give_back(&self) {
        let assigned = {
            let mut routes = self.routes();
            let assigned = routes.assigned.take();
            *routes = Routes::default();
            assigned
        };
        if let Some(assigned) = assigned {
            self.runtime.block_on(assigned.end());
        }
        self.shared.status.revoked();
    }

    fn retry(&self, consumer: &Group<S>) {
        let pending = self.routes().pending.clone();
        if !pending.is_empty() && self.shared.breakers.postgres.is_settled() {
            self.begin(consumer, &pending);
        }
    }

    fn route(&self, consumer: &Group<S>, record: Record) {
        let partition = record.partition;
        let mut routes = self.routes();
        let Some(pipe) = routes.pipes.get(&partition) else {
            return;
        };
        pipe.push(record);
        if pipe.level.is_high() && routes.paused.insert(partition) {
            pause(consumer, &self.shared.inputs, partition);
        }
    }

    fn resume(&self, consumer: &Group<S>) {
        let mut routes = self.routes();
        let Routes { pipes, paused, .. } = &mut *routes;
        paused.retain(|partition| {
            let low = pipes.get(partition).is_none_or(|pipe| pipe.level.is_low());
            if low {
                let list = partitions(&self.shared.inputs, *partition);
                if let Err(error) = consumer.resume(&list) {
                    warn!(%error, kafka.partition = *partition, "resuming failed");
                }
            }
            !low
        });
    }

    fn obey(&self, consumer: &Group<S>, control: Control) {
        match control {
            Control::Leave => {}
            Control::Positions { partition, places } => {
                let mut routes = self.routes();
                if routes.pipes.contains_key(&partition) {
                    routes.positions.insert(partition, places);
                }
            }
            Control::Seek { partition, places, reply } => {
                let sought = self.seek(consumer, partition, &places);
                // A supervisor that was ended meanwhile does not wait for the reply.
                drop(reply.send(sought));
            }
        }
    }

    /// Tells Kafka how far the processors got, for lag tools.
    fn tell(&self, consumer: &Group<S>) {
        let positions = {
            let mut routes = self.routes();
            let waits = routes.told.is_some_and(|told| told.elapsed() < COMMIT_EVERY);
            if waits || routes.positions.is_empty() {
                return;
            }
            routes.told = Some(Instant::now());
            std::mem::take(&mut routes.positions)
        };
        if let Err(error) = consumer.commit(&offsets(&positions), CommitMode::Async) {
            debug!(%error, "positions for lag tools were not taken");
        }
    }

    /// Pause first, then seek: a seek before a pause was lost (PITFALLS P1.7).
    fn seek(&self, consumer: &Group<S>, partition: i32, places: &HashMap<String, Place>) -> Result<Feed, String> {
        if !self.routes().pipes.contains_key(&partition) {
            return Err("it is no longer assigned here".to_owned());
        }
        pause(consumer, &self.shared.inputs, partition);
        let mut list = TopicPartitionList::new();
        for topic in &self.shared.inputs {
            let offset = places.get(topic).map_or(Offset::Beginning, |place| Offset::Offset(place.next_offset));
            list.add_partition_offset(topic, partition, offset).map_err(|error| error.to_string())?;
        }
        let sought = consumer.seek_partitions(list, SEEK_TIMEOUT).map_err(|error| error.to_string())?;
        if let Some(element) = sought.elements().iter().find(|element| element.error().is_err()) {
            return Err(format!("seeking {}: {:?}", element.topic(), element.error()));
        }
        let (pipe, feed) = Feed::new(partition, self.control.clone());
        let mut routes = self.routes();
        routes.pipes.insert(partition, pipe);
        routes.paused.remove(&partition);
        drop(routes);
        consumer.resume(&partitions(&self.shared.inputs, partition)).map_err(|error| error.to_string())?;
        Ok(feed)
    }
}

impl<S: Service> ClientContext for GroupContext<S> {
    fn stats(&self, statistics: Statistics) {
        let hears = |broker: &Broker| broker.state == "UP" && (0..SILENT_MICROS_MAX).contains(&broker.rxidle);
        if !statistics.brokers.values().any(hears) {
            self.shared.breakers.kafka.failed("no broker has sent anything for some seconds");
        }
        let mut ends: HashMap<i32, HashMap<&str, i64>> = HashMap::new();
        for (topic, of_topic) in &statistics.topics {
            for (partition, of_partition) in &of_topic.partitions {
                if *partition >= 0 && of_partition.hi_offset >= 0 {
                    ends.entry(*partition).or_default().insert(topic, of_partition.hi_offset);
                }
            }
        }
        for (partition, ends) in ends {
            self.shared.status.update(partition, |status| {
                let behind =
                    |(topic, end): (&&str, &i64)| (end - status.positions.get(*topic).copied().unwrap_or(0)).max(0);
                status.lag = ends.iter().map(behind).sum();
            });
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // librdkafka goes on by itself.
        debug!(%error, reason, "consumer");
        if let Some(RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::BrokerTransportFailure) =
            error.rdkafka_error_code()
        {
            self.shared.breakers.kafka.failed(reason);
        }
    }
}

impl<S: Service> ConsumerContext for GroupContext<S> {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, what: RDKafkaRespErr, list: &mut TopicPartitionList) {
        match what {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.take(consumer, list),
            _ => {
                info!("everything is given back");
                if let Err(error) = failpoint::pass("C7") {
                    warn!(%error, "giving back");
                }
                self.give_back();
                if let Err(error) = consumer.unassign() {
                    error!(%error, "librdkafka refuses to give back");
                }
            }
        }
    }
}

/// Polls until told to leave. Returns why the thread ended when nobody asked it to.
pub(crate) fn poll<S: Service>(
    consumer: &Group<S>,
    control: &Receiver<Control>,
    beat: impl Fn(),
) -> Result<(), String> {
    let context = Arc::clone(consumer.context());
    loop {
        beat();
        while let Ok(order) = control.try_recv() {
            if matches!(order, Control::Leave) {
                consumer.unsubscribe();
                context.give_back();
                return Ok(());
            }
            context.obey(consumer, order);
        }
        context.retry(consumer);
        context.tell(consumer);
        match consumer.poll(POLL) {
            None => {}
            Some(Ok(message)) => {
                let record = Record::copy(&message, &context.names);
                context.route(consumer, record);
            }
            Some(Err(error)) => report(consumer, &context, &error)?,
        }
        context.resume(consumer);
    }
}

fn report<S: Service>(consumer: &Group<S>, context: &GroupContext<S>, error: &KafkaError) -> Result<(), String> {
    if let Some((code, reason)) = consumer.client().fatal_error() {
        return Err(format!("the consumer cannot go on: {code}: {reason}"));
    }
    let code = error.rdkafka_error_code();
    if matches!(code, Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)) {
        let reason = format!("an input partition does not reach to the stored position any more: {error}");
        error!(reason);
        context.shared.status.trouble(Some(reason));
    } else {
        warn!(%error, "reading from Kafka failed; librdkafka tries again");
    }
    Ok(())
}

fn pause<S: Service>(consumer: &Group<S>, inputs: &[String], partition: i32) {
    if let Err(error) = consumer.pause(&partitions(inputs, partition)) {
        warn!(%error, kafka.partition = partition, "pausing failed");
    }
}

fn partitions(inputs: &[String], partition: i32) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for topic in inputs {
        list.add_partition(topic, partition);
    }
    list
}

fn offsets(positions: &HashMap<i32, HashMap<String, Place>>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (partition, places) in positions {
        for (topic, place) in places {
            if let Err(error) = list.add_partition_offset(topic, *partition, Offset::Offset(place.next_offset)) {
                debug!(%error, "an offset that Kafka cannot hold");
            }
        }
    }
    list
}

fn assignment_list(inputs: &[String], starts: &[Start]) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for start in starts {
        for topic in inputs {
            let place = start.places.get(topic);
            let offset = place.map_or(Offset::Beginning, |place| Offset::Offset(place.next_offset));
            list.add_partition_offset(topic, start.owned.partition, offset).expect("a position is a valid offset");
        }
    }
    list
}
