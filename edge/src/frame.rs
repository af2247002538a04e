//! What every request goes through, on both sites: an ID, a place, a clock, a net under panics, and an answer whose
//! errors are problem documents and whose headers are safe.
//!
//! It knows no route. Who may use one is [`crate::auth`]; where it listens is [`crate::server`].

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::{HttpMessage, ResponseError, web};
use engine::clock;
use futures_util::FutureExt;
use tokio::sync::Semaphore;
use tracing::Instrument;

use crate::metrics::HttpMetrics;
use crate::problem::{PROBLEM_JSON, Problem};

/// The header that names a request in answers and logs.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// When a client that was turned away for want of room may come again.
const ROOM_AGAIN_SECONDS: u64 = 1;

/// Headers of every response, unless a handler set its own.
const SAFE_HEADERS: [(HeaderName, HeaderValue); 5] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("frame-ancestors 'none'")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000")),
];

/// The ID of a request, in its extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(pub String);

impl RequestId {
    /// The client's own ID when it is 1 to 64 of `A-Z a-z 0-9 _ - .`, else a new one.
    fn of(headers: &HeaderMap) -> Self {
        let theirs = headers.get(&REQUEST_ID).and_then(|value| value.to_str().ok());
        let theirs = theirs.filter(|text| crate::token::is_subject(text));
        Self(theirs.map_or_else(|| format!("{:032x}", rand::random::<u128>()), str::to_owned))
    }

    fn value(&self) -> HeaderValue {
        HeaderValue::from_str(&self.0).expect("a request ID is made of header characters")
    }
}

/// What [`frame`] needs, in the application's data.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) metrics: HttpMetrics,
    pub(crate) room: Arc<Semaphore>,
}

/// The outermost middleware.
pub(crate) async fn frame(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let started = clock::instant();
    let frame = request.app_data::<web::Data<Frame>>();
    let frame = frame.expect("a site puts its frame into the application's data").clone();
    let id = RequestId::of(request.headers());
    let method = request.method().to_string();
    request.extensions_mut().insert(id.clone());

    let span = tracing::info_span!("request", request.id = id.0, http.method = method);
    let called = async {
        // Turned away before a queue can grow; the place is kept until the answer is made.
        let Ok(_place) = frame.room.try_acquire() else {
            frame.metrics.refused("overload");
            return Err(Problem::unavailable("The service is busy.", ROOM_AGAIN_SECONDS).into());
        };
        let caught = AssertUnwindSafe(next.call(request)).catch_unwind().await;
        // The panic itself is in the log already, by the hook.
        caught.unwrap_or_else(|_| Err(Problem::internal().into()))
    };
    let result = called.instrument(span).await;
    let answered = |route: &str, status: StatusCode| {
        frame.metrics.answered(&method, route, status.as_u16(), started.elapsed());
    };
    match result {
        Ok(response) => {
            let mut response = with_problem(response.map_into_boxed_body());
            secure(response.headers_mut(), &id);
            let route = response.request().match_pattern();
            answered(route.as_deref().unwrap_or("unmatched"), response.status());
            Ok(response)
        }
        Err(error) => {
            let problem = error.as_error::<Problem>().cloned();
            let mut problem = problem.unwrap_or_else(|| {
                let status = error.as_response_error().status_code();
                Problem::from_status(status)
            });
            answered("unmatched", problem.status());
            for (name, value) in SAFE_HEADERS {
                problem = problem.with_header(name, value);
            }
            Err(problem.with_header(REQUEST_ID, id.value()).into())
        }
    }
}

/// An error without a JSON body (the framework's own) becomes a problem document; `/readyz` explains itself in JSON.
fn with_problem(response: ServiceResponse<BoxBody>) -> ServiceResponse<BoxBody> {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE);
    let explained = kind.is_some_and(|kind| kind == PROBLEM_JSON || kind == "application/json");
    if explained || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    response.into_response(Problem::from_status(status).error_response())
}

fn secure(headers: &mut HeaderMap, id: &RequestId) {
    for (name, value) in SAFE_HEADERS {
        if !headers.contains_key(&name) {
            headers.insert(name, value);
        }
    }
    headers.insert(REQUEST_ID, id.value());
}
