//! The rules of the warehouse for every sequence of inputs: stock is never oversold, what is ignored stays ignored, and
//! events of different keys may be folded in any order.
//!
//! Single steps by example are in `domain_tests`.

use std::collections::BTreeMap;

use events::id::{OrderId, ProductId};
use events::inventory::{InventoryEvent, Subject};
use events::money::{Currency, Money};
use events::record::Recorded;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::domain::{Input, Refusal, State, decide, evolve, judge};
use crate::domain_tests::{adjust, delist, list, place, receive, recorded, reprice};

const PRODUCTS: i64 = 3;
const ORDERS: i64 = 4;

fn product() -> impl Strategy<Value = ProductId> {
    (1..=PRODUCTS).prop_map(ProductId)
}

fn order() -> impl Strategy<Value = OrderId> {
    // The same numbers as the products have.
    (1..=ORDERS).prop_map(OrderId)
}

fn price() -> impl Strategy<Value = Money> {
    (0..3_i64).prop_map(|amount| Money::new(amount, Currency::USD))
}

fn input() -> impl Strategy<Value = Input> {
    let wanted = prop::collection::btree_map(product(), 1..6_i64, 1..=3);
    prop_oneof![
        1 => (product(), price()).prop_map(|(product, price)| list(product, "P", price)),
        1 => (product(), price()).prop_map(|(product, price)| reprice(product, price)),
        1 => product().prop_map(delist),
        4 => (product(), 0..8_i64).prop_map(|(product, quantity)| receive(product, quantity)),
        1 => (product(), -6..6_i64).prop_map(|(product, delta)| adjust(product, delta)),
        8 => (order(), wanted).prop_map(|(order, wanted)| {
            place(order, &wanted.into_iter().collect::<Vec<_>>())
        }),
        4 => order().prop_map(Input::OrderConfirmed),
        4 => order().prop_map(Input::OrderGivenUp),
    ]
}

/// Inputs after the products were listed, so that stock moves.
fn inputs() -> impl Strategy<Value = Vec<Input>> {
    prop::collection::vec(input(), 0..60).prop_map(|inputs| {
        let usd = |amount| Money::new(amount, Currency::USD);
        (1..=PRODUCTS).map(|id| list(ProductId(id), "P", usd(1))).chain(inputs).collect()
    })
}

/// Runs inputs as processors do, and returns every state passed through, and the events.
fn run(inputs: &[Input]) -> (Vec<State>, Vec<Recorded<InventoryEvent>>) {
    let (mut states, mut log) = (vec![State::default()], Vec::new());
    for (n, input) in (1..).zip(inputs) {
        let state = states.last().expect("it begins with one").clone();
        // An input that cannot be right is held: it changes nothing here.
        let Ok(Some(event)) = judge(&state, input) else {
            continue;
        };
        let event = recorded(event, n);
        states.push(evolve(state, &event));
        log.push(event);
    }
    (states, log)
}

fn fold(log: &[Recorded<InventoryEvent>]) -> State {
    log.iter().fold(State::default(), evolve)
}

/// The log in another order in which each key's own events keep theirs.
fn shuffled(log: &[Recorded<InventoryEvent>], picks: &[Index]) -> Vec<Recorded<InventoryEvent>> {
    let mut queues: BTreeMap<Subject, Vec<_>> = BTreeMap::new();
    for event in log.iter().rev() {
        queues.entry(event.event.subject()).or_default().push(event.clone());
    }
    let mut mixed = Vec::new();
    for pick in picks.iter().cycle() {
        queues.retain(|_, queue| !queue.is_empty());
        if queues.is_empty() {
            break;
        }
        let place = pick.index(queues.len());
        let queue = queues.values_mut().nth(place);
        mixed.extend(queue.and_then(Vec::pop));
    }
    mixed
}

proptest! {
    #[test]
    fn stock_is_never_oversold_and_nothing_is_lost(inputs in inputs()) {
        for state in run(&inputs).0 {
            for (product, product_state) in &state.products {
                let stock = product_state.stock;
                prop_assert!(0 <= stock.reserved && stock.reserved <= stock.on_hand, "{product}: {stock:?}");
                prop_assert_eq!(stock.received + stock.adjusted, stock.on_hand + stock.sold);
            }
        }
    }

    #[test]
    fn what_orders_reserve_is_what_products_have_reserved(inputs in inputs()) {
        let (states, _) = run(&inputs);
        let state = states.last().expect("it begins with one");
        let mut reserved: BTreeMap<ProductId, i64> = BTreeMap::new();
        for reservation in state.reservations.values() {
            if let crate::domain::Reservation::Reserved { lines, .. } = reservation {
                for line in lines {
                    *reserved.entry(line.product_id).or_default() += line.quantity;
                }
            }
        }
        for (product, product_state) in &state.products {
            let expected = reserved.get(product).copied().unwrap_or_default();
            prop_assert_eq!(product_state.stock.reserved, expected);
        }
    }

    #[test]
    fn events_of_different_keys_fold_in_any_order(
        inputs in inputs(),
        picks in prop::collection::vec(any::<Index>(), 1..40),
    ) {
        let (states, log) = run(&inputs);
        let mixed = shuffled(&log, &picks);
        prop_assert_eq!(mixed.len(), log.len());
        prop_assert_eq!(Some(&fold(&mixed)), states.last());
        prop_assert_eq!(Some(&fold(&log)), states.last());
    }

    #[test]
    fn what_is_ignored_stays_ignored(inputs in inputs(), probe in input()) {
        let (states, _) = run(&inputs);
        let ignored = states.iter().position(|state| decide(state, &probe) == Ok(None));
        for later in ignored.map_or(&[][..], |at| &states[at..]) {
            prop_assert_eq!(decide(later, &probe), Ok(None), "{:?} in {:?}", probe, later);
        }
    }

    #[test]
    fn an_order_event_that_comes_twice_acts_once(inputs in inputs()) {
        let twice = |input: &Input| match input {
            // A command that comes twice is found by its ID before it gets here.
            Input::Command(_) => vec![input.clone()],
            Input::OrderPlaced(_) | Input::OrderConfirmed(_) | Input::OrderGivenUp(_) => {
                vec![input.clone(), input.clone()]
            }
        };
        let doubled: Vec<_> = inputs.iter().flat_map(twice).collect();
        let events = |inputs: &[Input]| -> Vec<InventoryEvent> {
            run(inputs).1.into_iter().map(|event| event.event).collect()
        };
        prop_assert_eq!(events(&inputs), events(&doubled));
    }

    #[test]
    fn every_command_yields_an_event(inputs in inputs(), probe in input()) {
        for state in run(&inputs).0 {
            let judged = judge(&state, &probe);
            match &probe {
                Input::Command(_) => prop_assert!(matches!(judged, Ok(Some(_))), "{:?}", judged),
                Input::OrderPlaced(_) => prop_assert!(judged.is_ok()),
                Input::OrderConfirmed(_) | Input::OrderGivenUp(_) => prop_assert!(matches!(
                    judged,
                    Ok(_) | Err(Refusal::NotReserved | Refusal::AlreadySold)
                )),
            }
        }
    }
}
