//! What the records of the toy service's topics hold.

use events::time::Timestamp;
use serde::{Deserialize, Serialize};

/// The type of the own events.
pub(crate) const HAPPENED: &str = "toy.Happened";

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
    /// Asks for the first effect.
    Call,
    /// Asks for both effects.
    CallTwice,
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

/// An own event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Happened {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) key: i64,
    pub(crate) what: String,
    pub(crate) add: i64,
    pub(crate) due_at: Option<i64>,
    pub(crate) settles: bool,
    /// Asks for so many of the effects.
    pub(crate) calls: usize,
    /// Settles this one.
    pub(crate) answers: Option<usize>,
    pub(crate) command: Option<i64>,
    pub(crate) refused: Option<String>,
}

/// What comes of it.
pub(crate) fn asked(ask: &Ask, now: Timestamp, from: &str) -> Happened {
    let event = Happened { kind: HAPPENED.to_owned(), key: ask.key, ..Happened::default() };
    match &ask.act {
        Act::Add(amount) => Happened { what: format!("{from} {}: add {amount}", ask.id), add: *amount, ..event },
        Act::Refuse => Happened { what: format!("{from} {}: no", ask.id), refused: Some("NO".to_owned()), ..event },
        Act::Remind(after) => Happened { what: "remind".to_owned(), due_at: Some(now.0 + after), ..event },
        Act::Settle => Happened { what: "settle".to_owned(), settles: true, ..event },
        Act::Call => Happened { what: "call".to_owned(), calls: 1, ..event },
        Act::CallTwice => Happened { what: "call twice".to_owned(), calls: 2, ..event },
        Act::Ignore | Act::Fail => Happened { what: format!("{from} {}: mended", ask.id), ..event },
    }
}
