//! Traffic while services are killed, stopped and woken: the end is the same as without.
//!
//! The systematic crash matrix and the chaos run are a later chapter; this is the smoke test of the same promise.

use std::time::Duration;

use e2e::check;
use e2e::client::{Client, answer, order, stocked_product};
use e2e::stack::{Options, SERVICES, Stack};
use nix::sys::signal::Signal;
use reqwest::Method;
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

#[tokio::test(flavor = "multi_thread")]
async fn killed_and_paused_services_lose_and_double_nothing() -> anyhow::Result<()> {
    let mut stack = Stack::start(&Options { instances: 2, ..Options::default() }).await?;
    if let Err(error) = run(&mut stack).await {
        panic!("{error:#}\nlogs: {}", stack.keep_logs().display());
    }
    Ok(())
}
