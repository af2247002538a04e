//! Checks of all statements of a `store.rs` against its schema: what checked macros would find, found without a database
//! at build time.
//!
//! What a statement does is its crate's to test.

use sqlx::{AssertSqlSafe, Executor, PgConnection, PgPool, SqlSafeStr};

/// The literals that `sqlx::query…(` is called with. None of them holds a quote of its own.
fn literals(source: &str) -> Vec<&str> {
    let calls = source.split("sqlx::query").skip(1);
    calls.map(|call| call.split('"').nth(1).expect("a literal follows the call")).collect()
}

/// Prepares every statement of this source.
///
/// # Panics
/// One of them does not fit the schema, or there is not one per public function.
pub async fn all_fit(pool: &PgPool, source: &str) {
    let mut conn = pool.acquire().await.expect("a connection");
    let statements = literals(source);
    assert_eq!(statements.len(), source.matches("pub async fn ").count(), "one function per statement");
    for statement in statements {
        let prepared = (&mut *conn).prepare(AssertSqlSafe(statement).into_sql_str()).await;
        assert!(prepared.is_ok(), "{statement}: {:?}", prepared.err());
    }
}

/// Every UPDATE finds its rows by key, whatever there was when it was planned. A processor's connection keeps the first plan
/// it makes, also one that is made while the table is new or empty, when walking the whole index costs nothing.
///
/// # Panics
/// One of them does not.
pub async fn updates_go_by_key(pool: &PgPool, source: &str) {
    let mut conn = pool.acquire().await.expect("a connection");
    for setting in ["plan_cache_mode = force_generic_plan", "enable_seqscan = off", "enable_bitmapscan = off"] {
        execute(&mut conn, format!("SET {setting}")).await;
    }
    for before in ["SELECT 'new tables'", "VACUUM ANALYZE"] {
        execute(&mut conn, before.to_owned()).await;
        for update in literals(source).into_iter().filter(|statement| statement.starts_with("UPDATE")) {
            execute(&mut conn, format!("PREPARE one AS {update}")).await;
            let arrays = vec!["NULL"; update.matches('$').count()].join(", ");
            let explain = AssertSqlSafe(format!("EXPLAIN EXECUTE one({arrays})"));
            let plan: Vec<(String,)> = sqlx::query_as(explain).fetch_all(&mut *conn).await.expect("a plan");
            let is_by_key = |(line,): &(String,)| line.contains("Index Cond: ") && line.contains("ANY (ARRAY[");
            assert!(plan.iter().any(is_by_key), "{before}: {plan:#?}");
            execute(&mut conn, "DEALLOCATE one".to_owned()).await;
        }
    }
}

async fn execute(conn: &mut PgConnection, sql: String) {
    sqlx::query(AssertSqlSafe(sql)).execute(conn).await.expect("a statement of this file");
}
