//! The strict body extractor: `application/json` only (415), at most 64 KiB (413), JSON (400), and right inside (422).
//!
//! What is right inside is said by the type, through [`crate::fields`]. Queries are [`crate::lists`]' work.

use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::{StatusCode, header};
use actix_web::web::{Bytes, BytesMut};
use actix_web::{FromRequest, HttpMessage, HttpRequest};
use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;

use crate::fields::{self, Body};
use crate::problem::Problem;

/// The largest body.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// How long a client may take to send its body.
const BODY_SECONDS_MAX: u64 = 10;

/// A body that was read without a mistake, and its bytes.
#[derive(Debug)]
pub struct Json<T> {
    /// What it says.
    pub value: T,
    raw: Bytes,
}

impl<T: Body> Json<T> {
    /// Parses bytes that were read by other means, such as a body whose signature had to be checked first.
    ///
    /// # Errors
    /// As [`fields::parse`].
    pub fn parse(raw: Bytes) -> Result<Self, Problem> {
        Ok(Self { value: fields::parse(&raw)?, raw })
    }
}

impl<T> Json<T> {
    /// The one spelling of this body, for its fingerprint.
    ///
    /// # Errors
    /// 400 for bytes that are no JSON, which a parsed body is not.
    pub fn canonical(&self) -> Result<String, Problem> {
        canonical(&self.raw)
    }
}

impl<T: Body + 'static> FromRequest for Json<T> {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (request, payload) = (request.clone(), payload.take());
        Box::pin(async move { Self::parse(read(&request, payload).await?) })
    }
}

/// Reads a JSON body as bytes.
///
/// # Errors
/// 415 for another media type or a compressed body, 413 above [`BODY_BYTES_MAX`], 408 when it takes too long, 400 when
/// the connection breaks.
pub(crate) async fn read(request: &HttpRequest, payload: Payload) -> Result<Bytes, Problem> {
    check_headers(request)?;
    let limit = Duration::from_secs(BODY_SECONDS_MAX);
    match tokio::time::timeout(limit, collect(payload)).await {
        Ok(result) => result,
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "REQUEST_TIMEOUT",
            format!("The body did not arrive within {BODY_SECONDS_MAX} s."),
        )),
    }
}

fn check_headers(request: &HttpRequest) -> Result<(), Problem> {
    let unsupported = |detail: &str| Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE", detail);
    let json = request.mime_type().ok().flatten().is_some_and(|mime| {
        let utf8 = mime.get_param("charset").is_none_or(|charset| charset == "utf-8");
        mime.essence_str() == "application/json" && utf8
    });
    if !json {
        return Err(unsupported("The body must be application/json in UTF-8."));
    }
    let encoding = request.headers().get(header::CONTENT_ENCODING);
    if encoding.is_some_and(|encoding| encoding != "identity") {
        // What unpacks is bounded by nothing that the client sent.
        return Err(unsupported("A compressed body is not accepted."));
    }
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > BODY_BYTES_MAX as u64) {
        return Err(Problem::from_status(StatusCode::PAYLOAD_TOO_LARGE));
    }
    Ok(())
}

async fn collect(mut payload: Payload) -> Result<Bytes, Problem> {
    let mut body = BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|_| Problem::bad_request("INCOMPLETE_BODY", "The body ended before its length."))?;
        if body.len() + chunk.len() > BODY_BYTES_MAX {
            return Err(Problem::from_status(StatusCode::PAYLOAD_TOO_LARGE));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// The one spelling of a JSON text that was read without a mistake: members sorted, no space, shortest escapes. Two
/// bodies that say the same have the same.
///
/// # Errors
/// 400 `NOT_JSON` for bytes that are none.
fn canonical(bytes: &[u8]) -> Result<String, Problem> {
    let not_json = |_| Problem::bad_request("NOT_JSON", "The body is not JSON.");
    let mut text = String::with_capacity(bytes.len());
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(not_json)?;
    write_canonical(&value, &mut text);
    Ok(text)
}

fn write_canonical(value: &serde_json::Value, to: &mut String) {
    use serde_json::Value;
    match value {
        Value::Object(members) => {
            // Sorted here: a map's own order hangs on a feature that any crate of the build may switch on.
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            to.push('{');
            for (index, (name, value)) in members.into_iter().enumerate() {
                if index > 0 {
                    to.push(',');
                }
                to.push_str(&Value::from(name.as_str()).to_string());
                to.push(':');
                write_canonical(value, to);
            }
            to.push('}');
        }
        Value::Array(items) => {
            to.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    to.push(',');
                }
                write_canonical(item, to);
            }
            to.push(']');
        }
        scalar => to.push_str(&scalar.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_bodies_that_say_the_same_have_one_spelling() {
        let one = canonical(br#"{"b": [1, {"y":null,"x":"\u00e9"}], "a": true}"#).unwrap();
        let other = canonical("{\"a\":true,\"b\":[1,{\"x\":\"é\",\"y\":null}]}".as_bytes()).unwrap();
        assert_eq!(one, other);
        assert_eq!(one, r#"{"a":true,"b":[1,{"x":"é","y":null}]}"#);
    }
}
