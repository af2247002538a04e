//! `orderctl rebuild SERVICE`: the service's database again from the log, whatever state it is in (DESIGN §7).
//!
//! What is emptied, folded and set is `engine::rebuild`'s; here only the database is made where it is missing.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use engine::fold::Fold;
use engine::kafka::Kafka;
use engine::migrate::{self, MigrationSet};
use engine::rebuild::{self, Report, SETTLE, Stage};
use engine::registry::Registry;
use engine::service::Service;
use serde::Serialize;

use crate::cli::Rebuild;
use crate::output::{Output, table};
use crate::postgres;
use crate::progress::Progress;
use crate::services::{self, Job, ServiceName};
use crate::settings::Settings;

const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
const SEARCH_PATH: &str = "engine, projection";

#[derive(Debug, Serialize)]
struct Done {
    service: &'static str,
    /// Role and database, where they were missing.
    made: Vec<String>,
    seconds: f64,
    #[serde(flatten)]
    report: Report,
}

struct Work {
    kafka: Kafka,
    registry: Registry,
    url: String,
    batch: usize,
    progress: Progress,
}

pub(crate) async fn run(settings: &Settings, out: Output, args: &Rebuild) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(args.batch > 0, "--batch must be at least 1");
    let started = Instant::now();
    let kafka = settings.kafka_answers().await?;
    refuse_while_running(settings, args.service).await?;
    let url = settings.database(args.service.as_str())?.to_owned();
    let made = postgres::ensure_database(&settings.postgres_admin()?, &url).await?;
    for one in &made {
        out.say(&format!("made {one}"));
    }
    let work = Work { kafka, registry: settings.registry()?, url, batch: args.batch, progress: Progress::new(out) };
    let report = services::with(args.service, work).await.with_context(|| format!("rebuilding {}", args.service))?;
    let seconds = started.elapsed().as_secs_f64();
    out.show(&Done { service: args.service.as_str(), made, seconds, report }, show);
    Ok(ExitCode::SUCCESS)
}

/// Says at once what the engine would find out after a session time-out: it looks at the consumer group.
async fn refuse_while_running(settings: &Settings, service: ServiceName) -> anyhow::Result<()> {
    let http =
        reqwest::Client::builder().timeout(HEALTH_TIMEOUT).no_proxy().build().context("making an HTTP client")?;
    // A stack without services may still have the database of one.
    for instance in settings.instances(service.as_str()).unwrap_or_default() {
        let answer = http.get(format!("{}/healthz", instance.admin)).send().await;
        anyhow::ensure!(
            !answer.is_ok_and(|answer| answer.status().is_success()),
            "{} is running; stop every instance of {service} first (`cargo down`, or kill them), then rebuild",
            instance.label()
        );
    }
    Ok(())
}

impl Job for Work {
    type Done = Report;

    async fn run<S: Service>(self, service: S, migrations: &'static [MigrationSet]) -> anyhow::Result<Report> {
        let pool = postgres::pool(&self.url, SEARCH_PATH).await?;
        migrate::migrate(&pool, migrations).await?;
        let codec = Arc::new(self.registry.codec(&pool).await?);
        let (service, kafka) = (Arc::new(service), Arc::new(self.kafka));
        let fold = Fold { service: &service, kafka: &kafka, codec: &codec, pool: &pool, batch_max: self.batch };
        let bar = self.progress.bar("records", 0);
        bar.set_message(stage_name(Stage::Settling));
        let stage = |stage| bar.set_message(stage_name(stage));
        let count = |done, of| {
            bar.set_length(of);
            bar.set_position(done);
        };
        let report = rebuild::rebuild(&fold, SETTLE, &stage, &count).await;
        bar.finish_and_clear();
        pool.close().await;
        report
    }
}

fn stage_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Settling => "waiting until the log stands still (10 s)",
        Stage::Emptying => "emptying",
        Stage::Folding => "folding own events",
        Stage::ReadModel => "folding the read model",
        Stage::Finishing => "setting positions and sequences",
    }
}

fn show(done: &Done) -> String {
    let rows = done.report.sequences.iter().map(|(partition, sequence)| [partition.to_string(), sequence.to_string()]);
    format!(
        "{}\n{} is rebuilt from {} events and {} facts in {:.1} s ({} strange records passed over); it may be started",
        table(["PARTITION", "LAST EVENT"], rows),
        done.service,
        done.report.events,
        done.report.facts,
        done.seconds,
        done.report.strange
    )
}
