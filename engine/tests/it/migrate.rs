//! Migrations: two schemas, several sets, many processes at once.

use engine::migrate::{MigrationSet, Schema, migrate};
use sqlx::PgPool;
use sqlx::migrate::{Migration, MigrationType, Migrator};

use crate::support::{Database, migrated};

async fn tables(pool: &PgPool) -> Vec<(String, String)> {
    sqlx::query_as(
        "SELECT schemaname::text, tablename::text FROM pg_tables WHERE schemaname IN ('engine', 'projection')
         ORDER BY 1, 2",
    )
    .fetch_all(pool)
    .await
    .unwrap()
}

fn set(schema: Schema, sql: &'static str) -> MigrationSet {
    let sql = sqlx::AssertSqlSafe(sql);
    let migration = Migration::new(1, "toy".into(), MigrationType::Simple, sqlx::SqlSafeStr::into_sql_str(sql), false);
    let migrator = Migrator::with_migrations(vec![migration]);
    MigrationSet { schema, name: "toy", migrator: Box::leak(Box::new(migrator)) }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_set_goes_to_its_schema_and_knows_what_it_ran() {
    let database = Database::empty().await;
    let pool = database.pool(2).await;
    let sets = [
        set(Schema::Projection, "CREATE TABLE orders (order_id bigint PRIMARY KEY)"),
        set(Schema::Engine, "CREATE TABLE contacts (customer_id text PRIMARY KEY)"),
    ];
    migrate(&pool, &sets).await.unwrap();
    let found = tables(&pool).await;
    let has = |schema: &str, table: &str| found.contains(&(schema.to_owned(), table.to_owned()));
    for table in ["processors", "positions", "outputs", "outbox", "effects", "leases", "schema_ids", "barriers"] {
        assert!(has("engine", table), "{table} in {found:?}");
    }
    assert!(has("projection", "commands") && has("projection", "read_models"), "{found:?}");
    assert!(has("projection", "orders") && has("engine", "contacts"), "{found:?}");
    for schema in ["engine", "projection"] {
        assert!(has(schema, "_engine_migrations") && has(schema, "_toy_migrations"), "{found:?}");
    }
    migrate(&pool, &sets).await.unwrap();
    assert_eq!(tables(&pool).await, found, "a second run changes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_start_together_wait_for_each_other() {
    let database = Database::empty().await;
    let mut starting = Vec::new();
    for _ in 0..6 {
        let pool = database.pool(1).await;
        starting.push(tokio::spawn(async move { migrate(&pool, &[]).await }));
    }
    for started in starting {
        started.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_migration_is_refused() {
    let database = Database::empty().await;
    let pool = database.pool(1).await;
    migrate(&pool, &[set(Schema::Engine, "CREATE TABLE contacts (customer_id text)")]).await.unwrap();
    let error = migrate(&pool, &[set(Schema::Engine, "CREATE TABLE contacts (id text)")]).await.unwrap_err();
    assert!(format!("{error:#}").contains("migrating engine (toy)"), "{error:#}");
    // The lock went with the connection that held it.
    migrate(&pool, &[]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn outbox_rows_never_meet_pglz_and_are_vacuumed_early() {
    let (_database, pool) = migrated().await;
    let (storage, compression): (String, String) = sqlx::query_as(
        "SELECT attstorage::text, attcompression::text FROM pg_attribute
         WHERE attrelid = 'outbox'::regclass AND attname = 'records'",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    // lz4, or, by a server that was built without it, nothing.
    assert!(compression == "l" || storage == "e", "storage {storage}, compression {compression:?}");
    let (options,): (Vec<String>,) = sqlx::query_as("SELECT reloptions FROM pg_class WHERE oid = 'outbox'::regclass")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert!(options.contains(&"autovacuum_vacuum_scale_factor=0".to_owned()), "{options:?}");
}
