//! What a recovery writes into Postgres beside the fold: emptied tables, positions, sequences, marks, barriers.
//!
//! One function per statement, as in [`crate::store`]; the caller owns the transaction.

use std::collections::HashMap;

use sqlx::PgConnection;

use crate::intake::Place;
use crate::mutant;
use crate::store::OutputState;

/// A fact that the engine remembers about this database.
pub(crate) async fn fact(conn: &mut PgConnection, name: &str) -> Result<Option<String>, sqlx::Error> {
    let row: Option<(String,)> =
        sqlx::query_as("SELECT value FROM facts WHERE name = $1").bind(name).fetch_optional(conn).await?;
    Ok(row.map(|(value,)| value))
}

/// Remembers a fact.
pub(crate) async fn set_fact(conn: &mut PgConnection, name: &str, value: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO facts (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value",
    )
    .bind(name)
    .bind(value)
    .execute(conn)
    .await?;
    Ok(())
}

/// Forgets a fact.
pub(crate) async fn clear_fact(conn: &mut PgConnection, name: &str) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM facts WHERE name = $1").bind(name).execute(conn).await?;
    Ok(())
}

/// Empties everything that a recovery fills: the projection, and the engine's places, sequences, outbox and tries.
pub(crate) async fn empty_all(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    let tables: Vec<(String,)> = sqlx::query_as(
        "SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) FROM pg_tables
         WHERE schemaname = 'projection' AND tablename NOT LIKE '\\_%'",
    )
    .fetch_all(&mut *conn)
    .await?;
    let mut names: Vec<String> = tables.into_iter().map(|(name,)| name).collect();
    names.extend(["outbox", "outputs", "positions", "effects", "barriers"].map(str::to_owned));
    names.retain(|name| name != "outbox" || !mutant::is("recovery-keeps-the-outbox"));
    // The names come quoted from Postgres' own catalogue, or are the constants above.
    let statement = format!("TRUNCATE {}", names.join(", "));
    sqlx::query(sqlx::AssertSqlSafe(statement)).execute(conn).await?;
    Ok(())
}

/// Sets what the log said of a processor: its positions and the sequences of its own topics.
pub(crate) async fn restore(
    conn: &mut PgConnection,
    partition: i32,
    places: &HashMap<String, Place>,
    topics: &[String; 3],
    outputs: [OutputState; 3],
) -> Result<(), sqlx::Error> {
    for (topic, place) in places {
        sqlx::query("INSERT INTO positions (partition, topic, next_offset, last_sequence) VALUES ($1, $2, $3, $4)")
            .bind(partition)
            .bind(topic)
            .bind(place.next_offset)
            .bind(place.last_sequence)
            .execute(&mut *conn)
            .await?;
    }
    for (topic, output) in topics.iter().zip(outputs) {
        sqlx::query(
            "INSERT INTO outputs (partition, topic, sequence, acked_sequence, acked_offset) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(partition)
        .bind(topic)
        .bind(output.sequence)
        .bind(output.acked_sequence)
        .bind(output.acked_offset)
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}

/// Keeps an instance number from issuing an ID again that the log holds.
pub(crate) async fn raise_lease(
    conn: &mut PgConnection,
    service: u8,
    instance: u8,
    mark_ms: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO leases AS l (service, instance, holder, mark_ms) VALUES ($1, $2, NULL, $3)
         ON CONFLICT (service, instance) DO UPDATE SET mark_ms = GREATEST(l.mark_ms, EXCLUDED.mark_ms)",
    )
    .bind(i32::from(service))
    .bind(i32::from(instance))
    .bind(mark_ms)
    .execute(conn)
    .await?;
    Ok(())
}

/// HTTP refuses writes until this partition of a commands topic is read up to here.
pub(crate) async fn save_barrier(
    conn: &mut PgConnection,
    topic: &str,
    partition: i32,
    end_offset: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO barriers (topic, partition, end_offset) VALUES ($1, $2, $3)")
        .bind(topic)
        .bind(partition)
        .bind(end_offset)
        .execute(conn)
        .await?;
    Ok(())
}
