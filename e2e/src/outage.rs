//! What the tests of outages share: a stack whose every link can be cut, a few orders a second, and what is seen of the
//! services meanwhile.
//!
//! What must hold is said in `tests/outages.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use sqlx::{Connection, PgConnection};
use testkit::Proxy;
use tokio::task::JoinHandle;

use crate::client::{Client, answer, order};
use crate::stack::{Options, SERVICES, Stack};

/// A dependency that can be cut off from all services at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// All four databases.
    Postgres,
    /// The broker.
    Kafka,
    /// The schema registry.
    Registry,
    /// payment-svc's.
    Gateway,
    /// notify-svc's mail server.
    Smtp,
}

/// How it is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Connections are reset, and so are new ones.
    Refused,
    /// Nothing passes, and nobody is told.
    Silent,
}

impl Cut {
    fn done_to(self, proxy: &Proxy) {
        match self {
            Self::Refused => proxy.down(),
            Self::Silent => proxy.change(|faults| (faults.up.hold, faults.down.hold) = (true, true)),
        }
    }
}

/// A stack whose services reach everything through proxies.
#[derive(Debug)]
pub struct Cuttable {
    /// The driver's way to it leads past the proxies.
    pub stack: Stack,
    proxies: BTreeMap<Peer, Vec<Proxy>>,
}

impl Cuttable {
    /// Starts it.
    ///
    /// # Errors
    /// As [`Stack::start`].
    pub async fn start(options: &Options) -> anyhow::Result<Self> {
        let mut stack = Stack::without_services(options).await?;
        let mut proxies: BTreeMap<Peer, Vec<Proxy>> = BTreeMap::new();
        for service in SERVICES {
            let mut detours = Vec::new();
            let mut through = |peer: Peer, name: &'static str, url: String, proxy: Proxy| {
                detours.push((name, url));
                proxies.entry(peer).or_default().push(proxy);
            };
            let kafka = Proxy::of_kafka(&stack.kafka).await?;
            through(Peer::Kafka, "KAFKA_BOOTSTRAP", kafka.address(), kafka);
            let postgres = Proxy::of_url(&stack.databases[service]).await?;
            through(Peer::Postgres, "DATABASE_URL", postgres.url(&stack.databases[service]), postgres);
            let registry = Proxy::of_url(&stack.registry).await?;
            through(Peer::Registry, "REGISTRY_URL", registry.url(&stack.registry), registry);
            if service == "payment-svc" {
                let gateway = Proxy::of_url(&stack.gateway).await?;
                through(Peer::Gateway, "GATEWAY_URL", gateway.url(&stack.gateway), gateway);
            }
            if service == "notify-svc" {
                let smtp = Proxy::of(&stack.smtp).await?;
                through(Peer::Smtp, "SMTP_URL", format!("smtp://{}", smtp.address()), smtp);
            }
            stack.add_instance(service, 0, &detours)?;
        }
        stack.wait_until_ready().await?;
        Ok(Self { stack, proxies })
    }

    /// Cuts it off from every service.
    pub fn cut(&self, peer: Peer, how: Cut) {
        self.proxies[&peer].iter().for_each(|proxy| how.done_to(proxy));
    }

    /// The same for one service alone.
    ///
    /// # Panics
    /// When the service has no such link.
    pub fn cut_one(&self, service: &str, peer: Peer, how: Cut) {
        let place = SERVICES.iter().position(|name| *name == service).expect("a service");
        how.done_to(&self.proxies[&peer][place]);
    }

    /// Everything passes again.
    pub fn heal(&self) {
        self.proxies.values().flatten().for_each(Proxy::heal);
    }

    /// `/readyz` of a service: whether it is ready, and all it says.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn readiness(&self, service: &str) -> anyhow::Result<(bool, Value)> {
        let url = format!("{}/readyz", self.stack.admin(service, 0));
        let seen = answer(reqwest::Client::new().get(url).timeout(Duration::from_secs(2))).await?;
        Ok((seen.status == StatusCode::OK, seen.body))
    }

    /// The value of a metric without labels, or with exactly these: `name{label="value"}`.
    ///
    /// # Errors
    /// When there is none.
    pub async fn metric(&self, service: &str, series: &str) -> anyhow::Result<f64> {
        let url = format!("{}/metrics", self.stack.admin(service, 0));
        let text = reqwest::get(url).await?.text().await?;
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.with_context(|| format!("{service} has no {series}"))?.parse().context(series.to_owned())
    }

    /// The epochs of all processors, by service and partition.
    ///
    /// # Errors
    /// When a database does not answer.
    pub async fn epochs(&self) -> anyhow::Result<BTreeMap<(String, i32), i64>> {
        let mut epochs = BTreeMap::new();
        for service in SERVICES {
            let mut conn = PgConnection::connect(&self.stack.databases[service]).await?;
            let rows: Vec<(i32, i64)> =
                sqlx::query_as("SELECT partition, epoch FROM engine.processors").fetch_all(&mut conn).await?;
            epochs.extend(rows.into_iter().map(|(partition, epoch)| ((service.to_owned(), partition), epoch)));
        }
        Ok(epochs)
    }

    /// Notices that are to be sent by now and are not; what is planned for later does not count.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn due_notices(&self) -> anyhow::Result<i64> {
        let mut conn = PgConnection::connect(&self.stack.databases["notify-svc"]).await?;
        let sql = "SELECT count(*) FROM projection.notices
                   WHERE (email = 'PENDING' OR sms = 'PENDING') AND (due_at IS NULL OR due_at <= now())";
        Ok(sqlx::query_scalar(sql).fetch_one(&mut conn).await?)
    }

    /// That no record is held or dead anywhere, and no effect has used an attempt up.
    ///
    /// # Errors
    /// The first that is.
    pub async fn nothing_failed(&self) -> anyhow::Result<()> {
        for service in SERVICES {
            let mut conn = PgConnection::connect(&self.stack.databases[service]).await?;
            let held: i64 = sqlx::query_scalar("SELECT count(*) FROM projection.held").fetch_one(&mut conn).await?;
            ensure!(held == 0, "{held} records of {service} are held or dead");
            let attempts: i32 = sqlx::query_scalar("SELECT coalesce(max(attempts), 0) FROM engine.effects")
                .fetch_one(&mut conn)
                .await?;
            ensure!(attempts == 0, "an effect of {service} has used {attempts} attempts up");
            for series in ["engine_held_total", "engine_dead_total"] {
                let count = self.metric(service, series).await?;
                ensure!(count == 0.0, "{service}: {series} {count}");
            }
        }
        Ok(())
    }

    /// Resident memory of the largest service, in MiB.
    ///
    /// # Errors
    /// When a process is gone.
    pub fn largest_mib(&self) -> anyhow::Result<u64> {
        let stack: Value = serde_json::from_str(&std::fs::read_to_string(self.stack.stack_file())?)?;
        let pids = stack["services"].as_array().context("services")?.iter().filter_map(|one| one["pid"].as_u64());
        let mut largest = 0;
        for pid in pids {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
            let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
            largest = largest.max(kib / 1_024);
        }
        Ok(largest)
    }
}

/// Orders that are placed all the while, each under its own key until it is accepted.
#[derive(Debug)]
pub struct Load {
    placing: JoinHandle<anyhow::Result<usize>>,
    stop: Arc<AtomicBool>,
    seen: Arc<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    accepted: AtomicUsize,
    turned_away: AtomicUsize,
}

const ORDER_EVERY: Duration = Duration::from_millis(300);
const AGAIN: Duration = Duration::from_millis(500);

impl Load {
    /// Starts it.
    ///
    /// # Errors
    /// When there is no token.
    pub fn start(stack: &Stack, customer: &str, product: &str) -> anyhow::Result<Self> {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Seen::default()));
        let client = Client::customer(stack, customer)?;
        let (url, body) = (format!("{}/v1/orders", stack.http("order-svc", 0)), order(&[(product, 1)], "pm_ok"));
        let (stopped, noted) = (Arc::clone(&stop), Arc::clone(&seen));
        let placing = tokio::spawn(async move {
            let mut orders = tokio::task::JoinSet::new();
            let mut every = tokio::time::interval(ORDER_EVERY);
            while !stopped.load(Ordering::Relaxed) {
                every.tick().await;
                let (client, url, body, seen) = (client.clone(), url.clone(), body.clone(), Arc::clone(&noted));
                orders.spawn(async move { place(&client, &url, &body, &seen).await });
            }
            let mut placed = 0;
            while let Some(order) = orders.join_next().await {
                order??;
                placed += 1;
            }
            Ok(placed)
        });
        Ok(Self { placing, stop, seen })
    }

    /// Accepted so far, and turned away with 503.
    #[must_use]
    pub fn seen(&self) -> (usize, usize) {
        (self.seen.accepted.load(Ordering::Relaxed), self.seen.turned_away.load(Ordering::Relaxed))
    }

    /// Places no further order, and waits until all are accepted.
    ///
    /// # Errors
    /// When one got an answer that no outage explains.
    pub async fn finish(self) -> anyhow::Result<usize> {
        self.stop.store(true, Ordering::Relaxed);
        self.placing.await?
    }
}

async fn place(client: &Client, url: &str, body: &Value, seen: &Seen) -> anyhow::Result<()> {
    let key = uuid::Uuid::new_v4().to_string();
    loop {
        let request = client.request(Method::POST, url).header("Idempotency-Key", &key).json(body);
        // No answer at all is a service that waits for what is away: that is what breakers are for.
        let answered = answer(request).await.context("a service kept a client waiting")?;
        match answered.status {
            StatusCode::ACCEPTED => {
                seen.accepted.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::CONFLICT => {
                ensure!(answered.headers.contains_key("retry-after"), "no Retry-After: {answered:?}");
                seen.turned_away.fetch_add(1, Ordering::Relaxed);
            }
            _ => anyhow::bail!("{answered:?}"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// An answer, and how long it took.
///
/// # Errors
/// When there is none.
pub async fn timed(request: reqwest::RequestBuilder) -> anyhow::Result<(crate::client::Answer, Duration)> {
    let started = Instant::now();
    let answered = answer(request).await?;
    Ok((answered, started.elapsed()))
}
