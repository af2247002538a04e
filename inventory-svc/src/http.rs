//! What a client can ask: the catalogue's products and their stock. Operators change them, anybody may look.
//!
//! Nothing is decided here: every change is a command. Without `Prefer: wait` it is accepted before it is judged.

use std::sync::Arc;

use actix_web::{HttpResponse, web};
use edge::answer::{Answer, Ids};
use edge::auth::{Access, Caller};
use edge::commands::{Commands, Draft, Intent};
use edge::facts::Facts;
use edge::json::Json;
use edge::problem::{Document, Problem};
use edge::routes::Routes;
use engine::wait::Decided;
use events::id::ProductId;
use events::inventory::{AdjustStock, DelistProduct, InventoryCommand, ListProduct, ReceiveStock, RepriceProduct};
use events::record::CommandRef;
use host::{Base, Ready};
use utoipa::OpenApi;

use crate::domain::Refusal;
use crate::http_bodies::{Accepted, Adjustment, Price, PriceView, ProductView, Receipt, StockView, WantedProduct};
use crate::processor::Inventory;
use crate::state::{Listing, Product};
use crate::store;

/// What a handler needs beside the commands.
struct Warehouse {
    base: Base,
}

impl Warehouse {
    async fn product(&self, product_id: ProductId) -> Result<Product, Problem> {
        let pool = self.base.pool.clone();
        // In a task of its own: a client that goes away drops no query half-way.
        let read = tokio::spawn(async move {
            let mut conn = pool.acquire().await?;
            store::find_product(&mut conn, product_id).await
        });
        let found = read.await.map_err(|_| Problem::internal())?;
        let found = found.map_err(|_| Problem::unavailable("The service cannot reach its data now.", 2))?;
        found.ok_or_else(Problem::not_found)
    }

    fn draft(&self, command: InventoryCommand) -> Result<Draft, Problem> {
        let type_name = command.type_name();
        match command.encode(&self.base.codec) {
            Ok(value) => Ok(Draft { type_name, value }),
            Err(error) => {
                tracing::error!(%error, "a command cannot be encoded");
                Err(Problem::internal())
            }
        }
    }

    async fn stock_view(&self, product_id: ProductId) -> Result<HttpResponse, Problem> {
        let product = self.product(product_id).await?;
        Ok(HttpResponse::Ok().json(StockView::of(product_id, &product)))
    }

    async fn product_view(&self, product_id: ProductId) -> Result<ProductView, Problem> {
        let product = self.product(product_id).await?;
        ProductView::of(product_id, &product).ok_or_else(Problem::not_found)
    }
}

/// The 202 of every command.
fn accepted(ids: Ids) -> Answer {
    let product_id = ProductId(ids.subject);
    let body = serde_json::json!({"product_id": product_id, "status": "ACCEPTED"});
    Answer::new(format!("/v1/products/{product_id}/stock"), &body)
}

/// A refusal as a problem; one that changed nothing because it was so already is answered like the success.
fn refused(decided: &Decided) -> Result<(), Problem> {
    let Some(reason) = decided.refused.as_deref() else { return Ok(()) };
    if reason == Refusal::NoChange.code() {
        return Ok(());
    }
    if reason == Refusal::UnknownProduct.code() {
        return Err(Problem::not_found());
    }
    Err(Problem::conflict(reason.to_owned(), "The command was refused."))
}

/// How much of a product there is
#[utoipa::path(
    get, path = "/v1/products/{id}/stock", tag = "stock", security(("bearer" = [])),
    params(("id" = String, Path, description = "The product")),
    responses(
        (status = 200, body = StockView),
        (status = 401, body = Document), (status = 404, body = Document), (status = 503, body = Document),
    )
)]
async fn get_stock(
    _caller: Caller,
    product_id: web::Path<ProductId>,
    warehouse: web::Data<Warehouse>,
) -> Result<HttpResponse, Problem> {
    let product = warehouse.product(*product_id).await?;
    if product.listing == Listing::Never {
        return Err(Problem::not_found());
    }
    Ok(HttpResponse::Ok().json(StockView::of(*product_id, &product)))
}

/// Put a product into the catalogue
///
/// Under an ID of yours when you import, otherwise it gets one.
#[utoipa::path(
    post, path = "/v1/products", tag = "products", security(("bearer" = [])),
    params(
        ("Idempotency-Key" = String, Header, description = "8 to 255 visible ASCII characters"),
        ("Prefer" = Option<String>, Header, description = "`wait=5` waits for the decision"),
    ),
    request_body = WantedProduct,
    responses(
        (status = 201, body = ProductView, description = "Decided: it is listed"),
        (status = 202, body = Accepted, description = "Accepted"),
        (status = 400, body = Document), (status = 401, body = Document), (status = 403, body = Document),
        (status = 409, body = Document), (status = 422, body = Document), (status = 503, body = Document),
    )
)]
async fn post_product(
    caller: Caller,
    facts: Facts,
    body: Json<WantedProduct>,
    warehouse: web::Data<Warehouse>,
    commands: web::Data<Commands>,
) -> Result<HttpResponse, Problem> {
    let wanted = &body.value;
    let intent = Intent {
        facts: &facts,
        caller: &caller.subject,
        body: body.canonical()?,
        subject: wanted.product_id.map(|product_id| product_id.0),
        answer: accepted,
    };
    let taken = commands.submit(intent, async |subject, command| {
        let CommandRef { command_id, caller, key_hash, fingerprint } = command;
        let list = ListProduct {
            product_id: ProductId(subject),
            name: wanted.name.clone(),
            price: wanted.price,
            command_id,
            caller,
            key_hash,
            fingerprint,
        };
        warehouse.draft(list.into())
    });
    let taken = taken.await?;
    commands
        .reply(taken, &facts, async |ids, decided| {
            refused(&decided)?;
            let view = warehouse.product_view(ProductId(ids.subject)).await?;
            let location = format!("/v1/products/{}/stock", view.product_id);
            Ok(HttpResponse::Created().insert_header(("Location", location)).json(view))
        })
        .await
}

/// Goods arrived
#[utoipa::path(
    post, path = "/v1/products/{id}/receipts", tag = "stock", security(("bearer" = [])),
    params(
        ("id" = String, Path, description = "The product"),
        ("Idempotency-Key" = String, Header, description = "8 to 255 visible ASCII characters"),
        ("Prefer" = Option<String>, Header, description = "`wait=5` waits for the decision"),
    ),
    request_body = Receipt,
    responses(
        (status = 200, body = StockView, description = "Decided: the stock afterwards"),
        (status = 202, body = Accepted, description = "Accepted"),
        (status = 400, body = Document), (status = 401, body = Document), (status = 403, body = Document),
        (status = 404, body = Document), (status = 409, body = Document), (status = 422, body = Document),
        (status = 503, body = Document),
    )
)]
async fn post_receipt(
    caller: Caller,
    facts: Facts,
    product_id: web::Path<ProductId>,
    body: Json<Receipt>,
    warehouse: web::Data<Warehouse>,
    commands: web::Data<Commands>,
) -> Result<HttpResponse, Problem> {
    let (product_id, quantity) = (*product_id, body.value.quantity);
    let intent = Intent {
        facts: &facts,
        caller: &caller.subject,
        body: body.canonical()?,
        subject: Some(product_id.0),
        answer: accepted,
    };
    let taken = commands.submit(intent, async |_, command| {
        let CommandRef { command_id, caller, key_hash, fingerprint } = command;
        warehouse.draft(ReceiveStock { product_id, quantity, command_id, caller, key_hash, fingerprint }.into())
    });
    let taken = taken.await?;
    commands
        .reply(taken, &facts, async |_, decided| {
            refused(&decided)?;
            warehouse.stock_view(product_id).await
        })
        .await
}

/// The count was wrong, or goods were damaged
#[utoipa::path(
    post, path = "/v1/products/{id}/adjustments", tag = "stock", security(("bearer" = [])),
    params(
        ("id" = String, Path, description = "The product"),
        ("Idempotency-Key" = String, Header, description = "8 to 255 visible ASCII characters"),
        ("Prefer" = Option<String>, Header, description = "`wait=5` waits for the decision"),
    ),
    request_body = Adjustment,
    responses(
        (status = 200, body = StockView, description = "Decided: the stock afterwards"),
        (status = 202, body = Accepted, description = "Accepted"),
        (status = 400, body = Document), (status = 401, body = Document), (status = 403, body = Document),
        (status = 404, body = Document), (status = 409, body = Document), (status = 422, body = Document),
        (status = 503, body = Document),
    )
)]
async fn post_adjustment(
    caller: Caller,
    facts: Facts,
    product_id: web::Path<ProductId>,
    body: Json<Adjustment>,
    warehouse: web::Data<Warehouse>,
    commands: web::Data<Commands>,
) -> Result<HttpResponse, Problem> {
    let (product_id, Adjustment { delta, reason }) = (*product_id, body.value);
    let intent = Intent {
        facts: &facts,
        caller: &caller.subject,
        body: body.canonical()?,
        subject: Some(product_id.0),
        answer: accepted,
    };
    let taken = commands.submit(intent, async |_, command| {
        let CommandRef { command_id, caller, key_hash, fingerprint } = command;
        warehouse.draft(AdjustStock { product_id, delta, reason, command_id, caller, key_hash, fingerprint }.into())
    });
    let taken = taken.await?;
    commands
        .reply(taken, &facts, async |_, decided| {
            refused(&decided)?;
            warehouse.stock_view(product_id).await
        })
        .await
}

/// Change a product's price
///
/// For orders placed from now on.
#[utoipa::path(
    put, path = "/v1/products/{id}/price", tag = "products", security(("bearer" = [])),
    params(
        ("id" = String, Path, description = "The product"),
        ("Prefer" = Option<String>, Header, description = "`wait=5` waits for the decision"),
    ),
    request_body = PriceView,
    responses(
        (status = 200, body = ProductView, description = "Decided"), (status = 202, body = Accepted, description = "Accepted"),
        (status = 401, body = Document), (status = 403, body = Document), (status = 404, body = Document),
        (status = 409, body = Document), (status = 422, body = Document), (status = 503, body = Document),
    )
)]
async fn put_price(
    caller: Caller,
    facts: Facts,
    product_id: web::Path<ProductId>,
    body: Json<Price>,
    warehouse: web::Data<Warehouse>,
    commands: web::Data<Commands>,
) -> Result<HttpResponse, Problem> {
    let (product_id, Price(price)) = (*product_id, body.value);
    let intent = Intent {
        facts: &facts,
        caller: &caller.subject,
        body: body.canonical()?,
        subject: Some(product_id.0),
        answer: accepted,
    };
    let taken = commands.submit_unkeyed(intent, async |_, command| {
        let CommandRef { command_id, caller, key_hash, fingerprint } = command;
        warehouse.draft(RepriceProduct { product_id, price, command_id, caller, key_hash, fingerprint }.into())
    });
    let taken = taken.await?;
    commands
        .reply(taken, &facts, async |_, decided| {
            refused(&decided)?;
            Ok(HttpResponse::Ok().json(warehouse.product_view(product_id).await?))
        })
        .await
}

/// Take a product out of the catalogue
///
/// Its stock and its open orders stay.
#[utoipa::path(
    delete, path = "/v1/products/{id}", tag = "products", security(("bearer" = [])),
    params(
        ("id" = String, Path, description = "The product"),
        ("Prefer" = Option<String>, Header, description = "`wait=5` waits for the decision"),
    ),
    responses(
        (status = 200, body = ProductView, description = "Decided"), (status = 202, body = Accepted, description = "Accepted"),
        (status = 401, body = Document), (status = 403, body = Document), (status = 404, body = Document),
        (status = 409, body = Document), (status = 503, body = Document),
    )
)]
async fn delete_product(
    caller: Caller,
    facts: Facts,
    product_id: web::Path<ProductId>,
    warehouse: web::Data<Warehouse>,
    commands: web::Data<Commands>,
) -> Result<HttpResponse, Problem> {
    let product_id = *product_id;
    let intent = Intent {
        facts: &facts,
        caller: &caller.subject,
        body: String::new(),
        subject: Some(product_id.0),
        answer: accepted,
    };
    let taken = commands.submit_unkeyed(intent, async |_, command| {
        let CommandRef { command_id, caller, key_hash, fingerprint } = command;
        warehouse.draft(DelistProduct { product_id, command_id, caller, key_hash, fingerprint }.into())
    });
    let taken = taken.await?;
    commands
        .reply(taken, &facts, async |_, decided| {
            refused(&decided)?;
            Ok(HttpResponse::Ok().json(warehouse.product_view(product_id).await?))
        })
        .await
}

#[derive(OpenApi)]
#[openapi(
    info(title = "Orderlog: inventory-svc", description = "The catalogue and the stock."),
    paths(get_stock, post_product, post_receipt, post_adjustment, put_price, delete_product),
    components(schemas(Accepted, StockView, ProductView, PriceView, WantedProduct, Receipt, Adjustment, Document))
)]
struct Api;

/// The document of these routes.
#[must_use]
pub fn api() -> utoipa::openapi::OpenApi {
    Api::openapi()
}

/// The public routes; called once per worker thread.
pub fn routes(ready: Ready<Inventory>) -> impl Fn() -> Routes + Clone + Send + 'static {
    let Ready { base, commands, .. } = ready;
    let commands = Arc::new(commands.expect("this service has a commands topic"));
    let warehouse = Arc::new(Warehouse { base });
    move || {
        Routes::new()
            .data(Arc::clone(&warehouse))
            .data(Arc::clone(&commands))
            .post("/v1/products", Access::Operator, post_product)
            .delete("/v1/products/{id}", Access::Operator, delete_product)
            .put("/v1/products/{id}/price", Access::Operator, put_price)
            .get("/v1/products/{id}/stock", Access::AnyRole, get_stock)
            .post("/v1/products/{id}/receipts", Access::Operator, post_receipt)
            .post("/v1/products/{id}/adjustments", Access::Operator, post_adjustment)
    }
}
