//! What a client can ask: how a payment stands, and an operator's refund. And where the gateway reports, signed.
//!
//! Nothing is decided here: a refund and a report are commands like any other.

use std::sync::Arc;

use actix_web::{HttpResponse, web};
use edge::answer::{Answer, Ids};
use edge::auth::{Access, Caller};
use edge::commands::{Commands, Draft, Intent};
use edge::facts::{Facts, IdempotencyKey};
use edge::fields::{Body, Object};
use edge::json::Json;
use edge::problem::{Document, Problem};
use edge::rotation::Rotating;
use edge::routes::Routes;
use edge::signature::{Gate, Secrets, Signed};
use events::code::{GatewayResult, OperatorRefundReason};
use events::codec::Codec;
use events::id::OrderId;
use events::money::{Currency, Money};
use events::payment::{PaymentCommand, RecordGatewayResult, RefundPayment};
use events::record::CommandRef;
use events::time::Timestamp;
use host::{Base, Ready};
use serde::Serialize;
use utoipa::OpenApi;

use crate::domain::{Refusal, State, Status};
use crate::processor::Payments;
use crate::store;

/// Caller of the gateway's commands: no token has this `sub`, for the gateway has a signature instead.
const GATEWAY: &str = "gateway";
const EVENT_ID_CHARS_MAX: usize = 200;

/// An amount, as JSON.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Amount {
    /// Minor units.
    amount: i64,
    /// ISO 4217.
    #[schema(value_type = String, example = "USD")]
    currency: Currency,
}

impl From<Money> for Amount {
    fn from(money: Money) -> Self {
        Self { amount: money.amount, currency: money.currency }
    }
}

/// A payment, as clients see it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct PaymentView {
    /// Of which order.
    #[schema(value_type = String)]
    order_id: OrderId,
    /// REQUESTED, PENDING, CAPTURED, DECLINED, FAILED, CANCELLED, REFUNDING or REFUNDED.
    status: &'static str,
    /// What the order costs, or the money taken when that is another amount.
    amount: Amount,
    /// What went back; 0 until then.
    refunded: Amount,
    /// Where a person can pay, while they can.
    pay_url: Option<String>,
}

impl PaymentView {
    fn of(state: &State, pending: bool) -> Option<Self> {
        let (status, payment) = (state.status()?, state.payment()?);
        let taken = state.taken().unwrap_or(payment.total);
        let back = if status == Status::Refunded { taken.amount } else { 0 };
        let shown = status.shown(pending);
        let pay_url = state.terms().and_then(|terms| terms.pay_url.clone()).filter(|_| shown == "PENDING");
        Some(Self {
            order_id: payment.order_id,
            status: shown,
            amount: taken.into(),
            refunded: Amount { amount: back, currency: taken.currency },
            pay_url,
        })
    }
}

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

/// Why an operator gives the money back.
#[derive(Debug, utoipa::ToSchema)]
struct RefundRequest {
    /// REQUESTED_BY_CUSTOMER, DUPLICATE, FRAUD or OTHER.
    #[schema(value_type = Option<String>)]
    reason: OperatorRefundReason,
}

impl Body for RefundRequest {
    fn read(body: &Object<'_>) -> Option<Self> {
        let reason = body.field("reason").optional(|field| field.parsed_by(OperatorRefundReason::parse));
        Some(Self { reason: reason?.unwrap_or(OperatorRefundReason::Other) })
    }
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
        (status = 202, description = "Accepted"),
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

/// What the gateway reports.
#[derive(Debug, utoipa::ToSchema)]
struct Callback {
    /// The gateway's identity of this message; a second one with it has no effect.
    event_id: String,
    /// charge.captured, charge.declined, charge.failed, charge.cancelled or refund.succeeded.
    #[schema(value_type = String)]
    r#type: GatewayResult,
    /// `charge:<order>` or `refund:<order>`.
    #[schema(value_type = String)]
    key: OrderId,
    /// Minor units.
    amount: i64,
    /// ISO 4217.
    #[schema(value_type = String)]
    currency: Currency,
    /// By the gateway's clock.
    #[schema(value_type = String)]
    occurred_at: Timestamp,
    #[schema(ignore)]
    gateway_key: String,
}

impl Body for Callback {
    fn read(body: &Object<'_>) -> Option<Self> {
        let event_id = body.field("event_id").parsed_by(event_id);
        let result = body.field("type").parsed_by(result);
        let key = body.field("key").parsed_by(keyed);
        let amount = body.field("amount").integer(0, i64::MAX);
        let currency = body.field("currency").parsed_by(Currency::parse);
        let occurred_at = body.field("occurred_at").parsed_by(Timestamp::parse);
        let (key, gateway_key) = key?;
        Some(Self {
            event_id: event_id?,
            r#type: result?,
            key,
            amount: amount?,
            currency: currency?,
            occurred_at: occurred_at?,
            gateway_key,
        })
    }
}

/// It becomes part of an idempotency key, so it is made of what a key may be made of.
fn event_id(text: &str) -> Result<String, String> {
    let is_id = (1..=EVENT_ID_CHARS_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_id { Ok(text.to_owned()) } else { Err(format!("must be 1 to {EVENT_ID_CHARS_MAX} visible ASCII characters")) }
}

fn result(text: &str) -> Result<GatewayResult, &'static str> {
    match text {
        "charge.captured" => Ok(GatewayResult::Captured),
        "charge.declined" => Ok(GatewayResult::Declined),
        "charge.failed" => Ok(GatewayResult::Failed),
        "charge.cancelled" => Ok(GatewayResult::Cancelled),
        "refund.succeeded" => Ok(GatewayResult::Refunded),
        _ => Err("must be charge.captured, charge.declined, charge.failed, charge.cancelled or refund.succeeded"),
    }
}

fn keyed(text: &str) -> Result<(OrderId, String), &'static str> {
    let order = text.strip_prefix("charge:").or_else(|| text.strip_prefix("refund:"));
    let order = order.and_then(|order| order.parse().ok());
    order.map(|order| (order, text.to_owned())).ok_or("must be charge: or refund: and the ID of an order")
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
        (status = 200, description = "Received, now or before"),
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
    components(schemas(PaymentView, RefundRequest, Callback, Document))
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
