//! Group commit: many requests, one statement. While one batch is written the next one gathers, so that the cost of a
//! commit is shared and nobody waits for a timer.
//!
//! It knows no SQL. Each batch is written by a task that no request owns, so a client that goes away cancels nothing
//! half-way (PITFALLS P2.1).

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

/// Items of one batch at most.
const BATCH_MAX: usize = 256;
/// Items that wait for the next batches; one more is turned away.
const WAITING_MAX: usize = 2_048;

/// Why an item was not written, or is not known to be.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum GroupError {
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

type Waiting<I, O> = (I, oneshot::Sender<Result<O, GroupError>>);

/// A queue whose items are written together.
pub(crate) struct Group<I, O> {
    queue: mpsc::Sender<Waiting<I, O>>,
}

impl<I, O> fmt::Debug for Group<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Group({} waiting)", self.queue.max_capacity() - self.queue.capacity())
    }
}

impl<I: Send + 'static, O: Send + 'static> Group<I, O> {
    /// Starts the writer, which ends when the group is dropped. `write` returns one output per item, in their order.
    pub(crate) fn start<F, W>(write: F) -> Self
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
                let written = match tokio::spawn(write(items)).await {
                    Ok(Ok(outputs)) => Ok(outputs),
                    Ok(Err(error)) => Err(GroupError::Failed(Arc::new(error))),
                    Err(_) => Err(GroupError::Lost),
                };
                reply(replies, written);
            }
        });
        Self { queue }
    }

    /// Hands an item in and waits until it is committed.
    pub(crate) async fn write(&self, item: I) -> Result<O, GroupError> {
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
            tokio::spawn(async move { (item, group.write(item).await.unwrap()) })
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
        assert!(matches!(group.write(0).await, Err(GroupError::Failed(_))));
        assert!(matches!(group.write(1).await, Err(GroupError::Lost)));
        assert_eq!(group.write(2).await.unwrap(), 2);
    }
}
