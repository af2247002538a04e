//! Bearer tokens: JWTs signed with Ed25519, checked against a local set of public keys.
//!
//! The algorithm is fixed by the key, never by the message; nothing in a token makes this process fetch a key (RFC 8725
//! §3.1, §3.10). How a request is let in by one is [`crate::auth`].

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use engine::clock;
use jsonwebtoken::{Algorithm, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::keys::{self, BadKeys, NamedKey};

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

/// The public keys that tokens are checked with.
pub struct Keys {
    keys: Vec<NamedKey>,
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
        let keys = keys::read(text)?;
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.leeway = LEEWAY_SECONDS;
        validation.validate_nbf = true;
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[ISSUER]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        Ok(Self { keys, validation })
    }
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The example key of RFC 8410 §10.3, and its public half (§10.1).
    const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
    const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";

    fn keys() -> Keys {
        PUBLIC.parse().unwrap()
    }

    /// A token that is right but for what `change` does to its header and claims.
    fn token(change: impl FnOnce(&mut Header, &mut Value)) -> String {
        let now = unix_seconds();
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(TOKEN_TYPE.to_owned());
        let mut claims = json!({"iss": "orderlog", "aud": "orderlog", "sub": "household-1", "role": "customer",
            "iat": now, "exp": now + 600});
        change(&mut header, &mut claims);
        let key = EncodingKey::from_ed_pem(PRIVATE.as_bytes()).unwrap();
        jsonwebtoken::encode(&header, &claims, &key).unwrap()
    }

    fn refused(change: impl FnOnce(&mut Header, &mut Value)) -> &'static str {
        keys().verify(&token(change)).expect_err("it must be refused").0
    }

    #[test]
    fn a_signed_token_names_its_subject() {
        let identity = Identity { subject: "household-1".into(), role: Role::Operator };
        let token = sign(PRIVATE, &identity, Duration::from_secs(60)).unwrap();
        assert_eq!(keys().verify(&token), Ok(identity));
    }

    #[test]
    fn a_key_id_is_looked_up_in_the_local_set_only() {
        let jwks = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "2026-01", "x": "Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE"}]});
        let keys: Keys = jwks.to_string().parse().unwrap();
        assert!(keys.verify(&token(|_, _| ())).is_ok());
        assert!(keys.verify(&token(|header, _| header.kid = Some("2026-01".into()))).is_ok());
        for kid in ["2026-02", "../../etc/passwd", "' OR 1=1 --"] {
            assert!(keys.verify(&token(|header, _| header.kid = Some(kid.into()))).is_err(), "{kid}");
        }
    }

    #[test]
    fn the_algorithm_is_the_keys_not_the_messages() {
        let claims = token(|_, _| ());
        let [_, claims, signature] = claims.split('.').collect::<Vec<_>>()[..] else { panic!("a JWT has three parts") };
        let encode = |text: &str| base64::Engine::encode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, text);
        let none = encode(r#"{"alg":"none","typ":"at+jwt"}"#);
        assert!(keys().verify(&format!("{none}.{claims}.")).is_err());
        assert!(keys().verify(&format!("{none}.{claims}.{signature}")).is_err());
        let mut header = Header::new(Algorithm::HS256);
        header.typ = Some(TOKEN_TYPE.to_owned());
        let now = unix_seconds();
        let claims =
            json!({"iss": "orderlog", "aud": "orderlog", "sub": "x", "role": "operator", "iat": now, "exp": now + 60});
        let confused = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(PUBLIC.as_bytes())).unwrap();
        assert_eq!(keys().verify(&confused), Err(Refused("its algorithm is not EdDSA")));
    }

    #[test]
    fn a_key_inside_the_message_is_not_used() {
        let stranger = PRIVATE.replace("INTuctv5", "INTuctv6");
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(TOKEN_TYPE.to_owned());
        let key = EncodingKey::from_ed_pem(stranger.as_bytes()).unwrap();
        header.jwk = Some(jsonwebtoken::jwk::Jwk::from_encoding_key(&key, Algorithm::EdDSA).unwrap());
        header.jku = Some("http://127.0.0.1:1/keys".into());
        let now = unix_seconds();
        let claims =
            json!({"iss": "orderlog", "aud": "orderlog", "sub": "x", "role": "operator", "iat": now, "exp": now + 60});
        let token = jsonwebtoken::encode(&header, &claims, &key).unwrap();
        assert_eq!(keys().verify(&token), Err(Refused("its signature is wrong")));
    }

    #[rstest::rstest]
    #[case("iss", json!("another"))]
    #[case("iss", Value::Null)]
    #[case("aud", json!("another"))]
    #[case("aud", Value::Null)]
    #[case("sub", json!(""))]
    #[case("sub", json!("a b"))]
    #[case("sub", json!("x".repeat(65)))]
    #[case("sub", Value::Null)]
    #[case("role", json!("root"))]
    #[case("role", Value::Null)]
    #[case("iat", Value::Null)]
    #[case("exp", Value::Null)]
    #[case("exp", json!("tomorrow"))]
    #[case("iat", json!(unix_seconds() + 60))]
    #[case("nbf", json!(unix_seconds() + 60))]
    #[case("exp", json!(unix_seconds() + LIFE_SECONDS_MAX + 60))]
    #[case("exp", json!(unix_seconds() - 31))]
    fn each_claim_is_checked(#[case] claim: &str, #[case] value: Value) {
        refused(|_, claims| match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(claim)),
            value => claims[claim] = value,
        });
    }

    #[test]
    fn clocks_may_disagree_by_half_a_minute() {
        assert!(keys().verify(&token(|_, claims| claims["exp"] = json!(unix_seconds() - 25))).is_ok());
        assert!(keys().verify(&token(|_, claims| claims["nbf"] = json!(unix_seconds() + 25))).is_ok());
    }

    #[test]
    fn another_kind_of_token_is_none() {
        assert_eq!(refused(|header, _| header.typ = Some("JWT".into())), "its typ is not at+jwt");
        assert_eq!(refused(|header, _| header.typ = None), "its typ is not at+jwt");
        assert_eq!(refused(|header, _| header.crit = Some(vec!["b64".into()])), "it has critical extensions");
        assert!(keys().verify(&token(|header, _| header.typ = Some("application/AT+JWT".into()))).is_ok());
        assert!(keys().verify("x.y.z").is_err() && keys().verify("").is_err());
        assert!(keys().verify(&"x".repeat(10_000)).is_err());
    }

    #[test]
    fn no_token_is_signed_that_would_be_refused() {
        let identity = |subject: &str| Identity { subject: subject.into(), role: Role::Customer };
        let hour = Duration::from_secs(3_600);
        assert_eq!(sign(PRIVATE, &identity("a/b"), hour), Err(SignError::Subject));
        assert_eq!(sign(PRIVATE, &identity("a"), hour * 25), Err(SignError::Life));
        assert_eq!(sign(PRIVATE, &identity("a"), Duration::ZERO), Err(SignError::Life));
        assert!(matches!(sign(PUBLIC, &identity("a"), hour), Err(SignError::Key(_))));
    }
}
