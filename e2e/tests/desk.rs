//! Records that cannot be applied, as an operator meets them: they are held and then dead, everything else goes on, and
//! when the cause is mended one command brings them through.
//!
//! The cause is a trigger in a service's database, as a mistaken constraint would be.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use e2e::check;
use e2e::client::{Client, order, place, stocked_product, wait_for_status};
use e2e::desk::{accept_again, ask, dead, refuse};
use e2e::stack::{Options, Stack};

/// Bytes that mean nothing, as a stranger might append them.
fn garbage(stack: &Stack, topic: &str) -> anyhow::Result<()> {
    let topic = format!("{}{topic}", stack.prefix);
    let mut kcat = Command::new("kcat")
        .args(["-q", "-P", "-b", &stack.kafka, "-t", &topic, "-p", "0", "-k", "1"])
        .stdin(Stdio::piped())
        .spawn()
        .context("starting kcat; `cargo verify` installs it")?;
    kcat.stdin.take().context("kcat's stdin")?.write_all(b"no bytes of ours")?;
    ensure!(kcat.wait()?.success(), "kcat failed");
    Ok(())
}

async fn run(stack: &mut Stack) -> anyhow::Result<()> {
    let database = stack.databases["order-svc"].clone();
    let customer = Client::customer(stack, "gerd")?;
    let product = stocked_product(stack, 100, 100).await?;
    refuse(&database, "CONFIRMED", 1).await?;
    let mut paid = Vec::new();
    for _ in 0..5 {
        paid.push(place(stack, &customer, &order(&[(&product, 1)], "pm_ok")).await?);
    }
    garbage(stack, "order.commands")?;
    let groups = dead(stack, "order-svc", 6).await?;
    let fails = &groups[0];
    ensure!(fails["class"] == "failed" && fails["code"] == "P0001" && fails["count"] == 5, "{groups}");
    ensure!(fails["event_type"] == "orderlog.payment.PaymentCaptured", "{groups}");
    ensure!(groups[1]["class"] == "poison" && groups[1]["code"] == "NOT_AVRO", "{groups}");
    // Everything else goes on, on the same partitions too, and the service is ready.
    for _ in 0..3 {
        let declined = place(stack, &customer, &order(&[(&product, 1)], "pm_declined")).await?;
        wait_for_status(stack, &customer, &declined, "CANCELLED").await?;
    }
    stack.wait_until_ready().await?;

    let sample = &fails["sample"];
    let place =
        format!("{}/{}/{}", sample["topic"].as_str().context("a topic")?, sample["partition"], sample["offset"]);
    let (_, shown) = ask(stack, &["dlq", "show", "order-svc", &place])?;
    let steps: Vec<&str> =
        shown["history"].as_array().context("a history")?.iter().filter_map(|letter| letter["step"].as_str()).collect();
    ensure!(steps == ["RecordHeld", "AttemptFailed", "RecordDied"], "{shown}");
    ensure!(shown["value"]["order_id"] == shown["key"], "{shown}");
    ensure!(stack.orderctl(&["dlq", "show", "order-svc", &place])?.contains("HISTORY"));

    let group = fails["group"].as_str().context("a group")?;
    let chosen = ["order-svc", "--group", group, "--reason", "constraint dropped"];
    let redrive = |more: &[&'static str]| ask(stack, &[&["dlq", "redrive"], &chosen[..], more].concat());
    let (_, forecast) = redrive(&["--dry-run"])?;
    ensure!(forecast[0]["applied"] == false && forecast[0]["outcome"].to_string().contains("never"), "{forecast}");
    // The fix is wrong: the ramp stops with its first record.
    let (succeeded, driven) = redrive(&["--ramp"])?;
    ensure!(!succeeded && driven["stopped"] == true && driven["kept"] == 1 && driven["settled"] == 0, "{driven}");

    accept_again(&database).await?;
    let (_, forecast) = redrive(&["--dry-run"])?;
    ensure!(forecast[0]["outcome"] == "orderlog.order.OrderConfirmed", "{forecast}");
    let (succeeded, driven) = redrive(&["--ramp"])?;
    ensure!(succeeded && driven["settled"] == 5 && driven["stopped"] == false, "{driven}");
    for id in &paid {
        wait_for_status(stack, &customer, id, "CONFIRMED").await?;
    }
    let poison = groups[1]["group"].as_str().context("a group")?;
    let (succeeded, driven) =
        ask(stack, &["dlq", "discard", "order-svc", "--group", poison, "--reason", "a stranger's"])?;
    ensure!(succeeded && driven["settled"] == 1, "{driven}");
    dead(stack, "order-svc", 0).await?;
    give_up(stack, &customer, &product).await?;
    let (_, held) = ask(stack, &["held"])?;
    ensure!(held.as_array().is_some_and(Vec::is_empty), "{held}");
    check::everything(stack).await?;
    Ok(())
}

/// An order that can never be placed is given up: its customer learns that, and what waits behind it is answered.
async fn give_up(stack: &Stack, customer: &Client, product: &str) -> anyhow::Result<()> {
    let database = stack.databases["order-svc"].clone();
    refuse(&database, "PLACED", 1).await?;
    let id = place(stack, customer, &order(&[(product, 1)], "pm_ok")).await?;
    dead(stack, "order-svc", 1).await?;
    let url = format!("{}/v1/orders/{id}", stack.http("order-svc", 0));
    let waits = customer.get(&url).await?;
    ensure!(waits.body["status"] == "ACCEPTED", "{waits:?}");
    accept_again(&database).await?;
    let (succeeded, driven) = ask(stack, &["dlq", "discard", "order-svc", "--all", "--reason", "gerd called"])?;
    ensure!(succeeded && driven["settled"] == 1, "{driven}");
    let rejected = wait_for_status(stack, customer, &id, "REJECTED").await?;
    ensure!(rejected["reason"] == "DISCARDED", "{rejected}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_redriven_when_their_cause_is_mended() -> anyhow::Result<()> {
    let mut stack = Stack::start(&Options::default()).await?;
    if let Err(error) = run(&mut stack).await {
        panic!("{error:#}\nlogs: {}", stack.keep_logs().display());
    }
    Ok(())
}
