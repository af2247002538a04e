//! The order service: it takes orders, follows stock and payment, and says what became of each.
//!
//! Read in this order: [`domain`] (the rules), [`state`] and [`catalogue`] (what is known of orders, and what they cost),
//! [`processor`] (what a batch does here), [`store`] (what is in Postgres), [`http`] (what a client can ask), [`history`]
//! (what the log says of one order), [`app`] (how it is wired), [`config`] (what can be set).

pub mod app;
pub mod catalogue;
pub mod config;
pub mod domain;
pub mod history;
pub mod http;
mod http_bodies;
mod http_commands;
pub mod processor;
mod refusal;
mod row;
pub mod state;
pub mod store;

#[cfg(test)]
mod domain_properties;
#[cfg(test)]
mod domain_tests;
