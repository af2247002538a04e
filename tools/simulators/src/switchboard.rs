//! What happens to a call before and after it is carried out: it is recorded, and the plan in force may refuse, delay or
//! cut it. It also serves the gateway's `/admin` routes. It knows no charges.

use std::sync::{Mutex, MutexGuard};

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};

use crate::archive::{Archive, Document};
use crate::clock::{now_ms, rfc3339};
use crate::hangup;
use crate::listing::Window;
use crate::plan::{GatewayMode, Plan, Turn};
use crate::problem::{Body, Problem, no_method, parse_json};

/// Records calls and applies plans.
#[derive(Debug)]
pub(crate) struct Switchboard {
    plan: Mutex<Plan<GatewayMode>>,
    calls: Mutex<Archive<Call>>,
}

/// One call of the API, recorded when it arrives, whatever becomes of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Call {
    at: String,
    method: String,
    path: String,
    /// Of the charge or refund; null for lists and for bodies that name none.
    key: Option<String>,
    /// The plan's mode, where it interfered with the call as a whole.
    plan: Option<GatewayMode>,
}

impl Document for Call {
    type Key = String;

    fn keys(&self) -> Vec<String> {
        self.key.iter().cloned().collect()
    }
}

impl Switchboard {
    pub(crate) fn new(calls: Archive<Call>) -> Self {
        Self { plan: Mutex::new(Plan::default()), calls: Mutex::new(calls) }
    }

    /// Records the call.
    ///
    /// # Errors
    /// The plan refuses it (`down`, `error`), or it cannot be recorded.
    pub(crate) fn enter(&self, request: &HttpRequest, keys: &[&str]) -> Result<Option<Turn<GatewayMode>>, Problem> {
        let turn = self.plan().take(keys, GatewayMode::concerns_calls);
        let call = Call {
            at: rfc3339(now_ms()),
            method: request.method().to_string(),
            path: request.path().to_owned(),
            key: keys.first().map(|key| (*key).to_owned()),
            plan: turn.map(|turn| turn.mode),
        };
        self.calls().append(&call).map_err(|error| Problem::storage(&error))?;
        match turn.map(|turn| turn.mode) {
            Some(GatewayMode::Down) => {
                hangup::cut(request);
                Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "down", "the plan says that the gateway is down"))
            }
            Some(GatewayMode::Error) => {
                Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "error", "the plan says that the gateway errs"))
            }
            _ => Ok(turn),
        }
    }

    /// Gives the answer back, late or never where the plan says so.
    pub(crate) async fn leave(&self, request: &HttpRequest, turn: Option<Turn<GatewayMode>>) {
        match turn.map(|turn| (turn.mode, turn.delay.unwrap_or(turn.mode.default_delay()))) {
            Some((GatewayMode::SlowAnswer, delay)) => tokio::time::sleep(delay).await,
            Some((GatewayMode::CutAnswer, _)) => hangup::cut(request),
            _ => {}
        }
    }

    /// What the plan makes of a new charge or refund.
    pub(crate) fn twist(&self, keys: &[&str]) -> Option<Turn<GatewayMode>> {
        self.plan().take(keys, |mode| !mode.concerns_calls())
    }

    /// See [`crate::journal::Journal::unlock`].
    pub(crate) fn close(&self) {
        self.calls().unlock();
    }

    fn plan(&self) -> MutexGuard<'_, Plan<GatewayMode>> {
        self.plan.lock().expect("nothing panics while it holds the plan")
    }

    fn calls(&self) -> MutexGuard<'_, Archive<Call>> {
        self.calls.lock().expect("nothing panics while it holds the calls")
    }
}

/// The `/admin` routes of the gateway.
pub(crate) fn admin(routes: &mut web::ServiceConfig) {
    routes
        .service(
            web::resource("/admin/plan")
                .get(async |board: web::Data<Switchboard>| HttpResponse::Ok().json(&*board.plan()))
                .post(set_plan)
                .delete(async |board: web::Data<Switchboard>| {
                    *board.plan() = Plan::default();
                    HttpResponse::NoContent().finish()
                })
                .default_service(web::to(no_method)),
        )
        .service(web::resource("/admin/calls").get(list_calls).default_service(web::to(no_method)));
}

async fn set_plan(request: HttpRequest, body: Body, board: web::Data<Switchboard>) -> Result<HttpResponse, Problem> {
    let plan = parse_json::<Plan<GatewayMode>>(request.headers(), body)?.check()?;
    tracing::info!(?plan, "a plan is in force");
    let answer = HttpResponse::Ok().json(&plan);
    *board.plan() = plan;
    Ok(answer)
}

#[derive(Deserialize)]
struct CallsQuery {
    key: Option<String>,
    cursor: Option<String>,
    limit: Option<String>,
}

async fn list_calls(query: web::Query<CallsQuery>, board: web::Data<Switchboard>) -> Result<HttpResponse, Problem> {
    let window = Window::parse(query.cursor.as_deref(), query.limit.as_deref())?;
    let page = board.calls().page(query.key.as_ref(), window).map_err(|error| Problem::storage(&error))?;
    Ok(HttpResponse::Ok().json(page))
}
