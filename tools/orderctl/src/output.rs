//! What a command prints: tables for people, JSON for scripts.
//!
//! Results go to stdout, everything else (progress, notes) to stderr.

use std::io::Write;

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

/// How results are printed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    /// JSON instead of tables.
    pub(crate) json: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Prints a value as one line of JSON, or what `people` makes of it.
    pub(crate) fn show<T: Serialize>(self, value: &T, people: impl FnOnce(&T) -> String) {
        if self.json {
            print(&line(value));
        } else {
            print(people(value).trim_end());
        }
    }

    /// A line for people; scripts do not see it.
    pub(crate) fn say(self, text: &str) {
        if !self.json {
            print(text);
        }
    }
}

/// Prints a line. A reader who has seen enough (`| head`) is a normal end.
pub(crate) fn print(line: &str) {
    match writeln!(std::io::stdout(), "{line}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => eprintln!("orderctl: stdout is not writable: {error}"),
        Ok(()) => {}
    }
}

/// A value as one line of JSON.
pub(crate) fn line<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("plain values in memory always serialise")
}

/// A table with these columns.
pub(crate) fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_header(header);
    for row in rows {
        table.add_row(row);
    }
    table.to_string()
}

/// Minor units as people write them: `1234` USD is `12.34 USD`.
pub(crate) fn money(value: &serde_json::Value) -> String {
    let amount = value["amount"].as_i64().unwrap_or(0);
    let currency = value["currency"].as_str().unwrap_or("");
    let sign = if amount < 0 { "-" } else { "" };
    format!("{sign}{}.{:02} {currency}", amount.unsigned_abs() / 100, amount.unsigned_abs() % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_has_two_decimals() {
        let value = |amount: i64| serde_json::json!({"amount": amount, "currency": "USD"});
        assert_eq!(money(&value(1_234)), "12.34 USD");
        assert_eq!(money(&value(5)), "0.05 USD");
        assert_eq!(money(&value(-150)), "-1.50 USD");
    }
}
