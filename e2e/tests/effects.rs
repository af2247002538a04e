//! Calls to the outside that never succeed, as an operator meets them: dead letters that keep nobody waiting, and one
//! command that calls once more when the other side is mended.
//!
//! An outage of the other side is no failure of the call; that it uses up no attempt is the engine's contract.

use anyhow::{Context, ensure};
use e2e::check;
use e2e::client::{Client, order, place, stocked_product, wait_for_status};
use e2e::desk::{ask, dead};
use e2e::stack::{Options, Stack};
use serde_json::{Value, json};

/// From now on a simulator meets every call like this.
async fn plan(base: &str, mode: &str) -> anyhow::Result<()> {
    let client = reqwest::Client::new();
    client.post(format!("{base}/admin/plan")).json(&json!({"mode": mode})).send().await?.error_for_status()?;
    Ok(())
}

/// TOPIC/PARTITION/OFFSET/EFFECT
fn place_of(sample: &Value) -> anyhow::Result<String> {
    let text = |name: &str| sample[name].as_str().with_context(|| format!("{name} of {sample}"));
    Ok(format!("{}/{}/{}/{}", text("topic")?, sample["partition"], sample["offset"], text("effect")?))
}

/// A charge that the gateway answers with 500 eight times.
async fn charge(stack: &Stack, customer: &Client, id: &str) -> anyhow::Result<()> {
    let groups = dead(stack, "payment-svc", 1).await?;
    ensure!(groups[0]["class"] == "effect" && groups[0]["code"] == "GATEWAY_ERROR", "{groups}");
    ensure!(groups[0]["event_type"] == "orderlog.payment.PaymentRequested", "{groups}");
    let place = place_of(&groups[0]["sample"])?;
    ensure!(place.ends_with("/charge"), "{place}");
    let (_, shown) = ask(stack, &["dlq", "show", "payment-svc", &place])?;
    ensure!(shown["attempts"] == 8 && shown["value"]["order_id"] == id, "{shown}");
    ensure!(shown["history"].as_array().is_some_and(|letters| letters.len() == 1), "{shown}");
    // Nobody waits for it: the order is as open as it was, and the service is ready.
    let open = wait_for_status(stack, customer, id, "PLACED").await?;
    ensure!(open["status"] == "PLACED", "{open}");

    let chosen = ["payment-svc", "--record", &place, "--reason", "gateway mended"];
    let (_, forecast) = ask(stack, &[&["dlq", "redrive"], &chosen[..], &["--dry-run"]].concat())?;
    ensure!(forecast[0]["applied"].is_null(), "{forecast}");
    let (succeeded, _, said) = stack.try_orderctl(&[&["dlq", "discard"], &chosen[..]].concat())?;
    ensure!(!succeeded && said.contains("can only be redriven"), "{said}");
    // It is not mended yet.
    let (succeeded, driven) = ask(stack, &[&["dlq", "redrive"], &chosen[..]].concat())?;
    ensure!(!succeeded && driven["kept"] == 1, "{driven}");
    let (_, shown) = ask(stack, &["dlq", "show", "payment-svc", &place])?;
    ensure!(shown["attempts"] == 9 && shown["history"][1]["operator"] == "orderctl", "{shown}");

    plan(&stack.gateway, "normal").await?;
    let ramp = ["payment-svc", "--all", "--reason", "gateway mended", "--ramp"];
    let (succeeded, driven) = ask(stack, &[&["dlq", "redrive"], &ramp[..]].concat())?;
    ensure!(succeeded && driven["settled"] == 1, "{driven}");
    wait_for_status(stack, customer, id, "CONFIRMED").await?;
    dead(stack, "payment-svc", 0).await?;
    let charges = check::all(&format!("{}/v1/charges", stack.gateway)).await?;
    ensure!(charges.len() == 1 && charges[0]["status"] == "captured", "{charges:?}");
    Ok(())
}

/// The confirmation's mail and SMS, which both servers refuse for now.
async fn notices(stack: &Stack, customer: &Client, id: &str) -> anyhow::Result<()> {
    let groups = dead(stack, "notify-svc", 2).await?;
    let group = |code: &str| {
        let found = groups.as_array().into_iter().flatten().find(|group| group["code"] == code);
        found.and_then(|group| group["group"].as_str()).with_context(|| format!("{code} in {groups}"))
    };
    let (mail, sms) = (group("SMTP_TRANSIENT")?, group("SMS_PROVIDER")?);
    plan(&stack.sink, "normal").await?;
    let (succeeded, driven) =
        ask(stack, &["dlq", "redrive", "notify-svc", "--group", mail, "--reason", "server mended"])?;
    ensure!(succeeded && driven["settled"] == 1, "{driven}");
    let (succeeded, driven) =
        ask(stack, &["dlq", "discard", "notify-svc", "--group", sms, "--reason", "a mail is enough"])?;
    ensure!(succeeded && driven["settled"] == 1, "{driven}");
    dead(stack, "notify-svc", 0).await?;
    let messages = check::all(&format!("{}/messages", stack.sink)).await?;
    let ids: Vec<&str> = messages.iter().filter_map(|message| message["message_id"].as_str()).collect();
    ensure!(ids == [format!("{id}.ORDER_CONFIRMED.EMAIL@orderlog")], "{messages:?}");
    let url = format!("{}/v1/notifications?order={id}", stack.http("notify-svc", 0));
    let said = customer.get(&url).await?.body.to_string();
    ensure!(said.contains("SENT") && said.contains("FAILED"), "{said}");
    Ok(())
}

async fn run(stack: &Stack) -> anyhow::Result<()> {
    let customer = Client::customer(stack, "hedda")?;
    let contact = format!("{}/v1/contacts/hedda", stack.http("notify-svc", 0));
    customer.put(&contact, &json!({"email": "hedda@example.test", "phone": "+4915112345678"})).await?;
    let product = stocked_product(stack, 100, 100).await?;
    plan(&stack.gateway, "error").await?;
    plan(&stack.sink, "reject_4xx").await?;
    let id = place(stack, &customer, &order(&[(&product, 1)], "pm_ok")).await?;
    charge(stack, &customer, &id).await?;
    notices(stack, &customer, &id).await?;
    check::everything(stack).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_never_succeed_are_dead_letters_until_the_other_side_is_mended() -> anyhow::Result<()> {
    let effect_delays = "20ms,20ms,20ms,20ms,20ms,20ms,20ms";
    let mut stack = Stack::start(&Options { effect_delays, ..Options::default() }).await?;
    if let Err(error) = run(&stack).await {
        panic!("{error:#}\nlogs: {}", stack.keep_logs().display());
    }
    Ok(())
}
