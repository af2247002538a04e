//! One attempt at the transaction of a batch: BEGIN to COMMIT on one connection, given up when Postgres falls silent.
//!
//! What it holds is [`super`]'s.

use std::time::Duration;

use sqlx::Connection;

use super::{BatchError, Filled, Part, database, fill, injected};
use crate::failpoint::reach;
use crate::mutant;
use crate::pool::is_record_fault;
use crate::service::Service;
use crate::shared::Shared;
use crate::turns::Kept;

/// A transaction that is under way when Postgres goes away may end within this time; then its connection is given up.
const SILENT_MAX: Duration = Duration::from_secs(5);

/// Runs it once.
pub(super) async fn attempt<S: Service>(shared: &Shared<S>, parts: &[Part<S::Input>]) -> Result<Filled, BatchError> {
    let mut lone_timer = None;
    let result = try_once(shared, parts, &mut lone_timer).await;
    match (result, lone_timer) {
        (Err(BatchError::Fault(error)), Some(key)) => Err(BatchError::Timer(key, error.to_string())),
        (result, _) => result,
    }
}

/// `lone_timer`: the key of the only input, when that is a timer.
async fn try_once<S: Service>(
    shared: &Shared<S>,
    parts: &[Part<S::Input>],
    lone_timer: &mut Option<i64>,
) -> Result<Filled, BatchError> {
    reach("C1").await.map_err(injected)?;
    if mutant::is("position-outside-the-transaction") {
        mutant::move_positions(
            &shared.pool,
            parts.iter().map(|part| (part.owned.partition, shared.places(&part.batch.items))),
        )
        .await
        .map_err(database)?;
    }
    let mut kept = shared.connections.get().await.map_err(database)?;
    let mut committing = false;
    let result = tokio::select! {
        result = transact(shared, parts, &mut kept, lone_timer, &mut committing) => Some(result),
        () = shared.breakers.postgres.away_for(SILENT_MAX) => None,
    };
    let Some(result) = result else {
        // What was cut off without a word may answer in a quarter of an hour: closed, for nobody to use.
        drop(kept.connection.detach());
        let error = format!("no answer, and none of a new connection for {} s", SILENT_MAX.as_secs());
        return Err(if committing { BatchError::Unknown(error) } else { BatchError::Outage(error) });
    };
    if result.as_ref().is_ok_and(|filled| filled.iter().any(Option::is_some)) {
        shared.connections.keep(kept);
    }
    result
}

async fn transact<S: Service>(
    shared: &Shared<S>,
    parts: &[Part<S::Input>],
    kept: &mut Kept,
    lone_timer: &mut Option<i64>,
    committing: &mut bool,
) -> Result<Filled, BatchError> {
    let mut tx = kept.connection.begin().await.map_err(database)?;
    let filled = match fill(shared, parts, &mut tx, lone_timer).await {
        Ok(filled) if filled.iter().any(Option::is_some) => filled,
        other => {
            // Explicit, so that a connection never goes back with a transaction open.
            if let Err(rollback) = tx.rollback().await {
                tracing::debug!(error = %rollback, "rollback failed; the connection is gone");
            }
            return other;
        }
    };
    *committing = true;
    // A deferred constraint speaks at the COMMIT, and then the outcome is known.
    let unknown = |error: String| match mutant::is("unknown-commit-tried-again-without-batch-number") {
        true => BatchError::Outage(error),
        false => BatchError::Unknown(error),
    };
    tx.commit().await.map_err(|error| match is_record_fault(&error) {
        true => BatchError::Fault(error),
        false => unknown(error.to_string()),
    })?;
    reach("C5").await.map_err(|error| unknown(error.to_string()))?;
    Ok(filled)
}
