//! What HTTP needs of the log: append a command, learn what became of it, name new things.
//!
//! Behind a trait, so that tests can lose acknowledgements; the real one is the engine, wired by [`EngineLog`].

use std::time::Duration;

use engine::append::{AppendError, Appended, Appender, NewRecord};
use engine::barriers::Barriers;
use engine::breaker::Breaker;
use engine::lease::IdIssuer;
use engine::wait::{Decided, Waiters};
use events::id::CommandId;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

/// The log, as HTTP sees it.
pub trait Log: Send + Sync + 'static {
    /// Why commands cannot be taken now, if so: the log is away; or, after a recovery, until the commands of before are
    /// decided. Taking one earlier could give an old key a second command.
    fn refuses(&self) -> Option<String>;

    /// A new Snowflake ID.
    fn issue(&self) -> BoxFuture<'_, i64>;

    /// Appends a command and waits for its offset.
    ///
    /// # Errors
    /// [`AppendError::Unavailable`] leaves open whether it is in the log.
    fn append(&self, record: NewRecord) -> BoxFuture<'_, Result<Appended, AppendError>>;

    /// Waits until the command is decided and the event acknowledged; `None` after the time-out.
    fn wait(&self, command_id: CommandId, timeout: Duration) -> BoxFuture<'_, Option<Decided>>;
}

/// The engine's side of this process.
#[derive(Debug)]
pub struct EngineLog {
    /// Appends.
    pub appender: Appender,
    /// Tells what was decided.
    pub waiters: Waiters,
    /// Names new things.
    pub ids: IdIssuer,
    /// Tells when commands may be taken after a recovery.
    pub barriers: Barriers,
    /// Tells when the log is away.
    pub kafka: Breaker,
}

impl Log for EngineLog {
    fn refuses(&self) -> Option<String> {
        self.barriers.closed().or_else(|| self.kafka.check().err().map(|away| away.to_string()))
    }

    fn issue(&self) -> BoxFuture<'_, i64> {
        self.ids.issue().boxed()
    }

    fn append(&self, record: NewRecord) -> BoxFuture<'_, Result<Appended, AppendError>> {
        self.appender.append(record).boxed()
    }

    fn wait(&self, command_id: CommandId, timeout: Duration) -> BoxFuture<'_, Option<Decided>> {
        self.waiters.wait(command_id, timeout).boxed()
    }
}
