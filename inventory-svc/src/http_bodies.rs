//! The bodies of [`crate::http`]: what clients send, and what they are shown.
//!
//! Shapes and their limits only; whether a command is right is decided in [`crate::domain`].

use edge::fields::{Body, Field, Object};
use edge::openapi::code;
use events::code::AdjustReason;
use events::id::ProductId;
use events::money::{Currency, Money};
use serde::Serialize;

use crate::products::{NAME_CHARS_MAX, QUANTITY_MAX};
use crate::state::{Listing, Product};

/// A command that was taken and is not decided yet: what every 202 says.
#[derive(Debug, utoipa::ToSchema)]
#[expect(dead_code, reason = "the shape of a 202, for the OpenAPI document")]
pub(crate) struct Accepted {
    #[schema(pattern = "^[1-9][0-9]{0,18}$", format = Int64)]
    product_id: String,
    /// Always ACCEPTED.
    #[schema(pattern = "^ACCEPTED$")]
    status: String,
}

/// A price, as JSON.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PriceView {
    /// Minor units, at least 1.
    #[schema(minimum = 1, maximum = 9_223_372_036_854_775_807_i64)]
    amount: i64,
    /// ISO 4217.
    #[schema(value_type = String, pattern = "^[A-Z]{3}$", example = "USD")]
    currency: Currency,
}

/// A product of the catalogue.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ProductView {
    #[schema(value_type = String)]
    pub(crate) product_id: ProductId,
    name: String,
    price: PriceView,
    /// False when it can no longer be ordered.
    listed: bool,
}

impl ProductView {
    /// `None` of a product that was never listed.
    pub(crate) fn of(product_id: ProductId, product: &Product) -> Option<Self> {
        let (facts, listed) = match &product.listing {
            Listing::Never => return None,
            Listing::Listed(facts) => (facts, true),
            Listing::Delisted(facts) => (facts, false),
        };
        let price = PriceView { amount: facts.price.amount, currency: facts.price.currency };
        Some(Self { product_id, name: facts.name.clone(), price, listed })
    }
}

/// How much of a product there is.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct StockView {
    #[schema(value_type = String)]
    product_id: ProductId,
    /// In the house.
    on_hand: i64,
    /// Of these, set aside for orders.
    reserved: i64,
    /// Left the house with confirmed orders.
    sold: i64,
    /// On hand and not reserved.
    available: i64,
}

impl StockView {
    pub(crate) fn of(product_id: ProductId, product: &Product) -> Self {
        let stock = product.stock;
        Self {
            product_id,
            on_hand: stock.on_hand,
            reserved: stock.reserved,
            sold: stock.sold,
            available: stock.on_hand - stock.reserved,
        }
    }
}

/// A product to list.
#[derive(Debug, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WantedProduct {
    /// Yours when you import; one is made otherwise.
    #[schema(value_type = Option<String>, pattern = "^[1-9][0-9]{0,18}$", format = Int64)]
    pub(crate) product_id: Option<ProductId>,
    /// 1 to 200 characters, none of them a control character.
    #[schema(pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$", min_length = 1, max_length = 200)]
    pub(crate) name: String,
    #[schema(value_type = PriceView)]
    pub(crate) price: Money,
}

impl Body for WantedProduct {
    fn read(body: &Object<'_>) -> Option<Self> {
        let product_id = body.field("product_id").optional(Field::parsed);
        let name = body.field("name").text(1, NAME_CHARS_MAX);
        let price = body.field("price").object(price);
        if name.as_ref().is_some_and(|name| name.chars().any(char::is_control)) {
            body.error("/name", "must not contain control characters");
            return None;
        }
        Some(Self { product_id: product_id?, name: name?, price: price? })
    }
}

fn price(body: &Object<'_>) -> Option<Money> {
    let amount = body.field("amount").integer(1, i64::MAX);
    let currency = body.field("currency").parsed_as(Currency::parse, "must be an ISO 4217 code such as USD");
    Some(Money::new(amount?, currency?))
}

/// A new price.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Price(pub(crate) Money);

impl Body for Price {
    fn read(body: &Object<'_>) -> Option<Self> {
        price(body).map(Self)
    }
}

/// Goods that arrived.
#[derive(Debug, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Receipt {
    /// 1 to 1,000,000,000.
    #[schema(minimum = 1, maximum = 1_000_000_000)]
    pub(crate) quantity: i64,
}

impl Body for Receipt {
    fn read(body: &Object<'_>) -> Option<Self> {
        Some(Self { quantity: body.field("quantity").integer(1, QUANTITY_MAX)? })
    }
}

/// A correction of the stock.
#[derive(Debug, Clone, Copy, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Adjustment {
    /// Found (positive) or missing (negative), never 0.
    #[schema(minimum = -1_000_000_000, maximum = 1_000_000_000)]
    pub(crate) delta: i64,
    /// DAMAGED, LOST, FOUND, RECOUNT or OTHER.
    #[schema(schema_with = adjust_reasons)]
    pub(crate) reason: AdjustReason,
}

fn adjust_reasons() -> utoipa::openapi::Object {
    code(AdjustReason::ALL, AdjustReason::as_str)
}

impl Body for Adjustment {
    fn read(body: &Object<'_>) -> Option<Self> {
        let delta = body.field("delta").integer(-QUANTITY_MAX, QUANTITY_MAX);
        let reason = body.field("reason").code(AdjustReason::ALL, AdjustReason::as_str);
        if delta == Some(0) {
            body.error("/delta", "must not be 0");
            return None;
        }
        Some(Self { delta: delta?, reason: reason? })
    }
}
