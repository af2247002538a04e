//! Trouble scripted at run time by `POST /admin/plan`. One plan is in force at a time; it does not survive a restart.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::problem::Problem;

const DELAY_MS_MAX: u64 = 600_000;

/// What a test asks of a simulator until further notice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan<Mode> {
    /// What goes wrong.
    pub mode: Mode,
    /// How long a mode that waits does, in milliseconds; each mode has a default.
    #[serde(default)]
    pub delay_ms: Option<u64>,
    /// For how many calls (gateway) or messages (sink) it holds; then all is normal again. None: until it is replaced.
    #[serde(default)]
    pub count: Option<u64>,
    /// To which it is limited: keys of charges or refunds (gateway); recipients, message IDs or a channel (sink).
    #[serde(default)]
    pub keys: Option<Vec<String>>,
}

/// How the gateway may misbehave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GatewayMode {
    /// As the token says.
    #[default]
    Normal,
    /// New charges and refunds: the outcome comes `delay_ms` (3,000) after the answer.
    Slow,
    /// New charges and refunds: the outcome is reached, no callback tells of it.
    Silent,
    /// New charges and refunds: two callbacks with different event IDs.
    Double,
    /// New charges and refunds: the callback is delivered (or has failed once) before the call is answered.
    BeforeAnswer,
    /// New charges and refunds: callbacks gather for `delay_ms` (1,000) and are then sent newest first.
    OutOfOrder,
    /// New charges: one minor unit too much is captured.
    WrongAmount,
    /// Every call of the API: the connection is closed, nothing is done.
    Down,
    /// Every call of the API: 500, nothing is done.
    Error,
    /// Every call of the API: done, answered after `delay_ms` (3,000).
    SlowAnswer,
    /// Every call of the API: done, the connection is closed instead of an answer.
    CutAnswer,
}

impl GatewayMode {
    /// True where it concerns every call, false where only new charges and refunds.
    pub(crate) fn concerns_calls(self) -> bool {
        match self {
            Self::Down | Self::Error | Self::SlowAnswer | Self::CutAnswer => true,
            Self::Normal
            | Self::Slow
            | Self::Silent
            | Self::Double
            | Self::BeforeAnswer
            | Self::OutOfOrder
            | Self::WrongAmount => false,
        }
    }

    /// The delay when the plan names none.
    pub(crate) fn default_delay(self) -> Duration {
        match self {
            Self::OutOfOrder => Duration::from_secs(1),
            _ => Duration::from_secs(3),
        }
    }
}

/// How the sink may misbehave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SinkMode {
    /// Everything is taken.
    #[default]
    Normal,
    /// A temporary no: SMTP 451, SMS 429.
    #[serde(rename = "reject_4xx")]
    Reject4xx,
    /// A final no: SMTP 554, SMS 422.
    #[serde(rename = "reject_5xx")]
    Reject5xx,
    /// Connections are closed, nothing is taken.
    Down,
    /// Taken, answered after `delay_ms` (3,000).
    Slow,
    /// Taken, the connection is closed instead of an answer.
    CutAnswer,
}

/// A plan's effect on one call or message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Turn<Mode> {
    pub(crate) mode: Mode,
    pub(crate) delay: Option<Duration>,
}

impl<Mode: Copy + Default + PartialEq> Default for Plan<Mode> {
    fn default() -> Self {
        Self { mode: Mode::default(), delay_ms: None, count: None, keys: None }
    }
}

impl<Mode: Copy + Default + PartialEq> Plan<Mode> {
    /// # Errors
    /// 422 that names the field.
    pub(crate) fn check(self) -> Result<Self, Problem> {
        if self.count == Some(0) {
            return Err(Problem::invalid("count", "must be positive, or null for no end"));
        }
        if self.delay_ms.is_some_and(|delay| delay > DELAY_MS_MAX) {
            return Err(Problem::invalid("delay_ms", &format!("is at most {DELAY_MS_MAX}")));
        }
        Ok(self)
    }

    /// Uses the plan up by one where it concerns one of these names and `wanted` agrees.
    pub(crate) fn take(&mut self, names: &[&str], wanted: impl Fn(Mode) -> bool) -> Option<Turn<Mode>> {
        if self.mode == Mode::default() || !wanted(self.mode) {
            return None;
        }
        if let Some(keys) = &self.keys
            && !keys.iter().any(|key| names.contains(&key.as_str()))
        {
            return None;
        }
        let turn = Turn { mode: self.mode, delay: self.delay_ms.map(Duration::from_millis) };
        match self.count.as_mut() {
            Some(1) => *self = Self::default(),
            Some(count) => *count -= 1,
            None => {}
        }
        Some(turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(json: &str) -> Plan<GatewayMode> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_count_is_used_up() {
        let mut plan = plan(r#"{"mode":"silent","count":2}"#);
        assert!(plan.take(&["a"], |_| true).is_some());
        assert!(plan.take(&["b"], |_| true).is_some());
        assert_eq!(plan.take(&["c"], |_| true), None);
        assert_eq!(plan, Plan::default());
    }

    #[test]
    fn keys_limit_it_and_others_use_nothing_up() {
        let mut plan = plan(r#"{"mode":"down","count":1,"keys":["charge:1"]}"#);
        assert_eq!(plan.take(&["charge:2"], |_| true), None);
        assert_eq!(plan.take(&["charge:1"], |mode| !mode.concerns_calls()), None);
        assert!(plan.take(&["charge:1"], GatewayMode::concerns_calls).is_some());
        assert_eq!(plan.mode, GatewayMode::Normal);
    }

    #[test]
    fn the_documented_names_are_read() {
        for mode in
            ["normal", "slow", "silent", "double", "before_answer", "out_of_order", "wrong_amount", "down", "error"]
        {
            plan(&format!(r#"{{"mode":"{mode}"}}"#));
        }
        for mode in ["normal", "reject_4xx", "reject_5xx", "down", "slow", "cut_answer"] {
            serde_json::from_str::<Plan<SinkMode>>(&format!(r#"{{"mode":"{mode}"}}"#)).unwrap();
        }
        assert!(plan(r#"{"mode":"slow","count":0}"#).check().is_err());
    }
}
