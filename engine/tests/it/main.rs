//! The engine's contract, against a real broker, registry and Postgres. `cargo verify` starts them and says where they are.
//!
//! What needs no server is tested at the foot of the files in `src`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod acts;
mod append;
#[cfg(feature = "failpoints")]
mod boundaries;
mod child;
mod commits;
mod dead_effects;
mod desk;
mod effects;
mod faults;
mod held;
mod lease;
mod migrate;
mod order;
mod outages;
mod outside;
mod owners;
mod pool;
mod recovery;
mod refusals;
mod registry;
mod strange;
mod support;
mod timers;
mod together;
mod topics;
mod toy;
mod wait;
mod world;
