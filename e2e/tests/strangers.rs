//! Strangers append random bytes to every topic while orders are placed: nothing stalls, and every byte is with every reader's
//! dead letters.
//!
//! Bytes that happen to be a record with the next sequence are no stranger's on an open broker; ACLs are the answer to those.

use std::io::Write;
use std::process::Command;

use anyhow::{Context, ensure};
use e2e::check;
use e2e::client::{Client, order, place, stocked_product, wait_for_status};
use e2e::stack::{Options, SERVICES, Stack};
use events::envelope;
use rand::{Rng, RngExt, SeedableRng};

/// Every topic with its readers.
const TOPICS: [(&str, &[&str]); 7] = [
    ("order.commands", &["order-svc"]),
    ("order.events", &["inventory-svc", "payment-svc", "notify-svc"]),
    ("inventory.commands", &["inventory-svc"]),
    ("inventory.events", &["order-svc", "payment-svc"]),
    ("payment.commands", &["payment-svc"]),
    ("payment.events", &["order-svc", "notify-svc"]),
    ("notification.events", &[]),
];
const ROUNDS: usize = 4;

/// Bytes that a stranger appended.
#[derive(Debug)]
struct Strange {
    topic: &'static str,
    readers: &'static [&'static str],
    value: Vec<u8>,
}

/// Random bytes; some begin like values of ours, with a schema that no registry has. One that the registry has and this build
/// lacks makes a commands topic wait for an upgrade, as it should.
fn bytes(random: &mut impl Rng) -> Vec<u8> {
    let mut value = vec![0; random.random_range(1..300)];
    random.fill(&mut value[..]);
    if random.random() {
        value.splice(0..0, [0, 0x7f, 0xff, 0xff, random.random_range(1..60)]);
    }
    value
}

fn append(stack: &Stack, topic: &str, value: &[u8], random: &mut impl Rng) -> anyhow::Result<()> {
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(value)?;
    let topic = format!("{}{topic}", stack.prefix);
    let mut kcat = Command::new("kcat");
    let partition = random.random_range(0..2).to_string();
    kcat.args(["-q", "-P", "-b", &stack.kafka, "-t", &topic, "-p", &partition]);
    if random.random() {
        kcat.args(["-k", &random.random_range(1..i64::MAX).to_string()]);
    }
    if random.random() {
        kcat.args(["-H", "ce_sequence=17", "-H", "ce_type=orderlog.order.PlaceOrder"]);
    }
    let status = kcat.arg(file.path()).status().context("starting kcat; `cargo verify` installs it")?;
    ensure!(status.success(), "kcat: {status}");
    Ok(())
}

async fn run(stack: &mut Stack, seed: u64) -> anyhow::Result<()> {
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let customer = Client::customer(stack, "nora")?;
    let product = stocked_product(stack, 100, 1_000).await?;
    let (mut strange, mut placed) = (Vec::new(), Vec::new());
    let own = SERVICES.iter().flat_map(|service| [format!("{service}.retry"), format!("{service}.dlq")]);
    let own: Vec<String> = own.collect();
    for _ in 0..ROUNDS {
        for (topic, readers) in TOPICS {
            let value = bytes(&mut random);
            append(stack, topic, &value, &mut random)?;
            strange.push(Strange { topic, readers, value });
            placed.push(place(stack, &customer, &order(&[(&product, 1)], "pm_ok")).await?);
        }
        for topic in &own {
            append(stack, topic, &bytes(&mut random), &mut random)?;
        }
    }
    for id in &placed {
        wait_for_status(stack, &customer, id, "CONFIRMED").await?;
    }
    stack.wait_until_ready().await?;
    let log = check::everything(stack).await?;
    for Strange { topic, readers, value } in &strange {
        let source = format!("{}{topic}", stack.prefix);
        for reader in *readers {
            let is_it = |letter: &&engine::record::Record| {
                let from = envelope::text(&letter.headers, "failure-topic");
                from == Some(source.as_str()) && letter.value.as_deref() == Some(value)
            };
            let found = log.letters(reader).iter().filter(is_it).count();
            ensure!(found == 1, "{found} dead letters of {reader} hold {value:?} of {topic}");
        }
    }
    let expected: usize = strange.iter().map(|one| one.readers.len()).sum();
    ensure!(log.dead() == expected, "{} dead letters, not {expected}", log.dead());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn random_bytes_stop_nobody_and_are_kept() -> anyhow::Result<()> {
    let mut stack = Stack::start(&Options::default()).await?;
    let seed = rand::random();
    if let Err(error) = run(&mut stack, seed).await {
        panic!("seed {seed}: {error:#}\nlogs: {}", stack.keep_logs().display());
    }
    Ok(())
}
