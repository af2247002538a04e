//! What follows an entry: outcomes that come later, and callbacks, each in a task of its own. A task that is cut off lost
//! nothing: what it waited for is in the ledger.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::acquirer::{Acquirer, new_id};
use crate::clock::now_ms;
use crate::entries::{Entry, Subject};

impl Acquirer {
    /// Starts what this subject waits for: its outcome later on, or its callbacks now. Where the first callback goes
    /// before the answer, the receiver hears of its first try.
    pub(crate) fn follow_up(self: &Arc<Self>, subject: Subject) -> Option<oneshot::Receiver<()>> {
        let (due_at, untold, telling) = self.books().state_of(&subject)?;
        if let Some(due_at) = due_at {
            let acquirer = Arc::clone(self);
            self.spawn(async move { acquirer.settle_at(subject, due_at).await });
            return None;
        }
        if !untold {
            return None;
        }
        if let Some(gather_ms) = telling.gather_ms {
            self.gather(subject, Duration::from_millis(gather_ms));
            return None;
        }
        let (report, first_try) = oneshot::channel();
        let acquirer = Arc::clone(self);
        self.spawn(async move { acquirer.tell(&subject, Some(report)).await });
        telling.before_answer.then_some(first_try)
    }

    async fn settle_at(self: Arc<Self>, subject: Subject, due_at: i64) {
        let wait_ms = u64::try_from(due_at - now_ms()).unwrap_or(0);
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        let settled = {
            let mut books = self.books();
            let now = now_ms().max(due_at);
            let entries = match &subject {
                Subject::Charge(key) => books.ledger().settle(key, now, &mut new_id),
                Subject::Refund(key) => books.ledger().settle_refund(key, now, &mut new_id),
            };
            books.enter(entries)
        };
        match settled {
            Ok(()) => drop(self.follow_up(subject)),
            Err(error) => tracing::error!(%error, ?subject, "the outcome waits for a restart"),
        }
    }

    /// Puts a subject's callbacks with others; the first one in sends all after the wait, the newest first.
    fn gather(self: &Arc<Self>, subject: Subject, wait: Duration) {
        let mut gathered = self.gathered.lock().expect("nothing panics while it holds the list");
        gathered.push(subject);
        if gathered.len() > 1 {
            return;
        }
        let acquirer = Arc::clone(self);
        self.spawn(async move {
            tokio::time::sleep(wait).await;
            let mut subjects =
                std::mem::take(&mut *acquirer.gathered.lock().expect("nothing panics while it holds the list"));
            while let Some(newest) = subjects.pop() {
                acquirer.tell(&newest, None).await;
            }
        });
    }

    /// Delivers the subject's callbacks one after the other, each until it is accepted or given up.
    async fn tell(&self, subject: &Subject, mut first_try: Option<oneshot::Sender<()>>) {
        loop {
            let Some(letter) = self.books().next_letter(subject) else {
                return;
            };
            let delivered = self.courier.deliver(&letter, &mut first_try).await;
            let told = Entry::Told { subject: subject.clone(), given_up: !delivered };
            if let Err(error) = self.books().enter(vec![told]) {
                // Not entered, so it is still the next one: after a restart it is delivered again.
                tracing::error!(%error, event.id = %letter.event_id, "a delivery was not recorded");
                return;
            }
        }
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        let task = async move {
            // What is cut off here is in the ledger and goes on after a restart.
            stop.run_until_cancelled(work).await.unwrap_or_default();
        };
        drop(self.tasks.spawn_on(task, &self.runtime));
    }
}
