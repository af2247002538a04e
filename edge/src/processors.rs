//! The admin routes of the processors of this process: `GET /admin/processors` shows them, with the body of `/readyz`
//! under 200, and `POST /admin/processors/{partition}/resume` lets a stopped or paused one go on.
//!
//! Operators only. What a processor does is the engine's; why one has stopped, and what is to be mended before it is told
//! to go on, is its `reason`. A resume is no command: it takes no `Idempotency-Key` and leaves nothing in the log, and
//! told too early the processor stops again for the same reason. Held records and dead letters
//! are [`crate::desk`]'s.

use std::sync::Arc;

use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, web};
use engine::desk::DeadLetters;
use engine::status::{ProcessorStatus, State};

use crate::auth::Caller;
use crate::health::Admin;
use crate::problem::Problem;

/// Where the processors are shown.
pub(crate) const PROCESSORS: &str = "/admin/processors";
/// Where one of them is told to go on.
pub(crate) const RESUME: &str = "/admin/processors/{partition}/resume";
/// When to ask a process again that is starting or stopping.
const AGAIN_SECONDS: u64 = 2;

/// The processors of this process.
pub trait Processors: Send + Sync + 'static {
    /// Those that the group assigned to this process; none at all before the engine starts and after it was stopped.
    fn processors(&self) -> Option<Vec<ProcessorStatus>>;

    /// The desk of held and dead records; none before the engine starts.
    fn dead_letters(&self) -> Option<Arc<dyn DeadLetters>>;

    /// Lets a stopped processor go on; once however often it is told while it is stopped.
    fn resume(&self, partition: i32);
}

/// 200 with what `/readyz` says, ready or not.
pub(crate) async fn show(admin: web::Data<Admin>) -> HttpResponse {
    HttpResponse::Ok().json(admin.report().await)
}

/// 202 with the processor as it stood when it was told; what becomes of it is to be seen at [`PROCESSORS`].
pub(crate) async fn resume(
    caller: Caller,
    partition: web::Path<String>,
    admin: web::Data<Admin>,
) -> Result<HttpResponse, Problem> {
    let stopped = stopped(&partition, admin.processors.processors())?;
    admin.processors.resume(stopped.partition);
    tracing::info!(
        kafka.partition = stopped.partition,
        sub = caller.subject,
        reason = stopped.reason,
        "an operator lets a stopped processor go on"
    );
    Ok(HttpResponse::Accepted().insert_header((header::LOCATION, PROCESSORS)).json(stopped))
}

/// The stopped or paused processor that the address names.
fn stopped(partition: &str, processors: Option<Vec<ProcessorStatus>>) -> Result<ProcessorStatus, Problem> {
    // As it is written everywhere else: no sign in front, no leading zeros.
    let number = partition.parse::<i64>().ok().filter(|number| number.to_string() == partition);
    let number = number.ok_or_else(|| {
        Problem::bad_request("PARTITION_MALFORMED", "partition must be the number of a processor, such as 0.")
            .with_field("/partition", "must be an integer")
    })?;
    let processors = processors
        .ok_or_else(|| Problem::unavailable("This process is starting or stopping: no processors.", AGAIN_SECONDS))?;
    let found = processors.into_iter().find(|status| i64::from(status.partition) == number).ok_or_else(|| {
        let detail = format!("Processor {number} is not assigned to this process.");
        Problem::new(StatusCode::NOT_FOUND, "NOT_FOUND", detail).with("partition", number)
    })?;
    let state = match found.state {
        State::Stopped | State::Paused => return Ok(found),
        State::Preparing => "preparing",
        State::Live => "live",
        State::Waiting => "waiting",
    };
    let detail = format!("Processor {number} is {state}, not stopped: it goes on by itself.");
    let problem = Problem::conflict("NOT_STOPPED", detail).with("partition", number);
    Err(problem.with("state", state).with("reason", found.reason))
}
