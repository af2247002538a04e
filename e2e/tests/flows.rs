//! Every flow of an order, end to end: real processes, real Kafka and Postgres, the simulators' scripted payments.
//!
//! One stack for all of them, since they do not disturb each other; each ends in the same check of everything.

use std::time::Duration;

use e2e::check;
use e2e::client::{Client, eventually, order, place, stocked_product, wait_for_status};
use e2e::stack::{Options, Stack};
use reqwest::Method;
use serde_json::{Value, json};

async fn payment_status(stack: &Stack, client: &Client, id: &str, status: &str) -> anyhow::Result<Value> {
    let url = format!("{}/v1/payments/{id}", stack.http("payment-svc", 0));
    eventually(&format!("payment of {id} {status}"), Duration::from_secs(60), async || {
        let seen = client.get(&url).await?;
        Ok(if seen.body["status"] == status { Ok(seen.body) } else { Err(format!("{seen:?}")) })
    })
    .await
}

async fn notice(stack: &Stack, id: &str, kind: &str, channel: &str) -> anyhow::Result<Value> {
    let url = format!("{}/messages", stack.sink);
    eventually(&format!("the {kind} of {id} by {channel}"), Duration::from_secs(60), async || {
        let messages = check::all(&url).await?;
        let wanted = |message: &&Value| {
            let message_id = message["message_id"].as_str().unwrap_or_default();
            message["channel"] == channel && message_id.contains(id) && message_id.contains(kind)
        };
        Ok(messages.iter().find(wanted).cloned().ok_or_else(|| format!("{} messages", messages.len())))
    })
    .await
}

async fn with_contact(stack: &Stack, sub: &str) -> anyhow::Result<Client> {
    let customer = Client::customer(stack, sub)?;
    let url = format!("{}/v1/contacts/{sub}", stack.http("notify-svc", 0));
    let put = customer.put(&url, &json!({"email": format!("{sub}@example.test"), "phone": "+4915112345678"})).await?;
    anyhow::ensure!(put.status == 200, "{put:?}");
    Ok(customer)
}

async fn happy_and_declined(stack: &Stack) -> anyhow::Result<()> {
    let customer = with_contact(stack, "anna").await?;
    let product = stocked_product(stack, 99, 1_000).await?;
    let paid = place(stack, &customer, &order(&[(&product, 2)], "pm_ok")).await?;
    let seen = wait_for_status(stack, &customer, &paid, "CONFIRMED").await?;
    assert_eq!(seen["version"], 2);
    assert_eq!(seen["total"], json!({"amount": 198, "currency": "USD"}));
    for channel in ["EMAIL", "SMS"] {
        notice(stack, &paid, "ORDER_CONFIRMED", channel).await?;
    }
    for (method, reason) in [
        ("pm_declined", "PAYMENT_DECLINED"),
        ("pm_failed", "PAYMENT_FAILED"),
        ("pm_nobody_knows", "PAYMENT_FAILED"),
        ("pm_wrong_amount", "PAYMENT_DECLINED"),
    ] {
        let id = place(stack, &customer, &order(&[(&product, 1)], method)).await?;
        let seen = wait_for_status(stack, &customer, &id, "CANCELLED").await?;
        assert_eq!(seen["reason"], reason, "{method}");
    }
    for method in ["pm_slow", "pm_twice", "pm_early", "pm_late_decline"] {
        let id = place(stack, &customer, &order(&[(&product, 1)], method)).await?;
        wait_for_status(stack, &customer, &id, "CONFIRMED").await?;
    }
    Ok(())
}

async fn sold_out(stack: &Stack) -> anyhow::Result<()> {
    let customer = Client::customer(stack, "bert")?;
    let (plenty, scarce) = (stocked_product(stack, 10, 100).await?, stocked_product(stack, 20, 3).await?);
    let body = order(&[(&plenty, 1), (&scarce, 2)], "pm_ok");
    let first = place(stack, &customer, &body).await?;
    wait_for_status(stack, &customer, &first, "CONFIRMED").await?;
    let second = place(stack, &customer, &body).await?;
    let seen = wait_for_status(stack, &customer, &second, "CANCELLED").await?;
    assert_eq!(seen["reason"], "OUT_OF_STOCK");
    Ok(())
}

async fn cancelled(stack: &Stack) -> anyhow::Result<()> {
    let customer = Client::customer(stack, "carl")?;
    let product = stocked_product(stack, 500, 100).await?;
    let orders = format!("{}/v1/orders", stack.http("order-svc", 0));
    // Before the capture: the checkout page is never used.
    let id = place(stack, &customer, &order(&[(&product, 1)], "pm_checkout")).await?;
    let pending = payment_status(stack, &customer, &id, "PENDING").await?;
    assert!(pending["pay_url"].as_str().is_some_and(|url| url.contains(&id)), "{pending}");
    let answer = customer.post(&format!("{orders}/{id}/cancel"), &json!({"reason": "CHANGED_MIND"})).await?;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.body["status"], "CANCELLED");
    payment_status(stack, &customer, &id, "CANCELLED").await?;
    // Twice, and after confirmation: too late.
    let again = customer.post(&format!("{orders}/{id}/cancel"), &json!({})).await?;
    assert_eq!(again.status, 409, "{again:?}");
    let paid = place(stack, &customer, &order(&[(&product, 1)], "pm_ok")).await?;
    wait_for_status(stack, &customer, &paid, "CONFIRMED").await?;
    let late = customer.post(&format!("{orders}/{paid}/cancel"), &json!({})).await?;
    assert_eq!((late.status.as_u16(), &late.body["order_status"]), (409, &json!("CONFIRMED")), "{late:?}");
    // An operator gives the money back, once.
    let operator = Client::operator(stack)?;
    let refunds = format!("{}/v1/payments/{paid}/refunds", stack.http("payment-svc", 0));
    let refund = operator.post(&refunds, &json!({"reason": "REQUESTED_BY_CUSTOMER"})).await?;
    assert!(refund.status.is_success(), "{refund:?}");
    payment_status(stack, &customer, &paid, "REFUNDED").await?;
    let twice = operator.post(&refunds, &json!({})).await?;
    assert_eq!(twice.status, 409, "{twice:?}");
    Ok(())
}

async fn paid_on_the_page(stack: &Stack) -> anyhow::Result<()> {
    let customer = with_contact(stack, "dora").await?;
    let product = stocked_product(stack, 700, 100).await?;
    let id = place(stack, &customer, &order(&[(&product, 1)], "pm_checkout")).await?;
    let pending = payment_status(stack, &customer, &id, "PENDING").await?;
    let page = pending["pay_url"].as_str().expect("a page").to_owned();
    let html = customer.request(Method::GET, &page).send().await?.text().await?;
    let action = html.split("action=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a form");
    let url = if action.starts_with("http") { action.to_owned() } else { format!("{}{action}", stack.gateway) };
    let paid = customer.request(Method::POST, &url).send().await?;
    anyhow::ensure!(paid.status().is_success() || paid.status().is_redirection(), "{paid:?}");
    wait_for_status(stack, &customer, &id, "CONFIRMED").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_end_as_the_design_says() -> anyhow::Result<()> {
    let mut stack = Stack::start(&Options::default()).await?;
    let run = async {
        happy_and_declined(&stack).await?;
        sold_out(&stack).await?;
        cancelled(&stack).await?;
        paid_on_the_page(&stack).await?;
        check::everything(&stack).await
    };
    match run.await {
        Ok(log) => assert_eq!(log.dead(), 0),
        Err(error) => panic!("{error:#}\nlogs: {}", stack.keep_logs().display()),
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_that_are_not_paid_in_time_expire_with_a_reminder() -> anyhow::Result<()> {
    let mut stack = Stack::start(&Options { pay_within: "6s", ..Options::default() }).await?;
    let run = async {
        let customer = with_contact(&stack, "emil").await?;
        let product = stocked_product(&stack, 100, 100).await?;
        let silent = place(&stack, &customer, &order(&[(&product, 1)], "pm_never")).await?;
        let late = place(&stack, &customer, &order(&[(&product, 1)], "pm_late")).await?;
        notice(&stack, &silent, "PAYMENT_REMINDER", "EMAIL").await?;
        for id in [&silent, &late] {
            wait_for_status(&stack, &customer, id, "EXPIRED").await?;
            notice(&stack, id, "ORDER_EXPIRED", "SMS").await?;
        }
        payment_status(&stack, &customer, &silent, "CANCELLED").await?;
        payment_status(&stack, &customer, &late, "REFUNDED").await?;
        check::everything(&stack).await
    };
    match run.await {
        Ok(log) => assert_eq!(log.dead(), 0),
        Err(error) => panic!("{error:#}\nlogs: {}", stack.keep_logs().display()),
    }
    Ok(())
}
