//! What an answer of the registry says, apart from its content.
//!
//! What is asked is [`super`]'s.

use anyhow::bail;
use reqwest::StatusCode;
use serde::Deserialize;

/// The registry's own words for "there is no such subject" and "no such schema". A 404 of anything else (a wrong path,
/// a proxy) says nothing about a schema.
const NO_SUBJECT: u32 = 40_401;
const NO_SCHEMA: u32 = 40_403;

/// The body of an error.
#[derive(Debug, Deserialize)]
struct Denied {
    error_code: u32,
}

/// The answer, or none when the registry itself says that the subject or schema does not exist.
pub(super) async fn found(response: reqwest::Response) -> anyhow::Result<Option<reqwest::Response>> {
    if response.status() != StatusCode::NOT_FOUND {
        return success(response).await.map(Some);
    }
    match response.json::<Denied>().await {
        Ok(Denied { error_code: NO_SUBJECT | NO_SCHEMA }) => Ok(None),
        Ok(Denied { error_code }) => bail!("the schema registry answered 404 with code {error_code}"),
        Err(_) => bail!("what answers at the schema registry's address is none: 404 without its error code"),
    }
}

/// The answer, or an error with what the registry says.
pub(super) async fn success(response: reqwest::Response) -> anyhow::Result<reqwest::Response> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let text = response.text().await.unwrap_or_default();
    bail!("the schema registry answered {status}: {}", text.chars().take(500).collect::<String>())
}
