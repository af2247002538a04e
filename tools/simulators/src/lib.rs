//! The outside world of Orderlog on loopback: a payment gateway and a sink for mail and SMS. It knows no Kafka and no
//! Postgres, keeps no secret but the one that signs callbacks, and asks nobody who they are: never expose it.
//!
//! The tour, in reading order:
//!
//! - [`config`]: what can be set.
//! - The gateway: [`gateway`] wires it. `script` says what each `pm_…` token does; `rules` decides about charges and
//!   refunds, `ledger` is the fold of the resulting `entries`, `books` the ledger with its file; `acquirer` carries calls
//!   out, `follow_up` what comes later; `courier` signs and sends callbacks; `gateway_http` is the API, `checkout` the
//!   hosted page, `switchboard` records the calls and lets plans interfere.
//! - The sink: [`sink`] wires it. `mailbox` keeps what arrived; `smtp` takes mail, which `mail` reads; `sink_http` takes
//!   SMS and lists both.
//! - Both: `journal` is the append-only file, `archive` a journal that is listed by key, `listing` cuts pages, [`plan`]
//!   scripts trouble at run time, `hangup` cuts connections, `problem` shapes errors, `clock` tells the time.

pub mod config;
pub mod gateway;
pub mod plan;
pub mod sink;

mod acquirer;
mod archive;
mod books;
mod checkout;
mod clock;
mod courier;
mod entries;
mod follow_up;
mod gateway_http;
mod hangup;
mod journal;
mod ledger;
mod listing;
mod mail;
mod mailbox;
mod problem;
mod rules;
#[cfg(test)]
mod rules_tests;
mod script;
mod sink_http;
mod smtp;
mod switchboard;
