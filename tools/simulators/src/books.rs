//! The ledger with its file: what is entered was written before. It shows charges and refunds as the API does; who may
//! change them is `rules`.

use std::io;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use crate::courier::Letter;
use crate::entries::{Entry, Subject};
use crate::journal::Journal;
use crate::ledger::{Charge, Ledger};
use crate::listing::{Page, Window};
use crate::rules::Refusal;
use crate::script::{ChargeStatus, Telling};

/// Callbacks that may wait to be told; above it new charges and refunds are put off.
const UNTOLD_MAX: usize = 100_000;

/// The books and their file.
#[derive(Debug)]
pub(crate) struct Books {
    ledger: Ledger,
    journal: Journal,
}

/// Why a call was not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("too many callbacks wait to be delivered")]
    Overloaded,
    #[error(transparent)]
    Storage(#[from] io::Error),
}

/// A charge as the API shows it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ChargeView {
    pub(crate) key: String,
    pub(crate) status: ChargeStatus,
    /// Minor units: taken or, as long as nothing is, asked for.
    pub(crate) amount: i64,
    pub(crate) currency: String,
    pub(crate) refunded: i64,
    /// Whether the hosted page takes a payment for it.
    #[serde(skip)]
    pub(crate) payable: bool,
}

/// A refund as the API shows it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct RefundView {
    pub(crate) key: String,
    pub(crate) charge_key: String,
    pub(crate) status: RefundStatus,
    pub(crate) amount: i64,
    pub(crate) currency: String,
    pub(crate) refunded: i64,
}

#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RefundStatus {
    Pending,
    Succeeded,
}

impl Books {
    /// Reads the file.
    ///
    /// # Errors
    /// As [`Journal::open`]; a line that is no entry.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let mut ledger = Ledger::default();
        let journal = Journal::open(path, |line| {
            ledger.apply(serde_json::from_slice(line).context("not an entry of the ledger")?);
            Ok(())
        })?;
        Ok(Self { ledger, journal })
    }

    /// What is decided upon.
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Charges and refunds that wait for their time or have callbacks to be told.
    pub(crate) fn unfinished(&self) -> Vec<Subject> {
        let charges = self.ledger.charges.iter();
        let charges = charges.filter(|(_, charge)| charge.due_at().is_some() || !charge.untold.is_empty());
        let refunds = self.ledger.refunds.iter();
        let refunds = refunds.filter(|(_, refund)| refund.due_at().is_some() || !refund.untold.is_empty());
        charges
            .map(|(key, _)| Subject::Charge(key.clone()))
            .chain(refunds.map(|(key, _)| Subject::Refund(key.clone())))
            .collect()
    }

    /// Charges in the order of their arrival, those barred by a cancel call included.
    pub(crate) fn charges(&self, window: Window) -> Page<ChargeView> {
        let all = &self.ledger.charges;
        let range = window.range(all.len());
        let next = range.end;
        let items = range.filter_map(|n| all.get_index(n)).map(|(key, charge)| charge_view(key, charge));
        Page::new(items.collect(), next, all.len())
    }

    /// Refunds in the order of their arrival.
    pub(crate) fn refunds(&self, window: Window) -> Page<RefundView> {
        let all = &self.ledger.refunds;
        let range = window.range(all.len());
        let next = range.end;
        let items = range.filter_map(|n| all.get_index(n)).filter_map(|(key, _)| self.refund_view(key).ok());
        Page::new(items.collect(), next, all.len())
    }

    /// The subject's first callback that was not told.
    pub(crate) fn next_letter(&self, subject: &Subject) -> Option<Letter> {
        let callback = self.ledger.untold(subject).first()?;
        let (key, charge) = match subject {
            Subject::Charge(key) => (key, self.ledger.charges.get(key)?),
            Subject::Refund(key) => {
                let refund = self.ledger.refunds.get(key)?;
                (key, self.ledger.charges.get(&refund.charge_key)?)
            }
        };
        Some(Letter::new(charge.callback_url.clone()?, key, &charge.currency, callback))
    }

    /// See [`Journal::unlock`].
    pub(crate) fn unlock(&self) {
        self.journal.unlock();
    }

    /// Refuses new work while too many callbacks wait.
    pub(crate) fn admit(&self, fresh: bool) -> Result<(), Error> {
        if fresh && self.ledger.untold >= UNTOLD_MAX { Err(Error::Overloaded) } else { Ok(()) }
    }

    /// Writes entries, then enters them: nobody is shown what a restart would not find.
    pub(crate) fn enter(&mut self, entries: Vec<Entry>) -> Result<(), Error> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut lines = Vec::with_capacity(512);
        for entry in &entries {
            serde_json::to_writer(&mut lines, entry).map_err(io::Error::from)?;
            lines.push(b'\n');
        }
        self.journal.append(&lines)?;
        for entry in entries {
            self.ledger.apply(entry);
        }
        Ok(())
    }

    /// When its outcome is due, whether callbacks wait, and how they are sent.
    pub(crate) fn state_of(&self, subject: &Subject) -> Option<(Option<i64>, bool, Telling)> {
        Some(match subject {
            Subject::Charge(key) => {
                let charge = self.ledger.charges.get(key)?;
                (charge.due_at(), !charge.untold.is_empty(), charge.script.telling)
            }
            Subject::Refund(key) => {
                let refund = self.ledger.refunds.get(key)?;
                (refund.due_at(), !refund.untold.is_empty(), refund.telling)
            }
        })
    }

    pub(crate) fn charge_view(&self, key: &str) -> Result<ChargeView, Error> {
        let charge = self.ledger.charges.get(key).ok_or(Refusal::UnknownCharge)?;
        Ok(charge_view(key, charge))
    }

    pub(crate) fn refund_view(&self, key: &str) -> Result<RefundView, Error> {
        let refund = self.ledger.refunds.get(key).ok_or(Refusal::UnknownRefund)?;
        let charge = self.ledger.charges.get(&refund.charge_key).ok_or(Refusal::UnknownCharge)?;
        Ok(RefundView {
            key: key.to_owned(),
            charge_key: refund.charge_key.clone(),
            status: if refund.succeeded { RefundStatus::Succeeded } else { RefundStatus::Pending },
            amount: refund.amount,
            currency: charge.currency.clone(),
            refunded: if refund.succeeded { refund.amount } else { 0 },
        })
    }
}

fn charge_view(key: &str, charge: &Charge) -> ChargeView {
    ChargeView {
        key: key.to_owned(),
        status: charge.status,
        amount: charge.amount,
        currency: charge.currency.clone(),
        refunded: charge.refunded,
        payable: charge.script.checkout && !charge.status.is_final(),
    }
}
