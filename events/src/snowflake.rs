//! The layout of Snowflake IDs: 41 bits of milliseconds since 2025-01-01, 3 of service, 7 of instance, 12 of sequence.
//!
//! The layout must never change: IDs of the log are made of it. Clock, lease and high-water mark are `engine`'s
//! (`engine::lease`); this file only packs and unpacks, so it is the same for every reader.

/// Milliseconds from 1970-01-01 to 2025-01-01, both at 00:00 UTC: the zero of the 41-bit time.
pub const EPOCH_MS: i64 = 1_735_689_600_000;
/// IDs per millisecond and instance.
pub const SEQUENCES_PER_MS: u16 = 1 << 12;
/// Instance numbers per service.
pub const INSTANCES: u8 = 1 << 7;
/// Service numbers; 7 belongs to the tools.
pub const SERVICES: u8 = 1 << 3;

const MILLIS_BITS: u32 = 41;
const INSTANCE_SHIFT: u32 = 12;
const SERVICE_SHIFT: u32 = 19;
const MILLIS_SHIFT: u32 = 22;

/// The fields of an ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    /// Milliseconds since [`EPOCH_MS`], below 2^41 (until the year 2094).
    pub millis: u64,
    /// Number of the service, below [`SERVICES`].
    pub service: u8,
    /// Leased number of the process, below [`INSTANCES`].
    pub instance: u8,
    /// Counter within the millisecond, below [`SEQUENCES_PER_MS`].
    pub sequence: u16,
}

/// Packs an ID; `None` when a field leaves its bits, or when the result would be 0 (IDs are positive).
#[must_use]
pub fn pack(parts: Parts) -> Option<i64> {
    let fits = parts.millis < 1 << MILLIS_BITS
        && parts.service < SERVICES
        && parts.instance < INSTANCES
        && parts.sequence < SEQUENCES_PER_MS;
    if !fits {
        return None;
    }
    let bits = parts.millis << MILLIS_SHIFT
        | u64::from(parts.service) << SERVICE_SHIFT
        | u64::from(parts.instance) << INSTANCE_SHIFT
        | u64::from(parts.sequence);
    i64::try_from(bits).ok().filter(|id| *id > 0)
}

/// Unpacks an ID; `None` for a number that is not positive.
#[must_use]
pub fn unpack(id: i64) -> Option<Parts> {
    let bits = u64::try_from(id).ok().filter(|bits| *bits > 0)?;
    let field = |shift: u32, width: u32| (bits >> shift) & ((1 << width) - 1);
    Some(Parts {
        millis: bits >> MILLIS_SHIFT,
        service: u8::try_from(field(SERVICE_SHIFT, 3)).ok()?,
        instance: u8::try_from(field(INSTANCE_SHIFT, 7)).ok()?,
        sequence: u16::try_from(field(0, 12)).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_packed_unpacks(millis in 1u64..1 << 41, service in 0u8..8, instance in 0u8..128, sequence in 0u16..4096) {
            let parts = Parts { millis, service, instance, sequence };
            let id = pack(parts).unwrap();
            prop_assert!(id > 0);
            prop_assert_eq!(unpack(id), Some(parts));
        }
    }

    #[test]
    fn the_layout_is_the_one_in_the_log() {
        let parts = Parts { millis: 1, service: 1, instance: 1, sequence: 1 };
        assert_eq!(pack(parts), Some((1 << 22) | (1 << 19) | (1 << 12) | 1));
    }

    #[test]
    fn a_field_out_of_its_bits_is_refused() {
        let parts = Parts { millis: 1, service: 0, instance: 0, sequence: 0 };
        assert_eq!(pack(Parts { millis: 1 << 41, ..parts }), None);
        assert_eq!(pack(Parts { service: 8, ..parts }), None);
        assert_eq!(pack(Parts { instance: 128, ..parts }), None);
        assert_eq!(pack(Parts { sequence: 4096, ..parts }), None);
        assert_eq!(pack(Parts { millis: 0, ..parts }), None);
        assert_eq!(unpack(-1), None);
    }
}
