//! The order of a run: baseline, warm-up, readings, load, until all orders are final, readings, report.
//!
//! Products must be listed and stocked before.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use events::id::ProductId;
use events::order::OrderLine;
use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use crate::arrivals::{Arrivals, Outcome};
use crate::baseline::{self, Durability};
use crate::http_sender::{self, HttpSender};
use crate::log_sender::LogSender;
use crate::pace::{Pace, Turn};
use crate::report::{Conditions, Report};
use crate::target::{Load, Mode, Options, PRODUCTS, Target, products};
use crate::{gateway, metrics, usage};

/// The run gives up when no order became final for so long.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Microseconds; an order that takes longer counts as this long.
const LATENCY_MICROS_MAX: u64 = 3_600_000_000;
/// Moderate: what is warmed up is code, not queues.
const WARM_UP_IN_FLIGHT: usize = 500;
const LINES: usize = 2;
const QUANTITY_MAX: i64 = 3;

/// Told how many orders are final, and what is being done.
pub type Progress<'a> = &'a (dyn Fn(usize, &'static str) + Sync);

/// How orders are started.
enum Sender {
    Log(LogSender),
    Http(HttpSender),
}

/// Measures.
///
/// # Errors
/// When a part of the stack does not answer, or an order is not accepted.
pub async fn run(target: &Target, options: &Options, progress: Progress<'_>) -> anyhow::Result<Report> {
    let durability = baseline::durability(target).await?;
    progress(0, "pgbench, the baseline");
    let baseline = match options.baseline {
        None => None,
        Some(duration) => Some(baseline::measure(target, duration).await.context("measuring the baseline")?),
    };
    let processes = gateway::processes(&target.stack_file)?;
    let sender = Arc::new(match options.mode {
        Mode::Log => Sender::Log(LogSender::start(target).await?),
        Mode::Http => Sender::Http(HttpSender::start(target)?),
    });
    if options.warm_up > 0 {
        progress(0, "warming up");
        let arrivals = Arrivals::follow(Arc::clone(&target.kafka)).await?;
        let numbers = options.orders..options.orders + options.warm_up;
        load(&sender, numbers, Load::Closed { in_flight: WARM_UP_IN_FLIGHT }, &arrivals, &|_, _| {}).await?;
        drop(arrivals.finish());
    }
    progress(0, "orders");
    let arrivals = Arrivals::follow(Arc::clone(&target.kafka)).await?;
    let (counted, used) = (metrics::read(&target.metrics).await?, usage::cpu(&processes));
    let load = load(&sender, 0..options.orders, options.load, &arrivals, progress).await;
    let (used_after, rss_mb) = (usage::cpu(&processes), usage::rss_mb(&processes));
    let counted_after = metrics::read(&target.metrics).await?;
    load?;
    let outcome = arrivals.finish();
    let figures = Figures::of(&outcome)?;
    let conditions = conditions(target, options, &outcome, &figures, durability, baseline.is_some());
    Ok(Report {
        orders_per_second: figures.per_second,
        baseline_orders_per_second: baseline,
        ratio: baseline.map(|baseline| figures.per_second / baseline),
        p50_ms: figures.percentile_ms(0.5),
        p99_ms: figures.percentile_ms(0.99),
        p999_ms: figures.percentile_ms(0.999),
        cpu_seconds_per_1000_orders: usage::per_1000(&used, &used_after, outcome.latencies.len()),
        batch: metrics::between(&counted, &counted_after),
        rss_mb,
        conditions,
    })
}

/// Starts every order in its turn, then waits until all are final.
async fn load(
    sender: &Arc<Sender>,
    numbers: Range<usize>,
    load: Load,
    arrivals: &Arrivals,
    progress: Progress<'_>,
) -> anyhow::Result<()> {
    let (orders, first) = (numbers.len(), numbers.start);
    let pace = Pace::new(load, Instant::now());
    let mut starts: JoinSet<anyhow::Result<()>> = JoinSet::new();
    let mut told = Instant::now();
    for number in numbers {
        let turn = tokio::select! {
            turn = pace.turn(number - first) => turn?,
            () = tokio::time::sleep(PATIENCE) => bail!("no order became final for {} s; see `orderctl lag`", PATIENCE.as_secs()),
        };
        let (sender, noted) = (Arc::clone(sender), arrivals.clone());
        starts.spawn(async move { start(&sender, &noted, number, turn).await });
        while let Some(done) = starts.try_join_next() {
            done.context("starting an order")??;
        }
        if told.elapsed() > LOOK_EVERY {
            told = Instant::now();
            progress(arrivals.count()?, "");
        }
    }
    while let Some(done) = starts.join_next().await {
        done.context("starting an order")??;
    }
    drain(orders, arrivals, progress).await
}

/// Waits until all are final, or nothing has moved for the patience: then the rest counts as open.
async fn drain(orders: usize, arrivals: &Arrivals, progress: Progress<'_>) -> anyhow::Result<()> {
    let (mut seen, mut moved) = (0, Instant::now());
    loop {
        let count = arrivals.count()?;
        progress(count, "");
        if count > seen {
            (seen, moved) = (count, Instant::now());
        }
        if count >= orders || moved.elapsed() > PATIENCE {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn start(sender: &Sender, arrivals: &Arrivals, number: usize, turn: Turn) -> anyhow::Result<()> {
    let lines = lines();
    match sender {
        Sender::Log(sender) => {
            let order = sender.order_id().await;
            arrivals.started(order, turn.intended, turn.permit);
            sender.place(order, number, lines).await
        }
        Sender::Http(sender) => {
            let order = sender.place(number, &lines).await?;
            arrivals.started(order, turn.intended, turn.permit);
            Ok(())
        }
    }
}

/// Two different products, a few pieces of each.
fn lines() -> Vec<OrderLine> {
    let half = PRODUCTS / 2;
    let pick = |from: i64| products().start + from + rand::random_range(0..half);
    let line = |product| OrderLine { product_id: ProductId(product), quantity: rand::random_range(1..=QUANTITY_MAX) };
    vec![line(pick(0)), line(pick(half))]
}

struct Figures {
    per_second: f64,
    seconds: f64,
    latencies: Histogram<u64>,
}

impl Figures {
    fn of(outcome: &Outcome) -> anyhow::Result<Self> {
        let mut latencies = Histogram::new_with_bounds(1, LATENCY_MICROS_MAX, 3).context("making a histogram")?;
        for latency in &outcome.latencies {
            let micros = u64::try_from(latency.as_micros()).unwrap_or(LATENCY_MICROS_MAX);
            latencies.saturating_record(micros.max(1));
        }
        let (Some(first), Some(last)) = (outcome.first_start, outcome.last_confirmed) else {
            bail!("no order was confirmed; see `orderctl lag` and `orderctl processors`");
        };
        let seconds = last.saturating_duration_since(first).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "orders are far below 2^52")]
        let per_second = outcome.latencies.len() as f64 / seconds.max(f64::EPSILON);
        Ok(Self { per_second, seconds, latencies })
    }

    fn percentile_ms(&self, quantile: f64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "an hour of microseconds is far below 2^52")]
        let micros = self.latencies.value_at_quantile(quantile) as f64;
        micros / 1_000.0
    }
}

fn conditions(
    target: &Target,
    options: &Options,
    outcome: &Outcome,
    figures: &Figures,
    durability: Durability,
    with_baseline: bool,
) -> Conditions {
    let (rate, in_flight) = match options.load {
        Load::Open { per_second } => (Some(per_second), None),
        Load::Closed { in_flight } => (None, Some(in_flight)),
    };
    let baseline = "pgbench -M prepared -c 8 -j 2, one transaction per order, same server, before the orders";
    Conditions {
        mode: options.mode,
        orders: options.orders,
        warm_up: options.warm_up,
        rate,
        in_flight,
        connections: (options.mode == Mode::Http).then_some(http_sender::CONNECTIONS),
        gateway: gateway::current(target),
        confirmed: outcome.latencies.len(),
        not_confirmed: outcome.not_confirmed,
        open: outcome.open,
        seconds: figures.seconds,
        lines_per_order: LINES,
        products: PRODUCTS,
        partitions: target.kafka.partitions,
        cores: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        acks: "all",
        postgres: durability.version,
        fsync: durability.fsync,
        synchronous_commit: durability.synchronous_commit,
        full_page_writes: durability.full_page_writes,
        baseline: with_baseline.then(|| baseline.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_has_two_different_products_of_the_bench() {
        for _ in 0..1_000 {
            let lines = lines();
            assert_eq!(lines.len(), LINES);
            assert!(lines[0].product_id < lines[1].product_id);
            assert!(
                lines.iter().all(|line| products().contains(&line.product_id.0) && (1..=3).contains(&line.quantity))
            );
        }
    }

    #[test]
    fn figures_follow_from_latencies_and_times() {
        let begun = Instant::now();
        let outcome = Outcome {
            latencies: (1..=1_000).map(Duration::from_millis).collect(),
            first_start: Some(begun),
            last_confirmed: Some(begun + Duration::from_secs(2)),
            not_confirmed: 1,
            open: 0,
        };
        let figures = Figures::of(&outcome).unwrap();
        assert!((figures.per_second - 500.0).abs() < 1e-6);
        assert!((figures.percentile_ms(0.5) - 500.0).abs() < 1.0);
        assert!((figures.percentile_ms(0.999) - 999.0).abs() < 1.0);
        assert!(Figures::of(&Outcome::default()).is_err());
    }
}
