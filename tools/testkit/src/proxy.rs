//! A TCP proxy with faults that can be changed while it runs, in front of Kafka, Postgres or anything else.
//!
//! Bytes are never altered, but for one thing: Kafka's clients go where its answers send them, so the broker's port in them
//! is replaced by the proxy's. A link that is cut holds bytes back, as TCP does, and loses none. It goes on listening until its
//! runtime ends.

mod broker;
mod trap;
mod way;
mod wire;

use std::io;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, lookup_host};

use trap::Trap;
use wire::Wire;

/// What happens to the bytes of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Way {
    /// Each piece arrives so much later; pieces do not overtake each other.
    pub delay: Duration,
    /// At most so much more or less than `delay`.
    pub jitter: Duration,
    /// Nothing passes and nobody is told: no RST, no FIN. What was held passes when this ends.
    pub hold: bool,
    /// At most so many bytes pass in a second.
    pub bytes_per_s: Option<NonZeroU32>,
    /// Bytes pass in pieces of this size.
    pub slice: Option<NonZeroUsize>,
}

/// What happens to all connections, those to come included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// From the client to the server.
    pub up: Way,
    /// From the server to the client.
    pub down: Way,
    /// Each new connection is reset at once.
    pub refuse: bool,
    /// Each new connection is led to another server.
    pub instead: Option<SocketAddr>,
}

/// What really happened since the proxy was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Connections made to the server.
    pub connected: usize,
    /// New connections that were reset.
    pub refused: usize,
    /// Connections that were reset while they lasted.
    pub reset: usize,
    /// Connections whose client was told that the server had said its last.
    pub half_closed: usize,
    /// Pieces that were held back.
    pub held: usize,
    /// Pieces that came late.
    pub delayed: usize,
    /// Replies that were lost.
    pub lost: usize,
    /// Connections that were led to another server.
    pub misled: usize,
}

/// The proxy of one server. Clones are the same proxy.
#[derive(Debug, Clone)]
pub struct Proxy(Arc<Wire>);

impl Proxy {
    /// In front of any server; `target` is `host:port`.
    ///
    /// # Errors
    /// When the target is unknown or no port can be had.
    pub async fn of(target: &str) -> io::Result<Self> {
        Self::start(target, false).await
    }

    /// In front of a broker whose clients must not find a way past it.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub async fn of_kafka(bootstrap: &str) -> io::Result<Self> {
        Self::start(bootstrap, true).await
    }

    /// In front of the server of this URL, which names its port.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub async fn of_url(url: &str) -> io::Result<Self> {
        Self::of(authority(url)).await
    }

    async fn start(target: &str, is_kafka: bool) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let target = lookup_host(target).await?.next().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let here = listener.local_addr()?;
        if is_kafka && target.ip().to_string().len() != here.ip().to_string().len() {
            return Err(io::Error::other("a broker is renamed in place: its address must be as long as the proxy's"));
        }
        let wire = Arc::new(Wire::new(target, here, is_kafka));
        tokio::spawn(Arc::clone(&wire).listen(listener));
        Ok(Self(wire))
    }

    /// `host:port` for clients.
    #[must_use]
    pub fn address(&self) -> String {
        self.0.here.to_string()
    }

    /// The same URL, behind this proxy.
    #[must_use]
    pub fn url(&self, url: &str) -> String {
        url.replacen(authority(url), &self.address(), 1)
    }

    /// Changes the faults.
    pub fn change(&self, how: impl FnOnce(&mut Faults)) {
        self.0.faults.send_modify(how);
    }

    /// The faults as they are.
    #[must_use]
    pub fn faults(&self) -> Faults {
        *self.0.faults.borrow()
    }

    /// No more faults; what was held passes.
    pub fn heal(&self) {
        self.change(|faults| *faults = Faults::default());
        *self.0.trap() = None;
    }

    /// Every connection is reset, and so is each new one.
    pub fn down(&self) {
        self.change(|faults| faults.refuse = true);
        self.reset();
    }

    /// The end of [`Self::down`].
    pub fn up(&self) {
        self.change(|faults| faults.refuse = false);
    }

    /// RST on both sides of every connection there is.
    pub fn reset(&self) {
        self.0.orders.send_modify(|orders| orders.resets += 1);
    }

    /// FIN to the client of every connection there is; what it sends still arrives.
    pub fn half_close(&self) {
        self.0.orders.send_modify(|orders| orders.half_closes += 1);
    }

    /// Loses the reply to the COMMIT of the next transaction that carries these bytes, and its connection with it.
    pub fn lose_commit_of(&self, marker: &str) {
        *self.0.trap() = Some(Trap::of_commit(marker));
    }

    /// Loses the reply to the next bytes like these that pass to the server, and the connection with it.
    pub fn lose_reply_to(&self, bytes: &[u8]) {
        *self.0.trap() = Some(Trap::of(bytes));
    }

    /// What happened so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.0.counts()
    }
}

/// `host:port` of a URL.
fn authority(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or(rest);
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

#[cfg(test)]
#[path = "proxy_tests.rs"]
mod tests;
