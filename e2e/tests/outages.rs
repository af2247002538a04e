//! Servers go away under load and come back: nothing fails for it, and all goes on at once (DESIGN §5, dependency is down).
//!
//! 8 s each in `cargo verify --only long`, 60 s with `--full`; a broker that really ends is in the chaos run.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::check;
use e2e::client::{Answer, Client, eventually, order, place, stocked_product, wait_for_status};
use e2e::outage::{Cut, Cuttable, Load, Peer, timed};
use e2e::stack::{Options, SERVICES, Stack};
use reqwest::Method;
use serde_json::{Value, json};

/// All goes on within this time after a return.
const BACK_WITHIN: Duration = Duration::from_secs(5);
/// From the cut to an open breaker: a time-out of a caller, and a probe.
const NOTICED_WITHIN: Duration = Duration::from_secs(10);
/// A breaker that is open is no reason to wait.
const AT_ONCE: Duration = Duration::from_secs(1);
const RSS_MIB_MAX: u64 = 250;

fn full() -> bool {
    std::env::var_os("ORDERLOG_TEST_FULL").is_some()
}

fn away_for() -> Duration {
    Duration::from_secs(if full() { 60 } else { 8 })
}

/// A customer who is told of their orders.
async fn customer(stack: &Stack) -> anyhow::Result<Client> {
    let customer = Client::customer(stack, "otto")?;
    let url = format!("{}/v1/contacts/otto", stack.http("notify-svc", 0));
    let contact = json!({"email": "otto@example.test", "phone": "+4915112345678"});
    let put = customer.put(&url, &contact).await?;
    ensure!(put.status == 200, "{put:?}");
    Ok(customer)
}

/// What is asked of all services while something is away.
struct Asker<'a> {
    stack: &'a Stack,
    customer: Client,
    operator: Client,
    product: String,
    order: String,
}

impl Asker<'_> {
    fn reads(&self) -> Vec<(&Client, String)> {
        let (order, product) = (&self.order, &self.product);
        let at = |service| self.stack.http(service, 0);
        vec![
            (&self.customer, format!("{}/v1/orders/{order}", at("order-svc"))),
            (&self.customer, format!("{}/v1/orders?limit=3", at("order-svc"))),
            (&self.customer, format!("{}/v1/products?limit=3", at("order-svc"))),
            (&self.customer, format!("{}/v1/payments/{order}", at("payment-svc"))),
            (&self.operator, format!("{}/v1/products/{product}/stock", at("inventory-svc"))),
            (&self.customer, format!("{}/v1/notifications?order={order}", at("notify-svc"))),
        ]
    }

    /// Everything that appends a command.
    fn commands(&self) -> Vec<(&Client, Method, String, Value)> {
        let (order_id, product) = (&self.order, &self.product);
        let at = |service| format!("{}/v1", self.stack.http(service, 0));
        let (orders, products, payments) = (at("order-svc"), at("inventory-svc"), at("payment-svc"));
        let money = json!({"amount": 5, "currency": "USD"});
        let (customer, operator) = (&self.customer, &self.operator);
        vec![
            (customer, Method::POST, format!("{orders}/orders"), order(&[(product, 1)], "pm_ok")),
            (customer, Method::POST, format!("{orders}/orders/{order_id}/cancel"), json!({"reason": "CHANGED_MIND"})),
            (operator, Method::POST, format!("{products}/products"), json!({"name": "PEARS", "price": money})),
            (operator, Method::POST, format!("{products}/products/{product}/receipts"), json!({"quantity": 1})),
            (operator, Method::PUT, format!("{products}/products/{product}/price"), money),
            (operator, Method::POST, format!("{payments}/payments/{order_id}/refunds"), json!({})),
        ]
    }

    async fn command(&self, command: &(&Client, Method, String, Value)) -> anyhow::Result<(Answer, Duration)> {
        let (client, method, url, body) = command;
        let key = uuid::Uuid::new_v4().to_string();
        timed(client.request(method.clone(), url).header("Idempotency-Key", key).json(body)).await
    }

    async fn served(&self) -> anyhow::Result<()> {
        for (client, url) in self.reads() {
            let (seen, took) = timed(client.request(Method::GET, &url)).await?;
            ensure!(seen.status == 200 && took < AT_ONCE, "{url} after {took:?}: {seen:?}");
        }
        Ok(())
    }

    /// Turned away at once, with a word on when to come again; nothing is done.
    async fn turned_away(&self, reads_too: bool) -> anyhow::Result<()> {
        let mut seen = Vec::new();
        for command in self.commands() {
            seen.push((command.2.clone(), self.command(&command).await?));
        }
        let events = format!("{}/v1/orders/{}/events", self.stack.http("order-svc", 0), self.order);
        let reads = self.reads().into_iter().filter(|_| reads_too).chain([(&self.customer, events)]);
        for (client, url) in reads {
            seen.push((url.clone(), timed(client.request(Method::GET, &url)).await?));
        }
        for (url, (answer, took)) in seen {
            let again = answer.headers.get("retry-after").and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
            ensure!(answer.status == 503 && again.is_some_and(|again| again <= 5), "{url}: {answer:?}");
            ensure!(answer.body["code"] == "UNAVAILABLE", "{url}: {answer:?}");
            ensure!(took < AT_ONCE, "{url} took {took:?}");
        }
        Ok(())
    }
}

/// Who needs it, and whether they are ready without it.
fn who_needs(peer: Peer) -> (&'static str, Vec<&'static str>, bool) {
    match peer {
        Peer::Postgres => ("postgres", SERVICES.to_vec(), false),
        Peer::Kafka => ("kafka", SERVICES.to_vec(), false),
        // Asked about unknown schemas alone.
        Peer::Registry => ("registry", Vec::new(), true),
        Peer::Gateway => ("gateway", vec!["payment-svc"], true),
        Peer::Smtp => ("smtp", vec!["notify-svc"], true),
    }
}

fn dependency<'a>(readiness: &'a Value, name: &str) -> Option<&'a Value> {
    readiness["dependencies"].as_array()?.iter().find(|one| one["name"] == name)
}

/// Waits until every breaker of it is open, and looks at what readiness and metrics say.
async fn noticed(cuttable: &Cuttable, peer: Peer) -> anyhow::Result<()> {
    let (name, services, ready) = who_needs(peer);
    for service in services {
        let seen = eventually(&format!("{service} notices that {name} is away"), NOTICED_WITHIN, async || {
            let (_, seen) = cuttable.readiness(service).await?;
            let away = dependency(&seen, name).is_some_and(|one| one["state"] != "closed");
            Ok(if away { Ok(seen) } else { Err(seen.to_string()) })
        })
        .await?;
        let shown = dependency(&seen, name).context("just seen")?;
        ensure!(shown["since"].is_string() && shown["error"].is_string(), "{shown}");
        let reasons = seen["reasons"].to_string();
        ensure!(reasons.contains("is waiting for ") && reasons.contains(" since "), "{service}: {reasons}");
        ensure!(cuttable.readiness(service).await?.0 == ready, "{service}: {seen}");
        let up = cuttable.metric(service, &format!("orderlog_dependency_up{{dependency=\"{name}\"}}")).await?;
        ensure!(up == 0.0, "{service}: {name} up {up}");
    }
    Ok(())
}

/// A message about this order.
async fn told(stack: &Stack, order: &str, within: Duration) -> anyhow::Result<()> {
    eventually(&format!("a mail about {order}"), within, async || {
        let messages = check::all(&format!("{}/messages", stack.sink)).await?;
        let wanted =
            |message: &Value| message["channel"] == "EMAIL" && message["message_id"].to_string().contains(order);
        Ok(if messages.iter().any(wanted) { Ok(()) } else { Err(format!("{} messages", messages.len())) })
    })
    .await
}

/// Waits until what an outage has left is worked off. A mail whose last answer is cut off is sent twice, by design; under the
/// load alone that is one or two, in the rush after an outage as many as are sent at once.
async fn calm(cuttable: &Cuttable) -> anyhow::Result<()> {
    eventually("only the load is under way", Duration::from_secs(60), async || {
        let (_, seen) = cuttable.readiness("notify-svc").await?;
        let processors = seen["processors"].as_array().into_iter().flatten();
        let lag: i64 = processors.filter_map(|one| one["lag"].as_i64()).sum();
        let due = cuttable.due_notices().await?;
        Ok(if lag + due <= 4 { Ok(()) } else { Err(format!("lag {lag}, {due} notices to be sent")) })
    })
    .await
}

/// Takes a peer away under load and gives it back.
async fn outage(cuttable: &Cuttable, asker: &Asker<'_>, load: &Load, peer: Peer, how: Cut) -> anyhow::Result<()> {
    let stack = &cuttable.stack;
    calm(cuttable).await?;
    let epochs = cuttable.epochs().await?;
    let accepted = load.seen().0;
    cuttable.cut(peer, how);
    let cut = Instant::now();
    noticed(cuttable, peer).await?;
    let noticed = cut.elapsed();
    let mut waiting = None;
    match peer {
        Peer::Postgres => asker.turned_away(true).await?,
        Peer::Kafka => {
            asker.turned_away(false).await?;
            asker.served().await?;
        }
        Peer::Registry | Peer::Gateway | Peer::Smtp => {
            asker.served().await?;
            let placed = place(stack, &asker.customer, &order(&[(&asker.product, 1)], "pm_ok")).await?;
            if peer != Peer::Gateway {
                wait_for_status(stack, &asker.customer, &placed, "CONFIRMED").await?;
            }
            waiting = Some(placed);
        }
    }
    let left = eventually("the end of the outage", away_for() + NOTICED_WITHIN, async || {
        Ok(if cut.elapsed() >= away_for() { Ok(()) } else { Err(format!("{:?}", cut.elapsed())) })
    });
    left.await?;
    let largest = cuttable.largest_mib()?;
    let during = load.seen();
    cuttable.heal();
    let back = Instant::now();
    let until =
        |what: &'static str| move |error: anyhow::Error| error.context(format!("{what} after {peer:?} is back"));
    let placed = eventually("an order is taken", BACK_WITHIN, async || {
        let placed = place(stack, &asker.customer, &order(&[(&asker.product, 1)], "pm_ok")).await;
        Ok(placed.map_err(|error| error.to_string()))
    })
    .await
    .map_err(until("taking orders"))?;
    let taken = back.elapsed();
    for order in waiting.iter().chain([&placed]) {
        wait_for_status(stack, &asker.customer, order, "CONFIRMED").await?;
    }
    let confirmed = back.elapsed();
    if peer == Peer::Smtp {
        told(stack, waiting.as_deref().unwrap_or_default(), BACK_WITHIN).await?;
    }
    println!(
        "{peer:?} {how:?}: noticed after {noticed:?}; {} accepted and {} turned away meanwhile; back: taken after \
         {taken:?}, confirmed after {confirmed:?}; largest {largest} MiB",
        during.0 - accepted,
        during.1
    );
    ensure!(confirmed < BACK_WITHIN, "{peer:?} {how:?}: orders flow only {confirmed:?} after its return");
    ensure!(largest < RSS_MIB_MAX, "{peer:?} {how:?}: a service has grown to {largest} MiB");
    cuttable.nothing_failed().await.with_context(|| format!("{peer:?} {how:?}"))?;
    let now = cuttable.epochs().await?;
    // A broker that hears nothing of its members ends their sessions, and a COMMIT without an answer is no owner's.
    ensure!(
        matches!(peer, Peer::Kafka | Peer::Postgres) || now == epochs,
        "{peer:?} {how:?}: {epochs:?} became {now:?}"
    );
    Ok(())
}

async fn outages(cuttable: &mut Cuttable, how: Cut, peers: &[Peer]) -> anyhow::Result<()> {
    let stack = &cuttable.stack;
    let customer = customer(stack).await?;
    let product = stocked_product(stack, 100, 100_000).await?;
    let order_id = place(stack, &customer, &order(&[(&product, 1)], "pm_ok")).await?;
    wait_for_status(stack, &customer, &order_id, "CONFIRMED").await?;
    let load = Load::start(stack, "otto", &product)?;
    let asker = Asker { stack, customer, operator: Client::operator(stack)?, product, order: order_id };
    for peer in peers {
        outage(cuttable, &asker, &load, *peer, how).await.with_context(|| format!("{peer:?}, {how:?}"))?;
    }
    let placed = load.finish().await?;
    let log = check::everything(stack).await?;
    cuttable.nothing_failed().await?;
    ensure!(log.dead() == 0, "{} dead letters", log.dead());
    let ends = |name| log.orders().map(|all| all.iter().filter(|event| event.short_name() == name).count());
    ensure!(ends("OrderPlaced")? >= placed, "{placed} orders were accepted");
    ensure!(ends("OrderConfirmed")? == ends("OrderPlaced")?, "every order is paid");
    for service in SERVICES {
        let (ready, seen) = cuttable.readiness(service).await?;
        ensure!(ready && seen["reasons"] == json!([]), "{service}: {seen}");
    }
    Ok(())
}

async fn run(how: Cut, peers: &[Peer]) -> anyhow::Result<()> {
    let mut cuttable = Cuttable::start(&Options::default()).await?;
    if let Err(error) = outages(&mut cuttable, how, peers).await {
        panic!("{error:#}\nlogs: {}", cuttable.stack.keep_logs().display());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_refuse_connections_for_a_while_cost_nothing() -> anyhow::Result<()> {
    run(Cut::Refused, &[Peer::Postgres, Peer::Kafka, Peer::Registry, Peer::Gateway, Peer::Smtp]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_fall_silent_for_a_while_cost_nothing() -> anyhow::Result<()> {
    run(Cut::Silent, &[Peer::Postgres, Peer::Kafka, Peer::Gateway, Peer::Smtp]).await
}

const PAY_WITHIN: Duration = Duration::from_secs(8);

/// The status of a payment.
async fn payment(stack: &Stack, client: &Client, order: &str, status: &str) -> anyhow::Result<Value> {
    let url = format!("{}/v1/payments/{order}", stack.http("payment-svc", 0));
    eventually(&format!("payment of {order} {status}"), Duration::from_secs(30), async || {
        let seen = client.get(&url).await?;
        Ok(if seen.body["status"] == status { Ok(seen.body) } else { Err(format!("{seen:?}")) })
    })
    .await
}

async fn pay(client: &Client, page: &str) -> anyhow::Result<()> {
    let html = client.request(Method::GET, page).send().await?.text().await?;
    let action = html.split("action=\"").nth(1).and_then(|rest| rest.split('"').next()).context("a form")?;
    let url = reqwest::Url::parse(page)?.join(action)?;
    let paid = client.request(Method::POST, url.as_str()).send().await?;
    ensure!(paid.status().is_success() || paid.status().is_redirection(), "{paid:?}");
    Ok(())
}

/// An order is paid while order-svc is down, or hears nothing of Kafka, until long after it should have expired.
async fn captures_unread(cuttable: &mut Cuttable, how: Option<Cut>) -> anyhow::Result<()> {
    let customer = customer(&cuttable.stack).await?;
    let product = stocked_product(&cuttable.stack, 100, 100).await?;
    let paid = place(&cuttable.stack, &customer, &order(&[(&product, 1)], "pm_checkout")).await?;
    let never = place(&cuttable.stack, &customer, &order(&[(&product, 1)], "pm_never")).await?;
    let placed = Instant::now();
    let pending = payment(&cuttable.stack, &customer, &paid, "PENDING").await?;
    payment(&cuttable.stack, &customer, &never, "PENDING").await?;
    match how {
        Some(how) => cuttable.cut_one("order-svc", Peer::Kafka, how),
        None => cuttable.stack.kill("order-svc", 0)?,
    }
    pay(&customer, pending["pay_url"].as_str().context("a page")?).await?;
    payment(&cuttable.stack, &customer, &paid, "CAPTURED").await?;
    ensure!(placed.elapsed() < PAY_WITHIN, "the order was paid too late for this test: {:?}", placed.elapsed());
    eventually("twice pay_by", PAY_WITHIN * 3, async || {
        Ok(if placed.elapsed() > PAY_WITHIN * 2 { Ok(()) } else { Err(format!("{:?}", placed.elapsed())) })
    })
    .await?;
    match how {
        Some(_) => cuttable.heal(),
        None => cuttable.stack.restart("order-svc", 0)?,
    }
    wait_for_status(&cuttable.stack, &customer, &paid, "CONFIRMED").await?;
    wait_for_status(&cuttable.stack, &customer, &never, "EXPIRED").await?;
    let log = check::everything(&cuttable.stack).await?;
    ensure!(log.dead() == 0, "{} dead letters", log.dead());
    ensure!(log.story("order.events", &paid) == ["OrderPlaced", "OrderConfirmed"], "{paid}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_was_paid_is_confirmed_although_nobody_heard_of_it_for_twice_pay_by() -> anyhow::Result<()> {
    for how in [None, Some(Cut::Refused), Some(Cut::Silent)] {
        let options = Options { pay_within: "8s", ..Options::default() };
        let mut cuttable = Cuttable::start(&options).await?;
        if let Err(error) = captures_unread(&mut cuttable, how).await {
            panic!("{how:?}: {error:#}\nlogs: {}", cuttable.stack.keep_logs().display());
        }
    }
    Ok(())
}
