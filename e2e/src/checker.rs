//! Judges a run by what it left: a pure function of its [`Folder`], with rules of its own.
//!
//! Of the workspace only `events` is used, to read Avro and headers. No `decide` or `evolve` of a service is: what may follow
//! what is written again here, from the documents. The invariants are those of the reliability plan, one file per group:
//!
//! | | | |
//! | --- | --- | --- |
//! | I1 no accepted command lost | I2 one order per key | `commands` |
//! | I3 no oversell | | `stock` |
//! | I4 no double charge | | `money` |
//! | I5 notices | | `notices` |
//! | I6 termination | | `ends` |
//! | I7 legal histories | | `histories` |
//! | I8 sequences | I9 outbox and log | `sequences` |
//! | I10 positions | | `positions`, `audit` |
//! | I11 live tables = model of the log, and `orderctl verify` | | `rows`, over `model` |
//! | I12 dead letters | | `dead` |
//! | I13 IDs | | `ids` |
//! | I15 non-vacuity | I16 bounded resources | `vacuity` |
//!
//! Left out: I14 (one-time tokens), which the system does not have yet.

mod audit;
mod commands;
mod dead;
mod ends;
mod histories;
mod ids;
mod letters;
mod log;
mod model;
mod money;
mod notices;
mod positions;
mod rows;
mod sequences;
mod stock;
mod vacuity;
mod witness;

pub use witness::{Checked, Report, Violation, Witness};

use crate::evidence::Folder;

/// Judges a run.
///
/// # Errors
/// When the evidence cannot be read at all: no schema IDs, no topics.
pub fn judge(folder: &Folder) -> anyhow::Result<Report> {
    let log = log::Log::read(folder)?;
    let model = model::Model::of(&log);
    let checks = [
        commands::accepted(&log),
        commands::keys(&log),
        stock::sums(&log, &model),
        money::ledger(&log, &model),
        notices::messages(&log, &model),
        ends::everything(&log, &model),
        histories::legal(&log, &model),
        sequences::without_hole(&log),
        sequences::outbox(&log),
        positions::ends(&log),
        rows::live(&log, &model),
        dead::letters(&log),
        ids::distinct(&log),
        vacuity::happened(&log, &model),
        vacuity::bounded(&log),
    ];
    let checks: Vec<Checked> = checks.into_iter().map(witness::Findings::close).collect();
    Ok(Report { valid: checks.iter().all(|checked| checked.violated == 0), left_out: vec!["I14".to_owned()], checks })
}
