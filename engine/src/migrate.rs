//! Brings the two schemas of a service's database to this build's version, under an advisory lock.
//!
//! Each set of migrations has a table of its own in its schema. Migrations are append-only; a changed `evolve` is not one
//! of them, but a new projection version and a rebuild.

use anyhow::Context;
use sqlx::migrate::Migrator;
use sqlx::{Connection, Executor, PgConnection, PgPool};

/// Any number, the same for every process of every version.
const LOCK: i64 = 0x6f72_6465_726c_6f67;

/// Where a set of migrations belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schema {
    /// Kept for good: positions, outbox, idempotency, contacts.
    Engine,
    /// What `evolve` writes; may be emptied and folded anew.
    Projection,
}

/// One author's migrations.
#[derive(Debug, Clone, Copy)]
pub struct MigrationSet {
    /// Where they go.
    pub schema: Schema,
    /// Names their table: `_<name>_migrations`.
    pub name: &'static str,
    /// The scripts.
    pub migrator: &'static Migrator,
}

static ENGINE: Migrator = sqlx::migrate!("migrations/engine");
static PROJECTION: Migrator = sqlx::migrate!("migrations/projection");

/// Migrates both schemas: the engine's sets first, then the given ones in their order.
///
/// # Errors
/// When a migration fails, or the database was migrated by a newer build.
pub async fn migrate(pool: &PgPool, sets: &[MigrationSet]) -> anyhow::Result<()> {
    let (pool, sets) = (pool.clone(), sets.to_vec());
    let task = tokio::spawn(async move {
        let mut conn = pool.acquire().await?.detach();
        conn.execute("SET lock_timeout = 0; SET statement_timeout = 0").await?;
        sqlx::query("SELECT pg_advisory_lock($1)").bind(LOCK).execute(&mut conn).await?;
        let done = all(&mut conn, &sets, ["engine", "projection"]).await;
        // Closing the connection gives the lock back, also after a failure.
        conn.close().await?;
        done
    });
    task.await.context("migrating")?
}

/// Makes a projection schema of another name, for a fold beside the live one.
///
/// # Errors
/// When Postgres refuses.
pub async fn make_projection(conn: &mut PgConnection, sets: &[MigrationSet], name: &str) -> anyhow::Result<()> {
    let projections: Vec<_> = sets.iter().filter(|set| set.schema == Schema::Projection).copied().collect();
    let own = MigrationSet { schema: Schema::Projection, name: "engine", migrator: &PROJECTION };
    for set in std::iter::once(own).chain(projections) {
        run(conn, set, name, "engine").await?;
    }
    Ok(())
}

async fn all(conn: &mut PgConnection, sets: &[MigrationSet], names: [&str; 2]) -> anyhow::Result<()> {
    let own = [
        MigrationSet { schema: Schema::Engine, name: "engine", migrator: &ENGINE },
        MigrationSet { schema: Schema::Projection, name: "engine", migrator: &PROJECTION },
    ];
    for set in own.iter().chain(sets) {
        let (schema, other) = match set.schema {
            Schema::Engine => (names[0], names[1]),
            Schema::Projection => (names[1], names[0]),
        };
        run(conn, *set, schema, other).await?;
    }
    Ok(())
}

async fn run(conn: &mut PgConnection, set: MigrationSet, schema: &str, other: &str) -> anyhow::Result<()> {
    // Schema names are constants of this build or made by it from digits and letters; they cannot be bound.
    let path = format!("CREATE SCHEMA IF NOT EXISTS {schema}; SET search_path = {schema}, {other}");
    conn.execute(sqlx::AssertSqlSafe(path)).await?;
    let mut migrator = Migrator::with_migrations(set.migrator.iter().cloned().collect());
    migrator.set_locking(false);
    migrator.dangerous_set_table_name(format!("{schema}._{}_migrations", set.name));
    migrator.run_direct(None, conn, false).await.with_context(|| format!("migrating {schema} ({})", set.name))
}
