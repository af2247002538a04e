//! The rules of a product: how it is listed, priced, received and counted.
//!
//! Pure, a part of [`crate::domain`]. Reservations are not made here, but nothing here takes away what is reserved.

use events::inventory::{
    AdjustStock, DelistProduct, InventoryCommand, InventoryEvent, ListProduct, ProductDelisted, ProductListed,
    ProductRepriced, ReceiveStock, RepriceProduct, StockAdjusted, StockReceived,
};
use events::money::Money;
use events::record::CommandRef;

use crate::domain::Refusal;
use crate::state::{Facts, Listing, State};

/// A product's name has at least one character and at most this many, none of them a control character.
pub const NAME_CHARS_MAX: usize = 200;
/// At most this many pieces arrive at once.
pub const QUANTITY_MAX: i64 = 1_000_000_000;
/// What was ever received of a product, and what was ever found or missing, stays within this many pieces. So no sum
/// leaves 64 bits, in whatever order partitions are folded.
pub const PIECES_MAX: i64 = 1_000_000_000_000_000;

/// Judges an operator's command.
///
/// # Errors
/// [`Refusal`]: nothing changes.
pub(crate) fn decide(state: &State, command: &InventoryCommand) -> Result<InventoryEvent, Refusal> {
    match command {
        // Happy path
        InventoryCommand::ListProduct(command) => list(state, command),
        InventoryCommand::RepriceProduct(command) => reprice(state, command),
        InventoryCommand::ReceiveStock(command) => receive(state, command),
        // Compensation
        InventoryCommand::DelistProduct(command) => delist(state, command),
        InventoryCommand::AdjustStock(command) => adjust(state, command),
    }
}

fn list(state: &State, command: &ListProduct) -> Result<InventoryEvent, Refusal> {
    if !is_name(&command.name) {
        return Err(Refusal::InvalidName);
    }
    check_price(command.price)?;
    match state.listing(command.product_id) {
        Listing::Listed(facts) if facts.name == command.name && facts.price == command.price => {
            return Err(Refusal::NoChange);
        }
        Listing::Listed(_) => return Err(Refusal::AlreadyListed),
        Listing::Never | Listing::Delisted(_) => {}
    }
    let ListProduct { product_id, name, price, command_id, caller, key_hash, fingerprint } = command.clone();
    let listed = ProductListed { product_id, name, price, command_id, caller, key_hash, fingerprint };
    Ok(InventoryEvent::from(listed))
}

/// Another currency is as good as another amount: placed orders keep the price they were placed at.
fn reprice(state: &State, command: &RepriceProduct) -> Result<InventoryEvent, Refusal> {
    check_price(command.price)?;
    match state.listing(command.product_id) {
        Listing::Never => return Err(Refusal::UnknownProduct),
        Listing::Delisted(_) => return Err(Refusal::NotListed),
        Listing::Listed(facts) if facts.price == command.price => return Err(Refusal::NoChange),
        Listing::Listed(_) => {}
    }
    let RepriceProduct { product_id, price, command_id, caller, key_hash, fingerprint } = command.clone();
    let repriced = ProductRepriced { product_id, price, command_id, caller, key_hash, fingerprint };
    Ok(InventoryEvent::from(repriced))
}

fn delist(state: &State, command: &DelistProduct) -> Result<InventoryEvent, Refusal> {
    match state.listing(command.product_id) {
        Listing::Never => return Err(Refusal::UnknownProduct),
        Listing::Delisted(_) => return Err(Refusal::NoChange),
        Listing::Listed(_) => {}
    }
    let DelistProduct { product_id, command_id, caller, key_hash, fingerprint } = command.clone();
    let delisted = ProductDelisted { product_id, command_id, caller, key_hash, fingerprint };
    Ok(InventoryEvent::from(delisted))
}

/// A delisted product may still come in: what was ordered from the supplier arrives all the same.
fn receive(state: &State, command: &ReceiveStock) -> Result<InventoryEvent, Refusal> {
    if *state.listing(command.product_id) == Listing::Never {
        return Err(Refusal::UnknownProduct);
    }
    if !(1..=QUANTITY_MAX).contains(&command.quantity) {
        return Err(Refusal::InvalidQuantity);
    }
    if state.stock(command.product_id).received + command.quantity > PIECES_MAX {
        return Err(Refusal::TooManyPieces);
    }
    let ReceiveStock { product_id, quantity, command_id, caller, key_hash, fingerprint } = command.clone();
    let received = StockReceived { product_id, quantity, command_id, caller, key_hash, fingerprint };
    Ok(InventoryEvent::from(received))
}

fn adjust(state: &State, command: &AdjustStock) -> Result<InventoryEvent, Refusal> {
    if *state.listing(command.product_id) == Listing::Never {
        return Err(Refusal::UnknownProduct);
    }
    if command.delta == 0 {
        return Err(Refusal::InvalidDelta);
    }
    let stock = state.stock(command.product_id);
    let adjusted = stock.adjusted.checked_add(command.delta);
    if !adjusted.is_some_and(|sum| (-PIECES_MAX..=PIECES_MAX).contains(&sum)) {
        return Err(Refusal::TooManyPieces);
    }
    if stock.available() + command.delta < 0 {
        return Err(Refusal::BelowReserved);
    }
    let AdjustStock { product_id, delta, reason, command_id, caller, key_hash, fingerprint } = command.clone();
    let adjusted = StockAdjusted { product_id, delta, reason, command_id, caller, key_hash, fingerprint };
    Ok(InventoryEvent::from(adjusted))
}

/// One step of the fold for an event about a product; others change nothing here.
pub(crate) fn evolve(state: &mut State, event: &InventoryEvent) {
    match event {
        // Happy path
        InventoryEvent::ProductListed(event) => {
            let facts = Facts { name: event.name.clone(), price: event.price };
            state.products.entry(event.product_id).or_default().listing = Listing::Listed(facts);
        }
        InventoryEvent::ProductRepriced(event) => {
            let product = state.products.entry(event.product_id).or_default();
            if let Listing::Listed(facts) = &mut product.listing {
                facts.price = event.price;
            }
        }
        InventoryEvent::StockReceived(event) => {
            let stock = &mut state.products.entry(event.product_id).or_default().stock;
            stock.on_hand += event.quantity;
            stock.received += event.quantity;
        }
        // Compensation
        InventoryEvent::ProductDelisted(event) => {
            let product = state.products.entry(event.product_id).or_default();
            if let Listing::Listed(facts) = &product.listing {
                product.listing = Listing::Delisted(facts.clone());
            }
        }
        InventoryEvent::StockAdjusted(event) => {
            let stock = &mut state.products.entry(event.product_id).or_default().stock;
            stock.on_hand += event.delta;
            stock.adjusted += event.delta;
        }
        InventoryEvent::StockReserved(_)
        | InventoryEvent::StockRejected(_)
        | InventoryEvent::StockReleased(_)
        | InventoryEvent::StockSold(_)
        | InventoryEvent::CommandRefused(_) => {}
    }
}

fn check_price(price: Money) -> Result<(), Refusal> {
    if price.amount < 1 { Err(Refusal::InvalidPrice) } else { Ok(()) }
}

/// True for what a product may be called.
#[must_use]
pub fn is_name(text: &str) -> bool {
    (1..=NAME_CHARS_MAX).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

/// Who asked for it.
#[must_use]
pub fn command_ref(command: &InventoryCommand) -> CommandRef {
    match command {
        InventoryCommand::ListProduct(command) => command.command_ref(),
        InventoryCommand::RepriceProduct(command) => command.command_ref(),
        InventoryCommand::DelistProduct(command) => command.command_ref(),
        InventoryCommand::ReceiveStock(command) => command.command_ref(),
        InventoryCommand::AdjustStock(command) => command.command_ref(),
    }
}
