//! Errors as clients see them: RFC 9457 problem documents with a stable `type`, a stable `code` and a pointer per bad
//! field.
//!
//! Nothing of the inside reaches a client from here: causes are logged where they are handled, never sent.

use std::borrow::Cow;
#[expect(unused_imports, reason = "named by the schema of `members`")]
use std::collections::HashMap;
use std::fmt;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::{HttpResponse, ResponseError};
use serde::Serialize;
use serde_json::{Map, Value};

/// Media type of every error body.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// One wrong field of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct FieldError {
    /// RFC 6901 pointer into the body (`/lines/0/quantity`), or `/name` of a parameter.
    pub pointer: String,
    /// What the field must be.
    pub detail: String,
}

/// The body of every error, `application/problem+json`.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[schema(as = Problem)]
pub struct Document {
    /// `/problems/` and the code in lower case; stable.
    #[serde(rename = "type")]
    #[schema(example = "/problems/validation")]
    kind: String,
    /// What the type means, for people; the same in every occurrence.
    title: String,
    /// The HTTP status.
    #[schema(example = 422)]
    status: u16,
    /// What happened this time, for people.
    detail: String,
    /// For programs; stable.
    #[schema(example = "VALIDATION")]
    code: Cow<'static, str>,
    /// The wrong fields, when fields are wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError>,
    /// Further members, as the route documents them.
    #[serde(flatten)]
    #[schema(value_type = HashMap<String, Value>)]
    members: Map<String, Value>,
}

/// An error on its way to the client. Any handler, extractor or middleware may return it.
#[derive(Debug, Clone)]
pub struct Problem(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    status: StatusCode,
    document: Document,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// A problem of this status. `code` is upper-case words with underscores; `type` and `title` follow from it.
    #[must_use]
    pub fn new(status: StatusCode, code: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        let code = code.into();
        let document = Document {
            kind: format!("/problems/{}", code.to_ascii_lowercase().replace('_', "-")),
            title: title(&code),
            status: status.as_u16(),
            detail: detail.into(),
            code,
            errors: Vec::new(),
            members: Map::new(),
        };
        Self(Box::new(Inner { status, document, headers: Vec::new() }))
    }

    /// 400: a header or the request itself cannot be understood.
    #[must_use]
    pub fn bad_request(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// 401 with the challenge that tells how to authenticate.
    #[must_use]
    pub fn unauthenticated(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "UNAUTHENTICATED", detail)
            .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"orderlog\""))
    }

    /// 403: authenticated, but not allowed.
    #[must_use]
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "FORBIDDEN", detail)
    }

    /// 404: there is none, or it is somebody else's, or the ID is malformed; the three look the same.
    #[must_use]
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", "There is nothing here for you.")
    }

    /// 409: the state does not allow it.
    #[must_use]
    pub fn conflict(code: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    /// 412: `If-Match` names another version than the current one.
    #[must_use]
    pub fn precondition_failed(code: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PRECONDITION_FAILED, code, detail)
    }

    /// 422: understood, and refused for what it says.
    #[must_use]
    pub fn unprocessable(code: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail)
    }

    /// 422 with a pointer per wrong field.
    #[must_use]
    pub fn validation(errors: Vec<FieldError>) -> Self {
        let detail = match errors.as_slice() {
            [only] => format!("{} {}", only.pointer, only.detail),
            several => format!("{} fields are wrong; see errors.", several.len()),
        };
        let mut problem = Self::unprocessable("VALIDATION", detail);
        problem.0.document.errors = errors;
        problem
    }

    /// 500: a defect of ours. What it was is in the log, under the request's ID.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", "Something went wrong on our side.")
    }

    /// 503: try again, with the same key, after so many seconds.
    #[must_use]
    pub fn unavailable(detail: impl Into<String>, retry_after_seconds: u64) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", detail).retry_after(retry_after_seconds)
    }

    /// The problem that stands for a bare status, made where nobody gave a reason.
    #[must_use]
    pub fn from_status(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND => Self::not_found(),
            StatusCode::UNAUTHORIZED => Self::unauthenticated("A bearer token is required."),
            StatusCode::INTERNAL_SERVER_ERROR => Self::internal(),
            StatusCode::PAYLOAD_TOO_LARGE => Self::new(status, "BODY_TOO_LARGE", "The body is above 64 KiB."),
            _ => {
                let reason = status.canonical_reason().unwrap_or("Error");
                let code = reason.to_ascii_uppercase().replace([' ', '-', '\''], "_");
                Self::new(status, code, format!("{reason}."))
            }
        }
    }

    /// Adds a member, such as the identity and state of what was refused.
    #[must_use]
    pub fn with(mut self, member: &str, value: impl Into<Value>) -> Self {
        self.0.document.members.insert(member.to_owned(), value.into());
        self
    }

    /// Adds a wrong field or parameter.
    #[must_use]
    pub fn with_field(mut self, pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        self.0.document.errors.push(FieldError { pointer: pointer.into(), detail: detail.into() });
        self
    }

    /// Adds a header to the response.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// Adds `Retry-After`.
    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        self.with_header(header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.0.document.code
    }

    /// The wrong fields.
    #[must_use]
    pub fn errors(&self) -> &[FieldError] {
        &self.0.document.errors
    }
}

/// `PRICE_CHANGED` as people write it: `Price changed`.
fn title(code: &str) -> String {
    let mut title = code.to_ascii_lowercase().replace('_', " ");
    if let Some(first) = title.get_mut(0..1) {
        first.make_ascii_uppercase();
    }
    title
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Document { code, detail, .. } = &self.0.document;
        write!(f, "{} {code}: {detail}", self.0.status.as_u16())
    }
}

impl std::error::Error for Problem {}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.0.status
    }

    fn error_response(&self) -> HttpResponse {
        let body = serde_json::to_vec(&self.0.document).expect("a document is plain JSON");
        let mut response = HttpResponse::build(self.0.status);
        response.content_type(PROBLEM_JSON);
        for header in &self.0.headers {
            response.insert_header(header.clone());
        }
        response.body(body)
    }
}

/// A database that does not answer is a dependency that is down (DESIGN §5), whatever the request was.
impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        let defect = match &error {
            sqlx::Error::Database(database) => {
                database.code().is_some_and(|state| matches!(state.get(..2), Some("22" | "23" | "42")))
            }
            sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::ColumnIndexOutOfBounds { .. }
            | sqlx::Error::TypeNotFound { .. }
            | sqlx::Error::Decode(_)
            | sqlx::Error::Encode(_) => true,
            _ => false,
        };
        if defect {
            tracing::error!(%error, "a statement is wrong");
            return Self::internal();
        }
        tracing::warn!(%error, "the database does not answer");
        Self::unavailable("The service cannot reach its data now.", 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(problem: &Problem) -> Value {
        serde_json::to_value(&problem.0.document).unwrap()
    }

    #[test]
    fn type_and_title_follow_from_the_code() {
        let problem = Problem::conflict("PRICE_CHANGED", "It costs more now.").with("order_id", "7");
        assert_eq!(
            json(&problem),
            serde_json::json!({
                "type": "/problems/price-changed", "title": "Price changed", "status": 409,
                "detail": "It costs more now.", "code": "PRICE_CHANGED", "order_id": "7",
            })
        );
    }

    #[test]
    fn one_wrong_field_is_named_in_the_detail_too() {
        let problem = Problem::validation(vec![FieldError {
            pointer: "/lines/0/quantity".into(),
            detail: "must be a positive integer".into(),
        }]);
        let json = json(&problem);
        assert_eq!(json["detail"], "/lines/0/quantity must be a positive integer");
        assert_eq!(json["errors"][0]["pointer"], "/lines/0/quantity");
    }

    #[test]
    fn a_database_error_tells_nothing_of_itself() {
        let problem = Problem::from(sqlx::Error::PoolTimedOut);
        assert_eq!(problem.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(!json(&problem).to_string().contains("pool"));
    }
}
