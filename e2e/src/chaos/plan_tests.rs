//! The plan follows from its seed, has its share of everything, and ends in time.

use super::*;
use crate::stack::SERVICES;

const TEN_MINUTES: Duration = Duration::from_secs(600);

#[test]
fn a_seed_and_a_length_give_one_plan() {
    assert_eq!(plan(7, TEN_MINUTES), plan(7, TEN_MINUTES));
    assert_ne!(plan(7, TEN_MINUTES), plan(8, TEN_MINUTES));
}

#[test]
fn ten_minutes_have_all_of_the_table() {
    let kinds = kinds(&plan(1, TEN_MINUTES));
    let table = PER_TEN_MINUTES.map(|(kind, often)| (kind.to_owned(), u64::from(often)));
    assert_eq!(kinds, BTreeMap::from(table));
}

#[test]
fn every_service_is_killed_five_times_in_ten_minutes() {
    let faults = plan(1, TEN_MINUTES);
    for service in SERVICES {
        let of_it = faults.iter().filter(|fault| fault.kind == "kill" && fault.target.starts_with(service));
        assert!(of_it.count() >= 5, "{service}");
    }
}

#[test]
fn faults_end_within_the_run_and_a_short_one_has_its_share() {
    for seed in 0..50 {
        for length in [Duration::from_secs(45), TEN_MINUTES] {
            let faults = plan(seed, length);
            assert!(faults.iter().all(|fault| fault.at + fault.lasts() <= length + Duration::from_secs(5)), "{seed}");
            assert!(!faults.is_empty(), "{seed}");
        }
        let short = plan(seed, Duration::from_secs(45)).len();
        assert!((2..25).contains(&short), "{seed}: {short}");
    }
}
