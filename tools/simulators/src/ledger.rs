//! The books of charges and refunds: a fold of the ledger's entries. `rules` decides which entries there are; reading
//! them back after a restart gives the same books. No clock, no IDs, no IO.

use indexmap::IndexMap;

use crate::entries::{Callback, Entry, Subject};
use crate::script::{ChargeStatus, Script, Telling};

#[derive(Debug, Clone)]
pub(crate) struct Charge {
    /// What was asked for; `amount` is what was taken.
    pub(crate) asked: i64,
    pub(crate) amount: i64,
    pub(crate) currency: String,
    pub(crate) payment_method: String,
    pub(crate) callback_url: Option<String>,
    pub(crate) status: ChargeStatus,
    pub(crate) script: Script,
    accepted_at: i64,
    /// Sum of its refunds, those under way included.
    pub(crate) refunds: i64,
    pub(crate) refunded: i64,
    pub(crate) untold: Vec<Callback>,
}

impl Charge {
    /// A charge of which only a cancel call is known, so far: `XXX` is ISO 4217 for "no currency".
    fn new(accepted_at: i64, amount: i64, script: Script) -> Self {
        Self {
            asked: amount,
            amount,
            currency: "XXX".to_owned(),
            payment_method: String::new(),
            callback_url: None,
            status: script.first_status(),
            script,
            accepted_at,
            refunds: 0,
            refunded: 0,
            untold: Vec::new(),
        }
    }

    /// Whether a cancel call came before it.
    pub(crate) fn is_barred(&self) -> bool {
        self.payment_method.is_empty()
    }

    /// When it reaches its outcome by itself; none when it has one or waits for somebody.
    pub(crate) fn due_at(&self) -> Option<i64> {
        let outcome = self.script.outcome.as_ref().filter(|_| !self.status.is_final())?;
        Some(self.accepted_at.saturating_add_unsigned(outcome.delay_ms))
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Refund {
    pub(crate) charge_key: String,
    pub(crate) amount: i64,
    pub(crate) succeeded: bool,
    pub(crate) telling: Telling,
    accepted_at: i64,
    delay_ms: u64,
    pub(crate) untold: Vec<Callback>,
}

impl Refund {
    /// When it succeeds; none when it has.
    pub(crate) fn due_at(&self) -> Option<i64> {
        (!self.succeeded).then(|| self.accepted_at.saturating_add_unsigned(self.delay_ms))
    }
}

/// The books.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) charges: IndexMap<String, Charge>,
    pub(crate) refunds: IndexMap<String, Refund>,
    /// Number of callbacks not yet told.
    pub(crate) untold: usize,
}

impl Ledger {
    /// Enters one entry. Total: `rules` has judged it already.
    pub(crate) fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Charged { at, key, amount, currency, payment_method, callback_url, script } => {
                let charge = Charge { currency, payment_method, callback_url, ..Charge::new(at, amount, script) };
                self.charges.entry(key).or_insert(charge);
            }
            Entry::Barred { at, key } => {
                let charge =
                    Charge { status: ChargeStatus::Cancelled, ..Charge::new(at, 0, Script::of_token("pm_never")) };
                self.charges.entry(key).or_insert(charge);
            }
            Entry::Settled { key, status, amount, callbacks, .. } => {
                self.settled(&key, status, amount, callbacks);
            }
            Entry::Refunded { at, key, charge_key, amount, delay_ms, telling } => {
                if let Some(charge) = self.charges.get_mut(&charge_key) {
                    charge.refunds += amount;
                }
                let refund = Refund {
                    charge_key,
                    amount,
                    succeeded: false,
                    telling,
                    accepted_at: at,
                    delay_ms,
                    untold: Vec::new(),
                };
                self.refunds.insert(key, refund);
            }
            Entry::RefundSettled { key, callbacks, .. } => self.refund_settled(&key, callbacks),
            Entry::Told { subject, .. } => self.told(&subject),
        }
    }

    fn settled(&mut self, key: &str, status: ChargeStatus, amount: i64, callbacks: Vec<Callback>) {
        let Some(charge) = self.charges.get_mut(key).filter(|charge| !charge.status.is_final()) else {
            return;
        };
        charge.status = status;
        charge.amount = amount;
        self.untold += callbacks.len();
        charge.untold = callbacks;
    }

    fn refund_settled(&mut self, key: &str, callbacks: Vec<Callback>) {
        let Some(refund) = self.refunds.get_mut(key).filter(|refund| !refund.succeeded) else {
            return;
        };
        refund.succeeded = true;
        self.untold += callbacks.len();
        refund.untold = callbacks;
        if let Some(charge) = self.charges.get_mut(&refund.charge_key) {
            charge.refunded += refund.amount;
        }
    }

    fn told(&mut self, subject: &Subject) {
        let queue = match subject {
            Subject::Charge(key) => self.charges.get_mut(key).map(|charge| &mut charge.untold),
            Subject::Refund(key) => self.refunds.get_mut(key).map(|refund| &mut refund.untold),
        };
        if let Some(queue) = queue.filter(|queue| !queue.is_empty()) {
            self.untold -= 1;
            queue.remove(0);
            if queue.is_empty() {
                queue.shrink_to_fit();
            }
        }
    }

    /// The queue of callbacks about a charge or refund.
    pub(crate) fn untold(&self, subject: &Subject) -> &[Callback] {
        match subject {
            Subject::Charge(key) => self.charges.get(key).map_or(&[], |charge| &charge.untold),
            Subject::Refund(key) => self.refunds.get(key).map_or(&[], |refund| &refund.untold),
        }
    }
}
