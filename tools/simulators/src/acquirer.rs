//! Carries out what the rules decide: writes the ledger, then starts what follows (outcomes that come later, callbacks).
//! It knows no HTTP: calls arrive parsed, callbacks leave through the courier.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::books::{Books, ChargeView, Error, RefundStatus, RefundView};
use crate::clock::now_ms;
use crate::courier::Courier;
use crate::entries::Subject;
use crate::listing::{Page, Window};
use crate::rules::{ChargeOrder, RefundOrder};
use crate::script::{ChargeStatus, Script, Telling};

/// The gateway behind its API.
#[derive(Debug)]
pub(crate) struct Acquirer {
    books: Mutex<Books>,
    pub(crate) courier: Courier,
    /// Subjects whose callbacks gather, in the order of their outcomes.
    pub(crate) gathered: Mutex<Vec<Subject>>,
    pub(crate) runtime: Handle,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

/// An accepted call: what to answer, and what to wait for before answering.
#[derive(Debug)]
pub(crate) struct Accepted<View> {
    pub(crate) view: View,
    pub(crate) first_try: Option<oneshot::Receiver<()>>,
}

impl Acquirer {
    /// Opens the ledger and goes on with what was under way. Must be called on a tokio runtime, which later runs the
    /// callbacks.
    ///
    /// # Errors
    /// As [`Journal::open`]; a line that is no entry.
    pub(crate) fn open(path: &Path, courier: Courier, stop: CancellationToken) -> anyhow::Result<Arc<Self>> {
        let books = Books::open(path)?;
        let unfinished = books.unfinished();
        let acquirer = Arc::new(Self {
            books: Mutex::new(books),
            courier,
            gathered: Mutex::new(Vec::new()),
            runtime: Handle::current(),
            tasks: TaskTracker::new(),
            stop,
        });
        for subject in unfinished {
            drop(acquirer.follow_up(subject));
        }
        Ok(acquirer)
    }

    /// Accepts a charge.
    ///
    /// # Errors
    /// Refused, overloaded, or the ledger could not be written.
    pub(crate) fn charge(self: &Arc<Self>, order: ChargeOrder, script: Script) -> Result<Accepted<ChargeView>, Error> {
        let key = order.key.clone();
        let first = script.first_status();
        let (mut view, fresh) = {
            let mut books = self.books();
            let entries = books.ledger().charge(order, script, now_ms(), &mut new_id)?;
            let fresh = !entries.is_empty();
            books.admit(fresh)?;
            books.enter(entries)?;
            (books.charge_view(&key)?, fresh)
        };
        if !fresh {
            return Ok(Accepted { view, first_try: None });
        }
        // The outcome is told by the callback, as a real gateway does; the answer only says that the charge was taken.
        view.status = first;
        Ok(Accepted { view, first_try: self.follow_up(Subject::Charge(key)) })
    }

    /// Whether a charge of this key exists.
    pub(crate) fn knows_charge(&self, key: &str) -> bool {
        self.books().ledger().charges.contains_key(key)
    }

    /// Whether a refund of this key exists.
    pub(crate) fn knows_refund(&self, key: &str) -> bool {
        self.books().ledger().refunds.contains_key(key)
    }

    /// Gives a charge up; the answer is final.
    ///
    /// # Errors
    /// The ledger could not be written.
    pub(crate) fn cancel(&self, key: &str) -> Result<ChargeView, Error> {
        let mut books = self.books();
        let entries = books.ledger().cancel(key, now_ms());
        books.enter(entries)?;
        books.charge_view(key)
    }

    /// What a customer did on the hosted page.
    ///
    /// # Errors
    /// Unknown, not payable, or the ledger could not be written.
    pub(crate) fn pay(self: &Arc<Self>, key: &str, status: ChargeStatus) -> Result<ChargeView, Error> {
        let (view, fresh) = {
            let mut books = self.books();
            let entries = books.ledger().pay(key, status, now_ms(), &mut new_id)?;
            let fresh = !entries.is_empty();
            books.enter(entries)?;
            (books.charge_view(key)?, fresh)
        };
        // A button pressed twice must not start the same callbacks twice.
        if fresh {
            drop(self.follow_up(Subject::Charge(key.to_owned())));
        }
        Ok(view)
    }

    /// Accepts a refund that succeeds after `delay_ms`.
    ///
    /// # Errors
    /// Refused, overloaded, or the ledger could not be written.
    pub(crate) fn refund(
        self: &Arc<Self>,
        order: RefundOrder,
        delay_ms: u64,
        telling: Telling,
    ) -> Result<Accepted<RefundView>, Error> {
        let key = order.key.clone();
        let (mut view, fresh) = {
            let mut books = self.books();
            let entries = books.ledger().refund(order, delay_ms, telling, now_ms(), &mut new_id)?;
            let fresh = !entries.is_empty();
            books.admit(fresh)?;
            books.enter(entries)?;
            (books.refund_view(&key)?, fresh)
        };
        if !fresh {
            return Ok(Accepted { view, first_try: None });
        }
        view.status = RefundStatus::Pending;
        view.refunded = 0;
        Ok(Accepted { view, first_try: self.follow_up(Subject::Refund(key)) })
    }

    /// # Errors
    /// Unknown.
    pub(crate) fn get_charge(&self, key: &str) -> Result<ChargeView, Error> {
        self.books().charge_view(key)
    }

    /// # Errors
    /// Unknown.
    pub(crate) fn get_refund(&self, key: &str) -> Result<RefundView, Error> {
        self.books().refund_view(key)
    }

    /// See [`Books::charges`].
    pub(crate) fn charges(&self, window: Window) -> Page<ChargeView> {
        self.books().charges(window)
    }

    /// See [`Books::refunds`].
    pub(crate) fn refunds(&self, window: Window) -> Page<RefundView> {
        self.books().refunds(window)
    }

    /// Waits for the tasks, which end once `stop` is cancelled, and gives the ledger's lock back.
    pub(crate) async fn close(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.books().unlock();
    }

    pub(crate) fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().expect("no task panics while it holds the books")
    }
}

/// Event IDs are random, so that a wiped ledger never repeats one that a merchant remembers.
pub(crate) fn new_id() -> String {
    format!("evt_{}", Uuid::new_v4().simple())
}
