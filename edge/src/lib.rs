//! How HTTP comes in: tokens, signatures, problems, idempotency, waiting, health, metrics. Knows no business word.
//!
//! A tour, in the order of a request: [`server`] listens, [`frame`] gives every request an ID and every error its form,
//! [`routes`] is the table of what there is and [`auth`] ([`token`]) who may use it; [`json`] ([`fields`]) and [`lists`]
//! read what was sent, [`facts`] its head, [`signature`] checks a callback; [`commands`] makes one command of it
//! ([`log`], `group`, `idempotency`, [`answer`]), and [`problem`] says no. Beside them [`config`] and [`rotation`] (settings and
//! secrets), [`telemetry`], [`metrics`], [`health`], [`processors`] and [`openapi`].
//!
//! A handler of a service, whole:
//!
//! ```
//! use actix_web::{HttpResponse, web};
//! use edge::answer::{Answer, Ids};
//! use edge::auth::{Access, Caller};
//! use edge::commands::{Commands, Draft, Intent};
//! use edge::facts::Facts;
//! use edge::fields::{Body, Object};
//! use edge::json::Json;
//! use edge::problem::Problem;
//! use edge::routes::Routes;
//! use events::id::ProductId;
//!
//! struct Receipt {
//!     quantity: i64,
//! }
//!
//! impl Body for Receipt {
//!     fn read(body: &Object<'_>) -> Option<Self> {
//!         // Ask for every field first, use `?` after: so every mistake is told at once.
//!         let quantity = body.field("quantity").integer(1, 1_000_000);
//!         Some(Self { quantity: quantity? })
//!     }
//! }
//!
//! /// The 202, made from the IDs alone.
//! fn accepted(ids: Ids) -> Answer {
//!     let product = ProductId(ids.subject);
//!     Answer::new(format!("/v1/products/{product}/stock"), &serde_json::json!({"product_id": product}))
//! }
//!
//! async fn receive(
//!     caller: Caller,
//!     facts: Facts,
//!     product: web::Path<ProductId>,
//!     body: Json<Receipt>,
//!     commands: web::Data<Commands>,
//! ) -> Result<HttpResponse, Problem> {
//!     let intent = Intent {
//!         facts: &facts,
//!         caller: &caller.subject,
//!         body: body.canonical()?,
//!         subject: Some(product.0),
//!         answer: accepted,
//!     };
//!     let accepted = commands.submit(intent, async |_product, _command| {
//!         // Check what only a new command must pass, then encode it with `_command` inside.
//!         let value = vec![0, 0, 0, 0, 1, u8::try_from(body.value.quantity).unwrap_or(0)];
//!         Ok(Draft { type_name: "orderlog.inventory.ReceiveStock", value })
//!     });
//!     let accepted = accepted.await?;
//!     commands.reply(accepted, &facts, async |ids, decided| match decided.refused.as_deref() {
//!         None => Ok(HttpResponse::Ok().json(serde_json::json!({"product_id": ProductId(ids.subject)}))),
//!         Some(reason) => Err(Problem::conflict(reason.to_owned(), "The receipt was refused.")),
//!     })
//!     .await
//! }
//!
//! /// Called once per worker; `commands` is made by `Commands::start` when the service starts.
//! fn routes(commands: std::sync::Arc<Commands>) -> Routes {
//!     Routes::new().data(commands).post("/v1/products/{id}/receipts", Access::Operator, receive)
//! }
//! ```
//!
//! No other crate but a service's `http.rs` names actix-web. One-time tokens, CSRF, clients' signatures and rate limits
//! are not here yet; their places are [`routes`] and [`auth`].

pub mod answer;
pub mod auth;
pub mod commands;
pub mod config;
mod desk;
pub mod facts;
#[cfg(feature = "failpoints")]
mod failpoints;
pub mod fields;
pub mod frame;
pub mod group;
pub mod health;
mod idempotency;
pub mod json;
mod keys;
pub mod lists;
pub mod log;
pub mod metrics;
pub mod openapi;
pub mod problem;
pub mod processors;
pub mod rotation;
pub mod routes;
pub mod server;
pub mod signature;
pub mod telemetry;
pub mod token;

pub use keys::BadKeys;

/// The migrations of this crate's table, for schema `engine` ([`engine::migrate`]).
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!();
