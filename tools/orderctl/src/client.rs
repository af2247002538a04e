//! How services are asked over HTTP: tokens, idempotency keys, problem documents, and patience.
//!
//! A request is repeated with the same key, so it may be repeated at will. What an answer means is the caller's.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use edge::token::{Identity, Role, sign};
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::services::ServiceName;
use crate::settings::Settings;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Above the 5 s that a service waits for Kafka, and the 30 s that it waits for a decision.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(45);
const TOKEN_LIFE: Duration = Duration::from_secs(3_600);
const TOKEN_USED_FOR: Duration = Duration::from_secs(2_700);
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);
/// Answers of 500 in a row before a request is given up: that is a defect, not an outage.
const DEFECTS_MAX: u32 = 5;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who<'a> {
    Customer(&'a str),
    Operator,
}

/// A request to a service.
#[derive(Debug, Clone)]
pub(crate) struct Request<'a> {
    pub(crate) service: ServiceName,
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) who: Who<'a>,
    /// `Idempotency-Key`
    pub(crate) key: Option<String>,
    pub(crate) body: Option<Value>,
    /// `Prefer: wait=`, in seconds.
    pub(crate) wait: Option<u32>,
    pub(crate) if_match: Option<i64>,
}

impl<'a> Request<'a> {
    pub(crate) fn get(service: ServiceName, who: Who<'a>, path: impl Into<String>) -> Self {
        Self::new(service, Method::GET, who, path)
    }

    pub(crate) fn post(service: ServiceName, who: Who<'a>, path: impl Into<String>, key: String, body: Value) -> Self {
        Self { key: Some(key), body: Some(body), ..Self::new(service, Method::POST, who, path) }
    }

    pub(crate) fn put(service: ServiceName, who: Who<'a>, path: impl Into<String>, body: Value) -> Self {
        Self { body: Some(body), ..Self::new(service, Method::PUT, who, path) }
    }

    fn new(service: ServiceName, method: Method, who: Who<'a>, path: impl Into<String>) -> Self {
        let path = path.into();
        Self { service, method, path, who, key: None, body: None, wait: None, if_match: None }
    }

    pub(crate) fn waiting(self, seconds: u32) -> Self {
        Self { wait: Some(seconds), ..self }
    }
}

/// What a service answered.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Value,
    /// The answer of an earlier request with this key.
    pub(crate) replayed: bool,
    retry_after: Option<Duration>,
}

impl Answer {
    pub(crate) fn is_success(&self) -> bool {
        self.status.is_success()
    }

    /// The problem's `type`, such as `/problems/validation`.
    pub(crate) fn problem_type(&self) -> String {
        self.body["type"].as_str().map_or_else(|| format!("status {}", self.status.as_u16()), str::to_owned)
    }

    pub(crate) fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    /// The problem as one sentence.
    pub(crate) fn sentence(&self) -> String {
        let detail = self.body["detail"].as_str().or(self.body["title"].as_str()).unwrap_or("no reason given");
        let fields = self.body["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
        let fields: Vec<String> = fields
            .iter()
            .map(|one| format!("{} {}", one["pointer"].as_str().unwrap_or(""), one["detail"].as_str().unwrap_or("")))
            .collect();
        let fields = if fields.is_empty() { String::new() } else { format!(" ({})", fields.join("; ")) };
        format!("{} {}: {detail}{fields}", self.status.as_u16(), self.code())
    }

    /// The body, or the problem as an error.
    pub(crate) fn success(self) -> anyhow::Result<Value> {
        if self.is_success() { Ok(self.body) } else { bail!("{}", self.sentence()) }
    }

    /// True for what passes by itself: an outage, a twin that still runs, too many requests.
    fn is_passing(&self) -> bool {
        let busy = matches!(self.status.as_u16(), 429 | 502 | 503 | 504);
        busy || (self.status == StatusCode::CONFLICT && self.retry_after.is_some())
    }
}

/// Asks services.
pub(crate) struct Client {
    http: reqwest::Client,
    signing_key: String,
    /// Base URLs by service, one per instance.
    urls: HashMap<&'static str, Vec<String>>,
    tokens: Mutex<HashMap<(bool, String), (String, Instant)>>,
    patience: Duration,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("urls", &self.urls).finish_non_exhaustive()
    }
}

impl Client {
    /// A client of the running stack; `patience` limits how long one request is repeated.
    pub(crate) fn new(settings: &Settings, patience: Duration) -> anyhow::Result<Self> {
        let mut urls = HashMap::new();
        for name in ServiceName::ALL {
            let instances = settings.instances(name.as_str())?;
            urls.insert(name.as_str(), instances.into_iter().map(|one| one.http.clone()).collect());
        }
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .no_proxy()
            .build()
            .context("making an HTTP client")?;
        Ok(Self { http, signing_key: settings.signing_key()?, urls, tokens: Mutex::default(), patience })
    }

    fn token(&self, who: Who<'_>) -> anyhow::Result<String> {
        let (role, subject) = match who {
            Who::Customer(id) => (Role::Customer, id),
            Who::Operator => (Role::Operator, "orderctl"),
        };
        let slot = (role == Role::Operator, subject.to_owned());
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((token, made)) = tokens.get(&slot)
            && made.elapsed() < TOKEN_USED_FOR
        {
            return Ok(token.clone());
        }
        let identity = Identity { subject: subject.to_owned(), role };
        let token = sign(&self.signing_key, &identity, TOKEN_LIFE)?;
        tokens.insert(slot, (token.clone(), Instant::now()));
        Ok(token)
    }

    /// Asks once, the instance of this number (modulo how many there are).
    ///
    /// # Errors
    /// When the connection is refused or lost.
    async fn once(&self, request: &Request<'_>, number: usize) -> anyhow::Result<Answer> {
        let urls = &self.urls[request.service.as_str()];
        let url = format!("{}{}", urls[number % urls.len()], request.path);
        let mut asking = self.http.request(request.method.clone(), &url).bearer_auth(self.token(request.who)?);
        if let Some(key) = &request.key {
            asking = asking.header("idempotency-key", key);
        }
        if let Some(seconds) = request.wait {
            asking = asking.header("prefer", format!("wait={seconds}"));
        }
        if let Some(version) = request.if_match {
            asking = asking.header("if-match", format!("\"{version}\""));
        }
        if let Some(body) = &request.body {
            asking = asking.json(body);
        }
        let answer = asking.send().await.with_context(|| format!("{} does not answer at {url}", request.service))?;
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let replayed = header("idempotency-replayed").as_deref() == Some("true");
        let retry_after = header("retry-after").and_then(|text| text.parse().ok()).map(Duration::from_secs);
        let status = answer.status();
        let bytes = answer.bytes().await.with_context(|| format!("{url} broke off"))?;
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Ok(Answer { status, body, replayed, retry_after })
    }

    /// Asks once; a person waits.
    ///
    /// # Errors
    /// When no instance answers.
    pub(crate) async fn ask(&self, request: &Request<'_>) -> anyhow::Result<Answer> {
        let count = self.urls[request.service.as_str()].len();
        let mut last = self.once(request, 0).await;
        for number in 1..count {
            if last.is_ok() {
                break;
            }
            last = self.once(request, number).await;
        }
        last.context("is the stack running? `cargo up` starts it, `cargo up --missing` what is gone")
    }

    /// Asks until there is an answer that does not pass by itself. Outages and lost connections are waited out.
    ///
    /// # Errors
    /// When the patience is used up, or an instance answers 500 again and again.
    pub(crate) async fn persist(&self, request: &Request<'_>) -> anyhow::Result<Answer> {
        let started = Instant::now();
        let mut backoff = BACKOFF_FIRST;
        let mut defects = 0;
        for number in 0.. {
            let result = self.once(request, number).await;
            let (why, pause) = match result {
                Ok(answer) if answer.status == StatusCode::INTERNAL_SERVER_ERROR && defects < DEFECTS_MAX => {
                    defects += 1;
                    (answer.sentence(), backoff)
                }
                Ok(answer) if answer.is_passing() => {
                    let asked = answer.retry_after.unwrap_or(backoff).min(RETRY_AFTER_MAX);
                    (answer.sentence(), asked.max(BACKOFF_FIRST))
                }
                Ok(answer) => return Ok(answer),
                Err(error) => (format!("{error:#}"), backoff),
            };
            if started.elapsed() > self.patience {
                bail!("{} {} is given up after {} s: {why}", request.method, request.path, started.elapsed().as_secs());
            }
            tokio::time::sleep(pause).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
        unreachable!("the numbers do not end")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(status: u16, retry_after: Option<u64>) -> Answer {
        let body = json!({"type": "/problems/validation", "detail": "The body is wrong.", "code": "VALIDATION",
            "errors": [{"pointer": "/lines/0/quantity", "detail": "must be a positive integer"}]});
        let status = StatusCode::from_u16(status).unwrap();
        Answer { status, body, replayed: false, retry_after: retry_after.map(Duration::from_secs) }
    }

    #[test]
    fn outages_and_running_twins_pass_and_refusals_do_not() {
        assert!(answer(503, None).is_passing());
        assert!(answer(409, Some(1)).is_passing());
        assert!(!answer(409, None).is_passing());
        assert!(!answer(422, None).is_passing());
    }

    #[test]
    fn a_problem_is_one_sentence() {
        let sentence = answer(422, None).sentence();
        assert_eq!(sentence, "422 VALIDATION: The body is wrong. (/lines/0/quantity must be a positive integer)");
        assert_eq!(answer(422, None).problem_type(), "/problems/validation");
    }
}
