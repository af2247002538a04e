//! Traffic while services are killed, stopped and woken: the end is the same as without.
//!
//! The crash matrix and the chaos run are the systematic ones; this is the smoke test of the same promise.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use e2e::client::{Client, eventually, order, stocked_product};
use e2e::evidence::{Expects, Run};
use e2e::history::{History, Request};
use e2e::stack::{Options, SERVICES, Stack};
use e2e::{check, desk, verdict};
use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

const ORDERS: usize = 120;

/// Places orders with a key each until every one is accepted; a lost answer is asked for again. Some customers can be
/// reached, some orders are cancelled by them, some requests come twice.
async fn traffic(
    stack: &Stack,
    history: &Arc<History>,
    product: &str,
    orders: usize,
) -> anyhow::Result<JoinSet<anyhow::Result<()>>> {
    for number in 1..3 {
        reachable(stack, history, &Client::customer(stack, &format!("crash-{number}"))?).await?;
    }
    let mut placing = JoinSet::new();
    let url = format!("{}/v1/orders", stack.http("order-svc", 0));
    for number in 0..orders {
        let customer = Client::customer(stack, &format!("crash-{}", number % 10))?;
        let (url, body) = (url.clone(), order(&[(product, 1)], if number % 10 == 0 { "pm_declined" } else { "pm_ok" }));
        let history = Arc::clone(history);
        placing.spawn(async move {
            tokio::time::sleep(Duration::from_millis(100 * number as u64)).await;
            let id = until_accepted(&history, &customer, "place_order", &url, &body).await?;
            if number % 20 == 7 {
                // It races with the payment; either may win.
                let url = format!("{url}/{id}/cancel");
                until_accepted(&history, &customer, "cancel", &url, &json!({"reason": "CHANGED_MIND"})).await?;
            }
            Ok(())
        });
    }
    Ok(placing)
}

async fn reachable(stack: &Stack, history: &History, customer: &Client) -> anyhow::Result<()> {
    let url = format!("{}/v1/contacts/{}", stack.http("notify-svc", 0), customer.sub());
    let body = json!({"email": format!("{}@example.com", customer.sub()), "phone": "+4915112345678"});
    let request = Request { op: "put_contact", key: None, body: &body, url: &url, method: &Method::PUT };
    let answer = history.send(customer, request, |more| more).await?.context("a contact")?;
    anyhow::ensure!(answer.status.is_success(), "{answer:?}");
    Ok(())
}

/// The ID of the order in the answer.
async fn until_accepted(
    history: &History,
    customer: &Client,
    op: &str,
    url: &str,
    body: &Value,
) -> anyhow::Result<String> {
    let key = uuid::Uuid::new_v4().to_string();
    let request = Request { op, key: Some(&key), body, url, method: &Method::POST };
    loop {
        match history.send(customer, request, |more| more).await? {
            Some(answer) if answer.status == 202 => {
                return Ok(answer.body["order_id"].as_str().context("an order's ID")?.to_owned());
            }
            Some(answer) if answer.status.as_u16() == 409 || answer.status.is_server_error() => {}
            Some(answer) => anyhow::bail!("{answer:?}"),
            None => {}
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// What a run of this file must have seen: its faults, and orders that ended well and not.
fn described(history: &History, started_at: i64, healed_at: i64, faults: &[(&str, u64)]) -> Run {
    let minimums = |all: &[(&str, u64)]| all.iter().map(|(name, least)| ((*name).to_owned(), *least)).collect();
    let expects = Expects {
        faults: minimums(faults),
        statuses: minimums(&[("CONFIRMED", 1), ("CANCELLED", ORDERS as u64 / 10)]),
        // Two instances of one address: while it is dead, nobody is served.
        ok_during_percent: Some(10),
        ..Expects::default()
    };
    let loaded_until = Some(history.now());
    Run { started_at, loaded_until, healed_at: Some(healed_at), whole_history: true, expects, ..Run::default() }
}

async fn judged(stack: &Stack, folder: &Path, run: &Run) -> anyhow::Result<()> {
    let report = verdict::valid(stack, folder, run).await?;
    let looked_at = |id: &str| report.checks.iter().find(|one| one.invariant == id).map(|one| one.looked_at.clone());
    println!("valid; I1 {:?}, I8 {:?}, I10 {:?}", looked_at("I1"), looked_at("I8"), looked_at("I10"));
    Ok(())
}

async fn run(stack: &mut Stack) -> anyhow::Result<()> {
    let folder = verdict::folder(stack);
    let history = Arc::new(History::open(&folder)?);
    let started_at = history.now();
    verdict::audit(stack).await?;
    let product = stocked_product(stack, 100, 10_000).await?;
    let mut placing = traffic(stack, &history, &product, ORDERS).await?;
    for service in SERVICES {
        verdict::fault(&folder, &history, "kill", service)?;
        stack.kill(service, 0)?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        stack.restart(service, 0)?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    for service in ["inventory-svc", "payment-svc"] {
        verdict::fault(&folder, &history, "stop", service)?;
        stack.signal(service, 1, Signal::SIGSTOP)?;
    }
    tokio::time::sleep(Duration::from_secs(9)).await;
    for service in ["inventory-svc", "payment-svc"] {
        stack.signal(service, 1, Signal::SIGCONT)?;
    }
    let healed_at = history.now();
    while let Some(placed) = placing.join_next().await {
        placed??;
    }
    stack.wait_until_ready().await?;
    all_placed(stack).await?;
    let log = check::everything(stack).await?;
    let placed = log.orders()?.iter().filter(|event| event.short_name() == "OrderPlaced").count();
    anyhow::ensure!(placed == ORDERS, "{placed} of {ORDERS} orders were placed");
    anyhow::ensure!(log.dead() == 0, "{} dead letters", log.dead());
    let run = described(&history, started_at, healed_at, &[("kill", 4), ("stop", 2)]);
    judged(stack, &folder, &run).await
}

/// Waits until every command that was accepted is decided: what still lies in the topic is not seen to be open.
async fn all_placed(stack: &Stack) -> anyhow::Result<()> {
    eventually("every order is placed", Duration::from_secs(60), async || {
        let log = check::read(stack).await?;
        let placed = log.orders()?.iter().filter(|event| event.short_name() == "OrderPlaced").count();
        Ok(if placed == ORDERS { Ok(()) } else { Err(format!("{placed} of {ORDERS}")) })
    })
    .await
}

async fn run_with_held_records(stack: &mut Stack) -> anyhow::Result<()> {
    let database = stack.databases["order-svc"].clone();
    let folder = verdict::folder(stack);
    let history = Arc::new(History::open(&folder)?);
    let started_at = history.now();
    verdict::audit(stack).await?;
    let product = stocked_product(stack, 100, 10_000).await?;
    desk::refuse(&database, "CONFIRMED", 7).await?;
    let mut placing = traffic(stack, &history, &product, ORDERS).await?;
    // Both instances in turns: what one has held, the other tries again.
    for round in 0..6 {
        verdict::fault(&folder, &history, "kill", "order-svc")?;
        stack.kill("order-svc", round % 2)?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        stack.restart("order-svc", round % 2)?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    while let Some(placed) = placing.join_next().await {
        placed??;
    }
    stack.wait_until_ready().await?;
    all_placed(stack).await?;
    eventually("something is held or dead", Duration::from_secs(30), async || {
        Ok(if desk::is_empty(stack, "order-svc")? { Err("nothing is".to_owned()) } else { Ok(()) })
    })
    .await?;
    desk::accept_again(&database).await?;
    let healed_at = history.now();
    desk::redrive_all(stack, "order-svc").await?;
    let log = check::everything(stack).await?;
    let of = |name| log.orders().map(|all| all.iter().filter(|event| event.short_name() == name).count());
    let (placed, confirmed) = (of("OrderPlaced")?, of("OrderConfirmed")?);
    anyhow::ensure!(placed == ORDERS, "{placed} of {ORDERS} orders were placed");
    let cancelled = of("OrderCancelled")?;
    anyhow::ensure!(confirmed + cancelled == ORDERS, "{confirmed} orders are confirmed, {cancelled} cancelled");
    let mut run = described(&history, started_at, healed_at, &[("kill", 6)]);
    run.expects.counters = [("held_released".to_owned(), 1)].into();
    judged(stack, &folder, &run).await
}

#[tokio::test(flavor = "multi_thread")]
async fn held_records_are_neither_lost_nor_doubled_by_kills() -> anyhow::Result<()> {
    let mut stack = Stack::start(&Options { instances: 2, ..Options::default() }).await?;
    if let Err(error) = run_with_held_records(&mut stack).await {
        panic!("{error:#}\nlogs: {}", stack.keep_logs().display());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_and_paused_services_lose_and_double_nothing() -> anyhow::Result<()> {
    let mut stack = Stack::start(&Options { instances: 2, ..Options::default() }).await?;
    if let Err(error) = run(&mut stack).await {
        panic!("{error:#}\nlogs: {}", stack.keep_logs().display());
    }
    Ok(())
}
