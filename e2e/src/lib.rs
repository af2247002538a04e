//! The system from outside: real processes of all four services on real servers, driven by HTTP and read from the log.
//!
//! [`stack`] starts and ends the processes, [`client`] speaks HTTP, [`desk`] is an operator, [`check`] says whether what is
//! left is right. [`history`] and [`evidence`] write down what a run leaves, which [`checker`] judges and [`verdict`] waits
//! for; [`load`] asks for orders, [`outage`] cuts links, [`servers`] may be killed, [`matrix`] and [`chaos`] are the long runs.
//! The tests are in `tests/`; none of them calls into a service.

mod boundaries;
pub mod chaos;
pub mod check;
pub mod checker;
pub mod client;
pub mod desk;
pub mod evidence;
mod ground;
pub mod history;
pub mod load;
pub mod matrix;
pub mod outage;
mod process;
pub mod servers;
pub mod stack;
pub mod verdict;
