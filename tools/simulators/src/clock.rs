//! The one place that reads the wall clock and writes times as text. It waits for nobody: timers are tokio's.

use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

const RFC3339_MS: &[BorrowedFormatItem<'static>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// Milliseconds since 1970-01-01 UTC.
#[expect(clippy::disallowed_methods, reason = "this is the crate's clock; engine's would bring Kafka along")]
pub(crate) fn now_ms() -> i64 {
    let since =
        SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock of a machine that runs this stands after 1970");
    i64::try_from(since.as_millis()).expect("milliseconds since 1970 fit 63 bits for 292 million years")
}

/// `2026-01-31T12:00:00.000Z` for milliseconds since 1970-01-01 UTC.
pub(crate) fn rfc3339(ms: i64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000)
        .expect("times come from this clock, years have four digits")
        .format(RFC3339_MS)
        .expect("the format names only parts that a date-time has")
}

#[cfg(test)]
mod tests {
    use super::rfc3339;

    #[test]
    fn milliseconds_are_always_three_digits() {
        assert_eq!(rfc3339(1_769_860_800_000), "2026-01-31T12:00:00.000Z");
        assert_eq!(rfc3339(1_769_860_800_007), "2026-01-31T12:00:00.007Z");
    }
}
