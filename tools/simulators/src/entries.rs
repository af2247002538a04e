//! What the ledger file holds: one entry a line, in the order of decision. It decides nothing; a field once written is
//! read for ever, so new ones have defaults.

use serde::{Deserialize, Serialize};

use crate::script::{ChargeStatus, Script, Telling, is_default};

/// One line of the ledger file. Times are milliseconds since 1970-01-01 UTC, amounts minor units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Entry {
    Charged {
        at: i64,
        key: String,
        amount: i64,
        currency: String,
        payment_method: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        callback_url: Option<String>,
        script: Script,
    },
    /// A charge reached its outcome; `amount` was taken or, if none was, asked.
    Settled {
        at: i64,
        key: String,
        status: ChargeStatus,
        amount: i64,
        callbacks: Vec<Callback>,
    },
    /// A charge was cancelled before it came.
    Barred {
        at: i64,
        key: String,
    },
    Refunded {
        at: i64,
        key: String,
        charge_key: String,
        amount: i64,
        #[serde(default, skip_serializing_if = "is_default")]
        delay_ms: u64,
        #[serde(default, skip_serializing_if = "is_default")]
        telling: Telling,
    },
    RefundSettled {
        at: i64,
        key: String,
        callbacks: Vec<Callback>,
    },
    /// The first callback in the subject's queue was accepted, or given up.
    Told {
        subject: Subject,
        #[serde(default, skip_serializing_if = "is_default")]
        given_up: bool,
    },
}

/// What a callback is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Subject {
    Charge(String),
    Refund(String),
}

/// An event that the merchant is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Callback {
    pub(crate) event_id: String,
    #[serde(rename = "type")]
    pub(crate) kind: EventType,
    pub(crate) amount: i64,
    pub(crate) occurred_at: i64,
    /// Milliseconds to wait after the one before it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) delay_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum EventType {
    #[serde(rename = "charge.captured")]
    ChargeCaptured,
    #[serde(rename = "charge.declined")]
    ChargeDeclined,
    #[serde(rename = "charge.failed")]
    ChargeFailed,
    #[serde(rename = "charge.cancelled")]
    ChargeCancelled,
    #[serde(rename = "refund.succeeded")]
    RefundSucceeded,
}
