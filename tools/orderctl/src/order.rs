//! `orderctl order place|get|cancel|watch`: one order, over the HTTP API.
//!
//! A customer's token is signed with the local key, as `orderctl token` does; that is for development machines.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::cli::{Cancel, NewOrder, Order};
use crate::client::{Client, Request, Who};
use crate::output::{Output, line, money, print, table};
use crate::services::ServiceName;
use crate::settings::Settings;

/// A person waits; an outage of the service is told at once instead of being waited out.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Longer than an order lives with the default settings (15 min to pay, and the grace after an outage).
const WATCH_MAX: Duration = Duration::from_secs(30 * 60);

pub(crate) async fn run(settings: &Settings, out: Output, what: Order) -> anyhow::Result<ExitCode> {
    let client = Client::new(settings, PATIENCE)?;
    match what {
        Order::Place(args) => place(&client, out, args).await?,
        Order::Get(order) => out.show(&get(&client, order.id).await?, show),
        Order::Cancel(args) => cancel(&client, out, args).await?,
        Order::Watch(order) => watch(&client, out, order.id).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn place(client: &Client, out: Output, args: NewOrder) -> anyhow::Result<()> {
    let lines: Vec<Value> = args
        .lines
        .iter()
        .map(|(product, quantity)| json!({ "product_id": product.to_string(), "quantity": quantity }))
        .collect();
    let mut body = json!({ "lines": lines, "payment_method": args.payment_method });
    if let Some(amount) = args.expected_total {
        body["expected_total"] = json!({ "amount": amount, "currency": "USD" });
    }
    let key = args.key.unwrap_or_else(new_key);
    let who = Who::Customer(&args.customer);
    let mut request = Request::post(ServiceName::Order, who, "/v1/orders", key, body);
    request.wait = args.wait;
    let order = client.ask(&request).await?.success()?;
    out.show(&order, show);
    Ok(())
}

/// An order as an operator sees it.
async fn get(client: &Client, id: i64) -> anyhow::Result<Value> {
    let request = Request::get(ServiceName::Order, Who::Operator, format!("/v1/orders/{id}"));
    client.ask(&request).await?.success()
}

async fn cancel(client: &Client, out: Output, args: Cancel) -> anyhow::Result<()> {
    let order = get(client, args.id).await?;
    let Some(customer) = order["customer_id"].as_str() else {
        bail!("order {} is not placed yet; try again", args.id);
    };
    let body = args.reason.map_or_else(|| json!({}), |reason| json!({ "reason": reason }));
    let path = format!("/v1/orders/{}/cancel", args.id);
    let key = args.key.unwrap_or_else(new_key);
    let mut request = Request::post(ServiceName::Order, Who::Customer(customer), path, key, body).waiting(5);
    request.if_match = args.if_match;
    let order = client.ask(&request).await?.success()?;
    out.show(&order, show);
    Ok(())
}

/// Prints the order whenever it has changed, until it is final.
async fn watch(client: &Client, out: Output, id: i64) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut seen = Value::Null;
    while started.elapsed() < WATCH_MAX {
        let order = get(client, id).await?;
        if order != seen {
            if out.json {
                print(&line(&order));
            } else {
                print(&format!("{:7.3} s  {}", started.elapsed().as_secs_f64(), headline(&order)));
            }
            seen = order;
        }
        let status = seen["status"].as_str().unwrap_or_default();
        if !matches!(status, "ACCEPTED" | "PLACED") {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    bail!("order {id} is still {} after {} min", seen["status"], WATCH_MAX.as_secs() / 60)
}

fn new_key() -> String {
    Uuid::new_v4().to_string()
}

fn headline(order: &Value) -> String {
    let text = |name: &str| order[name].as_str().unwrap_or_default();
    let reason = order["reason"].as_str().map_or_else(String::new, |reason| format!("({reason})"));
    let total = order.get("total").filter(|total| total.is_object()).map_or_else(String::new, money);
    format!("order {} {}{reason} {total}", text("order_id"), text("status")).trim_end().to_owned()
}

fn show(order: &Value) -> String {
    let lines = order["lines"].as_array().map(Vec::as_slice).unwrap_or_default();
    if lines.is_empty() {
        return headline(order);
    }
    let rows = lines.iter().map(|line| {
        let price = line.get("unit_price").filter(|price| price.is_object()).map_or_else(String::new, money);
        [line["product_id"].as_str().unwrap_or_default().to_owned(), line["quantity"].to_string(), price]
    });
    format!("{}\n{}", headline(order), table(["PRODUCT", "QUANTITY", "PRICE"], rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_a_headline_and_its_lines() {
        let order = json!({"order_id": "7", "status": "CANCELLED", "reason": "OUT_OF_STOCK", "lines":
            [{"product_id": "1", "quantity": 2, "unit_price": {"amount": 99, "currency": "USD"}}],
            "total": {"amount": 198, "currency": "USD"}});
        let text = show(&order);
        assert!(text.starts_with("order 7 CANCELLED(OUT_OF_STOCK) 1.98 USD\n"), "{text}");
        assert!(text.contains("0.99 USD"));
        assert_eq!(show(&json!({"order_id": "7", "status": "ACCEPTED"})), "order 7 ACCEPTED");
    }
}
