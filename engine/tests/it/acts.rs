//! What the records of the toy service's input topics hold.

use serde::{Deserialize, Serialize};

/// What a command or a foreign event asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Act {
    /// Adds to the sum.
    Add(i64),
    /// Is refused.
    Refuse,
    /// Sets the timer so many milliseconds from now.
    Remind(i64),
    /// Clears the timer.
    Settle,
    /// Asks for the effect.
    Call,
    /// Changes nothing.
    Ignore,
    /// Fails until the outside is mended.
    Fail,
}

/// A record of an input topic.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ask {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) key: i64,
    /// The command's ID, or the number of the foreign event.
    pub(crate) id: i64,
    pub(crate) act: Act,
}
