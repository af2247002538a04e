//! The connections of a proxy: accepted, joined to the server, ended as the faults say.
//!
//! What happens to bytes on their way is `way`'s.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::trap::{Fate, Trap};
use super::way::{Broken, Pump};
use super::{Counts, Faults};

/// What was ordered so often for all connections of that moment.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Orders {
    pub(super) resets: usize,
    pub(super) half_closes: usize,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    connected: AtomicUsize,
    refused: AtomicUsize,
    reset: AtomicUsize,
    pub(super) half_closed: AtomicUsize,
    pub(super) held: AtomicUsize,
    pub(super) delayed: AtomicUsize,
    pub(super) lost: AtomicUsize,
    misled: AtomicUsize,
}

/// What all connections of a proxy share.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) target: SocketAddr,
    pub(super) here: SocketAddr,
    pub(super) is_kafka: bool,
    pub(super) faults: watch::Sender<Faults>,
    pub(super) orders: watch::Sender<Orders>,
    pub(super) counters: Counters,
    trap: Mutex<Option<Trap>>,
}

pub(super) fn count(counter: &AtomicUsize) {
    counter.fetch_add(1, Ordering::AcqRel);
}

impl Wire {
    pub(super) fn new(target: SocketAddr, here: SocketAddr, is_kafka: bool) -> Self {
        Self {
            target,
            here,
            is_kafka,
            faults: watch::Sender::default(),
            orders: watch::Sender::default(),
            counters: Counters::default(),
            trap: Mutex::default(),
        }
    }

    pub(super) fn trap(&self) -> MutexGuard<'_, Option<Trap>> {
        self.trap.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn counts(&self) -> Counts {
        let now = |counter: &AtomicUsize| counter.load(Ordering::Acquire);
        Counts {
            connected: now(&self.counters.connected),
            refused: now(&self.counters.refused),
            reset: now(&self.counters.reset),
            half_closed: now(&self.counters.half_closed),
            held: now(&self.counters.held),
            delayed: now(&self.counters.delayed),
            lost: now(&self.counters.lost),
            misled: now(&self.counters.misled),
        }
    }

    pub(super) async fn listen(self: Arc<Self>, listener: TcpListener) {
        loop {
            // Out of descriptors: the next one may find some.
            let Ok((client, _)) = listener.accept().await else { continue };
            if self.faults.borrow().refuse {
                count(&self.counters.refused);
                abort(&client);
                continue;
            }
            tokio::spawn(Arc::clone(&self).carry(client));
        }
    }

    async fn carry(self: Arc<Self>, mut client: TcpStream) {
        let instead = self.faults.borrow().instead;
        // A server that is away refuses here, and so does the proxy.
        let Ok(mut server) = TcpStream::connect(instead.unwrap_or(self.target)).await else { return abort(&client) };
        if client.set_nodelay(true).and(server.set_nodelay(true)).is_err() {
            return;
        }
        count(&self.counters.connected);
        if instead.is_some() {
            count(&self.counters.misled);
        }
        let mut orders = self.orders.subscribe();
        let resets = orders.borrow_and_update().resets;
        let fate = Fate::default();
        let ended = {
            let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
            let up = Pump::up(&self, &fate).run(from_client, to_server);
            let down = Pump::down(&self, &fate).run(from_server, to_client);
            tokio::select! {
                ended = async { tokio::try_join!(up, down) } => ended.map(|((), ())| ()),
                _ = orders.wait_for(|orders| orders.resets > resets) => {
                    count(&self.counters.reset);
                    Err(Broken)
                }
            }
        };
        if ended.is_err() {
            abort(&client);
            abort(&server);
        }
    }
}

/// RST instead of FIN when it is dropped.
fn abort(stream: &TcpStream) {
    // One that is broken already needs none.
    drop(stream.set_zero_linger());
}
