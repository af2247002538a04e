//! `orderctl verify SERVICE|--all`: live projections against a fresh fold of the log, row for row.
//!
//! The comparison is `engine::verify`'s. The fold fills a schema of its own in the service's database, which is dropped
//! again, also after a failure or Ctrl-C; nothing live is written. Exit status 1 on a difference, 0 on strange records.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use engine::fold::Fold;
use engine::kafka::Kafka;
use engine::migrate::{self, MigrationSet};
use engine::registry::Registry;
use engine::service::Service;
use engine::verify::{self, Verdict};
use serde::Serialize;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Executor, PgConnection, PgPool};

use crate::cli::Verify;
use crate::output::{Output, table};
use crate::progress::Progress;
use crate::services::{self, Job, ServiceName};
use crate::settings::Settings;
use crate::strange::{self, Found};
use crate::{decoded, history, postgres, topics};

/// Strange records that a table shows.
const STRANGE_SHOWN: usize = 30;

const SCRATCH: &str = "verify_";
const DIGEST_SHOWN: usize = 16;

/// The first row that differs, with what made it.
#[derive(Debug, Serialize)]
struct Explained {
    table: String,
    live: Option<Value>,
    folded: Option<Value>,
    /// Own events about the row's aggregate.
    events: Vec<Value>,
}

#[derive(Debug, Serialize)]
struct Checked {
    service: &'static str,
    #[serde(flatten)]
    verdict: Verdict,
    differences: Vec<Explained>,
}

#[derive(Debug, Serialize)]
struct Report {
    equal: bool,
    services: Vec<Checked>,
    /// On all topics, those that no service reads included.
    strange: Found,
}

#[derive(Debug, Clone)]
struct Work {
    kafka: Kafka,
    registry: Registry,
    url: String,
    batch: usize,
    progress: Progress,
}

pub(crate) async fn run(settings: &Settings, out: Output, args: &Verify) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(args.batch > 0, "--batch must be at least 1");
    let kafka = settings.kafka_answers().await?;
    let registry = settings.registry()?;
    let progress = Progress::new(out);
    let names = args.service.map_or_else(|| ServiceName::ALL.to_vec(), |one| vec![one]);
    let mut services = Vec::new();
    for name in names {
        let work = Work {
            kafka: kafka.clone(),
            registry: registry.clone(),
            url: settings.database(name.as_str())?.to_owned(),
            batch: args.batch,
            progress: progress.clone(),
        };
        services.push(services::with(name, work).await.with_context(|| format!("verifying {name}"))?);
    }
    let strange = strangers(kafka, &registry, &progress).await.context("looking for strange records")?;
    let equal = services.iter().all(|one| one.verdict.equal);
    out.show(&Report { equal, services, strange }, show);
    Ok(if equal { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Reads every topic for records that nobody of ours wrote.
async fn strangers(kafka: Kafka, registry: &Registry, progress: &Progress) -> anyhow::Result<Found> {
    let codec = registry.codec_without_memory().await?;
    let (commands, own): (Vec<String>, Vec<String>) =
        topics::all().into_iter().map(|topic| topic.name).partition(|name| topics::COMMANDS.contains(&name.as_str()));
    let bar = progress.bar("strange", 0);
    let work = move || {
        let count = |done, of| {
            bar.set_length(of);
            bar.set_position(done);
        };
        let found = strange::scan(&kafka, &codec, &own, &commands, count);
        bar.finish_and_clear();
        found
    };
    tokio::task::spawn_blocking(work).await.context("reading the log")?
}

impl Job for Work {
    type Done = Checked;

    async fn run<S: Service>(self, service: S, migrations: &'static [MigrationSet]) -> anyhow::Result<Checked> {
        let live = postgres::pool(&self.url, "engine, projection").await?;
        let scratch = format!("{SCRATCH}{}", std::process::id());
        drop_leftovers(&live).await?;
        let done = tokio::select! {
            done = Box::pin(self.compare(service, migrations, &live, &scratch)) => done,
            stopped = tokio::signal::ctrl_c() => stopped.map_err(Into::into).and_then(|()| anyhow::bail!("stopped")),
        };
        let dropped = drop_schema(&live, &scratch).await;
        live.close().await;
        let done = done?;
        dropped.with_context(|| format!("dropping the schema {scratch}"))?;
        Ok(done)
    }
}

impl Work {
    async fn compare<S: Service>(
        self,
        service: S,
        migrations: &'static [MigrationSet],
        live: &PgPool,
        scratch: &str,
    ) -> anyhow::Result<Checked> {
        let codec = Arc::new(self.registry.codec_without_memory().await?);
        let (service, kafka) = (Arc::new(service), Arc::new(self.kafka.clone()));
        // A connection of its own: making a schema moves its search_path.
        let mut maker = live.acquire().await?.detach();
        migrate::make_projection(&mut maker, migrations, scratch).await?;
        drop(maker);
        let pool = postgres::pool(&self.url, &format!("{scratch}, engine")).await?;
        let fold = Fold { service: &service, kafka: &kafka, codec: &codec, pool: &pool, batch_max: self.batch };
        let bar = self.progress.bar(service.describe().name, 0);
        let count = |done, of| {
            bar.set_length(of);
            bar.set_position(done);
        };
        let verdict = verify::verify(&fold, live, &count).await;
        bar.finish_and_clear();
        pool.close().await;
        let verdict = verdict?;
        let differences = explain(service.as_ref(), &kafka, &codec, &verdict).await?;
        Ok(Checked { service: service.describe().name, verdict, differences })
    }
}

/// Finds the events behind the first difference of each table.
async fn explain<S: Service>(
    service: &S,
    kafka: &Arc<Kafka>,
    codec: &Arc<events::codec::Codec>,
    verdict: &Verdict,
) -> anyhow::Result<Vec<Explained>> {
    let description = service.describe();
    let mut explained = Vec::new();
    for table in &verdict.tables {
        let Some(difference) = &table.difference else {
            continue;
        };
        let key = description.tables.iter().find(|one| one.name == table.table).map_or("", |one| one.key);
        let row = difference.live.as_ref().or(difference.folded.as_ref());
        let aggregate = row.and_then(|row| history::aggregate(row, key));
        let events = match aggregate {
            None => Vec::new(),
            Some(id) => {
                let (kafka, codec, topic) = (Arc::clone(kafka), Arc::clone(codec), description.events_topic);
                let read = move || history::events(&kafka, &codec, topic, &id);
                tokio::task::spawn_blocking(read).await.context("reading the log")??
            }
        };
        let json = |row: &Option<String>| row.as_ref().and_then(|row| serde_json::from_str(row).ok());
        let (live, folded) = (json(&difference.live), json(&difference.folded));
        explained.push(Explained { table: table.table.clone(), live, folded, events });
    }
    Ok(explained)
}

/// Drops what verifications left that were killed.
async fn drop_leftovers(pool: &PgPool) -> anyhow::Result<()> {
    let mut conn = pool.acquire().await?;
    let schemas: Vec<(String,)> = sqlx::query_as("SELECT nspname FROM pg_namespace WHERE nspname ~ '^verify_[0-9]+$'")
        .fetch_all(&mut *conn)
        .await?;
    for (schema,) in schemas {
        let pid = schema.trim_start_matches(SCRATCH);
        if !std::path::Path::new("/proc").join(pid).exists() {
            drop_in(&mut conn, &schema).await?;
        }
    }
    Ok(())
}

async fn drop_schema(pool: &PgPool, schema: &str) -> anyhow::Result<()> {
    let mut conn = pool.acquire().await?;
    drop_in(&mut conn, schema).await
}

async fn drop_in(conn: &mut PgConnection, schema: &str) -> anyhow::Result<()> {
    // The name is our prefix and digits; a schema's name cannot be bound.
    conn.execute(AssertSqlSafe(format!("DROP SCHEMA IF EXISTS {schema} CASCADE"))).await?;
    Ok(())
}

fn show(report: &Report) -> String {
    let mut rows = Vec::new();
    for one in &report.services {
        for table in &one.verdict.tables {
            rows.push([
                one.service.to_owned(),
                table.table.clone(),
                table.rows.to_string(),
                table.live.chars().take(DIGEST_SHOWN).collect(),
                table.folded.chars().take(DIGEST_SHOWN).collect(),
                if table.difference.is_none() { "equal" } else { "DIFFERENT" }.to_owned(),
            ]);
        }
    }
    let mut text = table(["SERVICE", "TABLE", "ROWS", "LIVE", "FOLDED", ""], rows);
    for difference in report.services.iter().flat_map(|one| &one.differences) {
        let row = |row: &Option<Value>| row.as_ref().map_or_else(|| "no such row".to_owned(), Value::to_string);
        text.push_str(&format!("\n\nfirst difference in {}:\n", difference.table));
        text.push_str(&format!("  live    {}\n  folded  {}\n", row(&difference.live), row(&difference.folded)));
        for event in &difference.events {
            text.push_str(&format!("  {}\n", decoded::line(event)));
        }
    }
    if report.strange.count > 0 {
        let shown = report.strange.records.iter().take(STRANGE_SHOWN);
        let rows =
            shown.map(|one| [format!("{}/{}", one.topic, one.partition), one.offset.to_string(), one.why.clone()]);
        text.push_str(&format!(
            "\n\n{} strange records:\n{}",
            report.strange.count,
            table(["PARTITION", "OFFSET", ""], rows)
        ));
        if report.strange.count > STRANGE_SHOWN {
            text.push_str("\n… the first of them; `--json` has more");
        }
    }
    let events: u64 = report.services.iter().map(|one| one.verdict.events).sum();
    let result = if report.equal { "equal, row for row" } else { "DIFFERENT" };
    format!("{text}\n\nlive and {events} folded events: {result}")
}
