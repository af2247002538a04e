//! `checker FOLDER [--json]`: judges what a run left and prints the verdict on each invariant.
//!
//! The folder is described in `e2e::evidence`, the invariants in `e2e::checker`. A pure function of the folder: no server is
//! asked. Exit status 0: valid; 1: an invariant does not hold, its smallest witness is printed; 2: the evidence cannot be read.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use comfy_table::{ContentArrangement, Table, presets};
use e2e::checker::{self, Report, Violation};
use e2e::evidence::Folder;
use serde_json::Value;

/// Judges what a run left.
#[derive(Debug, Parser)]
#[command(name = "checker")]
struct Arguments {
    /// The folder that the run wrote.
    folder: PathBuf,
    /// One JSON document instead of a table.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let report = match Folder::read(&arguments.folder).and_then(|folder| checker::judge(&folder)) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("checker: {error:#}");
            return ExitCode::from(2);
        }
    };
    let text = if arguments.json {
        serde_json::to_string(&report).expect("plain values in memory always serialise")
    } else {
        shown(&report)
    };
    match writeln!(std::io::stdout(), "{text}") {
        // A reader who has seen enough (`| head`) is a normal end.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            eprintln!("checker: stdout is not writable: {error}");
            ExitCode::from(2)
        }
        _ if report.valid => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn shown(report: &Report) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["", "CHECKED", "LOOKED AT", "VERDICT"]);
    for checked in &report.checks {
        let looked_at: Vec<String> = checked.looked_at.iter().map(|(what, count)| format!("{count} {what}")).collect();
        let verdict = match checked.violated {
            0 => "holds".to_owned(),
            count => format!("VIOLATED × {count}"),
        };
        table.add_row([checked.invariant, checked.checked, &looked_at.join(", "), &verdict]);
    }
    let mut text = table.to_string();
    for checked in &report.checks {
        for what in &checked.undecided {
            text.push_str(&format!("\n{}: not decided: {what}", checked.invariant));
        }
    }
    text.push_str(&format!("\nleft out: {}", report.left_out.join(", ")));
    for checked in report.checks.iter().filter(|checked| checked.violated > 0) {
        for (number, violation) in checked.violations.iter().take(10).enumerate() {
            text.push_str(&format!("\n\n{}: {}", violation.invariant, violation.what));
            if number == 0 {
                text.push_str(&witness(violation));
            }
        }
    }
    text.push_str(if report.valid { "\n\nvalid" } else { "\n\nNOT VALID" });
    text
}

fn witness(violation: &Violation) -> String {
    let witness = &violation.witness;
    let parts =
        [("history", &witness.history), ("log", &witness.log), ("rows", &witness.rows), ("outside", &witness.outside)];
    let mut text = String::new();
    for (name, lines) in parts.into_iter().filter(|(_, lines)| !lines.is_empty()) {
        text.push_str(&format!("\n  {name}"));
        text.extend(lines.iter().map(|line: &Value| format!("\n    {line}")));
    }
    text
}
