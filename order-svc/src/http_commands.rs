//! The commands of [`crate::http`]: place and cancel.
//!
//! What the projection rules out already, for good, is refused without making a command; all else is decided by the
//! order's processor.

use actix_web::{HttpResponse, web};
use edge::answer::{Answer, Ids};
use edge::auth::Caller;
use edge::commands::{Commands, Intent};
use edge::facts::Facts;
use edge::json::Json;
use edge::problem::{Document, FieldError, Problem};
use events::code::RejectReason;
use events::id::{OrderId, ProductId};
use events::order::{CancelOrder, OrderLine, PlaceOrder};
use events::record::CommandRef;

use crate::domain::{self, Input, Refusal};
use crate::http::{Found, Shop, shown};
use crate::http_bodies::{Accepted, Cancellation, OrderView, WantedOrder};
use crate::state::{State, Status};

/// The 202 of every command.
fn accepted(ids: Ids) -> Answer {
    let order_id = OrderId(ids.subject);
    let body = serde_json::json!({"order_id": order_id, "status": "ACCEPTED"});
    Answer::new(format!("/v1/orders/{order_id}"), &body)
}

/// Place an order
///
/// At the catalogue's prices. The order expires when it is not paid in time.
#[utoipa::path(
    post, path = "/v1/orders", tag = "orders", security(("bearer" = [])),
    params(
        ("Idempotency-Key" = String, Header, description = "8 to 255 visible ASCII characters"),
        ("Prefer" = Option<String>, Header, description = "`wait=5` waits for the decision"),
    ),
    request_body = WantedOrder,
    responses(
        (status = 201, body = OrderView, description = "Decided: it is placed"),
        (status = 202, body = Accepted, description = "Accepted"),
        (status = 400, body = Document), (status = 401, body = Document), (status = 403, body = Document),
        (status = 409, body = Document, description = "The total is another one, or the key is in use"),
        (status = 422, body = Document), (status = 503, body = Document),
    )
)]
pub(crate) async fn post_order(
    caller: Caller,
    facts: Facts,
    body: Json<WantedOrder>,
    shop: web::Data<Shop>,
    commands: web::Data<Commands>,
) -> Result<HttpResponse, Problem> {
    let wanted = &body.value;
    let intent =
        Intent { facts: &facts, caller: &caller.subject, body: body.canonical()?, subject: None, answer: accepted };
    let taken = commands.submit(intent, async |subject, command| {
        let listed = shop.listed(&wanted.lines).await?;
        check_products(&wanted.lines, |id| listed.contains(&id))?;
        let CommandRef { command_id, caller: sub, key_hash, fingerprint } = command;
        let place = PlaceOrder {
            order_id: OrderId(subject),
            customer_id: caller.subject.clone(),
            lines: wanted.lines.clone(),
            payment_method: wanted.payment_method.clone(),
            expected_total: wanted.expected_total,
            command_id,
            caller: sub,
            key_hash,
            fingerprint,
        };
        shop.draft(place.into())
    });
    let taken = taken.await?;
    commands
        .reply(taken, &facts, async |ids, decided| {
            let order_id = OrderId(ids.subject);
            if let Some(reason) = decided.refused {
                return Err(rejected(order_id, reason));
            }
            let mut response = HttpResponse::Created();
            response.insert_header(("Location", format!("/v1/orders/{order_id}")));
            shown(response, shop.order(&caller, order_id).await?, order_id)
        })
        .await
}

/// A moment ago the product may not have been listed yet, so this pins nothing: the same key may be used again.
fn check_products(lines: &[OrderLine], is_listed: impl Fn(ProductId) -> bool) -> Result<(), Problem> {
    let unknown = lines.iter().enumerate().filter(|(_, line)| !is_listed(line.product_id));
    let errors: Vec<FieldError> = unknown
        .map(|(index, _)| FieldError {
            pointer: format!("/lines/{index}/product_id"),
            detail: "is not in the catalogue".to_owned(),
        })
        .collect();
    if errors.is_empty() { Ok(()) } else { Err(Problem::validation(errors)) }
}

fn rejected(order_id: OrderId, reason: String) -> Problem {
    let is = |other: RejectReason| reason == other.as_str();
    let problem = if is(RejectReason::PriceChanged) || reason == Refusal::OrderExists.code() {
        Problem::conflict(reason, "The order was rejected.")
    } else {
        Problem::unprocessable(reason, "The order was rejected.")
    };
    problem.with("order_id", order_id.to_string()).with("order_status", "REJECTED")
}

/// Cancel an order
///
/// Possible while it is PLACED.
#[utoipa::path(
    post, path = "/v1/orders/{id}/cancel", tag = "orders", security(("bearer" = [])),
    params(
        ("id" = String, Path, description = "The order"),
        ("Idempotency-Key" = String, Header, description = "8 to 255 visible ASCII characters"),
        ("If-Match" = Option<String>, Header, description = "The ETag of the version you saw"),
        ("Prefer" = Option<String>, Header, description = "`wait=5` waits for the decision"),
    ),
    request_body = Cancellation,
    responses(
        (status = 200, body = OrderView, description = "Decided: it is cancelled"),
        (status = 202, body = Accepted, description = "Accepted"),
        (status = 400, body = Document), (status = 401, body = Document), (status = 404, body = Document),
        (status = 409, body = Document, description = "It is final, or the key is in use"),
        (status = 412, body = Document, description = "It has another version"),
        (status = 422, body = Document), (status = 503, body = Document),
    )
)]
pub(crate) async fn post_cancel(
    caller: Caller,
    facts: Facts,
    order_id: web::Path<OrderId>,
    body: Json<Cancellation>,
    shop: web::Data<Shop>,
    commands: web::Data<Commands>,
) -> Result<HttpResponse, Problem> {
    let (order_id, reason, expected_version) = (*order_id, body.value.reason, facts.if_match);
    let intent = Intent {
        facts: &facts,
        caller: &caller.subject,
        body: body.canonical()?,
        subject: Some(order_id.0),
        answer: accepted,
    };
    let taken = commands.submit(intent, async |_, command| {
        let found = shop.order(&caller, order_id).await?;
        let CommandRef { command_id, caller: sub, key_hash, fingerprint } = command;
        let cancel = CancelOrder { order_id, reason, expected_version, command_id, caller: sub, key_hash, fingerprint };
        if let Found::Decided(state) = &found
            && let Err(refusal) = domain::decide(state, &Input::Cancel(cancel.clone()))
            && refusal.is_for_good()
        {
            return Err(not_cancelled(refusal.code(), state));
        }
        shop.draft(cancel.into())
    });
    let taken = taken.await?;
    commands
        .reply(taken, &facts, async |_, decided| {
            match (decided.refused.as_deref(), shop.order(&caller, order_id).await?) {
                (Some(code), Found::Decided(state)) => Err(not_cancelled(code, &state)),
                (Some(_), Found::Accepted(_)) => Err(Problem::not_found()),
                (None, found) => shown(HttpResponse::Ok(), found, order_id),
            }
        })
        .await
}

fn not_cancelled(code: &str, state: &State) -> Problem {
    let problem = if code == Refusal::UnknownOrder.code() {
        return Problem::not_found();
    } else if code == Refusal::VERSION_MISMATCH {
        Problem::precondition_failed(code.to_owned(), "The order has another version.")
    } else {
        Problem::conflict(code.to_owned(), "The order can no longer be cancelled.")
    };
    let order_id = state.order_id().map(|order_id| order_id.to_string());
    problem.with("order_id", order_id).with("order_status", state.status().map(Status::as_str))
}
