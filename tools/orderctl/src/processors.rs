//! `orderctl processors`: what each processor of each instance is doing; `resume` lets a stopped one try again.
//!
//! Read from `/readyz`, which needs no token; resuming is an admin route and asks for an operator.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use edge::token::{Identity, Role, sign};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

use crate::cli::Processors;
use crate::output::{Output, table};
use crate::services::ServiceName;
use crate::settings::{Instance, Settings};

const TIMEOUT: Duration = Duration::from_secs(5);
const TOKEN_LIFE: Duration = Duration::from_secs(60);

/// A processor as an instance shows it; fields that another build adds are passed over.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Processor {
    pub(crate) partition: i32,
    pub(crate) state: String,
    pub(crate) reason: Option<String>,
    pub(crate) epoch: i64,
    pub(crate) batch: i64,
    /// Next offset per input topic, as named on the broker.
    #[serde(default)]
    pub(crate) positions: BTreeMap<String, i64>,
    pub(crate) lag: i64,
    pub(crate) sequence: i64,
    pub(crate) acked_sequence: i64,
    pub(crate) open_effects: u64,
    /// Records that cannot be applied, and those that wait behind them.
    #[serde(default)]
    pub(crate) held: u64,
    pub(crate) oldest_timer_seconds: i64,
}

/// What `/readyz` of an instance says.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Seen {
    pub(crate) service: String,
    pub(crate) instance: String,
    pub(crate) ready: bool,
    pub(crate) reasons: Vec<String>,
    pub(crate) processors: Vec<Processor>,
}

#[derive(Debug, Deserialize)]
struct Report {
    ready: bool,
    reasons: Vec<String>,
    processors: Vec<Processor>,
}

pub(crate) async fn run(settings: &Settings, out: Output, what: Option<Processors>) -> anyhow::Result<ExitCode> {
    if let Some(Processors::Resume { service, partition }) = what {
        let answers = resume(settings, service, partition).await?;
        out.show(&answers, |_| format!("processor {partition} of {service} tries again"));
        return Ok(ExitCode::SUCCESS);
    }
    let seen = look(settings).await?;
    out.show(&seen, |seen| {
        let header =
            ["INSTANCE", "P", "STATE", "EPOCH", "BATCH", "LAG", "EVENTS", "UNSENT", "EFFECTS", "HELD", "TIMER s", ""];
        let notes: Vec<String> = seen
            .iter()
            .flat_map(|one| one.reasons.iter().map(|reason| format!("{}: {reason}", one.instance)))
            .collect();
        format!("{}\n{}", table(header, seen.iter().flat_map(rows)), notes.join("\n"))
    });
    let ready = seen.iter().all(|one| one.ready);
    Ok(if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Asks every instance; one that does not answer is not ready.
pub(crate) async fn look(settings: &Settings) -> anyhow::Result<Vec<Seen>> {
    let http = client()?;
    let mut seen = Vec::new();
    for name in ServiceName::ALL {
        for instance in settings.instances(name.as_str())? {
            let report = report(&http, instance).await.unwrap_or_else(|error| Report {
                ready: false,
                reasons: vec![format!("{error:#}")],
                processors: Vec::new(),
            });
            seen.push(Seen {
                service: instance.name.clone(),
                instance: instance.label(),
                ready: report.ready,
                reasons: report.reasons,
                processors: report.processors,
            });
        }
    }
    Ok(seen)
}

fn client() -> anyhow::Result<reqwest::Client> {
    reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build().context("making an HTTP client")
}

async fn report(http: &reqwest::Client, instance: &Instance) -> anyhow::Result<Report> {
    let answer = http.get(format!("{}/readyz", instance.admin)).send().await;
    let answer = answer
        .with_context(|| format!("{} does not answer; `cargo up --missing` starts what is gone", instance.label()))?;
    answer.json().await.with_context(|| format!("what {} answers is not understood", instance.label()))
}

/// Asks every instance: who does not have the processor says so, and one of them has it.
async fn resume(settings: &Settings, service: ServiceName, partition: i32) -> anyhow::Result<Vec<Value>> {
    let http = client()?;
    let operator = Identity { subject: "orderctl".to_owned(), role: Role::Operator };
    let token = sign(&settings.signing_key()?, &operator, TOKEN_LIFE)?;
    let (mut answers, mut refusals) = (Vec::new(), Vec::new());
    for instance in settings.instances(service.as_str())? {
        let url = format!("{}/admin/processors/{partition}/resume", instance.admin);
        match http.post(&url).bearer_auth(&token).send().await {
            Ok(answer) if answer.status().is_success() => {
                answers.push(answer.json().await.unwrap_or(Value::Null));
            }
            Ok(answer) => {
                let status = answer.status();
                let problem: Value = answer.json().await.unwrap_or(Value::Null);
                let detail = problem["detail"].as_str().unwrap_or("");
                refusals.push(format!("{}: {status}: {detail}", instance.label()));
            }
            Err(error) => refusals.push(format!("{} does not answer: {error}", instance.label())),
        }
    }
    if answers.is_empty() {
        bail!("no instance of {service} resumed processor {partition}; {}", refusals.join("; "));
    }
    Ok(answers)
}

fn rows(seen: &Seen) -> Vec<[String; 12]> {
    if seen.processors.is_empty() {
        let mut row = std::array::from_fn(|_| "-".to_owned());
        row[0].clone_from(&seen.instance);
        row[11] = String::new();
        return vec![row];
    }
    let row = |one: &Processor| {
        [
            seen.instance.clone(),
            one.partition.to_string(),
            one.state.clone(),
            one.epoch.to_string(),
            one.batch.to_string(),
            one.lag.to_string(),
            one.sequence.to_string(),
            (one.sequence - one.acked_sequence).to_string(),
            one.open_effects.to_string(),
            one.held.to_string(),
            one.oldest_timer_seconds.to_string(),
            one.reason.clone().unwrap_or_default(),
        ]
    };
    seen.processors.iter().map(row).collect()
}
