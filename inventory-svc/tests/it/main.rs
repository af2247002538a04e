//! The service against a real Postgres: its statements, its rows, and the fold of a batch.
//!
//! Flows through Kafka and HTTP are e2e's.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod batch;
mod database;
mod statements;
mod store;
