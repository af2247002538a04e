//! A short chaos run with a fresh seed; ten minutes of it with `cargo verify --full`.
//!
//! `cargo chaos` runs it alone, and for longer.

use std::time::Duration;

use e2e::chaos::{self, Options};

/// Not set by `cargo verify` without `--full`.
#[expect(clippy::disallowed_methods, reason = "the tests' one way to learn that there is time")]
fn is_full() -> bool {
    std::env::var("ORDERLOG_TEST_FULL").is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_under_load_lose_and_double_nothing() -> anyhow::Result<()> {
    let seed = u64::from(rand::random::<u32>());
    let mut folder = tempfile::Builder::new().prefix("orderlog-chaos-").tempdir()?;
    // What a debug build does on two cores that have more to do: faults are what is tried here, not speed.
    let (length, rate) = if is_full() { (Duration::from_secs(600), 10.0) } else { (Duration::from_secs(60), 3.0) };
    let options = Options { seed, length, rate, out: folder.path().to_owned(), patience: 4, is_live: false };
    match chaos::run(&options).await {
        Ok(report) if report.is_valid() => println!("{report}"),
        failed => {
            folder.disable_cleanup(true);
            let said = failed.map_or_else(|error| format!("{error:#}"), |report| report.to_string());
            panic!("seed {seed}: {said}\nevidence: {}", folder.path().display());
        }
    }
    Ok(())
}
