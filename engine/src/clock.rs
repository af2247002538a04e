//! The one place where this workspace's services read a clock of the machine, and how times cross to Postgres.
//!
//! Decisions never see it: their clock is Postgres', read in the batch's transaction.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use events::time::Timestamp;
use time::OffsetDateTime;

use crate::failpoint;

/// The wall clock, for IDs, tokens and signatures.
#[must_use]
pub fn wall() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "the one clock module")]
    let now = SystemTime::now();
    let millis = now.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
    Timestamp(millis.saturating_add(failpoint::clock_ahead_ms()))
}

/// A monotonic moment, for measuring.
#[must_use]
pub fn instant() -> Instant {
    Instant::now()
}

/// To Postgres' `timestamptz`.
#[must_use]
pub fn to_utc(time: Timestamp) -> OffsetDateTime {
    // Only times far outside any shop's life have no date; they are cut to the epoch rather than lost in a panic.
    time.to_utc().unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// From Postgres' `timestamptz`; microseconds are cut off.
#[must_use]
pub fn from_utc(time: OffsetDateTime) -> Timestamp {
    Timestamp(i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000_000)).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_survives_the_way_to_postgres_and_back() {
        for millis in [0, 1, -1, 1_735_689_600_007, 4_102_444_800_999] {
            assert_eq!(from_utc(to_utc(Timestamp(millis))), Timestamp(millis));
        }
    }

    #[test]
    fn microseconds_are_cut_off_towards_the_past() {
        let time = OffsetDateTime::UNIX_EPOCH;
        assert_eq!(from_utc(time + time::Duration::microseconds(1_999)), Timestamp(1));
        assert_eq!(from_utc(time - time::Duration::microseconds(1)), Timestamp(-1));
    }

    #[test]
    fn the_wall_clock_is_later_than_this_file() {
        assert!(wall() > Timestamp(1_735_689_600_000));
    }
}
