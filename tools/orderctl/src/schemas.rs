//! `orderctl schemas push|check`: the only writer of the schema registry.
//!
//! The comparison is the registry's own; a finding that is no error is listed too.

use std::process::ExitCode;

use engine::registry::Finding;

use crate::cli::Schemas;
use crate::output::{Output, table};
use crate::settings::Settings;

pub(crate) async fn run(settings: &Settings, out: Output, what: Schemas) -> anyhow::Result<ExitCode> {
    let registry = settings.registry()?;
    let findings = match what {
        Schemas::Push => registry.push().await,
        Schemas::Check => registry.check().await,
    };
    let findings = findings
        .map_err(|error| error.context("the schema registry is not usable (does the stack run? `cargo up`)"))?;
    let wrong = findings.iter().filter(|finding| finding.problem.is_some()).count();
    out.show(&findings, |findings| {
        let rows = findings.iter().map(row);
        format!("{}\n{}", table(["SUBJECT", "VERSION", "ID", "COMPARED", ""], rows), summary(findings.len(), wrong))
    });
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn row(finding: &Finding) -> [String; 5] {
    [
        finding.subject.clone(),
        finding.version.to_string(),
        finding.id.map_or_else(|| "-".to_owned(), |id| id.to_string()),
        finding.compared.to_string(),
        finding.problem.clone().unwrap_or_else(|| "ok".to_owned()),
    ]
}

fn summary(all: usize, wrong: usize) -> String {
    match wrong {
        0 => format!("{all} schemas, all in order"),
        _ => format!("{all} schemas, {wrong} with a problem"),
    }
}
