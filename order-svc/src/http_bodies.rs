//! The bodies of [`crate::http`]: what clients send, and what they are shown.
//!
//! Shapes and their limits only; whether an order may be is decided in [`crate::domain`].

use std::collections::BTreeSet;

use edge::fields::{Body, Field, Object};
use edge::lists::{Page, Params, Query};
use edge::openapi::optional_code;
use engine::record::Record;
use events::code::CustomerReason;
use events::envelope::{self, name};
use events::id::{OrderId, ProductId};
use events::money::{Currency, Money};
use events::order::{OrderEvent, OrderLine, PricedLine};
use events::time::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::Object as Schema;

use crate::catalogue::{LINES_MAX, Product, QUANTITY_MAX};
use crate::domain::is_payment_method;
use crate::state::{Order, State, Status};

/// An amount, as JSON.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Amount {
    /// Minor units.
    #[schema(minimum = 0, maximum = 9_223_372_036_854_775_807_i64)]
    amount: i64,
    /// ISO 4217.
    #[schema(value_type = String, pattern = "^[A-Z]{3}$", example = "USD")]
    currency: Currency,
}

impl From<Money> for Amount {
    fn from(money: Money) -> Self {
        Self { amount: money.amount, currency: money.currency }
    }
}

/// A command that was taken and is not decided yet: what every 202 says.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "the shape of a 202, for the OpenAPI document")]
pub(crate) struct Accepted {
    #[schema(pattern = "^[1-9][0-9]{0,18}$", format = Int64)]
    order_id: String,
    /// Always ACCEPTED.
    #[schema(pattern = "^ACCEPTED$")]
    status: String,
}

/// A line of an order.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LineView {
    #[schema(value_type = String, example = "1082185")]
    product_id: ProductId,
    /// Pieces.
    quantity: i64,
    /// The catalogue's price when the order was placed; null in a rejected order.
    unit_price: Option<Amount>,
}

impl From<&PricedLine> for LineView {
    fn from(line: &PricedLine) -> Self {
        Self { product_id: line.product_id, quantity: line.quantity, unit_price: Some(line.unit_price.into()) }
    }
}

impl From<&OrderLine> for LineView {
    fn from(line: &OrderLine) -> Self {
        Self { product_id: line.product_id, quantity: line.quantity, unit_price: None }
    }
}

/// An order, as clients see it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OrderView {
    #[schema(value_type = String)]
    pub(crate) order_id: OrderId,
    customer_id: String,
    /// ACCEPTED (not decided yet), PLACED, CONFIRMED, CANCELLED, EXPIRED or REJECTED.
    status: &'static str,
    /// Why it was cancelled or rejected, as a code.
    reason: Option<&'static str>,
    /// What the customer said when they cancelled.
    customer_reason: Option<&'static str>,
    /// Number of events that changed it; 0 while it is ACCEPTED.
    version: i64,
    /// Empty while it is ACCEPTED.
    lines: Vec<LineView>,
    /// Null in an accepted or rejected order.
    total: Option<Amount>,
    /// RFC 3339, UTC, milliseconds.
    #[schema(value_type = Option<String>)]
    placed_at: Option<Timestamp>,
    #[schema(value_type = Option<String>)]
    updated_at: Option<Timestamp>,
    /// It has, or had, to be paid by then.
    #[schema(value_type = Option<String>)]
    pay_by: Option<Timestamp>,
}

impl OrderView {
    /// `None` of an order that was never heard of.
    pub(crate) fn of(state: &State) -> Option<Self> {
        Some(match state {
            State::Unknown => return None,
            State::Placed { order, .. } => Self::of_order(order, Status::Placed),
            State::Confirmed(order) => Self::of_order(order, Status::Confirmed),
            State::Expired(order) => Self::of_order(order, Status::Expired),
            State::Cancelled { order, reason, customer_reason } => Self {
                reason: Some(reason.as_str()),
                customer_reason: customer_reason.map(CustomerReason::as_str),
                ..Self::of_order(order, Status::Cancelled)
            },
            State::Rejected(rejected) => Self {
                status: Status::Rejected.as_str(),
                reason: Some(rejected.reason.as_str()),
                version: rejected.version,
                lines: rejected.lines.iter().map(LineView::from).collect(),
                placed_at: Some(rejected.rejected_at),
                updated_at: Some(rejected.rejected_at),
                ..Self::accepted(rejected.order_id, rejected.customer_id.clone())
            },
        })
    }

    fn of_order(order: &Order, status: Status) -> Self {
        Self {
            order_id: order.order_id,
            customer_id: order.customer_id.clone(),
            status: status.as_str(),
            reason: None,
            customer_reason: None,
            version: order.version,
            lines: order.lines.iter().map(LineView::from).collect(),
            total: Some(order.total.into()),
            placed_at: Some(order.placed_at),
            updated_at: Some(order.updated_at),
            pay_by: Some(order.pay_by),
        }
    }

    /// An order whose command is in the log, and nothing more is known.
    pub(crate) fn accepted(order_id: OrderId, customer_id: String) -> Self {
        Self {
            order_id,
            customer_id,
            status: "ACCEPTED",
            reason: None,
            customer_reason: None,
            version: 0,
            lines: Vec::new(),
            total: None,
            placed_at: None,
            updated_at: None,
            pay_by: None,
        }
    }
}

/// A product that can be ordered.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProductView {
    #[schema(value_type = String, example = "1082185")]
    product_id: ProductId,
    name: String,
    price: Amount,
}

impl From<Product> for ProductView {
    fn from(product: Product) -> Self {
        Self { product_id: product.product_id, name: product.name, price: product.price.into() }
    }
}

/// An event of an order, as the log has it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EventView {
    /// `ce_id`
    id: String,
    /// `ce_type`, such as `orderlog.order.OrderPlaced`.
    r#type: String,
    /// The order's version afterwards; null of a refusal.
    version: Option<i64>,
    /// `ce_time`
    at: String,
    /// `ce_cause`: `topic/partition/offset/sequence`, `timer`, `effect` or `operator`.
    cause: String,
    /// Where it lies.
    topic: String,
    partition: i32,
    /// `ce_sequence`
    sequence: i64,
    /// The record's fields.
    #[schema(value_type = Object)]
    data: serde_json::Value,
}

impl EventView {
    pub(crate) fn of(record: &Record, event: &OrderEvent) -> Self {
        let header = |name| envelope::text(&record.headers, name).unwrap_or_default().to_owned();
        Self {
            id: header(name::ID),
            r#type: header(name::TYPE),
            version: match event {
                OrderEvent::OrderPlaced(event) => Some(event.version),
                OrderEvent::OrderRejected(event) => Some(event.version),
                OrderEvent::OrderConfirmed(event) => Some(event.version),
                OrderEvent::OrderCancelled(event) => Some(event.version),
                OrderEvent::OrderExpired(event) => Some(event.version),
                OrderEvent::CommandRefused(_) => None,
            },
            at: header(name::TIME),
            cause: header(name::CAUSE),
            topic: record.topic.to_string(),
            partition: record.partition,
            sequence: envelope::sequence(&record.headers).unwrap_or_default(),
            data: event.to_json(),
        }
    }
}

/// A page of orders.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "the shape of a list, for the OpenAPI document")]
pub(crate) struct OrderList {
    items: Vec<OrderView>,
    next_cursor: Option<String>,
}

/// A page of products.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "the shape of a list, for the OpenAPI document")]
pub(crate) struct ProductList {
    items: Vec<ProductView>,
    next_cursor: Option<String>,
}

/// The events of an order.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "the shape of a list, for the OpenAPI document")]
pub(crate) struct EventList {
    items: Vec<EventView>,
    next_cursor: Option<String>,
}

/// An order to place.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WantedOrder {
    /// 1 to 200 lines, no product twice; 1 to 1,000,000 pieces each.
    #[schema(value_type = Vec<WantedLine>, min_items = 1, max_items = 200)]
    pub(crate) lines: Vec<OrderLine>,
    /// A token of the gateway, 1 to 64 visible ASCII characters.
    #[schema(pattern = "^[!-~]{1,64}$", example = "pm_ok")]
    pub(crate) payment_method: String,
    /// The total you saw: the order is rejected when the catalogue says otherwise.
    #[schema(value_type = Option<Amount>)]
    pub(crate) expected_total: Option<Money>,
}

/// A line to order.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the shape of a line, for the OpenAPI document")]
pub(crate) struct WantedLine {
    #[schema(pattern = "^[1-9][0-9]{0,18}$", format = Int64, example = "1082185")]
    product_id: String,
    /// 1 to 1,000,000.
    #[schema(minimum = 1, maximum = 1_000_000)]
    quantity: i64,
}

impl Body for WantedOrder {
    fn read(body: &Object<'_>) -> Option<Self> {
        let lines = body.field("lines").list(1, LINES_MAX, |line| line.object(line_of));
        let payment_method = body.field("payment_method").parsed_by(payment_method);
        let expected_total = body.field("expected_total").optional(|total| total.object(amount));
        let lines = lines?;
        let mut seen = BTreeSet::new();
        for (index, line) in lines.iter().enumerate() {
            if !seen.insert(line.product_id) {
                body.error(&format!("/lines/{index}/product_id"), "is in the order already");
            }
        }
        Some(Self { lines, payment_method: payment_method?, expected_total: expected_total? })
    }
}

fn line_of(line: &Object<'_>) -> Option<OrderLine> {
    let product_id = line.field("product_id").parsed();
    let quantity = line.field("quantity").integer(1, QUANTITY_MAX);
    Some(OrderLine { product_id: product_id?, quantity: quantity? })
}

fn payment_method(text: &str) -> Result<String, &'static str> {
    if is_payment_method(text) { Ok(text.to_owned()) } else { Err("must be 1 to 64 visible ASCII characters") }
}

fn amount(body: &Object<'_>) -> Option<Money> {
    let amount = body.field("amount").integer(0, i64::MAX);
    let currency = body.field("currency").parsed_as(Currency::parse, "must be an ISO 4217 code such as USD");
    Some(Money::new(amount?, currency?))
}

/// Why an order is cancelled.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cancellation {
    /// CHANGED_MIND, ORDERED_BY_MISTAKE, FOUND_CHEAPER or OTHER; OTHER when nothing is said.
    #[schema(required = false, schema_with = cancel_reasons)]
    pub(crate) reason: CustomerReason,
}

fn cancel_reasons() -> Schema {
    optional_code(CustomerReason::ALL, CustomerReason::as_str)
}

impl Body for Cancellation {
    fn read(body: &Object<'_>) -> Option<Self> {
        let reason =
            body.field("reason").optional(|field: Field<'_>| field.code(CustomerReason::ALL, CustomerReason::as_str));
        Some(Self { reason: reason?.unwrap_or(CustomerReason::Other) })
    }
}

/// Which orders a list shows.
#[derive(Debug)]
pub(crate) struct WantedOrders {
    pub(crate) status: Option<Status>,
    pub(crate) page: Page<OrderId>,
}

impl Query for WantedOrders {
    fn read(params: &Params) -> Option<Self> {
        let status = params.optional("status", |text| {
            Status::parse(text).ok_or("must be PLACED, CONFIRMED, CANCELLED, EXPIRED or REJECTED")
        });
        let page = params.page();
        Some(Self { status: status?, page: page? })
    }
}
