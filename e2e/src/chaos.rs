//! The chaos run: real processes under load and under faults, chosen by a seed; then everything heals, and must come to a right
//! end.
//!
//! In reading order: `faults` are data, `plan` draws them from the seed, `field` does them, through the proxies of `links` and
//! to [`crate::servers`]; `load` orders from `shop` meanwhile, `injector` appends what nobody sent; `storm` is the time of
//! the faults, `settle` the time after, `report` what a person reads. It judges liveness itself; the rest is the checker's.

mod faults;
mod field;
mod injector;
mod links;
mod load;
mod plan;
mod progress;
pub mod report;
mod settle;
mod shop;
mod storm;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use engine::kafka::Kafka;
use serde_json::json;

use crate::evidence::lines::Lines;
use crate::evidence::{self, Expects, Limits, Run};
use crate::ground;
use crate::history::{self, History};
use crate::servers::Servers;
use crate::stack::{self, PARTITIONS, SERVICES, Stack};
use crate::verdict;
use faults::{Fault, Who};
use field::Field;
use injector::Injector;
use links::Links;
use load::Load;
use plan::INSTANCES;
use report::{Report, Times};
use shop::Shop;

/// The time before the first fault, in which nearly everything must go well.
const CALM: Duration = Duration::from_secs(10);
/// Products per order and second, up to this many: all must be listed before the run.
const PRODUCTS_MAX: usize = 500;
const PRODUCTS_MIN: usize = 50;

/// What a process may keep in memory.
const RSS_BYTES_MAX: u64 = 512 << 20;

/// From this length on a run must have seen what follows.
const LONG: Duration = Duration::from_secs(300);
/// Kinds of faults that meet somebody in every long run.
const SURE_TO_BE_FELT: [&str; 5] = ["kill", "stop", "broker_kill", "postgres_quit", "cut_kafka"];
/// What the checker counts in the evidence of every long run.
const COUNTED: [&str; 3] = ["repeats", "dead", "timers"];

/// So many messages a process has under way at most. Those are sent again when it dies, loses its database or is fenced, and
/// nearly every fault makes one do so.
const CALLS_UNDER_WAY: usize = 64;

/// What a run is.
#[derive(Debug, Clone)]
pub struct Options {
    /// All choices follow from it.
    pub seed: u64,
    /// How long there is load; faults come in all of it but the first seconds.
    pub length: Duration,
    /// Orders per second.
    pub rate: f64,
    /// Where the evidence is written.
    pub out: PathBuf,
    /// So many times the usual time to come to an end, for machines that are busy with other things.
    pub patience: u32,
    /// Whether a line on the terminal says what is going on.
    pub is_live: bool,
}

/// For a command: takes servers and programs from the running `cargo up` where the environment does not name them.
///
/// # Errors
/// When nothing runs, or the programs cannot be built.
pub fn stand_on_running_stack() -> anyhow::Result<()> {
    ground::stand_on_running_stack()
}

/// Runs it. The evidence and all logs stay in the folder, whatever the verdict.
///
/// # Errors
/// When the run itself cannot be carried out; what the system does wrong is in the report.
pub async fn run(options: &Options) -> anyhow::Result<Report> {
    std::fs::create_dir_all(&options.out).with_context(|| format!("making {}", options.out.display()))?;
    let is_used = options.out.join(history::FILE).exists();
    ensure!(!is_used, "{} holds the evidence of another run", options.out.display());
    // Before somebody changes the tree meanwhile.
    let commit = report::commit();
    let mut field = prepare(options).await?;
    let report = on(&mut field, options, commit).await;
    field.keep_logs(&options.out)?;
    report
}

async fn on(field: &mut Field, options: &Options, commit: String) -> anyhow::Result<Report> {
    let mut times = Times { started_at: field.load.history.now(), ..Times::default() };
    field.load.open_shop().await.context("opening the shop")?;
    let faults = plan::plan(options.seed, options.length.saturating_sub(CALM));
    let over = Arc::new(AtomicBool::new(false));
    let injector = Injector::new(kafka(&field.stack), options.seed, Lines::open(&options.out, injector::FILE)?)?;
    let injecting = tokio::spawn(injector.run(Arc::clone(&over)));
    let loading = tokio::spawn(Arc::clone(&field.load).run(options.seed));

    let log = Lines::open(&options.out, "faults.ndjson")?;
    let done = storm::weather(field, &faults, options, &log).await?;
    times.healed_at = field.load.history.now();
    field.heal().await.context("healing")?;
    over.store(true, Ordering::Relaxed);
    field.load.end();

    let mut not_live = Vec::new();
    times.progress = noted(settle::progress(field, options.patience).await, &mut not_live);
    loading.await?.context("the load")?;
    times.loaded_until = field.load.history.now();
    if faults.iter().any(|fault| fault.kind == "miswrite") {
        not_live.extend(field.roll_out_mended_build().await.err().map(|error| format!("{error:#}")));
    }
    let injected = injecting.await?.context("the injector")?;
    times.settled = noted(settle::settled(field, options.patience).await, &mut not_live);
    not_live.extend(field.stack.wait_until_ready().await.err().map(|error| format!("{error:#}")));
    not_live.append(&mut field.deserters);

    let mut report = Report::new(options, commit, &times, &done, field, &injected);
    report.not_live = not_live;
    let run = described(options, &times, &report, &faults);
    evidence::collect(&field.stack, &options.out, &run).await.context("collecting the evidence")?;
    injector::resolve(&injected.unknown, &options.out)?;
    // All has settled, or it never will.
    report.judged(&verdict::of(&field.stack, &options.out, &run, Duration::ZERO).await?);
    Ok(report)
}

/// What the run says about itself.
fn described(options: &Options, times: &Times, report: &Report, faults: &[Fault]) -> Run {
    // A short run may spend most of its time in a few faults, which may meet nobody.
    let is_long = options.length >= LONG;
    // On a busy machine a broker takes half a minute to come back, and clients hear nothing for as long.
    let is_fair = is_long && options.patience == 1;
    let expects = Expects {
        faults: plan::kinds(faults),
        ok_during_percent: Some(if is_fair { 50 } else { 20 }),
        felt: if is_long { SURE_TO_BE_FELT.map(str::to_owned).to_vec() } else { Vec::new() },
        counters: if is_long { COUNTED.map(|name| (name.to_owned(), 1)).into() } else { BTreeMap::new() },
        ..Expects::default()
    };
    Run {
        seed: options.seed,
        commit: report.commit.clone(),
        started_at: times.started_at,
        loaded_until: Some(times.loaded_until),
        healed_at: Some(times.healed_at),
        phases: json!({"progress_seconds": report.progress_seconds, "settled_seconds": report.settled_seconds}),
        expects,
        limits: Limits {
            converge_us: Some(i64::from(options.patience) * 180_000_000),
            rss_bytes: [("*".to_owned(), RSS_BYTES_MAX)].into(),
            repeats_per_fault: Some(CALLS_UNDER_WAY),
            ..Limits::default()
        },
        ..Run::default()
    }
}

fn noted(result: anyhow::Result<Duration>, not_live: &mut Vec<String>) -> Option<Duration> {
    result.map_err(|error| not_live.push(format!("{error:#}"))).ok()
}

fn kafka(stack: &Stack) -> Kafka {
    Kafka {
        bootstrap: stack.kafka.clone(),
        topic_prefix: stack.prefix.clone(),
        partitions: PARTITIONS,
        session_timeout: Duration::from_secs(6),
    }
}

/// Servers, proxies, services, and a shop that is not open yet.
async fn prepare(options: &Options) -> anyhow::Result<Field> {
    // Not found out in the middle of the run.
    field::datefudge(0)?;
    let servers = Servers::start(&options.out, None).await.context("starting a broker and a Postgres for the run")?;
    let chosen = stack::Options {
        instances: INSTANCES,
        pay_within: "20s",
        servers: Some((servers.kafka.clone(), servers.postgres_admin.clone())),
        ..stack::Options::default()
    };
    let mut stack = Stack::without_services(&chosen).await?;
    let links = Links::start(&stack).await?;
    for service in SERVICES {
        for instance in 0..INSTANCES {
            let detours = links.detours(Who { service, instance }, &stack);
            stack.add_instance(service, instance, &detours)?;
        }
    }
    stack.wait_until_ready().await?;
    verdict::audit(&stack).await?;
    let orders = options.rate * options.length.as_secs_f64();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "cut to a few hundred")]
    let products = ((orders / 10.0) as usize).clamp(PRODUCTS_MIN, PRODUCTS_MAX);
    let shop = Shop::new(options.seed, products, orders);
    let load = Load::new(&stack, History::open(&options.out)?, shop, options.rate)?;
    Field::new(stack, links, servers, Arc::new(load))
}
