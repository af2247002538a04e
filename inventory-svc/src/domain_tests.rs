//! The rules of the warehouse by example: given events, when an input comes, then an event or a refusal.
//!
//! Rules that hold for all sequences of inputs are in `domain_properties`.

use events::code::AdjustReason;
use events::id::{CommandId, EventId, OrderId, ProductId};
use events::inventory::{
    AdjustStock, CommandRefused, DelistProduct, InventoryCommand, InventoryEvent, ListProduct, ReceiveStock,
    RepriceProduct, StockRejected, StockReleased, StockReserved, StockSold,
};
use events::money::{Currency, Money};
use events::order::{OrderPlaced, PricedLine};
use events::record::{CommandRef, Recorded};
use events::time::Timestamp;

use crate::domain::{Facts, Input, Listing, Refusal, Reservation, State, Stock, decide, evolve, judge};
use crate::products::{PIECES_MAX, QUANTITY_MAX};

const APPLE: ProductId = ProductId(1);
const PEAR: ProductId = ProductId(2);
const ORDER: OrderId = OrderId(1);

fn usd(amount: i64) -> Money {
    Money::new(amount, Currency::USD)
}

fn from(command: i64) -> CommandRef {
    let some = |text: &str| Some(text.to_owned());
    CommandRef { command_id: CommandId(command), caller: some("op"), key_hash: some("aa"), fingerprint: some("bb") }
}

pub(crate) fn list(product_id: ProductId, name: &str, price: Money) -> Input {
    let CommandRef { command_id, caller, key_hash, fingerprint } = from(1);
    let name = name.to_owned();
    let command = ListProduct { product_id, name, price, command_id, caller, key_hash, fingerprint };
    Input::Command(InventoryCommand::from(command))
}

pub(crate) fn reprice(product_id: ProductId, price: Money) -> Input {
    let CommandRef { command_id, caller, key_hash, fingerprint } = from(2);
    let command = RepriceProduct { product_id, price, command_id, caller, key_hash, fingerprint };
    Input::Command(InventoryCommand::from(command))
}

pub(crate) fn delist(product_id: ProductId) -> Input {
    let CommandRef { command_id, caller, key_hash, fingerprint } = from(3);
    let command = DelistProduct { product_id, command_id, caller, key_hash, fingerprint };
    Input::Command(InventoryCommand::from(command))
}

pub(crate) fn receive(product_id: ProductId, quantity: i64) -> Input {
    let CommandRef { command_id, caller, key_hash, fingerprint } = from(4);
    let command = ReceiveStock { product_id, quantity, command_id, caller, key_hash, fingerprint };
    Input::Command(InventoryCommand::from(command))
}

pub(crate) fn adjust(product_id: ProductId, delta: i64) -> Input {
    let CommandRef { command_id, caller, key_hash, fingerprint } = from(5);
    let reason = AdjustReason::Recount;
    let command = AdjustStock { product_id, delta, reason, command_id, caller, key_hash, fingerprint };
    Input::Command(InventoryCommand::from(command))
}

pub(crate) fn lines(lines: &[(ProductId, i64)]) -> Vec<PricedLine> {
    let priced = |&(product_id, quantity)| PricedLine { product_id, quantity, unit_price: usd(99) };
    lines.iter().map(priced).collect()
}

pub(crate) fn place(order_id: OrderId, wanted: &[(ProductId, i64)]) -> Input {
    let CommandRef { command_id, caller, key_hash, fingerprint } = from(6);
    Input::OrderPlaced(OrderPlaced {
        order_id,
        version: 1,
        customer_id: "c-1".to_owned(),
        lines: lines(wanted),
        total: usd(99),
        payment_method: "pm_ok".to_owned(),
        pay_by: Timestamp(900_000),
        command_id,
        caller,
        key_hash,
        fingerprint,
    })
}

/// The event as the log would have it.
pub(crate) fn recorded(event: InventoryEvent, n: i64) -> Recorded<InventoryEvent> {
    Recorded { event, id: EventId(100 + n), sequence: n, at: Timestamp(n * 1_000) }
}

/// The state after these inputs, each of which must be taken.
fn given(inputs: &[Input]) -> State {
    let mut state = State::default();
    for (n, input) in (1..).zip(inputs) {
        let event = decide(&state, input).unwrap().expect("each of them says something");
        state = evolve(state, &recorded(event, n));
    }
    state
}

/// Five apples and three pears, in the house and listed.
fn stocked() -> Vec<Input> {
    vec![list(APPLE, "APPLE", usd(99)), list(PEAR, "PEAR", usd(50)), receive(APPLE, 5), receive(PEAR, 3)]
}

fn after(more: &[Input]) -> State {
    given(&[&stocked()[..], more].concat())
}

fn stock(on_hand: i64, reserved: i64, sold: i64, received: i64, adjusted: i64) -> Stock {
    Stock { on_hand, reserved, sold, received, adjusted }
}

fn customer() -> String {
    "c-1".to_owned()
}

// Happy path: orders

#[test]
fn an_order_reserves_all_its_lines() {
    let then = InventoryEvent::from(StockReserved {
        order_id: ORDER,
        customer_id: customer(),
        lines: lines(&[(APPLE, 5), (PEAR, 1)]),
        total: usd(99),
        pay_by: Timestamp(900_000),
        payment_method: "pm_ok".to_owned(),
    });
    let input = place(ORDER, &[(APPLE, 5), (PEAR, 1)]);
    assert_eq!(decide(&after(&[]), &input), Ok(Some(then)));
    let state = after(&[input]);
    assert_eq!(state.stock(APPLE), stock(5, 5, 0, 5, 0));
    assert_eq!(state.stock(PEAR), stock(3, 1, 0, 3, 0));
}

#[test]
fn a_confirmed_order_is_sold() {
    let reserved = after(&[place(ORDER, &[(APPLE, 2)])]);
    let (order_id, customer_id, lines) = (ORDER, customer(), lines(&[(APPLE, 2)]));
    let then = InventoryEvent::from(StockSold { order_id, customer_id, lines });
    assert_eq!(decide(&reserved, &Input::OrderConfirmed(ORDER)), Ok(Some(then)));
    let state = after(&[place(ORDER, &[(APPLE, 2)]), Input::OrderConfirmed(ORDER)]);
    assert_eq!(state.stock(APPLE), stock(3, 0, 2, 5, 0));
    assert_eq!(*state.reservation(ORDER), Reservation::Sold);
}

// Compensation: orders

#[test]
fn an_order_that_is_short_of_one_line_reserves_none() {
    let first = place(OrderId(9), &[(APPLE, 4)]);
    let input = place(ORDER, &[(APPLE, 2), (PEAR, 1), (ProductId(3), 1)]);
    let then = InventoryEvent::from(StockRejected {
        order_id: ORDER,
        customer_id: customer(),
        lines: lines(&[(APPLE, 2), (PEAR, 1), (ProductId(3), 1)]),
        total: usd(99),
        short: vec![APPLE, ProductId(3)],
    });
    assert_eq!(decide(&after(std::slice::from_ref(&first)), &input), Ok(Some(then)));
    let state = after(&[first, input]);
    assert_eq!(state.stock(PEAR), stock(3, 0, 0, 3, 0));
    assert_eq!(*state.reservation(ORDER), Reservation::Rejected);
}

#[test]
fn an_order_that_is_given_up_releases_what_it_reserved() {
    let reserved = after(&[place(ORDER, &[(APPLE, 2)])]);
    let (order_id, customer_id, lines) = (ORDER, customer(), lines(&[(APPLE, 2)]));
    let then = InventoryEvent::from(StockReleased { order_id, customer_id, lines });
    assert_eq!(decide(&reserved, &Input::OrderGivenUp(ORDER)), Ok(Some(then)));
    let state = after(&[place(ORDER, &[(APPLE, 2)]), Input::OrderGivenUp(ORDER)]);
    assert_eq!(state.stock(APPLE), stock(5, 0, 0, 5, 0));
    assert_eq!(*state.reservation(ORDER), Reservation::Released);
}

#[test]
fn a_delisted_product_is_still_reserved_for_an_order_that_was_placed() {
    let then = decide(&after(&[delist(APPLE)]), &place(ORDER, &[(APPLE, 1)]));
    assert!(matches!(then, Ok(Some(InventoryEvent::StockReserved(_)))), "{then:?}");
}

// Twice and too late: orders

#[test]
fn an_order_heard_of_twice_changes_nothing() {
    for history in [
        vec![place(ORDER, &[(APPLE, 1)])],
        vec![place(ORDER, &[(APPLE, 9)])],
        vec![place(ORDER, &[(APPLE, 1)]), Input::OrderConfirmed(ORDER)],
        vec![place(ORDER, &[(APPLE, 1)]), Input::OrderGivenUp(ORDER)],
    ] {
        assert_eq!(decide(&after(&history), &place(ORDER, &[(APPLE, 1)])), Ok(None), "{history:?}");
    }
}

#[test]
fn an_end_heard_of_twice_changes_nothing() {
    for end in [Input::OrderConfirmed(ORDER), Input::OrderGivenUp(ORDER)] {
        let state = after(&[place(ORDER, &[(APPLE, 1)]), end.clone()]);
        assert_eq!(decide(&state, &end), Ok(None), "{end:?}");
    }
}

#[test]
fn an_order_that_was_short_has_nothing_to_release() {
    let state = after(&[place(ORDER, &[(APPLE, 9)])]);
    assert_eq!(decide(&state, &Input::OrderGivenUp(ORDER)), Ok(None));
}

#[test]
fn ends_that_cannot_be_are_no_events() {
    let confirmed = Input::OrderConfirmed(ORDER);
    let given_up = Input::OrderGivenUp(ORDER);
    let short = after(&[place(ORDER, &[(APPLE, 9)])]);
    let released = after(&[place(ORDER, &[(APPLE, 1)]), given_up.clone()]);
    let sold = after(&[place(ORDER, &[(APPLE, 1)]), confirmed.clone()]);
    for (state, input, refusal) in [
        (&State::default(), &confirmed, Refusal::NotReserved),
        (&State::default(), &given_up, Refusal::NotReserved),
        (&short, &confirmed, Refusal::NotReserved),
        (&released, &confirmed, Refusal::NotReserved),
        (&sold, &given_up, Refusal::AlreadySold),
    ] {
        assert_eq!(judge(state, input), Err(refusal), "{input:?}");
    }
}

#[test]
fn an_order_and_a_product_of_one_number_are_two_things() {
    let number = OrderId(APPLE.0);
    let state = after(&[place(number, &[(PEAR, 1)])]);
    assert_eq!(state.stock(APPLE), stock(5, 0, 0, 5, 0));
    assert_eq!(state.stock(PEAR), stock(3, 1, 0, 3, 0));
}

// Products

#[test]
fn a_product_is_listed_repriced_delisted_and_listed_again() {
    let facts = |price| Facts { name: "APPLE".to_owned(), price: usd(price) };
    let mut inputs = vec![list(APPLE, "APPLE", usd(99))];
    assert_eq!(*given(&inputs).listing(APPLE), Listing::Listed(facts(99)));
    inputs.push(reprice(APPLE, usd(98)));
    assert_eq!(*given(&inputs).listing(APPLE), Listing::Listed(facts(98)));
    inputs.push(delist(APPLE));
    assert_eq!(*given(&inputs).listing(APPLE), Listing::Delisted(facts(98)));
    inputs.push(list(APPLE, "APPLE", usd(97)));
    assert_eq!(*given(&inputs).listing(APPLE), Listing::Listed(facts(97)));
}

#[test]
fn a_price_may_change_its_currency() {
    let euro = Money::new(90, Currency::parse("EUR").unwrap());
    let state = after(&[reprice(APPLE, euro)]);
    let facts = Facts { name: "APPLE".to_owned(), price: euro };
    assert_eq!(*state.listing(APPLE), Listing::Listed(facts));
}

#[test]
fn stock_is_received_and_adjusted() {
    let state = after(&[receive(APPLE, 2), adjust(APPLE, -3), adjust(APPLE, 1), adjust(PEAR, -3)]);
    assert_eq!(state.stock(APPLE), stock(5, 0, 0, 7, -2));
    assert_eq!(state.stock(PEAR), stock(0, 0, 0, 3, -3));
    let delisted = after(&[delist(APPLE), receive(APPLE, 2)]);
    assert_eq!(delisted.stock(APPLE), stock(7, 0, 0, 7, 0));
}

#[test]
fn commands_on_a_product_that_is_not_there_are_refused() {
    for command in [reprice(APPLE, usd(1)), delist(APPLE), receive(APPLE, 1), adjust(APPLE, 1)] {
        assert_eq!(decide(&State::default(), &command), Err(Refusal::UnknownProduct), "{command:?}");
    }
    let state = after(&[delist(APPLE)]);
    assert_eq!(decide(&state, &reprice(APPLE, usd(1))), Err(Refusal::NotListed));
}

#[test]
fn commands_that_change_nothing_are_refused() {
    let state = after(&[]);
    assert_eq!(decide(&state, &list(APPLE, "APPLE", usd(99))), Err(Refusal::NoChange));
    assert_eq!(decide(&state, &reprice(APPLE, usd(99))), Err(Refusal::NoChange));
    assert_eq!(decide(&after(&[delist(APPLE)]), &delist(APPLE)), Err(Refusal::NoChange));
}

#[test]
fn listing_a_product_again_as_another_is_refused() {
    for (name, price) in [("APPLES", 99), ("APPLE", 98)] {
        let then = decide(&after(&[]), &list(APPLE, name, usd(price)));
        assert_eq!(then, Err(Refusal::AlreadyListed));
    }
}

#[test]
fn names_prices_and_quantities_out_of_bounds_are_refused() {
    let state = after(&[]);
    for name in ["", "a\0b", "a\nb", &"é".repeat(201)] {
        assert_eq!(decide(&state, &list(ProductId(3), name, usd(1))), Err(Refusal::InvalidName), "{name:?}");
    }
    assert!(decide(&state, &list(ProductId(3), &"é".repeat(200), usd(1))).is_ok());
    assert_eq!(decide(&state, &list(ProductId(3), "FIG", usd(0))), Err(Refusal::InvalidPrice));
    assert_eq!(decide(&state, &reprice(APPLE, usd(-1))), Err(Refusal::InvalidPrice));
    for quantity in [i64::MIN, -1, 0, QUANTITY_MAX + 1, i64::MAX] {
        assert_eq!(decide(&state, &receive(APPLE, quantity)), Err(Refusal::InvalidQuantity));
    }
    assert_eq!(decide(&state, &adjust(APPLE, 0)), Err(Refusal::InvalidDelta));
}

#[test]
fn stock_cannot_be_adjusted_below_what_is_reserved() {
    let state = after(&[place(ORDER, &[(APPLE, 2)])]);
    assert_eq!(decide(&state, &adjust(APPLE, -4)), Err(Refusal::BelowReserved));
    assert!(decide(&state, &adjust(APPLE, -3)).is_ok());
}

#[test]
fn sums_stay_far_from_their_limit() {
    for delta in [i64::MIN, -PIECES_MAX - 1, PIECES_MAX + 1, i64::MAX] {
        assert_eq!(decide(&after(&[]), &adjust(APPLE, delta)), Err(Refusal::TooManyPieces), "{delta}");
    }
    let mut state = after(&[adjust(APPLE, PIECES_MAX)]);
    assert_eq!(decide(&state, &adjust(APPLE, 1)), Err(Refusal::TooManyPieces));
    state.products.entry(APPLE).or_default().stock.received = PIECES_MAX;
    assert_eq!(decide(&state, &receive(APPLE, 1)), Err(Refusal::TooManyPieces));
}

#[test]
fn a_refused_command_is_an_event_that_changes_nothing() {
    let state = after(&[]);
    let CommandRef { command_id, caller, key_hash, fingerprint } = from(3);
    let then = InventoryEvent::from(CommandRefused {
        product_id: ProductId(3),
        command_type: "DelistProduct".to_owned(),
        reason: "UNKNOWN_PRODUCT".to_owned(),
        command_id,
        caller,
        key_hash,
        fingerprint,
    });
    assert_eq!(judge(&state, &delist(ProductId(3))), Ok(Some(then.clone())));
    assert_eq!(evolve(state.clone(), &recorded(then, 9)), state);
}
