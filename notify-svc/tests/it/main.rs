//! The service against a real Postgres and the sink for mail and SMS: its statements, its rows, the fold of a batch, what
//! it sends, and its HTTP side.
//!
//! Flows through Kafka are e2e's.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod batch;
mod database;
mod http;
mod mailer;
mod sink;
mod statements;
mod store;
