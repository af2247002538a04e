//! The payment service: it takes the money of an order, and gives it back when the order is given up.
//!
//! Read in this order: [`domain`] (the rules), [`report`] (what the gateway's words mean), [`state`] and `facts` (what is
//! known and what is said), [`processor`] (what a batch does here), [`store`] (what is in Postgres), [`gateway`] (whom we
//! call), [`http`] (what a client can ask), [`app`] (how it is wired), [`config`] (what can be set).

pub mod app;
pub mod config;
pub mod domain;
mod facts;
pub mod gateway;
pub mod http;
mod http_bodies;
pub mod processor;
pub mod report;
mod row;
pub mod state;
pub mod store;

#[cfg(test)]
mod domain_properties;
#[cfg(test)]
mod domain_tests;
#[cfg(test)]
mod report_tests;
