//! The system from outside: real processes of all four services on real servers, driven by HTTP and read from the log.
//!
//! [`stack`] starts and ends the processes, [`client`] speaks HTTP, [`check`] says whether what is left is right. The
//! tests are in `tests/`; none of them calls into a service.

pub mod check;
pub mod client;
mod ground;
mod process;
pub mod stack;
