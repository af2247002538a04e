//! Serves a service's OpenAPI document at `/openapi.json` and Swagger UI, from files inside the binary, at `/docs/`.
//!
//! What the document says is each service's `http.rs`; what every document has in common is added by [`complete`].

use actix_web::http::header;
use actix_web::{HttpResponse, web};
use utoipa::PartialSchema;
use utoipa::ToSchema;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::schema::{Object, ObjectBuilder, SchemaType, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Content, OpenApi, Ref, RefOr, ResponseBuilder};
use utoipa_swagger_ui::SwaggerUi;

use crate::problem::{Document, FieldError, PROBLEM_JSON};

/// What stops any request, whatever the route.
const ANY_ERRORS: [(&str, &str); 2] =
    [("400", "A header is malformed"), ("503", "Out of room, or a dependency is down: again after Retry-After")];
/// What stops a request with a body before its route sees it.
const BODY_ERRORS: [(&str, &str); 4] = [
    ("408", "The body took too long"),
    ("413", "The body is above 64 KiB"),
    ("415", "The body is not application/json in UTF-8"),
    ("422", "The body says something wrong; `errors` names each field"),
];

/// Adds what every service has: the schema `Problem`, the security scheme `bearer`, the problems that stop a request
/// before its route sees it, and the media type of problems.
#[must_use]
pub fn complete(mut api: OpenApi) -> OpenApi {
    let components = api.components.get_or_insert_default();
    let schemas =
        [(Document::name().into_owned(), Document::schema()), (FieldError::name().into_owned(), FieldError::schema())];
    components.schemas.extend(schemas);
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT (EdDSA, typ at+jwt)").build();
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    for item in api.paths.paths.values_mut() {
        operations(item).for_each(add_problems);
    }
    api
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, .. } = item;
    [get, put, post, delete].into_iter().flatten()
}

fn add_problems(operation: &mut Operation) {
    let of_body: &[_] = if operation.request_body.is_some() { &BODY_ERRORS } else { &[] };
    let responses = &mut operation.responses.responses;
    for (status, description) in ANY_ERRORS.iter().chain(of_body) {
        let problem = Content::new(Some(Ref::from_schema_name(Document::name())));
        let response = ResponseBuilder::new().description(*description).content(PROBLEM_JSON, problem).build();
        responses.entry((*status).to_owned()).or_insert(RefOr::T(response));
    }
    for (_, response) in responses.iter_mut().filter(|(status, _)| status.starts_with(['4', '5'])) {
        if let RefOr::T(response) = response
            && let Some(content) = response.content.swap_remove("application/json")
        {
            response.content.insert(PROBLEM_JSON.to_owned(), content);
        }
    }
}

/// The schema of a text that is one of these codes.
pub fn code<T: Copy>(codes: &[T], text_of: fn(T) -> &'static str) -> Object {
    let texts = codes.iter().map(|code| text_of(*code));
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(texts)).build()
}

/// The schema of a text that is one of these codes, or null.
pub fn optional_code<T: Copy>(codes: &[T], text_of: fn(T) -> &'static str) -> Object {
    let texts = codes.iter().map(|code| serde_json::Value::from(text_of(*code)));
    let or_null = SchemaType::from_iter([Type::String, Type::Null]);
    ObjectBuilder::new().schema_type(or_null).enum_values(Some(texts.chain([serde_json::Value::Null]))).build()
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[utoipa::path(put, path = "/toys", request_body = String, responses((status = 404, body = Document)))]
    #[expect(dead_code, reason = "documented, never called")]
    fn put_toy() {}

    #[derive(utoipa::OpenApi)]
    #[openapi(paths(put_toy))]
    struct Toys;

    #[test]
    fn every_problem_is_documented_as_it_is_sent() {
        let api = serde_json::to_value(complete(<Toys as utoipa::OpenApi>::openapi())).unwrap();
        let responses = api["paths"]["/toys"]["put"]["responses"].as_object().unwrap();
        assert_eq!(responses.keys().collect::<Vec<_>>(), ["400", "404", "408", "413", "415", "422", "503"]);
        for response in responses.values() {
            let schema = json!({"schema": {"$ref": "#/components/schemas/Problem"}});
            assert_eq!(response["content"], json!({"application/problem+json": schema}));
        }
    }

    #[test]
    fn codes_are_listed() {
        let text: fn(&'static str) -> &'static str = |code| code;
        assert_eq!(serde_json::to_value(code(&["A"], text)).unwrap(), json!({"type": "string", "enum": ["A"]}));
        let optional = serde_json::to_value(optional_code(&["A"], text)).unwrap();
        assert_eq!(optional, json!({"type": ["string", "null"], "enum": ["A", null]}));
    }
}
