//! README.md's tour and what `cargo up` says to try next, run as printed: whoever edits a command there breaks this test.
//!
//! Only the places are exchanged, since this stack has ports and topics of its own, and `cargo orderctl` runs the
//! program that was built for the tests. A status that a person does not see is asked of curl by its configuration file.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use e2e::client::eventually;
use e2e::stack::{Options, Stack};
use serde_json::Value;

const README: &str = include_str!("../../README.md");
const SETTINGS: &str = include_str!("../../deploy/settings.env");
const TRY_NEXT: &str = include_str!("../../tools/xtask/src/try_next.txt");

/// Much longer than the slowest command, which is `rebuild`: it watches the log for 10 s first.
const BLOCK_WITHIN: Duration = Duration::from_secs(90);
const SOON: Duration = Duration::from_secs(30);
/// Printed by the session behind each block.
const END: &str = "--- end of block ---";
/// Printed by curl behind each answer, before its status.
const STATUS: &str = "--- status ";
/// `cargo orderctl` without a build; nothing else of cargo.
const CARGO: &str = r#"#!/bin/sh
test "$1" = orderctl || { echo "this test has no cargo $1" >&2; exit 64; }
shift
exec "$ORDERLOG_TEST_PROGRAMS/orderctl" "$@"
"#;

/// The indented blocks of a section, in order, without their indentation.
fn blocks(readme: &str, section: &str) -> Vec<String> {
    let heading = format!("## {section}");
    let lines = readme.lines().skip_while(|line| *line != heading).skip(1).take_while(|line| !line.starts_with("## "));
    let (mut blocks, mut inside) = (Vec::<String>::new(), false);
    for line in lines {
        match line.strip_prefix("    ") {
            Some(command) if inside => blocks.last_mut().expect("just begun").push_str(&format!("{command}\n")),
            Some(command) => blocks.push(format!("{command}\n")),
            // An empty line ends no block.
            None if line.is_empty() => continue,
            None => {}
        }
        inside = line.starts_with("    ");
    }
    blocks
}

/// Where the printed places are in this test.
struct Places {
    /// `host:port` by the port that is printed.
    addresses: BTreeMap<String, String>,
    prefix: String,
}

impl Places {
    fn of(stack: &Stack) -> anyhow::Result<Self> {
        let bare = |url: &str| url.trim_start_matches("http://").to_owned();
        let mut addresses = BTreeMap::new();
        for (name, address) in [
            ("KAFKA_PORT", stack.kafka.clone()),
            ("ORDER_HTTP_PORT", bare(stack.http("order-svc", 0))),
            ("INVENTORY_HTTP_PORT", bare(stack.http("inventory-svc", 0))),
            ("PAYMENT_HTTP_PORT", bare(stack.http("payment-svc", 0))),
            ("NOTIFY_HTTP_PORT", bare(stack.http("notify-svc", 0))),
            ("GATEWAY_PORT", bare(&stack.gateway)),
            ("SINK_PORT", bare(&stack.sink)),
        ] {
            let port = SETTINGS.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            addresses.insert(port.with_context(|| format!("settings.env has no {name}"))?.to_owned(), address);
        }
        Ok(Self { addresses, prefix: stack.prefix.clone() })
    }

    /// The commands with the places of this stack.
    fn here(&self, commands: &str) -> anyhow::Result<String> {
        let mut pieces = commands.split("127.0.0.1:");
        let mut text = pieces.next().unwrap_or_default().to_owned();
        for piece in pieces {
            let digits = piece.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(piece.len());
            let (port, rest) = piece.split_at(digits);
            let address = self.addresses.get(port);
            text.push_str(address.with_context(|| format!("`cargo up` gives nothing the port {port}:\n{commands}"))?);
            text.push_str(rest);
        }
        // Only kcat has this option; orderctl puts the prefix before a topic itself.
        Ok(text.replace(" -t ", &format!(" -t {}", self.prefix)))
    }
}

/// One shell for the whole tour, so that its variables live on.
struct Session {
    bash: Child,
    input: ChildStdin,
    output: Receiver<String>,
    places: Places,
    folder: tempfile::TempDir,
}

impl Session {
    fn start(stack: &Stack) -> anyhow::Result<Self> {
        for program in ["bash", "curl", "kcat"] {
            let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output()?.status.success();
            ensure!(found, "the tour needs {program} (package {program})");
        }
        let folder = tempfile::tempdir()?;
        let cargo = folder.path().join("cargo");
        std::fs::write(&cargo, CARGO)?;
        std::fs::set_permissions(&cargo, std::fs::Permissions::from_mode(0o755))?;
        std::fs::write(folder.path().join(".curlrc"), format!("write-out = \"\\n{STATUS}%{{http_code}}\\n\"\n"))?;
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(folder.path().to_owned()).chain(std::env::split_paths(&path));
        let said = std::fs::File::create(said(folder.path()))?;
        let mut bash = Command::new("bash")
            .args(["--noprofile", "--norc", "-s"])
            .env("PATH", std::env::join_paths(folders)?)
            .env("CURL_HOME", folder.path())
            .envs(stack.tool_environment())
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(said)
            .spawn()
            .context("starting bash")?;
        let (input, printed) = (bash.stdin.take().context("piped")?, bash.stdout.take().context("piped")?);
        let (line, output) = channel();
        std::thread::spawn(move || {
            // The last line may be lost with the receiver, which then wants none.
            BufReader::new(printed).lines().map_while(Result::ok).try_for_each(|text| line.send(text))
        });
        let mut session = Self { bash, input, output, places: Places::of(stack)?, folder };
        writeln!(session.input, "set -euo pipefail")?;
        Ok(session)
    }

    /// Runs commands as README.md prints them; returns what they print.
    fn run(&mut self, commands: &str) -> anyhow::Result<String> {
        self.run_here(&self.places.here(commands)?)
    }

    /// Runs commands whose places are this stack's.
    fn run_here(&mut self, commands: &str) -> anyhow::Result<String> {
        let script = self.folder.path().join("block.sh");
        std::fs::write(&script, commands)?;
        // The session reads its own commands from its input, so those of the block must not.
        writeln!(self.input, ". '{}' </dev/null; printf '\\n%s\\n' '{END}'", script.display())
            .with_context(|| self.failure(commands, ""))?;
        let mut printed = String::new();
        loop {
            match self.output.recv_timeout(BLOCK_WITHIN) {
                Ok(line) if line == END => return Ok(printed),
                Ok(line) => printed.push_str(&format!("{line}\n")),
                Err(error) => bail!("{error}: {}", self.failure(commands, &printed)),
            }
        }
    }

    fn failure(&self, commands: &str, printed: &str) -> String {
        let said = std::fs::read_to_string(said(self.folder.path())).unwrap_or_default();
        format!("the session ended in\n{commands}\nit printed\n{printed}\nand said\n{said}")
    }

    /// Runs commands again until what they print is as promised, as a reader would who is too fast.
    async fn until<T>(&mut self, commands: &str, mut promised: impl FnMut(&str) -> Option<T>) -> anyhow::Result<T> {
        let last = eventually(commands, SOON, async || {
            // A command that fails will not succeed later.
            match self.run(commands) {
                Ok(printed) => Ok(promised(&printed).map(Ok).ok_or(printed)),
                Err(failure) => Ok(Ok(Err(failure))),
            }
        });
        last.await?
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.bash.kill());
        drop(self.bash.wait());
    }
}

/// What the session's programs say on stderr.
fn said(folder: &Path) -> PathBuf {
    folder.join("said")
}

/// Status and body of each curl.
fn answers(printed: &str) -> Vec<(u16, Value)> {
    let mut body = "";
    let mut answers = Vec::new();
    for line in printed.lines() {
        match line.strip_prefix(STATUS) {
            Some(status) => {
                answers.push((status.parse().unwrap_or(0), serde_json::from_str(body).unwrap_or(Value::Null)));
            }
            None => body = line,
        }
    }
    answers
}

fn items(body: &Value) -> &[Value] {
    body["items"].as_array().map_or(&[], Vec::as_slice)
}

/// Lists a product, puts it on the shelf, and finds it in the other service's catalogue.
async fn shop(session: &mut Session, prepare: &str, catalogue: &str) -> anyhow::Result<()> {
    let printed = session.run(prepare)?;
    let answers = answers(&printed);
    let statuses: Vec<u16> = answers.iter().map(|(status, _)| *status).collect();
    ensure!(statuses == [201, 200, 200], "product, receipt and contact: {printed}");
    let product = &answers[0].1["product_id"];
    ensure!(product.is_string() && answers[1].1["on_hand"] == 100, "{printed}");
    let listed = |printed: &str| {
        let (status, body) = self::answers(printed).pop()?;
        (status == 200).then(|| items(&body).iter().any(|item| item["product_id"] == *product))?.then_some(())
    };
    session.until(catalogue, listed).await
}

/// Places an order, again with the same key, and sees it confirmed; returns its ID.
async fn order(session: &mut Session, commands: &str) -> anyhow::Result<String> {
    let printed = session.run(commands)?;
    let first = answers(&printed);
    let [(201, placed), (200, list)] = first.as_slice() else {
        bail!("an order, and a list with it: {printed}");
    };
    let id = placed["order_id"].as_str().context("an order has an ID")?.to_owned();
    ensure!(items(list).len() == 1 && items(list)[0]["order_id"] == *id, "the list has that order alone: {printed}");
    let confirmed = |printed: &str| {
        let seen = answers(printed);
        let [(202, again), (200, list)] = seen.as_slice() else { return None };
        let same = again["order_id"] == *id && items(list).len() == 1;
        (same && items(list)[0]["status"] == "CONFIRMED").then_some(())
    };
    session.until(commands, confirmed).await?;
    Ok(id)
}

/// Reads the log with kcat and with orderctl, and the mail.
async fn traces(session: &mut Session, log: &str, mail: &str, id: &str) -> anyhow::Result<()> {
    let told = |printed: &str| {
        let types = ["OrderPlaced", "OrderConfirmed"];
        // kcat: time, key, headers. orderctl: time, place, sequence, key, type, value.
        let by_kcat = |kind: &&str| {
            let header = format!("ce_type=orderlog.order.{kind},");
            printed.lines().any(|line| line.split(' ').nth(1) == Some(id) && line.contains(&header))
        };
        let by_orderctl = |kind: &&str| {
            let value = |line: &str| line.split_once(&format!(" {id} {kind} ")).map(|(_, value)| value.to_owned());
            let mut values = printed.lines().filter_map(value).filter_map(|value| serde_json::from_str(&value).ok());
            values.any(|value: Value| value["order_id"] == *id)
        };
        (types.iter().all(by_kcat) && types.iter().all(by_orderctl)).then_some(())
    };
    session.until(log, told).await?;
    let arrived = |printed: &str| {
        let (_, body) = answers(printed).pop()?;
        let of_order = |item: &&Value| item["body"].as_str().is_some_and(|body| body.contains(id));
        let mails = items(&body).iter().filter(of_order).filter(|item| item["to"] == "alice@example.test");
        (mails.count() == 1).then_some(())
    };
    session.until(mail, arrived).await
}

/// Proves the projections, then rebuilds one of them.
async fn prove(session: &mut Session, stack: &mut Stack) -> anyhow::Result<()> {
    let [block] = <[String; 1]>::try_from(blocks(README, "Rebuild and prove"))
        .map_err(|found| anyhow::anyhow!("another number of blocks than this test runs: {found:?}"))?;
    let [verify, lag, rebuild] = block.lines().collect::<Vec<_>>().try_into().unwrap_or_default();
    let printed = session.run(verify)?;
    ensure!(printed.contains("equal, row for row"), "{printed}");
    session.until(lag, |printed| printed.contains("\n0 events behind in all").then_some(())).await?;
    stack.stop_service("order-svc")?;
    let printed = session.run(rebuild)?;
    ensure!(printed.contains("order-svc is rebuilt"), "{printed}");
    stack.restart("order-svc", 0)?;
    stack.wait_until_ready().await?;
    let printed = session.run(verify)?;
    ensure!(printed.contains("equal, row for row"), "{printed}");
    Ok(())
}

/// The lines under `cargo up`'s "Try next": each does something and finds the order.
fn try_next(session: &mut Session, stack: &Stack, id: &str) -> anyhow::Result<()> {
    for line in TRY_NEXT.lines() {
        // The names in braces are xtask's, filled with its stack's places.
        let line = line
            .replace("{order}", stack.http("order-svc", 0))
            .replace("{sink}", &stack.sink)
            .replace("{kafka}", &stack.kafka)
            .replace("{prefix}", &stack.prefix);
        ensure!(!line.contains(['{', '}']), "a place that this test does not know: {line}");
        let printed = session.run_here(&line)?;
        let finds = if line.contains(" lag") { "order-svc" } else { id };
        ensure!(printed.contains(finds), "{line}:\n{printed}");
        let refused = answers(&printed).into_iter().find(|(status, _)| *status != 200);
        ensure!(refused.is_none(), "{line}: {refused:?}");
    }
    Ok(())
}

async fn tour(stack: &mut Stack) -> anyhow::Result<()> {
    // `cargo up` places its demonstration order first.
    stack.orderctl(&["demo"])?;
    let [prepare, catalogue, place, log, mail] = <[String; 5]>::try_from(blocks(README, "A first tour"))
        .map_err(|found| anyhow::anyhow!("another number of blocks than this test knows promises of: {found:#?}"))?;
    let mut session = Session::start(stack)?;
    shop(&mut session, &prepare, &catalogue).await?;
    let id = order(&mut session, &place).await?;
    traces(&mut session, &log, &mail, &id).await?;
    try_next(&mut session, stack, &id)?;
    prove(&mut session, stack).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tour_goes_as_printed() -> anyhow::Result<()> {
    let mut stack = Stack::start(&Options::default()).await?;
    if let Err(error) = tour(&mut stack).await {
        panic!("{error:#}\nlogs: {}", stack.keep_logs().display());
    }
    Ok(())
}

#[test]
fn a_block_is_what_is_indented() {
    let readme =
        "## A\n\n    not this\n\n## B\ntext:\n\n    one \\\n      -x\n\n    two\n\nmore:\n\n    three\n## C\n    no\n";
    assert_eq!(blocks(readme, "B"), ["one \\\n  -x\ntwo\n", "three\n"]);
}
