//! Batch sizes of each service, from `/metrics` before and after.
//!
//! Only the engine's few figures are read; the text format is Prometheus'.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;

use crate::report::Batch;

const TIMEOUT: Duration = Duration::from_secs(5);
const INPUTS: &str = "engine_batch_inputs_sum";
const BATCHES: &str = "engine_batch_inputs_count";
const SECONDS: &str = "engine_batch_seconds_sum";

/// What an instance has counted since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Counted {
    inputs: f64,
    batches: f64,
    seconds: f64,
}

/// Asks each instance; one that does not answer is an error, since a bench without it would lie.
///
/// # Errors
/// When one does not answer.
pub(crate) async fn read(targets: &[(String, String)]) -> anyhow::Result<BTreeMap<String, Counted>> {
    let http = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build().context("making an HTTP client")?;
    let mut counted = BTreeMap::new();
    for (name, url) in targets {
        let answer = http.get(url).send().await.with_context(|| format!("{name} does not answer at {url}"))?;
        let text = answer.text().await.with_context(|| format!("reading {url}"))?;
        counted.insert(name.clone(), parse(&text));
    }
    Ok(counted)
}

fn parse(text: &str) -> Counted {
    // Samples without labels: name, blank, value.
    let value = |name: &str| {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        lines.next().and_then(|value| value.trim().parse().ok()).unwrap_or(0.0)
    };
    Counted { inputs: value(INPUTS), batches: value(BATCHES), seconds: value(SECONDS) }
}

/// The batches between two readings.
pub(crate) fn between(
    before: &BTreeMap<String, Counted>,
    after: &BTreeMap<String, Counted>,
) -> BTreeMap<String, Batch> {
    let batch = |(name, after): (&String, &Counted)| {
        let before = before.get(name).copied().unwrap_or_default();
        let batches = after.batches - before.batches;
        let per_batch = |sum: f64| if batches > 0.0 { sum / batches } else { 0.0 };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a counter, far below 2^53")]
        let count = batches.max(0.0) as u64;
        let (mean_inputs, mean_ms) =
            (per_batch(after.inputs - before.inputs), per_batch(after.seconds - before.seconds) * 1_000.0);
        (name.clone(), Batch { batches: count, mean_inputs, mean_ms })
    };
    after.iter().map(batch).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# TYPE engine_batch_inputs histogram\nengine_batch_inputs_sum 120.0\n\
        engine_batch_inputs_count 40\nengine_batch_inputs_bucket{le=\"1.0\"} 3\nengine_batch_seconds_sum 0.08\n";

    #[test]
    fn batches_are_what_came_between() {
        let after = parse(TEXT);
        assert_eq!(after, Counted { inputs: 120.0, batches: 40.0, seconds: 0.08 });
        let before = Counted { inputs: 20.0, batches: 20.0, seconds: 0.04 };
        let of = |counted| BTreeMap::from([("order-svc".to_owned(), counted)]);
        let batch = &between(&of(before), &of(after))["order-svc"];
        assert_eq!(batch.batches, 20);
        assert!((batch.mean_inputs - 5.0).abs() < 1e-9 && (batch.mean_ms - 2.0).abs() < 1e-9);
        assert_eq!(between(&of(after), &of(after))["order-svc"].mean_inputs, 0.0);
    }
}
