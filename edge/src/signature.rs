//! The gateway's signature: `Gateway-Signature: t=<unix seconds>,v1=<hex>`, HMAC-SHA-256 over `<t>.<body>`.
//!
//! Checked over the raw bytes before anything is parsed. That a callback has effect once is not its work: the event's ID
//! is an idempotency key ([`crate::commands`]). Clients' signatures (RFC 9421) are another scheme.

use std::fmt::Write;
use std::sync::Arc;

use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{FromRequest, HttpRequest, web};
use futures_util::future::LocalBoxFuture;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::config::Secret;
use crate::fields::Body;
use crate::json::{self, Json};
use crate::metrics::HttpMetrics;
use crate::problem::Problem;
use crate::rotation::Rotating;
use crate::token::unix_seconds;

/// The header that carries the signature.
pub const HEADER: &str = "Gateway-Signature";
/// How far its time may lie in the past or in the future.
const TOLERANCE_SECONDS: u64 = 300;
/// Signatures of one header that are looked at; a sender in the middle of a rotation sends two.
const CANDIDATES_MAX: usize = 8;

/// The secrets that are valid now: several while they rotate, written with commas or on lines of their own.
#[derive(Debug)]
pub struct Secrets(Vec<Secret>);

/// There is no secret, or one that is too short to be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must hold one or more secrets of at least 16 characters, with commas between them")]
pub struct BadSecrets;

impl std::str::FromStr for Secrets {
    type Err = BadSecrets;

    fn from_str(text: &str) -> Result<Self, BadSecrets> {
        let parts = text.split([',', '\n']).map(str::trim).filter(|part| !part.is_empty());
        let secrets: Vec<_> = parts.map(Secret::new).collect();
        let bad = secrets.is_empty() || secrets.iter().any(|secret| secret.reveal().len() < 16);
        if bad { Err(BadSecrets) } else { Ok(Self(secrets)) }
    }
}

/// Why a signature is refused; for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No header, or none of the form `t=…,v1=…`.
    #[error("it is missing or malformed")]
    Malformed,
    /// Its time is more than 300 s away.
    #[error("its time is more than 300 s away")]
    Stale,
    /// No secret gives it.
    #[error("no secret gives it")]
    Wrong,
}

fn mac(secret: &Secret, unix_time: u64, body: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.reveal().as_bytes()).expect("HMAC takes keys of any size");
    mac.update(unix_time.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    mac
}

/// The header's value for this body, as the gateway signs it.
#[must_use]
pub fn sign(secret: &Secret, unix_time: u64, body: &[u8]) -> String {
    let tag = mac(secret, unix_time, body).finalize().into_bytes();
    let mut header = format!("t={unix_time},v1=");
    for byte in tag {
        write!(header, "{byte:02x}").expect("writing to a String does not fail");
    }
    header
}

impl Secrets {
    /// Checks a header against a body at this time.
    ///
    /// # Errors
    /// [`Refused`]. Parts other than `t` and `v1` are ignored, so a message with only unknown schemes is malformed.
    pub fn verify(&self, header: Option<&str>, body: &[u8], now: u64) -> Result<(), Refused> {
        let mut time = None;
        let mut tags = Vec::new();
        for part in header.ok_or(Refused::Malformed)?.split(',') {
            match part.trim().split_once('=') {
                Some(("t", text)) if time.is_none() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                    time = Some(text.parse::<u64>().map_err(|_| Refused::Malformed)?);
                }
                Some(("t", _)) => return Err(Refused::Malformed),
                Some(("v1", text)) if tags.len() < CANDIDATES_MAX => {
                    tags.push(hex::decode(text).map_err(|_| Refused::Malformed)?);
                }
                _ => {}
            }
        }
        let time = time.ok_or(Refused::Malformed)?;
        if tags.is_empty() {
            return Err(Refused::Malformed);
        }
        if time.abs_diff(now) > TOLERANCE_SECONDS {
            return Err(Refused::Stale);
        }
        // `verify_slice` compares in constant time.
        let gives = |secret: &Secret, tag: &Vec<u8>| mac(secret, time, body).verify_slice(tag).is_ok();
        let valid = self.0.iter().any(|secret| tags.iter().any(|tag| gives(secret, tag)));
        if valid { Ok(()) } else { Err(Refused::Wrong) }
    }
}

/// What [`Signed`] needs, in the application's data ([`crate::routes::Routes::data`]).
#[derive(Debug)]
pub struct Gate {
    /// The secrets that are valid now.
    pub secrets: Arc<Rotating<Secrets>>,
    /// Counts what is refused.
    pub metrics: HttpMetrics,
}

/// A body whose signature was checked before it was parsed.
#[derive(Debug)]
pub struct Signed<T>(pub Json<T>);

impl<T: Body + 'static> FromRequest for Signed<T> {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (request, payload) = (request.clone(), payload.take());
        Box::pin(async move {
            let raw = json::read(&request, payload).await?;
            let gate = request.app_data::<web::Data<Gate>>();
            let gate = gate.expect("a site with signed routes puts a signature gate into its data");
            let shown = request.headers().get(HEADER).and_then(|value| value.to_str().ok());
            if let Err(why) = gate.secrets.get().verify(shown, &raw, unix_seconds()) {
                gate.metrics.refused("signature");
                tracing::info!(%why, "a callback was refused: its signature");
                return Err(Problem::new(
                    StatusCode::UNAUTHORIZED,
                    "BAD_SIGNATURE",
                    format!("{HEADER} is missing, old or wrong."),
                )
                .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static(HEADER)));
            }
            Json::parse(raw).map(Self)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_750_000_000;
    const BODY: &[u8] = br#"{"event_id":"e1"}"#;

    fn secrets() -> Secrets {
        "old-secret-0123456789,new-secret-0123456789".parse().unwrap()
    }

    fn check(header: &str, body: &[u8], now: u64) -> Result<(), Refused> {
        secrets().verify(Some(header), body, now)
    }

    #[test]
    fn each_active_secret_signs() {
        for secret in &secrets().0 {
            assert_eq!(check(&sign(secret, NOW, BODY), BODY, NOW), Ok(()));
        }
    }

    #[test]
    fn a_known_vector() {
        // printf '1750000000.{}' | openssl dgst -sha256 -hmac old-secret-0123456789
        let header = sign(&Secret::new("old-secret-0123456789"), NOW, b"{}");
        assert_eq!(header, "t=1750000000,v1=7f5f6d7f428c5303a6ee28718acd41de0118b54862f1d60d8947641002420beb");
    }

    #[test]
    fn a_wrong_secret_a_flipped_bit_and_other_bytes_are_refused() {
        let wrong = sign(&Secret::new("not-the-secret-at-all"), NOW, BODY);
        assert_eq!(check(&wrong, BODY, NOW), Err(Refused::Wrong));
        let header = sign(&secrets().0[0], NOW, BODY);
        assert_eq!(check(&header, br#"{"event_id": "e1"}"#, NOW), Err(Refused::Wrong));
        let mut flipped = BODY.to_vec();
        flipped[3] ^= 1;
        assert_eq!(check(&header, &flipped, NOW), Err(Refused::Wrong));
        assert_eq!(check(&header.replace("t=1750000000", "t=1750000001"), BODY, NOW), Err(Refused::Wrong));
        let short = &header[..header.len() - 2];
        assert_eq!(check(short, BODY, NOW), Err(Refused::Wrong));
    }

    #[test]
    fn five_minutes_in_both_directions() {
        let header = sign(&secrets().0[0], NOW, BODY);
        assert_eq!(check(&header, BODY, NOW + 300), Ok(()));
        assert_eq!(check(&header, BODY, NOW - 300), Ok(()));
        assert_eq!(check(&header, BODY, NOW + 301), Err(Refused::Stale));
        assert_eq!(check(&header, BODY, NOW - 301), Err(Refused::Stale));
    }

    #[test]
    fn unknown_schemes_are_ignored_and_one_right_value_suffices() {
        let header = sign(&secrets().0[1], NOW, BODY);
        let two = header.replace("v1=", &format!("v1={},v9=zz,v1=", "00".repeat(32)));
        assert_eq!(check(&two, BODY, NOW), Ok(()));
        for bad in [
            header.replace("v1=", "v0="),
            "v1=00".into(),
            format!("t={NOW}"),
            "t=x,v1=00".into(),
            format!("t={NOW},t={NOW},v1=00"),
            format!("t={NOW},v1=zz"),
            String::new(),
        ] {
            assert_eq!(check(&bad, BODY, NOW), Err(Refused::Malformed), "{bad}");
        }
        assert_eq!(secrets().verify(None, BODY, NOW), Err(Refused::Malformed));
    }
}
