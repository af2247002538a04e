//! A database per test, a log that misbehaves on demand, and tokens.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use edge::log::Log;
use edge::token::{Identity, Role, sign};
use engine::append::{AppendError, Appended, NewRecord};
use engine::migrate::{MigrationSet, Schema};
use engine::wait::Decided;
use events::id::CommandId;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use testkit::{Database, Migrated};

/// The example key of RFC 8410 §10.3, and its public half.
pub(crate) const PRIVATE_KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
pub(crate) const PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";

pub(crate) fn token(subject: &str, role: Role) -> String {
    let identity = Identity { subject: subject.to_owned(), role };
    sign(PRIVATE_KEY, &identity, Duration::from_secs(3_600)).unwrap()
}

/// A database of the test's own, migrated as a service's is.
pub(crate) async fn database() -> Migrated {
    let edge = MigrationSet { schema: Schema::Engine, name: "edge", migrator: &edge::MIGRATIONS };
    Database::migrated(&[edge]).await
}

/// How the next appends go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Acknowledged.
    Kind,
    /// In the log, and nobody is told.
    LosesReply,
    /// Not in the log, and nobody is told.
    LosesRecord,
    /// Acknowledged when somebody calls [`FakeLog::set`] again.
    Slow,
}

/// A log in memory.
#[derive(Debug)]
pub(crate) struct FakeLog {
    next_id: AtomicI64,
    mood: Mutex<Mood>,
    changed: tokio::sync::Notify,
    pub(crate) records: Mutex<Vec<NewRecord>>,
    pub(crate) refuses: Mutex<Option<String>>,
    pub(crate) decided: Mutex<Option<Decided>>,
}

impl FakeLog {
    pub(crate) fn new(first_id: i64) -> Self {
        Self {
            next_id: AtomicI64::new(first_id),
            mood: Mutex::new(Mood::Kind),
            changed: tokio::sync::Notify::new(),
            records: Mutex::default(),
            refuses: Mutex::default(),
            decided: Mutex::default(),
        }
    }

    pub(crate) fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
        self.changed.notify_waiters();
    }

    fn mood(&self) -> Mood {
        *self.mood.lock().unwrap()
    }

    pub(crate) fn records(&self) -> Vec<NewRecord> {
        self.records.lock().unwrap().clone()
    }

    async fn put(&self, record: NewRecord) -> Result<Appended, AppendError> {
        let unknown = Err(AppendError::Unavailable("lost".to_owned()));
        if self.mood() == Mood::LosesRecord {
            return unknown;
        }
        loop {
            let changed = self.changed.notified();
            if self.mood() != Mood::Slow {
                break;
            }
            changed.await;
        }
        let mut records = self.records.lock().unwrap();
        records.push(record);
        let offset = i64::try_from(records.len()).unwrap();
        if self.mood() == Mood::LosesReply {
            unknown
        } else {
            Ok(Appended { topic: "toy.commands".to_owned(), partition: 0, offset })
        }
    }
}

impl Log for FakeLog {
    fn refuses(&self) -> Option<String> {
        self.refuses.lock().unwrap().clone()
    }

    fn issue(&self) -> BoxFuture<'_, i64> {
        async { self.next_id.fetch_add(1, Ordering::Relaxed) }.boxed()
    }

    fn append(&self, record: NewRecord) -> BoxFuture<'_, Result<Appended, AppendError>> {
        self.put(record).boxed()
    }

    fn wait(&self, command_id: CommandId, _timeout: Duration) -> BoxFuture<'_, Option<Decided>> {
        async move { self.decided.lock().unwrap().clone().map(|decided| Decided { command_id, ..decided }) }.boxed()
    }
}

/// Waits until `look` finds what it looks for.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(std::time::Instant::now() < deadline, "10 s passed without: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
