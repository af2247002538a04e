//! Signs callbacks and delivers them, each until it is accepted or tried eight times. What is to be delivered, and what
//! became of it, is the acquirer's; after a restart a callback may be delivered again.

use std::time::Duration;

use anyhow::Context;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode, header};
use serde::Serialize;
use sha2::Sha256;
use tokio::sync::{Semaphore, oneshot};

use crate::clock::{now_ms, rfc3339};
use crate::config::Secret;
use crate::entries::{Callback, EventType};

/// Header that carries `t=<unix seconds>,v1=<hex HMAC-SHA-256 of "t.body">`.
pub(crate) const SIGNATURE: &str = "Gateway-Signature";

const TRIES_MAX: u32 = 8;
/// Before the second try, in milliseconds; doubled before each further one: 32 s from the first try to the last.
const BACKOFF_MS_FIRST: u64 = 250;
const ANSWER_SECONDS_MAX: u64 = 5;
const IN_FLIGHT_MAX: usize = 64;

/// Delivers callbacks.
#[derive(Debug)]
pub(crate) struct Courier {
    client: Client,
    secret: Secret,
    in_flight: Semaphore,
}

/// One callback, ready to be sent; its bytes are the same in every try.
#[derive(Debug, Clone)]
pub(crate) struct Letter {
    url: String,
    pub(crate) event_id: String,
    body: String,
    delay: Duration,
}

#[derive(Serialize)]
struct Body<'a> {
    event_id: &'a str,
    #[serde(rename = "type")]
    kind: EventType,
    key: &'a str,
    amount: i64,
    currency: &'a str,
    occurred_at: String,
}

impl Letter {
    /// `key` is that of the charge or, for a refund's event, of the refund.
    pub(crate) fn new(url: String, key: &str, currency: &str, callback: &Callback) -> Self {
        let body = Body {
            event_id: &callback.event_id,
            kind: callback.kind,
            key,
            amount: callback.amount,
            currency,
            occurred_at: rfc3339(callback.occurred_at),
        };
        Self {
            url,
            event_id: callback.event_id.clone(),
            body: serde_json::to_string(&body).expect("the body holds only strings and numbers"),
            delay: Duration::from_millis(callback.delay_ms),
        }
    }
}

impl Courier {
    /// # Errors
    /// The HTTP client cannot be made.
    pub(crate) fn new(secret: Secret) -> anyhow::Result<Self> {
        let client = Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .timeout(Duration::from_secs(ANSWER_SECONDS_MAX))
            .pool_max_idle_per_host(IN_FLIGHT_MAX)
            .build()
            .context("making the client for callbacks")?;
        Ok(Self { client, secret, in_flight: Semaphore::new(IN_FLIGHT_MAX) })
    }

    /// Delivers after the letter's own delay: true when the merchant took it, false when it is given up.
    /// `first_try` hears when the first try has ended, whatever came of it.
    pub(crate) async fn deliver(&self, letter: &Letter, first_try: &mut Option<oneshot::Sender<()>>) -> bool {
        tokio::time::sleep(letter.delay).await;
        let mut backoff_ms = BACKOFF_MS_FIRST;
        for attempt in 1..=TRIES_MAX {
            let outcome = self.send(letter).await;
            if let Some(listener) = first_try.take() {
                // Nobody listens where the answer does not wait for it.
                listener.send(()).unwrap_or_default();
            }
            match outcome {
                Ok(()) => return true,
                Err(reason) if attempt == TRIES_MAX => {
                    tracing::warn!(event.id = %letter.event_id, %reason, "callback given up");
                }
                Err(reason) => {
                    tracing::debug!(event.id = %letter.event_id, %reason, attempt, "callback will be repeated");
                    tokio::time::sleep(Duration::from_millis(backoff_ms)).await;
                    backoff_ms *= 2;
                }
            }
        }
        false
    }

    /// Thousands may wait here for a permit, so the state of the request proper is made behind it.
    async fn send(&self, letter: &Letter) -> Result<(), String> {
        let _permit = self.in_flight.acquire().await.expect("the semaphore is never closed");
        match Box::pin(self.post(letter)).await {
            Ok(status) if status.is_success() => Ok(()),
            Ok(status) => Err(format!("answered {status}")),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn post(&self, letter: &Letter) -> reqwest::Result<StatusCode> {
        let signed = signature(&self.secret, now_ms() / 1_000, letter.body.as_bytes());
        let request = self
            .client
            .post(&letter.url)
            .header(header::CONTENT_TYPE, "application/json")
            .header(SIGNATURE, signed)
            .body(letter.body.clone());
        let response = request.send().await?;
        let status = response.status();
        // Read to its end, so that the connection can carry the next one.
        response.bytes().await?;
        Ok(status)
    }
}

fn signature(secret: &Secret, unix_seconds: i64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose()).expect("HMAC takes keys of any length");
    mac.update(unix_seconds.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    format!("t={unix_seconds},v1={}", hex::encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Golden value from `printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac s3cret`.
    #[test]
    fn the_signature_is_hmac_sha256_over_time_and_body() {
        let signed = signature(&Secret::new("s3cret"), 1_700_000_000, br#"{"a":1}"#);
        assert_eq!(signed, "t=1700000000,v1=1698a50bc74d1ff1db85c4e0a5297c2ad9fdba245d5737cdb789e4cc6e098940");
    }

    #[test]
    fn the_body_has_the_documented_fields() {
        let callback = Callback {
            event_id: "evt_1".to_owned(),
            kind: EventType::RefundSucceeded,
            amount: 5,
            occurred_at: 0,
            delay_ms: 0,
        };
        let letter = Letter::new(String::new(), "refund:1", "USD", &callback);
        assert_eq!(
            letter.body,
            r#"{"event_id":"evt_1","type":"refund.succeeded","key":"refund:1","amount":5,"currency":"USD","occurred_at":"1970-01-01T00:00:00.000Z"}"#
        );
    }
}
