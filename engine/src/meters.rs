//! The engine's metrics, for the process' one registry.
//!
//! Counts and sizes only; what a number means for a shop is a dashboard's business.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// What the processors of a process count.
#[derive(Debug, Clone)]
pub struct Meters {
    pub(crate) batches: Counter,
    pub(crate) inputs: Counter,
    pub(crate) events: Counter,
    pub(crate) repeats: Counter,
    pub(crate) dead: Counter,
    pub(crate) held: Counter,
    pub(crate) retries: Counter,
    pub(crate) storms: Counter,
    pub(crate) published: Counter,
    pub(crate) timers: Counter,
    pub(crate) effect_tries: Counter,
    pub(crate) refused_fences: Counter,
    pub(crate) outages: Counter,
    pub(crate) batch_inputs: Histogram,
    pub(crate) batch_seconds: Histogram,
    pub(crate) live: Gauge<i64, std::sync::atomic::AtomicI64>,
    pub(crate) busy_micros: Counter<u64, AtomicU64>,
}

impl Meters {
    /// Registers the engine's metrics.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let meters = Self {
            batches: Counter::default(),
            inputs: Counter::default(),
            events: Counter::default(),
            repeats: Counter::default(),
            dead: Counter::default(),
            held: Counter::default(),
            retries: Counter::default(),
            storms: Counter::default(),
            published: Counter::default(),
            timers: Counter::default(),
            effect_tries: Counter::default(),
            refused_fences: Counter::default(),
            outages: Counter::default(),
            batch_inputs: Histogram::new(exponential_buckets(1.0, 2.0, 10)),
            batch_seconds: Histogram::new(exponential_buckets(0.0005, 2.0, 14)),
            live: Gauge::default(),
            busy_micros: Counter::default(),
        };
        let engine = registry.sub_registry_with_prefix("engine");
        engine.register("batches", "Committed batches", meters.batches.clone());
        engine.register("inputs", "Inputs taken in by committed batches", meters.inputs.clone());
        engine.register("events", "Own records decided", meters.events.clone());
        engine.register("repeats", "Records seen before and dropped", meters.repeats.clone());
        engine.register("dead", "Records kept as dead letters", meters.dead.clone());
        engine.register(
            "held",
            "Records held because they, or one before them, cannot be applied",
            meters.held.clone(),
        );
        engine.register("retries", "Attempts to apply a held record", meters.retries.clone());
        engine.register("storms", "Pauses because most records failed, and trials that failed", meters.storms.clone());
        engine.register("published", "Own records acknowledged by Kafka", meters.published.clone());
        engine.register("timers", "Timers fired", meters.timers.clone());
        engine.register("effect_tries", "Tries of effects", meters.effect_tries.clone());
        engine.register("refused_fences", "Batches of a former owner refused", meters.refused_fences.clone());
        engine.register("outages", "Batches put off because a dependency was down", meters.outages.clone());
        engine.register("batch_inputs", "Inputs per committed batch", meters.batch_inputs.clone());
        engine.register(
            "batch_seconds",
            "Duration of a committed batch, those that share its transaction included",
            meters.batch_seconds.clone(),
        );
        engine.register("live_processors", "Processors that take inputs in", meters.live.clone());
        engine.register("busy_micros", "Microseconds spent in batches", meters.busy_micros.clone());
        meters
    }
}
