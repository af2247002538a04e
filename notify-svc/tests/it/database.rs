//! A database for each test, migrated like the service's.

use testkit::{Database, Migrated};

/// A new one with both schemas.
pub(crate) async fn migrated() -> Migrated {
    Database::migrated(notify_svc::app::MIGRATIONS).await
}
