//! Arming the boundaries of a service that runs, stepping its clock and spoiling its writing, which only a test build
//! has ([`engine::failpoint`]).

use std::time::Duration;

use anyhow::ensure;
use reqwest::Method;

use crate::client::Client;

/// Arms a boundary, with the actions of the crate `fail`.
///
/// # Errors
/// When the process does not answer, or is no test build.
pub(crate) async fn arm(operator: &Client, admin: &str, label: &str, actions: &str) -> anyhow::Result<()> {
    let url = format!("{admin}/admin/failpoints/{label}");
    let answer = operator.request(Method::PUT, &url).body(actions.to_owned()).send().await?;
    ensure!(answer.status().is_success(), "only a test build can be armed: {answer:?}");
    Ok(())
}

/// How often a boundary was reached since the process started.
///
/// # Errors
/// When the process does not answer.
pub(crate) async fn hits(operator: &Client, admin: &str, label: &str) -> anyhow::Result<u64> {
    let answer = operator.get(&format!("{admin}/admin/failpoints")).await?;
    Ok(answer.body[label].as_u64().unwrap_or(0))
}

/// Puts the wall clock of a test build ahead, for so long.
///
/// # Errors
/// As [`arm`].
pub(crate) async fn step_clock(operator: &Client, admin: &str, ahead_ms: i64, lasts: Duration) -> anyhow::Result<()> {
    let step = format!("{ahead_ms} {}", lasts.as_millis());
    let answer = operator.request(Method::PUT, &format!("{admin}/admin/clock")).body(step).send().await?;
    ensure!(answer.status().is_success(), "only a test build has another clock: {answer:?}");
    Ok(())
}

/// A test build writes so many of the next events wrongly. Returns how many it has so far.
///
/// # Errors
/// As [`arm`].
pub(crate) async fn miswrite(operator: &Client, admin: &str, events: u64) -> anyhow::Result<u64> {
    let request = operator.request(Method::PUT, &format!("{admin}/admin/miswrites"));
    let answer = request.body(events.to_string()).send().await?;
    ensure!(answer.status().is_success(), "only a test build miswrites: {answer:?}");
    Ok(answer.json().await?)
}
