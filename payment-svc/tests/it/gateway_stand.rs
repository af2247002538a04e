//! A payment gateway in this process, on a free port, whose trouble is its test's own.

use std::time::Duration;

use engine::service::{Outcome, Service, Try};
use events::id::{EventId, OrderId};
use events::money::{Currency, Money};
use events::record::SetBy;
use events::time::Timestamp;
use payment_svc::domain::{Input as Rule, Payment, Report, State, Terms};
use payment_svc::gateway::{Gateway, Http, request};
use payment_svc::processor::{Input, Payments};
use reqwest::Client;
use serde_json::{Value, json};
use simulators::config::{GatewayConfig, Secret};
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Before, and from, the time by which the order must be paid.
pub(crate) const EARLY: Timestamp = Timestamp(1_767_225_600_000);
pub(crate) const PAY_BY: Timestamp = Timestamp(EARLY.0 + 900_000);
pub(crate) const ASK_AFTER: Duration = Duration::from_secs(30);
/// Nobody listens there; what is told by callback is http's test.
const CALLBACK_URL: &str = "http://127.0.0.1:9/v1/callbacks/gateway";

pub(crate) fn usd(amount: i64) -> Money {
    Money::new(amount, Currency::USD)
}

pub(crate) fn first() -> Try {
    Try { number: 1, may_have_called: false, now: EARLY }
}

pub(crate) fn again() -> Try {
    Try { number: 2, may_have_called: true, now: EARLY }
}

fn payment(order: i64) -> Payment {
    Payment { order_id: OrderId(order), customer_id: "c-1".to_owned(), total: usd(198) }
}

fn terms(method: &str) -> Terms {
    Terms { payment_method: method.to_owned(), pay_by: PAY_BY, pay_url: None }
}

const MARK: SetBy = SetBy { event_id: EventId(1), sequence: 1 };

/// A payment that is to be charged.
pub(crate) fn requested(order: i64, method: &str) -> State {
    State::Requested { payment: payment(order), terms: terms(method), charge: MARK }
}

/// A payment that is given up.
pub(crate) fn given_up(order: i64, method: &str) -> State {
    State::CancelRequested { payment: payment(order), terms: terms(method), cancel: MARK }
}

/// A payment of which so much goes back.
pub(crate) fn refunding(order: i64, taken: i64) -> State {
    State::Refunding { payment: payment(order), taken: usd(taken), refund: MARK }
}

/// A service that calls the gateway at this URL.
pub(crate) fn calling(url: &str) -> Payments {
    Payments { gateway: Gateway::Http(Http::new(url, CALLBACK_URL.to_owned(), ASK_AFTER).unwrap()) }
}

/// What came of one try of the call that a payment asks for.
pub(crate) async fn perform(service: &Payments, state: &State, attempt: Try) -> Outcome<Input> {
    service.perform(&request(state).unwrap(), attempt).await
}

/// The final word in an outcome.
pub(crate) fn word(outcome: Outcome<Input>) -> Report {
    match outcome {
        Outcome::Answer(Input::Payment(Rule::Answer { report, .. })) => report,
        other => panic!("{other:?}"),
    }
}

pub(crate) struct GatewayStand {
    pub(crate) service: Payments,
    pub(crate) url: String,
    client: Client,
    _dir: TempDir,
    _stop: DropGuard,
}

impl GatewayStand {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = GatewayConfig {
            addr: ([127, 0, 0, 1], 0).into(),
            secret: Secret::new("only-for-this-test"),
            data_dir: dir.path().to_owned(),
            public_url: None,
        };
        let gateway = simulators::gateway::Gateway::build(config).await.unwrap();
        let url = format!("http://{}", gateway.addr());
        let stop = CancellationToken::new();
        tokio::spawn(gateway.run(stop.clone()));
        Self { service: calling(&url), url, client: Client::new(), _dir: dir, _stop: stop.drop_guard() }
    }

    pub(crate) async fn perform(&self, state: &State, attempt: Try) -> Outcome<Input> {
        perform(&self.service, state, attempt).await
    }

    /// From now on, so many calls meet this trouble.
    pub(crate) async fn plan(&self, mode: &str, count: u64) {
        let plan = json!({"mode": mode, "count": count});
        let set = self.client.post(format!("{}/admin/plan", self.url)).json(&plan).send().await.unwrap();
        assert_eq!(set.status().as_u16(), 200);
    }

    /// Charges or refunds that the gateway has.
    pub(crate) async fn ledger(&self, of: &str) -> Vec<Value> {
        let page = self.client.get(format!("{}/v1/{of}?limit=200", self.url)).send().await.unwrap();
        let page: Value = page.json().await.unwrap();
        page["items"].as_array().unwrap().clone()
    }
}
