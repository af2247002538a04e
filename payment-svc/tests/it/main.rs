//! The service against a real Postgres and the payment gateway's simulator: its statements, its rows, the fold of a batch,
//! its calls, and its HTTP side.
//!
//! Flows through Kafka are e2e's.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod batch;
mod calls;
mod database;
mod gateway_stand;
mod http;
mod site;
mod statements;
mod store;
