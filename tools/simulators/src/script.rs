//! What each `pm_…` token and each plan makes of a charge. Pure: a script is fixed when the charge is accepted and
//! stored with it, so that a restart goes on with it.

use serde::{Deserialize, Serialize};

use crate::plan::{GatewayMode, Turn};

/// How long `pm_slow` takes, in milliseconds.
const SLOW_MS: u64 = 3_000;
/// How long after the capture `pm_late_decline` contradicts it, in milliseconds.
pub(crate) const CONTRADICTION_MS: u64 = 300;

/// Status of a charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ChargeStatus {
    /// Accepted; the gateway reaches an outcome by itself.
    Requested,
    /// Accepted; somebody else (a customer, a bank) is waited for.
    Pending,
    Captured,
    Declined,
    Failed,
    Cancelled,
}

impl ChargeStatus {
    /// True for what can no longer change.
    pub(crate) fn is_final(self) -> bool {
        !matches!(self, Self::Requested | Self::Pending)
    }
}

/// The life of a charge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Script {
    /// What happens by itself. None: it waits for a customer or a cancel call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) outcome: Option<Outcome>,
    /// What a cancel call finds that comes before the outcome.
    pub(crate) if_cancelled: ChargeStatus,
    /// Whether a customer can pay on the hosted page.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) checkout: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) telling: Telling,
}

/// What a charge comes to, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) status: ChargeStatus,
    /// Minor units taken above what was asked.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) surplus: i64,
    /// Milliseconds after the charge was accepted.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) delay_ms: u64,
}

/// How an outcome is told by callbacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Telling {
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) style: Style,
    /// The first callback is tried before the call is answered.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) before_answer: bool,
    /// Callbacks gather for so many milliseconds and are sent newest first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gather_ms: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Style {
    /// One callback.
    #[default]
    Once,
    /// None.
    Never,
    /// The same event is delivered twice: one event ID, the same bytes.
    Repeated,
    /// Two events with IDs of their own tell the same.
    Double,
    /// After the outcome's event a second one, with an ID of its own, claims a decline.
    Contradicted,
}

impl Script {
    fn outcome(status: ChargeStatus) -> Self {
        Self {
            outcome: Some(Outcome { status, surplus: 0, delay_ms: 0 }),
            if_cancelled: ChargeStatus::Cancelled,
            checkout: false,
            telling: Telling::default(),
        }
    }

    fn waiting(if_cancelled: ChargeStatus) -> Self {
        Self { outcome: None, if_cancelled, checkout: false, telling: Telling::default() }
    }

    fn told(mut self, style: Style) -> Self {
        self.telling.style = style;
        self
    }

    /// The script of a token. The gateway takes a token that it does not know and fails the charge.
    pub(crate) fn of_token(payment_method: &str) -> Self {
        use ChargeStatus::{Cancelled, Captured, Declined, Failed};
        match payment_method {
            "pm_ok" => Self::outcome(Captured),
            "pm_declined" => Self::outcome(Declined),
            "pm_slow" => {
                let mut script = Self::outcome(Captured);
                script.delay(SLOW_MS);
                script
            }
            "pm_twice" => Self::outcome(Captured).told(Style::Repeated),
            "pm_late_decline" => Self::outcome(Captured).told(Style::Contradicted),
            "pm_early" => {
                let mut script = Self::outcome(Captured);
                script.telling.before_answer = true;
                script
            }
            "pm_wrong_amount" => {
                let mut script = Self::outcome(Captured);
                script.take_too_much();
                script
            }
            "pm_never" => Self::waiting(Cancelled),
            "pm_late" => Self::waiting(Captured),
            "pm_checkout" => Self { checkout: true, ..Self::waiting(Cancelled) },
            // pm_failed is the documented way to name none.
            _ => Self::outcome(Failed),
        }
    }

    /// Changes it as a plan asks.
    pub(crate) fn under(mut self, turn: Turn<GatewayMode>) -> Self {
        match turn.mode {
            GatewayMode::Slow => self.delay(delay_ms(turn)),
            GatewayMode::WrongAmount => self.take_too_much(),
            _ => self.telling = self.telling.under(turn),
        }
        self
    }

    fn delay(&mut self, delay_ms: u64) {
        if let Some(outcome) = &mut self.outcome {
            outcome.delay_ms = delay_ms;
        }
    }

    fn take_too_much(&mut self) {
        if let Some(outcome) = &mut self.outcome {
            outcome.surplus = 1;
        }
    }

    /// Status before anything has happened.
    pub(crate) fn first_status(&self) -> ChargeStatus {
        match self.outcome {
            Some(_) => ChargeStatus::Requested,
            None => ChargeStatus::Pending,
        }
    }
}

impl Telling {
    /// Changes it as a plan asks.
    pub(crate) fn under(mut self, turn: Turn<GatewayMode>) -> Self {
        match turn.mode {
            GatewayMode::Silent => self.style = Style::Never,
            GatewayMode::Double => self.style = Style::Double,
            GatewayMode::BeforeAnswer => self.before_answer = true,
            GatewayMode::OutOfOrder => self.gather_ms = Some(delay_ms(turn)),
            GatewayMode::Normal
            | GatewayMode::Slow
            | GatewayMode::WrongAmount
            | GatewayMode::Down
            | GatewayMode::Error
            | GatewayMode::SlowAnswer
            | GatewayMode::CutAnswer => {}
        }
        self
    }
}

/// The delay that a plan's turn asks for, in milliseconds.
pub(crate) fn delay_ms(turn: Turn<GatewayMode>) -> u64 {
    let delay = turn.delay.unwrap_or(turn.mode.default_delay());
    u64::try_from(delay.as_millis()).expect("plans are limited to minutes")
}

/// Stored fields that say nothing are left out.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_token_fails() {
        let script = Script::of_token("pm_from_elsewhere");
        assert_eq!(script.outcome.map(|outcome| outcome.status), Some(ChargeStatus::Failed));
        assert_eq!(Script::of_token("pm_failed"), Script::of_token("pm_from_elsewhere"));
    }

    #[test]
    fn only_a_late_charge_is_captured_when_cancelled() {
        for token in ["pm_ok", "pm_slow", "pm_never", "pm_checkout"] {
            assert_eq!(Script::of_token(token).if_cancelled, ChargeStatus::Cancelled, "{token}");
        }
        assert_eq!(Script::of_token("pm_late").if_cancelled, ChargeStatus::Captured);
    }

    #[test]
    fn a_plan_changes_only_what_it_names() {
        let turn = |mode| Turn { mode, delay: None };
        let slow = Script::of_token("pm_ok").under(turn(GatewayMode::Slow));
        assert_eq!(slow.outcome.unwrap().delay_ms, 3_000);
        assert_eq!(slow.telling, Telling::default());
        let silent = Script::of_token("pm_ok").under(turn(GatewayMode::Silent));
        assert_eq!(silent.telling.style, Style::Never);
        assert_eq!(silent.outcome, Script::of_token("pm_ok").outcome);
        assert_eq!(Script::of_token("pm_never").under(turn(GatewayMode::Slow)), Script::of_token("pm_never"));
    }

    #[test]
    fn a_stored_script_reads_back() {
        for token in ["pm_ok", "pm_slow", "pm_twice", "pm_early", "pm_wrong_amount", "pm_checkout", "pm_late"] {
            let script = Script::of_token(token);
            let json = serde_json::to_string(&script).unwrap();
            assert_eq!(serde_json::from_str::<Script>(&json).unwrap(), script, "{json}");
        }
    }
}
