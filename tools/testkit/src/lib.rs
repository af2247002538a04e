//! What the tests of several crates share: where the servers are, databases of their own, checks of statements, a proxy.
//!
//! It starts no server; `cargo verify` does, and tells their addresses in the environment. Nothing here is linked into a
//! service.

pub mod database;
pub mod proxy;
pub mod statements;

use std::time::{Duration, Instant};

pub use database::{Database, Migrated};
pub use proxy::Proxy;

/// The address of a server that `cargo verify` has started.
///
/// # Panics
/// It is not set.
#[must_use]
pub fn address(name: &str) -> String {
    #[expect(clippy::disallowed_methods, reason = "tests have no Config; this is the one place that reads it")]
    let address = std::env::var(name);
    address.unwrap_or_else(|_| panic!("{name} is not set: run `cargo verify`, which starts the servers of the tests"))
}

/// Letters and digits that no other test has.
#[must_use]
pub fn unique() -> String {
    format!("{:016x}", rand::random::<u64>())
}

/// Looks again and again until the answer is there.
///
/// # Panics
/// It is not there in time; the last state is in the message.
pub async fn eventually<T, S: std::fmt::Debug>(deadline: Duration, mut look: impl AsyncFnMut() -> Result<T, S>) -> T {
    let started = Instant::now();
    loop {
        match look().await {
            Ok(found) => return found,
            Err(state) if started.elapsed() > deadline => panic!("after {deadline:?}: {state:?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}
