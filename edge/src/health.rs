//! The admin routes of every service: `/healthz` (the process answers), `/readyz` (it does its work, or why not),
//! `/metrics`, and those of [`crate::processors`] and [`crate::desk`].
//!
//! What ready means is the service's and the engine's to say ([`Health`]). The first three are open, for probers have no
//! token; `/admin/…` takes an operator's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, HttpResponseBuilder, web};
use engine::breaker::Dependency;
use futures_util::future::BoxFuture;
use prometheus_client::registry::Registry;
use serde::Serialize;

use crate::auth::Access;
use crate::desk;
use crate::metrics;
use crate::processors::{self, Processors};
use crate::routes::Routes;

/// The answer of `/readyz` and `/admin/processors`.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Report {
    /// Everything that this process is there for is being done.
    pub ready: bool,
    /// Why it is not ready, each a sentence that says what to do where something can be done. A ready process may wait
    /// for a dependency too, one without which it still takes requests: that is said here as well.
    pub reasons: Vec<String>,
    /// The processors of this process.
    #[schema(value_type = Vec<Object>)]
    pub processors: Vec<serde_json::Value>,
    /// What it depends on.
    #[schema(value_type = Vec<Object>)]
    pub dependencies: Vec<Dependency>,
}

/// Says whether a service does its work.
pub trait Health: Send + Sync + 'static {
    /// Looks now; within a second or two, for a prober waits.
    fn report(&self) -> BoxFuture<'_, Report>;
}

/// Set first when a process stops, so that it is asked nothing more before it stops listening.
#[derive(Debug, Clone, Default)]
pub struct Stopping(Arc<AtomicBool>);

impl Stopping {
    /// From now on not ready.
    pub fn begin(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn has_begun(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// What the admin routes show.
#[derive(Clone)]
pub struct Admin {
    /// Asked by `/readyz`.
    pub health: Arc<dyn Health>,
    /// Told to go on by `/admin/processors/{partition}/resume`.
    pub processors: Arc<dyn Processors>,
    /// Shown by `/metrics`.
    pub registry: Arc<Registry>,
    /// Makes `/readyz` say no.
    pub stopping: Stopping,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").field("stopping", &self.stopping).finish_non_exhaustive()
    }
}

impl Admin {
    /// All routes of the admin port.
    #[must_use]
    pub fn routes(&self) -> Routes {
        let routes = Routes::new()
            .data(Arc::new(self.clone()))
            .get("/healthz", Access::Open, healthz)
            .get("/readyz", Access::Open, readyz)
            .get("/metrics", Access::Open, show_metrics)
            .get(processors::PROCESSORS, Access::Operator, processors::show)
            .post(processors::RESUME, Access::Operator, processors::resume)
            .get(desk::GROUPS, Access::Operator, desk::groups)
            .get(desk::RECORDS, Access::Operator, desk::records)
            .get(desk::RECORD, Access::Operator, desk::show)
            .get(desk::HELD, Access::Operator, desk::held)
            .post(desk::REDRIVE, Access::Operator, desk::redrive)
            .post(desk::DISCARD, Access::Operator, desk::discard)
            .post(desk::STANDING, Access::Operator, desk::standing);
        #[cfg(feature = "failpoints")]
        let routes = crate::failpoints::add(routes);
        routes
    }

    /// What `/readyz` says.
    pub(crate) async fn report(&self) -> Report {
        let mut report = self.health.report().await;
        if self.stopping.has_begun() {
            report.ready = false;
            report.reasons.insert(0, "the process is stopping".to_owned());
        }
        report
    }
}

async fn healthz() -> HttpResponse {
    HttpResponse::Ok().json(serde_json::json!({"status": "ok"}))
}

async fn readyz(admin: web::Data<Admin>) -> HttpResponse {
    let report = admin.report().await;
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    HttpResponseBuilder::new(status).json(report)
}

async fn show_metrics(admin: web::Data<Admin>) -> HttpResponse {
    let text = metrics::encode(&admin.registry);
    HttpResponse::Ok().insert_header((header::CONTENT_TYPE, metrics::CONTENT_TYPE)).body(text)
}
