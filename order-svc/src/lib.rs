//! The order service: it takes orders, follows stock and payment, and says what became of each.

pub mod catalogue;
pub mod domain;
pub mod processor;
mod row;
pub mod state;
pub mod store;

#[cfg(test)]
mod domain_properties;
#[cfg(test)]
mod domain_tests;
