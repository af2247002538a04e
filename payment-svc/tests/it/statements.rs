//! Every statement of `store.rs` is prepared against the migrated schema: what checked macros would find, found without
//! a database at build time.
//!
//! What a statement does is tested in `store`.

use sqlx::{AssertSqlSafe, Executor, SqlSafeStr};

use crate::database;

/// The literals that `sqlx::query…(` is called with. None of them holds a quote of its own.
fn statements(source: &str) -> Vec<&str> {
    let calls = source.split("sqlx::query").skip(1);
    calls.map(|call| call.split('"').nth(1).expect("a literal follows the call")).collect()
}

#[tokio::test]
async fn every_statement_fits_the_schema() {
    let pool = database::migrated().await;
    let mut conn = pool.acquire().await.unwrap();
    let source = include_str!("../../src/store.rs");
    let statements = statements(source);
    assert_eq!(statements.len(), source.matches("pub async fn ").count(), "one function per statement");
    for statement in statements {
        let prepared = (&mut *conn).prepare(AssertSqlSafe(statement).into_sql_str()).await;
        assert!(prepared.is_ok(), "{statement}: {:?}", prepared.err());
    }
}
