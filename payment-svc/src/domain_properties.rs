//! The rules of the money for every sequence of inputs: what is ignored stays ignored, nothing happens twice, what is
//! taken and given back adds up, and every interleaving of the topics ends in a legal status.
//!
//! Single steps by example are in `domain_tests` and `report_tests`.

use std::collections::HashMap;

use events::code::GatewayResult;
use events::money::Money;
use events::payment::PaymentEvent;
use events::record::Recorded;
use proptest::prelude::*;

use crate::domain::{Call, Ending, Input, Report, State, Status, decide, evolve, judge};
use crate::domain_tests::{PAY_BY, answer, callback, given_up, recorded, refund, reserved, reserved_at, too_late, usd};

const TOTAL: Money = Money { amount: 198, currency: events::money::Currency::USD };
/// Kinds below this one are records of other services' topics: after a recovery they may be read again.
const RECORDS: u8 = 4;
const KINDS: u8 = 18;

/// Every kind of input of one payment; commands get the ID of their place in the sequence.
fn input(kind: u8, n: i64) -> Input {
    match kind {
        0 => reserved(),
        1 => reserved_at(PAY_BY),
        2 => given_up(Ending::Cancelled),
        3 => given_up(Ending::Expired),
        4 => callback(n, GatewayResult::Captured, TOTAL),
        5 => callback(n, GatewayResult::Captured, usd(199)),
        6 => callback(n, GatewayResult::Declined, TOTAL),
        7 => callback(n, GatewayResult::Failed, TOTAL),
        8 => callback(n, GatewayResult::Cancelled, TOTAL),
        9 => callback(n, GatewayResult::Refunded, TOTAL),
        10 => refund(n),
        11 => answer(Report::Captured(TOTAL)),
        12 => answer(Report::Declined),
        13 => answer(Report::Cancelled),
        14 => answer(Report::Refunded(TOTAL)),
        15 => answer(Report::RefundRefused("NO".to_owned())),
        16 => too_late(true),
        _ => too_late(false),
    }
}

fn inputs() -> impl Strategy<Value = Vec<Input>> {
    let kinds = prop::collection::vec(0..KINDS, 0..16);
    let first = prop_oneof![4 => Just(Some(0)), 1 => Just(None)];
    (first, kinds).prop_map(|(first, kinds)| {
        let kinds = first.into_iter().chain(kinds);
        (1..).zip(kinds).map(|(n, kind)| input(kind, n)).collect()
    })
}

/// Runs inputs as a processor does and returns every state passed through, and the events.
fn run(inputs: &[Input]) -> (Vec<State>, Vec<Recorded<PaymentEvent>>) {
    let (mut states, mut log) = (vec![State::Unknown], Vec::new());
    for (n, input) in (1..).zip(inputs) {
        let state = states.last().expect("it begins with one").clone();
        // An answer that nobody can have asked for stops the processor: it changes nothing here.
        let Ok(Some(event)) = judge(&state, input) else { continue };
        let event = recorded(event, n);
        states.push(evolve(state, &event));
        log.push(event);
    }
    (states, log)
}

/// How far a payment has come. It never goes back; the one cycle is an operator's new try of a refused refund.
fn rank(state: &State) -> u8 {
    match state.status() {
        None => 0,
        Some(Status::Requested) => 1,
        Some(Status::CancelRequested) => 2,
        Some(Status::Cancelled | Status::Declined | Status::Failed | Status::Captured) => 3,
        Some(Status::Refunding | Status::RefundFailed) => 4,
        Some(Status::Refunded) => 5,
    }
}

/// Money taken minus money given back, as the events tell it.
fn balance(log: &[Recorded<PaymentEvent>]) -> i64 {
    log.iter().fold(0, |sum, event| match &event.event {
        PaymentEvent::PaymentCaptured(event) => sum + event.amount.amount,
        PaymentEvent::PaymentDeclined(event) => sum + event.amount.map_or(0, |taken| taken.amount),
        PaymentEvent::PaymentRefunded(event) => sum - event.amount.amount,
        PaymentEvent::PaymentRequested(_)
        | PaymentEvent::PaymentFailed(_)
        | PaymentEvent::PaymentCancelRequested(_)
        | PaymentEvent::PaymentCancelled(_)
        | PaymentEvent::RefundRequested(_)
        | PaymentEvent::RefundFailed(_)
        | PaymentEvent::CommandRefused(_) => sum,
    })
}

fn count(log: &[Recorded<PaymentEvent>], name: &str) -> usize {
    log.iter().filter(|event| event.event.short_name() == name).count()
}

/// A gateway that keeps one charge and one refund per key and answers each call finally, by script.
struct Gateway {
    /// What a charge comes to, and what a cancel call finds that comes first.
    script: (Report, Report),
    charge: Option<Report>,
    refunds: HashMap<&'static str, Money>,
}

impl Gateway {
    fn answer(&mut self, call: Call, state: &State) -> Report {
        match call {
            Call::Charge => self.charge.get_or_insert(self.script.0.clone()).clone(),
            Call::Cancel => self.charge.get_or_insert(self.script.1.clone()).clone(),
            Call::Refund => {
                let taken = state.taken().expect("only captured money is refunded");
                Report::Refunded(*self.refunds.entry("refund").or_insert(taken))
            }
        }
    }
}

fn scripts() -> impl Strategy<Value = (Report, Report)> {
    let words = [Report::Captured(TOTAL), Report::Captured(usd(199)), Report::Declined, Report::Failed];
    let found = [Report::Cancelled, Report::Captured(TOTAL), Report::Declined];
    (prop::sample::select(words.to_vec()), prop::sample::select(found.to_vec()))
}

/// Reservation and end of the order come over two topics; the calls of each state are answered at any time.
fn steps() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(0..6_u8, 0..24)
}

fn take(state: &mut State, log: &mut Vec<Recorded<PaymentEvent>>, input: &Input) {
    let n = i64::try_from(log.len()).expect("a short log") + 1;
    if let Some(event) = judge(state, input).expect("what others say can be right") {
        let event = recorded(event, n);
        *state = evolve(std::mem::take(state), &event);
        log.push(event);
    }
}

proptest! {
    #[test]
    fn what_is_ignored_stays_ignored(inputs in inputs()) {
        let (states, _) = run(&inputs);
        for kind in 0..RECORDS {
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
        let acting = |log: &[Recorded<PaymentEvent>]| -> Vec<&'static str> {
            let names = log.iter().map(|event| event.event.short_name());
            names.filter(|name| *name != "CommandRefused").collect()
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
    fn every_command_yields_an_event(inputs in inputs()) {
        for state in run(&inputs).0 {
            for kind in RECORDS..=10 {
                prop_assert!(matches!(judge(&state, &input(kind, 99)), Ok(Some(_))));
            }
        }
    }

    #[test]
    fn a_payment_goes_one_way(inputs in inputs()) {
        let (states, log) = run(&inputs);
        for pair in states.windows(2) {
            prop_assert!(rank(&pair[0]) <= rank(&pair[1]), "{:?}", pair);
        }
        prop_assert!(count(&log, "PaymentRequested") <= 1);
        prop_assert!(count(&log, "PaymentCancelRequested") <= 1);
        prop_assert!(count(&log, "PaymentRefunded") <= 1);
    }

    #[test]
    fn money_adds_up(inputs in inputs()) {
        let (states, log) = run(&inputs);
        let last = states.last().expect("it begins with one");
        let here = if last.status() == Some(Status::Refunded) { 0 } else { last.taken().map_or(0, |taken| taken.amount) };
        prop_assert_eq!(balance(&log), here, "{:?}", log);
        // Money that confirms the order is the order's total; all other money is on its way back.
        if last.status() == Some(Status::Captured) {
            prop_assert_eq!(last.taken(), Some(TOTAL));
        }
    }

    #[test]
    fn a_final_answer_ends_the_call_it_answers(inputs in inputs()) {
        let words = [Report::Captured(TOTAL), Report::Declined, Report::Failed, Report::Cancelled];
        let refunds = [Report::Refunded(TOTAL), Report::RefundRefused("NO".to_owned())];
        for state in run(&inputs).0 {
            let Some((call, set_by)) = state.call() else { continue };
            let mut answers: Vec<_> =
                if call == Call::Refund { refunds.to_vec() } else { words.to_vec() }.into_iter().map(answer).collect();
            if call == Call::Charge {
                answers.extend([too_late(true), too_late(false)]);
            }
            for when in answers {
                let event = decide(&state, &when).expect("it was asked for").expect("a final answer is never lost");
                let after = evolve(state.clone(), &recorded(event, 99));
                prop_assert_ne!(after.call(), Some((call, set_by)), "{:?} in {:?}", when, state);
            }
        }
    }

    #[test]
    fn shuffled_topics_end_in_a_legal_status(
        steps in steps(),
        script in scripts(),
        ending in prop::option::of(prop_oneof![Just(Ending::Cancelled), Just(Ending::Expired)]),
    ) {
        let mut gateway = Gateway { script, charge: None, refunds: HashMap::new() };
        let (mut state, mut log) = (State::Unknown, Vec::new());
        // The steps' order is random and each may come again; then everything is delivered, asked and told once more.
        let drain = [0, 1, 2, 2, 4, 2];
        for step in steps.into_iter().chain(drain) {
            match (step, ending) {
                (0, _) => take(&mut state, &mut log, &reserved()),
                (1, Some(ending)) => take(&mut state, &mut log, &given_up(ending)),
                (2, _) => if let Some((call, _)) = state.call() {
                    let report = gateway.answer(call, &state);
                    take(&mut state, &mut log, &answer(report));
                },
                // A call was made and its answer lost.
                (3, _) => if let Some((call, _)) = state.call() {
                    drop(gateway.answer(call, &state));
                },
                // A callback about what the gateway did.
                (4, _) => if let Some(Report::Captured(taken)) = gateway.charge {
                    take(&mut state, &mut log, &callback(99, GatewayResult::Captured, taken));
                },
                _ => if gateway.charge.is_some() {
                    take(&mut state, &mut log, &callback(98, GatewayResult::Declined, TOTAL));
                },
            }
        }
        prop_assert_eq!(state.call(), None, "{:?}", log);
        let taken = match gateway.charge { Some(Report::Captured(taken)) => taken.amount, _ => 0 };
        let back = gateway.refunds.get("refund").map_or(0, |amount| amount.amount);
        let kept = if state.status() == Some(Status::Captured) { TOTAL.amount } else { 0 };
        prop_assert_eq!(taken - back, kept, "{:?}", log);
        if ending.is_some() {
            prop_assert_ne!(state.status(), Some(Status::Captured), "{:?}", log);
        }
        let legal = [Status::Captured, Status::Declined, Status::Failed, Status::Cancelled, Status::Refunded];
        prop_assert!(state.status().is_some_and(|status| legal.contains(&status)), "{:?}", state);
    }
}
