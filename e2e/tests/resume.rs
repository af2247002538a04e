//! A record that cannot be applied stops its processor, and an operator lets it go on when the cause is mended.
//!
//! The cause is a trigger in the service's database, as a mistaken constraint would be; other keys' records on the same
//! partition wait too, as long as there are no held records.

use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::check;
use e2e::client::{Client, answer, eventually, order, place, stocked_product, wait_for_status};
use e2e::stack::{Options, Stack};
use reqwest::Method;
use serde_json::Value;
use sqlx::{Connection, Executor, PgConnection};

const NEVER_CONFIRMED: &str = "
    CREATE FUNCTION never_confirmed() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.status = 'CONFIRMED' THEN RAISE EXCEPTION 'never' USING ERRCODE = '23514'; END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER never_confirmed BEFORE INSERT OR UPDATE ON projection.orders FOR EACH ROW
    EXECUTE FUNCTION never_confirmed();";
const MENDED: &str = "DROP TRIGGER never_confirmed ON projection.orders; DROP FUNCTION never_confirmed();";

/// The stopped processor of order-svc, as an operator sees it.
async fn stopped(operator: &Client, processors: &str) -> anyhow::Result<Value> {
    eventually("a stopped processor", Duration::from_secs(60), async || {
        let seen = operator.get(processors).await?;
        ensure!(seen.status == 200, "{seen:?}");
        let all = seen.body["processors"].as_array().context("processors")?;
        Ok(all.iter().find(|one| one["state"] == "stopped").cloned().ok_or_else(|| format!("{seen:?}")))
    })
    .await
}

async fn run(stack: &mut Stack) -> anyhow::Result<()> {
    let mut database = PgConnection::connect(&stack.databases["order-svc"]).await?;
    let (operator, customer) = (Client::operator(stack)?, Client::customer(stack, "gerd")?);
    let product = stocked_product(stack, 100, 100).await?;
    database.execute(NEVER_CONFIRMED).await?;
    let id = place(stack, &customer, &order(&[(&product, 1)], "pm_ok")).await?;

    let processors = format!("{}/admin/processors", stack.admin("order-svc", 0));
    let one = stopped(&operator, &processors).await?;
    let reason = one["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains("payment.events") && reason.contains("Postgres refuses it"), "{one}");
    let ready = operator.get(&format!("{}/readyz", stack.admin("order-svc", 0))).await?;
    ensure!(ready.status == 503 && ready.body["reasons"].to_string().contains("is not live"), "{ready:?}");

    database.execute(MENDED).await?;
    let partition = one["partition"].to_string();
    stack.orderctl(&["processors", "resume", "order-svc", &partition])?;
    wait_for_status(stack, &customer, &id, "CONFIRMED").await?;
    stack.wait_until_ready().await?;
    let again = answer(operator.request(Method::POST, &format!("{processors}/{partition}/resume"))).await?;
    ensure!(again.status == 409 && again.body["state"] == "live", "{again:?}");
    let log = check::everything(stack).await?;
    ensure!(log.dead() == 0, "{} dead letters", log.dead());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_processor_goes_on_when_an_operator_says_so() -> anyhow::Result<()> {
    let mut stack = Stack::start(&Options::default()).await?;
    if let Err(error) = run(&mut stack).await {
        panic!("{error:#}\nlogs: {}", stack.keep_logs().display());
    }
    Ok(())
}
