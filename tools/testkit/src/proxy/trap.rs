//! Finds the bytes whose reply is to be lost.
//!
//! It knows no protocol: whoever sets a trap says which bytes, and in which order.

use std::sync::atomic::{AtomicBool, Ordering};

use super::wire::Wire;

/// The first connection that carries `marker` loses the reply to the `end` that follows.
#[derive(Debug)]
pub(super) struct Trap {
    marker: Vec<u8>,
    end: Vec<u8>,
}

impl Trap {
    /// The reply to these bytes.
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self { marker: Vec::new(), end: bytes.to_vec() }
    }

    /// The reply to the COMMIT of the transaction that carries this, whether it is prepared or a plain query.
    pub(super) fn of_commit(marker: &str) -> Self {
        Self { marker: marker.as_bytes().to_vec(), end: b"COMMIT\0".to_vec() }
    }
}

/// What the two directions of a connection tell each other.
#[derive(Debug, Default)]
pub(super) struct Fate(AtomicBool);

impl Fate {
    /// The next reply is lost.
    pub(super) fn is_sealed(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Looks at what passes to the server, across the borders of pieces.
#[derive(Debug, Default)]
pub(super) struct Watcher {
    caught: Option<Trap>,
    tail: Vec<u8>,
}

/// Longer patterns are not found across a border.
const TAIL_BYTES_MAX: usize = 256;

impl Watcher {
    /// Before these bytes are sent.
    pub(super) fn pass(&mut self, sent: &[u8], wire: &Wire, fate: &Fate) {
        if self.caught.is_none() {
            self.caught = wire.trap().take_if(|trap| self.holds(sent, &trap.marker));
        }
        if self.caught.as_ref().is_some_and(|trap| self.holds(sent, &trap.end)) {
            fate.0.store(true, Ordering::Release);
        }
        self.tail.extend_from_slice(&sent[sent.len().saturating_sub(TAIL_BYTES_MAX)..]);
        self.tail.drain(..self.tail.len().saturating_sub(TAIL_BYTES_MAX));
    }

    /// In these bytes, or over the border to them; what lies before it wholly is not seen again.
    fn holds(&self, sent: &[u8], pattern: &[u8]) -> bool {
        if pattern.is_empty() {
            return true;
        }
        let before = &self.tail[self.tail.len().saturating_sub(pattern.len() - 1)..];
        let border = [before, &sent[..sent.len().min(pattern.len() - 1)]].concat();
        holds(sent, pattern) || holds(&border, pattern)
    }
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
