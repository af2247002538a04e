//! The rules of the warehouse: what can be listed, received, set aside, sold and released. Read this first.
//!
//! Pure: nothing is stored, sent or looked up here. The shape of the warehouse is in [`crate::state`], the operators'
//! commands in [`crate::products`]. Whether an order may be, and what it costs, is order-svc's decision.

use events::id::OrderId;
use events::inventory::{
    CommandRefused, InventoryCommand, InventoryEvent, StockRejected, StockReleased, StockReserved, StockSold,
};
use events::order::{OrderEvent, OrderPlaced, PricedLine};
use events::record::{CommandRef, Recorded};

use crate::products;
pub use crate::state::{Facts, Listing, Product, Reservation, State, Stock};

/// What can happen in the warehouse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// An order waits for its stock.
    OrderPlaced(OrderPlaced),
    /// An order is paid.
    OrderConfirmed(OrderId),
    /// An order was cancelled or expired.
    OrderGivenUp(OrderId),
    /// An operator's command about a product.
    Command(InventoryCommand),
}

/// Why a command is refused, or why a record cannot be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It was never listed.
    #[error("there is no such product")]
    UnknownProduct,
    /// It is listed with another name or price.
    #[error("the product is listed already, with another name or price")]
    AlreadyListed,
    /// It is not in the catalogue now.
    #[error("the product is not listed")]
    NotListed,
    /// Everything is as asked for already.
    #[error("nothing would change")]
    NoChange,
    /// No name, too long a name, or one with control characters.
    #[error("the name must have 1 to {} characters, none of them a control character", products::NAME_CHARS_MAX)]
    InvalidName,
    /// A price below 1.
    #[error("the price must be at least 1")]
    InvalidPrice,
    /// No piece, or too many at once.
    #[error("the quantity must be 1 to {}", products::QUANTITY_MAX)]
    InvalidQuantity,
    /// An adjustment by nothing.
    #[error("the delta must not be 0")]
    InvalidDelta,
    /// Fewer pieces would be left than are set aside for orders.
    #[error("fewer pieces would be left than are reserved")]
    BelowReserved,
    /// A sum would pass [`products::PIECES_MAX`].
    #[error("more than {} pieces cannot be counted", products::PIECES_MAX)]
    TooManyPieces,
    /// An end of an order for which nothing is set aside.
    #[error("nothing is reserved for the order")]
    NotReserved,
    /// An order that was sold was given up.
    #[error("the order is sold")]
    AlreadySold,
}

impl Refusal {
    /// The reason as `CommandRefused` and problems write it.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::UnknownProduct => "UNKNOWN_PRODUCT",
            Self::AlreadyListed => "ALREADY_LISTED",
            Self::NotListed => "NOT_LISTED",
            Self::NoChange => "NO_CHANGE",
            Self::InvalidName => "INVALID_NAME",
            Self::InvalidPrice => "INVALID_PRICE",
            Self::InvalidQuantity => "INVALID_QUANTITY",
            Self::InvalidDelta => "INVALID_DELTA",
            Self::BelowReserved => "BELOW_RESERVED",
            Self::TooManyPieces => "TOO_MANY_PIECES",
            Self::NotReserved => "NOT_RESERVED",
            Self::AlreadySold => "ALREADY_SOLD",
        }
    }
}

/// Judges one input, under the lock of the products it touches. A refused command is an event too: see [`judge`].
///
/// # Errors
/// [`Refusal`] of a command; of anything else it means that the record cannot be right.
pub fn decide(state: &State, input: &Input) -> Result<Option<InventoryEvent>, Refusal> {
    match input {
        // Happy path
        Input::Command(command) => products::decide(state, command).map(Some),
        Input::OrderPlaced(order) => Ok(reserve(state, order)),
        Input::OrderConfirmed(order_id) => match state.reservation(*order_id) {
            Reservation::Reserved { customer_id, lines } => Ok(Some(sold(*order_id, customer_id, lines))),
            Reservation::Sold => Ok(None),
            Reservation::None | Reservation::Rejected | Reservation::Released => Err(Refusal::NotReserved),
        },
        // Compensation
        Input::OrderGivenUp(order_id) => match state.reservation(*order_id) {
            Reservation::Reserved { customer_id, lines } => Ok(Some(released(*order_id, customer_id, lines))),
            Reservation::Rejected | Reservation::Released => Ok(None),
            // order.events tells of an order before it tells of its end.
            Reservation::None => Err(Refusal::NotReserved),
            Reservation::Sold => Err(Refusal::AlreadySold),
        },
    }
}

/// [`decide`], with a refused command turned into the event that says so. The one place where that happens.
///
/// # Errors
/// [`Refusal`] of an input that is no command.
pub fn judge(state: &State, input: &Input) -> Result<Option<InventoryEvent>, Refusal> {
    match decide(state, input) {
        Err(refusal) => refused(input, refusal.code()).map(Some).ok_or(refusal),
        decision => decision,
    }
}

/// The event that refuses a command; `None` for an input that is none.
#[must_use]
pub fn refused(input: &Input, reason: &str) -> Option<InventoryEvent> {
    let Input::Command(command) = input else { return None };
    let CommandRef { command_id, caller, key_hash, fingerprint } = products::command_ref(command);
    Some(InventoryEvent::from(CommandRefused {
        product_id: command.product_id(),
        command_type: command.short_name().to_owned(),
        reason: reason.to_owned(),
        command_id,
        caller,
        key_hash,
        fingerprint,
    }))
}

/// One step of the fold. Stock is only added to, so that events of different keys may be folded in any order; an
/// event that cannot follow in its own key leaves the listing as it is: `decide` makes none.
#[must_use]
pub fn evolve(mut state: State, event: &Recorded<InventoryEvent>) -> State {
    match &event.event {
        // Happy path
        InventoryEvent::ProductListed(_)
        | InventoryEvent::ProductRepriced(_)
        | InventoryEvent::ProductDelisted(_)
        | InventoryEvent::StockReceived(_)
        | InventoryEvent::StockAdjusted(_) => products::evolve(&mut state, &event.event),
        InventoryEvent::StockReserved(event) => {
            let (customer_id, lines) = (event.customer_id.clone(), event.lines.clone());
            add(&mut state, &event.lines, |stock, quantity| stock.reserved += quantity);
            state.reservations.insert(event.order_id, Reservation::Reserved { customer_id, lines });
        }
        InventoryEvent::StockSold(event) => {
            add(&mut state, &event.lines, |stock, quantity| {
                stock.reserved -= quantity;
                stock.on_hand -= quantity;
                stock.sold += quantity;
            });
            state.reservations.insert(event.order_id, Reservation::Sold);
        }
        // Compensation
        InventoryEvent::StockRejected(event) => {
            state.reservations.insert(event.order_id, Reservation::Rejected);
        }
        InventoryEvent::StockReleased(event) => {
            add(&mut state, &event.lines, |stock, quantity| stock.reserved -= quantity);
            state.reservations.insert(event.order_id, Reservation::Released);
        }
        // A refusal is remembered with its command, not in the product.
        InventoryEvent::CommandRefused(_) => {}
    }
    state
}

fn add(state: &mut State, lines: &[PricedLine], change: impl Fn(&mut Stock, i64)) {
    for line in lines {
        change(&mut state.products.entry(line.product_id).or_default().stock, line.quantity);
    }
}

/// All lines or none. An order that was heard of before is a repeat.
fn reserve(state: &State, order: &OrderPlaced) -> Option<InventoryEvent> {
    if *state.reservation(order.order_id) != Reservation::None {
        return None;
    }
    let is_short = |line: &&PricedLine| state.stock(line.product_id).available() < line.quantity;
    let short: Vec<_> = order.lines.iter().filter(is_short).map(|line| line.product_id).collect();
    let OrderPlaced { order_id, customer_id, lines, total, pay_by, payment_method, .. } = order.clone();
    Some(if short.is_empty() {
        let reserved = StockReserved { order_id, customer_id, lines, total, pay_by, payment_method };
        InventoryEvent::from(reserved)
    } else {
        InventoryEvent::from(StockRejected { order_id, customer_id, lines, total, short })
    })
}

fn sold(order_id: OrderId, customer_id: &str, lines: &[PricedLine]) -> InventoryEvent {
    let (customer_id, lines) = (customer_id.to_owned(), lines.to_vec());
    InventoryEvent::from(StockSold { order_id, customer_id, lines })
}

fn released(order_id: OrderId, customer_id: &str, lines: &[PricedLine]) -> InventoryEvent {
    let (customer_id, lines) = (customer_id.to_owned(), lines.to_vec());
    InventoryEvent::from(StockReleased { order_id, customer_id, lines })
}

impl Input {
    /// What order-svc's event means here; `None` for one that never concerns the stock.
    #[must_use]
    pub fn from_order(event: OrderEvent) -> Option<Self> {
        match event {
            OrderEvent::OrderPlaced(event) => Some(Self::OrderPlaced(event)),
            OrderEvent::OrderConfirmed(event) => Some(Self::OrderConfirmed(event.order_id)),
            OrderEvent::OrderCancelled(event) => Some(Self::OrderGivenUp(event.order_id)),
            OrderEvent::OrderExpired(event) => Some(Self::OrderGivenUp(event.order_id)),
            OrderEvent::OrderRejected(_) | OrderEvent::CommandRefused(_) => None,
        }
    }

    /// The order it is about, if it is about one.
    #[must_use]
    pub fn order_id(&self) -> Option<OrderId> {
        match self {
            Self::OrderPlaced(order) => Some(order.order_id),
            Self::OrderConfirmed(order_id) | Self::OrderGivenUp(order_id) => Some(*order_id),
            Self::Command(_) => None,
        }
    }
}
