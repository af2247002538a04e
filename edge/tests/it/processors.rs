//! The admin routes of the processors, over real HTTP: who gets in, what is shown, and what may be told to go on.
//!
//! The processors are a table here; that a real one goes on is `e2e`'s to see, and `engine`'s contract.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use edge::auth::Access;
use edge::config::Secret;
use edge::health::{Admin, Health, Report, Stopping};
use edge::metrics::HttpMetrics;
use edge::processors::Processors;
use edge::rotation::Rotating;
use edge::server::{self, Running, Site};
use edge::token::{Keys, Role};
use engine::desk::DeadLetters;
use engine::status::{ProcessorStatus, State};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::site::problem;
use crate::support::{PUBLIC_KEY, token};

/// Processors as a table; nothing before they are started.
#[derive(Debug, Default)]
struct Board {
    processors: Mutex<Option<Vec<ProcessorStatus>>>,
    resumed: Mutex<Vec<i32>>,
}

impl Health for Board {
    fn report(&self) -> BoxFuture<'_, Report> {
        let processors = self.processors().unwrap_or_default();
        let reasons: Vec<String> = processors.iter().filter_map(|status| status.reason.clone()).collect();
        let processors = processors.into_iter().map(|status| serde_json::to_value(status).unwrap()).collect();
        std::future::ready(Report { ready: reasons.is_empty(), reasons, processors, dependencies: Vec::new() }).boxed()
    }
}

impl Processors for Board {
    fn processors(&self) -> Option<Vec<ProcessorStatus>> {
        self.processors.lock().unwrap().clone()
    }

    fn dead_letters(&self) -> Option<Arc<dyn DeadLetters>> {
        None
    }

    fn resume(&self, partition: i32) {
        self.resumed.lock().unwrap().push(partition);
    }
}

fn processor(partition: i32, state: State, reason: Option<&str>) -> ProcessorStatus {
    ProcessorStatus {
        partition,
        state,
        reason: reason.map(str::to_owned),
        epoch: 7,
        batch: 40,
        positions: BTreeMap::from([("toy.commands".to_owned(), 12)]),
        lag: 3,
        sequence: 9,
        acked_sequence: 8,
        open_effects: 1,
        held: 0,
        oldest_timer_seconds: 0,
    }
}

/// An admin port and a client of it.
pub(crate) struct Port {
    board: Arc<Board>,
    address: String,
    stopping: Stopping,
    client: reqwest::Client,
    pub(crate) running: Running,
}

impl Port {
    pub(crate) fn open(processors: Option<Vec<ProcessorStatus>>) -> Self {
        let board = Arc::new(Board { processors: Mutex::new(processors), ..Board::default() });
        let mut registry = prometheus_client::registry::Registry::default();
        let metrics = HttpMetrics::register(&mut registry);
        let keys = Arc::new(Rotating::new(&Secret::new(PUBLIC_KEY), str::parse::<Keys>).unwrap());
        let stopping = Stopping::default();
        let admin = Admin {
            health: board.clone(),
            processors: board.clone(),
            registry: Arc::new(registry),
            stopping: stopping.clone(),
        };
        let listener = server::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let running = Site::new(listener, keys, metrics).start(move || admin.routes()).unwrap();
        let address = format!("http://{}", running.address());
        Self { board, address, stopping, client: reqwest::Client::new(), running }
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.address))
    }

    fn resume(&self, partition: &str) -> RequestBuilder {
        let path = format!("/admin/processors/{partition}/resume");
        self.request(Method::POST, &path).bearer_auth(token("olga", Role::Operator))
    }

    fn resumed(&self) -> Vec<i32> {
        self.board.resumed.lock().unwrap().clone()
    }
}

#[actix_web::test]
async fn only_operators_see_processors_and_tell_them_to_go_on() {
    let port = Port::open(Some(vec![processor(0, State::Stopped, Some("a hole"))]));
    for (method, path) in [(Method::GET, "/admin/processors"), (Method::POST, "/admin/processors/0/resume")] {
        let none = port.request(method.clone(), path).send().await.unwrap();
        problem(none, 401, "UNAUTHENTICATED").await;
        let customer = port.request(method.clone(), path).bearer_auth(token("anna", Role::Customer));
        problem(customer.send().await.unwrap(), 403, "FORBIDDEN").await;
        let other = if method == Method::GET { Method::POST } else { Method::GET };
        problem(port.request(other, path).send().await.unwrap(), 405, "METHOD_NOT_ALLOWED").await;
    }
    assert_eq!(port.resumed(), Vec::<i32>::new());
    port.running.stop().await;
}

#[actix_web::test]
async fn a_processor_that_pauses_may_be_told_to_go_on() {
    let port = Port::open(Some(vec![processor(3, State::Paused, Some("most records fail"))]));
    assert_eq!(port.resume("3").send().await.unwrap().status(), 202);
    assert_eq!(port.resumed(), [3]);
    port.running.stop().await;
}

#[actix_web::test]
async fn everything_below_admin_takes_an_operator() {
    let board = Arc::new(Board::default());
    let registry = Arc::new(prometheus_client::registry::Registry::default());
    let admin = Admin { health: board.clone(), processors: board, registry, stopping: Stopping::default() };
    let table = admin.routes().table();
    // A test build's boundaries are shown and armed here too, its clock is stepped, and it miswrites.
    let of_tests = if cfg!(feature = "failpoints") { 4 } else { 0 };
    assert_eq!(table.len(), 12 + of_tests);
    for route in table {
        let access = if route.path.starts_with("/admin/") { Access::Operator } else { Access::Open };
        assert_eq!(route.access, access, "{route:?}");
    }
}

#[actix_web::test]
async fn an_operator_sees_what_readiness_says_ready_or_not() {
    let port = Port::open(Some(vec![processor(0, State::Live, None), processor(4, State::Stopped, Some("a hole"))]));
    let shown = port.request(Method::GET, "/admin/processors").bearer_auth(token("olga", Role::Operator));
    let shown = shown.send().await.unwrap();
    assert_eq!(shown.status(), 200);
    let shown: Value = shown.json().await.unwrap();
    let ready = port.request(Method::GET, "/readyz").send().await.unwrap();
    assert_eq!(ready.status(), 503);
    assert_eq!(shown, ready.json::<Value>().await.unwrap());
    assert_eq!(
        shown["processors"][1],
        json!({
            "partition": 4, "state": "stopped", "reason": "a hole", "epoch": 7, "batch": 40,
            "positions": {"toy.commands": 12}, "lag": 3, "sequence": 9, "acked_sequence": 8, "open_effects": 1, "held": 0,
            "oldest_timer_seconds": 0,
        })
    );
    port.stopping.begin();
    let stopping = port.request(Method::GET, "/admin/processors").bearer_auth(token("olga", Role::Operator));
    let stopping: Value = stopping.send().await.unwrap().json().await.unwrap();
    assert_eq!((&stopping["ready"], &stopping["reasons"][0]), (&json!(false), &json!("the process is stopping")));
    port.running.stop().await;
}

#[actix_web::test]
async fn a_stopped_processor_is_told_to_go_on_once_or_twice() {
    let port = Port::open(Some(vec![processor(0, State::Live, None), processor(4, State::Stopped, Some("a hole"))]));
    for _ in 0..2 {
        let answer = port.resume("4").send().await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["location"]),
            (202, &"/admin/processors".parse().unwrap())
        );
        let told: Value = answer.json().await.unwrap();
        assert_eq!((&told["partition"], &told["reason"], &told["batch"]), (&json!(4), &json!("a hole"), &json!(40)));
    }
    assert_eq!(port.resumed(), [4, 4]);
    port.running.stop().await;
}

#[actix_web::test]
async fn what_is_not_stopped_is_left_alone_and_says_what_it_does() {
    let waits = Some("waits for Postgres");
    let port = Port::open(Some(vec![
        processor(0, State::Live, None),
        processor(1, State::Preparing, None),
        processor(2, State::Waiting, waits),
    ]));
    for (partition, state, reason) in [(0, "live", None), (1, "preparing", None), (2, "waiting", waits)] {
        let refused = problem(port.resume(&partition.to_string()).send().await.unwrap(), 409, "NOT_STOPPED").await;
        assert_eq!(refused["detail"], format!("Processor {partition} is {state}, not stopped: it goes on by itself."));
        assert_eq!((&refused["partition"], &refused["state"]), (&json!(partition), &json!(state)));
        assert_eq!(refused["reason"], json!(reason));
    }
    assert_eq!(port.resumed(), Vec::<i32>::new());
    port.running.stop().await;
}

#[actix_web::test]
async fn a_processor_that_is_not_here_is_404_and_names_itself() {
    let port = Port::open(Some(vec![processor(0, State::Stopped, None)]));
    for partition in [1_i64, -1, 4_294_967_296, i64::MAX] {
        let unknown = problem(port.resume(&partition.to_string()).send().await.unwrap(), 404, "NOT_FOUND").await;
        assert_eq!(unknown["detail"], format!("Processor {partition} is not assigned to this process."));
        assert_eq!(unknown["partition"], partition);
    }
    assert_eq!(port.resumed(), Vec::<i32>::new());
    port.running.stop().await;
}

#[actix_web::test]
async fn what_is_no_number_is_400_and_points_at_the_partition() {
    let port = Port::open(Some(vec![processor(0, State::Stopped, None)]));
    for partition in ["x", "00", "+0", "-0", "0.0", "0x0", "1e3", "%20", "0%00", "%ff", "9223372036854775808"] {
        let malformed = problem(port.resume(partition).send().await.unwrap(), 400, "PARTITION_MALFORMED").await;
        assert_eq!(malformed["errors"], json!([{"pointer": "/partition", "detail": "must be an integer"}]));
    }
    assert_eq!(port.resumed(), Vec::<i32>::new());
    port.running.stop().await;
}

#[actix_web::test]
async fn a_process_without_an_engine_says_to_come_again() {
    let port = Port::open(None);
    let starting = port.resume("0").send().await.unwrap();
    assert_eq!(starting.headers()["retry-after"], "2");
    problem(starting, 503, "UNAVAILABLE").await;
    port.running.stop().await;
}
