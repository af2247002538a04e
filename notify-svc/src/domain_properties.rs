//! The rules of the notices for every sequence of inputs: what is ignored stays ignored, nothing is told twice, and every
//! notice that is scheduled comes to an end.
//!
//! Single steps by example are in `domain_tests`.

use std::collections::BTreeMap;

use events::code::{Channel, NoticeKind};
use events::notification::NotificationEvent;
use events::record::Recorded;
use events::time::Timestamp;
use proptest::prelude::*;

use crate::domain::{AGE_MAX, Delivery, Fate, Input, Report, State, decide, evolve, settles};
use crate::domain_tests::{AT, BOTH, answer, recorded, told_at};

fn kinds() -> impl Strategy<Value = NoticeKind> {
    prop::sample::select(NoticeKind::ALL)
}

fn reachable() -> impl Strategy<Value = Vec<Channel>> {
    prop::sample::subsequence(BOTH.to_vec(), 0..=2)
}

fn occasions() -> impl Strategy<Value = Input> {
    let late = Timestamp(AT.plus(AGE_MAX).0 + 1);
    let now = prop_oneof![6 => Just(AT), 1 => Just(late)];
    (kinds(), reachable(), now).prop_map(|(kind, reachable, now)| told_at(kind, &reachable, now))
}

fn reports() -> impl Strategy<Value = Report> {
    prop_oneof![
        4 => Just(Report::Sent),
        1 => Just(Report::Refused("SMTP_550".to_owned())),
        1 => Just(Report::Settled),
        1 => Just(Report::TooOld),
        1 => Just(Report::ChannelGone),
        1 => Just(Report::NoContact),
    ]
}

fn answers() -> impl Strategy<Value = Input> {
    let channels = prop::sample::select(BOTH.to_vec());
    (kinds(), channels, reports()).prop_map(|(kind, channel, report)| answer(kind, channel, report))
}

fn inputs() -> impl Strategy<Value = Vec<Input>> {
    prop::collection::vec(prop_oneof![occasions(), answers()], 0..24)
}

/// Runs inputs as a processor does and returns every state passed through, and the events.
fn run(inputs: &[Input]) -> (Vec<State>, Vec<Recorded<NotificationEvent>>) {
    let (mut states, mut log) = (vec![State::default()], Vec::new());
    for (n, input) in (1..).zip(inputs) {
        let state = states.last().expect("it begins with one").clone();
        // An answer that nobody can have asked for stops the processor: it changes nothing here.
        let Ok(Some(event)) = decide(&state, input) else { continue };
        let event = recorded(event, n);
        states.push(evolve(state, &event));
        log.push(event);
    }
    (states, log)
}

fn pending(state: &State) -> Vec<(NoticeKind, Channel)> {
    let of = |(kind, notice): (&NoticeKind, &crate::domain::Notice)| match &notice.fate {
        Fate::Scheduled { channels, .. } => {
            let open = channels.iter().filter(|(_, delivery)| **delivery == Delivery::Pending);
            open.map(|(channel, _)| (*kind, *channel)).collect()
        }
        Fate::Skipped(_) => Vec::new(),
    };
    state.notices.iter().flat_map(of).collect()
}

proptest! {
    #[test]
    fn what_is_ignored_stays_ignored(inputs in inputs(), probe in occasions()) {
        let (states, _) = run(&inputs);
        let ignored = states.iter().position(|state| decide(state, &probe) == Ok(None));
        for later in ignored.map_or(&[][..], |at| &states[at..]) {
            prop_assert_eq!(decide(later, &probe), Ok(None), "{:?} in {:?}", probe, later);
        }
    }

    #[test]
    fn an_input_that_comes_twice_acts_once(inputs in inputs()) {
        let doubled: Vec<_> = inputs.iter().flat_map(|input| [input.clone(), input.clone()]).collect();
        let events = |inputs: &[Input]| -> Vec<NotificationEvent> {
            run(inputs).1.into_iter().map(|event| event.event).collect()
        };
        prop_assert_eq!(events(&inputs), events(&doubled));
    }

    #[test]
    fn the_fold_of_the_events_is_the_live_state(inputs in inputs()) {
        let (states, log) = run(&inputs);
        let folded = log.iter().fold(State::default(), evolve);
        prop_assert_eq!(Some(&folded), states.last());
    }

    #[test]
    fn each_notice_is_sent_once_per_channel_or_not_at_all(inputs in inputs()) {
        let (_, log) = run(&inputs);
        let mut sent: BTreeMap<(NoticeKind, Channel), usize> = BTreeMap::new();
        let mut begun: BTreeMap<NoticeKind, usize> = BTreeMap::new();
        let mut skipped = Vec::new();
        for event in &log {
            match &event.event {
                NotificationEvent::NotificationScheduled(event) => *begun.entry(event.kind).or_default() += 1,
                NotificationEvent::NotificationSent(event) => {
                    *sent.entry((event.kind, event.channel)).or_default() += 1;
                }
                NotificationEvent::NotificationFailed(_) => {}
                NotificationEvent::NotificationSkipped(event) => skipped.push(event.kind),
            }
        }
        prop_assert!(sent.values().chain(begun.values()).all(|times| *times == 1), "{:?}", log);
        prop_assert!(sent.keys().all(|(kind, _)| begun.contains_key(kind) && !skipped.contains(kind)), "{:?}", log);
        prop_assert!(begun.keys().filter(|kind| settles(**kind)).count() <= 1, "an order ends once: {:?}", log);
    }

    #[test]
    fn every_answer_ends_what_it_answers(inputs in inputs(), report in reports()) {
        for state in run(&inputs).0 {
            for (kind, channel) in pending(&state) {
                let event = decide(&state, &answer(kind, channel, report.clone()));
                let event = event.expect("it was asked for").expect("a final answer is never lost");
                let after = evolve(state.clone(), &recorded(event, 99));
                prop_assert!(!pending(&after).contains(&(kind, channel)), "{:?}", after);
            }
        }
    }

    #[test]
    fn an_order_that_is_settled_stays_settled(inputs in inputs()) {
        for pair in run(&inputs).0.windows(2) {
            prop_assert!(!pair[0].is_settled() || pair[1].is_settled());
            prop_assert!(pair[0].notices.keys().all(|kind| pair[1].notices.contains_key(kind)));
        }
    }
}
