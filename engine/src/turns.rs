//! Turns: the processors of a process that have something to do commit it together, in one transaction.
//!
//! What a small batch costs is the transaction, not its inputs (ADR 6). So a processor does not begin one by itself: it asks
//! for a turn, and while a transaction runs, the next one gathers. What a transaction is, is [`crate::batch`]'s.

use std::any::Any;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use sqlx::pool::PoolConnection;
use sqlx::{PgPool, Postgres};
use tokio::sync::{mpsc, oneshot};

use crate::batch::{self, Batch, BatchError, Committed, Part};
use crate::clock;
use crate::service::Service;
use crate::shared::Shared;
use crate::store::Owned;

/// A kept connection goes back to the pool after this, which closes it when it has become old.
const KEPT_AT_MOST: Duration = Duration::from_secs(60);

/// The next transaction waits at most this long for processors whose batch has just committed, and which may ask again.
const GATHER: Duration = Duration::from_millis(1);

/// What became of a batch; errs with a panic, which is its processor's.
pub(crate) type Outcome<I> = Result<(Batch<I>, Result<Committed, BatchError>), Box<dyn Any + Send>>;

type Ask<I> = oneshot::Sender<Turn<I>>;

/// Where processors ask for turns.
pub(crate) struct Turns<I> {
    asks: mpsc::UnboundedSender<Ask<I>>,
}

/// The other end, for [`serve`].
#[derive(Debug)]
pub(crate) struct Asked<I>(Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<Ask<I>>>>);

/// A processor's turn: it puts its batch in, or lets it pass by dropping it. The others wait for that.
#[derive(Debug)]
pub(crate) struct Turn<I>(mpsc::UnboundedSender<Submitted<I>>);

#[derive(Debug)]
struct Submitted<I> {
    part: Part<I>,
    reply: oneshot::Sender<(Outcome<I>, Returning)>,
}

/// Held by a processor whose batch has ended, until it has asked for its next turn or has nothing to do: the others wait
/// for it, so that it comes along. Without that two busy processors take turns for ever, each alone.
#[derive(Debug)]
pub(crate) struct Returning {
    _others_wait: mpsc::Sender<Infallible>,
}

impl<I> std::fmt::Debug for Turns<I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Turns").finish_non_exhaustive()
    }
}

impl<I> Turns<I> {
    pub(crate) fn new() -> (Self, Asked<I>) {
        let (asks, asked) = mpsc::unbounded_channel();
        (Self { asks }, Asked(Arc::new(tokio::sync::Mutex::new(asked))))
    }

    /// Waits for the next turn.
    pub(crate) async fn take(&self, returning: Option<Returning>) -> Turn<I> {
        let (ask, turn) = oneshot::channel();
        self.asks.send(ask).expect("it is served as long as this is here");
        drop(returning);
        turn.await.expect("every ask is answered")
    }
}

impl<I> Turn<I> {
    /// Runs a batch, together with those of the other processors whose turn it is.
    pub(crate) async fn run(
        self,
        owned: Owned,
        batch: Batch<I>,
    ) -> (Batch<I>, Result<Committed, BatchError>, Returning) {
        let (reply, done) = oneshot::channel();
        let submitted = self.0.send(Submitted { part: Part { owned, batch }, reply });
        assert!(submitted.is_ok(), "a turn is waited for");
        drop(self);
        let (outcome, returning) = done.await.expect("every batch is answered");
        match outcome {
            Ok((batch, result)) => (batch, result, returning),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// Runs this many transactions at once, until nobody can ask any more.
pub(crate) fn serve<S: Service>(shared: &Arc<Shared<S>>, asked: &Asked<S::Input>, at_once: usize) {
    for _ in 0..at_once.max(1) {
        tokio::spawn(work(Arc::downgrade(shared), Arc::clone(&asked.0)));
    }
}

async fn work<S: Service>(
    shared: Weak<Shared<S>>,
    asked: Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<Ask<S::Input>>>>,
) {
    let mut returning = mpsc::channel(1).1;
    loop {
        let asks = {
            let mut asked = asked.lock().await;
            let Some(first) = asked.recv().await else { return };
            // Whether they all have come or the time is over: whoever has asked by then goes along.
            drop(tokio::time::timeout(GATHER, returning.recv()).await);
            let mut asks = vec![first];
            while let Ok(ask) = asked.try_recv() {
                asks.push(ask);
            }
            asks
        };
        let (submit, mut submitted) = mpsc::unbounded_channel();
        for ask in asks {
            // Whoever asked may have ended meanwhile.
            drop(ask.send(Turn(submit.clone())));
        }
        drop(submit);
        let (mut parts, mut replies) = (Vec::new(), Vec::new());
        while let Some(Submitted { part, reply }) = submitted.recv().await {
            parts.push(part);
            replies.push(reply);
        }
        let Some(shared) = shared.upgrade() else { return };
        if parts.is_empty() {
            continue;
        }
        let (others_wait, all) = mpsc::channel(1);
        returning = all;
        for (outcome, reply) in batch::run(&shared, parts).await.into_iter().zip(replies) {
            drop(reply.send((outcome, Returning { _others_wait: others_wait.clone() })));
        }
    }
}

/// Connections on which the last thing that happened was a COMMIT: the next batch need not ask whether they are clean.
/// They are missing in the pool, so only transactions keep any, of which few run at once.
#[derive(Debug)]
pub(crate) struct Connections {
    pool: PgPool,
    kept: Mutex<Vec<Kept>>,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) connection: PoolConnection<Postgres>,
    since: Instant,
}

impl Connections {
    pub(crate) fn new(pool: PgPool) -> Self {
        Self { pool, kept: Mutex::default() }
    }

    /// The connection of an earlier batch, or one of the pool.
    pub(crate) async fn get(&self) -> Result<Kept, sqlx::Error> {
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
