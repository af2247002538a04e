//! The crash matrix. `cargo verify` kills at every boundary the first time it is reached; with `--full` every boundary also
//! errs and stands still, the first time and at a later one.

use e2e::matrix::{self, Action};
use rand::RngExt;

/// Later hits: not later than a short run comes to.
const LATER_MAX: u64 = 5;

/// Boundaries that a run reaches seldom.
const SELDOM: [&str; 9] = ["C7", "E1", "E2", "E3", "D3", "R4", "B1", "B2", "B3"];

#[tokio::test(flavor = "multi_thread")]
async fn a_process_may_die_err_or_stand_still_at_any_boundary() -> anyhow::Result<()> {
    #[expect(clippy::disallowed_methods, reason = "set by `cargo verify --full`")]
    let full = std::env::var("ORDERLOG_TEST_FULL").is_ok();
    Box::pin(matrix::run(Action::Kill, |_| 1)).await?;
    if full {
        for action in [Action::Err, Action::Stop] {
            Box::pin(matrix::run(action, |_| 1)).await?;
        }
        for action in [Action::Kill, Action::Err, Action::Stop] {
            let later = |label: &str| if SELDOM.contains(&label) { 1 } else { rand::rng().random_range(2..=LATER_MAX) };
            Box::pin(matrix::run(action, later)).await?;
        }
    }
    Ok(())
}
