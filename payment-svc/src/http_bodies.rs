//! The bodies of [`crate::http`]: what clients and the gateway send, and what clients are shown.
//!
//! Shapes and their limits only; whether a command is right is decided in [`crate::domain`].

use edge::fields::{Body, Object};
use edge::openapi::{code, optional_code};
use events::code::{GatewayResult, OperatorRefundReason};
use events::id::OrderId;
use events::money::{Currency, Money};
use events::time::Timestamp;
use serde::Serialize;

use crate::domain::{State, Status};

const EVENT_ID_CHARS_MAX: usize = 200;

/// An amount, as JSON.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Amount {
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

/// A command that was taken and is not decided yet: what a 202 says.
#[derive(Debug, utoipa::ToSchema)]
#[expect(dead_code, reason = "the shape of a 202, for the OpenAPI document")]
pub(crate) struct Accepted {
    #[schema(pattern = "^[1-9][0-9]{0,18}$", format = Int64)]
    order_id: String,
    /// Always ACCEPTED.
    #[schema(pattern = "^ACCEPTED$")]
    status: String,
}

/// What the gateway is told.
#[derive(Debug, utoipa::ToSchema)]
#[expect(dead_code, reason = "the shape of an answer, for the OpenAPI document")]
pub(crate) struct Received {
    /// Always true.
    received: bool,
}

/// A payment, as clients see it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct PaymentView {
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
    pub(crate) fn of(state: &State, pending: bool) -> Option<Self> {
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

/// Why an operator gives the money back.
#[derive(Debug, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RefundRequest {
    /// REQUESTED_BY_CUSTOMER, DUPLICATE, FRAUD or OTHER.
    #[schema(required = false, schema_with = refund_reasons)]
    pub(crate) reason: OperatorRefundReason,
}

fn refund_reasons() -> utoipa::openapi::Object {
    optional_code(OperatorRefundReason::ALL, OperatorRefundReason::as_str)
}

impl Body for RefundRequest {
    fn read(body: &Object<'_>) -> Option<Self> {
        let reason = body.field("reason");
        let reason = reason.optional(|reason| reason.code(OperatorRefundReason::ALL, OperatorRefundReason::as_str));
        Some(Self { reason: reason?.unwrap_or(OperatorRefundReason::Other) })
    }
}

/// What the gateway reports.
#[derive(Debug, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Callback {
    /// The gateway's identity of this message; a second one with it has no effect.
    #[schema(pattern = "^[!-~]{1,200}$")]
    pub(crate) event_id: String,
    /// charge.captured, charge.declined, charge.failed, charge.cancelled or refund.succeeded.
    #[schema(schema_with = gateway_results)]
    pub(crate) r#type: GatewayResult,
    /// `charge:<order>` or `refund:<order>`.
    #[schema(value_type = String, pattern = "^(charge|refund):[1-9][0-9]{0,18}$")]
    pub(crate) key: OrderId,
    /// Minor units.
    #[schema(minimum = 0, maximum = 9_223_372_036_854_775_807_i64)]
    pub(crate) amount: i64,
    /// ISO 4217.
    #[schema(value_type = String, pattern = "^[A-Z]{3}$", example = "USD")]
    pub(crate) currency: Currency,
    /// By the gateway's clock.
    #[schema(value_type = String, format = DateTime)]
    pub(crate) occurred_at: Timestamp,
    #[schema(ignore)]
    pub(crate) gateway_key: String,
}

impl Body for Callback {
    fn read(body: &Object<'_>) -> Option<Self> {
        let event_id = body.field("event_id").parsed_by(event_id);
        let result = body.field("type").code(GatewayResult::ALL, gateway_name);
        let key = body.field("key").parsed_by(keyed);
        let amount = body.field("amount").integer(0, i64::MAX);
        let currency = body.field("currency").parsed_as(Currency::parse, "must be an ISO 4217 code such as USD");
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

/// A result, as the gateway calls it.
fn gateway_name(result: GatewayResult) -> &'static str {
    match result {
        GatewayResult::Captured => "charge.captured",
        GatewayResult::Declined => "charge.declined",
        GatewayResult::Failed => "charge.failed",
        GatewayResult::Cancelled => "charge.cancelled",
        GatewayResult::Refunded => "refund.succeeded",
    }
}

fn gateway_results() -> utoipa::openapi::Object {
    code(GatewayResult::ALL, gateway_name)
}

fn keyed(text: &str) -> Result<(OrderId, String), &'static str> {
    let order = text.strip_prefix("charge:").or_else(|| text.strip_prefix("refund:"));
    let order = order.and_then(|order| order.parse().ok());
    order.map(|order| (order, text.to_owned())).ok_or("must be charge: or refund: and the ID of an order")
}
