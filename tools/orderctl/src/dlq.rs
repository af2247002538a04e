//! `orderctl held` and `orderctl dlq`: what could not be applied, why, and what is to be done about it.
//!
//! What a redrive does is the owning processor's; here records are chosen, and watched until they are through or dead
//! again. A ramp begins with one and stops by itself when the cause is not mended.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use engine::desk::{Address, Asked, Standing};
use serde::Serialize;
use serde_json::{Value, json};

use crate::cli_desk::{Chosen, Dlq, Which};
use crate::desk::{Desk, RECORDS_MAX};
use crate::output::{Output, table};
use crate::progress::Progress;
use crate::services::ServiceName;
use crate::settings::Settings;
use crate::{decoded, history};

/// Steps of a ramp; the last one is repeated.
const RAMP: [usize; 9] = [1, 2, 5, 20, 50, 100, 200, 400, RECORDS_MAX];
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A processor that does nothing for so long is not at work.
const PATIENCE: Duration = Duration::from_secs(60);
/// Held records of a service that are shown: as many as one answer has.
const HELD_MAX: usize = 10_000;
const OPERATOR: &str = "orderctl";

pub(crate) async fn run(settings: &Settings, out: Output, what: Dlq) -> anyhow::Result<ExitCode> {
    match what {
        Dlq::List { service: Some(service), group: Some(group), limit, .. } => {
            letters(settings, out, service, limit, &format!("group={group}")).await
        }
        Dlq::List { service: Some(service), key: Some(key), limit, .. } => {
            letters(settings, out, service, limit, &format!("key={key}")).await
        }
        Dlq::List { service, .. } => groups(settings, out, service).await,
        Dlq::Show { service, record } => show(settings, out, service, &record).await,
        Dlq::Redrive { what, dry_run: true, .. } => dry_run(settings, out, &what).await,
        Dlq::Redrive { what, ramp, relapses, .. } => {
            let relapses = ramp.then_some(relapses);
            drive(settings, out, &what, "redrive", relapses).await
        }
        Dlq::Discard { what } => drive(settings, out, &what, "discard", None).await,
    }
}

async fn letters(
    settings: &Settings,
    out: Output,
    service: ServiceName,
    limit: u32,
    choice: &str,
) -> anyhow::Result<ExitCode> {
    let desk = Desk::open(settings, service, OPERATOR)?;
    let listed = desk.get(&format!("/admin/dead-letters/records?limit={limit}&{choice}")).await?;
    out.show(&listed["records"], records);
    Ok(ExitCode::SUCCESS)
}

fn services(service: Option<ServiceName>) -> Vec<ServiceName> {
    service.map_or_else(|| ServiceName::ALL.to_vec(), |service| vec![service])
}

/// A value as people see it. A stranger's bytes must not drive their terminal.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.replace(char::is_control, "\u{fffd}"),
        other => other.to_string(),
    }
}

fn place(record: &Value) -> String {
    let place = format!("{}/{}/{}", text(&record["topic"]), record["partition"], record["offset"]);
    if record["effect"].is_null() { place } else { format!("{place}/{}", text(&record["effect"])) }
}

/// Held records and those that wait.
pub(crate) async fn held(settings: &Settings, out: Output, service: Option<ServiceName>) -> anyhow::Result<ExitCode> {
    let mut all = Vec::new();
    for service in services(service) {
        let listed = Desk::open(settings, service, OPERATOR)?.get(&format!("/admin/held?limit={HELD_MAX}")).await?;
        all.extend(listed["records"].as_array().cloned().unwrap_or_default().into_iter().map(|mut record| {
            record["service"] = json!(service.as_str());
            record
        }));
    }
    out.show(&all, |all| if all.is_empty() { "nothing is held".to_owned() } else { records(&json!(all)) });
    Ok(ExitCode::SUCCESS)
}

fn records(records: &Value) -> String {
    let header = ["RECORD", "STATE", "KEY", "TYPE", "CODE", "TRIES", "LAST FAILED", "MESSAGE"];
    let row = |record: &Value| {
        [
            place(record),
            text(&record["state"]),
            text(&record["key"]),
            text(&record["event_type"]),
            text(&record["code"]),
            text(&record["attempts"]),
            text(&record["last_at"]),
            text(&record["message"]),
        ]
    };
    table(header, records.as_array().into_iter().flatten().map(row))
}

async fn groups(settings: &Settings, out: Output, service: Option<ServiceName>) -> anyhow::Result<ExitCode> {
    let mut all = Vec::new();
    for service in services(service) {
        let listed = Desk::open(settings, service, OPERATOR)?.get("/admin/dead-letters").await?;
        for mut group in listed["groups"].as_array().cloned().unwrap_or_default() {
            group["service"] = json!(service.as_str());
            all.push(group);
        }
    }
    out.show(&all, |all| {
        let header =
            ["SERVICE", "GROUP", "CLASS", "CODE", "TYPE", "COUNT", "KEYS", "WAITING", "FIRST", "LAST", "SAMPLE", "MESSAGE"];
        let row = |group: &Value| {
            let of = |name: &str| text(&group[name]);
            [
                of("service"),
                of("group"),
                of("class"),
                of("code"),
                of("event_type"),
                of("count"),
                of("keys"),
                of("waiting"),
                of("first_at"),
                of("last_at"),
                place(&group["sample"]),
                of("message"),
            ]
        };
        if all.is_empty() {
            return "no dead letters".to_owned();
        }
        let first = &all[0];
        format!(
            "{}\n\ncargo orderctl dlq show {} {}\ncargo orderctl dlq redrive {} --group {} --reason 'cause mended' --dry-run",
            table(header, all.iter().map(row)),
            text(&first["service"]),
            place(&first["sample"]),
            text(&first["service"]),
            text(&first["group"]),
        )
    });
    Ok(ExitCode::SUCCESS)
}

async fn show(settings: &Settings, out: Output, service: ServiceName, record: &Address) -> anyhow::Result<ExitCode> {
    let desk = Desk::open(settings, service, OPERATOR)?;
    let Address { topic, partition, offset, effect } = record;
    let named = effect.as_ref().map(|effect| format!("?effect={effect}")).unwrap_or_default();
    let mut shown = desk.get(&format!("/admin/dead-letters/records/{topic}/{partition}/{offset}{named}")).await?;
    let bytes = shown["value_hex"].as_str().and_then(|digits| hex::decode(digits).ok());
    if let Some(bytes) = bytes {
        let codec = settings.registry()?.codec_without_memory().await.ok();
        if let Some(decoded) = codec.and_then(|codec| decoded::value(&codec, &bytes).ok()) {
            shown["value"] = decoded.data;
        }
    }
    let (kafka, name, of) = (settings.kafka()?, service.as_str(), record.clone());
    let letters = tokio::task::spawn_blocking(move || history::letters(&kafka, name, &of)).await??;
    shown["history"] = json!(letters);
    out.show(&shown, whole);
    Ok(ExitCode::SUCCESS)
}

/// One record for people: what it is, what it holds, what became of it, what waits.
fn whole(shown: &Value) -> String {
    let mut told = format!("{}\n", place(shown));
    for name in ["state", "class", "code", "message", "key", "sequence", "event_type", "group"] {
        told.push_str(&format!("{name:<12} {}\n", text(&shown[name])));
    }
    told.push_str("\nHEADERS\n");
    for header in shown["headers"].as_array().into_iter().flatten() {
        told.push_str(&format!("{} = {}\n", text(&header[0]), text(&header[1])));
    }
    told.push_str("\nVALUE\n");
    match &shown["value"] {
        Value::Null => told.push_str(&text(&shown["value_hex"])),
        value => told.push_str(&serde_json::to_string_pretty(value).unwrap_or_default()),
    }
    let row = |letter: &Value| {
        ["at", "step", "attempts", "code", "instance", "operator", "reason"].map(|name| text(&letter[name]))
    };
    let header = ["AT", "STEP", "TRIES", "CODE", "INSTANCE", "OPERATOR", "REASON"];
    told.push_str(&format!(
        "\n\nHISTORY\n{}\n",
        table(header, shown["history"].as_array().into_iter().flatten().map(row))
    ));
    let behind: Vec<String> = shown["behind"].as_array().into_iter().flatten().map(place).collect();
    if !behind.is_empty() {
        told.push_str(&format!("\nWAITING BEHIND IT\n{}\n", behind.join("\n")));
    }
    told
}

/// The fields of a request that choose records.
fn choice(what: &Chosen) -> Value {
    let Which { all, group, key, record } = &what.which;
    let mut body = json!({"reason": what.reason});
    if *all {
        body["all"] = json!(true);
    }
    if let Some(group) = group {
        body["group"] = json!(group);
    }
    if let Some(key) = key {
        body["key"] = json!(key.to_string());
    }
    if let Some(record) = record {
        body["record"] = json!(record);
    }
    body
}

async fn dry_run(settings: &Settings, out: Output, what: &Chosen) -> anyhow::Result<ExitCode> {
    let desk = Desk::open(settings, what.service, &what.operator)?;
    let mut body = choice(what);
    body["dry_run"] = json!(true);
    body["limit"] = json!(RECORDS_MAX);
    let answer = desk.post("/admin/dead-letters/redrive", &body).await?;
    out.show(&answer["outcomes"], |outcomes| {
        let row = |one: &Value| {
            let applied = match one["applied"].as_bool() {
                Some(true) => "applied",
                Some(false) => "dead again",
                None => "called",
            };
            [place(one), applied.to_owned(), text(&one["outcome"])]
        };
        let all: Vec<&Value> = outcomes.as_array().into_iter().flatten().collect();
        let more = if all.len() == RECORDS_MAX { "\n… the oldest of them" } else { "" };
        format!("{}{more}", table(["RECORD", "WOULD BE", "OUTCOME"], all.into_iter().map(row)))
    });
    Ok(ExitCode::SUCCESS)
}

#[derive(Debug, Default, Serialize)]
struct Driven {
    service: String,
    act: &'static str,
    /// Records that are through.
    settled: usize,
    /// Records that are kept: they died again, or wait behind another one.
    kept: usize,
    /// True when a ramp was ended because too many died again.
    stopped: bool,
}

/// Has records tried or discarded step by step, until there are no more or, in a ramp, too many die again.
async fn drive(
    settings: &Settings,
    out: Output,
    what: &Chosen,
    act: &'static str,
    relapses: Option<f64>,
) -> anyhow::Result<ExitCode> {
    let desk = Desk::open(settings, what.service, &what.operator)?;
    let bar = Progress::new(out).spinner(act);
    let mut driven = Driven { service: what.service.to_string(), act, ..Driven::default() };
    let mut body = choice(what);
    let mut steps = RAMP.into_iter().chain(std::iter::repeat(RECORDS_MAX));
    loop {
        let step = if relapses.is_some() { steps.next().unwrap_or(RECORDS_MAX) } else { RECORDS_MAX };
        body["limit"] = json!(step);
        let asked: Asked = serde_json::from_value(desk.post(&format!("/admin/dead-letters/{act}"), &body).await?)
            .context("what the desk answers is not understood")?;
        if asked.records.is_empty() {
            break;
        }
        // What dies again from now on is not chosen again.
        if body["failed_before"].is_null() {
            body["failed_before"] = json!(asked.at.to_string());
        }
        let standing = wait(&desk, &asked.records, |standing| {
            let (settled, kept) = (driven.settled + standing.settled, driven.kept + standing.kept);
            bar.set_message(format!("{settled} through, {kept} kept, step of {step}"));
        })
        .await?;
        driven.settled += standing.settled;
        driven.kept += standing.kept;
        #[expect(clippy::cast_precision_loss, reason = "a step has a few hundred records")]
        let share = standing.kept as f64 / asked.records.len() as f64;
        if relapses.is_some_and(|most| share > most) {
            driven.stopped = true;
            break;
        }
        if what.which.record.is_some() {
            break;
        }
    }
    bar.finish_and_clear();
    out.show(&driven, |driven| {
        let Driven { settled, kept, stopped, service, .. } = driven;
        let mut told = format!("{settled} through, {kept} kept");
        if *stopped {
            told.push_str("; stopped: too many of the last step died again");
        }
        if *kept > 0 {
            told.push_str(&format!("\ncargo orderctl dlq list {service}"));
        }
        told
    });
    Ok(if driven.kept == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Waits until nothing of these records is to be done any more.
async fn wait(desk: &Desk, records: &[Address], told: impl Fn(Standing)) -> anyhow::Result<Standing> {
    let (mut last, mut since) = (Standing::default(), Instant::now());
    loop {
        let standing = desk.standing(records).await?;
        told(standing);
        if standing.asked == 0 {
            return Ok(standing);
        }
        if standing != last {
            (last, since) = (standing, Instant::now());
        }
        if since.elapsed() > PATIENCE {
            let service = desk.service();
            bail!(
                "{} of {} records wait for their processor, which does nothing; `cargo orderctl processors` says why. \
                 Effects may also wait for the other side to answer at all. What is asked for stays asked for at \
                 {service}",
                standing.asked,
                records.len()
            );
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strange_bytes_do_not_reach_the_terminal() {
        assert_eq!(text(&json!("a\u{1b}[2Jb\u{7}\n")), "a\u{fffd}[2Jb\u{fffd}\u{fffd}");
        assert_eq!((text(&Value::Null), text(&json!(7))), ("-".to_owned(), "7".to_owned()));
    }
}
