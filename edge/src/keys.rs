//! Reads the public keys that tokens are checked with: PEM blocks, or a JWKS (RFC 7517).
//!
//! Ed25519 only; a private or a shared key in the set is an error, not a key. Nothing is fetched from anywhere.

use std::fmt;

use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet};

/// A key and its ID, where it has one.
pub(crate) type NamedKey = (Option<String>, DecodingKey);

/// Keys that are none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must hold Ed25519 public keys as PEM or JWKS: {0}")]
pub struct BadKeys(String);

/// Reads one or more keys.
pub(crate) fn read(text: &str) -> Result<Vec<NamedKey>, BadKeys> {
    let keys = if text.trim_start().starts_with('{') { from_jwks(text)? } else { from_pem(text)? };
    if keys.is_empty() { Err(BadKeys("there is none".to_owned())) } else { Ok(keys) }
}

fn from_pem(text: &str) -> Result<Vec<NamedKey>, BadKeys> {
    const END: &str = "-----END PUBLIC KEY-----";
    let blocks = text.split_inclusive(END).filter(|block| !block.trim().is_empty());
    let key = |block: &str| {
        let key = DecodingKey::from_ed_pem(block.as_bytes());
        key.map(|key| (None, key)).map_err(|error| BadKeys(error.to_string()))
    };
    blocks.map(key).collect()
}

fn from_jwks(text: &str) -> Result<Vec<NamedKey>, BadKeys> {
    let bad = |error: &dyn fmt::Display| BadKeys(error.to_string());
    let set: JwkSet = serde_json::from_str(text).map_err(|error| bad(&error))?;
    let key = |jwk: &Jwk| {
        let ed25519 =
            matches!(&jwk.algorithm, AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519);
        if !ed25519 {
            return Err(BadKeys("a key is not of kty OKP, crv Ed25519".to_owned()));
        }
        let key = DecodingKey::from_jwk(jwk).map_err(|error| bad(&error))?;
        Ok((jwk.common.key_id.clone(), key))
    };
    set.keys.iter().map(key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEM: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";

    #[test]
    fn several_keys_are_read() {
        assert_eq!(read(PEM).unwrap().len(), 1);
        assert_eq!(read(&format!("{PEM}\n{PEM}")).unwrap().len(), 2);
        let key = r#"{"kty":"OKP","crv":"Ed25519","kid":"a","x":"Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE"}"#;
        let keys = read(&format!("{{\"keys\":[{key},{key}]}}")).unwrap();
        assert_eq!(keys[1].0.as_deref(), Some("a"));
    }

    #[test]
    fn what_is_no_public_ed25519_key_is_an_error() {
        let private = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
        let shared = r#"{"keys":[{"kty":"oct","k":"c2VjcmV0LXNlY3JldA"}]}"#;
        for bad in ["", "x", private, shared, r#"{"keys":[]}"#, "{}"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
