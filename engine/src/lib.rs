//! How the log is read and written: assignment, batch, fence, publisher, timers, effects, leases, rebuild.
//!
//! Read in this order: [`service`] (what a service tells the engine), [`run`] (the handle of a running engine), then
//! behind it `assignment` (who owns which processor), `consumer` and `feed` (how records reach it), `processor` (its
//! loop), `intake` (what becomes of a record), `batch` (the one transaction), `publisher` (how its output reaches
//! Kafka), `effects` and `timers`; [`breaker`] (what is done while a server is away); [`fold`], [`rebuild`] and
//! [`verify`] (the log again, from the start); [`append`] and [`wait`] (how HTTP writes and waits); [`failpoint`] and
//! [`mutant`] (how the test build fails and is wrong on purpose). The rules are DESIGN §2.
//!
//! The engine knows no business word. No other crate names rdkafka (tools and e2e aside).

mod acts;
pub mod append;
mod assignment;
pub mod barriers;
mod batch;
mod batch_store;
pub mod breaker;
mod calls;
pub mod clock;
mod consumer;
mod decision;
pub mod desk;
mod effects;
#[cfg(test)]
mod effects_tests;
mod exhausted;
pub mod failpoint;
mod feed;
pub mod fold;
mod held;
mod held_store;
#[cfg(test)]
mod held_tests;
mod inbox;
mod intake;
mod item;
pub mod kafka;
pub mod lease;
mod letter;
#[cfg(test)]
mod letter_tests;
mod meters;
pub mod migrate;
mod model;
pub mod mutant;
mod outbox;
pub mod own_log;
pub mod pool;
pub mod probe;
mod processor;
mod producer;
mod publisher;
#[cfg(test)]
mod publisher_tests;
pub mod rebuild;
pub mod record;
mod recovery_store;
mod refusals;
pub mod registry;
pub mod run;
pub mod service;
mod shared;
pub mod status;
mod store;
mod storm;
mod timers;
pub mod topics;
mod turns;
pub mod verify;
pub mod wait;

pub use intake::Place;
pub use meters::Meters;
pub use run::{Engine, Parts};
pub use shared::{Servers, Settings};
