//! The engine's contract, against a real broker, registry and Postgres. `cargo verify` starts them and says where they are.
//!
//! What needs no server is tested at the foot of the files in `src`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod append;
mod lease;
mod migrate;
mod pool;
mod registry;
mod support;
mod topics;
mod wait;
