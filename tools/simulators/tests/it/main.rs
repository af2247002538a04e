//! The simulators from outside, over real sockets on free ports. No test needs a server that it does not start itself.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod binary;
mod calls;
mod gateway_stand;
mod mail;
mod merchant;
mod plans;
mod restart;
mod sink_stand;
mod sms;
mod tokens;

use std::time::{Duration, Instant};

/// Looks again and again until the answer is there.
///
/// # Panics
/// It is not there in time; the last state is in the message.
async fn eventually<T, S: std::fmt::Debug>(deadline: Duration, mut look: impl AsyncFnMut() -> Result<T, S>) -> T {
    let started = Instant::now();
    loop {
        match look().await {
            Ok(found) => return found,
            Err(state) if started.elapsed() > deadline => panic!("after {deadline:?}: {state:?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}
