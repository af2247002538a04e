//! What a client can ask: how a payment stands, and an operator's refund. And where the gateway reports, signed.
//!
//! Nothing is decided here: a refund and a report are commands like any other. How bodies look is
//! [`crate::http_bodies`].

use std::sync::Arc;

use actix_web::{HttpResponse, web};
use edge::answer::{Answer, Ids};
use edge::auth::{Access, Caller};
use edge::commands::{Commands, Draft, Intent};
use edge::facts::{Facts, IdempotencyKey};
use edge::json::Json;
use edge::problem::{Document, Problem};
use edge::rotation::Rotating;
use edge::routes::Routes;
use edge::signature::{Gate, Secrets, Signed};
use events::codec::Codec;
use events::id::OrderId;
use events::money::Money;
use events::payment::{PaymentCommand, RecordGatewayResult, RefundPayment};
use events::record::CommandRef;
use host::{Base, Ready};
use utoipa::OpenApi;

use crate::domain::{Refusal, State, Status};
use crate::http_bodies::{Accepted, Amount, Callback, PaymentView, Received, RefundRequest};
use crate::processor::Payments;
use crate::store;

/// Caller of the gateway's commands: no token has this `sub`, for the gateway has a signature instead.
const GATEWAY: &str = "gateway";

/// What a handler needs beside the commands.
struct Shop {
    base: Base,
}

impl Shop {
    async fn payment(&self, order_id: OrderId) -> Result<(State, bool), Problem> {
        let pool = self.base.pool.clone();
        // In a task of its own: a client that goes away drops no query half-way.
        let read = tokio::spawn(async move {
            let mut conn = pool.acquire().await?;
            let state = store::load_payments(&mut conn, &[order_id.0]).await?.remove(&order_id);
            let pending = store::is_pending(&mut conn, order_id).await?;
            Ok::<_, sqlx::Error>(state.map(|state| (state, pending)))
        });
        let found = read.await.map_err(|_| Problem::internal())?;
        let found = found.map_err(|_| Problem::unavailable("The service cannot reach its data now.", 2))?;
        found.ok_or_else(Problem::not_found)
    }

    /// Refuses at once what no event that may still come would allow. Everything else is judged where it is decided.
    async fn check_refundable(&self, order_id: OrderId) -> Result<(), Problem> {
        let (state, _) = self.payment(order_id).await?;
        let refusal = match state.status() {
            Some(Status::Refunding) => Refusal::AlreadyRefunding,
            Some(Status::Refunded) => Refusal::AlreadyRefunded,
            Some(Status::Cancelled | Status::Declined | Status::Failed) => Refusal::NotCaptured,
            Some(Status::Requested | Status::CancelRequested | Status::Captured | Status::RefundFailed) | None => {
                return Ok(());
            }
        };
        Err(Problem::conflict(refusal.code(), format!("The refund was refused: {refusal}.")))
    }

    fn codec(&self) -> &Codec {
        &self.base.codec
    }
}

/// How a payment stands
///
/// Customers see those of their own orders, operators all.
#[utoipa::path(
    get, path = "/v1/payments/{order_id}", tag = "payments", security(("bearer" = [])),
    params(("order_id" = String, Path, description = "The order")),
    responses(
        (status = 200, body = PaymentView),
        (status = 401, body = Document), (status = 404, body = Document), (status = 503, body = Document),
    )
)]
async fn get_payment(
    caller: Caller,
    order_id: web::Path<OrderId>,
    shop: web::Data<Shop>,
) -> Result<HttpResponse, Problem> {
    let (state, pending) = shop.payment(*order_id).await?;
    let own = state.payment().is_some_and(|payment| caller.may_see(&payment.customer_id));
    let view = PaymentView::of(&state, pending).filter(|_| own).ok_or_else(Problem::not_found)?;
    Ok(HttpResponse::Ok().json(view))
}

fn refund_accepted(ids: Ids) -> Answer {
    let order_id = OrderId(ids.subject);
    Answer::new(format!("/v1/payments/{order_id}"), &serde_json::json!({"order_id": order_id, "status": "ACCEPTED"}))
}

/// Give the money of an order back
///
/// The full amount, once. The order keeps its status.
#[utoipa::path(
    post, path = "/v1/payments/{order_id}/refunds", tag = "payments", security(("bearer" = [])),
    params(
        ("order_id" = String, Path, description = "The order"),
        ("Idempotency-Key" = String, Header, description = "8 to 255 visible ASCII characters"),
        ("Prefer" = Option<String>, Header, description = "`wait=5` waits for the decision"),
    ),
    request_body = RefundRequest,
    responses(
        (status = 200, body = PaymentView, description = "Decided: the refund is on its way"),
        (status = 202, body = Accepted, description = "Accepted"),
        (status = 400, body = Document), (status = 401, body = Document), (status = 403, body = Document),
        (status = 404, body = Document), (status = 409, body = Document), (status = 422, body = Document),
        (status = 503, body = Document),
    )
)]
async fn post_refund(
    caller: Caller,
    facts: Facts,
    order_id: web::Path<OrderId>,
    body: Json<RefundRequest>,
    shop: web::Data<Shop>,
    commands: web::Data<Commands>,
) -> Result<HttpResponse, Problem> {
    let (order_id, reason) = (*order_id, body.value.reason);
    let intent = Intent {
        facts: &facts,
        caller: &caller.subject,
        body: body.canonical()?,
        subject: Some(order_id.0),
        answer: refund_accepted,
    };
    let accepted = commands.submit(intent, async |_, command| {
        shop.check_refundable(order_id).await?;
        let CommandRef { command_id, caller, key_hash, fingerprint } = command;
        let refund = RefundPayment { order_id, reason, command_id, caller, key_hash, fingerprint };
        draft(shop.codec(), refund.into())
    });
    let accepted = accepted.await?;
    commands
        .reply(accepted, &facts, async |_, decided| match decided.refused {
            Some(reason) if reason == Refusal::UnknownPayment.code() => Err(Problem::not_found()),
            Some(reason) => Err(Problem::conflict(reason, "The refund was refused.")),
            None => {
                let (state, pending) = shop.payment(order_id).await?;
                let view = PaymentView::of(&state, pending).ok_or_else(Problem::not_found)?;
                Ok(HttpResponse::Ok().json(view))
            }
        })
        .await
}

fn draft(codec: &Codec, command: PaymentCommand) -> Result<Draft, Problem> {
    let type_name = command.type_name();
    match command.encode(codec) {
        Ok(value) => Ok(Draft { type_name, value }),
        Err(error) => {
            tracing::error!(%error, "a command cannot be encoded");
            Err(Problem::internal())
        }
    }
}

fn callback_accepted(ids: Ids) -> Answer {
    Answer::new(format!("/v1/payments/{}", OrderId(ids.subject)), &serde_json::json!({"received": true}))
}

/// The gateway's report
///
/// Signed: `Gateway-Signature: t=<unix>,v1=<hex>` is an HMAC-SHA-256 of `t.body`, at most 300 s old.
#[utoipa::path(
    post, path = "/v1/callbacks/gateway", tag = "gateway",
    params(("Gateway-Signature" = String, Header, description = "t=<unix>,v1=<hex>")),
    request_body = Callback,
    responses(
        (status = 200, body = Received, description = "Received, now or before"),
        (status = 400, body = Document), (status = 401, body = Document), (status = 422, body = Document),
        (status = 503, body = Document, description = "Send it again"),
    )
)]
async fn post_callback(
    facts: Facts,
    body: Signed<Callback>,
    shop: web::Data<Shop>,
    commands: web::Data<Commands>,
) -> Result<HttpResponse, Problem> {
    let report = &body.0.value;
    let facts = facts.with_key(IdempotencyKey::parse(&format!("gateway-event:{}", report.event_id))?);
    let intent = Intent {
        facts: &facts,
        caller: GATEWAY,
        body: body.0.canonical()?,
        subject: Some(report.key.0),
        answer: callback_accepted,
    };
    let accepted = commands.submit(intent, async |_, command| {
        let CommandRef { command_id, caller, key_hash, fingerprint } = command;
        let recorded = RecordGatewayResult {
            order_id: report.key,
            gateway_event_id: report.event_id.clone(),
            result: report.r#type,
            gateway_key: report.gateway_key.clone(),
            amount: Money::new(report.amount, report.currency),
            occurred_at: report.occurred_at,
            command_id,
            caller,
            key_hash,
            fingerprint,
        };
        draft(shop.codec(), recorded.into())
    });
    accepted.await?;
    Ok(HttpResponse::Ok().json(serde_json::json!({"received": true})))
}

#[derive(OpenApi)]
#[openapi(
    info(title = "Orderlog: payment-svc", description = "The money of an order."),
    paths(get_payment, post_refund, post_callback),
    components(schemas(Accepted, Amount, Callback, Document, PaymentView, Received, RefundRequest))
)]
struct Api;

/// The document of these routes.
#[must_use]
pub fn api() -> utoipa::openapi::OpenApi {
    Api::openapi()
}

/// The public routes; called once per worker thread.
pub fn routes(ready: Ready<Payments>, secrets: Arc<Rotating<Secrets>>) -> impl Fn() -> Routes + Clone + Send + 'static {
    let Ready { base, commands, metrics, .. } = ready;
    let commands = Arc::new(commands.expect("this service has a commands topic"));
    let (shop, gate) = (Arc::new(Shop { base }), Arc::new(Gate { secrets, metrics }));
    move || {
        Routes::new()
            .data(Arc::clone(&shop))
            .data(Arc::clone(&gate))
            .data(Arc::clone(&commands))
            .get("/v1/payments/{order_id}", Access::AnyRole, get_payment)
            .post("/v1/payments/{order_id}/refunds", Access::Operator, post_refund)
            .post("/v1/callbacks/gateway", Access::Open, post_callback)
    }
}
