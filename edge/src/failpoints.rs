//! The test build's admin routes: `GET /admin/failpoints` says how often each boundary was reached in this process, and
//! `PUT /admin/failpoints/{label}` arms one, with the actions of the crate `fail` as the body. `PUT /admin/clock` puts the wall
//! clock so many milliseconds ahead of the machine's; for everybody, for no token is valid at any time.
//!
//! Not in a normal build; what the boundaries are is [`engine::failpoint`]'s.

use actix_web::{HttpResponse, web};
use engine::failpoint;

use crate::auth::Access;
use crate::problem::Problem;
use crate::routes::Routes;

/// Adds them to the admin port's.
pub(crate) fn add(routes: Routes) -> Routes {
    routes.get("/admin/failpoints", Access::Operator, hits).put("/admin/failpoints/{label}", Access::Operator, arm).put(
        "/admin/clock",
        Access::Open,
        step_clock,
    )
}

async fn hits() -> HttpResponse {
    HttpResponse::Ok().json(failpoint::hits())
}

async fn arm(label: web::Path<String>, actions: String) -> Result<HttpResponse, Problem> {
    failpoint::arm(&label, &actions).map_err(|error| Problem::unprocessable("NOT_ARMED", format!("{error:#}")))?;
    Ok(HttpResponse::NoContent().finish())
}

async fn step_clock(ahead_ms: String) -> Result<HttpResponse, Problem> {
    let ahead = ahead_ms.parse().map_err(|_| Problem::unprocessable("NOT_STEPPED", "milliseconds were expected"))?;
    failpoint::put_clock_ahead_ms(ahead);
    Ok(HttpResponse::NoContent().finish())
}
