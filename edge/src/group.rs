//! Group commit, and reading in groups: many requests, one statement. While one batch is under way the next one gathers,
//! so that its cost is shared and nobody waits for a timer.
//!
//! It knows no SQL. Each batch is carried out by a task that no request owns, so a client that goes away cancels nothing
//! half-way (PITFALLS P2.1).

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::problem::Problem;

/// Items of one batch at most.
const BATCH_MAX: usize = 256;
/// Items that wait for the next batches; one more is turned away.
const WAITING_MAX: usize = 2_048;

/// When a client may come again while the database or the log is away.
pub(crate) const AWAY_RETRY_SECONDS: u64 = 2;

/// Why an item has no answer; what was to be written may be.
#[derive(Debug, Clone, thiserror::Error)]
pub enum GroupError {
    /// Too many wait.
    #[error("too many requests wait for the database")]
    Full,
    /// The statement failed; the same for the whole batch.
    #[error("{0}")]
    Failed(Arc<sqlx::Error>),
    /// The batch's task panicked or was ended.
    #[error("the batch was not finished")]
    Lost,
}

impl From<GroupError> for Problem {
    fn from(error: GroupError) -> Self {
        tracing::warn!(%error, "a group of requests was not answered");
        let detail = match error {
            GroupError::Failed(_) => "The service cannot reach its data now.",
            GroupError::Full | GroupError::Lost => "The service is busy.",
        };
        Self::unavailable(detail, AWAY_RETRY_SECONDS)
    }
}

type Waiting<I, O> = (I, oneshot::Sender<Result<O, GroupError>>);

/// A queue whose items are taken to the database together.
pub struct Group<I, O> {
    queue: mpsc::Sender<Waiting<I, O>>,
}

impl<I, O> fmt::Debug for Group<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Group({} waiting)", self.queue.max_capacity() - self.queue.capacity())
    }
}

impl<I: Send + 'static, O: Send + 'static> Group<I, O> {
    /// Starts the task, which ends when the group is dropped. `ask` returns one output per item, in their order.
    #[must_use]
    pub fn start<F, W>(ask: F) -> Self
    where
        F: Fn(Vec<I>) -> W + Send + 'static,
        W: Future<Output = Result<Vec<O>, sqlx::Error>> + Send + 'static,
    {
        let (queue, mut waiting) = mpsc::channel::<Waiting<I, O>>(WAITING_MAX);
        tokio::spawn(async move {
            let mut batch = Vec::new();
            while waiting.recv_many(&mut batch, BATCH_MAX).await > 0 {
                let (items, replies): (Vec<I>, Vec<_>) = batch.drain(..).unzip();
                // A task of its own, so that a panic ends one batch and not all later ones.
                let written = match tokio::spawn(ask(items)).await {
                    Ok(Ok(outputs)) => Ok(outputs),
                    Ok(Err(error)) => Err(GroupError::Failed(Arc::new(error))),
                    Err(_) => Err(GroupError::Lost),
                };
                reply(replies, written);
            }
        });
        Self { queue }
    }

    /// Hands an item in and waits for its answer.
    ///
    /// # Errors
    /// [`GroupError`], also as a [`Problem`] for the client.
    pub async fn ask(&self, item: I) -> Result<O, GroupError> {
        let (reply, written) = oneshot::channel();
        self.queue.try_send((item, reply)).map_err(|_| GroupError::Full)?;
        written.await.unwrap_or(Err(GroupError::Lost))
    }
}

fn reply<O>(replies: Vec<oneshot::Sender<Result<O, GroupError>>>, written: Result<Vec<O>, GroupError>) {
    match written {
        Ok(outputs) => {
            assert_eq!(outputs.len(), replies.len(), "one output per item");
            for (reply, output) in replies.into_iter().zip(outputs) {
                // Whoever asked may be gone; what was written stays.
                drop(reply.send(Ok(output)));
            }
        }
        Err(error) => {
            for reply in replies {
                drop(reply.send(Err(error.clone())));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_waits_is_written_together_and_each_gets_its_own_answer() {
        let sizes = Arc::new(std::sync::Mutex::new(Vec::new()));
        let seen = Arc::clone(&sizes);
        let group = Arc::new(Group::start(move |items: Vec<u32>| {
            seen.lock().unwrap().push(items.len());
            async move {
                tokio::task::yield_now().await;
                Ok(items.into_iter().map(|item| item * 2).collect())
            }
        }));
        let asked = (0..500_u32).map(|item| {
            let group = Arc::clone(&group);
            tokio::spawn(async move { (item, group.ask(item).await.unwrap()) })
        });
        for task in asked.collect::<Vec<_>>() {
            let (item, output) = task.await.unwrap();
            assert_eq!(output, item * 2);
        }
        let sizes = sizes.lock().unwrap();
        assert_eq!(sizes.iter().sum::<usize>(), 500);
        assert!(sizes.len() < 20 && sizes.iter().all(|size| *size <= BATCH_MAX), "{sizes:?}");
    }

    #[tokio::test]
    async fn a_failed_or_panicking_batch_does_not_stop_the_next_one() {
        let group = Group::start(|items: Vec<u32>| async move {
            match items[0] {
                0 => Err(sqlx::Error::PoolTimedOut),
                1 => panic!("a defect"),
                _ => Ok(items),
            }
        });
        assert!(matches!(group.ask(0).await, Err(GroupError::Failed(_))));
        assert!(matches!(group.ask(1).await, Err(GroupError::Lost)));
        assert_eq!(group.ask(2).await.unwrap(), 2);
    }
}
