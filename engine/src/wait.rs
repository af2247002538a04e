//! Waiting for a command to be decided: what `Prefer: wait` is answered from.
//!
//! One poller per process, only while someone waits, two set-based queries. Not LISTEN/NOTIFY: that loses notices on a
//! reconnect. An answer counts only when Kafka has acknowledged the event (DESIGN §2).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use events::id::CommandId;
use sqlx::PgPool;
use tokio::sync::{Notify, oneshot};
use tracing::debug;

const POLL_EVERY: Duration = Duration::from_millis(10);
const RETRY_EVERY: Duration = Duration::from_millis(250);

/// How far the publishers of this process got, by partition: known here before Postgres knows it.
#[derive(Debug, Clone, Default)]
pub struct Acked(Arc<Mutex<HashMap<i32, i64>>>);

impl Acked {
    /// Every event up to this sequence of the partition is acknowledged.
    pub fn set(&self, partition: i32, sequence: i64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(partition, sequence);
    }

    /// The last acknowledged sequence, as far as this process knows.
    #[must_use]
    pub fn get(&self, partition: i32) -> i64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&partition).copied().unwrap_or(0)
    }
}

/// A command that was decided, and whose event Kafka has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// The command.
    pub command_id: CommandId,
    /// Full name of the event's type.
    pub event_type: String,
    /// The reason, when it was refused or rejected.
    pub refused: Option<String>,
    /// The aggregate's ID.
    pub subject: i64,
    /// Where the event lies.
    pub partition: i32,
    /// Its sequence there.
    pub sequence: i64,
}

type Waiting = HashMap<CommandId, Vec<oneshot::Sender<Decided>>>;

#[derive(Debug)]
struct Inner {
    pool: PgPool,
    /// The own events topic, as on the broker.
    topic: String,
    acked: Acked,
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

/// Everybody in this process who waits for a command.
#[derive(Debug, Clone)]
pub struct Waiters(Arc<Inner>);

impl Waiters {
    /// Starts the poller. `events_topic`: the service's own events topic, as on the broker.
    #[must_use]
    pub fn start(pool: PgPool, events_topic: String, acked: Acked) -> Self {
        let inner = Arc::new(Inner {
            pool,
            topic: events_topic,
            acked,
            waiting: Mutex::new(HashMap::new()),
            arrived: Notify::new(),
        });
        let polling = Arc::clone(&inner);
        // Owned by a task that nobody cancels: nothing drops a database future half-way.
        tokio::spawn(async move {
            loop {
                if polling.is_idle() {
                    polling.arrived.notified().await;
                }
                let pause = match polling.poll().await {
                    Ok(()) => POLL_EVERY,
                    Err(error) => {
                        debug!(%error, "those who wait for commands wait for the database");
                        RETRY_EVERY
                    }
                };
                tokio::time::sleep(pause).await;
            }
        });
        Self(inner)
    }

    /// Waits until the command is decided and its event acknowledged; `None` after the time-out.
    pub async fn wait(&self, command: CommandId, timeout: Duration) -> Option<Decided> {
        let (sender, receiver) = oneshot::channel();
        self.0.waiting().entry(command).or_default().push(sender);
        self.0.arrived.notify_one();
        tokio::time::timeout(timeout, receiver).await.ok()?.ok()
    }
}

impl Inner {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_idle(&self) -> bool {
        let mut waiting = self.waiting();
        waiting.retain(|_, senders| {
            senders.retain(|sender| !sender.is_closed());
            !senders.is_empty()
        });
        waiting.is_empty()
    }

    async fn poll(&self) -> Result<(), sqlx::Error> {
        let commands: Vec<i64> = self.waiting().keys().map(|command| command.0).collect();
        if commands.is_empty() {
            return Ok(());
        }
        let mut conn = self.pool.acquire().await?;
        type Row = (i64, String, Option<String>, i64, i32, i64);
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT command_id, event_type, outcome, subject, partition, sequence FROM commands
             WHERE command_id = ANY($1)",
        )
        .bind(&commands)
        .fetch_all(&mut *conn)
        .await?;
        let mut decided: Vec<Decided> = rows
            .into_iter()
            .map(|(command, event_type, refused, subject, partition, sequence)| Decided {
                command_id: CommandId(command),
                event_type,
                refused,
                subject,
                partition,
                sequence,
            })
            .collect();
        if decided.iter().any(|one| one.sequence > self.acked.get(one.partition)) {
            let acked: Vec<(i32, i64)> =
                sqlx::query_as("SELECT partition, acked_sequence FROM outputs WHERE topic = $1")
                    .bind(&self.topic)
                    .fetch_all(&mut *conn)
                    .await?;
            let acked: HashMap<i32, i64> = acked.into_iter().collect();
            let known = |partition: i32| acked.get(&partition).copied().unwrap_or(0).max(self.acked.get(partition));
            decided.retain(|one| one.sequence <= known(one.partition));
        }
        let mut waiting = self.waiting();
        for one in decided {
            for sender in waiting.remove(&one.command_id).unwrap_or_default() {
                // The caller may have gone.
                drop(sender.send(one.clone()));
            }
        }
        Ok(())
    }
}
