//! A TCP proxy in front of Kafka or Postgres that loses connections and replies on demand.
//!
//! Kafka's clients go where its answers send them, so the broker's port in them is replaced by the proxy's.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Debug)]
struct Wire {
    target: SocketAddr,
    here: SocketAddr,
    is_kafka: bool,
    up: watch::Sender<bool>,
    /// Of a transaction whose statements carry these bytes, the reply to COMMIT is lost.
    doomed: Mutex<Option<Vec<u8>>>,
    lost: AtomicUsize,
}

#[derive(Debug, Clone)]
pub(crate) struct Proxy(Arc<Wire>);

/// What a connection's two directions tell each other: its transaction is doomed, its COMMIT has passed.
#[derive(Debug, Default)]
struct Fate {
    doomed: std::sync::atomic::AtomicBool,
    committed: std::sync::atomic::AtomicBool,
}

impl Proxy {
    pub(crate) async fn of_kafka(bootstrap: &str) -> Self {
        Self::start(bootstrap, true).await
    }

    /// In front of the server of this URL.
    pub(crate) async fn of_postgres(url: &str) -> Self {
        let options: sqlx::postgres::PgConnectOptions = url.parse().unwrap();
        Self::start(&format!("{}:{}", options.get_host(), options.get_port()), false).await
    }

    async fn start(target: &str, is_kafka: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (target, here) = (target.parse().unwrap(), listener.local_addr().unwrap());
        let (up, lost) = (watch::Sender::new(true), AtomicUsize::new(0));
        let wire = Arc::new(Wire { target, here, is_kafka, up, doomed: Mutex::new(None), lost });
        let proxy = Self(Arc::clone(&wire));
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                if *wire.up.borrow() {
                    tokio::spawn(Arc::clone(&wire).carry(client));
                }
            }
        });
        proxy
    }

    pub(crate) fn address(&self) -> String {
        self.0.here.to_string()
    }

    /// The same database, behind this proxy.
    pub(crate) fn url(&self, url: &str) -> String {
        let options: sqlx::postgres::PgConnectOptions = url.parse().unwrap();
        let there = format!("{}:{}", options.get_host(), options.get_port());
        url.replace(&there, &self.address())
    }

    /// Every connection is lost, and no new one is made.
    pub(crate) fn down(&self) {
        self.0.up.send_replace(false);
    }

    pub(crate) fn up(&self) {
        self.0.up.send_replace(true);
    }

    /// Loses the reply to the COMMIT of the next transaction that carries these bytes.
    pub(crate) fn lose_commit_of(&self, marker: &str) {
        *self.0.doomed.lock().unwrap() = Some(marker.as_bytes().to_vec());
    }

    /// Replies lost.
    pub(crate) fn lost(&self) -> usize {
        self.0.lost.load(Ordering::Acquire)
    }
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

impl Wire {
    async fn carry(self: Arc<Self>, client: TcpStream) {
        let Ok(server) = TcpStream::connect(self.target).await else { return };
        client.set_nodelay(true).unwrap();
        server.set_nodelay(true).unwrap();
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        let mut up = self.up.subscribe();
        let fate = Fate::default();
        // Whichever ends first takes both connections with it.
        tokio::select! {
            _ = up.wait_for(|up| !up) => {}
            () = self.forth(from_client, to_server, &fate) => {}
            () = self.back(from_server, to_client, &fate) => {}
        }
    }

    async fn forth(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, fate: &Fate) {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from.read(&mut bytes).await {
            let sent = &bytes[..length];
            if self.dooms(sent) {
                fate.doomed.store(true, Ordering::Release);
            }
            if fate.doomed.load(Ordering::Acquire) && holds(sent, b"COMMIT\0") {
                fate.committed.store(true, Ordering::Release);
            }
            if to.write_all(sent).await.is_err() {
                return;
            }
        }
    }

    fn dooms(&self, sent: &[u8]) -> bool {
        let mut doomed = self.doomed.lock().unwrap();
        doomed.take_if(|marker| holds(sent, marker)).is_some()
    }

    async fn back(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, fate: &Fate) {
        let mut bytes = vec![0; 64 * 1024];
        loop {
            let reply = if self.is_kafka { self.frame(&mut from).await } else { chunk(&mut from, &mut bytes).await };
            let Some(reply) = reply else { return };
            if fate.committed.load(Ordering::Acquire) {
                self.lost.fetch_add(1, Ordering::AcqRel);
                return;
            }
            if to.write_all(&reply).await.is_err() {
                return;
            }
        }
    }

    /// One answer of a broker, with this proxy's port in place of the broker's.
    async fn frame(&self, from: &mut OwnedReadHalf) -> Option<Vec<u8>> {
        let length = from.read_u32().await.ok()?;
        let mut frame = length.to_be_bytes().to_vec();
        frame.resize(4 + length as usize, 0);
        from.read_exact(&mut frame[4..]).await.ok()?;
        let name = |address: SocketAddr| {
            let mut name = address.ip().to_string().into_bytes();
            name.extend(u32::from(address.port()).to_be_bytes());
            name
        };
        let (there, here) = (name(self.target), name(self.here));
        let places: Vec<usize> =
            frame.windows(there.len()).enumerate().filter(|(_, bytes)| *bytes == there).map(|(at, _)| at).collect();
        for at in places {
            frame[at..at + here.len()].copy_from_slice(&here);
        }
        Some(frame)
    }
}

async fn chunk(from: &mut OwnedReadHalf, bytes: &mut [u8]) -> Option<Vec<u8>> {
    match from.read(bytes).await {
        Ok(length @ 1..) => Some(bytes[..length].to_vec()),
        _ => None,
    }
}
