//! Listens: a site is one address with its routes. A service has two, the public one and the admin one.
//!
//! What a request goes through is [`crate::frame`]; which routes there are is each service's `http.rs`.

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::middleware::from_fn;
use actix_web::{App, HttpServer, web};
use anyhow::Context;
use engine::breaker::Breaker;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use utoipa::openapi::OpenApi;

use crate::auth::Authority;
use crate::frame::{self, Frame};
use crate::metrics::HttpMetrics;
use crate::openapi;
use crate::problem::Problem;
use crate::rotation::Rotating;
use crate::routes::Routes;
use crate::token::Keys;

/// Requests that a site works on at once; one more is told to come again.
const IN_FLIGHT_MAX: usize = 512;
/// Connections per worker; above these the kernel's queue holds them.
const CONNECTIONS_MAX: usize = 4_096;
/// How long a client may take to send the head of a request.
const HEAD_SECONDS_MAX: u64 = 5;
/// How long an idle connection is kept.
const KEEP_ALIVE_SECONDS: u64 = 75;
/// How long requests may go on after the stop was asked for.
const STOP_SECONDS_MAX: u64 = 20;
/// More threads than this per site do not help: a request's work is in the database and the log.
const WORKERS_MAX: usize = 4;

/// Binds an address, before anything else is opened, so that a taken port fails at once. Port 0 takes a free one.
///
/// # Errors
/// The sentence that names the address.
pub fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).with_context(|| format!("listening on {address}"))
}

/// An address with routes, about to be served.
pub struct Site {
    listener: TcpListener,
    keys: Arc<Rotating<Keys>>,
    metrics: HttpMetrics,
    api: Option<OpenApi>,
    in_flight_max: usize,
    needs: Option<Breaker>,
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Site").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl Site {
    /// A site on this listener, whose bearer tokens are checked with these keys.
    #[must_use]
    pub fn new(listener: TcpListener, keys: Arc<Rotating<Keys>>, metrics: HttpMetrics) -> Self {
        Self { listener, keys, metrics, api: None, in_flight_max: IN_FLIGHT_MAX, needs: None }
    }

    /// Also serves this document at `/openapi.json`, and Swagger UI at `/docs/`.
    #[must_use]
    pub fn documented(mut self, api: OpenApi) -> Self {
        self.api = Some(api);
        self
    }

    /// Answers 503 at once while this is away: no route can be served without it.
    #[must_use]
    pub fn needs(mut self, breaker: Breaker) -> Self {
        self.needs = Some(breaker);
        self
    }

    /// Works on at most so many requests at once.
    #[must_use]
    pub fn in_flight_max(mut self, requests: usize) -> Self {
        self.in_flight_max = requests;
        self
    }

    /// Starts serving. `routes` is called once per worker thread.
    ///
    /// # Errors
    /// When the listener cannot be served.
    pub fn start(self, routes: impl Fn() -> Routes + Clone + Send + 'static) -> anyhow::Result<Running> {
        let address = self.listener.local_addr().context("asking for the bound address")?;
        let frame =
            web::Data::new(Frame { metrics: self.metrics.clone(), room: Arc::new(Semaphore::new(self.in_flight_max)) });
        let authority = web::Data::new(Authority { keys: self.keys, metrics: self.metrics, needs: self.needs });
        let api = self.api;
        let factory = move || {
            let (routes, api) = (routes(), api.clone());
            App::new()
                .app_data(frame.clone())
                .app_data(authority.clone())
                // A malformed ID names nothing.
                .app_data(web::PathConfig::default().error_handler(|_, _| Problem::not_found().into()))
                .configure(|config| routes.configure(config))
                .configure(|config| openapi::configure(config, api))
                .default_service(web::to(|| std::future::ready(Err::<String, _>(Problem::not_found()))))
                .wrap(from_fn(frame::frame))
        };
        let workers = std::thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MAX);
        let server = HttpServer::new(factory)
            .workers(workers)
            .max_connections(CONNECTIONS_MAX)
            .client_request_timeout(Duration::from_secs(HEAD_SECONDS_MAX))
            .keep_alive(Duration::from_secs(KEEP_ALIVE_SECONDS))
            .shutdown_timeout(STOP_SECONDS_MAX)
            .disable_signals()
            .listen(self.listener)
            .with_context(|| format!("serving {address}"))?
            .run();
        let handle = server.handle();
        Ok(Running { address, handle, task: tokio::spawn(server) })
    }
}

/// A site that is being served.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    handle: ServerHandle,
    task: JoinHandle<std::io::Result<()>>,
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts nothing more, lets running requests end (20 s at most), and returns when all is closed.
    pub async fn stop(self) {
        self.handle.stop(true).await;
        match self.task.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, address = %self.address, "a site ended with an error"),
            Err(error) => tracing::error!(%error, address = %self.address, "a site's task ended early"),
        }
    }
}
