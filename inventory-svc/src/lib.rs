//! The inventory service: it keeps the catalogue and the stock, sets stock aside for orders, and lets it go again.

pub mod app;
pub mod config;
pub mod domain;
pub mod http;
mod http_bodies;
pub mod processor;
pub mod products;
mod row;
pub mod state;
pub mod store;

#[cfg(test)]
mod domain_properties;
#[cfg(test)]
mod domain_tests;
