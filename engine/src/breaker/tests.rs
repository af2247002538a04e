//! A breaker over paused time: what opens it, who probes, what closes it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;

/// A server that is there or not, and counts who looks.
#[derive(Default)]
struct Server {
    away: AtomicBool,
    silent: AtomicBool,
    probes: AtomicUsize,
    at_once: AtomicUsize,
    at_once_max: AtomicUsize,
}

impl Server {
    async fn look(&self) -> Result<(), String> {
        self.probes.fetch_add(1, Ordering::Relaxed);
        let now = self.at_once.fetch_add(1, Ordering::Relaxed) + 1;
        self.at_once_max.fetch_max(now, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(5)).await;
        if self.silent.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_secs(3_600)).await;
        }
        self.at_once.fetch_sub(1, Ordering::Relaxed);
        if self.away.load(Ordering::Relaxed) { Err("refused\n  by nobody".to_owned()) } else { Ok(()) }
    }

    fn probes(&self) -> usize {
        self.probes.load(Ordering::Relaxed)
    }
}

fn watched() -> (Breaker, Arc<Server>) {
    let (breaker, server) = (Breaker::new("kafka", "Kafka at 127.0.0.1:1", true), Arc::new(Server::default()));
    let looked = Arc::clone(&server);
    breaker.watch(move || {
        let server = Arc::clone(&looked);
        async move { server.look().await }
    });
    (breaker, server)
}

async fn opened(breaker: &Breaker) {
    breaker.away_for(Duration::ZERO).await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_opens_it_only_when_the_probe_fails_too() {
    let (breaker, server) = watched();
    breaker.failed("a lock was not to be had");
    breaker.settled().await;
    assert!(breaker.check().is_ok());
    assert_eq!((server.probes(), breaker.0.openings.get()), (1, 0));

    server.away.store(true, Ordering::Relaxed);
    breaker.failed("connection refused");
    assert!(breaker.check().is_ok(), "not before the probe");
    opened(&breaker).await;
    let said = breaker.check().unwrap_err().to_string();
    assert!(said.starts_with("waiting for Kafka at 127.0.0.1:1 since 20"), "{said}");
    assert!(said.ends_with("Z: refused by nobody"), "one line: {said}");
    assert_eq!((breaker.0.openings.get(), breaker.0.up.get()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn while_it_is_open_one_probe_at_a_time_looks_and_the_first_answer_closes_it() {
    let (breaker, server) = watched();
    server.away.store(true, Ordering::Relaxed);
    for _ in 0..100 {
        breaker.failed("connection refused");
    }
    opened(&breaker).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let probes = server.probes();
    assert!((40..400).contains(&probes), "{probes} probes in a minute");
    assert_eq!(server.at_once_max.load(Ordering::Relaxed), 1);
    assert_eq!(breaker.0.openings.get(), 1, "one outage");

    server.away.store(false, Ordering::Relaxed);
    let back = tokio::time::Instant::now();
    breaker.settled().await;
    assert!(back.elapsed() <= PAUSE_MAX + Duration::from_millis(100), "{:?}", back.elapsed());
    assert!(breaker.check().is_ok());
    let shown = breaker.dependency();
    assert_eq!((shown.state, shown.since, shown.error, shown.next_probe), (State::Closed, None, None, None));
    assert_eq!(breaker.0.up.get(), 1);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(server.probes() <= probes + 2, "a closed one is not probed");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_takes_connections_and_says_nothing_is_away() {
    let (breaker, server) = watched();
    server.silent.store(true, Ordering::Relaxed);
    breaker.failed("no answer");
    opened(&breaker).await;
    assert_eq!(breaker.dependency().error.as_deref(), Some("no answer within 1500 ms"));
    server.silent.store(false, Ordering::Relaxed);
    let back = tokio::time::Instant::now();
    breaker.settled().await;
    assert!(back.elapsed() <= PROBE_MAX + PAUSE_MAX + Duration::from_millis(100), "{:?}", back.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_takes_long_is_doubted_before_its_time_is_over_and_gets_its_answer() {
    let (breaker, server) = watched();
    let slow = breaker.ask(async {
        tokio::time::sleep(Duration::from_secs(8)).await;
        7
    });
    assert_eq!(slow.await, 7);
    assert_eq!((server.probes(), breaker.0.openings.get()), (1, 0), "it only took long");
    server.away.store(true, Ordering::Relaxed);
    let silent = tokio::time::timeout(Duration::from_secs(3), breaker.ask(std::future::pending::<()>()));
    assert!(silent.await.is_err() && breaker.check().is_err(), "{:?}", breaker.dependency());
}

#[tokio::test(start_paused = true)]
async fn open_and_half_open_are_told_with_the_next_probe() {
    let (breaker, server) = watched();
    server.away.store(true, Ordering::Relaxed);
    breaker.failed("connection refused");
    let mut seen = Vec::new();
    let until = tokio::time::Instant::now() + Duration::from_secs(30);
    while tokio::time::Instant::now() < until {
        let shown = breaker.dependency();
        assert_eq!(shown.next_probe.is_some(), shown.state == State::Open);
        assert_eq!(shown.error.is_some(), shown.state != State::Closed);
        if seen.last() != Some(&shown.state) {
            seen.push(shown.state);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(seen[..4], [State::Closed, State::Open, State::HalfOpen, State::Open]);
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_succeeds_closes_it_and_ends_the_probing() {
    let (breaker, server) = watched();
    server.away.store(true, Ordering::Relaxed);
    breaker.failed("connection refused");
    opened(&breaker).await;
    breaker.succeeded();
    assert!(breaker.check().is_ok() && breaker.is_settled());
    tokio::time::sleep(Duration::from_secs(10)).await;
    let probes = server.probes();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(server.probes(), probes);
    assert!(breaker.check().is_ok(), "a late probe opens nothing");
}

#[tokio::test(start_paused = true)]
async fn what_fails_at_once_again_and_again_waits_longer_each_time() {
    let (breaker, _) = watched();
    let mut waited = Vec::new();
    for _ in 0..200 {
        let failed = tokio::time::Instant::now();
        breaker.failed("disk full");
        breaker.settled().await;
        waited.push(failed.elapsed());
        assert!(breaker.check().is_ok());
    }
    let early: Duration = waited[..3].iter().sum();
    let late: Duration = waited[10..].iter().sum::<Duration>() / 190;
    assert!(early < Duration::from_secs(1), "{early:?}");
    assert!(late > Duration::from_millis(500) && late < PAUSE_MAX, "{late:?} on average");
    breaker.succeeded();
    breaker.failed("disk full");
    let failed = tokio::time::Instant::now();
    breaker.settled().await;
    assert!(failed.elapsed() <= PAUSE_MIN + Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn without_a_probe_it_only_makes_callers_pause() {
    let breaker = Breaker::new("kafka", "Kafka", true);
    for _ in 0..20 {
        breaker.failed("connection refused");
        assert!(breaker.check().is_ok() && breaker.is_settled());
    }
    let started = tokio::time::Instant::now();
    breaker.settled().await;
    assert!(started.elapsed() <= PAUSE_MAX);
}

#[tokio::test(start_paused = true)]
async fn a_short_outage_is_not_a_long_one() {
    let (breaker, server) = watched();
    let long = {
        let breaker = breaker.clone();
        tokio::spawn(async move { breaker.away_for(Duration::from_secs(10)).await })
    };
    for _ in 0..3 {
        server.away.store(true, Ordering::Relaxed);
        breaker.failed("connection refused");
        opened(&breaker).await;
        tokio::time::sleep(Duration::from_secs(6)).await;
        server.away.store(false, Ordering::Relaxed);
        breaker.settled().await;
    }
    assert!(!long.is_finished());
    server.away.store(true, Ordering::Relaxed);
    breaker.failed("connection refused");
    tokio::time::timeout(Duration::from_secs(11), long).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn breakers_are_listed_and_counted() {
    let mut registry = Registry::default();
    let breakers = Breakers::register(&mut registry);
    let (kafka, _gateway) = (breakers.add("kafka", "Kafka", true), breakers.add("gateway", "the gateway", false));
    kafka.watch(|| async { Err("refused".to_owned()) });
    kafka.failed("refused");
    opened(&kafka).await;
    let names: Vec<_> = breakers.dependencies().iter().map(|one| (one.name, one.state == State::Closed)).collect();
    assert_eq!(names, [("kafka", false), ("gateway", true)]);
    let away = breakers.away();
    assert!(away.len() == 1 && away[0].1, "{away:?}");
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for line in [
        r#"orderlog_dependency_up{dependency="kafka"} 0"#,
        r#"orderlog_dependency_up{dependency="gateway"} 1"#,
        r#"orderlog_dependency_openings_total{dependency="kafka"} 1"#,
        r#"orderlog_dependency_openings_total{dependency="gateway"} 0"#,
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
}
