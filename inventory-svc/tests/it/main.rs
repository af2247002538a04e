//! The service against a real Postgres: its statements, its rows, and the fold of a batch.
//!
//! Flows through Kafka and HTTP are e2e's.

mod batch;
mod database;
mod statements;
mod store;
