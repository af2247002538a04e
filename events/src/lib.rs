//! What is in the log: IDs, money, event types, their envelope and their bytes.
//!
//! Read in this order: [`id`] and [`snowflake`] (who is meant), [`money`] and [`time`], [`code`] (reasons that are
//! codes, never free text), the four topics ([`order`], [`inventory`], [`payment`], [`notification`]),
//! [`envelope`] and [`headers`] (of a record), [`schema`] and [`codec`] (its value), [`partition`] (where it goes).
//!
//! This crate is pure: no IO, no clock, no randomness. Reading and writing the log is `engine`'s work.

pub mod code;
pub mod codec;
pub mod envelope;
pub mod headers;
pub mod id;
pub mod inventory;
pub mod money;
pub mod notification;
pub mod order;
pub mod partition;
pub mod payment;
pub mod record;
pub mod schema;
pub mod snowflake;
pub mod time;
