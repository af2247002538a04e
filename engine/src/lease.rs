//! Snowflake IDs that are never issued twice: an instance number leased in Postgres, and a mark up to which it may issue.
//!
//! IDs are issued only below the mark, which a committed transaction raised before. So neither a clock step, nor a
//! paused process, nor a restart can repeat one; uniqueness needs no clock (DESIGN §3, PITFALLS P4). A millisecond whose
//! numbers are used up borrows from the next one, at most up to the mark; there the caller waits. The layout is
//! `events::snowflake`'s.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context, bail};
use events::snowflake::{EPOCH_MS, INSTANCES, Parts, SEQUENCES_PER_MS, pack};
use events::time::Timestamp;
use sqlx::{Connection, PgConnection, PgPool};
use tokio::sync::Notify;
use tracing::{debug, warn};

use crate::clock;

/// The mark lies this far ahead of the clock when it is raised.
const AHEAD_MS: i64 = 10_000;
/// And is raised this often.
const RAISE_EVERY: Duration = Duration::from_secs(3);
/// A mark further ahead of Postgres' clock than this is not granted.
const AHEAD_OF_POSTGRES_MS_MAX: i64 = 60_000;
const RETRY_EVERY: Duration = Duration::from_millis(250);
/// Held while a number is chosen, so that two processes that start together do not want the same new one.
const LOCK: i64 = 0x6c65_6173_6500;

/// Where the next ID lies. Pure: time comes from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cursor {
    /// Milliseconds since 1970 of the last ID issued.
    millis: i64,
    /// Next sequence within that millisecond.
    sequence: u16,
    /// IDs lie below this time.
    mark: i64,
}

impl Cursor {
    /// The next (time, sequence) below the mark, if there is one. A clock that goes back is passed over.
    fn next(&mut self, now: i64) -> Option<(i64, u16)> {
        if now > self.millis {
            (self.millis, self.sequence) = (now, 0);
        } else if self.sequence >= SEQUENCES_PER_MS {
            // The millisecond is used up: take the next one, which lies a little ahead of the clock.
            (self.millis, self.sequence) = (self.millis + 1, 0);
        }
        if self.millis >= self.mark {
            return None;
        }
        let sequence = self.sequence;
        self.sequence += 1;
        Some((self.millis, sequence))
    }
}

#[derive(Debug, Clone, Copy)]
struct Lease {
    instance: u8,
    cursor: Cursor,
}

#[derive(Debug)]
struct Inner {
    service: u8,
    holder: String,
    pool: PgPool,
    clock: fn() -> Timestamp,
    lease: Mutex<Lease>,
    raised: Notify,
    wanted: Notify,
}

/// Issues the IDs of one process.
#[derive(Debug, Clone)]
pub struct IdIssuer(Arc<Inner>);

impl IdIssuer {
    /// Leases an instance number for a service (`holder` names the process) and keeps its mark ahead of the clock.
    ///
    /// # Errors
    /// When all 128 numbers are taken, or Postgres fails.
    pub async fn start(pool: PgPool, service: u8, holder: &str) -> anyhow::Result<Self> {
        Self::start_with_clock(pool, service, holder, clock::wall).await
    }

    /// The same with a clock of the caller's, which may err: for tests.
    ///
    /// # Errors
    /// As [`IdIssuer::start`].
    pub async fn start_with_clock(
        pool: PgPool,
        service: u8,
        holder: &str,
        clock: fn() -> Timestamp,
    ) -> anyhow::Result<Self> {
        let lease = acquire(&pool, service, holder, clock).await?;
        let inner = Arc::new(Inner {
            service,
            holder: holder.to_owned(),
            pool,
            clock,
            lease: Mutex::new(lease),
            raised: Notify::new(),
            wanted: Notify::new(),
        });
        let weak = Arc::downgrade(&inner);
        tokio::spawn(async move {
            while let Some(inner) = weak.upgrade() {
                inner.keep_ahead().await;
                tokio::select! {
                    () = tokio::time::sleep(RAISE_EVERY) => {}
                    () = inner.wanted.notified() => {}
                }
            }
        });
        Ok(Self(inner))
    }

    /// The next ID. Waits while Postgres has not raised the mark.
    pub async fn issue(&self) -> i64 {
        loop {
            let raised = self.0.raised.notified();
            if let Some(id) = self.try_issue() {
                return id;
            }
            self.0.wanted.notify_one();
            raised.await;
        }
    }

    /// The next ID, unless the mark is reached.
    #[must_use]
    pub fn try_issue(&self) -> Option<i64> {
        let mut lease = self.0.lease();
        let (millis, sequence) = lease.cursor.next((self.0.clock)().0)?;
        let parts = Parts {
            millis: u64::try_from(millis - EPOCH_MS).ok()?,
            service: self.0.service,
            instance: lease.instance,
            sequence,
        };
        pack(parts)
    }

    /// The leased number.
    #[must_use]
    pub fn instance(&self) -> u8 {
        self.0.lease().instance
    }
}

impl Inner {
    fn lease(&self) -> MutexGuard<'_, Lease> {
        self.lease.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    async fn keep_ahead(self: &Arc<Self>) {
        let mut told = false;
        loop {
            let this = Arc::clone(self);
            let task = tokio::spawn(async move { this.raise().await });
            match task.await.expect("raising a mark does not panic") {
                Ok(()) => break,
                Err(error) => {
                    let error = format!("{error:#}");
                    if told {
                        debug!(error, "the mark of the IDs is not raised yet");
                    } else {
                        warn!(error, "the mark of the IDs is not raised; once it is reached, they wait");
                        told = true;
                    }
                    tokio::time::sleep(RETRY_EVERY).await;
                }
            }
        }
        self.raised.notify_waiters();
    }

    async fn raise(&self) -> anyhow::Result<()> {
        let (instance, millis, mark) = {
            let lease = self.lease();
            (lease.instance, lease.cursor.millis, lease.cursor.mark)
        };
        let now = (self.clock)().0;
        // Never below the last ID: a clock that was set back goes on from there.
        let wanted = now.max(millis) + AHEAD_MS;
        if wanted <= mark {
            return Ok(());
        }
        let mut conn = self.pool.acquire().await?;
        if raise_mark(&mut conn, self.service, instance, &self.holder, mark, wanted).await? {
            self.lease().cursor.mark = wanted.max(mark);
            return Ok(());
        }
        // The number was taken by somebody else, or the clock is off: another number, behind whose mark it is not.
        drop(conn);
        let lease = acquire(&self.pool, self.service, &self.holder, self.clock).await?;
        warn!(lost = instance, taken = lease.instance, "the instance number could not be kept; another one was leased");
        *self.lease() = lease;
        Ok(())
    }
}

/// Takes a number that nobody holds, or whose mark has passed; its IDs begin at the mark at the earliest.
async fn acquire(pool: &PgPool, service: u8, holder: &str, clock: fn() -> Timestamp) -> anyhow::Result<Lease> {
    let (pool, holder) = (pool.clone(), holder.to_owned());
    let task = tokio::spawn(async move {
        let mut conn = pool.acquire().await?;
        let mut tx = conn.begin().await?;
        sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK + i64::from(service)).execute(&mut *tx).await?;
        let lease = take_number(&mut tx, service, &holder, clock().0).await?;
        tx.commit().await?;
        Ok(lease)
    });
    task.await.context("leasing an instance number")?
}

async fn take_number(conn: &mut PgConnection, service: u8, holder: &str, now: i64) -> anyhow::Result<Lease> {
    let mark = now + AHEAD_MS;
    // A lapsed mark lies behind both clocks, so everything below it was issued, or never will be.
    let taken: Option<(i32, i64)> = sqlx::query_as(
        "UPDATE leases AS l SET holder = $2, mark_ms = $3
         FROM (SELECT instance, mark_ms FROM leases
               WHERE service = $1 AND mark_ms < $4
                 AND mark_ms < (EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::bigint
               ORDER BY instance LIMIT 1 FOR UPDATE SKIP LOCKED) AS free
         WHERE l.service = $1 AND l.instance = free.instance
         RETURNING l.instance, free.mark_ms",
    )
    .bind(i32::from(service))
    .bind(holder)
    .bind(mark)
    .bind(now)
    .fetch_optional(&mut *conn)
    .await?;
    let (instance, lapsed) = match taken {
        Some(taken) => taken,
        None => (new_number(conn, service, holder, mark).await?, 0),
    };
    let instance = u8::try_from(instance).context("an instance number")?;
    check_mark(conn, mark).await?;
    Ok(Lease { instance, cursor: Cursor { millis: now.max(lapsed), sequence: 0, mark } })
}

async fn new_number(conn: &mut PgConnection, service: u8, holder: &str, mark: i64) -> anyhow::Result<i32> {
    let row: Option<(i32,)> = sqlx::query_as(
        "INSERT INTO leases (service, instance, holder, mark_ms)
         SELECT $1, free.instance, $2, $3
         FROM generate_series(0, $4 - 1) AS free (instance)
         WHERE NOT EXISTS (SELECT FROM leases AS l WHERE l.service = $1 AND l.instance = free.instance)
         ORDER BY free.instance LIMIT 1
         ON CONFLICT (service, instance) DO NOTHING
         RETURNING instance",
    )
    .bind(i32::from(service))
    .bind(holder)
    .bind(mark)
    .bind(i32::from(INSTANCES))
    .fetch_optional(conn)
    .await?;
    match row {
        Some((instance,)) => Ok(instance),
        None => {
            bail!("no instance number of service {service} is free; wait 10 s for a lapsed one")
        }
    }
}

/// Refuses a mark that lies far ahead of Postgres' clock: this machine's clock is wrong.
async fn check_mark(conn: &mut PgConnection, mark: i64) -> anyhow::Result<()> {
    let postgres = crate::store::now(conn).await?.0;
    if mark - postgres > AHEAD_OF_POSTGRES_MS_MAX {
        bail!("this machine's clock is {} s ahead of Postgres'; set it right", (mark - AHEAD_MS - postgres) / 1_000);
    }
    Ok(())
}

/// Raises the mark of a number that is still held as it was left; false when it is not.
async fn raise_mark(
    conn: &mut PgConnection,
    service: u8,
    instance: u8,
    holder: &str,
    mark: i64,
    wanted: i64,
) -> anyhow::Result<bool> {
    let done = sqlx::query(
        "UPDATE leases SET mark_ms = GREATEST(mark_ms, $5)
         WHERE service = $1 AND instance = $2 AND holder = $3 AND mark_ms = $4
           AND $5 <= (EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::bigint + $6",
    )
    .bind(i32::from(service))
    .bind(i32::from(instance))
    .bind(holder)
    .bind(mark)
    .bind(wanted)
    .bind(AHEAD_OF_POSTGRES_MS_MAX)
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ids_rise_whatever_the_clock_does(steps in prop::collection::vec(-100i64..100, 1..500)) {
            let mut cursor = Cursor { millis: 1_000, sequence: 0, mark: 2_000 };
            let (mut now, mut last) = (1_000, (0, 0));
            for step in steps {
                now += step;
                if let Some(id) = cursor.next(now) {
                    prop_assert!(id > last && id.0 < 2_000);
                    last = id;
                }
            }
        }
    }

    #[test]
    fn nothing_is_issued_at_or_above_the_mark() {
        let mut cursor = Cursor { millis: 10, sequence: 0, mark: 12 };
        assert_eq!(cursor.next(11), Some((11, 0)));
        assert_eq!(cursor.next(12), None);
        cursor.mark = 13;
        assert_eq!(cursor.next(12), Some((12, 0)));
    }

    #[test]
    fn a_used_up_millisecond_goes_on_in_the_next() {
        let mut cursor = Cursor { millis: 10, sequence: SEQUENCES_PER_MS, mark: 100 };
        assert_eq!(cursor.next(10), Some((11, 0)));
        assert_eq!(cursor.next(10), Some((11, 1)));
    }
}
