//! The rules of an order: what may follow what. Read this first.
//!
//! Pure: prices, times and IDs arrive in the input; nothing is stored, sent or looked up here. The shape of an order
//! is in [`crate::state`], what its lines cost in [`crate::catalogue`].

use std::collections::BTreeMap;

use events::code::{CancelReason, RejectReason};
use events::id::{OrderId, ProductId};
use events::inventory::InventoryEvent;
use events::money::Money;
use events::order::{
    CancelOrder, CommandRefused, OrderCancelled, OrderConfirmed, OrderEvent, OrderExpired, OrderPlaced, OrderRejected,
    PlaceOrder,
};
use events::payment::PaymentEvent;
use events::record::{CommandRef, Recorded};
use events::time::Timestamp;

use crate::catalogue::quote;
pub use crate::refusal::Refusal;
pub use crate::state::{Order, Rejected, State, Status, Timer};

/// A token of the gateway has at most this many characters, all of them visible ASCII.
pub const PAYMENT_METHOD_CHARS_MAX: usize = 64;
/// A customer's ID has at most this many characters.
pub const CUSTOMER_ID_CHARS_MAX: usize = 64;

/// What can happen to an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A customer orders.
    Place {
        /// What they ask for.
        command: PlaceOrder,
        /// The catalogue's prices of the products asked for; one that cannot be ordered is missing.
        prices: BTreeMap<ProductId, Money>,
        /// The order will expire then.
        pay_by: Timestamp,
    },
    /// A customer, or an operator for them, cancels.
    Cancel(CancelOrder),
    /// The money is here.
    PaymentCaptured(OrderId),
    /// This payer cannot pay.
    PaymentDeclined(OrderId),
    /// The gateway will never take this request.
    PaymentFailed(OrderId),
    /// Not all lines could be reserved.
    StockRejected(OrderId),
    /// The timer is due.
    PayByPassed(OrderId),
}

/// Judges one input. A refused command is an event too: see [`judge`].
///
/// # Errors
/// [`Refusal`] of a command; of anything else it means that the record cannot be right.
pub fn decide(state: &State, input: &Input) -> Result<Option<OrderEvent>, Refusal> {
    match input {
        // Happy path
        Input::Place { command, prices, pay_by } => place(state, command, prices, *pay_by).map(Some),
        Input::PaymentCaptured(_) => Ok(open(state)?.map(confirmed)),
        // Compensation
        Input::StockRejected(_) => give_up(state, CancelReason::OutOfStock),
        Input::PaymentDeclined(_) => give_up(state, CancelReason::PaymentDeclined),
        Input::PaymentFailed(_) => give_up(state, CancelReason::PaymentFailed),
        Input::Cancel(command) => cancel(state, command).map(Some),
        Input::PayByPassed(_) => Ok(open(state)?.map(expired)),
    }
}

/// [`decide`], with a refused command turned into the event that says so. The one place where that happens.
///
/// # Errors
/// [`Refusal`] of an input that is no command.
pub fn judge(state: &State, input: &Input) -> Result<Option<OrderEvent>, Refusal> {
    match decide(state, input) {
        Err(refusal) => refused(input, refusal.code()).map(Some).ok_or(refusal),
        decision => decision,
    }
}

/// The event that refuses a command; `None` for an input that is none.
#[must_use]
pub fn refused(input: &Input, reason: &str) -> Option<OrderEvent> {
    let (command_type, command) = input.command()?;
    Some(refusal(input.order_id(), command_type, command, reason))
}

/// The event that gives a PlaceOrder up: its order never came to be, unless another command has placed it.
#[must_use]
pub fn given_up(state: &State, command: &PlaceOrder, reason: &str, operator: &str) -> OrderEvent {
    match state {
        State::Unknown => rejected(command, RejectReason::Discarded, Some(operator.to_owned())),
        _ => refusal(command.order_id, "PlaceOrder", command.command_ref(), reason),
    }
}

fn refusal(order_id: OrderId, command_type: &str, command: CommandRef, reason: &str) -> OrderEvent {
    let CommandRef { command_id, caller, key_hash, fingerprint } = command;
    OrderEvent::from(CommandRefused {
        order_id,
        command_type: command_type.to_owned(),
        reason: reason.to_owned(),
        command_id,
        caller,
        key_hash,
        fingerprint,
    })
}

/// One step of the fold. An event that cannot follow leaves the state as it is: `decide` makes none.
#[must_use]
pub fn evolve(state: State, event: &Recorded<OrderEvent>) -> State {
    match (&event.event, state) {
        // Happy path
        (OrderEvent::OrderPlaced(placed), State::Unknown) => State::Placed {
            order: Order {
                order_id: placed.order_id,
                customer_id: placed.customer_id.clone(),
                lines: placed.lines.clone(),
                total: placed.total,
                pay_by: placed.pay_by,
                version: placed.version,
                placed_at: event.at,
                updated_at: event.at,
                last_sequence: event.sequence,
            },
            timer: Timer { due_at: placed.pay_by, set_by: event.mark() },
        },
        (OrderEvent::OrderConfirmed(confirmed), State::Placed { order, .. }) => {
            State::Confirmed(moved(order, confirmed.version, event))
        }
        // Compensation
        (OrderEvent::OrderRejected(rejected), State::Unknown) => State::Rejected(Rejected {
            order_id: rejected.order_id,
            customer_id: rejected.customer_id.clone(),
            lines: rejected.lines.clone(),
            reason: rejected.reason,
            version: rejected.version,
            rejected_at: event.at,
            last_sequence: event.sequence,
        }),
        (OrderEvent::OrderCancelled(cancelled), State::Placed { order, .. }) => State::Cancelled {
            order: moved(order, cancelled.version, event),
            reason: cancelled.reason,
            customer_reason: cancelled.customer_reason,
        },
        (OrderEvent::OrderExpired(expired), State::Placed { order, .. }) => {
            State::Expired(moved(order, expired.version, event))
        }
        // A refusal is remembered with its command, not in the order.
        (OrderEvent::CommandRefused(_), state) => state,
        (
            OrderEvent::OrderPlaced(_)
            | OrderEvent::OrderRejected(_)
            | OrderEvent::OrderConfirmed(_)
            | OrderEvent::OrderCancelled(_)
            | OrderEvent::OrderExpired(_),
            state,
        ) => state,
    }
}

fn moved(order: Order, version: i64, event: &Recorded<OrderEvent>) -> Order {
    Order { version, updated_at: event.at, last_sequence: event.sequence, ..order }
}

/// The order while it is open, `None` once it is final: what comes then is a repeat or too late.
///
/// Nobody speaks of an order before this service did, so an unknown one is a record that cannot be right.
fn open(state: &State) -> Result<Option<&Order>, Refusal> {
    match state {
        State::Placed { order, .. } => Ok(Some(order)),
        State::Confirmed(_) | State::Cancelled { .. } | State::Expired(_) => Ok(None),
        State::Unknown | State::Rejected(_) => Err(Refusal::UnknownOrder),
    }
}

fn place(
    state: &State,
    command: &PlaceOrder,
    prices: &BTreeMap<ProductId, Money>,
    pay_by: Timestamp,
) -> Result<OrderEvent, Refusal> {
    if *state != State::Unknown {
        return Err(Refusal::OrderExists);
    }
    let (lines, total) = match quote(&command.lines, prices, command.expected_total) {
        Ok(quoted) => quoted,
        Err(reason) => return Ok(rejected(command, reason, None)),
    };
    let PlaceOrder { order_id, customer_id, payment_method, .. } = command.clone();
    let CommandRef { command_id, caller, key_hash, fingerprint } = command.command_ref();
    Ok(OrderEvent::from(OrderPlaced {
        order_id,
        version: 1,
        customer_id,
        lines,
        total,
        payment_method,
        pay_by,
        command_id,
        caller,
        key_hash,
        fingerprint,
    }))
}

fn rejected(command: &PlaceOrder, reason: RejectReason, discarded_by: Option<String>) -> OrderEvent {
    let PlaceOrder { order_id, customer_id, lines, payment_method, .. } = command.clone();
    let CommandRef { command_id, caller, key_hash, fingerprint } = command.command_ref();
    OrderEvent::from(OrderRejected {
        order_id,
        version: 1,
        customer_id,
        lines,
        payment_method,
        reason,
        command_id,
        caller,
        key_hash,
        fingerprint,
        discarded_by,
    })
}

fn give_up(state: &State, reason: CancelReason) -> Result<Option<OrderEvent>, Refusal> {
    Ok(open(state)?.map(|order| cancelled(order, reason, None)))
}

/// The version is checked first: who looked at another one learns that, whatever the status is by now.
fn cancel(state: &State, command: &CancelOrder) -> Result<OrderEvent, Refusal> {
    let current = state.version().ok_or(Refusal::UnknownOrder)?;
    if let Some(expected) = command.expected_version.filter(|expected| *expected != current) {
        return Err(Refusal::VersionMismatch { expected, current });
    }
    match state {
        State::Unknown => Err(Refusal::UnknownOrder),
        State::Placed { order, .. } => Ok(cancelled(order, CancelReason::Customer, Some(command))),
        State::Confirmed(_) => Err(Refusal::OrderNotPlaced(Status::Confirmed)),
        State::Cancelled { .. } => Err(Refusal::OrderNotPlaced(Status::Cancelled)),
        State::Expired(_) => Err(Refusal::OrderNotPlaced(Status::Expired)),
        State::Rejected(_) => Err(Refusal::OrderNotPlaced(Status::Rejected)),
    }
}

fn confirmed(order: &Order) -> OrderEvent {
    let Order { order_id, customer_id, lines, total, version, .. } = order.clone();
    OrderEvent::from(OrderConfirmed { order_id, version: version + 1, customer_id, lines, total })
}

fn cancelled(order: &Order, reason: CancelReason, command: Option<&CancelOrder>) -> OrderEvent {
    let Order { order_id, customer_id, lines, total, version, .. } = order.clone();
    OrderEvent::from(OrderCancelled {
        order_id,
        version: version + 1,
        customer_id,
        lines,
        total,
        reason,
        customer_reason: command.map(|command| command.reason),
        command_id: command.map(|command| command.command_id),
        caller: command.and_then(|command| command.caller.clone()),
        key_hash: command.and_then(|command| command.key_hash.clone()),
        fingerprint: command.and_then(|command| command.fingerprint.clone()),
    })
}

fn expired(order: &Order) -> OrderEvent {
    let Order { order_id, customer_id, lines, total, version, pay_by, .. } = order.clone();
    let version = version + 1;
    OrderEvent::from(OrderExpired { order_id, version, customer_id, lines, total, pay_by })
}

/// What makes a PlaceOrder no order at all, not even one that could be rejected: its texts go into rows, headers and
/// calls of all services as they are. `None` when there is nothing.
#[must_use]
pub fn flaw(command: &PlaceOrder) -> Option<&'static str> {
    if !is_customer_id(&command.customer_id) {
        return Some("customer_id must be 1 to 64 of A-Z a-z 0-9 _ - .");
    }
    (!is_payment_method(&command.payment_method)).then_some("payment_method must be 1 to 64 visible ASCII characters")
}

/// True for what a token's `sub` may be.
#[must_use]
pub fn is_customer_id(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    (1..=CUSTOMER_ID_CHARS_MAX).contains(&text.len()) && text.bytes().all(allowed)
}

/// True for what a gateway's token may be.
#[must_use]
pub fn is_payment_method(text: &str) -> bool {
    (1..=PAYMENT_METHOD_CHARS_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

impl Input {
    /// The order it is about.
    #[must_use]
    pub fn order_id(&self) -> OrderId {
        match self {
            Self::Place { command, .. } => command.order_id,
            Self::Cancel(command) => command.order_id,
            Self::PaymentCaptured(order_id)
            | Self::PaymentDeclined(order_id)
            | Self::PaymentFailed(order_id)
            | Self::StockRejected(order_id)
            | Self::PayByPassed(order_id) => *order_id,
        }
    }

    fn command(&self) -> Option<(&'static str, CommandRef)> {
        match self {
            Self::Place { command, .. } => Some(("PlaceOrder", command.command_ref())),
            Self::Cancel(command) => Some(("CancelOrder", command.command_ref())),
            Self::PaymentCaptured(_)
            | Self::PaymentDeclined(_)
            | Self::PaymentFailed(_)
            | Self::StockRejected(_)
            | Self::PayByPassed(_) => None,
        }
    }

    /// What inventory-svc's event means here; `None` for one that changes no order in any status.
    #[must_use]
    pub fn from_inventory(event: &InventoryEvent) -> Option<Self> {
        match event {
            InventoryEvent::StockRejected(event) => Some(Self::StockRejected(event.order_id)),
            InventoryEvent::StockReserved(_)
            | InventoryEvent::StockReleased(_)
            | InventoryEvent::StockSold(_)
            | InventoryEvent::ProductListed(_)
            | InventoryEvent::ProductRepriced(_)
            | InventoryEvent::ProductDelisted(_)
            | InventoryEvent::StockReceived(_)
            | InventoryEvent::StockAdjusted(_)
            | InventoryEvent::CommandRefused(_) => None,
        }
    }

    /// What payment-svc's event means here; `None` for one that changes no order in any status.
    #[must_use]
    pub fn from_payment(event: &PaymentEvent) -> Option<Self> {
        match event {
            // Money that goes back confirms nothing: the order is final, or about to expire.
            PaymentEvent::PaymentCaptured(event) => {
                (!event.refund_due).then_some(Self::PaymentCaptured(event.order_id))
            }
            PaymentEvent::PaymentDeclined(event) => Some(Self::PaymentDeclined(event.order_id)),
            PaymentEvent::PaymentFailed(event) => Some(Self::PaymentFailed(event.order_id)),
            PaymentEvent::PaymentRequested(_)
            | PaymentEvent::PaymentCancelRequested(_)
            | PaymentEvent::PaymentCancelled(_)
            | PaymentEvent::RefundRequested(_)
            | PaymentEvent::PaymentRefunded(_)
            | PaymentEvent::RefundFailed(_)
            | PaymentEvent::CommandRefused(_) => None,
        }
    }
}
