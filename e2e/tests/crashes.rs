//! Traffic while services are killed, stopped and woken: the end is the same as without.
//!
//! The systematic crash matrix and the chaos run are a later chapter; this is the smoke test of the same promise.

use std::time::Duration;

use anyhow::Context;
use e2e::check;
use e2e::client::{Client, answer, eventually, order, stocked_product};
use e2e::stack::{Options, SERVICES, Stack};
use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::Value;
use sqlx::{Connection, Executor, PgConnection};
use tokio::task::JoinSet;

const ORDERS: usize = 120;

/// Places orders with a key each until every one is accepted; a lost answer is asked for again.
async fn traffic(stack: &Stack, product: &str, orders: usize) -> anyhow::Result<JoinSet<anyhow::Result<()>>> {
    let mut placing = JoinSet::new();
    let url = format!("{}/v1/orders", stack.http("order-svc", 0));
    for number in 0..orders {
        let customer = Client::customer(stack, &format!("crash-{}", number % 10))?;
        let (url, body) = (url.clone(), order(&[(product, 1)], if number % 10 == 0 { "pm_declined" } else { "pm_ok" }));
        placing.spawn(async move {
            let key = uuid::Uuid::new_v4().to_string();
            tokio::time::sleep(Duration::from_millis(100 * number as u64)).await;
            loop {
                let request = customer.request(Method::POST, &url).header("Idempotency-Key", &key).json(&body);
                match answer(request).await {
                    Ok(answer) if answer.status == 202 => return Ok(()),
                    Ok(answer) if answer.status.as_u16() == 409 || answer.status.is_server_error() => {}
                    Ok(answer) => anyhow::bail!("{answer:?}"),
                    Err(_) => {}
                }
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        });
    }
    Ok(placing)
}

async fn run(stack: &mut Stack) -> anyhow::Result<()> {
    let product = stocked_product(stack, 100, 10_000).await?;
    let mut placing = traffic(stack, &product, ORDERS).await?;
    for service in SERVICES {
        stack.kill(service, 0)?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        stack.restart(service, 0)?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    for service in ["inventory-svc", "payment-svc"] {
        stack.signal(service, 1, Signal::SIGSTOP)?;
    }
    tokio::time::sleep(Duration::from_secs(9)).await;
    for service in ["inventory-svc", "payment-svc"] {
        stack.signal(service, 1, Signal::SIGCONT)?;
    }
    while let Some(placed) = placing.join_next().await {
        placed??;
    }
    stack.wait_until_ready().await?;
    let log = check::everything(stack).await?;
    let placed = log.orders()?.iter().filter(|event| event.short_name() == "OrderPlaced").count();
    anyhow::ensure!(placed == ORDERS, "{placed} of {ORDERS} orders were placed");
    anyhow::ensure!(log.dead() == 0, "{} dead letters", log.dead());
    Ok(())
}

/// Every seventh order cannot be confirmed, as a mistaken constraint would have it.
const SOME_NEVER_CONFIRMED: &str = "
    CREATE FUNCTION some_never() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.status = 'CONFIRMED' AND NEW.order_id % 7 = 0 THEN RAISE EXCEPTION 'never' USING ERRCODE = '23514'; END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER some_never BEFORE INSERT OR UPDATE ON projection.orders FOR EACH ROW EXECUTE FUNCTION some_never();";
const MENDED: &str = "DROP TRIGGER some_never ON projection.orders; DROP FUNCTION some_never();";

/// The last line of orderctl with `--json`.
fn ask(stack: &Stack, arguments: &[&str]) -> anyhow::Result<Value> {
    let (_, printed, said) = stack.try_orderctl(&[&["--json"], arguments].concat())?;
    let last = printed.lines().last().with_context(|| format!("{arguments:?} printed nothing: {said}"))?;
    Ok(serde_json::from_str(last)?)
}

async fn run_with_held_records(stack: &mut Stack) -> anyhow::Result<()> {
    let mut database = PgConnection::connect(&stack.databases["order-svc"]).await?;
    let product = stocked_product(stack, 100, 10_000).await?;
    database.execute(SOME_NEVER_CONFIRMED).await?;
    let mut placing = traffic(stack, &product, ORDERS).await?;
    // Both instances in turns: what one has held, the other tries again.
    for round in 0..6 {
        stack.kill("order-svc", round % 2)?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        stack.restart("order-svc", round % 2)?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    while let Some(placed) = placing.join_next().await {
        placed??;
    }
    stack.wait_until_ready().await?;
    let kept = |answer: &Value| answer.as_array().is_some_and(|all| !all.is_empty());
    anyhow::ensure!(kept(&ask(stack, &["held", "order-svc"])?) || kept(&ask(stack, &["dlq", "list", "order-svc"])?));
    database.execute(MENDED).await?;
    eventually("nothing held or dead", Duration::from_secs(60), async || {
        ask(stack, &["dlq", "redrive", "order-svc", "--all", "--reason", "constraint dropped"])?;
        let (held, dead) = (ask(stack, &["held", "order-svc"])?, ask(stack, &["dlq", "list", "order-svc"])?);
        Ok(if kept(&held) || kept(&dead) { Err(format!("{held} {dead}")) } else { Ok(()) })
    })
    .await?;
    let log = check::everything(stack).await?;
    let of = |name| log.orders().map(|all| all.iter().filter(|event| event.short_name() == name).count());
    let (placed, confirmed) = (of("OrderPlaced")?, of("OrderConfirmed")?);
    anyhow::ensure!(placed == ORDERS, "{placed} of {ORDERS} orders were placed");
    anyhow::ensure!(confirmed == ORDERS - ORDERS / 10, "{confirmed} orders are confirmed");
    Ok(())
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
