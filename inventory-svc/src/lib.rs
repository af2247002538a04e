//! The inventory service: it keeps the catalogue and the stock, sets stock aside for orders, and lets it go again.

pub mod domain;
pub mod products;
pub mod state;

#[cfg(test)]
mod domain_properties;
#[cfg(test)]
mod domain_tests;
