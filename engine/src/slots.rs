//! How many batches of a process run at once, and the connections they keep.
//!
//! More than a few only take the cores from each other: batches that wait for their turn grow meanwhile, and one larger
//! batch costs much less than several small ones. What a batch does is [`crate::batch`]'s.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::pool::PoolConnection;
use sqlx::{PgPool, Postgres};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::clock;

/// A kept connection goes back to the pool after this, which closes it when it has become old.
const KEPT_AT_MOST: Duration = Duration::from_secs(60);

/// The places in which batches run.
#[derive(Debug)]
pub(crate) struct Slots {
    free: Arc<Semaphore>,
    pool: PgPool,
    kept: Mutex<Vec<Kept>>,
}

/// A connection on which the last thing that happened was a COMMIT.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) connection: PoolConnection<Postgres>,
    since: Instant,
}

impl Slots {
    /// At least one.
    pub(crate) fn new(pool: PgPool, count: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(count.max(1))), pool, kept: Mutex::default() }
    }

    /// Waits for a free place, in the order of asking.
    pub(crate) async fn take(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.free).acquire_owned().await.expect("nobody closes it")
    }

    /// The connection of an earlier batch, which saves asking whether it is clean; or one of the pool.
    pub(crate) async fn connection(&self) -> Result<Kept, sqlx::Error> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match kept.filter(|kept| kept.since.elapsed() < KEPT_AT_MOST) {
            Some(kept) => Ok(kept),
            None => Ok(Kept { connection: self.pool.acquire().await?, since: clock::instant() }),
        }
    }

    /// Keeps a connection for the next batch. One on which anything failed must not be kept.
    pub(crate) fn keep(&self, connection: Kept) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }
}
