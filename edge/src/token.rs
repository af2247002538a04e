//! Bearer tokens: JWTs signed with Ed25519, checked against a local set of public keys.
//!
//! The algorithm is fixed by the key, never by the message; nothing in a token makes this process fetch a key (RFC 8725
//! §3.1, §3.10). How a request is let in by one is [`crate::auth`].

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use engine::clock;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

/// Issuer and audience of every token.
const ISSUER: &str = "orderlog";
/// The one kind of token that is a bearer token here (RFC 9068); an ID token is none.
const TOKEN_TYPE: &str = "at+jwt";
/// How far clocks may disagree.
const LEEWAY_SECONDS: u64 = 30;
/// The longest life of a token.
pub const LIFE_SECONDS_MAX: u64 = 24 * 60 * 60;
/// The longest token that is looked at.
const TOKEN_BYTES_MAX: usize = 4 * 1024;

/// What a caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Orders for themself.
    Customer,
    /// Runs the shop.
    Operator,
}

/// A text that names no role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a role is customer or operator")]
pub struct NotARole;

impl FromStr for Role {
    type Err = NotARole;

    fn from_str(text: &str) -> Result<Self, NotARole> {
        match text {
            "customer" => Ok(Self::Customer),
            "operator" => Ok(Self::Operator),
            _ => Err(NotARole),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Customer => "customer",
            Self::Operator => "operator",
        })
    }
}

/// True for 1 to 64 of `A-Z a-z 0-9 _ - .`: what a `sub`, and so a customer ID, is made of.
#[must_use]
pub fn is_subject(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    (1..=64).contains(&text.len()) && text.bytes().all(allowed)
}

/// Whom a valid token names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `sub`
    pub subject: String,
    /// `role`
    pub role: Role,
}

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    role: Role,
    iat: u64,
    nbf: u64,
    exp: u64,
    jti: String,
}

/// The claims that are judged here; issuer, audience, expiry and start are the library's.
#[derive(Debug, Deserialize)]
struct Judged {
    sub: String,
    role: Role,
    iat: u64,
    exp: u64,
}

/// Why a token is refused: for the log, with nothing of the token in it. The caller is told no more than 401.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(&'static str);

/// Keys that are none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must hold Ed25519 public keys as PEM or JWKS: {0}")]
pub struct BadKeys(String);

/// The public keys that tokens are checked with.
pub struct Keys {
    keys: Vec<(Option<String>, DecodingKey)>,
    validation: Validation,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.keys.len())
    }
}

impl FromStr for Keys {
    type Err = BadKeys;

    /// Reads one or more PEM blocks (`PUBLIC KEY`), or a JWKS.
    fn from_str(text: &str) -> Result<Self, BadKeys> {
        let keys = if text.trim_start().starts_with('{') { from_jwks(text)? } else { from_pem(text)? };
        if keys.is_empty() {
            return Err(BadKeys("there is none".to_owned()));
        }
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.leeway = LEEWAY_SECONDS;
        validation.validate_nbf = true;
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[ISSUER]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        Ok(Self { keys, validation })
    }
}

fn from_pem(text: &str) -> Result<Vec<(Option<String>, DecodingKey)>, BadKeys> {
    const END: &str = "-----END PUBLIC KEY-----";
    let blocks = text.split_inclusive(END).filter(|block| !block.trim().is_empty());
    let key = |block: &str| {
        let key = DecodingKey::from_ed_pem(block.as_bytes());
        key.map(|key| (None, key)).map_err(|error| BadKeys(error.to_string()))
    };
    blocks.map(key).collect()
}

fn from_jwks(text: &str) -> Result<Vec<(Option<String>, DecodingKey)>, BadKeys> {
    let bad = |error: &dyn fmt::Display| BadKeys(error.to_string());
    let set: JwkSet = serde_json::from_str(text).map_err(|error| bad(&error))?;
    let key = |jwk: &Jwk| {
        use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve};
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

impl Keys {
    /// Checks a token: signature, type, issuer, audience, times, subject, role.
    ///
    /// # Errors
    /// [`Refused`] with the first thing that is wrong.
    pub fn verify(&self, token: &str) -> Result<Identity, Refused> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refused("it is too long"));
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| Refused("it is no JWT"))?;
        check_header(&header)?;
        // A key ID is looked up among these keys and nowhere else; without one each key gets its try.
        let fits = |id: &Option<String>| header.kid.is_none() || *id == header.kid;
        let mut refused = Refused("its key is not known here");
        for (_, key) in self.keys.iter().filter(|(id, _)| fits(id)) {
            match jsonwebtoken::decode::<Judged>(token, key, &self.validation) {
                Ok(data) => return judge(data.claims),
                Err(error) => refused = reason(error.kind()),
            }
        }
        Err(refused)
    }
}

fn check_header(header: &Header) -> Result<(), Refused> {
    if header.alg != Algorithm::EdDSA {
        return Err(Refused("its algorithm is not EdDSA"));
    }
    if header.crit.is_some() {
        return Err(Refused("it has critical extensions"));
    }
    let kind = header.typ.as_deref().unwrap_or_default().to_ascii_lowercase();
    let kind = kind.strip_prefix("application/").unwrap_or(&kind);
    if kind == TOKEN_TYPE { Ok(()) } else { Err(Refused("its typ is not at+jwt")) }
}

fn reason(kind: &jsonwebtoken::errors::ErrorKind) -> Refused {
    use jsonwebtoken::errors::ErrorKind as E;
    Refused(match kind {
        E::InvalidSignature => "its signature is wrong",
        E::ExpiredSignature => "it has expired",
        E::ImmatureSignature => "it is not valid yet",
        E::InvalidIssuer => "its issuer is not orderlog",
        E::InvalidAudience => "its audience is not orderlog",
        E::MissingRequiredClaim(_) => "a claim is missing",
        _ => "it is malformed",
    })
}

fn judge(claims: Judged) -> Result<Identity, Refused> {
    let now = unix_seconds();
    if claims.iat > now.saturating_add(LEEWAY_SECONDS) {
        return Err(Refused("it was issued in the future"));
    }
    if claims.exp.saturating_sub(claims.iat) > LIFE_SECONDS_MAX {
        return Err(Refused("its life is longer than 24 h"));
    }
    if !is_subject(&claims.sub) {
        return Err(Refused("its subject is malformed"));
    }
    Ok(Identity { subject: claims.sub, role: claims.role })
}

/// Seconds since 1970.
pub(crate) fn unix_seconds() -> u64 {
    u64::try_from(clock::wall().0 / 1000).unwrap_or(0)
}

/// Why a token was not signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The key is no Ed25519 private key in PKCS#8 PEM.
    #[error("the key is no Ed25519 private key as PEM: {0}")]
    Key(String),
    /// `sub` must be 1 to 64 of `A-Z a-z 0-9 _ - .`
    #[error("the subject must be 1 to 64 of A-Z a-z 0-9 _ - .")]
    Subject,
    /// The life is zero or above 24 hours.
    #[error("a token lives at least 1 s and at most 24 h")]
    Life,
}

/// Signs a token that [`Keys::verify`] takes, valid from now on.
///
/// # Errors
/// [`SignError`].
pub fn sign(private_key_pem: &str, identity: &Identity, life: Duration) -> Result<String, SignError> {
    let key = EncodingKey::from_ed_pem(private_key_pem.as_bytes());
    let key = key.map_err(|error| SignError::Key(error.to_string()))?;
    if !is_subject(&identity.subject) {
        return Err(SignError::Subject);
    }
    if !(1..=LIFE_SECONDS_MAX).contains(&life.as_secs()) {
        return Err(SignError::Life);
    }
    let now = unix_seconds();
    let claims = Claims {
        iss: ISSUER.to_owned(),
        aud: ISSUER.to_owned(),
        sub: identity.subject.clone(),
        role: identity.role,
        iat: now,
        nbf: now,
        exp: now + life.as_secs(),
        jti: format!("{:032x}", rand::random::<u128>()),
    };
    let mut header = Header::new(Algorithm::EdDSA);
    header.typ = Some(TOKEN_TYPE.to_owned());
    jsonwebtoken::encode(&header, &claims, &key).map_err(|error| SignError::Key(error.to_string()))
}
