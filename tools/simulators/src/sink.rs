//! The mail and SMS sink, wired: file, HTTP server, SMTP server. Nothing that arrives here is sent on.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use actix_web::dev::Server;
use actix_web::{App, HttpResponse, HttpServer, web};
use anyhow::Context;
use tokio_util::sync::CancellationToken;

use crate::config::SinkConfig;
use crate::mailbox::Mailbox;
use crate::problem::{BODY_BYTES_MAX, no_route, query_config};
use crate::sink_http::routes;
use crate::{hangup, smtp};

const WORKERS: usize = 1;
const SHUTDOWN_SECONDS_MAX: u64 = 5;

/// A bound sink.
#[expect(missing_debug_implementations, reason = "actix's server has none")]
pub struct Sink {
    http_addr: SocketAddr,
    smtp_addr: SocketAddr,
    server: Server,
    smtp: tokio::net::TcpListener,
    mailbox: Arc<Mailbox>,
}

impl Sink {
    /// Binds both addresses and reads what arrived earlier. Needs a tokio runtime, which also serves SMTP.
    ///
    /// # Errors
    /// An address is taken, the folder cannot be used or another process uses it, or the file is damaged.
    pub async fn build(config: SinkConfig) -> anyhow::Result<Self> {
        let SinkConfig { http_addr, smtp_addr, data_dir } = config;
        let http = TcpListener::bind(http_addr).with_context(|| format!("SINK_ADDR: binding {http_addr}"))?;
        let smtp = tokio::net::TcpListener::bind(smtp_addr)
            .await
            .with_context(|| format!("SMTP_ADDR: binding {smtp_addr}"))?;
        let (http_addr, smtp_addr) = (http.local_addr()?, smtp.local_addr()?);
        fs::create_dir_all(&data_dir).with_context(|| format!("DATA_DIR: making `{}`", data_dir.display()))?;
        let mailbox = Arc::new(Mailbox::open(&data_dir.join("messages.ndjson"))?);

        let inbox = web::Data::new(Arc::clone(&mailbox));
        let server = HttpServer::new(move || {
            App::new()
                .app_data(inbox.clone())
                .app_data(web::PayloadConfig::new(BODY_BYTES_MAX))
                .app_data(query_config())
                .route("/healthz", web::get().to(HttpResponse::Ok))
                .configure(routes)
                .default_service(web::to(no_route))
        })
        .workers(WORKERS)
        .disable_signals()
        .shutdown_timeout(SHUTDOWN_SECONDS_MAX)
        .on_connect(hangup::remember)
        .listen(http)?
        .run();
        Ok(Self { http_addr, smtp_addr, server, smtp, mailbox })
    }

    /// Where HTTP listens.
    pub fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// Where SMTP listens.
    pub fn smtp_addr(&self) -> SocketAddr {
        self.smtp_addr
    }

    /// Serves until `shutdown` is cancelled, then gives the file back.
    ///
    /// # Errors
    /// The HTTP server's.
    pub async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        tracing::info!(http = %self.http_addr, smtp = %self.smtp_addr, "sink listens");
        let handle = self.server.handle();
        // Ends SMTP too when HTTP ends by itself.
        let stop = shutdown.child_token();
        let smtp = tokio::spawn(smtp::serve(self.smtp, Arc::clone(&self.mailbox), stop.clone()));
        let stopping = stop.clone();
        let stopper = tokio::spawn(async move {
            stopping.cancelled().await;
            handle.stop(true).await;
        });
        let served = self.server.await;
        stopper.abort();
        stop.cancel();
        let mail = smtp.await;
        self.mailbox.close();
        served.context("serving HTTP")?;
        mail.context("serving SMTP")
    }
}
