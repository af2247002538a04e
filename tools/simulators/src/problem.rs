//! Errors as `application/problem+json` documents (RFC 9457). It decides no status: who refuses does.

use std::fmt;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderMap};
use actix_web::web::{Bytes, QueryConfig};
use actix_web::{HttpRequest, HttpResponse, ResponseError};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest request body in bytes.
pub(crate) const BODY_BYTES_MAX: usize = 64 * 1024;

/// An error answer. Boxed, because it travels in many a `Result`.
#[derive(Debug, Clone)]
pub(crate) struct Problem(Box<Document>);

#[derive(Debug, Clone, Serialize)]
struct Document {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    detail: String,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<[FieldError; 1]>,
}

#[derive(Debug, Clone, Serialize)]
struct FieldError {
    pointer: String,
    detail: String,
}

impl Problem {
    /// `code` is stable, `detail` is for people.
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self(Box::new(Document {
            kind: format!("/problems/{}", code.replace('_', "-")),
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into(),
            code,
            errors: None,
        }))
    }

    /// 422 for one field of the body or query: `"amount"`, `"must be positive"`.
    pub(crate) fn invalid(field: &str, detail: &str) -> Self {
        let mut problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "validation", format!("`{field}` {detail}"));
        problem.0.errors = Some([FieldError { pointer: format!("/{field}"), detail: detail.to_owned() }]);
        problem
    }

    /// 500: the journal could not be written or read.
    pub(crate) fn storage(error: &std::io::Error) -> Self {
        tracing::error!(%error, "the journal failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "storage", "the simulator cannot use its file; see its log")
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}: {}", self.0.status, self.0.code, self.0.detail)
    }
}

impl std::error::Error for Problem {}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.0.status).expect("made from a StatusCode")
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        if matches!(self.0.status, 429 | 503) {
            response.insert_header((header::RETRY_AFTER, "1"));
        }
        let body = serde_json::to_string(&self.0).expect("a problem holds only strings and numbers");
        response.content_type("application/problem+json").body(body)
    }
}

/// What actix read of a body, or why it could not.
pub(crate) type Body = Result<Bytes, actix_web::Error>;

/// Reads a JSON body: 413 too large, 415 another content type, 400 not JSON, 422 anything wrong inside it.
pub(crate) fn parse_json<T: DeserializeOwned>(headers: &HeaderMap, body: Body) -> Result<T, Problem> {
    let bytes = body.map_err(|error| match error.as_response_error().status_code() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            format!("a body has at most {BODY_BYTES_MAX} bytes"),
        ),
        _ => Problem::new(StatusCode::BAD_REQUEST, "unreadable", "the body did not arrive whole"),
    })?;
    let media = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = media.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media_type", "send application/json"));
    }
    serde_json::from_slice(&bytes).map_err(|error| {
        if error.is_data() {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "validation", error.to_string())
        } else {
            Problem::new(StatusCode::BAD_REQUEST, "not_json", error.to_string())
        }
    })
}

/// Makes a query that cannot be read a problem: 422.
pub(crate) fn query_config() -> QueryConfig {
    QueryConfig::default().error_handler(|error, _| {
        let detail = error.to_string();
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "validation", detail).into()
    })
}

/// 404 for a path that is no route.
pub(crate) async fn no_route(request: HttpRequest) -> HttpResponse {
    Problem::new(StatusCode::NOT_FOUND, "no_route", format!("there is no `{}` here", request.path())).error_response()
}

/// 405 for a route's other methods.
pub(crate) async fn no_method(request: HttpRequest) -> HttpResponse {
    let detail = format!("`{}` does not take {}", request.path(), request.method());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "no_method", detail).error_response()
}
