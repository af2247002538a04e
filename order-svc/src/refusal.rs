//! Why a command is refused, with the codes that events and problems write.
//!
//! When it is, the rules of [`crate::domain`] say.

use crate::state::Status;

/// Why a command is refused, or why a record cannot be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing was ever placed under this ID.
    #[error("there is no such order")]
    UnknownOrder,
    /// Another command has placed this order already.
    #[error("the order exists already")]
    OrderExists,
    /// The order changed since the caller looked.
    #[error("the order has version {current}, not {expected}")]
    VersionMismatch {
        /// The version that the caller named.
        expected: i64,
        /// The version that the order has.
        current: i64,
    },
    /// The order is final.
    #[error("the order is {}", .0.as_str())]
    OrderNotPlaced(Status),
}

impl Refusal {
    /// The code of [`Self::VersionMismatch`], whatever the versions.
    pub const VERSION_MISMATCH: &str = "VERSION_MISMATCH";

    /// The reason as `CommandRefused` and problems write it.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownOrder => "UNKNOWN_ORDER",
            Self::OrderExists => "ORDER_EXISTS",
            Self::VersionMismatch { .. } => Self::VERSION_MISMATCH,
            Self::OrderNotPlaced(_) => "ORDER_NOT_PLACED",
        }
    }

    /// True when no state that can follow would take the command: versions only rise, and final is final.
    #[must_use]
    pub fn is_for_good(&self) -> bool {
        match self {
            Self::OrderNotPlaced(_) | Self::OrderExists => true,
            Self::VersionMismatch { expected, current } => expected < current,
            Self::UnknownOrder => false,
        }
    }
}
