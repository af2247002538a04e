//! Bugs that a test build has on purpose, one at a time, so that it can be shown that the tests see them: the twenty of the
//! reliability plan. `cargo verify` runs for each the tests that must fail with it.
//!
//! A normal build has none. The feature is `failpoints`, the name is in the variable `MUTANT`.
//!
//! No bugs, but the test build's too: it can be a build of yesterday, which lacks the record types that the variable `LACKS`
//! names, as if nobody had thought of them yet; or, with `MENDED`, one of tomorrow, which also reads events whose schema IDs
//! were written in reverse ([`crate::failpoint`]).

/// The names, in the plan's order.
pub const ALL: [&str; 20] = [
    "position-outside-the-transaction",
    "no-sequence-check",
    "outbox-row-deleted-before-its-acknowledgement",
    "hole-passed-over",
    "held-key-does-not-rest",
    "fence-without-epoch",
    "followers-of-a-held-record-go-on",
    "offset-reset-to-latest",
    "fresh-key-for-each-charge",
    "stock-without-a-lock",
    "clock-in-evolve",
    "dead-letter-beside-the-outbox",
    "report-without-offset-counts",
    "epoch-bump-and-reads-in-one-statement",
    "unknown-commit-tried-again-without-batch-number",
    "timer-before-catch-up",
    "lock-time-out-held-as-a-bad-record",
    "recovery-keeps-the-outbox",
    "effect-before-its-acknowledgement",
    "two-topics-in-flight",
];

#[cfg(feature = "failpoints")]
#[path = "mutant_bugs.rs"]
mod bugs;
#[cfg(not(feature = "failpoints"))]
#[path = "mutant_none.rs"]
mod bugs;

pub use bugs::is;
pub(crate) use bugs::{fence, is_mended, lacks, miss_outbox_behind, move_positions, outbox_before, publish_beside};
