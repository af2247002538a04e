//! The bytes of one direction of one connection on their way.
//!
//! A reader takes in what comes, a writer lets it out when its time has come. Between them only so much is under way; then the
//! sender waits, as it would for a slow link.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::trap::{Fate, Watcher};
use super::wire::{Orders, Wire, count};
use super::{Faults, Way, broker};

const PIECE_BYTES: usize = 64 * 1024;
const PIECES_UNDER_WAY_MAX: usize = 64;
/// A limited link passes so many pieces a second.
const PIECES_PER_S: u32 = 20;

/// The connection is of no use any more: both of its sides are reset.
#[derive(Debug)]
pub(super) struct Broken;

/// A piece and when it may arrive.
struct Piece {
    due: Instant,
    bytes: Vec<u8>,
}

/// One direction of one connection.
pub(super) struct Pump<'a> {
    wire: &'a Wire,
    fate: &'a Fate,
    is_up: bool,
    faults: watch::Receiver<Faults>,
    orders: watch::Receiver<Orders>,
}

impl<'a> Pump<'a> {
    pub(super) fn up(wire: &'a Arc<Wire>, fate: &'a Fate) -> Self {
        Self { wire, fate, is_up: true, faults: wire.faults.subscribe(), orders: wire.orders.subscribe() }
    }

    pub(super) fn down(wire: &'a Arc<Wire>, fate: &'a Fate) -> Self {
        Self { is_up: false, ..Self::up(wire, fate) }
    }

    fn way(faults: &Faults, is_up: bool) -> Way {
        if is_up { faults.up } else { faults.down }
    }

    /// Carries bytes until the sender has said its last, and then says that.
    pub(super) async fn run(self, from: impl AsyncRead + Unpin, to: impl AsyncWrite + Unpin) -> Result<(), Broken> {
        let (pieces, due) = mpsc::channel(PIECES_UNDER_WAY_MAX);
        let (wire, fate, is_up) = (self.wire, self.fate, self.is_up);
        let read = take_in(wire, fate, is_up, from, pieces);
        tokio::try_join!(read, self.let_out(due, to)).map(|((), ())| ())
    }

    async fn let_out(
        mut self,
        mut pieces: mpsc::Receiver<Piece>,
        mut to: impl AsyncWrite + Unpin,
    ) -> Result<(), Broken> {
        let mut watcher = Watcher::default();
        let half_closes = self.orders.borrow_and_update().half_closes;
        let mut said_its_last = false;
        loop {
            let piece = tokio::select! {
                biased;
                () = half_close(&mut self.orders, half_closes), if !self.is_up && !said_its_last => {
                    count(&self.wire.counters.half_closed);
                    said_its_last = true;
                    to.shutdown().await.map_err(|_| Broken)?;
                    continue;
                }
                piece = pieces.recv() => piece,
            };
            let Some(piece) = piece else { break };
            tokio::time::sleep_until(piece.due).await;
            self.wait_while_held().await;
            if self.is_up {
                watcher.pass(&piece.bytes, self.wire, self.fate);
            }
            if !said_its_last {
                self.send(&piece.bytes, &mut to).await.map_err(|_| Broken)?;
            }
        }
        // The last word is held back too.
        self.wait_while_held().await;
        if said_its_last { Ok(()) } else { to.shutdown().await.map_err(|_| Broken) }
    }

    async fn wait_while_held(&mut self) {
        let is_up = self.is_up;
        if Self::way(&self.faults.borrow_and_update(), is_up).hold {
            count(&self.wire.counters.held);
            // Fails only with the proxy, which this borrows.
            drop(self.faults.wait_for(|faults| !Self::way(faults, is_up).hold).await);
        }
    }

    async fn send(&self, bytes: &[u8], to: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
        let way = Self::way(&self.faults.borrow(), self.is_up);
        let allowed = way.bytes_per_s.map_or(usize::MAX, |rate| (rate.get() / PIECES_PER_S).max(1) as usize);
        let size = way.slice.map_or(usize::MAX, std::num::NonZeroUsize::get).min(allowed);
        for piece in bytes.chunks(size) {
            if let Some(rate) = way.bytes_per_s {
                let length = u32::try_from(piece.len()).unwrap_or(u32::MAX);
                tokio::time::sleep(Duration::from_secs(1) * length / rate.get()).await;
            }
            to.write_all(piece).await?;
            to.flush().await?;
            if way.slice.is_some() {
                // So that each is a segment of its own.
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }
}

/// Returns when one more was ordered.
async fn half_close(orders: &mut watch::Receiver<Orders>, so_far: usize) {
    // Fails only with the proxy, which a pump borrows.
    drop(orders.wait_for(|orders| orders.half_closes > so_far).await);
}

async fn take_in(
    wire: &Wire,
    fate: &Fate,
    is_up: bool,
    mut from: impl AsyncRead + Unpin,
    pieces: mpsc::Sender<Piece>,
) -> Result<(), Broken> {
    let mut last = Instant::now();
    loop {
        let bytes = if wire.is_kafka && !is_up {
            broker::answer(&mut from, wire.target, wire.here).await
        } else {
            piece(&mut from).await
        };
        let Some(bytes) = bytes.map_err(|_| Broken)? else { return Ok(()) };
        if !is_up && fate.is_sealed() {
            count(&wire.counters.lost);
            return Err(Broken);
        }
        let way = Pump::way(&wire.faults.borrow(), is_up);
        let delay = lateness(way);
        if !delay.is_zero() {
            count(&wire.counters.delayed);
        }
        last = last.max(Instant::now() + delay);
        if pieces.send(Piece { due: last, bytes }).await.is_err() {
            return Ok(());
        }
    }
}

fn lateness(way: Way) -> Duration {
    let jitter = way.jitter.mul_f64(rand::random::<f64>() * 2.0);
    (way.delay + jitter).saturating_sub(way.jitter)
}

/// What has come; nothing at the end.
async fn piece(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::with_capacity(PIECE_BYTES);
    let length = from.read_buf(&mut bytes).await?;
    Ok((length > 0).then_some(bytes))
}
