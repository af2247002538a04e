//! The notification service: it tells customers what became of their orders, and reminds them to pay.
//!
//! Read in this order: [`domain`] (the rules), [`state`] (what is known).

pub mod domain;
pub mod state;

#[cfg(test)]
mod domain_properties;
#[cfg(test)]
mod domain_tests;
