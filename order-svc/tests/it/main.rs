//! The service against a real Postgres, and the broker where the log itself is read: its statements, its rows, the fold
//! of a batch, its routes.
//!
//! Flows through all services are e2e's.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod batch;
mod cancel;
mod database;
mod history;
mod place;
mod read;
mod shop;
mod statements;
mod store;
