//! What happens to a shop's servers without malice, under load: a database comes back as it was some time ago, all databases
//! are gone, the process that holds the hottest row stands still, somebody else holds it, a writer is upgraded before its
//! readers, a server's disk is full. Each ends in the checker's verdict.
//!
//! 10 s each; 20 to 60 s with `cargo verify --full`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::client::{Client, eventually};
use e2e::evidence::{Expects, Run};
use e2e::history::{History, Request};
use e2e::load::Load;
use e2e::servers::{Server, Servers};
use e2e::stack::{Options, PARTITIONS, SERVICES, Stack};
use e2e::{desk, verdict};
use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::json;
use sqlx::{Connection, Executor, PgConnection};
use tokio::task::JoinHandle;

const INSTANCES: usize = 2;
const SOON: Duration = Duration::from_secs(60);
/// Written for refunds only: a build that is older than those has never heard of them.
const OF_REFUNDS: &str =
    "orderlog.payment.RefundRequested,orderlog.payment.PaymentRefunded,orderlog.payment.RefundFailed";
/// Enough for what a server writes in a test.
const DISK_BYTES: u64 = 600 << 20;
/// A session, the time-out of an idle transaction, and some room.
const OTHERS_WAIT: Duration = Duration::from_secs(15);

fn lasts(full: u64) -> Duration {
    let full_run = std::env::var_os("ORDERLOG_TEST_FULL").is_some();
    Duration::from_secs(if full_run { full } else { 10 })
}

/// A stack under load.
struct Shop {
    stack: Stack,
    history: Arc<History>,
    folder: PathBuf,
    load: Arc<Load>,
    traffic: JoinHandle<anyhow::Result<()>>,
    started_at: i64,
}

impl Shop {
    async fn open() -> anyhow::Result<Self> {
        Self::open_on(None).await
    }

    /// On servers of its own.
    async fn open_on(servers: Option<&Servers>) -> anyhow::Result<Self> {
        let servers = servers.map(|servers| (servers.kafka.clone(), servers.postgres_admin.clone()));
        let usual = Options { instances: INSTANCES, pay_within: "20s", timer_grace: "2s", ..Options::default() };
        let options = Options { servers, ..usual };
        let stack = Stack::start(&options).await?;
        let folder = verdict::folder(&stack);
        let history = Arc::new(History::open(&folder)?);
        let started_at = history.now();
        let load = Load::open(&stack, Arc::clone(&history)).await?;
        let traffic = tokio::spawn(Arc::clone(&load).run());
        Ok(Self { stack, history, folder, load, traffic, started_at })
    }

    fn note(&self, kind: &str, target: &str) -> anyhow::Result<()> {
        verdict::fault(&self.folder, &self.history, kind, target)
    }

    /// Connects to the server, not to a service's database; with the name of that.
    async fn admin(&self, service: &str) -> anyhow::Result<(PgConnection, String)> {
        let (server, name) = self.stack.databases[service].rsplit_once('/').context("a URL ends in a name")?;
        Ok((PgConnection::connect(&format!("{server}/postgres")).await?, name.to_owned()))
    }

    /// How many orders are confirmed by now.
    async fn confirmed(&self) -> anyhow::Result<i64> {
        let mut database = PgConnection::connect(&self.stack.databases["order-svc"]).await?;
        let sql = "SELECT count(*) FROM projection.orders WHERE status = 'CONFIRMED'";
        let (count,): (i64,) = sqlx::query_as(sql).fetch_one(&mut database).await?;
        Ok(count)
    }

    async fn goes_on(&self, within: Duration) -> anyhow::Result<()> {
        let before = self.confirmed().await?;
        eventually("orders are confirmed", within, async || {
            let now = self.confirmed().await?;
            Ok(if now > before + 5 { Ok(()) } else { Err(format!("{now} confirmed, as {before} were before")) })
        })
        .await
    }

    async fn stands_still(&self, within: Duration) -> anyhow::Result<()> {
        eventually("no order is confirmed any more", within, async || {
            let before = self.confirmed().await;
            tokio::time::sleep(Duration::from_secs(4)).await;
            // With no room for a temporary file a reader may be refused, too.
            let (Ok(before), Ok(now)) = (before, self.confirmed().await) else { return Ok(Ok(())) };
            Ok(if now == before { Ok(()) } else { Err(format!("{now} confirmed, {before} before")) })
        })
        .await
    }

    /// Refunds so many confirmed orders of each partition.
    async fn refund(&self, of_each: i64) -> anyhow::Result<Vec<i64>> {
        let (operator, mut refunded) = (Client::operator(&self.stack)?, Vec::new());
        let mut database = PgConnection::connect(&self.stack.databases["order-svc"]).await?;
        let sql = "SELECT order_id FROM projection.orders WHERE status = 'CONFIRMED' AND partition = $1 LIMIT $2";
        for partition in 0..PARTITIONS {
            let orders = eventually("orders to refund", SOON, async || {
                let asked = sqlx::query_as(sql).bind(partition).bind(of_each);
                let orders: Vec<(i64,)> = asked.fetch_all(&mut database).await?;
                let enough = i64::try_from(orders.len())? == of_each;
                Ok(if enough { Ok(orders) } else { Err(format!("{} of partition {partition}", orders.len())) })
            });
            refunded.extend(orders.await?.into_iter().map(|(order_id,)| order_id));
        }
        for order_id in &refunded {
            let url = format!("{}/v1/payments/{order_id}/refunds", self.stack.http("payment-svc", 0));
            let (key, body) = (uuid::Uuid::new_v4().to_string(), json!({"reason": "REQUESTED_BY_CUSTOMER"}));
            let request = Request { op: "refund", key: Some(&key), body: &body, url: &url, method: &Method::POST };
            let answer = self.history.send(&operator, request, |request| request.header("Prefer", "wait=10")).await?;
            ensure!(answer.as_ref().is_some_and(|answer| answer.status.is_success()), "{answer:?}");
        }
        Ok(refunded)
    }

    async fn rebuild(&mut self, service: &str) -> anyhow::Result<()> {
        let mut command = self.stack.orderctl_command(&["rebuild", service])?;
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        (0..INSTANCES).try_for_each(|number| self.stack.restart(service, number))
    }

    /// The load ends, everything comes to its end, and the checker judges.
    async fn close(mut self, faults: &[(&str, u64)], ok_during_percent: u64) -> anyhow::Result<()> {
        let healed_at = self.history.now();
        tokio::time::sleep(Duration::from_secs(5)).await;
        self.load.end();
        self.traffic.await??;
        self.stack.wait_until_ready().await?;
        let minimums = |all: &[(&str, u64)]| all.iter().map(|(name, least)| ((*name).to_owned(), *least)).collect();
        let expects = Expects {
            faults: minimums(faults),
            statuses: minimums(&[("CONFIRMED", 20), ("CANCELLED", 3)]),
            ok_before_percent: Some(40),
            ok_during_percent: Some(ok_during_percent),
            ..Expects::default()
        };
        let run = Run {
            started_at: self.started_at,
            loaded_until: Some(self.history.now()),
            healed_at: Some(healed_at),
            whole_history: true,
            expects,
            ..Run::default()
        };
        let judged = async {
            verdict::valid(&self.stack, &self.folder, &run).await?;
            for service in SERVICES {
                ensure!(desk::is_empty(&self.stack, service)?, "something is held or dead in {service}");
            }
            Ok(())
        };
        let judged: anyhow::Result<()> = judged.await;
        judged.map_err(|error| error.context(format!("logs: {}", self.stack.keep_logs().display())))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_dump_that_is_restored_is_refused_until_it_is_rebuilt() -> anyhow::Result<()> {
    let mut shop = Shop::open().await?;
    let service = "inventory-svc";
    shop.goes_on(SOON).await?;
    let (mut admin, name) = shop.admin(service).await?;
    let apart = format!(
        "ALTER DATABASE {name} ALLOW_CONNECTIONS false;
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    );
    // A template must have no connections; for a moment that is an outage too.
    for sql in [
        apart.clone(),
        format!("CREATE DATABASE {name}_dump TEMPLATE {name}"),
        format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true"),
    ] {
        admin.execute(sqlx::AssertSqlSafe(sql)).await?;
    }
    tokio::time::sleep(lasts(60)).await;
    shop.goes_on(SOON).await?;
    shop.note("restore", service)?;
    for sql in [apart, format!("DROP DATABASE {name}"), format!("ALTER DATABASE {name}_dump RENAME TO {name}")] {
        admin.execute(sqlx::AssertSqlSafe(sql)).await?;
    }
    let operator = Client::operator(&shop.stack)?;
    eventually("both processors refuse the older database", SOON, async || {
        let mut refused = 0;
        for number in 0..INSTANCES {
            let answer = operator.get(&format!("{}/admin/processors", shop.stack.admin(service, number))).await?;
            let said = answer.body.to_string();
            refused += said.matches("orderctl rebuild inventory-svc").count();
        }
        Ok(if refused >= 2 { Ok(()) } else { Err(format!("{refused} refused")) })
    })
    .await?;
    shop.stack.stop_service(service)?;
    shop.rebuild(service).await?;
    shop.goes_on(SOON).await?;
    shop.close(&[("restore", 1)], 5).await
}

#[tokio::test(flavor = "multi_thread")]
async fn all_databases_may_be_lost() -> anyhow::Result<()> {
    let mut shop = Shop::open().await?;
    tokio::time::sleep(lasts(60)).await;
    shop.goes_on(SOON).await?;
    for service in SERVICES {
        shop.note("lost", service)?;
        for number in 0..INSTANCES {
            shop.stack.kill(service, number)?;
        }
        let (mut admin, name) = shop.admin(service).await?;
        admin.execute(sqlx::AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"))).await?;
    }
    for service in SERVICES {
        shop.rebuild(service).await?;
    }
    shop.goes_on(SOON).await?;
    shop.close(&[("lost", 4)], 0).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_holder_of_the_hottest_row_may_stand_still() -> anyhow::Result<()> {
    let mut shop = Shop::open().await?;
    shop.goes_on(SOON).await?;
    let operator = Client::operator(&shop.stack)?;
    let url = format!("{}/admin/failpoints/C4", shop.stack.admin("inventory-svc", 1));
    shop.note("stop", "inventory-svc")?;
    let armed = operator.request(Method::PUT, &url).body("1*return(stop)->off").send().await?;
    ensure!(armed.status().is_success(), "only a test build can be armed: {armed:?}");
    tokio::time::sleep(Duration::from_secs(1)).await;
    // It holds the rows of its batch and its partitions; the other instance takes both over.
    shop.goes_on(OTHERS_WAIT).await?;
    tokio::time::sleep(lasts(30)).await;
    shop.goes_on(OTHERS_WAIT).await?;
    shop.stack.signal("inventory-svc", 1, Signal::SIGCONT)?;
    shop.goes_on(OTHERS_WAIT).await?;
    shop.close(&[("stop", 1)], 20).await
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_else_may_hold_the_hottest_row() -> anyhow::Result<()> {
    let shop = Shop::open().await?;
    shop.goes_on(SOON).await?;
    let mut stranger = PgConnection::connect(&shop.stack.databases["inventory-svc"]).await?;
    shop.note("lock", "inventory-svc")?;
    let mut held = stranger.begin().await?;
    let product: i64 = shop.load.product().parse()?;
    sqlx::query("SELECT 1 FROM projection.products WHERE product_id = $1 FOR UPDATE")
        .bind(product)
        .execute(&mut *held)
        .await?;
    tokio::time::sleep(lasts(30)).await;
    held.rollback().await?;
    shop.goes_on(Duration::from_secs(5)).await?;
    shop.close(&[("lock", 1)], 20).await
}

/// "Readers are upgraded before writers" is the rule (DESIGN §9, H7); here it is broken.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_build_waits_for_its_upgrade_and_is_not_overtaken() -> anyhow::Result<()> {
    let mut shop = Shop::open().await?;
    let older = ["order-svc", "notify-svc"];
    for service in older {
        shop.stack.kill(service, 1)?;
        shop.stack.restart_with(service, 1, ("LACKS", OF_REFUNDS))?;
    }
    shop.stack.wait_until_ready().await?;
    shop.goes_on(SOON).await?;
    shop.note("older", &older.join(" "))?;
    let refunded = shop.refund(3).await?;
    let operator = Client::operator(&shop.stack)?;
    for service in older {
        eventually("the older build says what it needs", SOON, async || {
            let answer = operator.get(&format!("{}/readyz", shop.stack.admin(service, 1))).await?;
            let said = answer.body.to_string();
            Ok(if said.contains("newer than this build: upgrade me") { Ok(()) } else { Err(format!("{answer:?}")) })
        })
        .await?;
    }
    tokio::time::sleep(lasts(30)).await;
    // Its other partitions, and those of the newer build.
    shop.goes_on(SOON).await?;
    for service in older {
        ensure!(desk::is_empty(&shop.stack, service)?, "something is held or dead in {service}");
        shop.stack.kill(service, 1)?;
        shop.stack.restart_with(service, 1, ("LACKS", ""))?;
    }
    shop.goes_on(SOON).await?;
    let mut database = PgConnection::connect(&shop.stack.databases["notify-svc"]).await?;
    eventually("every refund has its notice", SOON, async || {
        let sql = "SELECT count(DISTINCT order_id) FROM projection.notices WHERE order_id = ANY($1) AND kind = 'PAYMENT_REFUNDED'";
        let (count,): (i64,) = sqlx::query_as(sql).bind(&refunded).fetch_one(&mut database).await?;
        Ok(if count == i64::try_from(refunded.len())? { Ok(()) } else { Err(format!("{count} of {refunded:?}")) })
    })
    .await?;
    shop.close(&[("older", 1)], 20).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_postgres_is_waited_out() -> anyhow::Result<()> {
    full_disk("postgres", |servers| &mut servers.postgres).await
}

/// The broker ends when it cannot write.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_kafka_is_waited_out() -> anyhow::Result<()> {
    full_disk("kafka", |servers| &mut servers.broker).await
}

async fn full_disk(name: &str, of: fn(&mut Servers) -> &mut Server) -> anyhow::Result<()> {
    let logs = tempfile::tempdir()?;
    let mut servers = Servers::start(logs.path(), Some(DISK_BYTES)).await?;
    let shop = Shop::open_on(Some(&servers)).await?;
    shop.goes_on(SOON).await?;
    shop.note("full", name)?;
    of(&mut servers).fill_disk()?;
    shop.stands_still(SOON).await?;
    tokio::time::sleep(lasts(20)).await;
    of(&mut servers).free_disk().await?;
    shop.goes_on(SOON).await?;
    shop.close(&[("full", 1)], 0).await
}
