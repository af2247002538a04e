//! The payment service: it takes the money of an order, and gives it back when the order is given up.
//!
//! Read in this order: [`domain`] (the rules), [`report`] (what the gateway's words mean), [`state`] and [`facts`] (what is
//! known and what is said).

pub mod domain;
mod facts;
pub mod report;
pub mod state;

#[cfg(test)]
mod domain_properties;
#[cfg(test)]
mod domain_tests;
#[cfg(test)]
mod report_tests;
