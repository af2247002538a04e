//! The order service: it takes orders, follows stock and payment, and says what became of each.

pub mod domain;
pub mod state;
pub mod catalogue;

#[cfg(test)]
mod domain_properties;
#[cfg(test)]
mod domain_tests;
