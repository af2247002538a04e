//! What is counted about HTTP, in the process' one registry, and how that registry is shown.
//!
//! Labels are route patterns, never paths: an ID in a label would make a series per order. The engine adds its own
//! metrics to the same registry.

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, prometheus_text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Media type of [`encode`]'s text.
pub const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    method: String,
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Routed {
    method: String,
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

/// Counters of requests, cheap to clone.
#[derive(Debug, Clone)]
pub struct HttpMetrics {
    requests: Family<Answered, Counter>,
    seconds: Family<Routed, Histogram, fn() -> Histogram>,
    refused: Family<Kind, Counter>,
    replayed: Counter,
}

impl HttpMetrics {
    /// Registers them under the prefix `http`.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        // 0.5 ms to 16 s.
        let buckets: fn() -> Histogram = || Histogram::new(exponential_buckets(0.0005, 2.0, 16));
        let metrics = Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(buckets),
            refused: Family::default(),
            replayed: Counter::default(),
        };
        let http = registry.sub_registry_with_prefix("http");
        http.register("requests", "Requests answered, by route and status", metrics.requests.clone());
        http.register("request_seconds", "Time from request to answer, by route", metrics.seconds.clone());
        http.register("refused", "Requests refused for who asked, or because too many did", metrics.refused.clone());
        http.register("replayed", "Answers given again for a known idempotency key", metrics.replayed.clone());
        metrics
    }

    pub(crate) fn answered(&self, method: &str, route: &str, status: u16, took: Duration) {
        let (method, route) = (known_method(method), route.to_owned());
        let routed = Routed { method: method.clone(), route: route.clone() };
        self.seconds.get_or_create(&routed).observe(took.as_secs_f64());
        let answered = Answered { method, route, status };
        self.requests.get_or_create(&answered).inc();
    }

    /// `kind` is one of authentication, authorisation, signature, overload.
    pub(crate) fn refused(&self, kind: &'static str) {
        self.refused.get_or_create(&Kind { kind }).inc();
    }

    pub(crate) fn replayed(&self) {
        self.replayed.inc();
    }
}

/// A client may invent methods; it must not invent series.
fn known_method(method: &str) -> String {
    const KNOWN: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    let known = KNOWN.contains(&method);
    (if known { method } else { "other" }).to_owned()
}

/// The registry in Prometheus' text format.
#[must_use]
pub fn encode(registry: &Registry) -> String {
    let mut text = String::new();
    prometheus_text::encode(&mut text, registry).expect("writing to a String does not fail");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_route_and_invented_methods_share_a_series() {
        let mut registry = Registry::default();
        let metrics = HttpMetrics::register(&mut registry);
        let took = Duration::from_millis(2);
        metrics.answered("GET", "/v1/orders/{id}", 200, took);
        metrics.answered("BREW", "unmatched", 404, took);
        metrics.answered("STEEP", "unmatched", 404, took);
        let text = encode(&registry);
        assert!(text.contains(r#"http_requests_total{method="GET",route="/v1/orders/{id}",status="200"} 1"#), "{text}");
        assert!(text.contains(r#"http_requests_total{method="other",route="unmatched",status="404"} 2"#), "{text}");
    }
}
