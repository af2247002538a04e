//! After a recovery: no new commands until those that were in the log are decided again (DESIGN §7, Rebuild).
//!
//! Until then an old idempotency key might not be found, and would be given a second command.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::PgPool;
use tracing::debug;

use crate::store;

const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Whether commands may be taken.
#[derive(Debug, Clone)]
pub struct Barriers(Arc<AtomicBool>);

impl Barriers {
    /// Looks until every partition of the commands topics is read up to its barrier; closed until then.
    #[must_use]
    pub fn watch(pool: PgPool) -> Self {
        let open = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&open);
        tokio::spawn(async move {
            loop {
                let pool = pool.clone();
                let look = tokio::spawn(async move {
                    let mut conn = pool.acquire().await?;
                    store::open_barriers(&mut conn).await
                });
                match look.await.expect("counting does not panic") {
                    Ok(0) => break,
                    Ok(left) => debug!(left, "commands wait until those of before the recovery are decided"),
                    Err(error) => debug!(%error, "the barriers are not known"),
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
            seen.store(true, Ordering::Release);
        });
        Self(open)
    }

    /// Why commands cannot be taken, if so.
    #[must_use]
    pub fn closed(&self) -> Option<String> {
        let open = self.0.load(Ordering::Acquire);
        (!open).then(|| "the commands that were accepted before the recovery are being decided first".to_owned())
    }
}
