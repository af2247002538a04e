//! What a client can ask: place an order, follow it, cancel it; and what can be ordered.
//!
//! Here are the table of routes and everything that only reads; what makes a command is in [`crate::http_commands`].

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use actix_web::{HttpResponse, HttpResponseBuilder, web};
use edge::auth::{Access, Caller};
use edge::commands::{Commands, Draft};
use edge::facts::etag;
use edge::group::Group;
use edge::lists::{Asked, Listing, Page};
use edge::problem::{Document, Problem};
use edge::routes::Routes;
use events::id::{OrderId, ProductId};
use events::order::{OrderCommand, OrderLine};
use host::{Base, Ready};
use sqlx::{PgConnection, PgPool};
use tokio::sync::Semaphore;
use utoipa::OpenApi;

use crate::history;
use crate::http_bodies::{
    Accepted, Amount, Cancellation, EventList, EventView, LineView, OrderList, OrderView, ProductList, ProductView,
    WantedLine, WantedOrder, WantedOrders,
};
use crate::http_commands::{self, post_cancel, post_order};
use crate::processor::Orders;
use crate::state::State;
use crate::store::{self, OrderFilter};

/// A client waits this long for the log.
const HISTORY_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests that read the log at once: each has Kafka clients of its own.
const HISTORIES_MAX: usize = 4;
const AWAY_RETRY_SECONDS: u64 = 2;

/// What a handler needs beside the commands.
pub(crate) struct Shop {
    base: Base,
    commands: Commands,
    histories: Arc<Semaphore>,
    /// Asked by every order that is placed, so by many at once.
    listed: Group<Vec<i64>, Arc<HashSet<ProductId>>>,
}

/// Which products can be ordered, for many requests at once: all get one answer.
async fn listed(pool: PgPool, wanted: Vec<Vec<i64>>) -> Result<Vec<Arc<HashSet<ProductId>>>, sqlx::Error> {
    let product_ids: BTreeSet<i64> = wanted.iter().flatten().copied().collect();
    let mut conn = pool.acquire().await?;
    let listed = Arc::new(store::listed_products(&mut conn, &Vec::from_iter(product_ids)).await?);
    Ok(wanted.iter().map(|_| Arc::clone(&listed)).collect())
}

/// An order, as far as it is known.
pub(crate) enum Found {
    /// It was decided on.
    Decided(State),
    /// It is in the log, and this customer placed it.
    Accepted(String),
}

impl Shop {
    /// Asks the database in a task of its own: a client that goes away drops no query half-way (PITFALLS P2.1).
    async fn read<T: 'static>(
        &self,
        query: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error> + 'static,
    ) -> Result<T, Problem> {
        let pool = self.base.pool.clone();
        let task = actix_web::rt::spawn(async move {
            let mut conn = pool.acquire().await?;
            query(&mut conn).await
        });
        let read = task.await.map_err(|error| {
            tracing::error!(%error, "a query ended early");
            Problem::internal()
        });
        Ok(read??)
    }

    /// The order, if it is one of the caller's.
    pub(crate) async fn order(&self, caller: &Caller, order_id: OrderId) -> Result<Found, Problem> {
        let load = async move |conn: &mut PgConnection| store::load_orders(conn, &[order_id.0]).await;
        let found = match self.read(load).await?.remove(&order_id) {
            Some(state) => Found::Decided(state),
            None => Found::Accepted(self.commands.accepted_by(order_id.0).await?.ok_or_else(Problem::not_found)?.0),
        };
        let customer_id = match &found {
            Found::Decided(state) => state.customer_id().unwrap_or_default(),
            Found::Accepted(customer_id) => customer_id,
        };
        if caller.may_see(customer_id) { Ok(found) } else { Err(Problem::not_found()) }
    }

    /// Those products of these lines, and maybe others, that can be ordered.
    pub(crate) async fn listed(&self, lines: &[OrderLine]) -> Result<Arc<HashSet<ProductId>>, Problem> {
        Ok(self.listed.ask(lines.iter().map(|line| line.product_id.0).collect()).await?)
    }

    /// The order's records in the log.
    async fn events(&self, order_id: OrderId, last_sequence: Option<i64>) -> Result<Vec<EventView>, Problem> {
        let away = || Problem::unavailable("The log does not answer in time.", AWAY_RETRY_SECONDS);
        let asked =
            async move |conn: &mut PgConnection| store::command_sequences(conn, order_id, history::EVENTS_MAX).await;
        self.base.servers.kafka.check().map_err(|_| away())?;
        let mut sequences = self.read(asked).await?;
        sequences.extend(last_sequence);
        let (histories, base) = (Arc::clone(&self.histories), self.base.clone());
        let reading = async move {
            // Held until the thread is done, also when the client waits no longer.
            let permit = histories.acquire_owned().await.map_err(|_| away())?;
            let read = web::block(move || {
                let _permit = permit;
                history::read(&base.kafka, &base.codec, order_id, sequences)
            });
            read.await.map_err(|_| Problem::internal())?.map_err(|error| {
                tracing::warn!(error = format!("{error:#}"), order.id = order_id.0, "an order's events cannot be read");
                away()
            })
        };
        let records = tokio::time::timeout(HISTORY_TIMEOUT, reading).await.map_err(|_| away())??;
        Ok(records.iter().map(|(record, event)| EventView::of(record, event)).collect())
    }

    pub(crate) fn draft(&self, command: OrderCommand) -> Result<Draft, Problem> {
        let type_name = command.type_name();
        match command.encode(&self.base.codec) {
            Ok(value) => Ok(Draft { type_name, value }),
            Err(error) => {
                tracing::error!(%error, "a command cannot be encoded");
                Err(Problem::internal())
            }
        }
    }
}

/// An order as an answer, with its version.
pub(crate) fn shown(
    mut response: HttpResponseBuilder,
    found: Found,
    order_id: OrderId,
) -> Result<HttpResponse, Problem> {
    let (view, version) = match found {
        Found::Decided(state) => (OrderView::of(&state).ok_or_else(Problem::not_found)?, state.version().unwrap_or(0)),
        Found::Accepted(customer_id) => (OrderView::accepted(order_id, customer_id), 0),
    };
    Ok(response.insert_header(etag(version)).json(view))
}

/// An order
///
/// Customers see their own, operators all.
#[utoipa::path(
    get, path = "/v1/orders/{id}", tag = "orders", security(("bearer" = [])),
    params(("id" = String, Path, description = "The order")),
    responses(
        (status = 200, body = OrderView, headers(("ETag" = String, description = "The version"))),
        (status = 401, body = Document), (status = 404, body = Document), (status = 503, body = Document),
    )
)]
async fn get_order(
    caller: Caller,
    order_id: web::Path<OrderId>,
    shop: web::Data<Shop>,
) -> Result<HttpResponse, Problem> {
    shown(HttpResponse::Ok(), shop.order(&caller, *order_id).await?, *order_id)
}

/// Orders, newest first
///
/// Customers see their own, operators all.
#[utoipa::path(
    get, path = "/v1/orders", tag = "orders", security(("bearer" = [])),
    params(
        ("status" = Option<String>, Query, description = "PLACED, CONFIRMED, CANCELLED, EXPIRED or REJECTED"),
        ("cursor" = Option<String>, Query, description = "next_cursor of the page before"),
        ("limit" = Option<i64>, Query, description = "1 to 200; 50 when missing"),
    ),
    responses(
        (status = 200, body = OrderList),
        (status = 401, body = Document), (status = 422, body = Document), (status = 503, body = Document),
    )
)]
async fn get_orders(
    caller: Caller,
    wanted: Asked<WantedOrders>,
    shop: web::Data<Shop>,
) -> Result<HttpResponse, Problem> {
    let WantedOrders { status, page } = wanted.0;
    let customer_id = (!caller.is_operator()).then_some(caller.subject);
    let (before, rows) = (page.after, page.rows());
    let states = shop.read(async move |conn| {
        let filter = OrderFilter { customer_id: customer_id.as_deref(), status, before };
        store::list_orders(conn, filter, rows).await
    });
    let views = states.await?.iter().filter_map(OrderView::of).collect();
    Ok(HttpResponse::Ok().json(Listing::of(views, &page, |view| view.order_id)))
}

/// What the log says of an order
///
/// Its records of order.events, refused commands among them. What Kafka does not have yet is not shown.
#[utoipa::path(
    get, path = "/v1/orders/{id}/events", tag = "orders", security(("bearer" = [])),
    params(("id" = String, Path, description = "The order")),
    responses(
        (status = 200, body = EventList),
        (status = 401, body = Document), (status = 404, body = Document), (status = 503, body = Document),
    )
)]
async fn get_events(
    caller: Caller,
    order_id: web::Path<OrderId>,
    shop: web::Data<Shop>,
) -> Result<HttpResponse, Problem> {
    let order_id = *order_id;
    let items = match shop.order(&caller, order_id).await? {
        Found::Decided(state) => shop.events(order_id, state.last_sequence()).await?,
        Found::Accepted(_) => Vec::new(),
    };
    Ok(HttpResponse::Ok().json(Listing { items, next_cursor: None }))
}

/// What can be ordered
#[utoipa::path(
    get, path = "/v1/products", tag = "products", security(("bearer" = [])),
    params(
        ("cursor" = Option<String>, Query, description = "next_cursor of the page before"),
        ("limit" = Option<i64>, Query, description = "1 to 200; 50 when missing"),
    ),
    responses(
        (status = 200, body = ProductList),
        (status = 401, body = Document), (status = 422, body = Document), (status = 503, body = Document),
    )
)]
async fn get_products(
    _caller: Caller,
    page: Asked<Page<ProductId>>,
    shop: web::Data<Shop>,
) -> Result<HttpResponse, Problem> {
    let page = page.0;
    let (after, rows) = (page.after, page.rows());
    let products = shop.read(async move |conn| store::list_products(conn, after, rows).await).await?;
    let listing = Listing::of(products, &page, |product| product.product_id);
    Ok(HttpResponse::Ok().json(listing.map(ProductView::from)))
}

#[derive(OpenApi)]
#[openapi(
    info(title = "Orderlog: order-svc", description = "Orders, from placing to their end."),
    paths(http_commands::post_order, get_orders, get_order, http_commands::post_cancel, get_events, get_products),
    components(schemas(
        Accepted,
        Amount,
        Cancellation,
        EventList,
        EventView,
        LineView,
        OrderList,
        OrderView,
        ProductList,
        ProductView,
        WantedLine,
        WantedOrder,
        Document
    ))
)]
struct Api;

/// The document of these routes.
#[must_use]
pub fn api() -> utoipa::openapi::OpenApi {
    Api::openapi()
}

/// The public routes; called once per worker thread.
pub fn routes(ready: Ready<Orders>) -> impl Fn() -> Routes + Clone + Send + 'static {
    let Ready { base, commands, .. } = ready;
    let commands = commands.expect("this service has a commands topic");
    let pool = base.pool.clone();
    let shop = Arc::new(Shop {
        base,
        commands: commands.clone(),
        histories: Arc::new(Semaphore::new(HISTORIES_MAX)),
        listed: Group::start(move |wanted| listed(pool.clone(), wanted)),
    });
    let commands = Arc::new(commands);
    move || {
        Routes::new()
            .data(Arc::clone(&shop))
            .data(Arc::clone(&commands))
            .post("/v1/orders", Access::Customer, post_order)
            .get("/v1/orders", Access::AnyRole, get_orders)
            .get("/v1/orders/{id}", Access::AnyRole, get_order)
            .post("/v1/orders/{id}/cancel", Access::AnyRole, post_cancel)
            .get("/v1/orders/{id}/events", Access::AnyRole, get_events)
            .get("/v1/products", Access::AnyRole, get_products)
    }
}
