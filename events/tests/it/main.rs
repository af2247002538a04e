//! The contract of the log's values: bytes, schemas and JSON of every record type.
//!
//! No server is needed. The registry's side (compatibility, IDs) is tested where a registry runs.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bytes;
mod golden;
mod kinds;
mod schemas;
mod values;
