//! The producer bench: two-line orders, as many as go or at a rate, against one Postgres transaction per order.
//!
//! Read in this order: [`Options`] and [`Target`] (what is measured, where), [`run`] (the order of a run), `pace` (when an
//! order starts: closed or open loop), `log_sender` and `http_sender` (how), `arrivals` (when it was final), `usage` (CPU
//! and memory of the processes), `metrics` (batch sizes), `baseline` (pgbench), [`gateway`] (restarting payment-svc with
//! another adapter), [`Report`] (what is printed).
//!
//! It lists and stocks no product and signs no token: `orderctl` does. The latency of an order reaches from its intended
//! start to the moment in which its OrderConfirmed was read from Kafka, so a stall of the system delays no start and
//! hides in no figure (coordinated omission).

mod arrivals;
mod baseline;
pub mod gateway;
mod http_sender;
mod log_sender;
mod metrics;
mod pace;
mod report;
mod run;
mod target;
mod usage;

pub use report::{Batch, Conditions, Report};
pub use run::{Progress, run};
pub use target::{Gateway, Load, Mode, Options, SignToken, Target, products};
