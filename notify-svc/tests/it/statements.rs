//! Every statement of `store.rs` is prepared against the migrated schema: what checked macros would find, found without
//! a database at build time.
//!
//! What a statement does is tested in `store`; how an update finds its rows, here.

use sqlx::{AssertSqlSafe, Executor, SqlSafeStr};

use crate::database;

const SOURCE: &str = include_str!("../../src/store.rs");

/// The literals that `sqlx::query…(` is called with. None of them holds a quote of its own.
fn statements(source: &str) -> Vec<&str> {
    let calls = source.split("sqlx::query").skip(1);
    calls.map(|call| call.split('"').nth(1).expect("a literal follows the call")).collect()
}

#[tokio::test]
async fn every_statement_fits_the_schema() {
    let pool = database::migrated().await;
    let mut conn = pool.acquire().await.unwrap();
    let statements = statements(SOURCE);
    assert_eq!(statements.len(), SOURCE.matches("pub async fn ").count(), "one function per statement");
    for statement in statements {
        let prepared = (&mut *conn).prepare(AssertSqlSafe(statement).into_sql_str()).await;
        assert!(prepared.is_ok(), "{statement}: {:?}", prepared.err());
    }
}

/// A processor's connection keeps the first plan it makes, also one that is made while the table is new or empty. Walking
/// the whole index costs nothing then.
#[tokio::test]
async fn updates_find_their_rows_by_key_whatever_there_was_when_they_were_planned() {
    let pool = database::migrated().await;
    let mut conn = pool.acquire().await.unwrap();
    for setting in ["SET plan_cache_mode = force_generic_plan", "SET enable_seqscan = off"] {
        sqlx::query(setting).execute(&mut *conn).await.unwrap();
    }
    for before in ["SELECT 'new tables'", "VACUUM ANALYZE"] {
        sqlx::query(before).execute(&mut *conn).await.unwrap();
        for update in statements(SOURCE).into_iter().filter(|statement| statement.starts_with("UPDATE")) {
            let prepare = format!("PREPARE one AS {update}");
            sqlx::query(AssertSqlSafe(prepare)).execute(&mut *conn).await.unwrap();
            let arrays = vec!["NULL"; update.matches('$').count()].join(", ");
            let explain = AssertSqlSafe(format!("EXPLAIN EXECUTE one({arrays})"));
            let plan: Vec<(String,)> = sqlx::query_as(explain).fetch_all(&mut *conn).await.unwrap();
            let is_by_key = |(line,): &(String,)| line.contains("Index Cond: ") && line.contains("ANY (ARRAY[");
            assert!(plan.iter().any(is_by_key), "{before}: {plan:#?}");
            sqlx::query("DEALLOCATE one").execute(&mut *conn).await.unwrap();
        }
    }
}
