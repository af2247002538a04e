//! The contract of `edge`, over real HTTP and a real Postgres; the log alone is a fake, so that it can lose
//! acknowledgements. What the real log does is `engine`'s contract.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod bodies;
mod desk;
mod idempotency;
mod limits;
mod processors;
mod site;
mod support;
mod tokens;
