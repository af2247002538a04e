//! What the head of a request says beside its route: idempotency key, how long to wait, which version, which trace.
//!
//! Parsing only. What a key does is [`crate::commands`]; a body is [`crate::json`].

use std::future::{Ready, ready};
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::header::{self, HeaderMap, HeaderName};
use actix_web::{FromRequest, HttpRequest};
use sha2::{Digest, Sha256};

use crate::problem::Problem;
use crate::telemetry::Trace;

/// The longest time that `Prefer: wait` is granted; a longer wish is cut to it.
const WAIT_SECONDS_MAX: u64 = 30;
/// `Idempotency-Key`, in visible ASCII.
const KEY_CHARS: std::ops::RangeInclusive<usize> = 8..=255;
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const PREFER: HeaderName = HeaderName::from_static("prefer");

/// A bare idempotency key: 8 to 255 visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// Reads a key, bare or between double quotes (a string of RFC 9651): both are the same key.
    ///
    /// # Errors
    /// 400 `IDEMPOTENCY_KEY_MALFORMED`.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let quoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        let key = quoted.map_or_else(|| text.to_owned(), |text| text.replace("\\\"", "\"").replace("\\\\", "\\"));
        let visible = key.bytes().all(|byte| byte.is_ascii_graphic());
        if visible && KEY_CHARS.contains(&key.len()) { Ok(Self(key)) } else { Err(Self::malformed()) }
    }

    fn malformed() -> Problem {
        let detail = "Idempotency-Key must have 8 to 255 visible ASCII characters.";
        Problem::bad_request("IDEMPOTENCY_KEY_MALFORMED", detail)
    }

    fn missing() -> Problem {
        let detail = "The header Idempotency-Key is required: 8 to 255 visible ASCII characters.";
        Problem::bad_request("IDEMPOTENCY_KEY_MISSING", detail)
    }
}

/// The head of a request.
#[derive(Debug, Clone)]
pub struct Facts {
    method: String,
    path: String,
    key: Option<IdempotencyKey>,
    /// How long the caller waits for the decision (`Prefer: wait=5`).
    pub wait: Option<Duration>,
    /// The version that the caller saw (`If-Match: "2"`).
    pub if_match: Option<i64>,
    /// The trace that the request belongs to.
    pub trace: Trace,
}

impl Facts {
    /// Reads the head.
    ///
    /// # Errors
    /// 400 for an `Idempotency-Key` or `If-Match` that is malformed or there twice. A malformed `Prefer` is passed over
    /// (RFC 7240 §2), and so is a `traceparent`.
    pub fn of(request: &HttpRequest) -> Result<Self, Problem> {
        let headers = request.headers();
        let key = single(headers, &IDEMPOTENCY_KEY).map_err(|()| IdempotencyKey::malformed())?;
        let trace = headers.get(TRACEPARENT).and_then(|value| value.to_str().ok());
        Ok(Self {
            method: request.method().to_string(),
            path: request.uri().path().to_owned(),
            key: key.map(IdempotencyKey::parse).transpose()?,
            wait: wait(headers),
            if_match: if_match(headers)?,
            trace: Trace::continued(trace),
        })
    }

    /// The same request under this key, where the key is not a header: the gateway's event ID.
    #[must_use]
    pub fn with_key(mut self, key: IdempotencyKey) -> Self {
        self.key = Some(key);
        self
    }

    /// SHA-256 of method, path as sent and bare key, a line break between them, in lower-case hex.
    ///
    /// # Errors
    /// 400 `IDEMPOTENCY_KEY_MISSING`.
    pub fn key_hash(&self) -> Result<String, Problem> {
        let IdempotencyKey(key) = self.key.as_ref().ok_or_else(IdempotencyKey::missing)?;
        Ok(sha256(&[&self.method, &self.path, key]))
    }

    /// SHA-256 of route and canonical body: what a key was used for.
    #[must_use]
    pub fn fingerprint(&self, canonical_body: &str) -> String {
        sha256(&[&self.method, &self.path, canonical_body])
    }
}

impl FromRequest for Facts {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Self::of(request))
    }
}

fn sha256(parts: &[&str]) -> String {
    hex::encode(Sha256::digest(parts.join("\n").as_bytes()))
}

/// The one value of a header; `Err` when it is there twice or no visible ASCII.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, ()> {
    let mut values = headers.get_all(name);
    let first = values.next();
    if values.next().is_some() {
        return Err(());
    }
    first.map(|value| value.to_str().map(str::trim).map_err(|_| ())).transpose()
}

/// `Prefer: wait=5` (RFC 7240 §4.3), possibly among other preferences; the first one counts.
fn wait(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(PREFER).filter_map(|value| value.to_str().ok());
    let preference = values.flat_map(|value| value.split(',')).find_map(|preference| {
        let (name, value) = preference.split(';').next()?.split_once('=')?;
        name.trim().eq_ignore_ascii_case("wait").then(|| value.trim().trim_matches('"'))
    })?;
    let seconds: u64 = preference.parse().ok().filter(|seconds| *seconds > 0)?;
    Some(Duration::from_secs(seconds.min(WAIT_SECONDS_MAX)))
}

/// The value of an `ETag` for a version: `"2"`.
#[must_use]
pub fn etag(version: i64) -> (HeaderName, String) {
    (header::ETAG, format!("\"{version}\""))
}

/// `If-Match: "2"` names a version; `*` names any, which is no condition here.
fn if_match(headers: &HeaderMap) -> Result<Option<i64>, Problem> {
    let malformed = || {
        let detail = "If-Match must be the ETag of a version, such as \"2\".";
        Problem::bad_request("IF_MATCH_MALFORMED", detail)
    };
    let Some(text) = single(headers, &header::IF_MATCH).map_err(|()| malformed())? else {
        return Ok(None);
    };
    if text == "*" {
        return Ok(None);
    }
    let version = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let version = version
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()) && (*text == "0" || !text.starts_with('0')));
    version.and_then(|text| text.parse().ok()).map(Some).ok_or_else(malformed)
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn facts(headers: &[(&str, &str)]) -> Result<Facts, Problem> {
        let mut request = TestRequest::post().uri("/v1/orders?x=1");
        for header in headers {
            request = request.append_header(*header);
        }
        Facts::of(&request.to_http_request())
    }

    #[test]
    fn bare_and_quoted_are_one_key() {
        let hash = |key: &str| facts(&[("Idempotency-Key", key)]).unwrap().key_hash().unwrap();
        assert_eq!(hash("8e03978e-40d5"), hash("\"8e03978e-40d5\""));
        // printf 'POST\n/v1/orders\n8e03978e-40d5' | sha256sum
        assert_eq!(hash("8e03978e-40d5"), "8edd255d8dda7c3a242cc884ccb92648dadb2f21dfdc7222ab8088f057b41b27");
    }

    #[test]
    fn the_route_is_in_both_hashes() {
        let of = |path: &str| {
            let request = TestRequest::post().uri(path).insert_header(("Idempotency-Key", "12345678"));
            Facts::of(&request.to_http_request()).unwrap()
        };
        let (one, other) = (of("/v1/orders/7/cancel"), of("/v1/orders/8/cancel"));
        assert_ne!(one.key_hash().unwrap(), other.key_hash().unwrap());
        assert_ne!(one.fingerprint("{}"), other.fingerprint("{}"));
        assert_ne!(one.fingerprint("{}"), one.fingerprint("[]"));
    }

    #[rstest::rstest]
    #[case("")]
    #[case("1234567")]
    #[case("\"1234567\"")]
    #[case("12345 78")]
    #[case("schlüssel")]
    fn a_malformed_key_is_400(#[case] key: &str) {
        let problem = facts(&[("Idempotency-Key", key)]).unwrap_err();
        assert_eq!((problem.status().as_u16(), problem.code()), (400, "IDEMPOTENCY_KEY_MALFORMED"));
    }

    #[test]
    fn a_key_has_8_to_255_characters_and_is_there_once() {
        assert!(IdempotencyKey::parse(&"k".repeat(8)).is_ok());
        assert!(IdempotencyKey::parse(&"k".repeat(255)).is_ok());
        assert!(IdempotencyKey::parse(&"k".repeat(256)).is_err());
        let key = ("Idempotency-Key", "12345678");
        assert!(facts(&[key, key]).is_err());
        let missing = facts(&[]).unwrap().key_hash().unwrap_err();
        assert_eq!((missing.status().as_u16(), missing.code()), (400, "IDEMPOTENCY_KEY_MISSING"));
    }

    #[rstest::rstest]
    #[case("wait=5", Some(5))]
    #[case("respond-async, wait=10", Some(10))]
    #[case("Wait=\"7\"; x=1", Some(7))]
    #[case("wait=3600", Some(30))]
    #[case("wait=0", None)]
    #[case("wait=-1", None)]
    #[case("wait", None)]
    #[case("return=minimal", None)]
    fn prefer_is_read_leniently(#[case] value: &str, #[case] seconds: Option<u64>) {
        let wait = facts(&[("Prefer", value)]).unwrap().wait;
        assert_eq!(wait, seconds.map(Duration::from_secs));
    }

    #[test]
    fn if_match_names_one_version() {
        let read = |value| facts(&[("If-Match", value)]).map(|facts| facts.if_match);
        assert_eq!(read("\"12\"").unwrap(), Some(12));
        assert_eq!(read("\"0\"").unwrap(), Some(0));
        assert_eq!(read("*").unwrap(), None);
        for bad in ["2", "W/\"2\"", "\"02\"", "\"\"", "\"x\"", "\"1\", \"2\"", "\"99999999999999999999\"", "\"+1\""] {
            assert_eq!(read(bad).unwrap_err().status().as_u16(), 400, "{bad}");
        }
    }
}
