//! The test build's admin routes: `GET /admin/failpoints` says how often each boundary was reached in this process, and
//! `PUT /admin/failpoints/{label}` arms one, with the actions of the crate `fail` as the body. `PUT /admin/clock` puts the wall
//! clock ahead of the machine's: by how many milliseconds, and for how many, says the body. It comes back by itself, for no
//! token may be valid meanwhile. `PUT /admin/miswrites` has so many of the next events written wrongly, as the body says,
//! and answers how many were so far.
//!
//! Not in a normal build; what the boundaries are is [`engine::failpoint`]'s.

use std::time::Duration;

use actix_web::{HttpResponse, web};
use engine::failpoint;

use crate::auth::Access;
use crate::problem::Problem;
use crate::routes::Routes;

/// Adds them to the admin port's.
pub(crate) fn add(routes: Routes) -> Routes {
    let routes = routes.put("/admin/clock", Access::Operator, step_clock);
    let routes = routes.put("/admin/miswrites", Access::Operator, miswrite);
    routes.get("/admin/failpoints", Access::Operator, hits).put("/admin/failpoints/{label}", Access::Operator, arm)
}

async fn hits() -> HttpResponse {
    HttpResponse::Ok().json(failpoint::hits())
}

async fn arm(label: web::Path<String>, actions: String) -> Result<HttpResponse, Problem> {
    failpoint::arm(&label, &actions).map_err(|error| Problem::unprocessable("NOT_ARMED", format!("{error:#}")))?;
    Ok(HttpResponse::NoContent().finish())
}

async fn miswrite(events: String) -> Result<HttpResponse, Problem> {
    let Ok(events) = events.parse() else {
        return Err(Problem::unprocessable("NO_NUMBER", "a number of events was expected"));
    };
    Ok(HttpResponse::Ok().json(failpoint::miswrite(events)))
}

async fn step_clock(step: String) -> Result<HttpResponse, Problem> {
    let numbers: Option<Vec<i64>> = step.split(' ').map(|number| number.parse().ok()).collect();
    let Some([ahead, lasts]) = numbers.as_deref() else {
        return Err(Problem::unprocessable("NOT_STEPPED", "two numbers of milliseconds were expected"));
    };
    failpoint::step_clock(*ahead, Duration::from_millis(lasts.unsigned_abs()));
    Ok(HttpResponse::NoContent().finish())
}
