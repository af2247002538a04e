//! What clients asked and were told, one line per operation, as the checker reads it (`history.ndjson`).
//!
//! An operation is *ok* (2xx, read whole), *fail* (a 4xx that promises that nothing was done) or *info*: it may have been
//! done (time-outs, 5xx, lost connections; and 409, as a twin may still be at it). A call that is dropped half-way is
//! written as info too. Whether an answer is right is not judged here.

use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use reqwest::{Method, RequestBuilder};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::client::{Answer, Client};
use crate::evidence::lines::Lines;

/// The file's name in the folder.
pub const FILE: &str = "history.ndjson";

/// What a client may conclude.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// It is done, or accepted.
    Ok,
    /// It is not done and will not be.
    Fail,
    /// Nobody knows.
    Info,
}

impl Class {
    /// The class of an answer that was read whole.
    #[must_use]
    pub fn of(status: u16) -> Self {
        match status {
            200..=299 => Self::Ok,
            // A twin is at it, a server gave up reading, or a proxy turned it away half-way.
            408 | 409 | 425 => Self::Info,
            400..=499 => Self::Fail,
            _ => Self::Info,
        }
    }
}

/// A line of the history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    /// `place_order`, `cancel`, `pay`, `put_contact`, `list_product`, `receive_stock`, `adjust_stock`, `refund`, …
    pub op: String,
    /// The idempotency key, where there is one.
    pub key: Option<String>,
    /// The `sub` of the token.
    pub caller: String,
    /// SHA-256 of the body as sent, lower-case hex.
    pub body_hash: String,
    /// The body as sent.
    pub body: Value,
    /// `POST` where nothing is said.
    #[serde(default = "post")]
    pub method: String,
    /// `/v1/…`
    pub path: String,
    /// Microseconds since 1970.
    pub invoked_at: i64,
    /// Microseconds since 1970.
    pub completed_at: i64,
    /// Null when no answer came.
    pub status: Option<u16>,
    /// The body that came; null when none came or it was no JSON.
    pub answer: Option<Value>,
    /// SHA-256 of the answer's body, lower-case hex: answers of one key are compared byte by byte.
    #[serde(default)]
    pub answer_hash: Option<String>,
    /// What may be concluded.
    pub class: Class,
}

fn post() -> String {
    "POST".to_owned()
}

/// What a client is about to ask.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// As in [`Operation::op`].
    pub op: &'a str,
    /// The idempotency key, sent in its header.
    pub key: Option<&'a str>,
    /// Sent as JSON.
    pub body: &'a Value,
    /// Where, with `http://` and host.
    pub url: &'a str,
    /// How.
    pub method: &'a Method,
}

/// Writes the history of a run. Share it by reference or in an `Arc`.
#[derive(Debug)]
pub struct History {
    lines: Lines,
    began: Instant,
    began_us: i64,
}

impl History {
    /// Goes on with the history of a folder, or begins it.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        let began_us = engine::clock::wall().0.saturating_mul(1_000);
        Ok(Self { lines: Lines::open(folder, FILE)?, began: engine::clock::instant(), began_us })
    }

    /// Microseconds since 1970, never backwards within one history. For everything else that the folder dates.
    #[must_use]
    pub fn now(&self) -> i64 {
        self.began_us.saturating_add(i64::try_from(self.began.elapsed().as_micros()).unwrap_or(i64::MAX))
    }

    /// Notes that an operation begins. It is written when it ends, or as info when it is dropped.
    #[must_use]
    pub fn begin(&self, caller: &str, request: Request<'_>) -> Call<'_> {
        let path = request.url.splitn(4, '/').nth(3).map_or_else(|| request.url.to_owned(), |path| format!("/{path}"));
        Call {
            history: self,
            operation: Some(Operation {
                op: request.op.to_owned(),
                key: request.key.map(str::to_owned),
                caller: caller.to_owned(),
                body_hash: hash(&bytes(request.body)),
                body: request.body.clone(),
                method: request.method.to_string(),
                path: path.split('?').next().unwrap_or_default().to_owned(),
                invoked_at: self.now(),
                completed_at: 0,
                status: None,
                answer: None,
                answer_hash: None,
                class: Class::Info,
            }),
        }
    }

    /// Sends a request of a client and writes what came of it. `None` when no answer came.
    ///
    /// `more` may add headers (`Prefer`, `If-Match`).
    ///
    /// # Errors
    /// When the history cannot be written.
    pub async fn send(
        &self,
        client: &Client,
        request: Request<'_>,
        more: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> anyhow::Result<Option<Answer>> {
        let call = self.begin(client.sub(), request);
        let mut builder = client.request(request.method.clone(), request.url);
        if let Some(key) = request.key {
            builder = builder.header("Idempotency-Key", key);
        }
        builder = builder.header("Content-Type", "application/json").body(bytes(request.body));
        let received = async {
            let response = more(builder).send().await?;
            let (status, headers) = (response.status(), response.headers().clone());
            Ok::<_, reqwest::Error>((status, headers, response.bytes().await?))
        };
        match received.await {
            Ok((status, headers, body)) => {
                let answer = call.answered(status.as_u16(), &body)?;
                Ok(Some(Answer { status, headers, body: answer }))
            }
            Err(_) => call.lost().map(|()| None),
        }
    }
}

/// An operation under way.
#[derive(Debug)]
pub struct Call<'a> {
    history: &'a History,
    operation: Option<Operation>,
}

impl Call<'_> {
    /// An answer came whole.
    ///
    /// # Errors
    /// When the history cannot be written.
    pub fn answered(mut self, status: u16, body: &[u8]) -> anyhow::Result<Value> {
        let answer: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        let mut operation = self.operation.take().context("an operation ends once")?;
        operation.status = Some(status);
        operation.answer = Some(answer.clone());
        operation.answer_hash = Some(hash(body));
        operation.class = Class::of(status);
        self.write(operation)?;
        Ok(answer)
    }

    /// No answer came, or not all of it.
    ///
    /// # Errors
    /// When the history cannot be written.
    pub fn lost(mut self) -> anyhow::Result<()> {
        let operation = self.operation.take().context("an operation ends once")?;
        self.write(operation)
    }

    fn write(&self, mut operation: Operation) -> anyhow::Result<()> {
        operation.completed_at = self.history.now();
        self.history.lines.append(&operation)
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if let Some(operation) = self.operation.take() {
            // Whoever dropped it cannot be told; a history that cannot be written has failed its next operation too.
            drop(self.write(operation));
        }
    }
}

fn bytes(body: &Value) -> Vec<u8> {
    if body.is_null() { Vec::new() } else { body.to_string().into_bytes() }
}

pub(crate) fn hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::evidence::lines;

    #[test]
    fn every_operation_leaves_a_line_whatever_becomes_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let history = History::open(folder.path()).unwrap();
        let body = json!({"lines": []});
        let request = Request {
            op: "place_order",
            key: Some("key-0001"),
            body: &body,
            url: "http://127.0.0.1:1/v1/orders?x=1",
            method: &Method::POST,
        };
        for status in [202, 422, 409, 503] {
            history.begin("ann", request).answered(status, br#"{"order_id":"7"}"#).unwrap();
        }
        history.begin("ann", request).lost().unwrap();
        drop(history.begin("ann", request));
        let read: Vec<Operation> = lines::read(&folder.path().join(FILE)).unwrap();
        let classes: Vec<Class> = read.iter().map(|operation| operation.class).collect();
        use Class::{Fail, Info, Ok};
        assert_eq!(classes, [Ok, Fail, Info, Info, Info, Info]);
        assert_eq!((read[0].path.as_str(), read[0].method.as_str()), ("/v1/orders", "POST"));
        assert!(read.iter().all(|operation| operation.completed_at >= operation.invoked_at));
        assert_eq!(read[0].body_hash, hash(body.to_string().as_bytes()));
        assert_eq!((read[4].status, read[4].answer.as_ref()), (None, None));
    }
}
