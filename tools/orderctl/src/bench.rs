//! `orderctl bench log|http`: gives the bench library what it needs of this stack, and prints its report.
//!
//! How it is measured is said in the library.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bench::{Gateway, Load, Mode, Options, Target};
use edge::token::{Identity, Role, sign};

use crate::cli::{Adapter, Bench, By};
use crate::client::Client;
use crate::outcomes::Outcomes;
use crate::output::{Output, table};
use crate::plan::Product;
use crate::progress::Progress;
use crate::services::ServiceName;
use crate::settings::Settings;
use crate::shop::{Shop, import_id};

const TOKEN_LIFE: Duration = Duration::from_secs(3 * 3_600);
const PATIENCE: Duration = Duration::from_secs(120);
const IN_FLIGHT: usize = 64;
/// The most that a receipt takes; the bench sells at most 3 pieces of a product per order.
const PIECES: i64 = 1_000_000;
const PRICE: i64 = 250;

/// Enough for full batches in all processors of four services.
const LOG_IN_FLIGHT: usize = 8_000;
/// More than the connections, so that none is idle.
const HTTP_IN_FLIGHT: usize = 1_000;

pub(crate) async fn run(settings: &Settings, out: Output, args: Bench) -> anyhow::Result<ExitCode> {
    let target = target(settings).await?;
    let progress = Progress::new(out);
    let options = options(&args)?;
    let adapter = args.gateway.map(|adapter| match adapter {
        Adapter::Inside => Gateway::Inside,
        Adapter::Http => Gateway::Http,
    });
    let switched = match adapter {
        Some(adapter) => bench::gateway::switch(&target, adapter).await?,
        None => None,
    };
    let measured = tokio::select! {
        measured = Box::pin(measure(settings, out, &target, &options, &progress)) => measured,
        stopped = tokio::signal::ctrl_c() => stopped.map_err(Into::into).and_then(|()| anyhow::bail!("stopped")),
    };
    // The stack is put back also after a failure or Ctrl-C; the first error is the one that counts.
    let restored = match switched {
        Some(before) => bench::gateway::switch(&target, before).await.map(drop),
        None => Ok(()),
    };
    let report = measured?;
    restored.context("putting payment-svc back")?;
    out.show(&report, show);
    Ok(ExitCode::SUCCESS)
}

fn options(args: &Bench) -> anyhow::Result<Options> {
    anyhow::ensure!(args.orders > 0, "--orders must be at least 1");
    let usual = match args.by {
        By::Log => LOG_IN_FLIGHT,
        By::Http => HTTP_IN_FLIGHT,
    };
    let in_flight = args.in_flight.unwrap_or(usual);
    anyhow::ensure!(in_flight > 0, "--in-flight must be at least 1");
    let load = match args.rate {
        None => Load::Closed { in_flight },
        Some(rate) if rate.is_finite() && rate > 0.0 => Load::Open { per_second: rate },
        Some(_) => anyhow::bail!("--rate must be above 0"),
    };
    let mode = match args.by {
        By::Log => Mode::Log,
        By::Http => Mode::Http,
    };
    let baseline = (args.baseline_seconds > 0).then(|| Duration::from_secs(args.baseline_seconds.into()));
    Ok(Options { mode, orders: args.orders, load, warm_up: args.warm_up, baseline })
}

async fn measure(
    settings: &Settings,
    out: Output,
    target: &Target,
    options: &Options,
    progress: &Progress,
) -> anyhow::Result<bench::Report> {
    stock_up(settings, progress).await.context("listing and stocking the bench's products")?;
    let bar = progress.bar("orders", options.orders);
    bar.set_message("pgbench first");
    let report = bench::run(target, options, &|done, message| {
        bar.set_position(done as u64);
        bar.set_message(message);
    })
    .await;
    bar.finish_and_clear();
    let report = report?;
    if !options.load.is_open() && report.conditions.not_confirmed > 0 {
        out.say(&format!("{} orders were not confirmed", report.conditions.not_confirmed));
    }
    Ok(report)
}

/// Lists and stocks the bench's products, once per stack: the last one's stock tells whether that was done.
async fn stock_up(settings: &Settings, progress: &Progress) -> anyhow::Result<()> {
    let client = Client::new(settings, PATIENCE)?;
    let products: Vec<Product> =
        bench::products().map(|id| Product { id, name: format!("BENCH {id}"), price: PRICE, stock: PIECES }).collect();
    let shop = Shop { client: &client, import: import_id("bench"), in_flight: IN_FLIGHT, patience: PATIENCE };
    let wanted: Vec<(i64, i64)> = products.iter().map(|product| (product.id, product.stock)).collect();
    let codec = settings.registry()?.codec_without_memory().await?;
    let outcomes = Outcomes::follow(settings.kafka()?, codec);
    let bar = progress.bar("products", products.len());
    // The log is read while the first look is taken; what it does not show yet is listed again, which changes nothing.
    let missing = outcomes.caught_up(PATIENCE).await.and_then(|()| outcomes.lacking(&wanted))?;
    if !missing.is_empty() {
        shop.list(&products, "first", &bar).await?;
        shop.received(&wanted, &outcomes).await?;
    }
    shop.known(&products, &bar).await?;
    bar.finish_and_clear();
    Ok(())
}

async fn target(settings: &Settings) -> anyhow::Result<Target> {
    let stack = settings.stack()?;
    let instances = |name: ServiceName| settings.instances(name.as_str());
    let mut metrics = Vec::new();
    for name in ServiceName::ALL {
        metrics.extend(instances(name)?.into_iter().map(|one| (one.label(), format!("{}/metrics", one.admin))));
    }
    let signing_key = settings.signing_key()?;
    let token = move |customer: &str| {
        let identity = Identity { subject: customer.to_owned(), role: Role::Customer };
        sign(&signing_key, &identity, TOKEN_LIFE).context("signing a token")
    };
    Ok(Target {
        kafka: Arc::new(settings.kafka_answers().await?),
        codec: Arc::new(settings.registry()?.codec_without_memory().await?),
        order_urls: instances(ServiceName::Order)?.into_iter().map(|one| one.http.clone()).collect(),
        order_database: settings.database(ServiceName::Order.as_str())?.to_owned(),
        postgres_admin: settings.postgres_admin()?,
        processes: stack.processes.clone(),
        stack_file: settings.stack_file()?,
        metrics,
        token: Box::new(token),
    })
}

fn show(report: &bench::Report) -> String {
    let number =
        |value: Option<f64>, digits: usize| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"));
    let rows = [
        ["orders confirmed per second".to_owned(), format!("{:.0}", report.orders_per_second)],
        ["baseline, pgbench".to_owned(), number(report.baseline_orders_per_second, 0)],
        ["ratio".to_owned(), number(report.ratio, 2)],
        ["start to CONFIRMED, p50".to_owned(), format!("{:.1} ms", report.p50_ms)],
        ["p99".to_owned(), format!("{:.1} ms", report.p99_ms)],
        ["p99.9".to_owned(), format!("{:.1} ms", report.p999_ms)],
    ];
    let groups = report.cpu_seconds_per_1000_orders.iter().map(|(group, seconds)| {
        let rss = report.rss_mb.get(group).map_or_else(|| "-".to_owned(), |mb| format!("{mb:.0}"));
        [group.clone(), format!("{seconds:.3}"), rss]
    });
    let batches = report.batch.iter().map(|(service, batch)| {
        let cells = [batch.batches.to_string(), format!("{:.1}", batch.mean_inputs), format!("{:.2}", batch.mean_ms)];
        [service.clone(), cells[0].clone(), cells[1].clone(), cells[2].clone()]
    });
    format!(
        "{}\n\n{}\n\n{}\n\n{}",
        table(["", ""], rows),
        table(["PROCESSES", "CPU s / 1000 ORDERS", "RSS MB"], groups),
        table(["SERVICE", "BATCHES", "INPUTS PER BATCH", "MS PER BATCH"], batches),
        crate::output::line(&report.conditions)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(rate: Option<f64>) -> Bench {
        Bench { by: By::Log, orders: 10, rate, gateway: None, in_flight: Some(5), warm_up: 0, baseline_seconds: 0 }
    }

    #[test]
    fn a_rate_makes_the_loop_open() {
        assert!(options(&args(Some(100.0))).unwrap().load.is_open());
        assert!(!options(&args(None)).unwrap().load.is_open());
        assert!(options(&args(Some(0.0))).is_err());
        assert!(options(&args(None)).unwrap().baseline.is_none());
    }
}
