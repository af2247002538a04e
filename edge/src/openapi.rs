//! Serves a service's OpenAPI document at `/openapi.json` and Swagger UI, from files inside the binary, at `/docs/`.
//!
//! What the document says is each service's `http.rs`; what every document has in common is added by [`complete`].

use actix_web::http::header;
use actix_web::{HttpResponse, web};
use utoipa::PartialSchema;
use utoipa::ToSchema;
use utoipa::openapi::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_swagger_ui::SwaggerUi;

use crate::problem::{Document, FieldError};

/// Adds what every service has: the schema `Problem` and the security scheme `bearer`.
#[must_use]
pub fn complete(mut api: OpenApi) -> OpenApi {
    let components = api.components.get_or_insert_default();
    let schemas =
        [(Document::name().into_owned(), Document::schema()), (FieldError::name().into_owned(), FieldError::schema())];
    components.schemas.extend(schemas);
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT (EdDSA, typ at+jwt)").build();
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    api
}

pub(crate) fn configure(config: &mut web::ServiceConfig, api: Option<OpenApi>) {
    let Some(api) = api else { return };
    let to_docs = || {
        let moved = HttpResponse::PermanentRedirect().insert_header((header::LOCATION, "/docs/")).finish();
        std::future::ready(moved)
    };
    config.route("/docs", web::get().to(to_docs));
    config.service(SwaggerUi::new("/docs/{_:.*}").url("/openapi.json", complete(api)));
}
