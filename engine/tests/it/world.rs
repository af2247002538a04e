//! A database, topics and a log for one test of the toy service, and the check that ends every such test.
//!
//! Instances run in this process; [`crate::child`] runs them in another one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use engine::append::{Appender, NewRecord};
use engine::fold::Fold;
use engine::kafka::Kafka;
use engine::lease::IdIssuer;
use engine::own_log::{self, Reader};
use engine::pool::{self, Plans, PoolOptions};
use engine::rebuild::{self, Report};
use engine::record::Record;
use engine::registry::Registry;
use engine::wait::Acked;
use engine::{Engine, Meters, Parts, Servers, Settings, migrate, topics, verify};
use events::codec::Codec;
use events::envelope::{self, Envelope, Headers};
use events::partition::partition_of;
use events::time::Timestamp;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use sqlx::PgPool;

use crate::outside::Outside;
use crate::support::{Database, PARTITIONS, eventually, kafka_with};
use crate::toy::{Act, Ask, COMMAND, COMMANDS, EVENTS, FOREIGN, MIGRATIONS, NAME, NEWS, Toy};

/// What is expected happens within this time, rebalances on a busy machine included.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Where a record was put.
pub(crate) type Offset = i64;

pub(crate) struct World {
    pub(crate) kafka: Arc<Kafka>,
    pub(crate) database: Database,
    pub(crate) pool: PgPool,
    pub(crate) outside: Arc<Outside>,
    /// Instances fold the foreign topic into a read model.
    pub(crate) with_model: bool,
    /// Asked about unknown schemas.
    pub(crate) registry: String,
    appender: Appender,
    producer: FutureProducer,
    sequences: Mutex<BTreeMap<i32, i64>>,
    ids: AtomicI64,
}

/// A running engine.
pub(crate) struct Instance {
    pub(crate) engine: Engine,
}

/// How an instance differs from the usual one.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    pub(crate) kafka: Arc<Kafka>,
    pub(crate) url: String,
    pub(crate) settings: Settings,
    /// Of its pool.
    pub(crate) connections: u32,
    pub(crate) breakers: Servers,
}

/// A key of this partition, the n-th.
pub(crate) fn key_of(partition: i32, n: usize) -> i64 {
    (1..).filter(|key: &i64| home(*key) == partition).nth(n).unwrap()
}

pub(crate) fn home(key: i64) -> i32 {
    partition_of(key.to_string().as_bytes(), PARTITIONS)
}

/// Headers of a record, as its writer would make them.
fn headers(type_name: &str, source: &str, id: i64, key: i64, sequence: Option<i64>) -> Headers {
    let (subject, time) = (key.to_string(), Timestamp(1_767_225_600_000));
    let envelope = Envelope {
        id,
        type_name,
        source,
        subject: &subject,
        time,
        sequence,
        correlation: None,
        causation: None,
        cause: None,
        traceparent: None,
        avro: false,
    };
    envelope.headers()
}

impl World {
    pub(crate) async fn new() -> Self {
        let kafka = kafka_with(&topics::all(&[COMMANDS], &[FOREIGN, EVENTS], &[NAME])).await;
        let database = Database::empty().await;
        let pool = database.pool(2).await;
        migrate::migrate(&pool, &MIGRATIONS).await.unwrap();
        let mut config = kafka.appender_config();
        // One partitioner or explicit partitions, never both in one producer.
        config.remove("partitioner");
        config.set("message.max.bytes", "5000000");
        Self {
            appender: Appender::new(Arc::clone(&kafka)).unwrap(),
            producer: config.create().unwrap(),
            outside: Arc::new(Outside::new(Arc::clone(&kafka))),
            with_model: false,
            registry: "http://127.0.0.1:9".to_owned(),
            sequences: Mutex::default(),
            ids: AtomicI64::new(1),
            kafka,
            database,
            pool,
        }
    }

    pub(crate) fn usual(&self) -> Launch {
        let settings = Settings {
            timer_grace: Duration::from_secs(1),
            retry_delays: [200, 500, 1_000, 2_000].map(Duration::from_millis).into(),
            ..Settings::new("here")
        };
        let breakers = Servers::default();
        Launch { kafka: Arc::clone(&self.kafka), url: self.database.url.clone(), settings, connections: 4, breakers }
    }

    pub(crate) async fn launch(&self, launch: Launch) -> anyhow::Result<Instance> {
        let toy = Toy { outside: Arc::clone(&self.outside), with_model: self.with_model };
        Instance::launch(toy, launch, &self.registry).await
    }

    /// A usual instance that owns everything.
    pub(crate) async fn start(&self) -> Instance {
        let instance = self.launch(self.usual()).await.unwrap();
        instance.live(PARTITIONS).await;
        instance
    }

    /// Appends a command; returns its ID.
    pub(crate) async fn command(&self, key: i64, act: Act) -> i64 {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        self.command_again(key, id, act).await;
        id
    }

    /// Appends a command of this ID.
    pub(crate) async fn command_again(&self, key: i64, id: i64, act: Act) {
        let ask = Ask { kind: COMMAND.to_owned(), key, id, act };
        let value = serde_json::to_vec(&ask).unwrap();
        let headers = headers(COMMAND, NAME, id, key, None);
        let record = NewRecord { topic: COMMANDS, key: key.to_string(), headers, value };
        self.appender.append(record).await.unwrap();
    }

    /// Appends the next foreign event of the key's partition; returns its sequence there.
    pub(crate) async fn news(&self, key: i64, act: Act) -> i64 {
        let sequence = self.next_news(key);
        self.news_again(key, sequence, act).await;
        sequence
    }

    /// Appends these bytes as the next foreign event of the key's partition; returns its sequence there.
    pub(crate) async fn news_bytes(&self, key: i64, bytes: &[u8]) -> i64 {
        let sequence = self.next_news(key);
        let headers = headers(NEWS, "other-svc", 1_000 + sequence, key, Some(sequence));
        self.raw(FOREIGN, home(key), Some(key.to_string().as_bytes()), Some(bytes), &headers).await;
        sequence
    }

    fn next_news(&self, key: i64) -> i64 {
        let mut sequences = self.sequences.lock().unwrap();
        let sequence = sequences.entry(home(key)).or_insert(0);
        *sequence += 1;
        *sequence
    }

    /// Appends a foreign event of this sequence.
    pub(crate) async fn news_again(&self, key: i64, sequence: i64, act: Act) -> Offset {
        let ask = Ask { kind: NEWS.to_owned(), key, id: sequence, act };
        let value = serde_json::to_vec(&ask).unwrap();
        let headers = headers(NEWS, "other-svc", 1_000 + sequence, key, Some(sequence));
        self.raw(FOREIGN, home(key), Some(key.to_string().as_bytes()), Some(&value), &headers).await
    }

    /// Appends any bytes.
    pub(crate) async fn raw(
        &self,
        topic: &str,
        partition: i32,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &Headers,
    ) -> Offset {
        let topic = self.kafka.topic(topic);
        let headers = headers
            .iter()
            .fold(OwnedHeaders::new(), |all, (name, value)| all.insert(Header { key: name, value: Some(value) }));
        let record = FutureRecord::<[u8], [u8]> {
            topic: &topic,
            partition: Some(partition),
            payload: value,
            key,
            timestamp: None,
            headers: Some(headers),
        };
        let delivery = self.producer.send(record, SOON).await.unwrap();
        assert!(delivery.offset >= 0);
        delivery.offset
    }

    /// What was applied to a key, in order.
    pub(crate) async fn history(&self, key: i64) -> Vec<String> {
        let row: Option<(Vec<String>,)> = sqlx::query_as("SELECT history FROM entries WHERE key = $1")
            .bind(key)
            .fetch_optional(&self.pool)
            .await
            .unwrap();
        row.map_or_else(Vec::new, |(history,)| history)
    }

    /// Waits until exactly this was applied to a key.
    pub(crate) async fn applied(&self, key: i64, expected: &[&str]) {
        eventually(SOON, async || {
            let history = self.history(key).await;
            if history == expected { Ok(()) } else { Err(format!("{history:?}, not {expected:?}")) }
        })
        .await;
    }

    /// Waits until this was applied to a key, among other things.
    pub(crate) async fn applied_somewhere(&self, key: i64, expected: &str) {
        eventually(SOON, async || {
            let history = self.history(key).await;
            if history.iter().any(|one| one == expected) { Ok(()) } else { Err(history) }
        })
        .await;
    }

    /// Waits until exactly this was applied to a key; records of different topics have no order.
    pub(crate) async fn applied_any_order(&self, key: i64, expected: &[String]) {
        let mut expected = expected.to_vec();
        expected.sort();
        eventually(SOON, async || {
            let mut history = self.history(key).await;
            history.sort();
            if history == expected { Ok(()) } else { Err(history) }
        })
        .await;
    }

    pub(crate) async fn count(&self, sql: &'static str) -> i64 {
        let (count,): (i64,) = sqlx::query_as(sql).fetch_one(&self.pool).await.unwrap();
        count
    }

    /// Every record of a topic, by partition, in order.
    pub(crate) async fn log(&self, topic: &str) -> Vec<Record> {
        let (kafka, topic) = (Arc::clone(&self.kafka), self.kafka.topic(topic));
        let read = move || {
            let mut records = Vec::new();
            for partition in 0..PARTITIONS {
                let place = (topic.clone(), partition);
                let (low, high) = own_log::watermarks(&kafka, std::slice::from_ref(&place)).unwrap()[0];
                let mut reader = Reader::open(&kafka, &[(place, low, high)]).unwrap();
                while let Some(record) = reader.next().unwrap() {
                    records.push(record);
                }
            }
            records
        };
        tokio::task::spawn_blocking(read).await.unwrap()
    }

    /// Waits until everything that was decided is in the log, and checks that it is there once, in order.
    pub(crate) async fn settled(&self) {
        for topic in [EVENTS.to_owned(), format!("{NAME}.retry"), format!("{NAME}.dlq")] {
            let decided: Vec<(i32, i64)> = sqlx::query_as("SELECT partition, sequence FROM outputs WHERE topic = $1")
                .bind(self.kafka.topic(&topic))
                .fetch_all(&self.pool)
                .await
                .unwrap();
            let decided: BTreeMap<i32, i64> = decided.into_iter().filter(|(_, sequence)| *sequence > 0).collect();
            eventually(SOON, async || {
                let mut last: BTreeMap<i32, (i64, Vec<u8>)> = BTreeMap::new();
                let mut ids: BTreeMap<(i32, i64), String> = BTreeMap::new();
                for record in self.log(&topic).await {
                    let sequence = envelope::sequence(&record.headers).expect("a processor wrote it");
                    let id = envelope::text(&record.headers, "ce_id").unwrap().to_owned();
                    let known = ids.entry((record.partition, sequence)).or_insert_with(|| id.clone());
                    assert_eq!(*known, id, "{topic}/{}: one sequence, two records", record.partition);
                    let last = last.entry(record.partition).or_default();
                    assert!(sequence <= last.0 + 1, "{topic}/{}: {sequence} follows {}", record.partition, last.0);
                    last.0 = last.0.max(sequence);
                }
                let reached: BTreeMap<i32, i64> =
                    last.into_iter().map(|(partition, last)| (partition, last.0)).collect();
                if reached == decided {
                    Ok(())
                } else {
                    Err(format!("{topic}: the log has {reached:?} of {decided:?}"))
                }
            })
            .await;
        }
    }

    /// Rebuilds the database behind a pool from the log.
    pub(crate) async fn rebuild(&self, pool: &PgPool, batch_max: usize) -> anyhow::Result<Report> {
        let service = Arc::new(Toy { with_model: self.with_model, ..Toy::default() });
        let codec = Arc::new(Codec::default());
        let fold = Fold { service: &service, kafka: &self.kafka, codec: &codec, pool, batch_max };
        rebuild::rebuild(&fold, Duration::from_millis(300), &|_| {}, &|_, _| {}).await
    }

    /// Folds the log beside the live projection.
    pub(crate) async fn verdict(&self) -> verify::Verdict {
        let mut conn = self.pool.acquire().await.unwrap().detach();
        sqlx::query("DROP SCHEMA IF EXISTS shadow CASCADE").execute(&mut conn).await.unwrap();
        migrate::make_projection(&mut conn, &MIGRATIONS, "shadow").await.unwrap();
        let options = PoolOptions { search_path: "shadow, engine".to_owned(), ..PoolOptions::new("shadow", 2) };
        let shadow = pool::connect(&self.database.url, options).await.unwrap();
        let service = Arc::new(Toy { with_model: self.with_model, ..Toy::default() });
        let codec = Arc::new(Codec::default());
        let fold = Fold { service: &service, kafka: &self.kafka, codec: &codec, pool: &shadow, batch_max: 100 };
        let verdict = verify::verify(&fold, &self.pool, &|_, _| {}).await.unwrap();
        shadow.close().await;
        verdict
    }

    /// The check that ends a test: the log has everything once and in order, and its fold is what is live.
    pub(crate) async fn finish(self) {
        self.settled().await;
        let verdict = self.verdict().await;
        assert!(verdict.equal, "{verdict:#?}");
        self.abandon().await;
    }

    /// Ends a test whose log cannot pass the check.
    pub(crate) async fn abandon(self) {
        let admin: AdminClient<DefaultClientContext> = self.kafka.reader_config().create().unwrap();
        let names = [COMMANDS, FOREIGN, EVENTS, "toy-svc.retry", "toy-svc.dlq"].map(|name| self.kafka.topic(name));
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        admin.delete_topics(&names, &AdminOptions::new()).await.unwrap();
    }
}

impl Instance {
    pub(crate) async fn launch(toy: Toy, launch: Launch, registry: &str) -> anyhow::Result<Self> {
        let options = PoolOptions {
            acquire_timeout: Duration::from_secs(1),
            plans: Plans::ByKey,
            breaker: launch.breakers.postgres.clone(),
            ..PoolOptions::new("toy", launch.connections)
        };
        let pool = pool::connect(&launch.url, options).await?;
        let parts = Parts {
            service: Arc::new(toy),
            kafka: launch.kafka,
            ids: IdIssuer::start(pool.clone(), 6, &launch.settings.instance).await?,
            pool,
            codec: Arc::new(Codec::default()),
            registry: Registry::new(registry)?,
            breakers: launch.breakers,
            acked: Acked::default(),
            meters: Meters::register(&mut prometheus_client::registry::Registry::default()),
            settings: launch.settings,
        };
        Ok(Self { engine: Engine::start(parts).await? })
    }

    /// Waits until it owns so many processors and all of them are live.
    pub(crate) async fn live(&self, processors: i32) {
        eventually(SOON, async || {
            let readiness = self.engine.readiness();
            let owned = i32::try_from(readiness.processors.len()).unwrap();
            if readiness.ready && owned == processors { Ok(()) } else { Err(readiness) }
        })
        .await;
    }

    /// Waits until readiness says this.
    pub(crate) async fn says(&self, part: &str) {
        eventually(SOON, async || {
            let readiness = self.engine.readiness();
            if readiness.reasons.iter().any(|reason| reason.contains(part)) { Ok(()) } else { Err(readiness) }
        })
        .await;
    }

    pub(crate) async fn stop(self) {
        self.engine.stop().await.unwrap();
    }
}
