//! What operators want done about held and dead records and dead effects: rows that the owning processor reads and deletes
//! in the batch that does it, so that nobody writes a topic or a table past it.
//!
//! Who may ask, and what is shown, is [`crate::desk`]'s.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use sqlx::PgConnection;
use tracing::debug;

use crate::held::Source;
use crate::service::Service;
use crate::shared::Shared;

/// How often a process looks for acts.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOK_MAX: Duration = Duration::from_secs(2);
/// Acts that a processor takes at once.
pub(crate) const TAKEN_MAX: i64 = 500;

/// What becomes of a record by an operator's will.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// It is tried again.
    Redrive,
    /// It is settled without being applied; a command is refused, and an effect gets the answer that ends it.
    Discard,
}

impl Deed {
    /// As the table and the API write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redrive => "redrive",
            Self::Discard => "discard",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Redrive, Self::Discard].into_iter().find(|deed| deed.as_str() == text)
    }
}

/// The act about one record or effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Act {
    pub(crate) id: i64,
    pub(crate) deed: Deed,
    /// Who wants it: the `sub` of the token.
    pub(crate) sub: String,
    /// Why.
    pub(crate) reason: String,
}

/// Partitions for which acts wait.
#[derive(Debug, Default)]
pub(crate) struct Waiting(Mutex<HashSet<i32>>);

impl Waiting {
    /// True when acts of this partition wait to be read; asked once per look.
    pub(crate) fn take(&self, partition: i32) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&partition)
    }

    fn set(&self, partitions: impl IntoIterator<Item = i32>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(partitions);
    }
}

/// Looks for acts as long as the engine runs.
pub(crate) async fn look<S: Service>(shared: Weak<Shared<S>>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(shared) = shared.upgrade() else { return };
        // In a task: a time-out elsewhere must not drop a statement half-way.
        let asked = Arc::clone(&shared);
        let found = tokio::spawn(async move {
            let mut conn = asked.pool.acquire().await?;
            sqlx::query_as::<_, (i32,)>("SELECT DISTINCT partition FROM acts").fetch_all(&mut *conn).await
        });
        // The one thing that asks Postgres however little there is to do: so an outage shows here first.
        let error = match tokio::time::timeout(LOOK_MAX, found).await {
            Ok(Ok(Ok(rows))) => {
                shared.acts.set(rows.into_iter().map(|(partition,)| partition));
                continue;
            }
            Ok(Ok(Err(error))) => error.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", LOOK_MAX.as_secs()),
        };
        debug!(error, "looking for acts of operators");
        let postgres = shared.breakers.postgres.clone();
        drop(shared);
        postgres.failed(error);
        postgres.settled().await;
    }
}

/// What is to be done.
#[derive(Debug, Default)]
pub(crate) struct Acts {
    /// About held and dead records.
    pub(crate) records: Vec<(Source, Act)>,
    /// About dead effects: offset of the own event that asked for it, and its name.
    pub(crate) effects: Vec<((i64, String), Act)>,
}

/// The acts of a processor, the oldest first, but for those that are under way. One about a topic that this build does
/// not read is left out.
pub(crate) async fn read(
    conn: &mut PgConnection,
    partition: i32,
    topics: &[String],
    under_way: &[i64],
) -> Result<Acts, sqlx::Error> {
    let rows: Vec<(i64, String, i64, String, String, String, String)> = sqlx::query_as(
        "SELECT id, topic, source_offset, effect, act, sub, reason FROM acts
         WHERE partition = $1 AND id <> ALL($3) ORDER BY id LIMIT $2",
    )
    .bind(partition)
    .bind(TAKEN_MAX)
    .bind(under_way)
    .fetch_all(conn)
    .await?;
    let mut acts = Acts::default();
    for (id, topic, offset, effect, deed, sub, reason) in rows {
        let Some(deed) = Deed::parse(&deed) else { continue };
        let act = Act { id, deed, sub, reason };
        if !effect.is_empty() {
            acts.effects.push(((offset, effect), act));
        } else if let Some(topic) = topics.iter().position(|name| *name == topic) {
            acts.records.push(((topic, offset), act));
        }
    }
    Ok(acts)
}

/// Forgets acts that are done.
pub(crate) async fn forget(conn: &mut PgConnection, ids: &[i64]) -> Result<(), sqlx::Error> {
    if ids.is_empty() {
        return Ok(());
    }
    sqlx::query("DELETE FROM acts WHERE id = ANY($1)").bind(ids).execute(conn).await?;
    Ok(())
}
