//! The rules of an order for every sequence of inputs: what is ignored stays ignored, nothing happens twice, and the
//! fold of the events is the live state.
//!
//! Single steps by example are in `domain_tests`.

use events::order::OrderEvent;
use events::record::Recorded;
use proptest::prelude::*;

use crate::domain::{Input, State, Status, decide, evolve, judge};
use crate::domain_tests::{ORDER, cancel_at, place, recorded};

/// Every kind of input of one order; commands get the ID of their place in the sequence.
fn input(kind: u8, n: i64) -> Input {
    match kind {
        0 => place(n),
        1 => reject(n),
        2 => Input::PaymentCaptured(ORDER),
        3 => Input::PaymentDeclined(ORDER),
        4 => Input::PaymentFailed(ORDER),
        5 => Input::StockRejected(ORDER),
        6 => Input::PayByPassed(ORDER),
        7 => cancel_at(n, None),
        8 => cancel_at(n, Some(1)),
        _ => cancel_at(n, Some(2)),
    }
}

const KINDS: u8 = 10;

/// An order that cannot be: nothing in the catalogue.
fn reject(n: i64) -> Input {
    match place(n) {
        Input::Place { command, pay_by, .. } => {
            Input::Place { command, prices: std::collections::BTreeMap::new(), pay_by }
        }
        other => other,
    }
}

fn inputs() -> impl Strategy<Value = Vec<Input>> {
    let kinds = prop::collection::vec(0..KINDS, 0..12);
    let first = prop_oneof![4 => Just(Some(0)), 1 => Just(Some(1)), 1 => Just(None)];
    (first, kinds).prop_map(|(first, kinds)| {
        let kinds = first.into_iter().chain(kinds);
        (1..).zip(kinds).map(|(n, kind)| input(kind, n)).collect()
    })
}

/// Runs inputs as a processor does and returns every state passed through, and the events.
fn run(inputs: &[Input]) -> (Vec<State>, Vec<Recorded<OrderEvent>>) {
    let (mut states, mut log) = (vec![State::Unknown], Vec::new());
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

fn version(event: &OrderEvent) -> Option<i64> {
    match event {
        OrderEvent::OrderPlaced(event) => Some(event.version),
        OrderEvent::OrderRejected(event) => Some(event.version),
        OrderEvent::OrderConfirmed(event) => Some(event.version),
        OrderEvent::OrderCancelled(event) => Some(event.version),
        OrderEvent::OrderExpired(event) => Some(event.version),
        OrderEvent::CommandRefused(_) => None,
    }
}

proptest! {
    #[test]
    fn what_is_ignored_stays_ignored(inputs in inputs()) {
        let (states, _) = run(&inputs);
        for kind in 0..KINDS {
            let probe = input(kind, 99);
            let ignored = states.iter().position(|state| decide(state, &probe) == Ok(None));
            for later in ignored.map_or(&[][..], |at| &states[at..]) {
                prop_assert_eq!(decide(later, &probe), Ok(None), "{:?} in {:?}", probe, later);
            }
        }
    }

    #[test]
    fn an_input_that_comes_twice_acts_once(inputs in inputs()) {
        let doubled: Vec<_> = inputs.iter().flat_map(|input| [input.clone(), input.clone()]).collect();
        let acting = |log: &[Recorded<OrderEvent>]| -> Vec<&'static str> {
            let acts = log.iter().filter(|event| version(&event.event).is_some());
            acts.map(|event| event.event.short_name()).collect()
        };
        prop_assert_eq!(acting(&run(&inputs).1), acting(&run(&doubled).1));
    }

    #[test]
    fn the_fold_of_the_events_is_the_live_state(inputs in inputs()) {
        let (states, log) = run(&inputs);
        let folded = log.iter().fold(State::Unknown, evolve);
        prop_assert_eq!(Some(&folded), states.last());
    }

    #[test]
    fn a_history_is_legal(inputs in inputs()) {
        let (states, log) = run(&inputs);
        let versions: Vec<_> = log.iter().filter_map(|event| version(&event.event)).collect();
        prop_assert!(versions.len() <= 2, "placed or rejected, then at most one end: {:?}", log);
        prop_assert!(versions.iter().zip(1..).all(|(version, n)| *version == n), "{:?}", versions);
        let changes = log.iter().filter(|event| version(&event.event).is_some());
        for (place, event) in changes.enumerate() {
            let begins =
                matches!(event.event, OrderEvent::OrderPlaced(_) | OrderEvent::OrderRejected(_));
            prop_assert_eq!(begins, place == 0);
        }
        for state in states {
            prop_assert_eq!(state.timer().is_some(), state.status() == Some(Status::Placed));
        }
    }

    #[test]
    fn every_command_yields_an_event(inputs in inputs()) {
        for state in run(&inputs).0 {
            for kind in [0, 1, 7, 8, 9] {
                prop_assert!(matches!(judge(&state, &input(kind, 99)), Ok(Some(_))));
            }
        }
    }

    #[test]
    fn what_is_refused_for_good_stays_refused(inputs in inputs()) {
        let (states, _) = run(&inputs);
        for kind in 0..KINDS {
            let probe = input(kind, 99);
            let for_good = |state: &State| decide(state, &probe).is_err_and(|refusal| refusal.is_for_good());
            let first = states.iter().position(for_good);
            for later in first.map_or(&[][..], |at| &states[at..]) {
                prop_assert!(decide(later, &probe).is_err(), "{:?} in {:?}", probe, later);
            }
        }
    }

    #[test]
    fn a_timer_that_is_set_moves_when_it_fires(inputs in inputs()) {
        for state in run(&inputs).0.into_iter().filter(|state| state.timer().is_some()) {
            let event = decide(&state, &Input::PayByPassed(ORDER)).expect("it is known");
            let event = recorded(event.expect("a due timer yields an event"), 99);
            prop_assert_eq!(evolve(state, &event).timer(), None);
        }
    }
}
