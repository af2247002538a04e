//! The table of a site's routes: method, path, who may use it, handler.
//!
//! The table is the only way to add a route, so each has its rule, a known path with another method is 405 with `Allow`,
//! and tests can walk all of them ([`Routes::table`]).

use std::rc::Rc;
use std::sync::Arc;

use actix_web::dev::{Handler, ServiceRequest};
use actix_web::http::{Method, StatusCode, header, header::HeaderValue};
use actix_web::middleware::{Next, from_fn};
use actix_web::{FromRequest, Responder, Route, web};

use crate::auth::{self, Access};
use crate::problem::Problem;

type Configure = Box<dyn FnOnce(&mut web::ServiceConfig)>;

/// Routes and what their handlers find in [`web::Data`].
#[derive(Default)]
pub struct Routes {
    entries: Vec<Entry>,
    data: Vec<Configure>,
}

struct Entry {
    method: Method,
    path: &'static str,
    access: Access,
    route: Route,
}

impl std::fmt::Debug for Routes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.table()).finish()
    }
}

/// One route, without its handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Upper case.
    pub method: Method,
    /// With `{names}`.
    pub path: &'static str,
    /// Who may use it.
    pub access: Access,
}

impl Routes {
    /// No route.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes this value available to handlers as `web::Data<T>`.
    #[must_use]
    pub fn data<T: 'static>(mut self, value: Arc<T>) -> Self {
        let value = web::Data::from(value);
        self.data.push(Box::new(move |config| {
            config.app_data(value);
        }));
        self
    }

    /// Adds a GET route.
    #[must_use]
    pub fn get<H, A>(self, path: &'static str, access: Access, handler: H) -> Self
    where
        H: Handler<A, Output: Responder + 'static>,
        A: FromRequest + 'static,
    {
        self.add(Method::GET, path, access, handler)
    }

    /// Adds a POST route.
    #[must_use]
    pub fn post<H, A>(self, path: &'static str, access: Access, handler: H) -> Self
    where
        H: Handler<A, Output: Responder + 'static>,
        A: FromRequest + 'static,
    {
        self.add(Method::POST, path, access, handler)
    }

    /// Adds a PUT route.
    #[must_use]
    pub fn put<H, A>(self, path: &'static str, access: Access, handler: H) -> Self
    where
        H: Handler<A, Output: Responder + 'static>,
        A: FromRequest + 'static,
    {
        self.add(Method::PUT, path, access, handler)
    }

    /// Adds a DELETE route.
    #[must_use]
    pub fn delete<H, A>(self, path: &'static str, access: Access, handler: H) -> Self
    where
        H: Handler<A, Output: Responder + 'static>,
        A: FromRequest + 'static,
    {
        self.add(Method::DELETE, path, access, handler)
    }

    fn add<H, A>(mut self, method: Method, path: &'static str, access: Access, handler: H) -> Self
    where
        H: Handler<A, Output: Responder + 'static>,
        A: FromRequest + 'static,
    {
        let route = Route::new().method(method.clone()).to(handler);
        self.entries.push(Entry { method, path, access, route });
        self
    }

    /// All routes in the order in which they were added.
    #[must_use]
    pub fn table(&self) -> Vec<Listed> {
        let listed = |entry: &Entry| Listed { method: entry.method.clone(), path: entry.path, access: entry.access };
        self.entries.iter().map(listed).collect()
    }

    /// Registers one resource per path.
    pub(crate) fn configure(self, config: &mut web::ServiceConfig) {
        for add in self.data {
            add(config);
        }
        let mut resources: Vec<(&'static str, Vec<Entry>)> = Vec::new();
        for entry in self.entries {
            match resources.iter_mut().find(|(path, _)| *path == entry.path) {
                Some((_, entries)) => entries.push(entry),
                None => resources.push((entry.path, vec![entry])),
            }
        }
        for (path, entries) in resources {
            add_resource(config, path, entries);
        }
    }
}

fn add_resource(config: &mut web::ServiceConfig, path: &'static str, entries: Vec<Entry>) {
    let rules: Rc<[(Method, Access)]> = entries.iter().map(|entry| (entry.method.clone(), entry.access)).collect();
    let methods: Vec<&str> = rules.iter().map(|(method, _)| method.as_str()).collect();
    let allow = HeaderValue::from_str(&methods.join(", ")).expect("method names are header text");
    let not_allowed = move || {
        let detail = "This address does not take that method.";
        let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", detail);
        std::future::ready(Err::<String, _>(problem.with_header(header::ALLOW, allow.clone())))
    };
    let mut resource = web::resource(path).default_service(web::to(not_allowed));
    for entry in entries {
        resource = resource.route(entry.route);
    }
    config.service(resource.wrap(from_fn(move |request: ServiceRequest, next: Next<_>| {
        let rules = rules.clone();
        async move { auth::guard(&rules, request, next).await }
    })));
}
