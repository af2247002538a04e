//! The notification service: it tells customers what became of their orders, and reminds them to pay.
//!
//! Read in this order: [`domain`] (the rules), [`state`] (what is known), [`wording`] (what is said), [`processor`] (what a
//! batch does), [`store`] (what is in Postgres), [`contact`] and [`mailer`] (who is told, and how), [`http`] (what a client
//! can ask), [`config`] and [`app`].

pub mod app;
pub mod config;
pub mod contact;
pub mod domain;
pub mod http;
mod http_bodies;
pub mod mailer;
pub mod processor;
mod row;
pub mod state;
pub mod store;
pub mod wording;

#[cfg(test)]
mod domain_properties;
#[cfg(test)]
mod domain_tests;
