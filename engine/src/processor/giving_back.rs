//! What a processor still does when it is given back: it waits for the calls that are on their way and commits what they
//! answered, so that its successor need not make them again.
//!
//! Records are the successor's, and so is every call that has not begun.

use std::time::{Duration, Instant};

use tracing::info;

use super::Processor;
use crate::service::Service;

/// The group waits meanwhile. What takes longer the successor asks for again.
const CALLS_END_WITHIN: Duration = Duration::from_secs(2);

impl<S: Service> Processor<S> {
    /// Needs the calls' token to be cancelled: none begins any more.
    pub(super) async fn give_back(&mut self) {
        self.returning = None;
        let until = Instant::now() + CALLS_END_WITHIN;
        if tokio::time::timeout_at(until.into(), self.calls.all_ended()).await.is_err() {
            info!(kafka.partition = self.owned.partition, "calls are still on their way; the next owner asks again");
        }
        self.collect(self.clock.now());
        self.inbox.leave_records();
        while !self.inbox.is_empty() || self.calls.must_store() {
            let before = self.owned.batch;
            let progress = self.publisher.progress.borrow_and_update().clone();
            let turn = self.turn().await;
            // Whatever keeps this batch from its commit: the successor asks again.
            if self.commit(None, &progress, turn).await.is_err() || self.owned.batch == before {
                return;
            }
        }
    }
}
