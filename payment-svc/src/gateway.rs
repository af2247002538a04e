//! Whom we call: the payment gateway over HTTP, or an adapter that answers inside this process (for the bench).
//!
//! Every call carries a key derived from the order; where an earlier try cannot be excluded the gateway is asked by that
//! key first (DESIGN §9, H10). What an answer means for a payment is [`crate::report`]'s.

use std::time::Duration;

use anyhow::Context;
use engine::breaker::{Breaker, Breakers};
use engine::service::{Outcome, Try};
use engine::{failpoint, mutant, probe};
use events::id::OrderId;
use events::money::{Currency, Money};
use events::time::Timestamp;
use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::domain::{Input as Rule, Report, State, charge_key, refund_key};
use crate::processor::Input;
use crate::state::Call;

/// A call takes at most this long; the engine tries again.
const TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Connections that are kept; as many as effects may be under way.
const IDLE_CONNECTIONS: usize = 64;
/// An answer is a small JSON object; more is not read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// A refusal's code goes into an event.
const CODE_CHARS_MAX: usize = 64;
/// The method whose payer pays on the gateway's hosted page.
const HOSTED_METHOD: &str = "pm_checkout";

/// What a call needs, read just before it is made.
#[derive(Debug, Clone)]
pub struct Request {
    order_id: OrderId,
    call: Call,
    /// The total for a charge, the money taken for a refund.
    amount: Money,
    /// Empty for a refund.
    payment_method: String,
    pay_by: Timestamp,
}

/// The call that a payment asks for, if any.
#[must_use]
pub fn request(state: &State) -> Option<Request> {
    let (call, _) = state.call()?;
    let payment = state.payment()?;
    let terms = state.terms();
    Some(Request {
        order_id: payment.order_id,
        call,
        amount: state.taken().unwrap_or(payment.total),
        payment_method: terms.map(|terms| terms.payment_method.clone()).unwrap_or_default(),
        pay_by: terms.map_or(Timestamp(i64::MAX), |terms| terms.pay_by),
    })
}

/// How payments are made.
#[derive(Debug)]
pub enum Gateway {
    /// A real gateway over HTTP.
    Http(Http),
    /// Answers at once by the scripted tokens, without any call. For measuring everything but a gateway.
    Inside,
}

/// The gateway's HTTP API.
#[derive(Debug)]
pub struct Http {
    client: reqwest::Client,
    /// Base URL without a slash at its end.
    url: String,
    /// Where the gateway reports to.
    callback_url: String,
    /// How long its callback may take before it is asked.
    ask_after: Duration,
    breaker: Breaker,
}

/// A charge or refund as the gateway shows it.
#[derive(Debug, Deserialize)]
struct Shown {
    status: String,
    amount: i64,
    currency: Currency,
}

/// Why there is no answer to build on.
enum Trouble {
    Unreachable(String),
    Failed(String),
}

impl Http {
    /// A client of the gateway at `url`, which is told to report to `callback_url`.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(url: &str, callback_url: String, ask_after: Duration) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()?;
        let breaker = Breaker::new("gateway", "the payment gateway", false);
        Ok(Self { client, url: url.trim_end_matches('/').to_owned(), callback_url, ask_after, breaker })
    }

    /// Calls nobody while the gateway's breaker is open, which is one of these from now on. Its probe asks for a charge that
    /// no order has.
    ///
    /// # Errors
    /// When the gateway's URL is none.
    pub fn guarded(mut self, breakers: &Breakers) -> anyhow::Result<Self> {
        let nobodys = format!("{}/v1/charges/{}", self.url, charge_key(OrderId(0)));
        let probe = probe::Http::new(&nobodys).context("GATEWAY_URL")?;
        // Not vital: commands, callbacks and reads need no gateway.
        self.breaker = breakers.add("gateway", format!("the payment gateway at {}", probe.place()), false);
        self.breaker.watch(move || probe.look());
        Ok(self)
    }

    async fn charge(&self, request: &Request, attempt: Try) -> Result<Outcome<Input>, Trouble> {
        let mut key = charge_key(request.order_id);
        if mutant::is("fresh-key-for-each-charge") {
            key = format!("{key}:{}:{}", attempt.now.0, attempt.number);
        }
        if attempt.may_have_called
            && let Some(shown) = self.get(&format!("/v1/charges/{key}")).await?
        {
            return Ok(self.judge_charge(request, attempt, &shown));
        }
        if attempt.now >= request.pay_by {
            return Ok(too_late(request, attempt.may_have_called));
        }
        let body = json!({
            "key": key,
            "amount": request.amount.amount,
            "currency": request.amount.currency,
            "payment_method": request.payment_method,
            "callback_url": self.callback_url,
        });
        match self.post("/v1/charges", &body).await? {
            (StatusCode::ACCEPTED | StatusCode::OK, _) => Ok(Outcome::Pending { ask_after: self.ask_after }),
            // Something stands under this key already: a charge, or that it was cancelled. It alone says whether money
            // was taken.
            (StatusCode::CONFLICT, problem) => match self.get(&format!("/v1/charges/{key}")).await? {
                Some(shown) => Ok(self.judge_charge(request, attempt, &shown)),
                None => Err(Trouble::Failed(format!("charge answered 409: {problem}"))),
            },
            (status, problem) => permanent(status, &problem).map(|_| answer(request, Report::Failed)),
        }
    }

    fn judge_charge(&self, request: &Request, attempt: Try, shown: &Shown) -> Outcome<Input> {
        match final_word(shown) {
            Some(report) => answer(request, report),
            None if attempt.now >= request.pay_by => too_late(request, true),
            None => Outcome::Pending { ask_after: self.ask_after },
        }
    }

    async fn cancel(&self, request: &Request) -> Result<Outcome<Input>, Trouble> {
        let path = format!("/v1/charges/{}/cancel", charge_key(request.order_id));
        match self.post(&path, &json!({})).await? {
            (StatusCode::OK, body) => {
                let shown: Shown = serde_json::from_value(body).map_err(|error| Trouble::Failed(error.to_string()))?;
                let report = final_word(&shown);
                Ok(report.map_or(Outcome::Pending { ask_after: self.ask_after }, |report| answer(request, report)))
            }
            (status, problem) => Err(Trouble::Failed(format!("cancel answered {status}: {problem}"))),
        }
    }

    async fn refund(&self, request: &Request, attempt: Try) -> Result<Outcome<Input>, Trouble> {
        let key = refund_key(request.order_id);
        if attempt.may_have_called
            && let Some(shown) = self.get(&format!("/v1/refunds/{key}")).await?
        {
            return Ok(if shown.status == "succeeded" {
                answer(request, Report::Refunded(Money::new(shown.amount, shown.currency)))
            } else {
                Outcome::Pending { ask_after: self.ask_after }
            });
        }
        let body = json!({"key": key, "charge_key": charge_key(request.order_id), "amount": request.amount.amount});
        match self.post("/v1/refunds", &body).await? {
            (StatusCode::ACCEPTED | StatusCode::OK, _) => Ok(Outcome::Pending { ask_after: self.ask_after }),
            (status, problem) => permanent(status, &problem).map(|code| answer(request, Report::RefundRefused(code))),
        }
    }

    /// `None`: the gateway knows nothing under this key.
    async fn get(&self, path: &str) -> Result<Option<Shown>, Trouble> {
        let response = self.client.get(format!("{}{path}", self.url)).send().await.map_err(unreachable)?;
        match read(response).await? {
            (StatusCode::NOT_FOUND, _) => Ok(None),
            (StatusCode::OK, body) => {
                serde_json::from_value(body).map(Some).map_err(|error| Trouble::Failed(error.to_string()))
            }
            (status, body) => Err(Trouble::Failed(format!("{path} answered {status}: {body}"))),
        }
    }

    async fn post(&self, path: &str, body: &Value) -> Result<(StatusCode, Value), Trouble> {
        let response = self.client.post(format!("{}{path}", self.url)).json(body).send().await.map_err(unreachable)?;
        let answer = read(response).await?;
        let label = if path.ends_with("/cancel") { "G5" } else { "G3" };
        failpoint::reach(label).await.map_err(|error| Trouble::Unreachable(error.to_string()))?;
        Ok(answer)
    }
}

impl Gateway {
    /// Where a person can pay, for the method that has a hosted page.
    #[must_use]
    pub fn pay_url(&self, order_id: OrderId, payment_method: &str) -> Option<String> {
        match self {
            Self::Http(http) if payment_method == HOSTED_METHOD => {
                Some(format!("{}/checkout/{}", http.url, charge_key(order_id)))
            }
            Self::Http(_) | Self::Inside => None,
        }
    }

    /// One try of a call.
    pub(crate) async fn perform(&self, request: &Request, attempt: Try) -> Outcome<Input> {
        let http = match self {
            Self::Inside => return inside(request, attempt),
            Self::Http(http) => http,
        };
        if let Err(away) = http.breaker.check() {
            return Outcome::Unreachable { message: away.to_string() };
        }
        if let Err(error) = failpoint::reach("G2").await {
            return Outcome::Unreachable { message: error.to_string() };
        }
        let call = async {
            match request.call {
                Call::Charge => http.charge(request, attempt).await,
                Call::Cancel => http.cancel(request).await,
                Call::Refund => http.refund(request, attempt).await,
            }
        };
        let outcome = http.breaker.ask(call).await;
        // A 500 is an answer too, and uses an attempt up.
        match &outcome {
            Err(Trouble::Unreachable(message)) => http.breaker.failed(message),
            Ok(_) | Err(Trouble::Failed(_)) => http.breaker.succeeded(),
        }
        if matches!(outcome, Ok(Outcome::Answer(_)))
            && let Err(error) = failpoint::reach("G4").await
        {
            return Outcome::Unreachable { message: error.to_string() };
        }
        outcome.unwrap_or_else(|trouble| match trouble {
            Trouble::Unreachable(message) => Outcome::Unreachable { message },
            Trouble::Failed(message) => Outcome::Failed { code: "GATEWAY_ERROR", message },
        })
    }
}

/// What the scripted tokens answer, without a gateway. Silent ones stay silent until they are given up.
fn inside(request: &Request, attempt: Try) -> Outcome<Input> {
    let amount = request.amount;
    let report = match (request.call, request.payment_method.as_str()) {
        (Call::Refund, _) => Report::Refunded(amount),
        (Call::Cancel, "pm_late") => Report::Captured(amount),
        (Call::Cancel, _) => Report::Cancelled,
        (Call::Charge, _) if attempt.now >= request.pay_by => return too_late(request, attempt.may_have_called),
        (Call::Charge, "pm_ok" | "pm_slow" | "pm_twice" | "pm_early" | "pm_late_decline") => Report::Captured(amount),
        (Call::Charge, "pm_wrong_amount") => Report::Captured(Money { amount: amount.amount + 1, ..amount }),
        (Call::Charge, "pm_declined") => Report::Declined,
        (Call::Charge, "pm_never" | "pm_late" | HOSTED_METHOD) => {
            return Outcome::Pending { ask_after: Duration::from_secs(1) };
        }
        (Call::Charge, _) => Report::Failed,
    };
    answer(request, report)
}

fn answer(request: &Request, report: Report) -> Outcome<Input> {
    Outcome::Answer(Input::Payment(Rule::Answer { order_id: request.order_id, report }))
}

fn too_late(request: &Request, may_be_charged: bool) -> Outcome<Input> {
    Outcome::Answer(Input::Payment(Rule::ChargeTooLate { order_id: request.order_id, may_be_charged }))
}

/// What a status says finally; `None` for one that may still change.
fn final_word(shown: &Shown) -> Option<Report> {
    match shown.status.as_str() {
        "captured" => Some(Report::captured(Money::new(shown.amount, shown.currency))),
        "declined" => Some(Report::Declined),
        "failed" => Some(Report::Failed),
        "cancelled" => Some(Report::Cancelled),
        _ => None,
    }
}

/// A refusal of this very request, which no repetition changes, as a code. Everything else is tried again: a wrong URL or
/// password (401, 403, 404 from nobody who knows our API) must not end every order's payment.
fn permanent(status: StatusCode, problem: &Value) -> Result<String, Trouble> {
    let code = problem["code"].as_str();
    let spoken = match status {
        StatusCode::BAD_REQUEST | StatusCode::CONFLICT | StatusCode::GONE | StatusCode::UNPROCESSABLE_ENTITY => true,
        StatusCode::NOT_FOUND => code.is_some_and(|code| code.starts_with("unknown_")),
        _ => false,
    };
    if !spoken {
        return Err(Trouble::Failed(format!("it answered {status}")));
    }
    Ok(code.unwrap_or("REFUSED").chars().take(CODE_CHARS_MAX).collect::<String>().to_uppercase())
}

/// A call that was not answered may have been heard: the next try asks first. The URL may hold a password.
fn unreachable(error: reqwest::Error) -> Trouble {
    Trouble::Unreachable(probe::chain(&error.without_url()))
}

async fn read(mut response: reqwest::Response) -> Result<(StatusCode, Value), Trouble> {
    let status = response.status();
    if status == StatusCode::REQUEST_TIMEOUT {
        // What lies between kept the request back until the gateway had waited long enough.
        return Err(Trouble::Unreachable("it has not heard the request in time".to_owned()));
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err(Trouble::Failed("its answer has no end".to_owned()));
        }
    }
    Ok((status, serde_json::from_slice(&bytes).unwrap_or(Value::Null)))
}
