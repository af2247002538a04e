//! The payment gateway, wired: files, courier, HTTP server. `build` binds and goes on with what was under way, `run`
//! serves until told to stop; being killed instead loses nothing that was answered.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use actix_web::dev::Server;
use actix_web::{App, HttpResponse, HttpServer, web};
use anyhow::Context;
use tokio_util::sync::CancellationToken;

use crate::acquirer::Acquirer;
use crate::archive::Archive;
use crate::config::GatewayConfig;
use crate::courier::Courier;
use crate::gateway_http::{PublicUrl, api};
use crate::problem::{BODY_BYTES_MAX, no_route, query_config};
use crate::switchboard::{Switchboard, admin};
use crate::{checkout, hangup};

const WORKERS: usize = 2;
const SHUTDOWN_SECONDS_MAX: u64 = 5;

/// A bound gateway.
#[expect(missing_debug_implementations, reason = "actix's server has none")]
pub struct Gateway {
    addr: SocketAddr,
    server: Server,
    acquirer: Arc<Acquirer>,
    board: web::Data<Switchboard>,
    stop: CancellationToken,
}

impl Gateway {
    /// Binds the address and reads the ledger. Needs a tokio runtime, which also delivers the callbacks.
    ///
    /// # Errors
    /// The address is taken, the folder cannot be used or another process uses it, or a file is damaged.
    pub async fn build(config: GatewayConfig) -> anyhow::Result<Self> {
        let GatewayConfig { addr, secret, data_dir, public_url } = config;
        let listener = TcpListener::bind(addr).with_context(|| format!("GATEWAY_ADDR: binding {addr}"))?;
        let addr = listener.local_addr()?;
        fs::create_dir_all(&data_dir).with_context(|| format!("DATA_DIR: making `{}`", data_dir.display()))?;
        let stop = CancellationToken::new();
        let courier = Courier::new(secret)?;
        let acquirer = Acquirer::open(&data_dir.join("ledger.ndjson"), courier, stop.clone())?;
        let board = web::Data::new(Switchboard::new(Archive::open(&data_dir.join("calls.ndjson"))?));
        let public_url = web::Data::new(PublicUrl(public_url.unwrap_or_else(|| format!("http://{addr}"))));

        let desk = web::Data::new(Arc::clone(&acquirer));
        let switchboard = board.clone();
        let server = HttpServer::new(move || {
            App::new()
                .app_data(desk.clone())
                .app_data(switchboard.clone())
                .app_data(public_url.clone())
                .app_data(web::PayloadConfig::new(BODY_BYTES_MAX))
                .app_data(query_config())
                .route("/healthz", web::get().to(HttpResponse::Ok))
                .configure(api)
                .configure(admin)
                .configure(checkout::pages)
                .default_service(web::to(no_route))
        })
        .workers(WORKERS)
        .disable_signals()
        .shutdown_timeout(SHUTDOWN_SECONDS_MAX)
        .on_connect(hangup::remember)
        .listen(listener)?
        .run();
        Ok(Self { addr, server, acquirer, board, stop })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves until `shutdown` is cancelled, then gives the files back. Callbacks not yet delivered go on after the
    /// next `build`.
    ///
    /// # Errors
    /// The server's.
    pub async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        tracing::info!(addr = %self.addr, "gateway listens");
        let handle = self.server.handle();
        let stopper = tokio::spawn(async move {
            shutdown.cancelled().await;
            handle.stop(true).await;
        });
        let served = self.server.await;
        stopper.abort();
        self.stop.cancel();
        self.acquirer.close().await;
        self.board.close();
        served.context("serving HTTP")
    }
}
