//! Every statement of `store.rs` fits the migrated schema, and every update finds its rows by key.
//!
//! What a statement does is tested in `store`.

use testkit::statements;

use crate::database;

const SOURCE: &str = include_str!("../../src/store.rs");

#[tokio::test]
async fn every_statement_fits_the_schema() {
    statements::all_fit(&*database::migrated().await, SOURCE).await;
}

#[tokio::test]
async fn updates_find_their_rows_by_key_whatever_there_was_when_they_were_planned() {
    statements::updates_go_by_key(&*database::migrated().await, SOURCE).await;
}
