//! The sink's HTTP side: SMS come in, what arrived is listed, plans are set. SMTP is `smtp`'s.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;

use crate::clock::{now_ms, rfc3339};
use crate::hangup;
use crate::listing::Window;
use crate::mailbox::{Channel, Mailbox, Message};
use crate::plan::{Plan, SinkMode};
use crate::problem::{Body, Problem, no_method, parse_json};

/// How long a plan of mode `slow` waits that names no delay.
pub(crate) const SLOW_DELAY: Duration = Duration::from_secs(3);
const MESSAGE_ID_CHARS_MAX: usize = 255;

type Inbox = web::Data<Arc<Mailbox>>;

/// All routes but `/healthz`.
pub(crate) fn routes(routes: &mut web::ServiceConfig) {
    routes
        .service(web::resource("/sms").post(post_sms).default_service(web::to(no_method)))
        .service(web::resource("/messages").get(list_messages).default_service(web::to(no_method)))
        .service(
            web::resource("/admin/plan")
                .get(async |mailbox: Inbox| HttpResponse::Ok().json(&*mailbox.plan()))
                .post(set_plan)
                .delete(async |mailbox: Inbox| {
                    *mailbox.plan() = Plan::default();
                    HttpResponse::NoContent().finish()
                })
                .default_service(web::to(no_method)),
        );
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SmsRequest {
    message_id: String,
    to: String,
    body: String,
}

impl SmsRequest {
    fn check(self) -> Result<Message, Problem> {
        let Self { message_id, to, body } = self;
        if message_id.is_empty() || message_id.len() > MESSAGE_ID_CHARS_MAX {
            return Err(Problem::invalid("message_id", "must have 1 to 255 characters"));
        }
        let digits = to.strip_prefix('+').unwrap_or_default().as_bytes();
        if !(2..=15).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) || digits[0] == b'0' {
            return Err(Problem::invalid("to", "must be a number such as +15550100 (E.164)"));
        }
        if body.is_empty() {
            return Err(Problem::invalid("body", "must not be empty"));
        }
        let at = rfc3339(now_ms());
        Ok(Message { message_id: Some(message_id), channel: Channel::Sms, to, subject: None, body, at })
    }
}

async fn post_sms(request: HttpRequest, body: Body, mailbox: Inbox) -> Result<HttpResponse, Problem> {
    let message = parse_json(request.headers(), body).and_then(SmsRequest::check)?;
    let turn = mailbox.twist(&message);
    match turn.map(|turn| turn.mode) {
        Some(SinkMode::Down) => {
            hangup::cut(&request);
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "down", "the plan says that the sink is down"));
        }
        Some(SinkMode::Reject4xx) => {
            return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "later", "the plan says: not now"));
        }
        Some(SinkMode::Reject5xx) => {
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "refused", "the plan says: never"));
        }
        Some(SinkMode::Normal | SinkMode::Slow | SinkMode::CutAnswer) | None => {}
    }
    let message_id = message.message_id.clone();
    mailbox.keep(&[message]).map_err(|error| Problem::storage(&error))?;
    match turn {
        Some(turn) if turn.mode == SinkMode::Slow => tokio::time::sleep(turn.delay.unwrap_or(SLOW_DELAY)).await,
        Some(turn) if turn.mode == SinkMode::CutAnswer => hangup::cut(&request),
        _ => {}
    }
    Ok(HttpResponse::Accepted().json(serde_json::json!({ "message_id": message_id })))
}

#[derive(Deserialize)]
struct MessagesQuery {
    order: Option<String>,
    cursor: Option<String>,
    limit: Option<String>,
}

async fn list_messages(query: web::Query<MessagesQuery>, mailbox: Inbox) -> Result<HttpResponse, Problem> {
    let window = Window::parse(query.cursor.as_deref(), query.limit.as_deref())?;
    let order = match query.order.as_deref() {
        None => None,
        Some(text) => Some(text.parse::<u64>().map_err(|_| Problem::invalid("order", "must be an order ID"))?),
    };
    let page = mailbox.page(order, window).map_err(|error| Problem::storage(&error))?;
    Ok(HttpResponse::Ok().json(page))
}

async fn set_plan(request: HttpRequest, body: Body, mailbox: Inbox) -> Result<HttpResponse, Problem> {
    let plan = parse_json::<Plan<SinkMode>>(request.headers(), body)?.check()?;
    tracing::info!(?plan, "a plan is in force");
    let answer = HttpResponse::Ok().json(&plan);
    *mailbox.plan() = plan;
    Ok(answer)
}
