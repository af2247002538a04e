//! Who may use a route: said in the table of routes, enforced before a handler or its extractors run, so that a route
//! without a rule cannot exist.
//!
//! Whether an object is the caller's own is the handler's to check: only it knows the object. Tokens themselves are
//! [`crate::token`]; the gateway's callback shows a signature instead ([`crate::signature`]).

use std::future::{Ready, ready};
use std::sync::Arc;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::{Method, header};
use actix_web::middleware::Next;
use actix_web::{FromRequest, HttpMessage, HttpRequest, ResponseError, web};
use engine::breaker::{Away, Breaker};

use crate::group::AWAY_RETRY_SECONDS;
use crate::metrics::HttpMetrics;
use crate::problem::Problem;
use crate::rotation::Rotating;
use crate::token::{Identity, Keys, Role};

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody: documents, health, and what checks a signature of its own.
    Open,
    /// Every valid token.
    AnyRole,
    /// Role customer.
    Customer,
    /// Role operator.
    Operator,
}

impl Access {
    fn admits(self, role: Role) -> bool {
        match self {
            Self::Open | Self::AnyRole => true,
            Self::Customer => role == Role::Customer,
            Self::Operator => role == Role::Operator,
        }
    }
}

/// The authenticated caller, for handlers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The token's `sub`: the customer's ID when the role is customer.
    pub subject: String,
    /// The token's role.
    pub role: Role,
}

impl Caller {
    /// True for role operator.
    #[must_use]
    pub fn is_operator(&self) -> bool {
        self.role == Role::Operator
    }

    /// True when the caller is this customer, or an operator.
    #[must_use]
    pub fn may_see(&self, customer_id: &str) -> bool {
        self.is_operator() || self.subject == customer_id
    }
}

impl From<Identity> for Caller {
    fn from(Identity { subject, role }: Identity) -> Self {
        Self { subject, role }
    }
}

impl FromRequest for Caller {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        // Only [`guard`] puts one there. On an open route there is none, so a handler that asks there lets nobody in.
        let caller = request.extensions().get::<Self>().cloned();
        ready(caller.ok_or_else(|| Problem::unauthenticated("A bearer token is required.")))
    }
}

/// What [`guard`] needs, in the application's data.
#[derive(Debug, Clone)]
pub(crate) struct Authority {
    pub(crate) keys: Arc<Rotating<Keys>>,
    pub(crate) metrics: HttpMetrics,
    /// Without it no route of the site can be served.
    pub(crate) needs: Option<Breaker>,
}

/// Lets a request through when its route admits its caller and what the site needs is there.
pub(crate) async fn guard<B: MessageBody + 'static>(
    rules: &[(Method, Access)],
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let rule = rules.iter().find(|(method, _)| method == request.method());
    // No rule: the resource has no such method, and its default answers 405.
    let access = rule.map_or(Access::Open, |(_, access)| *access);
    if access != Access::Open {
        match admit(&request, access) {
            Ok(caller) => drop(request.extensions_mut().insert(caller)),
            // Answered from here, so that it is counted under its route.
            Err(problem) => return Ok(request.into_response(problem.error_response())),
        }
    }
    if let Err(away) = rule.map_or(Ok(()), |_| available(&request)) {
        tracing::debug!(%away, "a request was turned away");
        let problem = Problem::unavailable("The service cannot reach its data now.", AWAY_RETRY_SECONDS);
        return Ok(request.into_response(problem.error_response()));
    }
    next.call(request).await.map(ServiceResponse::map_into_boxed_body)
}

fn authority(request: &ServiceRequest) -> &Authority {
    let authority = request.app_data::<web::Data<Authority>>();
    authority.expect("a site puts its authority into the application's data")
}

/// A worker that waited for what is away would be missing for what can be answered.
fn available(request: &ServiceRequest) -> Result<(), Away> {
    authority(request).needs.as_ref().map_or(Ok(()), Breaker::check)
}

fn admit(request: &ServiceRequest, access: Access) -> Result<Caller, Problem> {
    let authority = authority(request);
    let route = request.match_pattern().unwrap_or_default();
    let caller = authenticate(request, &authority.keys.get()).inspect_err(|(_, why)| {
        authority.metrics.refused("authentication");
        tracing::info!(http.route = route, why, "a request was refused: not authenticated");
    });
    let caller = caller.map_err(|(problem, _)| problem)?;
    if access.admits(caller.role) {
        return Ok(caller);
    }
    authority.metrics.refused("authorisation");
    tracing::info!(http.route = route, sub = caller.subject, role = %caller.role, "a request was refused: wrong role");
    let needed = if access == Access::Operator { Role::Operator } else { Role::Customer };
    Err(Problem::forbidden(format!("This takes the role {needed}.")))
}

fn authenticate(request: &ServiceRequest, keys: &Keys) -> Result<Caller, (Problem, String)> {
    let refused = |detail: &str, why: &str| (Problem::unauthenticated(detail), why.to_owned());
    let mut headers = request.headers().get_all(header::AUTHORIZATION);
    let Some(value) = headers.next() else {
        return Err(refused("A bearer token is required.", "no Authorization header"));
    };
    let text = value.to_str().unwrap_or_default();
    let token = match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
        _ => return Err(refused("A bearer token is required.", "no bearer token")),
    };
    if headers.next().is_some() {
        return Err(refused("One Authorization header is required.", "several Authorization headers"));
    }
    match keys.verify(token) {
        Ok(identity) => Ok(identity.into()),
        Err(why) => Err(refused("The token is not accepted.", &why.to_string())),
    }
}
