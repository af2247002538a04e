//! What a client can ask: the notices of an order, and where a customer can be reached.
//!
//! Contacts are rows, not commands: they are written here and nowhere else, and no event tells of them. How bodies look
//! is [`crate::http_bodies`].

use std::collections::BTreeMap;
use std::sync::Arc;

use actix_web::{HttpResponse, web};
use edge::auth::{Access, Caller};
use edge::json::Json;
use edge::lists::{Asked, Listing};
use edge::problem::{Document, Problem};
use edge::routes::Routes;
use edge::token::is_subject;
use events::id::OrderId;
use host::Ready;
use sqlx::PgPool;
use utoipa::OpenApi;

use crate::contact::Contact;
use crate::http_bodies::{ContactBody, ContactView, Cursor, DeliveryView, NoticeView, NoticesPage, NoticesQuery};
use crate::processor::Notices;
use crate::state::State;
use crate::store;

/// What a handler needs.
struct Desk {
    pool: PgPool,
}

impl Desk {
    /// The notices of an order, as far as this caller may know of them. Whose an order without a notice is, is not known
    /// here, so to a customer it looks like an order that does not exist.
    async fn notices(&self, caller: &Caller, order_id: OrderId) -> Result<State, Problem> {
        let pool = self.pool.clone();
        // In a task of its own: a client that goes away drops no query half-way.
        let read = tokio::spawn(async move {
            let mut conn = pool.acquire().await?;
            store::load_notices(&mut conn, &[order_id.0]).await
        });
        let mut found: BTreeMap<OrderId, State> = read.await.map_err(|_| Problem::internal())??;
        let state = found.remove(&order_id).unwrap_or_default();
        let owner = state.notices.values().next().map(|notice| notice.customer_id.as_str());
        let visible = owner.map_or(caller.is_operator(), |owner| caller.may_see(owner));
        if visible { Ok(state) } else { Err(Problem::not_found()) }
    }

    async fn put(&self, customer_id: String, contact: Contact) -> Result<(), Problem> {
        let pool = self.pool.clone();
        let written = tokio::spawn(async move {
            let mut conn = pool.acquire().await?;
            store::put_contact(&mut conn, &customer_id, &contact).await
        });
        Ok(written.await.map_err(|_| Problem::internal())??)
    }

    async fn erase(&self, customer_id: String) -> Result<(), Problem> {
        let pool = self.pool.clone();
        let erased = tokio::spawn(async move {
            let mut conn = pool.acquire().await?;
            store::delete_contact(&mut conn, &customer_id).await
        });
        Ok(erased.await.map_err(|_| Problem::internal())??)
    }
}

/// A contact is its customer's; operators may help.
fn check_owner(caller: &Caller, customer_id: &str) -> Result<(), Problem> {
    if !is_subject(customer_id) {
        return Err(Problem::not_found());
    }
    if caller.may_see(customer_id) {
        Ok(())
    } else {
        Err(Problem::forbidden("A contact can be changed by its customer or by an operator."))
    }
}

/// The notices of an order
///
/// One per kind, with what became of it on each channel. A customer sees those of their own orders; an order of which
/// nothing was told yet is 404 like one that does not exist. Operators see all, an order without a notice as an empty list.
#[utoipa::path(
    get, path = "/v1/notifications", tag = "notifications", security(("bearer" = [])),
    params(
        ("order" = String, Query, description = "The order"),
        ("limit" = Option<i64>, Query, description = "1 to 200, 50 if missing"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses(
        (status = 200, body = NoticesPage),
        (status = 401, body = Document), (status = 404, body = Document), (status = 422, body = Document),
        (status = 503, body = Document),
    )
)]
async fn get_notifications(
    caller: Caller,
    query: Asked<NoticesQuery>,
    desk: web::Data<Desk>,
) -> Result<HttpResponse, Problem> {
    let Asked(NoticesQuery { order_id, page }) = query;
    let state = desk.notices(&caller, order_id).await?;
    let behind = |kind| page.after.is_none_or(|Cursor(after)| kind > after);
    let notices: Vec<_> = state.notices.iter().filter(|(kind, _)| behind(**kind)).collect();
    let listing = Listing::of(notices, &page, |(kind, _)| Cursor(**kind));
    Ok(HttpResponse::Ok().json(listing.map(|(kind, notice)| NoticeView::of(order_id, *kind, notice))))
}

/// Say where a customer can be reached
///
/// Takes the place of what was said before. What is missing or null is no longer there.
#[utoipa::path(
    put, path = "/v1/contacts/{customer_id}", tag = "contacts", security(("bearer" = [])),
    params(("customer_id" = String, Path, description = "The `sub` of the customer's token")),
    request_body = ContactBody,
    responses(
        (status = 200, body = ContactView),
        (status = 400, body = Document), (status = 401, body = Document), (status = 403, body = Document),
        (status = 404, body = Document), (status = 413, body = Document), (status = 415, body = Document),
        (status = 422, body = Document), (status = 503, body = Document),
    )
)]
async fn put_contact(
    caller: Caller,
    customer_id: web::Path<String>,
    body: Json<ContactBody>,
    desk: web::Data<Desk>,
) -> Result<HttpResponse, Problem> {
    let customer_id = customer_id.into_inner();
    check_owner(&caller, &customer_id)?;
    let ContactBody { email, phone } = body.value;
    let view = ContactView { customer_id: customer_id.clone(), email: email.clone(), phone: phone.clone() };
    desk.put(customer_id, Contact { email, phone }).await?;
    Ok(HttpResponse::Ok().json(view))
}

/// Forget where a customer can be reached
///
/// Nothing is left of it. Their notices end as skipped from now on.
#[utoipa::path(
    delete, path = "/v1/contacts/{customer_id}", tag = "contacts", security(("bearer" = [])),
    params(("customer_id" = String, Path, description = "The `sub` of the customer's token")),
    responses(
        (status = 204, description = "Nothing is there, now or before"),
        (status = 401, body = Document), (status = 403, body = Document), (status = 404, body = Document),
        (status = 503, body = Document),
    )
)]
async fn delete_contact(
    caller: Caller,
    customer_id: web::Path<String>,
    desk: web::Data<Desk>,
) -> Result<HttpResponse, Problem> {
    let customer_id = customer_id.into_inner();
    check_owner(&caller, &customer_id)?;
    desk.erase(customer_id).await?;
    Ok(HttpResponse::NoContent().finish())
}

#[derive(OpenApi)]
#[openapi(
    info(title = "Orderlog: notify-svc", description = "Notices of orders, and where customers can be reached."),
    paths(get_notifications, put_contact, delete_contact),
    components(schemas(NoticesPage, NoticeView, DeliveryView, ContactBody, ContactView, Document))
)]
struct Api;

/// The document of these routes.
#[must_use]
pub fn api() -> utoipa::openapi::OpenApi {
    Api::openapi()
}

/// The public routes; called once per worker thread.
pub fn routes(ready: Ready<Notices>) -> impl Fn() -> Routes + Clone + Send + 'static {
    routes_on(ready.base.pool)
}

/// The public routes on this database.
pub fn routes_on(pool: PgPool) -> impl Fn() -> Routes + Clone + Send + 'static {
    let desk = Arc::new(Desk { pool });
    move || {
        Routes::new()
            .data(Arc::clone(&desk))
            .get("/v1/notifications", Access::AnyRole, get_notifications)
            .put("/v1/contacts/{customer_id}", Access::AnyRole, put_contact)
            .delete("/v1/contacts/{customer_id}", Access::AnyRole, delete_contact)
    }
}
