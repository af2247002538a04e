//! The receiving side: an HTTP server that checks each callback's signature and remembers it. It computes the signature
//! by itself, from the raw bytes.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use actix_web::dev::ServerHandle;
use actix_web::web::{Bytes, Data};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;

use crate::eventually;

pub(crate) const SECRET: &str = "whsec_test";

#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) event: Value,
    pub(crate) raw: Bytes,
    pub(crate) at: Instant,
}

impl Received {
    pub(crate) fn kind(&self) -> &str {
        self.event["type"].as_str().unwrap()
    }

    pub(crate) fn event_id(&self) -> &str {
        self.event["event_id"].as_str().unwrap()
    }
}

#[derive(Debug, Default)]
struct Inbox {
    received: Vec<Received>,
    /// So many further callbacks are answered 500.
    refusals: usize,
}

pub(crate) struct Merchant {
    addr: SocketAddr,
    inbox: Arc<Mutex<Inbox>>,
    handle: ServerHandle,
}

impl Merchant {
    pub(crate) fn open() -> Self {
        Self::open_at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    pub(crate) fn open_at(addr: SocketAddr) -> Self {
        let listener = TcpListener::bind(addr).unwrap();
        let addr = listener.local_addr().unwrap();
        let inbox = Arc::new(Mutex::new(Inbox::default()));
        let data = Data::new(Arc::clone(&inbox));
        let server =
            HttpServer::new(move || App::new().app_data(data.clone()).route("/callback", web::post().to(receive)))
                .workers(1)
                .disable_signals()
                .listen(listener)
                .unwrap()
                .run();
        let handle = server.handle();
        tokio::spawn(server);
        Self { addr, inbox, handle }
    }

    pub(crate) async fn close(self) -> SocketAddr {
        self.handle.stop(false).await;
        self.addr
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/callback", self.addr)
    }

    pub(crate) fn refuse(&self, times: usize) {
        self.inbox.lock().unwrap().refusals = times;
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.inbox.lock().unwrap().received.clone()
    }

    /// What was received about a key.
    pub(crate) fn about(&self, key: &str) -> Vec<Received> {
        let mut received = self.received();
        received.retain(|received| received.event["key"] == key);
        received
    }

    /// Waits until so many callbacks about a key were received.
    pub(crate) async fn wait_for(&self, key: &str, count: usize) -> Vec<Received> {
        eventually(Duration::from_secs(20), async || {
            let about = self.about(key);
            if about.len() >= count { Ok(about) } else { Err(about) }
        })
        .await
    }
}

#[expect(clippy::disallowed_methods, reason = "a receiver compares the signature's time with its own clock")]
async fn receive(request: HttpRequest, body: Bytes, inbox: Data<Arc<Mutex<Inbox>>>) -> HttpResponse {
    let header = request.headers().get("Gateway-Signature").unwrap().to_str().unwrap();
    let (time, hex_mac) = header.strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(format!("{time}.").as_bytes());
    mac.update(&body);
    let genuine = mac.verify_slice(&hex::decode(hex_mac).unwrap()).is_ok();
    if !genuine || now.abs_diff(time.parse().unwrap()) > 300 {
        return HttpResponse::Unauthorized().finish();
    }
    let mut inbox = inbox.lock().unwrap();
    let event = serde_json::from_slice(&body).unwrap();
    inbox.received.push(Received { event, raw: body, at: Instant::now() });
    if inbox.refusals > 0 {
        inbox.refusals -= 1;
        return HttpResponse::InternalServerError().finish();
    }
    HttpResponse::Ok().finish()
}
