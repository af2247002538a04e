//! The rules of charges and refunds: what a call, a customer or a due time makes of the books. Pure: times and IDs
//! arrive in the input, decisions come out as entries, none where the same was decided before.

use crate::entries::{Callback, Entry, EventType};
use crate::ledger::{Charge, Ledger};
use crate::script::{CONTRADICTION_MS, ChargeStatus, Script, Style, Telling};

/// A charge as the merchant asks for it.
#[derive(Debug, Clone)]
pub(crate) struct ChargeOrder {
    pub(crate) key: String,
    pub(crate) amount: i64,
    pub(crate) currency: String,
    pub(crate) payment_method: String,
    pub(crate) callback_url: Option<String>,
}

/// A refund as the merchant asks for it.
#[derive(Debug, Clone)]
pub(crate) struct RefundOrder {
    pub(crate) key: String,
    pub(crate) charge_key: String,
    pub(crate) amount: i64,
}

/// Why a call is refused; the text is the answer's `detail`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("this key was used with other parameters")]
    KeyReused,
    #[error("the charge was cancelled before it arrived")]
    Cancelled,
    #[error("no such charge")]
    UnknownCharge,
    #[error("no such refund")]
    UnknownRefund,
    #[error("nothing was captured for this charge")]
    NotCaptured,
    #[error("the refunds would exceed what was captured")]
    ExceedsCaptured,
    #[error("this charge cannot be paid on the page, or no longer")]
    NotPayable,
}

/// Makes event IDs.
pub(crate) type NewId<'a> = &'a mut dyn FnMut() -> String;

impl Ledger {
    /// A charge, and its outcome where that is due at once.
    pub(crate) fn charge(
        &self,
        order: ChargeOrder,
        script: Script,
        at: i64,
        id: NewId<'_>,
    ) -> Result<Vec<Entry>, Refusal> {
        if let Some(charge) = self.charges.get(&order.key) {
            if charge.is_barred() {
                return Err(Refusal::Cancelled);
            }
            // The callback URL is no parameter: another instance of the merchant may repeat the call.
            let same = (charge.asked, charge.currency.as_str(), charge.payment_method.as_str())
                == (order.amount, order.currency.as_str(), order.payment_method.as_str());
            return if same { Ok(Vec::new()) } else { Err(Refusal::KeyReused) };
        }
        let ChargeOrder { key, amount, currency, payment_method, callback_url } = order;
        let settled = script.outcome.as_ref().filter(|outcome| outcome.delay_ms == 0).map(|outcome| {
            let told = callback_url.is_some();
            let taken = taken(outcome.status, amount, outcome.surplus);
            let callbacks =
                if told { charge_callbacks(script.telling, outcome.status, taken, at, id) } else { Vec::new() };
            Entry::Settled { at, key: key.clone(), status: outcome.status, amount: taken, callbacks }
        });
        let charged = Entry::Charged { at, key, amount, currency, payment_method, callback_url, script };
        Ok(std::iter::once(charged).chain(settled).collect())
    }

    /// The outcome of a charge, now that it is due.
    pub(crate) fn settle(&self, key: &str, at: i64, id: NewId<'_>) -> Vec<Entry> {
        let Some(charge) = self.charges.get(key).filter(|charge| charge.due_at().is_some_and(|due| due <= at)) else {
            return Vec::new();
        };
        let outcome = charge.script.outcome.as_ref().expect("what is due has an outcome");
        vec![charge.settled(key, outcome.status, outcome.surplus, at, id)]
    }

    /// What the customer does on the hosted page.
    pub(crate) fn pay(&self, key: &str, status: ChargeStatus, at: i64, id: NewId<'_>) -> Result<Vec<Entry>, Refusal> {
        let charge = self.charges.get(key).ok_or(Refusal::UnknownCharge)?;
        if charge.status == status {
            return Ok(Vec::new());
        }
        if !charge.script.checkout || charge.status.is_final() {
            return Err(Refusal::NotPayable);
        }
        Ok(vec![charge.settled(key, status, 0, at, id)])
    }

    /// Gives a charge up; its status afterwards is final. The call's answer tells it, so there is no callback.
    pub(crate) fn cancel(&self, key: &str, at: i64) -> Vec<Entry> {
        let Some(charge) = self.charges.get(key) else {
            return vec![Entry::Barred { at, key: key.to_owned() }];
        };
        if charge.status.is_final() {
            return Vec::new();
        }
        let status = charge.script.if_cancelled;
        vec![Entry::Settled { at, key: key.to_owned(), status, amount: charge.asked, callbacks: Vec::new() }]
    }

    /// A refund and, where that is due at once, its success. `delay_ms` and `telling` are a plan's.
    pub(crate) fn refund(
        &self,
        order: RefundOrder,
        delay_ms: u64,
        telling: Telling,
        at: i64,
        id: NewId<'_>,
    ) -> Result<Vec<Entry>, Refusal> {
        let RefundOrder { key, charge_key, amount } = order;
        if let Some(refund) = self.refunds.get(&key) {
            let same = refund.charge_key == charge_key && refund.amount == amount;
            return if same { Ok(Vec::new()) } else { Err(Refusal::KeyReused) };
        }
        let charge = self.charges.get(&charge_key).ok_or(Refusal::UnknownCharge)?;
        if charge.status != ChargeStatus::Captured {
            return Err(Refusal::NotCaptured);
        }
        if amount > charge.amount - charge.refunds {
            return Err(Refusal::ExceedsCaptured);
        }
        let settled = (delay_ms == 0).then(|| {
            let callbacks = charge.refund_callbacks(telling, amount, at, id);
            Entry::RefundSettled { at, key: key.clone(), callbacks }
        });
        let refunded = Entry::Refunded { at, key, charge_key, amount, delay_ms, telling };
        Ok(std::iter::once(refunded).chain(settled).collect())
    }

    /// The success of a refund, now that it is due.
    pub(crate) fn settle_refund(&self, key: &str, at: i64, id: NewId<'_>) -> Vec<Entry> {
        let Some(refund) = self.refunds.get(key).filter(|refund| refund.due_at().is_some_and(|due| due <= at)) else {
            return Vec::new();
        };
        let callbacks = self.charges[&refund.charge_key].refund_callbacks(refund.telling, refund.amount, at, id);
        vec![Entry::RefundSettled { at, key: key.to_owned(), callbacks }]
    }
}

impl Charge {
    fn settled(&self, key: &str, status: ChargeStatus, surplus: i64, at: i64, id: NewId<'_>) -> Entry {
        let amount = taken(status, self.asked, surplus);
        let told = self.callback_url.is_some();
        let callbacks = if told { charge_callbacks(self.script.telling, status, amount, at, id) } else { Vec::new() };
        Entry::Settled { at, key: key.to_owned(), status, amount, callbacks }
    }

    fn refund_callbacks(&self, telling: Telling, amount: i64, at: i64, id: NewId<'_>) -> Vec<Callback> {
        if self.callback_url.is_none() {
            return Vec::new();
        }
        callbacks(telling, EventType::RefundSucceeded, amount, at, id)
    }
}

fn taken(status: ChargeStatus, asked: i64, surplus: i64) -> i64 {
    if status == ChargeStatus::Captured { asked + surplus } else { asked }
}

fn charge_callbacks(telling: Telling, status: ChargeStatus, amount: i64, at: i64, id: NewId<'_>) -> Vec<Callback> {
    let kind = match status {
        ChargeStatus::Captured => EventType::ChargeCaptured,
        ChargeStatus::Declined => EventType::ChargeDeclined,
        ChargeStatus::Failed => EventType::ChargeFailed,
        ChargeStatus::Cancelled => EventType::ChargeCancelled,
        ChargeStatus::Requested | ChargeStatus::Pending => return Vec::new(),
    };
    callbacks(telling, kind, amount, at, id)
}

fn callbacks(telling: Telling, kind: EventType, amount: i64, occurred_at: i64, id: NewId<'_>) -> Vec<Callback> {
    let mut make = |kind, delay_ms| Callback { event_id: id(), kind, amount, occurred_at, delay_ms };
    let mut queue = match telling.style {
        Style::Never => Vec::new(),
        Style::Once => vec![make(kind, 0)],
        Style::Repeated => vec![make(kind, 0); 2],
        Style::Double => vec![make(kind, 0), make(kind, 0)],
        Style::Contradicted => vec![make(kind, 0), make(EventType::ChargeDeclined, CONTRADICTION_MS)],
    };
    if telling.gather_ms.is_some() {
        queue.reverse();
    }
    queue
}
